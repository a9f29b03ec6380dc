/* saf/store.h: results files (HDF5, serial library). One process writes: rank 0.
 *
 * The schema is documented in doc/results.md. A file is written as PATH.part and takes its name
 * only when it is whole: every HDF5 return is checked, then fsync, rename, fsync of the folder.
 * Ranks: everything is local.
 */
#ifndef SAF_STORE_H
#define SAF_STORE_H

#include "saf/core.h"
#include "saf/store_checkpoint.h"
#include "saf/store_product.h"
#include "saf/store_suites.h"
#include "saf/store_training.h"

enum { SAF_RESULTS_SCHEMA = 1, SAF_CALL_KINDS_MAX = 8 };

/* One kind of communication of one rank (a row of /calls). */
typedef struct {
    char kind[16];
    int64_t calls, bytes;
    double wait_s;
} saf_result_call;

/* A row of /ranks. Text fields are zero-terminated. */
typedef struct {
    int32_t rank, replica, stage, part, threads, cores;
    char host[64], kernels[32];
    int32_t layer0, layer1;   /* [layer0, layer1) */
    int32_t head0, head1;     /* of their attention heads [head0, head1) */
    int64_t weight_bytes;     /* of its tensors, as in the model file */
    int64_t replicated_bytes; /* of those, held by another rank as well */
    char replicated[512];     /* their names, "" when none */
    int64_t memory_weights_bytes, memory_kv_bytes, peak_memory_bytes;
    int32_t weights_from;     /* the rank its weights came from; itself: it read the file */
    double load_s;            /* until its weights were there */
    double compute_s, wait_s; /* between the first prompt token and the last result */
    double busy;              /* compute_s / run_s, 0..1 */
    int64_t bytes_sent, bytes_received;
    int32_t n_calls;
    saf_result_call calls[SAF_CALL_KINDS_MAX];
} saf_result_rank;

/* One request: a row of /requests with its text and tokens. Pointers are owned by saf_results
 * (saf_free); NULL where there is nothing. */
typedef struct {
    char *id;
    char state[16];         /* "done", "failed" */
    char finish_reason[16]; /* "stop", "length", "eos", "error", "scored" */
    char *error;            /* why it failed; NULL */
    int64_t prompt_tokens, completion_tokens;
    double queue_s, time_to_first_token_s, seconds_per_token;
    double log_likelihood, perplexity; /* score jobs; NaN elsewhere */
    uint64_t seed;
    int32_t replica;           /* that ran it; -1: none */
    char *prompt, *completion; /* UTF-8 */
    int32_t *prompt_ids, *completion_ids;
    float *logprobs;  /* [completion_tokens]; for score jobs [prompt_tokens]: NaN
                         for the first, which nothing predicts */
    int32_t n_top;    /* alternatives per completion token */
    int32_t *top_ids; /* [completion_tokens, n_top] */
    float *top_logprobs;
    int64_t logits_row0, logits_rows; /* its rows of /logits; rows 0: none */
} saf_result_request;

/* Something that a rank did: a row of /timeline. */
typedef struct {
    int32_t rank;
    char kind[12];         /* "compute", "wait", ...; doc/results.md lists them */
    double start_s, end_s; /* from the start of the run on, by the clock of rank 0 */
    int64_t flight;        /* -1: none */
    int32_t tokens;
} saf_result_entry;

/* What a bench job measured: a row of /bench/phases. Counts and times are of one repetition,
 * medians of all; a figure that a phase has not is NaN. */
typedef struct {
    char phase[32]; /* "load", "prefill", "decode", ... */
    char peaks[16]; /* the vector instructions that the two peaks are of */
    int32_t repeats, sequences, passes;
    int64_t context, tokens; /* positions before the first; of all sequences and passes */
    double seconds, seconds_min, seconds_max;
    double tokens_per_s, tokens_per_s_min, tokens_per_s_max;
    int64_t weight_bytes, kv_bytes, int8_ops, float_ops;
    double bytes_per_s, ops_per_s;                          /* reached */
    double read_bytes_per_s, int8_ops_per_s, f32_ops_per_s; /* the yardsticks beside it */
    double of_read, of_read_min, of_read_max;               /* shares of them */
    double of_peak, of_peak_min, of_peak_max;
    double tile_ops_per_s, of_tiles, of_tiles_min, of_tiles_max; /* where there are tile units */
    double sgemm_ops_per_s, of_sgemm;
    double copy_s, copies;
} saf_result_phase;

/* One repetition of it: a row of /bench/samples. */
typedef struct {
    char phase[32];
    int32_t repetition;
    double seconds;
    double read_before, read_after, int8_before, int8_after, f32_before, f32_after;
    double tiles_before, tiles_after;
    double sgemm_ops_per_s, copy_s;
} saf_result_sample;

/* A kind of step of a phase: a row of /bench/steps. */
typedef struct {
    char phase[32], step[16];
    double seconds, share;
    int64_t weight_bytes, kv_bytes, int8_ops, float_ops;
    double limit_s;
} saf_result_step;

typedef struct {
    int64_t n_phases, n_samples, n_steps;
    saf_result_phase *phases;
    saf_result_sample *samples;
    saf_result_step *steps;
    saf_buf tables[SAF_SUITE_TABLES]; /* rows of each suite's tables, one after the other */
} saf_result_bench;

/* What was planned for the run before it began; rates NULL: there was no plan. Times are those of
 * completions of full length. */
typedef struct {
    int32_t rank;
    int64_t memory_bytes;
} saf_result_plan_rank;

typedef struct {
    char *rates;          /* where those of the hosts come from: a profile, or rules of thumb */
    double first_token_s; /* of a prompt of average length, alone */
    double token_s;       /* from one token of a sequence to its next */
    double tokens_per_s;  /* of prompts and completions, over the run */
    double run_s, network_share;
    int64_t memory_bytes; /* of the largest rank */
    int64_t n_ranks;
    saf_result_plan_rank *ranks;
} saf_result_plan;

typedef struct {
    /* root attributes */
    char *version, *commit, *kind, *job_text, *command_line, *start_time, *end_time, *exit_state;
    char *layout, *model_path, *model_name, *model_sha256, *tokens_sha256, *logits_sha256;
    char *kernels;
    int64_t n_ranks, prompt_tokens, completion_tokens, vocab;
    double load_s, run_s;
    int64_t failed_requests;
    int64_t resumes;     /* times that the job went on from a checkpoint */
    int64_t checkpoints; /* written by the last run, */
    double checkpoint_s; /* and the time that computing stood still for them */
    saf_result_plan plan;
    saf_identity identity;  /* /identity; empty for a kind of job that always runs anew */
    saf_result_rank *ranks; /* [n_ranks] */
    int64_t n_requests;
    saf_result_request *requests; /* in input order */
    int64_t n_entries;
    saf_result_entry *timeline;   /* rank by rank, as they ended; where it was recorded */
    saf_result_bench bench;       /* bench jobs; empty elsewhere */
    saf_result_product product;   /* matmul jobs */
    saf_result_training training; /* train jobs */
} saf_results;

void saf_results_free(saf_results *r); /* the members; leaves {0} */

/* Creates PATH.part, so that a folder that is missing or cannot be written shows before anything
 * is computed. Errors: CANNOT_CREATE. */
saf_status saf_results_create(const char *path, saf_results_writer **out);
/* Writes rows [row0, row0 + rows) of /logits, float32 [*, V]; in any order, each row once. Rows
 * below the highest that are never written read as NaN.
 * Errors: IO (disk full included, with the bytes needed). */
saf_status saf_results_logits(saf_results_writer *w, int64_t vocab, int64_t row0, int64_t rows,
                              const float *logits);
/* Reads rows back, of those below the highest that was written. Errors: IO, DEFECT. */
saf_status saf_results_logits_back(saf_results_writer *w, int64_t row0, int64_t rows,
                                   float *logits);
/* tokens_sha256 over requests in input order: for each the id text, prompt ids, completion ids,
 * little-endian int32, each length-prefixed (8 bytes). logits_sha256 likewise: the id, then the
 * request's rows, read back from /logits; left NULL when there are none. Fills the two members. */
saf_status saf_results_hash(saf_results_writer *w, saf_results *r);
/* Writes everything else, makes it durable, and gives it its name. */
saf_status saf_results_finish(saf_results_writer *w, const saf_results *r);
void saf_results_writer_free(saf_results_writer **w); /* removes an unfinished PATH.part */

/* Reads a results file back (texts and tokens included, logits not).
 * Errors: NO_INPUT, BAD_INPUT (no results file of saf, or a newer schema). */
saf_status saf_results_read(const char *path, saf_results *out);

/* All strings of a one-dimensional dataset "FILE.h5:/path" as input texts; *texts has *n entries
 * (free each, then the array). Errors: NO_INPUT, BAD_INPUT. */
saf_status saf_store_read_strings(const char *path, const char *dataset, char ***texts, int64_t *n);

#endif
