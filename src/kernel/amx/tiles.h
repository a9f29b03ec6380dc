/* tiles.h: sixteen tokens by sixteen rows, a block of columns at a time, with AMX: the tiles, and
 * the lanes that scale and add what they give. */
#ifndef SAF_KERNEL_AMX_TILES_H
#define SAF_KERNEL_AMX_TILES_H

#include <immintrin.h>

#include "kernel/amx/amx.h"
#include "kernel/avx512/avx512.h"
#include "kernel/avx512/codes.h"
#include "kernel/frame/inline.h"

/* What one kernel is compiled for. */
typedef struct {
    int planes;
    int mins;    /* 0, 1 of a block, 2 of its halves */
    bool packed; /* Q8_0 as it lies packed: codes of 128 more than w */
    bool ring;   /* of RING blocks that are unpacked as they are needed, tokens in cache */
} shape;

enum {
    TOKENS = SAF__ACT_TOKENS_BY_TOKEN,
    ROWS = SAF__AMX_ROWS,
    RING = 8,
    TOKEN_LINES = TOKENS * SAF_QUANT_BLOCK / 64 /* of a block of columns */
};

/* Blocks of 16 rows and a tile of tokens. */
typedef struct {
    const uint8_t *blocks;
    int64_t n_blocks;
    int half; /* of the rows of a tile of weights */
    int tokens, rows;
    const int8_t *q;
    const float *dx, *u;
    const int32_t *q_sums;
    const int32_t (*less)[TOKENS]; /* packed: what is added to the products of each block */
    float *kept;                   /* the sums so far, [TOKENS][ROWS] */
    float *y;                      /* where they go after the last block; NULL: back */
    int64_t ldy;
    const char
        *next;      /* weights that come later, and how many lines of them to ask for with every */
    int next_lines; /* block */
    const int8_t *next_q; /* half of the next tokens' lines, every block as many */
} job;

/* ---- tiles --------------------------------------------------------------------------------- */

/* Operand of LDTILECFG. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) tile_config;

/* Sums in tiles 0 and 1, of second planes in 6 and 7; tokens in 2 and 3, codes in 4 and 5. */
enum { SUM_BYTES = 64, TOKEN_BYTES = SAF_QUANT_BLOCK, CODE_BYTES = 64 };
static const tile_config config = {
    .palette = 1,
    .row_bytes = {SUM_BYTES, SUM_BYTES, TOKEN_BYTES, TOKEN_BYTES, CODE_BYTES, CODE_BYTES, SUM_BYTES,
                  SUM_BYTES},
    .rows = {TOKENS, TOKENS, TOKENS, TOKENS, SAF__GROUPS, SAF__GROUPS, TOKENS, TOKENS}};

typedef int32_t block_sums[2][TOKENS * ROWS]; /* of each plane */

SAF__INLINE const saf__amx_block *block_at(const shape S, const job *j, int64_t b) {
    return (const saf__amx_block *)(j->blocks + (size_t)(S.ring ? b % RING : b) *
                                                    saf__amx_block_bytes(S.planes));
}
/* Packed: the scales, then the codes, of 32 rows, of which the job's are the first or the last. */
enum { PACKED_HEADER = 64, PACKED_BYTES = PACKED_HEADER + SAF__GROUPS * SAF__GROUP_BYTES };
SAF__INLINE const uint8_t *packed_at(const job *j, int64_t b) {
    return j->blocks + b * PACKED_BYTES;
}

/* Block b's products into the tile Y, and those of the second plane into Z, by way of X and W. The
 * numbers of tiles are parts of instructions. */
#define MULTIPLY(S, j, b, Y, Z, X, W)                                                \
    do {                                                                             \
        const saf__amx_block *w_ = block_at(S, j, b);                                \
        _tile_zero(Y);                                                               \
        _tile_loadd(X, (j)->q + (b) * (j)->tokens * SAF_QUANT_BLOCK, TOKEN_BYTES);   \
        if ((S).packed) {                                                            \
            _tile_loadd(W, packed_at(j, b) + PACKED_HEADER + (j)->half * CODE_BYTES, \
                        SAF__GROUP_BYTES);                                           \
            _tile_dpbsud(Y, X, W);                                                   \
            break;                                                                   \
        }                                                                            \
        _tile_loadd(W, w_->plane, CODE_BYTES);                                       \
        _tile_dpbssd(Y, X, W);                                                       \
        if ((S).planes == 2) {                                                       \
            _tile_zero(Z);                                                           \
            _tile_loadd(W, w_->plane + SAF__AMX_PLANE_BYTES, CODE_BYTES);            \
            _tile_dpbssd(Z, X, W);                                                   \
        }                                                                            \
    } while (0)
#define MULTIPLY_EVEN(S, j, b) MULTIPLY(S, j, b, 0, 6, 2, 4)
#define MULTIPLY_ODD(S, j, b) MULTIPLY(S, j, b, 1, 7, 3, 5)
#define STORE(S, Y, Z, to)                                        \
    do {                                                          \
        _tile_stored(Y, (to)[0], SUM_BYTES);                      \
        if ((S).planes == 2) _tile_stored(Z, (to)[1], SUM_BYTES); \
    } while (0)
#define STORE_EVEN(S, to) STORE(S, 0, 6, to)
#define STORE_ODD(S, to) STORE(S, 1, 7, to)

/* ---- lanes --------------------------------------------------------------------------------- */

/* dx times the sum of q over half h of the block's columns. */
SAF__INLINE float half_sum(const float *dx, const int32_t *q_sums, const int h) {
    return *dx * (float)(h == 0 ? (int16_t)*q_sums : *q_sums >> 16);
}

/* Sums as floats, times a power of two, in two ways. While tiles are in use a core converts,
 * multiplies and adds products with one unit only, and that is what takes the time; integers and
 * sums of floats go through another as well, which the tiles' sums pass on their way to memory. So
 * some tokens take the conversion, the others an addition of integers and a subtraction: a float of
 * 1.5 times 2^23 counts whole numbers in its last bits. Both are exact, for sums below 2^22. */
SAF__INLINE __m512 sums_convert(const block_sums sums, int plane, int t) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums[plane] + t * ROWS));
}
enum { COUNTED = 0x4B400000 };
SAF__INLINE __m512 sums_count(const block_sums sums, int plane, int t, const int power) {
    const __m512i from = _mm512_set1_epi32(COUNTED + (power << 23));
    __m512i s = _mm512_add_epi32(_mm512_load_si512(sums[plane] + t * ROWS), from);
    return _mm512_sub_ps(_mm512_castsi512_ps(s), _mm512_castsi512_ps(from));
}
/* Packed: what is too much goes with the same addition. */
SAF__INLINE __m512 sums_less(const block_sums sums, int t, int32_t less) {
    const __m512 from = _mm512_castsi512_ps(_mm512_set1_epi32(COUNTED));
    __m512i s = _mm512_add_epi32(_mm512_load_si512(sums[0] + t * ROWS), _mm512_set1_epi32(less));
    return t % 2 == 0 ? _mm512_cvtepi32_ps(s) : _mm512_sub_ps(_mm512_castsi512_ps(s), from);
}

SAF__INLINE __m512 sums_load(const shape S, const block_sums sums, int t) {
    const bool converted = t % 2 == 0; /* half of them: measured */
    if (S.planes == 1) return converted ? sums_convert(sums, 0, t) : sums_count(sums, 0, t, 0);
    __m512 low = sums_convert(sums, 0, t);
    if (!converted) return _mm512_add_ps(sums_count(sums, 1, t, 6), low);      /* exact */
    return _mm512_fmadd_ps(sums_convert(sums, 1, t), _mm512_set1_ps(64), low); /* likewise */
}

/* A part of what comes later, with every block. */
SAF__INLINE void prefetch_next(const job *j, int64_t b) {
    const char *next = j->next + b * j->next_lines * 64;
    for (int i = 0; i < j->next_lines; i++, next += 64) __builtin_prefetch(next, 0, 2);
}
SAF__INLINE void prefetch_tokens(const job *j, int64_t b) {
    SAF__UNROLL for (int i = 0; i < TOKEN_LINES / 2; i++)
        __builtin_prefetch(j->next_q + (b * TOKEN_LINES + i) * 64, 0, 3);
}

/* acc += the rule's steps for all tokens and rows of block b. */
SAF__INLINE void add_block(const shape S, const job *j, int64_t b, const block_sums sums,
                           __m512 *acc) {
    const saf__amx_block *w = block_at(S, j, b);
    const int64_t at = b * j->tokens;
    const __m512 d = S.packed ? halfs(packed_at(j, b) + 32 * j->half) : _mm512_load_ps(w->d);
    prefetch_next(j, b);
    if (!S.ring) prefetch_tokens(j, b);
    SAF__UNROLL for (int t = 0; t < TOKENS; t++) {
        __m512 s = S.packed ? sums_less(sums, t, j->less[b % RING][t]) : sums_load(S, sums, t);
        acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(j->dx[at + t])), s, acc[t]);
    }
    SAF__UNROLL for (int h = 0; h < S.mins; h++) {
        const __m512 m = _mm512_load_ps(w->m[h]);
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) {
            float u = S.mins == 2 ? half_sum(j->dx + at + t, j->q_sums + at + t, h) : j->u[at + t];
            acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(u), acc[t]);
        }
    }
}

/* The results of a tile of tokens, or its sums so far. The lanes of tokens that are not there have
 * computed with what lies behind, and are dropped. */
SAF__INLINE void acc_store(const shape S, const job *j, const __m512 *acc) {
    if (!S.ring && !j->y) {
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) _mm512_store_ps(j->kept + t * ROWS, acc[t]);
    } else if (j->tokens == TOKENS && j->rows == ROWS) {
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) _mm512_storeu_ps(j->y + t * j->ldy, acc[t]);
    } else {
        const __mmask16 live = live_rows(j->rows, 0);
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) if (t < j->tokens)
            _mm512_mask_storeu_ps(j->y + t * j->ldy, live, acc[t]);
    }
}

#endif
