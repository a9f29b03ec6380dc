/* kernels.h: the table of kernels, one a unit of work. saf__kernels_scalar fills it with the plain
 * reference; each instruction set then overrides what it does better. The worksharing loops and
 * the shapes live in acts.c, matmul.c, rows.c, kv.c, attention.c and vocab.c, once for all. */
#ifndef SAF_KERNEL_KERNELS_H
#define SAF_KERNEL_KERNELS_H

#include "kernel/pack.h"

/* Tiles of weights that one token reads side by side: a processor reads several places of its
 * memory faster than one. */
enum { SAF__STREAMS = 4 };

/* The most tokens of one tile of activations, and of one by_token. */
enum { SAF__ACT_TOKENS = 5, SAF__ACT_TOKENS_BY_TOKEN = 16 };

/* The quantised form of x[T, K], in tiles of `tile` tokens (the last one narrower). Of the tile
 * that begins at token t0 and has n tokens, block b, token t:
 *   q    [(t0 * blocks + b * n) * 32 + (g * n + t) * 4 + j]   column 32 b + 4 g + j
 *        [(t0 * blocks + b * n) * 32 + t * 32 + 4 * g + j]    by_token
 *   dx   [t0 * blocks + b * n + t]
 *   sums [t0 * blocks + b * n + t]   the sums of q over both halves of 16, as two int16: first
 *                                    half low
 *   u    [t0 * blocks + b * n + t]   dx times the sum of q over the block, rounded to f32 */
typedef struct {
    const float *x; /* of the columns from x_col on, a multiple of 32 */
    int64_t ldx, x_col;
    int64_t tokens, cols, blocks; /* blocks = ceil(cols / 32) */
    int64_t tile;
    bool by_token;
    int8_t *q;
    float *dx;
    int32_t *sums;
    float *u;
} saf__acts_view;

static inline int64_t saf__act_tile_tokens(const saf__acts_view *a, int64_t t0) {
    return saf_i64_min(a->tile, a->tokens - t0);
}
static inline int32_t saf__pack_sums(int first, int second) {
    return (int32_t)((uint32_t)(first & 0xFFFF) | (uint32_t)second << 16);
}

/* What a value of a key-value cache is read as, and where. */
typedef struct {
    saf_kv_type type;
    const void *k, *v; /* of this head, in the first segment */
    size_t stride;     /* bytes from a segment to the next */
    int64_t head_width;
    float scale;
    bool in_order; /* of the table */
} saf__kv_head;

/* Q8_0: bytes of the keys, or the values, of sixteen positions of a head, scales included. */
static inline int64_t saf__kv_q8_group_bytes(int64_t head_width) {
    return 16 * (head_width + 4 * saf_ceil_div(head_width, SAF_QUANT_BLOCK));
}
/* Where the keys, or the values, of head g begin in their part of a segment. */
void *saf__kv_head_at(void *segment, saf_kv_type type, int64_t g, int64_t head_width);

/* Query rows that one call of `attend` takes, with the same key head; limit[i] = how many
 * positions row i reads, at least 1 and ascending. */
enum { SAF__ATTN_ROWS = 96 };
typedef struct {
    int rows;
    const float *q[SAF__ATTN_ROWS];
    float *out[SAF__ATTN_ROWS];
    int64_t limit[SAF__ATTN_ROWS];
    float max[SAF__ATTN_ROWS], sum[SAF__ATTN_ROWS]; /* set by the call */
} saf__attn_rows;

/* A part of a product with float weights: tokens and columns of the activations that stay in a
 * core's caches while its tiles of weights pass by. */
typedef struct {
    saf_dtype dtype;
    const uint8_t *tile; /* [cols, 32] */
    const uint8_t *next; /* what the next call reads, to be fetched meanwhile */
    const float *x;
    int64_t ldx, tokens, cols;
    int rows;
    bool more; /* y has the sums of the columns before these */
    float *y;
    int64_t ldy;
} saf__float_part;

typedef struct {
    const char *name;
    /* The processor reads one run of its memory at least as fast as several side by side: its
     * prefetchers then follow it all the way, and several disturb each other. */
    bool in_order;
    int stream_ahead; /* bytes that such a run is asked for ahead */
    /* Whether dot_quant wants activations by_token for so many; NULL: it cannot read them. */
    bool (*by_token)(saf_dtype dtype, int64_t tokens);
    /* Blocks [b0, b1) of the tile of activations that begins at token t0. */
    void (*quantise)(const saf__acts_view *a, int64_t t0, int64_t b0, int64_t b1);
    /* y[t, 0 .. rows) for every token of `a` and one tile of 32 rows of weights. */
    void (*dot_quant)(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                      float *y, int64_t ldy);
    /* As dot_quant for one token and SAF__STREAMS tiles of 32 rows, for where reading in order is
     * not better; NULL: no faster than one by one. */
    void (*dot_streams)(saf_dtype dtype, const uint8_t *const *tiles, const saf__acts_view *a,
                        float *const *y);
    /* As dot_quant for as many tokens as one tile of activations has, for where reading in order
     * is better; NULL: dot_quant is. */
    void (*dot_few)(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                    float *y, int64_t ldy);
    void (*dot_float)(const saf__float_part *part);

    /* A norm in two: 1 / sqrt(mean of the squares + eps), and y = (x * scale) * weight; y may be x.
     */
    float (*rms_scale)(const float *x, float eps, int64_t n);
    void (*scale_mul)(const float *x, float scale, const float *weight, int64_t n, float *y);
    void (*add)(const float *x, int64_t n, float *y);
    void (*silu_mul)(const float *gate, const float *up, int64_t n, float *y);
    bool (*finite)(const float *x, int64_t n);
    void (*rope)(saf_rope_pairs pairs, const float *table, int64_t half, float *x);
    void (*exp_shifted)(const float *x, float shift, int64_t n, float *y);
    /* The largest of n >= 1 values (NaN are passed over), and the sum of exp(x - shift) in
     * sixteen lanes, folded. */
    float (*max)(const float *x, int64_t n);
    float (*exp_sum)(const float *x, float shift, int64_t n);

    /* Maximum, sum and weighted sum of the segments [s0, s1) together, s0 taken as the first; a
     * row that reads nothing of segment s0 reads nothing at all. Not divided by the sum. */
    void (*attend)(const saf__kv_head *head, saf__attn_rows *rows, int64_t s0, int64_t s1);
    /* One head of one position into its segment; `position` counts from the segment's first. */
    void (*kv_store)(const float *k, const float *v, int64_t head_width, saf_kv_type type,
                     int64_t position, void *k_head, void *v_head);
} saf__kernels;

void saf__kernels_scalar(saf__kernels *k);
void saf__kernels_avx2(saf__kernels *k);
void saf__kernels_avx512(saf__kernels *k);
void saf__kernels_avx512_vnni(saf__kernels *k);
void saf__kernels_neon(saf__kernels *k);
void saf__kernels_neon_dotprod(saf__kernels *k);
void saf__kernels_amx(saf__kernels *k);

/* Where the part of thread t of a team begins on a line of `total`; that of t == team, its end. */
static inline int64_t saf__share(int64_t total, int64_t t, int64_t team) {
    return total / team * t + total % team * t / team;
}

/* The chosen table. Tests choose again through saf_kernels_init. */
const saf__kernels *saf__kernels_get(void);
/* For tests: the way of reading that processors of another maker take, until kernels are chosen. */
void saf__kernels_read_in_order(bool yes);

#endif
