/* saf/kernel.h: the arithmetic. Quantised and float matrix products, attention, norms, rotary
 * positions, softmax; elementary functions. No MPI, no files, no model: only slices of numbers.
 *
 * One answer: every operation below has one defined order of its floating-point operations. The
 * scalar reference, AVX2, AVX-512 and NEON kernels give the same bits for the same arguments,
 * whatever the number of threads, whatever the other rows of a batch. "fma" is the IEEE fused
 * operation; nothing else is contracted. No libm function but sqrt, rint and fma appears in a value
 * path.
 *
 * Threads. Functions marked "team", called by every thread of a parallel region, share the work and
 * end with a barrier: each one is one meeting of the threads (saf_attention: two where threads
 * share a sequence), and a layer is put together so that there are few. Called outside of a region
 * they run on the caller's thread. All threads must pass the same arguments. The others are for one
 * thread.
 *
 * Ranks: everything is local.
 */
#ifndef SAF_KERNEL_H
#define SAF_KERNEL_H

#include "saf/core.h"

/* ---- choice of the instruction set -------------------------------------------------------- */

/* Chooses the kernels: `name` is "scalar", "avx2", "avx512", "amx" or "neon", or NULL for the
 * environment variable SAF_KERNELS, or (unset, empty or "auto") the best that this processor has.
 * Asks the system for the tiles' registers where the processor has AMX. Call once, before any other
 * function of this room. Errors: SAF_USAGE (unknown, or not supported here). */
saf_status saf_kernels_init(const char *name);
/* The name chosen; "avx512" says in detail "avx512-vnni" where VNNI is used. Without VNNI it takes
 * the quantised products of AVX2 and everything else of AVX-512. "neon" says "neon-dotprod" where
 * the processor has the dot product instructions. "amx" is AVX-512 with VNNI, and AMX for many
 * tokens. */
const char *saf_kernels_name(void);
/* Whether the processor has AMX for products of bytes and the system lets this process use it: asks
 * the system. */
bool saf_kernels_have_tiles(void);
/* Whether the processor is AMD's, whose cores want memory to be read, and asked for, in other ways.
 */
bool saf_kernels_on_amd(void);
/* Whether products of many tokens may read activations token by token (SAF_ACTS_BY_TOKEN): then
 * they cannot be shared with ranks whose kernels do not. */
bool saf_kernels_by_token(void);
/* Checks on every OpenMP thread that rounding is to nearest and that denormals are kept.
 * Errors: SAF_FAILED. */
saf_status saf_kernels_check_float_state(void);

/* ---- weights ------------------------------------------------------------------------------- */

enum { SAF_TILE_ROWS = 32, SAF_QUANT_BLOCK = 32 };

/* One matrix [R, K], repacked for the kernels as tiles of SAF_TILE_ROWS rows (the last padded
 * with zero rows). A mixture of experts holds an array of these. Layout: src/kernel/pack.h. */
typedef struct {
    saf_dtype dtype; /* as in the file */
    int64_t rows, cols;
    void *data;   /* owned by the caller; 64-byte aligned */
    size_t bytes; /* of data */
} saf_weight;

/* Fills dtype, rows, cols and bytes; data stays NULL. No rows are as good as any number. Errors:
 * SAF_BAD_INPUT (K is no multiple of the type's block, a type without kernels, sizes that
 * overflow). */
saf_status saf_weight_plan(saf_dtype dtype, int64_t rows, int64_t cols, saf_weight *out);

/* Repacks rows [row0, row0 + n_rows) from their bytes in the file's own layout (rows one after
 * another). row0 is a multiple of SAF_TILE_ROWS, and so is n_rows unless the last row is among
 * them. Team: no (call for disjoint rows from several threads if wished). */
void saf_weight_pack(saf_weight *w, int64_t row0, int64_t n_rows, const void *raw);

/* out[K] = the dequantised row r, exactly as the type defines it: d*q - m with the scale and the
 * minimum each rounded to f32 first. For embeddings. */
void saf_weight_row(const saf_weight *w, int64_t r, float *out);

/* ---- activations --------------------------------------------------------------------------- */

/* A batch of input rows x[T, K], with its quantised form beside it, made once and shared by all
 * products that read it. Per block of 32 of one row: dx = amax / 127; q = nearest-even of
 * x * (127 / amax), clamped to [-127, 127]; a block with amax below 2^-100 gives zeros and dx 0;
 * one that holds a value that is not finite gives zeros and dx NaN. K that is no multiple of 32
 * is padded with zeros. */
typedef struct saf_acts saf_acts;

/* Room for up to max_tokens rows of max_cols. Errors: SAF_NO_MEMORY. */
saf_status saf_acts_new(int64_t max_tokens, int64_t max_cols, saf_acts **out);
void saf_acts_free(saf_acts **acts);
size_t saf_acts_bytes(int64_t max_tokens, int64_t max_cols);

/* How the products that read a batch want it: as it is, or quantised in one of two orders. Which
 * is the faster depends on the instruction set, the type and the number of tokens:
 * saf_acts_form_of. */
typedef enum {
    SAF_ACTS_FLOATS,
    SAF_ACTS_BY_GROUP, /* the tokens of a tile side by side, four columns of each in turn */
    SAF_ACTS_BY_TOKEN, /* each token's block of columns in one piece */
    SAF_ACTS_FORMS
} saf_acts_form;

/* Takes x[T, K] (row stride ldx) as the current batch. `x` stays the caller's and must live until
 * the last product. Team. */
void saf_acts_set(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                  saf_acts_form form);

/* Makes y[T, K] of other rows and takes it as saf_acts_set does: each thread quantises what it just
 * made. Team; y overlaps none of what is read unless said so.
 *
 * _norm: y[t,:] = (x[t,:] * (1 / sqrt(ss / K + eps))) * weight. Lane j of 16 sums x[j], x[j+16],
 * ... squared by fma from 0; lanes fold 8-4-2-1 (lane j += lane j+8, ...). finite[t], unless
 * `finite` is NULL, becomes false where a value of x[t,:] is not finite, and stays as it is
 * elsewhere. */
void saf_acts_set_norm(saf_acts *acts, const float *x, int64_t ldx, const float *weight, float eps,
                       int64_t tokens, int64_t cols, saf_acts_form form, bool *finite, float *y,
                       int64_t ldy);
/* _silu: y[t,:] = silu(gate[t,:]) * up[t,:], silu(x) = x / (1 + exp(-x)). y may be gate or up. */
void saf_acts_set_silu(saf_acts *acts, const float *gate, const float *up, int64_t ld,
                       int64_t tokens, int64_t cols, saf_acts_form form, float *y, int64_t ldy);

/* ---- activations that several ranks make ----
 * A batch x[T, K] of which each rank makes some columns [begin, end), both multiples of 32 unless
 * end is K, in memory that all ranks see: there lies what products read, the quantised form or, for
 * float weights, the values. Every rank calls with the same T, K and form; a rank that has no
 * columns calls as well. When all have met, any of them may read the batch. */

/* Bytes of that memory, for batches of up to max_tokens rows of max_cols: a multiple of 64, or
 * SIZE_MAX where it overflows. */
size_t saf_acts_shared_bytes(int64_t max_tokens, int64_t max_cols);
/* `memory`, at a multiple of 64, stays the caller's and must outlive the result. by_token: whether
 * saf_kernels_by_token says so on every rank. Errors: SAF_NO_MEMORY. */
saf_status saf_acts_shared_new(void *memory, int64_t max_tokens, int64_t max_cols, bool by_token,
                               saf_acts **out);
/* The columns `part` of a batch, which lie side by side in x[T, end - begin], row stride ldx. Like
 * saf_acts_set, but x need not live on. Team. */
void saf_acts_set_part(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                       saf_span part, saf_acts_form form);
/* Those of silu(gate) * up, likewise. `gate` is scratch memory afterwards. Team. */
void saf_acts_set_silu_part(saf_acts *acts, float *gate, const float *up, int64_t ld,
                            int64_t tokens, int64_t cols, saf_span part, saf_acts_form form);
/* Which bytes of the memory the columns of `owner` take: up to SAF_ACTS_PARTS entries of `out`,
 * their number is returned. */
enum { SAF_ACTS_PARTS = 8 };
int saf_acts_parts(const saf_acts *acts, int32_t owner, int64_t tokens, int64_t cols, saf_span part,
                   saf_acts_form form, saf_part out[SAF_ACTS_PARTS]);

/* ---- products ------------------------------------------------------------------------------ */

typedef struct {
    const saf_weight *w;
    float *y;
    int64_t ldy;
    float *sum; /* NULL, or what y is added to */
    int64_t ldsum;
} saf_row_product;

/* The form of a batch of T rows for these products: FLOATS if none of the weights is quantised,
 * else the one that suits those of the most rows. BY_TOKEN only if `acts` may be so, and then on
 * every rank that calls with the same types and T. */
saf_acts_form saf_acts_form_of(const saf_acts *acts, const saf_row_product *products, int n,
                               int64_t tokens);

/* Of each of n products, y[t, r] = sum_k x[t, k] * w[r, k], every t of the batch and r in [0, R);
 * then, where there is a sum, sum[t, r] += y[t, r]. The products read the same x, and the threads
 * share out the tiles of all of them together.
 * Shapes   y, sum [T, R], row strides ldy, ldsum >= R, in elements
 * Owner    the caller keeps all; y and sum overlap nothing
 * Ranks    local; team
 * Order    quantised: blocks b of 32 of k ascending, acc starts at 0, and for each
 *            s   = sum_k q[t,k] w[r,k]                              in int32, exact
 *            acc = fma(d[r,b] * scale[r,b] * dx[t,b], (float)s, acc)
 *            and, for types with a minimum,
 *            acc = fma(m[r,b] * min[r,b], dx[t,b] * (float)sum_k q[t,k], acc)
 *          (scale 1 where the type has no integer scale); Q2_K, Q3_K and Q6_K, which have scales
 *          and minimums for each half h of 16 columns,
 *            s   = sum_h scale[r,b,h] * sum_{k in h} q[t,k] w[r,k]  in int32, exact, below 2^24
 *            acc = fma(d[r,b] * dx[t,b], (float)s, acc)
 *            acc = fma(m[r,b] * min[r,b,h], dx[t,b] * (float)sum_{k in h} q[t,k], acc), each h
 *          with w the signed integer that the type's formula multiplies by its scale
 *            Q8_0 q; Q4_0 q-8; Q5_0 q-16; Q4_1, Q5_1 q, m = +m of the file, min 1;
 *            Q2_K, Q4_K, Q5_K q, m = -dmin, min and scale the integers of the file;
 *            Q3_K q in [-4, 3], scale - 32; Q6_K q - 32, int8 scale
 *          float weights: acc = fma(x[t,k], w[r,k], acc), k ascending, acc starts at 0
 * Errors   none: shapes are checked where they are made
 * Source   the GGUF type definitions; DESIGN "Numbers" */
void saf_matmul(const saf_row_product *products, int n, const saf_acts *x);

/* finite[t] becomes false where a value of row t is not finite, and stays as it is elsewhere. Team.
 */
void saf_rows_finite(const float *x, int64_t ldx, int64_t tokens, int64_t width, bool *finite);

/* ---- rotary positions ------------------------------------------------------------------------*/

typedef enum {
    SAF_ROPE_ADJACENT, /* pairs (2i, 2i+1): llama */
    SAF_ROPE_HALVES,   /* pairs (i, i + n/2): qwen2, qwen3 */
} saf_rope_pairs;

/* table[t, i, 0..1] = scale * cos, scale * sin of positions[t] * inv_freq[i], computed in double
 * by saf's own polynomials and rounded once to f32. i < half. Team. */
void saf_rope_table(const double *inv_freq, int64_t half, double scale, const int32_t *positions,
                    int64_t tokens, float *table);

/* ---- key-value cache and attention ------------------------------------------------------------*/

typedef enum { SAF_KV_F16, SAF_KV_F32, SAF_KV_Q8_0 } saf_kv_type;

/* The cache of one sequence and one layer: segments of SAF_KV_SEGMENT positions, those of the keys
 * a stride apart, and so those of the values, for a sequence to grow into memory as it gets longer.
 * Within a segment, f16 and f32, element e in the cache's type:
 *   k[((g * 16 + p/16) * C + c) * 16 + p%16]      key head g, position p, channel c
 *   v[(g * 256 + p) * C + c]
 * so that 16 positions of a key lie side by side, and the channels of a value.
 * Q8_0: blocks of 32 channels of a position and a head (the last one narrower where C is no
 * multiple of 32), a block as codes q and an f32 scale d made as those of the activations are, and
 * read as d*q: d = amax / 127; q = nearest-even of x * (127 / amax), within [-127, 127]; amax below
 * 2^-100: zeros and d 0; a value that is not finite: zeros and d NaN. Groups of 16 positions of a
 * head, group (g * 256 + p)/16 of 16 * (C + 4*blocks) bytes: first the scales, f32 [blocks,
 * 16], positions side by side, then the codes, int8, of keys [C, 16] and of values [16, C]. */
enum { SAF_KV_SEGMENT = 256 };
/* Bytes of the keys, or the values, of so many positions; SIZE_MAX where it overflows. */
size_t saf_kv_bytes(saf_kv_type type, int64_t positions, int64_t kv_heads, int64_t head_width);

/* The heads of a model, and which of them there are here: in q and out the query heads `q`, in k, v
 * and the cache the key heads `kv`, which are those that `q` reads, or more. Query head h reads key
 * head h * HKV / H. Where only keys and values are stored, `q` may be empty. */
typedef struct {
    int64_t heads, kv_heads, head_width; /* H, HKV, C <= SAF_MAX_HEAD_WIDTH */
    saf_span q, kv;
} saf_attn_shape;
static inline saf_attn_shape saf_attn_shape_whole(int64_t heads, int64_t kv_heads,
                                                  int64_t head_width) {
    return (saf_attn_shape){heads, kv_heads, head_width, {0, heads}, {0, kv_heads}};
}

/* One sequence's part of a batch: rows [row0, row0 + tokens) of q, k, v and out are its positions
 * pos0, pos0 + 1, ... */
typedef struct {
    void *k, *v;   /* the first segment of this layer */
    size_t stride; /* bytes from a segment to the next, a multiple of 16 */
    int64_t pos0, tokens, row0;
} saf_attn_seq;

/* What becomes of each head of q and k, and of v, before attention. */
typedef struct {
    const float *q_bias, *k_bias, *v_bias; /* of the heads that are here, or NULL: x += bias */
    const float *q_norm, *k_norm; /* [C] or NULL: a norm over the head, as saf_acts_set_norm's */
    float norm_eps;
    saf_rope_pairs rope_pairs;
    int64_t rope_half; /* 0: no rotation */
    const float *rope; /* [T, rope_half, 2] of saf_rope_table */
} saf_attn_heads;

/* In place, of the heads of q and of k, v, row strides ldq, ld: bias, norm, then the first 2 *
 * rope_half values of each head rotated, a' = fma(a, cos, -(b * sin)), b' = fma(a, sin, b * cos)
 * for each pair. And k and v rounded to the cache's type (f16: nearest even) into their positions.
 * Team. */
void saf_attn_store(const saf_attn_heads *how, const saf_attn_shape *shape, saf_kv_type type,
                    const saf_attn_seq *seqs, int64_t n_seqs, float *q, int64_t ldq, float *k,
                    float *v, int64_t ld);

/* Where threads leave what they have of a sequence whose keys several of them share: enough for
 * the largest team that a parallel region may get now, for sequences of one row (and of more where
 * it suffices) up to `capacity` positions. Errors: SAF_NO_MEMORY. */
typedef struct saf_attn_scratch saf_attn_scratch;
saf_status saf_attn_scratch_new(const saf_attn_shape *shape, int64_t capacity,
                                saf_attn_scratch **out);
void saf_attn_scratch_free(saf_attn_scratch **scratch);
size_t saf_attn_scratch_bytes(const saf_attn_shape *shape, int64_t capacity);

/* out[t, h, :] = softmax over positions p <= position(t) of (q[t,h].k[p,g]) * scale, times v[p,g],
 * with g = h * HKV / H. Reads keys and values from the cache only: saf_attn_store comes first.
 * Shapes   q, out: the query heads of the shape side by side, row strides ldq, ldo
 * Owner    the caller keeps all; scratch may be NULL: then no sequence is shared by threads
 * Ranks    local; team
 * Order    segments of 256 positions from the start of the sequence, ascending, each from zero:
 *            dot: c ascending, fma from 0; s = dot * scale; m = max; e = exp(s - m)
 *            sum: lane p%16 of 16 adds e, lanes fold 8-4-2-1
 *            o[c] = fma(e, v[p,c], o[c]), p ascending
 *          Q8_0, whose scales are taken in once a block b of channels:
 *            dot: b ascending, fma(d[p,b], (c of b ascending, fma(q[c], code[p,c], .) from 0), .)
 *            from 0; o[c] = fma(e * d[p,b], code[p,c], o[c])
 *          first segment as it is; then with M' = max(M, m), a = exp(M - M'), b = exp(m - M'):
 *          S = fma(S, a, sum*b); O[c] = fma(O[c], a, o[c]*b); at the end out = O / S
 *          positions after position(t) take no part at all */
enum { SAF_MAX_HEAD_WIDTH = 512 };
void saf_attention(const saf_attn_shape *shape, saf_kv_type type, const saf_attn_seq *seqs,
                   int64_t n_seqs, float scale, const float *q, int64_t ldq, float *out,
                   int64_t ldo, saf_attn_scratch *scratch);

/* ---- over the vocabulary -----------------------------------------------------------------------
 *
 * Outside of a parallel region log_sum_exp and argmax share their segments out to a team of their
 * own; inside of one they run on the caller's thread. */

/* A row of logits goes by segments, from its start, so that ranks that have some segments each make
 * the same of it as one that has them all. */
enum { SAF_LOGIT_SEGMENT = 512 };
typedef struct {
    float max, sum; /* sum of exp(x - max): lane v%16 of 16 adds, lanes fold 8-4-2-1 */
} saf_logit_segment;
/* out[t * ldo + i]: segment i of `width` logits of row t, which begin with a segment. Team. */
void saf_logit_segments(const float *logits, int64_t ld, int64_t n, int64_t width,
                        saf_logit_segment *out, int64_t ldo);
/* log(sum_v exp(logits[v])) of a row with these segments, n > 0: they merge in ascending order, in
 * double. */
double saf_log_sum_exp_of(const saf_logit_segment *segments, int64_t n);
/* The same of the row itself. */
double saf_log_sum_exp(const float *logits, int64_t vocab);
/* Index of the largest, the smallest index among equals. */
int64_t saf_argmax(const float *x, int64_t n);
/* y[i] = exp(x[i] - shift), f32 */
void saf_exp_shifted(const float *x, float shift, int64_t n, float *y);

/* ---- elementary functions: the same bits everywhere ------------------------------------------ */

/* f32 exp, within 2 ulp; exact 0 below -103.98 (after denormals), inf above 88.73; NaN stays. */
float saf_math_expf(float x);
/* Double, within a few ulp; for tables, samplers and log-likelihoods. */
double saf_math_exp(double x);
double saf_math_log(double x);                                /* x > 0 */
double saf_math_pow(double x, double y);                      /* exp(y log x), x > 0 */
void saf_math_sincos(double x, double *sine, double *cosine); /* |x| < 2^31 */

#endif
