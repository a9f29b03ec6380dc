/* Products of one tile of tokens with AMX. Every weight is unpacked for sixteen tokens only, so
 * that has to cost nothing: it goes on some blocks ahead of the products, whose lanes leave the
 * units that it needs idle half of the time. Q8_0 is not unpacked at all: the tiles take codes of
 * 128 more than w as they lie, and what the sums are too much by is known beforehand. */
#include "kernel/amx/tiles.h"
#include "kernel/amx/unpack.h"

enum {
    AHEAD = 4, /* blocks that are unpacked before they are multiplied */
    MOST_BLOCK = sizeof(saf__amx_block) + SAF__AMX_PLANE_BYTES
};

/* ---- unpacking ahead ------------------------------------------------------------------------- */

/* Where the blocks of a tile of weights lie, and where they go for the job that has half of the
 * rows: into a ring, those of Q8_0 as what is added to their products. */
typedef struct {
    const uint8_t *tile;
    uint8_t *ring;
    int32_t (*less)[TOKENS];
} source;

SAF__INLINE void unpack_one(const variant V, const source *s, const job *j, int64_t b) {
    const int blocks = V.meta != SAF__META_NONE ? 8 : 1, header = V.has_min ? 128 : 64;
    const int bytes = V.bits * SAF__GROUP_BYTES + (V.meta != SAF__META_NONE ? 64 : 0);
    const size_t unpacked_bytes = saf__amx_block_bytes(V.bits == 6 ? 2 : 1);
    if (b >= j->n_blocks) return;
    if (V.bits == 8) {
        const __m512i counted = _mm512_set1_epi32(COUNTED), offset = _mm512_set1_epi16(-128);
        __m512i less = _mm512_madd_epi16(_mm512_loadu_si512(j->q_sums + b * j->tokens), offset);
        less = _mm512_mask_add_epi32(less, 0xAAAA, less, counted);
        _mm512_store_si512(s->less[b % RING], less);
    } else {
        const uint8_t *super = s->tile + b / blocks * (header + blocks * bytes);
        const uint8_t *block = super + header + b % blocks * bytes;
        uint8_t *to = s->ring + (size_t)(b % RING) * unpacked_bytes;
        unpack_rows(V, super, block, j->half, (saf__amx_block *)to);
    }
    __asm__ volatile("" ::: "memory"); /* what the tiles load has been written */
}

/* ---- products -------------------------------------------------------------------------------- */

/* Blocks b and b + 1 of n, as in amx.c. */
SAF__INLINE void dot_two(const variant V, const shape S, const int64_t b, const int64_t n,
                         const job *j, const source *s, block_sums *sums, __m512 *acc) {
    if (b + 2 < n) MULTIPLY_EVEN(S, j, b + 2);
    if (b + 1 < n) STORE_ODD(S, sums[1]);
    unpack_one(V, s, j, b + AHEAD);
    add_block(S, j, b, sums[0], acc);
    if (b + 3 < n) MULTIPLY_ODD(S, j, b + 3);
    if (b + 2 < n) STORE_EVEN(S, sums[0]);
    if (b + 1 >= n) return;
    unpack_one(V, s, j, b + 1 + AHEAD);
    add_block(S, j, b + 1, sums[1], acc);
}

SAF__INLINE void dot_half(const variant V, const shape S, const job *j, const source *s) {
    block_sums sums[2] __attribute__((aligned(64)));
    const int64_t n = j->n_blocks;
    __m512 acc[TOKENS];
    SAF__UNROLL for (int t = 0; t < TOKENS; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t b = 0; b < AHEAD; b++) unpack_one(V, s, j, b);
    MULTIPLY_EVEN(S, j, 0);
    if (n > 1) MULTIPLY_ODD(S, j, 1);
    STORE_EVEN(S, sums[0]);
    for (int64_t b = 0; b < n; b += 2) dot_two(V, S, b, n, j, s, sums, acc);
    acc_store(S, j, acc);
}

SAF__INLINE void dot_tile(const variant V, saf_dtype dtype, const uint8_t *tile,
                          const saf__acts_view *a, int rows, float *y, int64_t ldy) {
    uint8_t ring[RING * MOST_BLOCK] __attribute__((aligned(64)));
    int32_t less[RING][TOKENS] __attribute__((aligned(64)));
    const int mins = V.meta == SAF__META_NIBBLES ? 2 : 1;
    const shape S = {.planes = V.bits == 6 ? 2 : 1,
                     .mins = V.has_min ? mins : 0,
                     .packed = V.bits == 8,
                     .ring = true};
    const source s = {tile, ring, less};
    /* The next tile of weights comes in meanwhile. */
    const int64_t bytes = (int64_t)saf__tile_bytes(dtype, a->cols);
    const int64_t lines = saf_ceil_div(bytes, 128 * a->blocks);
    for (int half = 0; half < 2 && half * ROWS < rows; half++) {
        const job j = {.blocks = S.packed ? tile : ring,
                       .n_blocks = a->blocks,
                       .half = half,
                       .tokens = (int)a->tokens,
                       .rows = (int)saf_i64_min(rows - half * ROWS, ROWS),
                       .q = a->q,
                       .dx = a->dx,
                       .u = a->u,
                       .q_sums = a->sums,
                       .less = less,
                       .y = y + half * ROWS,
                       .next = (const char *)tile + bytes + half * lines * a->blocks * 64,
                       .next_lines = (int)lines,
                       .ldy = ldy};
        dot_half(V, S, &j, &s);
    }
}

#define FEW(name, dtype, ...)                                                          \
    static void name(const uint8_t *tile, const saf__acts_view *a, int rows, float *y, \
                     int64_t ldy) {                                                    \
        const variant v = {__VA_ARGS__};                                               \
        dot_tile(v, dtype, tile, a, rows, y, ldy);                                     \
    }
FEW(few_q8_0, SAF_DTYPE_Q8_0, VARIANT_Q8_0)
FEW(few_q4_0, SAF_DTYPE_Q4_0, VARIANT_Q4_0)
FEW(few_q4_1, SAF_DTYPE_Q4_1, VARIANT_Q4_1)
FEW(few_q5_0, SAF_DTYPE_Q5_0, VARIANT_Q5_0)
FEW(few_q5_1, SAF_DTYPE_Q5_1, VARIANT_Q5_1)
FEW(few_q2_k, SAF_DTYPE_Q2_K, VARIANT_Q2_K)
FEW(few_q3_k, SAF_DTYPE_Q3_K, VARIANT_Q3_K)
FEW(few_q4_k, SAF_DTYPE_Q4_K, VARIANT_Q4_K)
FEW(few_q5_k, SAF_DTYPE_Q5_K, VARIANT_Q5_K)
FEW(few_q6_k, SAF_DTYPE_Q6_K, VARIANT_Q6_K)

typedef void (*few_function)(const uint8_t *tile, const saf__acts_view *a, int rows, float *y,
                             int64_t ldy);
static const few_function few[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = few_q8_0, [SAF_DTYPE_Q4_0] = few_q4_0, [SAF_DTYPE_Q4_1] = few_q4_1,
    [SAF_DTYPE_Q5_0] = few_q5_0, [SAF_DTYPE_Q5_1] = few_q5_1, [SAF_DTYPE_Q2_K] = few_q2_k,
    [SAF_DTYPE_Q3_K] = few_q3_k, [SAF_DTYPE_Q4_K] = few_q4_k, [SAF_DTYPE_Q5_K] = few_q5_k,
    [SAF_DTYPE_Q6_K] = few_q6_k};

void saf__amx_dot_few(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                      float *y, int64_t ldy) {
    few[dtype](tile, a, rows, y, ldy);
}
