/* saf help: the keys of a kind of job, from the table that the parser uses. */
#include <stdio.h>

#include "cli/cli.h"
#include "saf/job.h"

static const char *const usage = "saf help [generate|score|bench [--markdown] | COMMAND ...]";

static int list_kinds(void) {
    printf("usage: %s\n\nKinds of jobs:\n", usage);
    for (int i = 0; i < SAF_JOB_KINDS; i++) printf("  %s\n", saf_job_kind_name((saf_job_kind)i));
    return 0;
}

int saf__cmd_help(int argc, char **argv) {
    saf_job_kind kind = SAF_JOB_KINDS;
    bool markdown = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) return list_kinds();
        if (strcmp(argv[i], "--markdown") == 0)
            markdown = true;
        else if (kind != SAF_JOB_KINDS || !saf_job_kind_from_name(argv[i], &kind))
            return saf__cli_usage(usage, "expected a kind of job or a command, got \"%s\"",
                                  argv[i]);
    }
    if (kind == SAF_JOB_KINDS) return list_kinds();
    saf_job_help(kind, markdown, stdout);
    if (fflush(stdout) == 0) return 0;
    return saf__cli_exit(saf_fail(SAF_IO, "cannot write to standard output"));
}
