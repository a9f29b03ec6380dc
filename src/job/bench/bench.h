/* The parts of a bench job's suite model: what is measured (phase.c), the loading
 * (load.c), the order of it all (model.c), the rows of the results (rows.c). One
 * rank. */
#ifndef SAF_JOB_BENCH_H
#define SAF_JOB_BENCH_H

#include "job/session.h"

/* Forward passes of one kind, as jobs make them: through saf_stage_forward, the head, and greedy
 * sampling, whose token is the next pass's input. */
typedef struct {
    const char *name;
    int32_t sequences;
    int32_t tokens;  /* of each sequence in a pass */
    int32_t passes;  /* of a repetition */
    int32_t context; /* positions of each sequence before the first pass */
} saf__bench_shape;

typedef struct {
    saf__bench_shape shape;
    const saf_model_params *params;
    saf_kv_cache *kv;
    saf_stage *stage;
    int64_t max_tokens;
    saf_run *runs;                 /* [sequences] */
    saf_fault *faults;             /* [sequences] */
    int32_t *ids;                  /* [max_tokens] */
    float *x;                      /* [max_tokens, D] */
    float *logits;                 /* [SAF_LOGIT_ROWS, V] */
    saf_logit_row *rows;           /* [SAF_LOGIT_ROWS] */
    int32_t *sampled;              /* [sequences] */
    saf_cost cost[SAF_STEP_COUNT]; /* of a repetition */
    saf_profile *profiles;         /* [repeats] */
} saf__bench_phase;

/* Makes room, fills the context and warms up with one repetition. `phase` is to be freed in any
 * case. Errors: NO_MEMORY, FAILED (a value of the model is not finite). */
saf_status saf__bench_phase_new(const saf__session *s, const saf__bench_shape *shape,
                                int32_t repeats, saf__bench_phase *phase);
void saf__bench_phase_free(saf__bench_phase *phase);
/* Repetition `repeat`, and how long it took. */
saf_status saf__bench_phase_run(saf__bench_phase *phase, int32_t repeat, double *seconds);

/* seconds[repeats] of loading the slice, and copies_s[repeats + 1] of plain copies before each and
 * after the last. s->slice is loaded afterwards. */
saf_status saf__bench_load(saf__session *s, int32_t repeats, double *seconds, double *copies_s);

enum { SAF__BENCH_PHASES_MAX = 4 };

/* Everything that a job measures. */
typedef struct {
    saf__session *s;
    int32_t repeats, n_phases;
    saf_hw_yardstick *yardstick;
    saf_hw_rates last; /* its newest sample */
    saf__bench_phase phases[SAF__BENCH_PHASES_MAX];
    double *load_s, *copies_s;  /* [repeats], [repeats + 1] */
    saf_result_sample *samples; /* [repeats, n_phases] */
} saf__bench;

/* rows.c: measurements become rows of the results. Errors: NO_MEMORY. */
saf_status saf__bench_rows(const saf__bench *b, saf_result_bench *out);

/* stats.c: the middle of n >= 1 values (not changed), the mean of two in the middle. */
saf_status saf__median(const double *values, int64_t n, double *out);
/* Fills median, least and most of them. */
saf_status saf__spread(const double *values, int64_t n, double *median, double *least,
                       double *most);

#endif
