/* saf: finds the command and hands it its words. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "saf/core_signals.h"

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "run a job (alone, or on as many ranks as mpirun starts)", saf__cmd_run},
    {"launch", "start mpirun with a job, and again after a failure", saf__cmd_launch},
    {"detect", "what the hosts have and can do, measured", saf__cmd_detect},
    {"plan", "the best layout of a job on some hosts, and why; runs nothing", saf__cmd_plan},
    {"report", "read a results file back as tables", saf__cmd_report},
    {"status", "how far a job is, from its files", saf__cmd_status},
    {"model", "info, tokens, text, make: look into a model file or make one", saf__cmd_model},
    {"help", "the keys of a kind of job, or what a command takes", saf__cmd_help},
};

static void print_help(FILE *out) {
    fprintf(out, "usage: saf COMMAND ...\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(out, "  saf %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(out,
            "\n`saf COMMAND --help` tells more, `saf --version` which saf this is. Results go to\n"
            "files, messages to stderr.\n");
}

int saf__cli_exit(saf_status status) {
    if (status != SAF_OK)
        saf_log(SAF_LOG_ERROR, "%s",
                saf_error_text()[0] ? saf_error_text() : saf_status_text(status));
    return saf_status_exit_code(status);
}

int saf__cli_usage(const char *usage, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    saf_log(SAF_LOG_ERROR, "%s", text);
    fprintf(stderr, "usage: %s\n", usage);
    return saf_status_exit_code(SAF_USAGE);
}

static bool is_command(const char *word) {
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(word, commands[i].name) == 0) return true;
    return false;
}

/* `saf help model make` becomes `saf model make --help`. */
static void turn_help_round(int argc, char **argv) {
    static char help[] = "--help";
    memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof *argv);
    argv[argc - 1] = help;
}

static int run_command(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return saf_status_exit_code(SAF_USAGE);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("saf %s\n", SAF_VERSION);
        return 0;
    }
    if (argc > 2 && strcmp(argv[1], "help") == 0 && is_command(argv[2]))
        turn_help_round(argc, argv);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    return saf__cli_usage("saf COMMAND ...", "unknown command \"%s\"; `saf --help` lists them",
                          argv[1]);
}

/* How often libgomp looks in so many seconds while it waits. It counts looks, not time, and a pause
 * takes 25 nanoseconds on one processor and 45 on another. */
static long looks_in(double seconds) {
    enum { FEWEST = 500, MOST = 1000000 };
    volatile int word = 0;
    double took = 0;
    long looks = FEWEST / 2;
    while (took < seconds / 8 && looks < MOST) { /* long for the clock, short for the user */
        looks *= 2;
        double start = saf_clock_s();
        for (long i = 0; i < looks && word == 0; i++) {
#if defined __x86_64__
            __builtin_ia32_pause();
#endif
        }
        took = saf_clock_s() - start;
    }
    double n = took > 0 ? seconds / took * (double)looks : FEWEST;
    return n < FEWEST ? FEWEST : n > MOST ? MOST : (long)n;
}

/* Threads of a rank meet many times a layer, mostly within microseconds. libgomp by default spins
 * at such a meeting for much longer, which is ruin where another process shares the core: the
 * thread that is awaited does not get to run. Where it spins for less than others wait for a thread
 * that was held up a little, they go to sleep, and waking them takes longer still. Its settings are
 * read before main, so saf starts itself again with SPIN_S, unless the user has set any. */
#define SPIN_S 125e-6
static void start_with_short_spins(char **argv) {
    static const char *const settings[] = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"};
    char looks[24];
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (getenv(settings[i])) return;
    char self[4096]; /* by its own name, which is what ps and top show */
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    snprintf(looks, sizeof looks, "%ld", looks_in(SPIN_S));
    if (n < 0 || setenv(settings[0], looks, 1) != 0) return;
    self[n] = 0;
    execv(self, argv); /* comes back only if it cannot: the spins stay long */
}

/* A job that is told to stop is to do so from its first moment on. This runs before the libraries
 * start, some of which start threads; what comes until the job takes it is kept. */
static void block_signals(int argc, char **argv, char **environment) {
    (void)environment;
    if (argc > 1 && strcmp(argv[1], "run") == 0) saf_signals_block();
}
__attribute__((section(".preinit_array"),
               used)) static void (*const before_all)(int, char **, char **) = block_signals;

int main(int argc, char **argv) {
    start_with_short_spins(argv);
    /* A limit on the size of files then is an error with a message, as a full disk is. */
    signal(SIGXFSZ, SIG_IGN);
    int code = run_command(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0)
        code = saf__cli_exit(saf_fail(SAF_IO, "cannot write to standard output"));
    return code;
}
