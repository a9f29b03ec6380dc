/* saf/train.h: training of small language models, data-parallel over ranks, in f32.
 *
 * What the caller keeps: where tokens come from, files, checkpoints, and who may ask the job to
 * stop (between two steps). What is here: the model's parameters, forward and backward pass, the
 * exchange of gradients and the optimizer.
 *
 * Numbers. The same shape, settings (but for `shard` and `threads`) and tokens give the same bits
 * of parameters and losses on any number of ranks, any number of threads, sharded or not, and after
 * a resume on any other, on one core type of OpenBLAS (saf_train_core):
 *   - A step's sequences are cut into micro-batches, whose number is the job's. Each is worked out
 *     by one rank, by itself; products are cut into tiles that depend on their shapes alone, each a
 *     single-threaded call of sgemm (a chain of them where several products add up, in a fixed
 *     order); sums over tokens outside of products run over ascending tokens.
 *   - The gradients of the micro-batches add up in one binary tree of their numbers: 0 + 1, 2 + 3,
 *     then the sums likewise, wherever they were made.
 *   - Losses are f64 sums over ascending tokens of a sequence, then ascending sequences; the square
 *     of the gradient's norm is f64, over blocks of SAF_TRAIN_BLOCK parameters (counted anew in
 *     each layer), then ascending blocks.
 *   - No libm but sqrt and fma, as everywhere (saf/kernel.h); saf_kernels_init comes first.
 *
 * Letters: T tokens of a sequence (the context), N = tokens of a micro-batch, M micro-batches.
 */
#ifndef SAF_TRAIN_H
#define SAF_TRAIN_H

#include "saf/comm.h"
#include "saf/model.h"

/* ---- the model ------------------------------------------------------------------------------- */

typedef struct {
    saf_arch arch; /* LLAMA or QWEN3 (norms of the heads of q and k) */
    int64_t layers, width, heads, kv_heads, head_width, ff_width, vocab;
    int64_t context;  /* T: tokens of a sequence, the model's context */
    double rope_base; /* of the rotary frequencies base^(-2i/C); pairs as saf/model.h has them:
                         llama turns neighbours, qwen3 halves */
    double norm_eps;  /* of all norms, rounded to f32 */
    bool tied;        /* no output.weight: the token embedding is the output head */
} saf_train_shape;

/* A tensor as a GGUF file has it (names and shapes), and its place among the parameters, which lie
 * side by side in the order of a file: token_embd, output_norm, output, then layer by layer. */
typedef struct {
    char name[64];      /* "blk.0.attn_q.weight" */
    int64_t cols, rows; /* rows 0: a vector of cols */
    int64_t offset;     /* of its first value, in values, row after row */
    int64_t count;      /* of its values */
    bool decay;         /* weight decay: matrices, but not the token embedding */
} saf_train_tensor;

/* Whether saf can train such a model. Local. Errors: USAGE, saying which number is wrong (another
 * architecture; H no multiple of HKV; an odd head width; lengths out of range). */
saf_status saf_train_shape_check(const saf_train_shape *shape);
/* Its tensors, tensors[*n] (saf_free). Local. Errors: USAGE as above, NO_MEMORY. */
saf_status saf_train_tensors(const saf_train_shape *shape, saf_train_tensor **tensors, int64_t *n);
/* Values of all tensors together; of a shape that saf_train_shape_check accepts. Local. */
int64_t saf_train_parameters(const saf_train_shape *shape);

/* ---- how it is trained ----------------------------------------------------------------------- */

/* Step s, counted from 1, has the rate
 *     learning_rate * s / warmup                                                  s <= warmup
 *     low + (learning_rate - low) / 2 * (1 + cos(pi (s - warmup) / (steps - warmup)))   later
 * with low = floor * learning_rate. The gradient g of the mean loss over the step's tokens is
 * multiplied by clip / |g| where its norm |g| is above clip. Then AdamW, for every parameter p:
 *     m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 *     p = p - rate * (m / (1 - beta1^s) / (sqrt(v / (1 - beta2^s)) + epsilon) + decay p)
 * where decay is 0 for norms and for the token embedding. */
typedef struct {
    int64_t steps, warmup;
    int64_t batch;         /* sequences of a step, a multiple of micro_batches */
    int64_t micro_batches; /* a power of two, at least as many as there are ranks */
    double learning_rate;  /* >= 0 */
    double floor;          /* 0 to 1: share of the rate that is left after the last step */
    double decay;
    double clip; /* 0: off */
    double beta1, beta2, epsilon;
    uint64_t seed; /* of the first parameters */
    bool shard;    /* each rank keeps only its part of m and v, and updates only those parameters */
    int threads;   /* of this rank */
} saf_train_settings;

/* The usual: rate 1e-3, floor 0.1, decay 0.1, clip 1, betas 0.9 and 0.95, epsilon 1e-8, seed 1, one
 * thread, no shards; steps, warmup, batch and micro_batches are 0 and the caller's to set. */
saf_train_settings saf_train_defaults(void);
/* Local. Errors: USAGE, saying which setting is wrong for so many ranks. */
saf_status saf_train_settings_check(const saf_train_settings *settings, int ranks);
/* Both, and that a micro-batch of the two has no more tokens than saf can train with. Local.
 * Errors: USAGE. */
saf_status saf_train_check(const saf_train_shape *shape, const saf_train_settings *settings,
                           int ranks);
/* The rate of step s, counted from 1. Local. */
double saf_train_rate(const saf_train_settings *settings, int64_t s);
/* Bytes that rank `rank` of so many takes at most, of a shape and settings that were checked;
 * SIZE_MAX where that overflows. Local. */
size_t saf_train_memory_bytes(const saf_train_shape *shape, const saf_train_settings *settings,
                              int ranks, int rank);

/* ---- training -------------------------------------------------------------------------------- */

typedef struct saf_train saf_train;

/* A model at step 0, with parameters drawn by seed (Philox): norms 1; the token embedding and
 * output.weight normal with standard deviation 0.02; other matrices 0.45 / sqrt(their columns),
 * those that add to the residual (attn_output, ffn_down) divided by sqrt(2 L) more. comm stays the
 * caller's and outlives it; shape and settings (but threads) are the same on all ranks. Sets
 * OpenBLAS to one thread. Collective. Errors: USAGE, NO_INPUT (no OpenBLAS; another core type on
 * another rank is USAGE), NO_MEMORY: everybody's. COMM as of a step. */
saf_status saf_train_new(saf_comm *comm, const saf_train_shape *shape,
                         const saf_train_settings *settings, saf_train **out);
void saf_train_free(saf_train **train); /* local */

/* Gives the tokens of a sequence: ids[T + 1] of which ids[t + 1] is to be foretold after ids[0..t];
 * only the first *counted of these T predictions count (it is T when called; 0 is allowed). What
 * lies beyond must be valid ids as well (0 will do). A pure function of its arguments: a rank only
 * asks for what it works out itself. */
typedef saf_status (*saf_train_read)(void *ctx, int64_t step, int64_t sequence, int32_t *ids,
                                     int64_t *counted);

typedef struct {
    int64_t step;         /* steps behind, with this one: 1 after the first */
    double loss;          /* before the update: mean over the step's predictions, nats per token */
    double rate;          /* learning rate */
    double gradient_norm; /* before clipping */
    int64_t tokens;       /* predictions of all ranks */
    double seconds;       /* on this rank's clock */
} saf_train_report;

/* One step; `read` is asked for sequences [0, batch) of this step's number, counted from 0 (steps
 * behind). Collective; the report is the same on all ranks but for `seconds`. Errors, everybody's:
 * those of read; DEFECT (an id outside of the vocabulary); FAILED (a loss or a gradient that is not
 * finite; the parameters are then as before). COMM is not everybody's: saf_comm_abort; so is, among
 * several ranks, whatever else one of them fails with when others wait for it already. */
saf_status saf_train_step(saf_train *train, saf_train_read read, void *ctx, saf_train_report *out);

typedef struct {
    double nats;    /* sum of the losses of all predictions that count */
    int64_t tokens; /* their number */
} saf_train_loss;

/* The loss of the model as it is, over sequences [0, sequences) of `read` (its `step` is the steps
 * behind). each[sequences], unless NULL, becomes the sum of each. Collective; the same on all ranks
 * and for any number of them. Errors as above; NO_MEMORY. */
saf_status saf_train_evaluate(saf_train *train, int64_t sequences, saf_train_read read, void *ctx,
                              saf_train_loss *out, double *each);

/* ---- state between steps --------------------------------------------------------------------- */

typedef enum { SAF_TRAIN_PARAMETERS, SAF_TRAIN_MOMENT1, SAF_TRAIN_MOMENT2 } saf_train_state;

/* Parameters, [saf_train_parameters], the same on every rank; valid until saf_train_free, and
 * changed by a step. Local. */
const float *saf_train_values(const saf_train *train);
/* Values [span) of the whole state into out[span.end - span.begin] of rank 0, whichever ranks hold
 * them; elsewhere out is not looked at. The span is the same on all ranks. Collective. Errors:
 * DEFECT (everybody's), COMM as of a step. */
saf_status saf_train_state_get(saf_train *train, saf_train_state which, saf_span span, float *out);
/* Values [span) of the whole state from in[] of rank 0, to whichever ranks hold them. Collective.
 * Errors: as above. */
saf_status saf_train_state_put(saf_train *train, saf_train_state which, saf_span span,
                               const float *in);
/* Steps behind; to go on, the number that goes with a state that was put (all of parameters and
 * both moments, every value). Local; the same on all ranks. Errors: DEFECT (below 0 or beyond the
 * last). */
int64_t saf_train_steps(const saf_train *train);
saf_status saf_train_resume(saf_train *train, int64_t steps);

/* ---- what it does, and what it costs --------------------------------------------------------- */

/* "SkylakeX": the core type whose kernels OpenBLAS runs; "" before saf_train_new. Local. */
const char *saf_train_core(void);

/* Parameters of a block of the norm's sum, and what parts of ranks are multiples of. */
enum { SAF_TRAIN_BLOCK = 4096 };

/* The gradient of the last step before clipping, [saf_train_parameters]: whole, or with shards only
 * where this rank updates. Local; valid until the next step. For tests. */
const float *saf_train_gradient(const saf_train *train);

/* This rank's, since saf_train_new. */
typedef struct {
    double compute_s;      /* of the calling thread, in steps and evaluations */
    double wait_s;         /* in these, for other ranks */
    double operations;     /* 2 m n k of the calls of sgemm */
    int64_t micro_batches; /* worked out in steps */
} saf_train_counters;
void saf_train_count(const saf_train *train, saf_train_counters *out);

#endif
