/* saf plan: which layout of a job is best on some hosts, how fast, and why. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/plan_print.h"

static const char usage[] =
    "saf plan JOB.cfg [KEY=VALUE ...] [--ranks N] [--hosts FILE] [--profile FILE.h5]\n"
    "           [--cluster FILE.cfg] [--link GBIT] [--latency MICROSECONDS] [--json]";

typedef struct {
    saf_job_plan_options options;
    bool help, json;
    const char *path;
    int n_overrides;
    const char *const *overrides;
} command;

static void print_help(void) {
    printf("usage: %s\n\n", usage);
    printf(
        "Says which layout of a job is best, with the memory that each rank needs and the times\n"
        "that are to be expected, from the header of its model alone. Runs nothing.\n\n"
        "  KEY=VALUE        takes the place of a key of the job file, as in `saf run`; layouts "
        "and\n"
        "                   sequences that it gives are kept\n"
        "  --ranks N        of at most so many ranks; without hosts, on this one\n"
        "  --hosts FILE     a hostfile: hosts like this one, with so many ranks as slots\n"
        "  --profile FILE   hosts as `saf detect` measured them; with --hosts, those named there\n"
        "  --link GBIT      between them (default 1)\n"
        "  --latency US     of a message between them (default 50)\n"
        "  --cluster FILE   hosts that need not exist: jobs/clusters/*.cfg are examples\n"
        "  --json           as JSON\n\n"
        "Without a profile or cluster file this host's rates are measured, which takes about two "
        "seconds.\n"
        "A bench job with model.shape needs no model file. `saf model make --header` makes a file\n"
        "of a header alone.\n\n"
        "Exit codes: 0 there is a layout that fits; 1 there is none; 2 wrong usage, job or "
        "cluster\n"
        "file; 65 and 66 a bad or missing model, input or profile, or a host not in the "
        "profile.\n");
}

static bool read_number(const char *text, double min, double max, double *out) {
    char *stop;
    errno = 0;
    double v = strtod(text, &stop);
    if (errno != 0 || stop == text || *stop != 0 || !(v >= min && v <= max)) return false;
    *out = v;
    return true;
}

/* Exit code, or -1 to go on. */
static int read_options(int argc, char **argv, command *c) {
    static const struct option longs[] = {{"ranks", required_argument, NULL, 'r'},
                                          {"hosts", required_argument, NULL, 'f'},
                                          {"cluster", required_argument, NULL, 'c'},
                                          {"profile", required_argument, NULL, 'p'},
                                          {"link", required_argument, NULL, 'l'},
                                          {"latency", required_argument, NULL, 't'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int letter;
    bool link = false;
    opterr = 0;
    optind = 0; /* from the start, options anywhere */
    while ((letter = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        double n = 0;
        bool fine = true;
        if (letter == 'r') {
            fine = read_number(optarg, 1, SAF_PLAN_RANKS_MAX * 1000.0, &n) && n == (int32_t)n;
            c->options.ranks = (int32_t)n;
        } else if (letter == 'l') {
            fine = read_number(optarg, 1e-6, 1e6, &c->options.link_gbit);
            link = true;
        } else if (letter == 't') {
            fine = read_number(optarg, 0, 1e7, &c->options.latency_us);
            link = true;
        } else if (letter == 'f') {
            c->options.hosts = optarg;
        } else if (letter == 'c') {
            c->options.cluster = optarg;
        } else if (letter == 'p') {
            c->options.profile = optarg;
        } else if (letter == '?') {
            return saf__cli_usage(usage, "unknown or incomplete option \"%s\"", argv[optind - 1]);
        }
        c->json |= letter == 'j';
        c->help |= letter == 'h';
        if (!fine) return saf__cli_usage(usage, "\"%s\" is not understood", optarg);
    }
    if (optind < argc) c->path = argv[optind];
    c->n_overrides = argc - optind - 1;
    c->overrides = (const char *const *)argv + optind + 1;
    if (c->help) return -1;
    if (!c->path) return saf__cli_usage(usage, "`saf plan` needs a job file");
    if (c->options.cluster && (c->options.hosts || link))
        return saf__cli_usage(usage,
                              "a cluster file says all of its hosts and links: without "
                              "--hosts, --link, --latency");
    if (c->options.profile && (c->options.cluster || link))
        return saf__cli_usage(usage,
                              "a profile says what its hosts and links can do: without "
                              "--cluster, --link, --latency");
    if (!c->options.cluster && !c->options.hosts && !c->options.profile &&
        c->options.ranks > SAF_PLAN_RANKS_MAX)
        return saf__cli_usage(usage, "--ranks %d on one host, expected at most %d",
                              c->options.ranks, SAF_PLAN_RANKS_MAX);
    return -1;
}

int saf__cmd_plan(int argc, char **argv) {
    saf_status st = SAF_OK;
    saf_job job = {0};
    saf_job_plan plan = {0};
    command c = {.options = {.link_gbit = 1, .latency_us = 50, .keep = 8}};
    int code = read_options(argc, argv, &c);
    if (code >= 0) return code;
    if (c.help) {
        print_help();
        return 0;
    }
    SAF_TRY(saf_job_read(c.path, c.n_overrides, c.overrides, &job));
    SAF_TRY(saf_job_plan_make(&job, &c.options, &plan));
    SAF_TRY(c.json ? saf__plan_json(&plan, stdout) : saf__plan_text(&plan, stdout));
    if (!plan.plan.choices[0].fits) code = saf_status_exit_code(SAF_FAILED);
out:
    saf_job_plan_free(&plan);
    saf_job_free(&job);
    if (st != SAF_OK) return saf__cli_exit(st);
    return code < 0 ? 0 : code;
}
