/* saf/job.h: job files (libconfig), prompts, and running a job over the ranks.
 *
 * One table of fields (src/job/fields.c) gives every key its type, default, unit, range and help;
 * it drives parsing, `saf help KIND` and the manual. An unknown key, a wrong type or a value out
 * of range is USAGE and names file, line, key and what was expected.
 */
#ifndef SAF_JOB_H
#define SAF_JOB_H

#include <stdio.h>

#include "saf/comm.h"
#include "saf/core.h"
#include "saf/model.h"

typedef enum {
    SAF_JOB_GENERATE,
    SAF_JOB_SCORE,
    SAF_JOB_BENCH,
    SAF_JOB_MATMUL,
    SAF_JOB_TRAIN,
    SAF_JOB_KINDS
} saf_job_kind;
const char *saf_job_kind_name(saf_job_kind kind);
bool saf_job_kind_from_name(const char *name, saf_job_kind *out);

enum {
    SAF_MAX_SUITES = 16,
    SAF_MAX_SIZES = 16,
    SAF_MAX_STOPS = 64,
    SAF_MAX_STAGES = 4096,
    SAF_MAX_SHARES = 65536
};

/* Values of a job file after defaults and command line. Strings are owned; NULL when not given.
 * 0 means "saf chooses" where the key says so. */
typedef struct {
    saf_job_kind kind;
    char *path; /* of the job file */
    char *text; /* the job as it runs: every key, overrides applied, as libconfig text that
                   reproduces the run */
    struct {
        char *path;
        saf_kv_type kv_type;
        /* bench: makes a model in place of the path */
        char *shape; /* as saf_model_shape_read takes it; NULL: none */
        saf_arch arch;
        int32_t type; /* of its matrices: a place in the field's list, see saf_job_made_type */
        int32_t vocab;
        bool tied;
    } model;
    struct {
        int32_t pipeline, tensor, replicas, threads;
        int32_t *stages; /* layers per stage, n_stages of them */
        int32_t n_stages;
        double *share; /* of hosts or of ranks, n_share of them */
        int32_t n_share;
    } layout;
    struct {
        char *prompts, *texts, *tokens, *prompt; /* exactly one; `prompt` is a text itself */
        char **text, **held_out_text; /* train: files, n_text and n_held_out_text of them */
        int32_t n_text, n_held_out_text;
        double held_out; /* the end of each text that is kept back; 0 to 1 */
        bool special;
        int32_t shard, shards; /* the shard-th run of requests of `shards`; 0 of 0: all */
    } input;
    struct {
        int32_t max_tokens;
        saf_sampling sampling;
        char **stop; /* n_stop strings, none empty */
        int32_t n_stop;
        int32_t *stop_ids;
        int32_t n_stop_ids;
        int32_t logprobs; /* alternatives stored per token */
        bool ignore_eos;
        bool logits; /* store the logits that each token was picked from */
    } generate;
    struct {
        bool logits;
    } score;
    struct {
        char **suites; /* n_suites of the names that the field lists */
        int32_t n_suites;
        int32_t repeats, prompt_tokens, decode_tokens, context, sequences, read_mib;
        int32_t message_bytes, file_mib;
        int32_t *touch_mib, *products, *completions; /* n_touch, n_products, n_completions */
        int32_t n_touch, n_products, n_completions;
    } bench;
    struct {
        char *a, *b, *c; /* FILE.h5:/DATASET; a and b NULL: made from the seed */
        char **chain;    /* n_chain of them: their product, in place of a and b */
        int32_t n_chain;
        double alpha, beta;
        bool transpose_a, transpose_b, transpose_c;
        int32_t m, n, k; /* of matrices that are made; -1: not given */
        int32_t type;    /* of those: 0 f32, 1 f64 */
        uint64_t seed;
    } matmul;
    struct {
        int32_t arch; /* 0 llama, 1 qwen3 */
        char *shape;  /* as saf_model_shape_read takes it */
        char *vocab;  /* a GGUF file */
        bool tied, shard;
        int32_t steps, batch, micro_batches, context, warmup, evaluate_every, stop_after;
        double learning_rate, floor, decay, clip, beta1, beta2, epsilon, rope_base, norm_eps;
        uint64_t seed;
    } train;
    struct {
        int32_t memory_mib; /* of a rank's matrices; 0: saf chooses */
        int32_t context, sequences, micro_batch, chunk, watchdog_seconds;
        bool trace;       /* the ranks' timelines go to the results */
        char *profile;    /* of the hosts: a file, "none", or "": the one in its usual place */
        char *time_limit; /* "": what a walltime of Slurm leaves */
    } run;
    struct {
        double every_seconds; /* 0: only when the job is stopped */
        bool kv;              /* the caches of requests on their way are kept when it is stopped */
    } checkpoint;
    struct {
        char *file;
        char *product; /* FILE.h5:/DATASET; NULL: /C of the results */
        bool store;    /* the product is kept */
        char *model;   /* that was trained: a GGUF file */
        int32_t type;  /* of its matrices: a place in the field's list, see saf_job_model_type */
    } output;
} saf_job;

/* Parses and checks a job file; `overrides` are "key=value" words ("model.path=m.gguf",
 * "generate.stop=[\"a\"]"; strings need no quotes). Errors: NO_INPUT, USAGE. */
saf_status saf_job_read(const char *path, int n_overrides, const char *const *overrides,
                        saf_job *out);
void saf_job_free(saf_job *job);
/* Type of the matrices of the model that a bench job makes. */
saf_dtype saf_job_made_type(const saf_job *job);
/* Type of the matrices of the model that a train job writes. */
saf_dtype saf_job_model_type(const saf_job *job);
/* `saf help KIND`: every key with type, default, unit, range and meaning. `markdown`: as the rows
 * of doc/job-file.md. */
void saf_job_help(saf_job_kind kind, bool markdown, FILE *out);

/* ---- prompts --------------------------------------------------------------------------------- */

/* One request as read from the input, before tokenizing. */
typedef struct {
    char *id;                   /* unique; "1", "2", ... when the input gives none */
    char *text;                 /* a prompt or text; NULL when messages or ids are given */
    saf_chat_message *messages; /* roles and contents owned */
    int32_t n_messages;
    int32_t *ids; /* token ids given directly */
    int64_t n_ids;
    saf_sampling
        sampling; /* the job's, with what the line overrides ("seed", "temperature", ...) */
    int32_t max_tokens;
} saf_prompt;

/* Reads input.prompts | texts (.txt a line each, .jsonl an object each, FILE.h5:/dataset of
 * strings), input.tokens (ids, a sequence a line) or input.prompt, and keeps the job's shard of
 * them, which may be empty. Errors: NO_INPUT; BAD_INPUT with file, line and cause (invalid UTF-8,
 * bad JSON, duplicate id, nothing at all). */
saf_status saf_prompts_read(const saf_job *job, saf_prompt **out, int64_t *n);
void saf_prompts_free(saf_prompt **prompts, int64_t n);

/* ---- running --------------------------------------------------------------------------------- */

typedef struct {
    bool dry_run, quiet;
    bool fresh; /* whatever results and checkpoints there are, the job starts over */
    const char *command_line;
    double start_s; /* of the process, by saf_clock_s: a time limit counts from it */
} saf_run_options;

/* Runs a job over all ranks of `world`; rank 0's job is the one that counts (the others may pass
 * an empty one). Results go to job->output.file. Collective; all ranks return the same status.
 *
 * Where that is the finished result of this very job, nothing is computed. Otherwise, where there
 * is a checkpoint, the job goes on from it. Errors: BAD_INPUT where either is of another job;
 * STOPPED when it was told to stop (USR1, run.time_limit) and the same command goes on. Needs
 * saf_signals_start before, or is never told. */
saf_status saf_job_run(saf_comm *world, const saf_job *job, const saf_run_options *options);

#endif
