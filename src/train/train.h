/* Between the files of the room that trains models: what a model is made of, what a micro-batch
 * leaves behind for its backward pass, and the pieces that a step is put together from.
 *
 * src/train: training in f32. May include core, comm, kernel and model. Every sum has one order
 * that no number of ranks or threads changes: include/saf/train.h says which.
 */
#ifndef SAF_TRAIN_TRAIN_H
#define SAF_TRAIN_TRAIN_H

#include "saf/core_blas.h"
#include "saf/train.h"

/* ---- shapes ---------------------------------------------------------------------------------- */

typedef struct {
    int64_t layers, width, heads, kv_heads, head_width, ff_width, vocab, context;
    int64_t q_cols, kv_cols;      /* H C, HKV C */
    int64_t sequences, tokens;    /* of a micro-batch: S, N = S T */
    int64_t embed, out_norm, out; /* places among the parameters; tied: out is embed */
    int64_t layer0, layer_values; /* of the first layer, and how many each has */
    int64_t values;               /* P: of all parameters */
    bool qk_norm, tied;
    float norm_eps, scale; /* scale: 1 / sqrt(C), of attention */
} saf__dims;

/* Tokens of a micro-batch at most: rows of products, whose lengths are an int. */
enum { SAF__TOKENS_MOST = 1 << 24 };
/* Of a shape and settings that were checked. */
void saf__dims_set(const saf_train_shape *shape, const saf_train_settings *settings, saf__dims *d);

/* Where a layer's tensors begin, among parameters or gradients. */
typedef struct {
    float *attn_norm, *q, *k, *v, *q_norm, *k_norm, *o, *ffn_norm, *gate, *up, *down;
} saf__layer;
saf__layer saf__layer_at(const saf__dims *d, float *values, int64_t layer);

/* values[P] of step 0. */
void saf__draw(const saf_train_tensor *tensors, int64_t n, int64_t layers, uint64_t seed,
               int threads, float *values);

/* An error that this rank alone may have had, where others already wait for it: COMM with the same
 * text, unless there are no others. */
saf_status saf__unagreed(const saf_comm *comm, saf_status st);

/* ---- products -------------------------------------------------------------------------------- */

/* c[m, n] (+)= sum over terms of op(a)[m, k] op(b)[k, n], terms ascending; row-major, strides in
 * elements. */
typedef struct {
    const float *a, *b;
    int64_t lda, ldb, k;
    bool trans_a, trans_b;
} saf__term;
enum { SAF__TERMS = 3 };
typedef struct {
    float *c;
    int64_t m, n, ldc;
    bool add; /* to what c holds */
    int terms;
    saf__term term[SAF__TERMS];
} saf__product;
enum { SAF__PRODUCTS = 4 };

/* y[m, n] = x[m, k] w[n, k]^T, all contiguous. */
saf__product saf__product_forward(const float *x, const float *w, float *y, int64_t m, int64_t n,
                                  int64_t k);
/* dx[m, k] = dy[m, n] w[n, k], to which saf__product_also adds another term of this kind. */
saf__product saf__product_inputs(const float *dy, const float *w, float *dx, int64_t m, int64_t n,
                                 int64_t k);
void saf__product_also(saf__product *p, const float *dy, const float *w, int64_t n);
/* dw[n, k] = dy[m, n]^T x[m, k] */
saf__product saf__product_weights(const float *dy, const float *x, float *dw, int64_t m, int64_t n,
                                  int64_t k);

/* ---- a team and what it has to do ------------------------------------------------------------ */

typedef struct {
    const saf_blas *blas;
    int threads;
    double operations; /* 2 m n k of products so far */
} saf__team;

/* The products (at most SAF__PRODUCTS), whose tiles the threads share out together. Like attention
 * below, it moves messages on when it is done. */
void saf__products(saf__team *team, const saf__product *products, int n);

/* Rows: y[t,:] = x[t,:] * inverse[t] * weight, inverse[t] = 1 / sqrt(mean of squares + eps). */
void saf__norm(const saf__team *team, const float *x, const float *weight, float eps, int64_t rows,
               int64_t cols, float *inverse, float *y);
/* Backwards: dx[t,:] (added to what it holds, if `add`) from dy; dweight is set. */
void saf__norm_back(const saf__team *team, const float *x, const float *weight,
                    const float *inverse, const float *dy, int64_t rows, int64_t cols, bool add,
                    float *dx, float *dweight);
/* Turns pairs of each head of x[N, heads, C] by the angles of their positions (row % T), or back.
 * table[T, C/2, 2]: cos and sin. */
void saf__rope(const saf__team *team, const saf__dims *d, saf_rope_pairs pairs, const float *table,
               int64_t heads, bool back, float *x);
/* h = silu(gate) * up over n values. */
void saf__silu(const saf__team *team, const float *gate, const float *up, int64_t n, float *h);
/* From dh, its gradient: h again, and the gradients of gate and up. */
void saf__silu_back(const saf__team *team, const float *gate, const float *up, const float *dh,
                    int64_t n, float *h, float *dgate, float *dup);
/* sum += x, n values. */
void saf__add(const saf__team *team, const float *x, int64_t n, float *sum);
/* Of n > 0 values; NaN does not count. By one thread. */
float saf__largest(const float *x, int64_t n);

/* ---- attention ------------------------------------------------------------------------------- */

enum { SAF__QUERIES = 128 }; /* of a block */
/* Values of scratch memory that one thread takes. */
int64_t saf__attend_scratch(const saf__dims *d);
/* out[N, H, C]; stats[N, H, 2]: largest product, and 1 / sum of the weights, of each row. */
void saf__attend(saf__team *team, const saf__dims *d, const float *q, const float *k,
                 const float *v, float *scratch, float *stats, float *out);
void saf__attend_back(saf__team *team, const saf__dims *d, const float *q, const float *k,
                      const float *v, const float *out, const float *dout, const float *stats,
                      float *scratch, float *dq, float *dk, float *dv);

/* ---- a micro-batch --------------------------------------------------------------------------- */

/* What the forward pass of a layer leaves. raw_q and raw_k: before their norms, where there are. */
typedef struct {
    float *x, *attn_in, *raw_q, *raw_k, *q, *k, *v, *stats, *heads, *mid, *ffn_in, *gate, *up;
    float *attn_inverse, *ffn_inverse, *q_inverse, *k_inverse;
} saf__kept;

typedef struct {
    saf__dims d;
    saf_rope_pairs pairs;
    float *memory;               /* all that follows, but for `row_loss` */
    saf__kept *kept;             /* [L] */
    float *x, *normed, *inverse; /* what leaves the last layer [N, D], its norm, and of that */
    float *logits;               /* [SAF__HEAD_ROWS, V] */
    float *h;                    /* [N, F] */
    float *dx, *dnormed;         /* [N, D] */
    float *dh, *dgate, *dup;     /* [N, F] */
    float *dheads, *dq, *dk, *dv, *draw_q, *draw_k; /* draw: before their norms */
    float *scratch;                                 /* of attention */
    float *rope;                                    /* [T, C/2, 2] */
    double *row_loss;                               /* [N] */
} saf__pass;
enum { SAF__HEAD_ROWS = 512 };

/* Values that a pass takes; -1 where that overflows. */
int64_t saf__pass_values(const saf__dims *d, int threads);
saf_status saf__pass_new(const saf__dims *d, const saf_train_shape *shape, int threads,
                         saf__pass **out);
void saf__pass_free(saf__pass **pass);

/* ids[S, T + 1], counted[S]: as saf_train_read gives them. */
typedef struct {
    const int32_t *ids;
    const int64_t *counted;
} saf__sequences;

/* Through the layers and the last norm. */
void saf__pass_forward(saf__pass *p, saf__team *team, float *values, const saf__sequences *in);
/* each[S]: the sums of their losses. With gradients (not NULL) of `share` times the loss by the
 * parameters of the head, which are set, and pass.dnormed. */
void saf__pass_head(saf__pass *p, saf__team *team, float *values, const saf__sequences *in,
                    double share, float *gradients, double *each);
/* Back through all the rest. `ready` is called when the gradients of a group are complete:
 * layer L is the head's (output_norm and, unless tied, output), layer -1 is the embedding's. */
typedef struct {
    void *ctx;
    saf_status (*ready)(void *ctx, int64_t layer);
} saf__back;
saf_status saf__pass_back(saf__pass *p, saf__team *team, float *values, const saf__sequences *in,
                          const saf__back *back, float *gradients);

/* ---- sums over micro-batches and ranks ------------------------------------------------------- */

/* A node of the tree: micro-batches [index << level, (index + 1) << level). */
typedef struct {
    int level;
    int64_t index;
} saf__node;
enum { SAF__NODES = 128 }; /* at most: two of each level */

/* Micro-batches of a rank: [begin, end). */
saf_span saf__rank_share(int64_t n, int ranks, int rank);
/* What is left of nodes[n] when micro-batch `index` comes behind them. *merges of the newest ones
 * become one. */
int saf__nodes_add(saf__node *nodes, int n, int64_t index, int *merges);
/* Nodes that a range of micro-batches adds up to, and how many there are at most on the way. */
int saf__nodes_of(saf_span range, saf__node nodes[SAF__NODES], int *most);

typedef struct saf__reduction saf__reduction;
/* Values of this rank's parts of all chunks together. */
int64_t saf__reduction_own(const saf__dims *d, int ranks, int rank);
/* Values of memory that it takes beside the slots. */
int64_t saf__reduction_values(const saf__dims *d, int64_t micro_batches, int ranks, int rank);
saf_status saf__reduction_new(saf_comm *comm, const saf__dims *d, int64_t micro_batches,
                              saf__reduction **out);
void saf__reduction_free(saf__reduction **reduction);
/* A group of parameters and its parts: of chunk c (in the order in which they are ready), what
 * `rank` sums up and updates; the whole of it with rank -1. */
int64_t saf__reduction_chunks(const saf__reduction *x);
saf_span saf__reduction_part(const saf__reduction *x, int64_t chunk, int rank);
/* The slots' values of chunk c are there: they go to the ranks whose part they are. */
saf_status saf__reduction_send(saf__reduction *x, int64_t chunk, float *const *slots);
/* When all chunks were sent: this rank's parts of the sum over all micro-batches, into slot 0. */
saf_status saf__reduction_finish(saf__reduction *x, const saf__team *team, float *const *slots);
/* All parts of all ranks to all: values[P]. Collective. */
saf_status saf__reduction_gather(saf__reduction *x, float *values);
/* Sum of squares over blocks: the same on all ranks. Collective. */
saf_status saf__reduction_squares(saf__reduction *x, const saf__team *team, const float *values,
                                  double *out);

/* ---- the optimizer --------------------------------------------------------------------------- */

typedef struct {
    float rate, decay, epsilon;       /* decay: that of those that have any */
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float clip;                       /* what gradients are multiplied by */
    float unbias1, unbias2;           /* 1 / (1 - beta^s) */
} saf__adam;
saf__adam saf__adam_of(const saf_train_settings *s, int64_t step, double norm);
/* Parameters [span) and their moments, of which m[0] and v[0] are the first one's. */
void saf__adam_update(const saf__team *team, const saf__adam *a, const saf_train_tensor *tensors,
                      int64_t n, saf_span span, const float *gradient, float *values, float *m,
                      float *v);

/* ---- a training ------------------------------------------------------------------------------ */

struct saf_train {
    saf_comm *comm;
    saf_train_shape shape;
    saf_train_settings settings;
    saf__dims d;
    saf__team team;
    saf_train_tensor *tensors;
    int64_t n_tensors;
    int rank, ranks;
    saf_span mine; /* micro-batches of this rank */
    int64_t step;
    float *values; /* [P] */
    float *m, *v; /* [P]; with shards only this rank's parts, side by side as chunks are numbered */
    float
        *slots[SAF__NODES]; /* [P] each: partial sums of gradients; slot 0 holds the sum at last */
    int n_slots;
    saf__pass *pass;
    saf__reduction *reduction;
    int32_t *ids;     /* [local sequences, T + 1] */
    int64_t *counted; /* [local sequences] */
    double *losses;   /* [batch] */
    saf_train_counters counters;
};

#endif
