/* saf report: a results file as tables for a person, or as JSON for a program. */
#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/detect_print.h"
#include "cli/report.h"

static const char usage[] =
    "saf report FILE.h5 [--json | --trace | --plot OUT.svg | --text N|ID | [--ranks] [--calls] "
    "[--requests]]";

enum { COMPLETIONS = 3 };

typedef struct {
    bool help, json, trace;
    const char *text, *plot, *path, *wrong;
    int paths;
    saf__report_options options;
} command;

static void print_help(void) {
    printf("usage: %s\n\n", usage);
    printf("Prints what a results file holds: the job, its ranks, its requests, the first\n");
    printf("completions. A profile of hosts (saf detect) is printed as well.\n\n");
    printf("  --ranks      only the table of ranks\n");
    printf("  --calls      only the table of calls of each rank\n");
    printf("  --requests   only the table of all requests\n");
    printf("  --text N|ID  only prompt and completion of one request, by its id or else by its\n");
    printf("               number counted from 1\n");
    printf("  --json       everything but logits and timeline, as JSON\n");
    printf(
        "  --trace      what each rank did when (of a job with run.trace = true), as JSON for\n");
    printf("               https://ui.perfetto.dev or chrome://tracing\n");
    printf("  --plot FILE  the curve of a train job as an SVG picture; gnuplot draws it\n\n");
    printf("doc/results.md describes the file for other programs.\n");
}

static void parse_words(int argc, char **argv, command *c) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"trace", no_argument, NULL, 'T'},
                                            {"plot", required_argument, NULL, 'p'},
                                            {"text", required_argument, NULL, 't'},
                                            {"ranks", no_argument, NULL, 'r'},
                                            {"calls", no_argument, NULL, 'c'},
                                            {"requests", no_argument, NULL, 'q'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int letter;
    opterr = 0;
    optind = 0; /* from the start, options anywhere */
    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        c->json |= letter == 'j';
        c->trace |= letter == 'T';
        c->options.ranks |= letter == 'r';
        c->options.calls |= letter == 'c';
        c->options.requests |= letter == 'q';
        c->help |= letter == 'h';
        if (letter == 't') c->text = optarg;
        if (letter == 'p') c->plot = optarg;
        if (letter == '?' && !c->wrong) c->wrong = argv[optind - 1];
    }
    c->paths = argc - optind;
    c->path = c->paths > 0 ? argv[optind] : NULL;
    c->options.completions = COMPLETIONS;
}

/* What `saf detect` keeps. */
static int report_profile(const command *c, bool tables) {
    saf_hosts_profile p = {0};
    if (c->trace || c->text || c->plot || tables)
        return saf__cli_usage(usage, "%s is a profile of hosts: it has no ranks and requests",
                              c->path);
    saf_status st = saf_profile_read(c->path, &p);
    if (st == SAF_OK) st = c->json ? saf__profile_json(stdout, &p) : saf__profile_print(stdout, &p);
    saf_profile_free(&p);
    return saf__cli_exit(st);
}

int saf__cmd_report(int argc, char **argv) {
    command c = {0};
    saf_results r = {0};
    saf_status st = SAF_OK;
    parse_words(argc, argv, &c);
    if (c.help) {
        print_help();
        return 0;
    }
    bool tables = c.options.ranks || c.options.calls || c.options.requests;
    if (c.wrong) return saf__cli_usage(usage, "what is \"%s\"?", c.wrong);
    if (c.paths != 1)
        return saf__cli_usage(usage, "`saf report` takes one results file, not %d", c.paths);
    if (c.json + c.trace + tables + (c.text != NULL) + (c.plot != NULL) > 1)
        return saf__cli_usage(usage,
                              "--json, --trace, --plot, --text and tables exclude each other");
    if (saf_profile_is(c.path)) return report_profile(&c, tables);
    SAF_TRY(saf_results_read(c.path, &r));
    if (c.json)
        SAF_TRY(saf__report_json(stdout, &r));
    else if (c.trace)
        SAF_TRY(saf__report_trace(stdout, c.path, &r));
    else if (c.plot)
        SAF_TRY(saf__report_plot(c.plot, c.path, &r));
    else if (c.text)
        SAF_TRY(saf__report_text(stdout, c.path, &r, c.text));
    else
        SAF_TRY(saf__report_print(stdout, c.path, &r, &c.options));
out:
    saf_results_free(&r);
    return saf__cli_exit(st);
}
