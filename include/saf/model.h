/* saf/model.h: a language model on one rank: its architecture, the slice of it that this rank
 * holds, key-value cache, forward pass, sampler. Its files are in model_gguf.h, tokenizer and chat
 * templates in model_text.h. No MPI.
 */
#ifndef SAF_MODEL_H
#define SAF_MODEL_H

#include "saf/core.h"
#include "saf/kernel.h"
#include "saf/model_gguf.h"
#include "saf/model_text.h"

/* ==== architecture ===========================================================================*/

typedef enum { SAF_ARCH_LLAMA, SAF_ARCH_QWEN2, SAF_ARCH_QWEN3 } saf_arch;

typedef struct {
    saf_arch arch;
    char name[128]; /* general.name */
    int64_t layers, width, heads, kv_heads, head_width, ff_width, vocab, context;
    float norm_eps;
    float attention_scale; /* 1 / sqrt(C), or the file's attention.scale */
    bool qkv_bias;         /* any of the q, k, v biases is there */
    bool qk_norm;          /* a norm for each head of q and k */
    bool tied;             /* no output.weight: the token embedding is the output head */
    saf_rope_pairs rope_pairs;
    int64_t rope_half; /* pairs rotated in a head */
    double rope_scale; /* on cos and sin (yarn) */
    double *inv_freq;  /* [rope_half], scaling and rope_freqs included */
} saf_model_params;

/* Reads and checks the keys, and that every tensor the architecture needs is there with the right
 * shape and a supported type. Anything not supported is refused by name (BAD_INPUT). */
saf_status saf_model_params_read(const saf_gguf *g, saf_model_params *out);
void saf_model_params_free(saf_model_params *p);
const char *saf_arch_name(saf_arch arch);

/* ==== slice: the part of a model that one rank holds ===========================================*/

/* What one rank holds: of the layers [layer0, layer1) and, on the first stage, of the embedding, on
 * the last, of the output head, the output rows of its part of the stage. The parts of a stage are
 * cut at multiples of SAF_TILE_ROWS (heads: where their columns are such a multiple; the
 * vocabulary: of SAF_LOGIT_SEGMENT), the last one takes what is left; a part may be empty. Vectors
 * are held whole, but for the biases; of a tensor with no rows in a part there is a weight of 0
 * rows. */
typedef struct {
    int64_t layer0, layer1;
    bool embedding, head;
    saf_span heads; /* of H: rows of q, and of k and v those of the key heads that they read */
    saf_span width; /* of D: rows of attention's output and of down */
    saf_span ff;    /* of F: rows of gate and up */
    saf_span vocab; /* of V: rows of the embedding and of the output head */
} saf_slice_range;

/* Layers with all their rows. */
saf_slice_range saf_slice_range_whole(const saf_model_params *p, int64_t layer0, int64_t layer1,
                                      bool embedding, bool head);
/* The key heads that the range's heads read: another rank may hold some of them as well. */
saf_span saf_slice_kv_heads(const saf_model_params *p, saf_slice_range range);

typedef struct saf_slice saf_slice;

/* All memory of a slice, filled with nothing. `p` must outlive it. Errors: NO_MEMORY, BAD_INPUT. */
saf_status saf_slice_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                         saf_slice **out);
void saf_slice_free(saf_slice **s);

/* File bytes of what a range holds, without loading. *replicated are those of them that another
 * slice counts as its own, so that over all parts of all stages (result - *replicated) adds up to
 * every tensor of the model once:
 *   a tied embedding on another stage than the first
 *   norms, on all parts of a stage but the one that has the first row of `width`
 *   keys' and values' rows (and biases) of a key head, on all parts but the one that has the first
 *   of the heads that read it
 * The rotary factors count where the first stage's norms do. */
size_t saf_slice_file_bytes(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                            size_t *replicated);
/* Operations of all products for one token that wants logits, by the kind of weights. */
void saf_slice_ops(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                   int64_t *int8_ops, int64_t *float_ops);
/* What *replicated counts, by kinds of tensors: "token_embd.weight, blk.*.attn_norm.weight,
 * blk.*.attn_k.weight (rows 128-255)". out is replaced. Errors: NO_MEMORY. */
saf_status saf_slice_replicated_names(const saf_gguf *g, const saf_model_params *p,
                                      saf_slice_range range, saf_buf *out);
size_t saf_slice_memory_bytes(const saf_slice *s); /* as packed */
/* The same without taking any memory for it. Errors: BAD_INPUT, NO_MEMORY. */
saf_status saf_slice_plan_bytes(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                                size_t *out);

/* ---- the bytes of a slice ----
 * A slice is filled in blocks: what the file has of its tensors, in the order of the file, about
 * SAF_BLOCK_BYTES at a time (a tile of rows and a vector are never cut). The blocks follow from the
 * header and the range alone, so a rank that reads the file and another that has none of it mean
 * the same by block i. */
enum { SAF_BLOCK_BYTES = 2 << 20 };
typedef struct saf_blocks saf_blocks;
/* g must outlive them. */
saf_status saf_blocks_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_blocks **out);
void saf_blocks_free(saf_blocks **b);
int64_t saf_blocks_count(const saf_blocks *b);
size_t saf_blocks_bytes(const saf_blocks *b, int64_t block);
size_t saf_blocks_largest(const saf_blocks *b); /* bytes of the largest one */
size_t saf_blocks_total(const saf_blocks *b);   /* of all */
/* From the file, into saf_blocks_bytes bytes at a multiple of 64. Errors: IO, BAD_INPUT. */
saf_status saf_blocks_read(const saf_blocks *b, int64_t block, void *out);

/* Repacks a block into its place, with all threads. Every block once, in any order. */
void saf_slice_put(saf_slice *s, const saf_blocks *b, int64_t block, const void *bytes);
/* Now and then, by the calling thread alone, while others go on: `bytes` of the slice are there. A
 * status other than SAF_OK ends the reading. */
typedef saf_status (*saf_slice_tick)(void *ctx, size_t bytes);
/* Reads all blocks from the file, each thread one at a time. tick may be NULL.
 * Errors: IO, NO_MEMORY, BAD_INPUT, the tick's. */
saf_status saf_slice_read(saf_slice *s, const saf_blocks *b, saf_slice_tick tick, void *ctx);
/* All of these for one rank by itself. */
saf_status saf_slice_load(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_slice **out);

/* ==== key-value cache ==========================================================================*/

typedef struct saf_kv_cache saf_kv_cache;

/* `slots` sequences of `capacity` positions for the layers of a range, of the key heads that its
 * heads read. Memory is only taken when positions are written. */
saf_status saf_kv_cache_new(const saf_model_params *p, saf_slice_range range, saf_kv_type type,
                            int64_t slots, int64_t capacity, saf_kv_cache **out);
/* Takes the memory of the first positions of slots [0, slots), as far as there are so many, with a
 * team of its own: the system clears pages when they are first written, 4 ms for one of 2 MiB on a
 * virtual machine, which a token would wait for. */
void saf_kv_cache_touch(saf_kv_cache *kv, int64_t slots, int64_t positions);
void saf_kv_cache_free(saf_kv_cache **kv);
/* Bytes of one slot at full use, without making one; SIZE_MAX where that overflows. */
size_t saf_kv_cache_slot_bytes(const saf_model_params *p, saf_slice_range range, saf_kv_type type,
                               int64_t capacity);
/* Bytes of the cache at full use. */
size_t saf_kv_cache_bytes(const saf_kv_cache *kv);

/* What is cached of one key head of a layer, numbered as the model's are, at positions [pos0, pos0
 * + n) of a slot. */
typedef struct {
    int64_t slot, layer, kv_head;
    bool keys; /* or its values */
    int64_t pos0, n;
} saf_kv_rows;
/* As rows of so many bytes, position after position (saf_kv_rows_get), that any other cache of the
 * same type takes, whatever its layers, heads, slots and capacity. Local. Errors: DEFECT (not of
 * this cache). */
size_t saf_kv_cache_row_bytes(const saf_kv_cache *kv);
saf_status saf_kv_cache_get(const saf_kv_cache *kv, const saf_kv_rows *which, void *rows);
saf_status saf_kv_cache_put(saf_kv_cache *kv, const saf_kv_rows *which, const void *rows);

/* ==== forward pass
 * ===============================================================================*/

/* A micro-batch: rows of one or more sequences, each a run of consecutive positions. */
typedef struct {
    int32_t slot;   /* of the cache */
    int32_t pos0;   /* position of the first row */
    int32_t tokens; /* rows; the runs of a batch follow one another */
    int32_t logits; /* how many of the last rows want logits: 0, 1 or tokens */
} saf_run;

typedef struct {
    int32_t n_runs, tokens; /* tokens = sum over runs */
    const saf_run *runs;
    const int32_t *ids; /* [T], only read by the first stage */
} saf_batch;

/* The most of a batch: rows, runs, rows that want logits; and of what is asked of such a row
 * (saf_logit_ask), n + n_top. */
typedef struct {
    int64_t tokens, runs, logits;
    int32_t candidates;
} saf_stage_room;

/* The ranks that hold the parts of one stage. Each works out its own rows and heads; what others
 * need of it, it writes into memory that all of them see, and they meet in `share`: four times a
 * layer, for the rows that feed the two norms (f32) and those that feed the two products after
 * attention and SiLU (as the products take them: quantised blocks, or f32 for float weights). */
typedef struct {
    void *ctx;
    int32_t rank, ranks;
    const saf_slice_range *ranges; /* [ranks], rank's own among them */
    char *memory;                  /* saf_stage_shared_bytes of it are the stages' own */
    bool parts;                    /* whether share looks at what was written */
    bool by_token;                 /* saf_kernels_by_token on every rank */
    /* All ranks meet: what each wrote before, all others read afterwards. parts[n]: what was
     * written since they last met, the same list on every rank. By one thread. An error is
     * final: no rank meets another any more. */
    saf_status (*share)(void *ctx, const saf_part *parts, int64_t n);
} saf_stage_group;
/* Bytes at the beginning of `memory`, a multiple of 64, that the stages of a group of so many ranks
 * need, the same on all of them; what comes after is the caller's. SIZE_MAX where it overflows. */
size_t saf_stage_shared_bytes(const saf_model_params *p, saf_stage_room room, int32_t ranks);

/* Working memory of a stage for batches that fit into a room. With a
 * group, which must outlive the stage, its ranks make the same calls with the same batches, and all
 * get the same results; x and logits then lie in the group's memory, at the same place on each
 * rank. A rank may still read them when another is done with the call: before they are written
 * again all must have met, or the next call uses others. group NULL: alone. */
typedef struct saf_stage saf_stage;
saf_status saf_stage_new(const saf_model_params *p, saf_slice *slice, saf_kv_cache *kv,
                         saf_stage_room room, const saf_stage_group *group, saf_stage **out);
void saf_stage_free(saf_stage **s);
size_t saf_stage_bytes(const saf_stage *s);
/* The same without making one, for a cache of so many positions; group: as a part of a stage. For
 * the team that a parallel region gets now. */
size_t saf_stage_plan_bytes(const saf_model_params *p, saf_slice_range range, int64_t capacity,
                            saf_stage_room room, bool group);

/* A value that is not finite leaving a layer: the first of a run. */
typedef struct {
    int32_t run, layer, position; /* run -1: none */
} saf_fault;

/* Runs the slice's layers over a batch, with all threads of this rank.
 *   x       [T, D] activations: in (unless this is the first stage, which looks up ids) and out
 *   faults  [n_runs]: set for every run: its earliest position that is not finite, and the first
 *           layer that it left so
 * The last stage keeps the rows that want logits, in order of the batch, until the next call.
 * Errors: DEFECT (a batch beyond what the stage was made for); those of the group's share; none
 * that depend on values. */
saf_status saf_stage_forward(saf_stage *s, const saf_batch *batch, float *x, saf_fault *faults);

/* logits[n, V] of the kept rows [row0, row0 + n): a large vocabulary goes in blocks. finite[n]:
 * whether all logits of a row are. Errors: those of the group's share. */
saf_status saf_stage_logits(saf_stage *s, int64_t row0, int64_t n, float *logits, bool *finite);

/* ---- rows of which nobody needs all logits ---- */

/* How a token is picked: saf_sampler_pick has the steps. */
typedef struct {
    double temperature;    /* 0: greedy */
    int32_t top_k;         /* 0: off */
    double top_p, min_p;   /* 1.0 and 0.0: off */
    double repeat_penalty; /* 1.0: off */
    int32_t repeat_last;   /* how many last tokens count; 0: none, -1: all */
    uint64_t seed;
} saf_sampling;

/* Rows at a time; of each, tokens at most, n + n_top; of a history, those that are penalised (the
 * last repeat_last of it). */
enum { SAF_LOGIT_ROWS = 24, SAF_CANDIDATES = 256, SAF_PENALISED = 1024 };
/* Of the likeliest tokens so many are looked at first where only top-p or min-p says how many it
 * takes. */
enum { SAF_NUCLEUS = 128 };

/* What is wanted of a row: the logit of a token (-1: of none), the n likeliest tokens once those of
 * the history are penalised (sampling NULL: none are), and the n_top likeliest before. */
typedef struct {
    int32_t scored, n, n_top;
    const saf_sampling *sampling;
    const int32_t *history; /* [n_history] */
    int64_t n_history;
} saf_logit_ask;

/* A token that may be picked. */
typedef struct {
    int32_t id;
    float value, logit; /* penalised, and as it was */
} saf_candidate;

/* What a row of logits comes to. Where it is not finite the rest means nothing. */
typedef struct {
    bool finite; /* all of its logits */
    float scored_logit;
    double log_sum_exp;                /* saf_log_sum_exp of the row */
    int32_t n, n_top;                  /* no more than V */
    const saf_candidate *likely, *top; /* the largest value first, of equals the smallest id */
} saf_logit_row;
/* Of the kept rows [row0, row0 + n), n up to SAF_LOGIT_ROWS: out[n] is what they come to, with
 * candidates in the stage's memory until the next call of this. The ranks of a group ask the same,
 * and tell each other what their parts come to, 8 bytes for SAF_LOGIT_SEGMENT logits and 12 for a
 * candidate; in logits[n, V] each has its own alone, and penalises them there, and no other rank
 * reads them (but after saf_stage_share_logits). Errors: DEFECT (more rows, candidates or penalties
 * than there is room for, more alternatives than tokens); those of the group's share. */
saf_status saf_stage_logit_rows(saf_stage *s, int64_t row0, int64_t n, const saf_logit_ask *asks,
                                float *logits, saf_logit_row *out);

/* Rows that turn out to be needed whole: all columns of logits[n, V] to all ranks of the group, as
 * saf_stage_logit_rows left them in its memory, of rows of which no token was penalised; the same
 * rows on all ranks. Where the ranks share one memory the columns are there already, and nobody
 * meets. As after any call all must have met before they are written again. Errors: DEFECT (more
 * rows than there is room for), those of the group's share. */
saf_status saf_stage_share_logits(saf_stage *s, int64_t n, const float *logits);

/* From now on the calling thread does this after every layer, while the others go on, for what
 * cannot wait until the end of a pass; NULL: no more. It calls nothing of the stage. */
void saf_stage_tick(saf_stage *s, void (*tick)(void *ctx), void *ctx);

/* ---- where the time of a forward pass goes, and what it must do at least ---- */

/* name, what it says in tables */
#define SAF_STEP_LIST(X)      \
    X(EMBED, "embedding")     \
    X(NORM, "norms")          \
    X(QKV, "q, k, v")         \
    X(HEADS, "heads, cache")  \
    X(ATTENTION, "attention") \
    X(QUANTISE, "quantising") \
    X(O, "output")            \
    X(GATE_UP, "gate, up")    \
    X(SILU, "silu")           \
    X(DOWN, "down")           \
    X(CHECK, "checks")        \
    X(HEAD, "head")           \
    X(EXCHANGE, "exchange")

/* Kinds of step, each up to a meeting of the threads: looking up tokens and the angles of their
 * positions (EMBED); norms, what comes out of attention (QUANTISE) and SiLU, each with quantising
 * for the products that follow (QKV, O, GATE_UP, DOWN, HEAD); O and DOWN with adding to the rows;
 * biases, norms and rotation of heads, and storing keys and values (HEADS); whether the last
 * layer's rows and the logits are finite, and what rows of logits come to (CHECK); meetings with
 * the other ranks of a stage (EXCHANGE), waiting for them included. */
typedef enum {
#define X(name, text) SAF_STEP_##name,
    SAF_STEP_LIST(X)
#undef X
        SAF_STEP_COUNT
} saf_step;
const char *saf_step_name(saf_step step);

typedef struct {
    double seconds[SAF_STEP_COUNT]; /* of the whole team: barriers included */
} saf_profile;

/* From now on every pass adds its time to *profile, which stays the caller's; NULL: no more. Off
 * unless asked for. */
void saf_stage_profile(saf_stage *s, saf_profile *profile);

/* What steps cannot do without. Nothing that stays in a cache counts. */
typedef struct {
    int64_t weight_bytes; /* weights read once, as large as in the file (vectors: as f32) */
    int64_t kv_bytes;     /* keys and values read once for each sequence */
    int64_t int8_ops;     /* of products with quantised weights: 2 rows cols for each token */
    int64_t float_ops;    /* of products with float weights, and of attention's two */
} saf_cost;
/* Of each kind, for one saf_stage_forward of this batch and the saf_stage_logits of all rows that
 * want them; of several ranks, what this one's part does. */
void saf_stage_cost(const saf_stage *s, const saf_batch *batch, saf_cost out[SAF_STEP_COUNT]);

/* ==== sampler
 * ====================================================================================*/

typedef struct {
    int32_t id;
    float logprob; /* of id under the plain softmax of the logits (penalties and temperature left
                      out) */
} saf_sampled;

/* How many of the likeliest tokens ranks tell each other of to draw from: as many as step 4 leaves
 * of a vocabulary as large; SAF_NUCLEUS where steps 5 or 6 are left to cut it (and nothing is
 * penalised); 0: too many. */
int32_t saf_sampling_candidates(const saf_sampling *s);
/* Steps 5 to 7 for those: which of the n likeliest tokens of `vocab` is picked, n the least of
 * saf_sampling_candidates and vocab; -1: steps 5 and 6 leave more than these. log_sum_exp: of the
 * row's logits. */
int32_t saf_sampling_draw(const saf_candidate *likely, int32_t n, int64_t vocab, double log_sum_exp,
                          const saf_sampling *settings, uint64_t request, int64_t position);

typedef struct saf_sampler saf_sampler; /* scratch for one vocabulary; one thread */
saf_status saf_sampler_new(int64_t vocab, saf_sampler **out);
void saf_sampler_free(saf_sampler **s);
/* One token from logits[V] (not changed). The order of the steps is that of llama.cpp's default
 * chain; R, K, P, M, T are repeat_penalty, top_k, top_p, min_p, temperature.
 *   1  x[i] = logits[i]; for every id among the last repeat_last of history, once:
 *      x[i] = x[i] > 0 ? x[i] / R : x[i] * R, in double, rounded to f32
 *   2  T = 0: the largest x, the smallest id among equals. Done.
 *   3  Candidates in the order x descending, id ascending: c[0], c[1], ...; m = x[c[0]].
 *      w_t(i) = expf(f32((x[i] - m) / t)), the inner part in double, expf = saf_math_expf
 *   4  K > 0: the first K stay.
 *   5  P < 1: the fewest first whose w_1, added in order, reach P * W, W the sum of w_1 over step
 *      4's, or where that is the whole vocabulary exp(saf_log_sum_exp(x) - m)
 *   6  M > 0: those before the first with w_1 < M
 *   7  u = saf_philox_uniform(seed, request, position): the first whose w_T, added in order,
 *      exceed u * (sum of w_T over step 6's). At least one candidate stays in every step.
 *   Sums are double. Over the whole vocabulary lane j of 8 adds ids j, j + 8, ... and the lanes
 *   are added from 0 to 7; over fewer candidates they are added in order.
 * `request` is the first 64 bits of SHA-256 of the request's id, `position` the position of the
 * token to be sampled. Logits that are not finite do no harm but mean nothing (NaN is least).
 *   history   the sequence so far, prompt included
 *   top       NULL, or room for n_top: the n_top likeliest (id, logprob) under the plain softmax,
 *             logprob descending, id ascending
 *   logprob   f32(logits[id] - saf_log_sum_exp(logits, V))
 * Cost    a few passes over V; sorts only as many candidates as the steps look at
 * Errors  DEFECT (n_top outside [0, V]) */
saf_status saf_sampler_pick(saf_sampler *s, const float *logits, const saf_sampling *settings,
                            const int32_t *history, int64_t n_history, uint64_t request,
                            int64_t position, saf_sampled *out, int n_top, saf_sampled *top);

/* ==== writing =================================================================================*/

typedef struct {
    saf_arch arch;
    const char *name; /* general.name */
    int64_t layers, width, heads, kv_heads, head_width, ff_width, context;
    double rope_base, norm_eps;
    bool tied;              /* no output.weight */
    const char *vocab_path; /* a GGUF file whose tokenizer keys are copied */
    saf_dtype dtype; /* of the matrices: F32, F16, BF16 or Q8_0 (which falls back to F16 where a row
                        is no multiple of 32); vectors are F32 */
} saf_model_write_options;
/* Values [at, at + n) of a tensor, row after row, asked for in the order of the file. */
typedef saf_status (*saf_model_values)(void *ctx, const char *tensor, int64_t at, int64_t n,
                                       float *out);
/* A model file from values that the caller has, of a shape that is right. Local. Errors: USAGE (the
 * type), NO_INPUT, BAD_INPUT (the vocabulary), CANNOT_CREATE, IO, FAILED (a value that is not
 * finite), those of `values`. */
saf_status saf_model_write(const char *path, const saf_model_write_options *options,
                           saf_model_values values, void *ctx);

#endif
