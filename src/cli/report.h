/* What `saf report` prints, and `saf run` after a job. */
#ifndef SAF_CLI_REPORT_H
#define SAF_CLI_REPORT_H

#include <stdio.h>

#include "saf/store.h"

typedef struct {
    bool ranks, requests, calls; /* only these tables; none of them: the overview */
    int completions;             /* of the overview: how many first completions it shows */
} saf__report_options;

/* `path` is only named. Errors: NO_MEMORY, IO (`out` cannot be written). */
saf_status saf__report_print(FILE *out, const char *path, const saf_results *r,
                             const saf__report_options *options);
/* Prompt and completion of a request, found by its id, or else by its number counted from 1.
 * Errors: USAGE (no such request), IO. */
saf_status saf__report_text(FILE *out, const char *path, const saf_results *r, const char *which);
/* Everything that is in the file but logits and timeline. Numbers that are not finite become null.
 */
saf_status saf__report_json(FILE *out, const saf_results *r);
/* The timeline as Chrome trace JSON, which Perfetto and chrome://tracing open. Errors: BAD_INPUT
 * (there is none), NO_MEMORY, IO. */
saf_status saf__report_trace(FILE *out, const char *path, const saf_results *r);

/* The tables by themselves; calls of each rank, or summed over the ranks. */
saf_status saf__report_ranks(FILE *out, const saf_results *r);
saf_status saf__report_calls(FILE *out, const saf_results *r, bool per_rank);
saf_status saf__report_requests(FILE *out, const saf_results *r);
/* Of a file with a timeline: what each rank did, in shares of the run. */
saf_status saf__report_timeline(FILE *out, const saf_results *r);

/* What was planned for the run, beside what came of it; nothing where there was no plan. */
saf_status saf__report_plan(FILE *out, const saf_results *r);
/* What a matmul job did. */
saf_status saf__report_product(FILE *out, const saf_results *r);
/* What a train job did. */
saf_status saf__report_training(FILE *out, const saf_results *r);
/* Its curve as an SVG picture, by gnuplot; `path` is only named. Errors: BAD_INPUT (there is no
 * curve), FAILED (no gnuplot), CANNOT_CREATE, IO. */
saf_status saf__report_plot(const char *picture, const char *path, const saf_results *r);
/* What a bench job measured. */
saf_status saf__report_bench(FILE *out, const saf_result_bench *b);
/* report_suites.c: one table of a suite. */
saf_status saf__report_suite(FILE *out, saf_suite_table table, const saf_buf *rows);

/* Errors: IO (what was printed could not be written). */
saf_status saf__report_flush(FILE *out);

#endif
