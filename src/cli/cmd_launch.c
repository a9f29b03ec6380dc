/* saf launch: mpirun with `saf run`, and once more after a failure that may pass. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/launch.h"
#include "saf/job.h"
#include "saf/store_checkpoint.h"

static const char *const usage =
    "saf launch [-n RANKS] [--hostfile FILE] [--retries N] [--mpirun 'WORDS'] [--dry-run] JOB.cfg "
    "[KEY=VALUE ...]";

enum { RETRIES = 3, RETRIES_MAX = 1000000, RANKS_MAX = 1 << 24 };
static const double pause_max_s = 60;

typedef struct {
    saf__launch_request q;
    int32_t retries;
    bool dry_run, help;
} command;

static void print_help(void) {
    printf("usage: %s\n\n", usage);
    printf(
        "Starts mpirun with `saf run JOB.cfg ...`, and starts it again after a failure: the job\n");
    printf("goes on from its last checkpoint. All words after JOB.cfg go to `saf run`.\n\n");
    printf(
        "  -n RANKS         ranks to start; by default the slots of the hostfile or of the "
        "batch\n");
    printf("                   system's allocation, and one where there is neither\n");
    printf(
        "  --hostfile FILE  hosts, in Open MPI's syntax. Before each start they are asked; one\n");
    printf(
        "                   that does not answer is left out, and the layout made for the rest\n");
    printf("  --retries N      how many times to start again at most (default %d)\n", RETRIES);
    printf(
        "  --mpirun WORDS   options for mpirun; or, if the first word is no option, what to "
        "start\n");
    printf("                   in place of mpirun --bind-to none\n");
    printf("  --dry-run        print the command and start nothing\n\n");
    printf(
        "It ends with the exit code of `saf run`. Started again is after 1, 124, 137 and other\n");
    printf(
        "failures, unless two attempts in a row left no newer checkpoint; not after 0, 2, 65, "
        "66,\n");
    printf(
        "70, 73, 74 and 75. INT, TERM, HUP and USR1 go on to mpirun, and nothing is started "
        "again\n");
    printf("then; a second INT ends everything at once.\n");
}

/* ---- the command line ---------------------------------------------------------------------- */

static bool read_number(const char *text, long min, long max, int32_t *out) {
    char *end = NULL;
    if (*text < '0' || *text > '9') return false;
    long n = strtol(text, &end, 10); /* too large a number is LONG_MAX */
    if (*end || n < min || n > max) return false;
    *out = (int32_t)n;
    return true;
}

/* Whether the command line is right; *code if not. Like mpirun's, long options may have a single
 * dash. */
static bool parse_words(int argc, char **argv, command *c, int *code) {
    static const struct option options[] = {{"retries", required_argument, NULL, 'r'},
                                            {"hostfile", required_argument, NULL, 'H'},
                                            {"machinefile", required_argument, NULL, 'H'},
                                            {"n", required_argument, NULL, 'n'},
                                            {"np", required_argument, NULL, 'n'},
                                            {"mpirun", required_argument, NULL, 'm'},
                                            {"dry-run", no_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int letter;
    *code = -1;
    opterr = 0;
    optind = 0; /* from the start; "+": up to the job file */
    while ((letter = getopt_long_only(argc, argv, "+", options, NULL)) != -1) {
        if (letter == 'r' && !read_number(optarg, 0, RETRIES_MAX, &c->retries))
            *code = saf__cli_usage(usage, "--retries: expected a number, 0 to %d, got \"%s\"",
                                   RETRIES_MAX, optarg);
        if (letter == 'n' && !read_number(optarg, 1, RANKS_MAX, &c->q.ranks))
            *code = saf__cli_usage(usage, "-n: expected a number of ranks, 1 to %d, got \"%s\"",
                                   RANKS_MAX, optarg);
        if (letter == 'H') c->q.hostfile = optarg;
        if (letter == 'm') c->q.mpirun = optarg;
        c->dry_run |= letter == 'd';
        c->help |= letter == 'h';
        if (letter == '?')
            *code = saf__cli_usage(usage, "unknown option, or one without its value: \"%s\"",
                                   argv[optind - 1]);
        if (*code >= 0) return false;
    }
    c->q.run = argv + optind;
    c->q.n_run = argc - optind;
    if (c->help || c->q.n_run > 0) return true;
    *code = saf__cli_usage(usage, "`saf launch` needs a job file");
    return false;
}

/* The job as `saf run` will read it: a mistake in it is found before anything is started. */
static saf_status read_job(const command *c, saf_job *job) {
    saf_status st = SAF_OK;
    const char **overrides = NULL;
    int n = 0;
    SAF_TRY(saf_alloc((size_t)c->q.n_run, sizeof *overrides, (void *)&overrides));
    for (int32_t i = 1; i < c->q.n_run; i++)
        if (c->q.run[i][0] != '-') overrides[n++] = c->q.run[i];
    st = saf_job_read(c->q.run[0], n, overrides, job);
out:
    saf_free((void *)&overrides);
    return st;
}

/* ---- one attempt --------------------------------------------------------------------------- */

typedef struct {
    const command *c;
    saf_job job;
    saf__signals signals;
    saf__hosts hosts; /* of the hostfile, if there is one */
    char *hostfile;   /* of those that answer; NULL: the user's own, or none */
    char *newest;     /* checkpoint of the job's; NULL: none */
    bool gained;      /* since saf launch began */
} launch;

/* Which hosts to use, and how many ranks (0: as many as there are slots). */
static saf_status choose_hosts(launch *l, int32_t *ranks) {
    saf_status st = SAF_OK;
    int64_t slots = 0;
    *ranks = l->c->q.ranks;
    if (!l->c->q.hostfile) return SAF_OK;
    SAF_TRY(saf__hosts_ask(&l->hosts, &l->signals));
    if (l->signals.asked || l->hosts.n_answer == l->hosts.file.n_hosts) return SAF_OK;
    if (l->hosts.n_answer == 0)
        return saf_fail(SAF_COMM, "no host of %s answers", l->c->q.hostfile);
    SAF_TRY(saf_hostfile_slots(&l->hosts.file, l->hosts.answers, &slots));
    if (*ranks > 0 && slots > 0) *ranks = (int32_t)saf_i64_min(*ranks, slots);
    st = saf__hosts_write(&l->hosts, &l->hostfile);
out:
    return st;
}

static void forget_hostfile(launch *l) {
    if (l->hostfile) (void)unlink(l->hostfile);
    saf_free(&l->hostfile);
}

/* Numbers of the layout that were right for all hosts are a mistake on the rest. */
static void say_layout(const launch *l, int code) {
    bool fixed = l->job.layout.pipeline || l->job.layout.tensor || l->job.layout.replicas ||
                 l->job.layout.n_stages || l->job.layout.n_share;
    if (code == saf_status_exit_code(SAF_USAGE) && l->hostfile && fixed)
        saf_log(SAF_LOG_WARNING,
                "the job sets layout.* for all hosts of %s, which does not fit those that answer; "
                "left out, it follows from the ranks that there are",
                l->c->q.hostfile);
}

/* *code is of mpirun; or of saf, after an error or a request to stop. */
static saf_status attempt(launch *l, int *code) {
    saf_status st = SAF_OK;
    saf__words words = {0};
    int32_t ranks = 0;
    pid_t pid = -1;
    const char *hostfile = l->c->q.hostfile;
    *code = saf_status_exit_code(SAF_STOPPED);
    SAF_TRY(choose_hosts(l, &ranks));
    if (l->signals.asked) goto out;
    if (l->hostfile) hostfile = l->hostfile;
    SAF_TRY(saf__launch_command(&l->c->q, hostfile, ranks, l->gained, &words));
    SAF_TRY(saf__process_start(&l->signals, words.items, SIGTERM, false, &pid));
    *code = saf__process_wait(&l->signals, pid);
    say_layout(l, *code);
out:
    forget_hostfile(l);
    saf__words_free(&words);
    if (st != SAF_OK) *code = saf_status_exit_code(st);
    return st;
}

/* ---- all of them --------------------------------------------------------------------------- */

/* Of codes below 128, only these may be another one the next time. */
static bool may_pass(int code) {
    static const saf_status final[] = {SAF_OK,     SAF_USAGE,         SAF_BAD_INPUT, SAF_NO_INPUT,
                                       SAF_DEFECT, SAF_CANNOT_CREATE, SAF_IO,        SAF_STOPPED};
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++)
        if (code == saf_status_exit_code(final[i])) return false;
    return true;
}

/* What came of a job that was asked to stop. */
static int stopped_code(const launch *l, int code) {
    if (l->signals.at_once) return 128 + SIGINT;
    /* ranks that had not begun die of USR1: nothing is lost, and running again goes on */
    return code == 128 + SIGUSR1 ? saf_status_exit_code(SAF_STOPPED) : code;
}

/* Whether there is a newer checkpoint than before. */
static saf_status look_at_progress(launch *l, bool *newer) {
    char *now = NULL;
    saf_status st = saf_checkpoint_newest(l->job.output.file, &now);
    if (st != SAF_OK) return st;
    *newer = now && (!l->newest || strcmp(now, l->newest) != 0);
    saf_free(&l->newest);
    l->newest = now;
    return SAF_OK;
}

static saf_status run_all(launch *l, int *code) {
    saf_status st = SAF_OK;
    double pause_s = 1;
    int in_vain = 0;
    bool newer;
    SAF_TRY(look_at_progress(l, &newer));
    for (int32_t i = 0;; i++) {
        st = attempt(l, code);
        if (l->signals.asked) {
            *code = stopped_code(l, *code);
            return SAF_OK;
        }
        /* that no host answers may pass, like what mpirun reports; what saf itself fails in not */
        if (st != SAF_OK && st != SAF_COMM) return st;
        if (st == SAF_COMM) saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
        if (!may_pass(*code)) return SAF_OK;
        SAF_TRY(look_at_progress(l, &newer));
        l->gained |= newer;
        in_vain = newer ? 0 : in_vain + 1;
        if (i == l->c->retries || in_vain == 2) break;
        saf_log(SAF_LOG_WARNING, "exit code %d; starting again in %.0f s (%d of %d)", *code,
                pause_s, (int)i + 1, (int)l->c->retries);
        double end = saf_clock_s() + pause_s;
        while (!l->signals.asked && saf_clock_s() < end)
            saf__signals_wait(&l->signals, end - saf_clock_s());
        if (l->signals.asked) {
            *code = saf_status_exit_code(SAF_STOPPED);
            return SAF_OK;
        }
        pause_s = 2 * pause_s < pause_max_s ? 2 * pause_s : pause_max_s;
    }
    saf_log(SAF_LOG_ERROR, "exit code %d; given up%s", *code,
            in_vain == 2 ? ": two attempts in a row have left no newer checkpoint" : "");
    st = SAF_OK;
out:
    return st;
}

static saf_status print_command(const command *c) {
    saf_status st = SAF_OK;
    saf__words words = {0};
    saf_buf text = {0};
    SAF_TRY(saf__launch_command(&c->q, c->q.hostfile, c->q.ranks, false, &words));
    for (int32_t i = 0; i < words.n; i++) SAF_TRY(saf__words_print(words.items[i], &text));
    printf("%s\n", text.data);
out:
    saf__words_free(&words);
    saf_buf_free(&text);
    return st;
}

/* mpirun is to notice within a minute that a host is gone, and not after eight: its daemons
 * inherit these. */
static saf_status notice_lost_hosts(void) {
    static const char *const settings[][2] = {{"OMPI_MCA_oob_tcp_keepalive_time", "20"},
                                              {"OMPI_MCA_oob_tcp_keepalive_intvl", "5"},
                                              {"OMPI_MCA_oob_tcp_keepalive_probes", "4"}};
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (setenv(settings[i][0], settings[i][1], 0) != 0)
            return saf_fail(SAF_NO_MEMORY, "no memory for the environment");
    return SAF_OK;
}

int saf__cmd_launch(int argc, char **argv) {
    saf_status st = SAF_OK;
    command c = {.retries = RETRIES};
    launch l = {.c = &c};
    saf__words given = {0};
    int code = 0;
    if (!parse_words(argc, argv, &c, &code)) return code;
    if (c.help) {
        print_help();
        return 0;
    }
    for (int32_t i = 1; i < c.q.n_run; i++)
        if (strcmp(c.q.run[i], "--quiet") == 0) saf_log_setup(SAF_LOG_WARNING, -1);
    SAF_TRY(read_job(&c, &l.job));
    SAF_TRY(saf__launch_words(&c.q, &given));
    if (c.q.hostfile) SAF_TRY(saf__hosts_open(c.q.hostfile, &given, &l.hosts));
    if (c.dry_run) {
        st = print_command(&c);
        goto out;
    }
    SAF_TRY(notice_lost_hosts());
    SAF_TRY(saf__signals_begin(&l.signals));
    SAF_TRY(run_all(&l, &code));
out:
    saf__words_free(&given);
    saf__hosts_free(&l.hosts);
    saf_free(&l.newest);
    saf_job_free(&l.job);
    return st == SAF_OK && code > 0 ? code : saf__cli_exit(st);
}
