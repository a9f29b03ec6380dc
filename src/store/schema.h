/* The schema of a results file: what each attribute, column and dataset is called, holds and
 * means. The writer, the reader and the check of doc/results.md all go by these tables. */
#ifndef SAF_STORE_SCHEMA_H
#define SAF_STORE_SCHEMA_H

#include "saf/store.h"
#include "store/identity.h"
#include "store/table.h"

typedef struct {
    const char *name;
    size_t offset; /* in saf_results */
    enum { SAF__ATTRIBUTE_TEXT, SAF__ATTRIBUTE_I64, SAF__ATTRIBUTE_F64 } kind;
    bool optional; /* files of the first versions have it not: 0 */
} saf__attribute;

extern const saf__attribute saf__result_attributes[];
extern const int saf__n_result_attributes;
/* Of runs that were planned; the first one is there if any is. */
extern const saf__attribute saf__plan_attributes[];
extern const int saf__n_plan_attributes;
extern const saf__table saf__plan_table;
/* Of jobs that multiplied matrices; the last one is there if any is. */
extern const saf__attribute saf__product_attributes[];
extern const int saf__n_product_attributes;
/* Of jobs that trained; the last one is there if any is. */
extern const saf__attribute saf__training_attributes[];
extern const int saf__n_training_attributes;
extern const saf__table saf__curve_table, saf__evaluations_table;

/* A row of /calls: one kind of one rank. */
typedef struct {
    int32_t rank;
    saf_result_call call;
} saf__call_row;

extern const saf__table saf__ranks_table, saf__calls_table, saf__requests_table;
/* Of bench jobs. */
extern const saf__table saf__shares_table;
extern const saf__table saf__phases_table, saf__samples_table, saf__steps_table;
extern const saf__table *const saf__suite_tables[SAF_SUITE_TABLES];

extern const saf__h5_label saf__text_prompt, saf__text_completion;
extern const saf__h5_label saf__tokens_prompt, saf__tokens_prompt_offsets;
extern const saf__h5_label saf__tokens_completion, saf__tokens_completion_offsets;
extern const saf__h5_label saf__logprobs_values, saf__logprobs_offsets;
extern const saf__h5_label saf__logprobs_top_ids, saf__logprobs_top_values;
extern const saf__h5_label saf__logits;

/* /timeline, where r has one; the reader has read /ranks before. */
saf_status saf__timeline_write(const saf__h5 *f, const saf_results *r);
saf_status saf__timeline_read(const saf__h5 *f, saf_results *r);
/* results_training.c: /steps and /evaluations; the reader has read the attributes before. */
saf_status saf__training_write(const saf__h5 *f, const saf_result_training *t);
saf_status saf__training_read(const saf__h5 *f, saf_result_training *t);
int64_t saf__training_bytes(const saf_result_training *t);
bool saf__training_alike(const saf_result_training *a, const saf_result_training *b);
/* /bench: what bench jobs have. */
saf_status saf__bench_write(const saf__h5 *f, const saf_result_bench *b);
saf_status saf__bench_read(const saf__h5 *f, saf_result_bench *b);
void saf__bench_free(saf_result_bench *b); /* what it holds */
/* Of its tables, about. */
int64_t saf__bench_bytes(const saf_result_bench *b);
/* Whether both have as many rows of everything. */
bool saf__bench_alike(const saf_result_bench *a, const saf_result_bench *b);
/* How many log-probabilities a request has where it has any. */
int64_t saf__logprob_count(const saf_results *r, const saf_result_request *q);
/* SHA-256 over ids and tokens of all requests, as hex. */
saf_status saf__results_tokens_hash(const saf_results *r, char out[65]);

#endif
