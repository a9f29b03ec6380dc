/* The suites of a bench job: one file or a few for each, all called by bench.c in turn. */
#ifndef SAF_JOB_SUITES_H
#define SAF_JOB_SUITES_H

#include "job/fields.h"
#include "job/session.h"

typedef struct {
    saf__session *s;
    int32_t repeats;
    uint32_t wanted;                     /* 1 << saf__suite_kind */
    char (*hosts)[SAF_SUITE_HOST_BYTES]; /* [ranks] */
    int32_t *ends;                       /* [n_ends] the first rank of each host; where all are on
                                            one host, every rank */
    int32_t n_ends;
    int32_t turn, turns; /* this rank's place among those of its host; the most ranks of a host */
    int32_t neighbours;  /* ranks of this host, this one included */
} saf__suites;

/* Each measures and puts its rows into rank 0's results. Collective. */
saf_status saf__suite_model(saf__suites *w);   /* model.c */
saf_status saf__suite_comm(saf__suites *w);    /* comm.c */
saf_status saf__suite_memory(saf__suites *w);  /* memory.c */
saf_status saf__suite_compute(saf__suites *w); /* compute.c */
saf_status saf__suite_matmul(saf__suites *w);  /* products.c */
saf_status saf__suite_storage(saf__suites *w); /* storage.c */

/* model.c: the settings against the model; what it would measure, for --dry-run. Rank 0. */
saf_status saf__suite_model_check(const saf__session *s);
void saf__suite_model_plan(const saf__session *s);

/* Parts of suite model, after its phases: roofline.c, scale.c. */
saf_status saf__suite_roofline(saf__suites *w);
saf_status saf__suite_scale(saf__suites *w);

/* Parts of suite comm: pairs.c, collectives.c, tensors.c. */
saf_status saf__suite_pairs(saf__suites *w);
saf_status saf__suite_collectives(saf__suites *w);
saf_status saf__suite_tensors(saf__suites *w);

/* ---- suites.c: what they share ---- */

/* Appends a row to a table of the results. Rank 0. */
saf_status saf__suite_row(const saf__suites *w, saf_suite_table table, const void *row);
/* The same of rows that every rank has, rank by rank. Collective. */
saf_status saf__suite_gather(const saf__suites *w, saf_suite_table table, const saf_buf *mine);
/* Median, least and most of n samples in seconds, and of `amount` by each of them. */
typedef struct {
    double seconds, seconds_min, seconds_max, rate, rate_min, rate_max;
} saf__figures;
saf_status saf__suite_figures(const double *samples, int64_t n, double amount, saf__figures *out);

/* 1, 4, 16, ... and `most` itself: how many, at most SAF__SIZES_MAX. */
enum { SAF__SIZES_MAX = 32, SAF__SUITE_PROMPT = 16 /* tokens before a completion */ };
int saf__suite_sizes(int64_t most, int64_t sizes[SAF__SIZES_MAX]);
/* How often something of so many bytes is done between two looks at the clock. */
int32_t saf__suite_rounds(int64_t bytes);
/* A failure that the others do not know of and wait through: ends all ranks at once. */
void saf__suite_end_apart(const saf__suites *w, saf_status st);

#endif
