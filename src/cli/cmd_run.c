/* saf run: rank 0 reads the job, all ranks run it. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/report.h"
#include "cli/words.h"
#include "saf/comm.h"
#include "saf/core_signals.h"
#include "saf/job.h"

static const char *const usage = "saf run JOB.cfg [KEY=VALUE ...] [--fresh] [--dry-run] [--quiet]";

typedef struct {
    saf_run_options options;
    bool help;
    const char *path;
    int n_overrides;
    const char *const *overrides; /* words after the path, in argv */
    const char *wrong;            /* an option that does not exist */
} command;

static void print_help(void) {
    printf("usage: %s\n\n", usage);
    printf("Runs a job: alone on one rank, under mpirun on as many as it starts.\n\n");
    printf("  KEY=VALUE   takes the place of a key of the job file: generate.max_tokens=64;\n");
    printf("              `saf help generate`, score, bench, matmul and train list the keys\n");
    printf("  --fresh     start over, whatever earlier runs left\n");
    printf("  --dry-run   check everything, print what each rank would hold, compute nothing\n");
    printf("  --quiet     only warnings and errors\n\n");
    printf("Results go to output.file; `saf report FILE.h5` reads them back. A job that was\n");
    printf("stopped (USR1, run.time_limit) or killed goes on with the same command, on as many\n");
    printf("ranks as there are then; one that is done prints its results again.\n\n");
    printf("Exit codes: 0 done; 1 failed at run time; 2 wrong usage or job file; 65 bad input\n");
    printf("file, or results of another job; 66 missing input; 70 a defect in saf; 73 cannot\n");
    printf("create output; 74 I/O error; 75 stopped early, the same command goes on;\n");
    printf("124 a rank was stopped, hung or out of reach (run.watchdog_seconds).\n");
}

/* ---- the command line ---------------------------------------------------------------------- */

static saf_status join_words(int argc, char **argv, saf_buf *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__words_print("saf", out));
    for (int i = 0; i < argc; i++) SAF_TRY(saf__words_print(argv[i], out));
out:
    return st;
}

static void parse_words(int argc, char **argv, command *c) {
    static const struct option options[] = {{"dry-run", no_argument, NULL, 'd'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"fresh", no_argument, NULL, 'f'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int letter;
    opterr = 0;
    optind = 0; /* from the start, with GNU's permutation: options may stand anywhere */
    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        c->options.dry_run |= letter == 'd';
        c->options.quiet |= letter == 'q';
        c->options.fresh |= letter == 'f';
        c->help |= letter == 'h';
        if (letter == '?') c->wrong = argv[optind - 1];
    }
    if (optind < argc) c->path = argv[optind];
    c->n_overrides = argc - optind - 1;
    c->overrides = (const char *const *)argv + optind + 1;
}

/* ---- running ------------------------------------------------------------------------------- */

/* Rank 0 reads; everybody learns whether the job is right. The reader's own message is kept: one
 * about a job file needs no rank and host in front. */
static saf_status read_job(saf_comm *world, const command *c, saf_job *job, saf_buf *error) {
    saf_status mine = SAF_OK;
    if (saf_comm_rank(world) == 0) {
        mine = saf_job_read(c->path, c->n_overrides, c->overrides, job);
        if (mine != SAF_OK && saf_buf_printf(error, "%s", saf_error_text()) != SAF_OK)
            saf_buf_free(error);
    }
    saf_status st = saf_comm_agree(world, mine);
    if (st != mine) saf_buf_free(error); /* the agreement itself failed: its message is newer */
    return st;
}

/* A batch script waits for the first word before it passes a signal on, also with --quiet
 * (jobs/launch.sh, which sets the variable and keeps the word to itself). */
static void say_first_word(void) {
    if (!getenv("SAF_FIRST_WORD")) return;
    fputs("saf: started\n", stderr);
    fflush(stderr);
}

static void say_started(saf_comm *world, const command *c, const saf_job *job) {
    int ranks = saf_comm_size(world);
    if (saf_comm_rank(world) != 0) return;
    if (c->options.quiet)
        say_first_word();
    else
        saf_log(SAF_LOG_INFO, "%s job %s on %d rank%s", saf_job_kind_name(job->kind), c->path,
                ranks, ranks == 1 ? "" : "s");
}

/* The text of a single prompt is on stdout already, and nothing else belongs there. */
static saf_status say_done(const saf_job *job) {
    saf_status st = SAF_OK;
    saf_results r = {0};
    saf__report_options options = {.completions = 8};
    SAF_TRY(saf_results_read(job->output.file, &r));
    if (job->kind == SAF_JOB_GENERATE && r.n_requests == 1 && r.failed_requests == 0)
        saf_log(SAF_LOG_INFO, "%lld tokens in %.2f s; %s", (long long)r.completion_tokens, r.run_s,
                job->output.file);
    else
        SAF_TRY(saf__report_print(stdout, job->output.file, &r, &options));
out:
    saf_results_free(&r);
    return st;
}

static saf_status run_job(saf_comm *world, const command *c) {
    saf_status st = SAF_OK;
    saf_job job = {0};
    saf_buf error = {0};
    st = read_job(world, c, &job, &error);
    if (st == SAF_OK) {
        say_started(world, c, &job);
        st = saf_job_run(world, &job, &c->options);
    }
    if (st == SAF_OK && saf_comm_rank(world) == 0 && !c->options.quiet && !c->options.dry_run)
        st = say_done(&job);
    if (st == SAF_STOPPED && saf_comm_rank(world) == 0 && !c->options.quiet)
        saf_log(SAF_LOG_INFO, "%s", saf_error_text());
    /* Rank 0 speaks for all, but a broken communication may not have reached it. */
    if (st != SAF_OK && st != SAF_STOPPED && (saf_comm_rank(world) == 0 || st == SAF_COMM))
        saf_log(SAF_LOG_ERROR, "%s", error.len ? error.data : saf_error_text());
    saf_buf_free(&error);
    saf_job_free(&job);
    return st;
}

/* What needs no job; -1 when there is one to run. */
static int32_t answer_at_once(const command *c) {
    if (c->help) {
        print_help();
        return 0;
    }
    if (c->wrong) return saf__cli_usage(usage, "unknown option \"%s\"", c->wrong);
    if (!c->path) return saf__cli_usage(usage, "`saf run` needs a job file");
    return -1;
}

/* Rank 0's command line counts: a launcher may give each rank its own. */
static saf_status answer(saf_comm *world, const command *c, int32_t *code) {
    *code = saf_comm_rank(world) == 0 ? answer_at_once(c) : 0;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, code, 1);
    return saf_comm_bcast(world, 0, &t);
}

/* The time for the start: the job file has not been read, and most ranks may not have it, but all
 * have the words of the command line. */
static double start_watchdog_s(int argc, char **argv) {
    static const char key[] = "run.watchdog_seconds=";
    double seconds = 300; /* the key's default */
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], key, sizeof key - 1) != 0) continue;
        char *end = NULL;
        long value = strtol(argv[i] + sizeof key - 1, &end, 10);
        if (end != argv[i] + sizeof key - 1 && !*end && value >= 0 && value <= 86400)
            seconds = (double)value;
    }
    return seconds;
}

int saf__cmd_run(int argc, char **argv) {
    saf_status st = SAF_OK;
    saf_comm *world = NULL;
    saf_buf words = {0};
    command c = {0};
    c.options.start_s = saf_clock_s();
    st = saf_signals_start(); /* before MPI starts threads of its own */
    if (st == SAF_OK) {
        saf_comm_watch_start(start_watchdog_s(argc, argv));
        st = saf_comm_start(&argc, &argv, &world);
    }
    if (st != SAF_OK) return saf__cli_exit(st);
    st = join_words(argc, argv, &words);
    parse_words(argc, argv, &c);
    c.options.command_line = words.data ? words.data : "";
    saf_log_setup(c.options.quiet ? SAF_LOG_WARNING : SAF_LOG_INFO,
                  saf_comm_size(world) > 1 ? saf_comm_rank(world) : -1);
    int32_t code = 0;
    if (saf_comm_size(world) == 1) saf_signals_speak();
    st = saf_comm_agree(world, st);
    if (st == SAF_OK) st = answer(world, &c, &code);
    if (st != SAF_OK) code = saf__cli_exit(st);
    if (st == SAF_OK && code < 0) {
        st = run_job(world, &c);
        code = saf_status_exit_code(st);
    }
    if (code != 0) saf_signals_exit_code(code); /* others may end before this one has */
    saf_buf_free(&words);
    if (st == SAF_COMM && saf_comm_size(world) > 1) saf_comm_abort(world, code);
    saf_comm_stop(&world);
    return code;
}
