/* Float products and the quantisation of activations with AVX2. */
#include <math.h>

#include "kernel/avx2/avx2.h"
#include "kernel/frame/inline.h"
#include "kernel/frame/quantise.h"

/* Columns of one pass over all tokens: their weights stay in the first-level cache. */
enum { PANEL_COLS = 128, PASS_TOKENS = 3, ROWS = 8 };

SAF__INLINE __m256 weights_load(const saf_dtype D, const uint8_t *at) {
    if (D == SAF_DTYPE_F32) return _mm256_loadu_ps((const float *)(const void *)at);
    __m128i half = _mm_loadu_si128((const __m128i *)at);
    if (D == SAF_DTYPE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
typedef struct {
    const uint8_t *tile;
    const float *x;
    int64_t ldx, k0, k1;
    int rows;
    float *y;
    int64_t ldy;
} panel;

/* N tokens and R registers of rows from row r0 over columns [k0, k1). */
SAF__INLINE void dot_panel(const saf_dtype D, const int N, const int R, const panel *p, int r0) {
    const int width = D == SAF_DTYPE_F32 ? 4 : 2;
    __m256 acc[12];
    SAF__UNROLL for (int i = 0; i < N * R; i++) {
        int row = r0 + i % R * ROWS;
        acc[i] = p->k0 == 0 ? _mm256_setzero_ps()
                            : _mm256_maskload_ps(p->y + i / R * p->ldy + row,
                                                 saf__live_lanes(p->rows - row));
    }
    for (int64_t k = p->k0; k < p->k1; k++) {
        const uint8_t *at = p->tile + (k * SAF_TILE_ROWS + r0) * width;
        __m256 w[4];
        SAF__UNROLL for (int r = 0; r < R; r++) w[r] = weights_load(D, at + r * ROWS * width);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m256 xt = _mm256_set1_ps(p->x[t * p->ldx + k]);
            SAF__UNROLL for (int r = 0; r < R; r++) acc[t * R + r] =
                _mm256_fmadd_ps(xt, w[r], acc[t * R + r]);
        }
    }
    SAF__UNROLL for (int i = 0; i < N * R; i++) {
        int row = r0 + i % R * ROWS;
        _mm256_maskstore_ps(p->y + i / R * p->ldy + row, saf__live_lanes(p->rows - row), acc[i]);
    }
}

/* One token: the whole tile at once; more: three tokens by two halves of the tile. */
SAF__INLINE void dot_tokens(const saf_dtype D, int64_t n, const panel *p) {
    if (n == 1) {
        dot_panel(D, 1, 4, p, 0);
        return;
    }
    for (int r0 = 0; r0 < p->rows; r0 += 2 * ROWS) {
        if (n == PASS_TOKENS)
            dot_panel(D, PASS_TOKENS, 2, p, r0);
        else
            dot_panel(D, 2, 2, p, r0);
    }
}

SAF__INLINE void dot_type(const saf_dtype D, const uint8_t *tile, const saf__acts_view *a, int rows,
                          float *y, int64_t ldy) {
    int64_t cols = a->tokens > PASS_TOKENS ? PANEL_COLS : a->cols;
    for (int64_t k0 = 0; k0 < a->cols; k0 += cols) {
        for (int64_t t = 0; t < a->tokens; t += PASS_TOKENS) {
            panel p = {tile, a->x + t * a->ldx, a->ldx, k0, saf_i64_min(k0 + cols, a->cols),
                       rows, y + t * ldy,       ldy};
            dot_tokens(D, saf_i64_min(PASS_TOKENS, a->tokens - t), &p);
        }
    }
}

static void avx2_dot_float(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                           float *y, int64_t ldy) {
    if (dtype == SAF_DTYPE_F32)
        dot_type(SAF_DTYPE_F32, tile, a, rows, y, ldy);
    else if (dtype == SAF_DTYPE_F16)
        dot_type(SAF_DTYPE_F16, tile, a, rows, y, ldy);
    else
        dot_type(SAF_DTYPE_BF16, tile, a, rows, y, ldy);
}

/* ---- activations --------------------------------------------------------------------------- */

SAF__INLINE uint32_t fold_max(__m256i m) {
    __m128i a = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    a = _mm_max_epu32(a, _mm_shuffle_epi32(a, 0x4E));
    a = _mm_max_epu32(a, _mm_shuffle_epi32(a, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(a);
}
SAF__INLINE int fold_add(__m256i m) {
    __m128i a = _mm_add_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4E));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0xB1));
    return _mm_cvtsi128_si32(a);
}

static void quantise_block(const float *x, int64_t n, int8_t q[SAF_QUANT_BLOCK], float *dx,
                           int32_t *sums) {
    __m256 v[4];
    __m256i largest = _mm256_setzero_si256(), w[4];
    SAF__UNROLL for (int i = 0; i < 4; i++) {
        v[i] = _mm256_maskload_ps(x + 8 * i, saf__live_lanes((int)n - 8 * i));
        largest = _mm256_max_epu32(
            largest, _mm256_and_si256(_mm256_castps_si256(v[i]), _mm256_set1_epi32(0x7FFFFFFF)));
    }
    /* As integers: infinity and NaN are the largest, so the maximum tells of them. */
    uint32_t bits = fold_max(largest);
    float amax = saf_f32_from_bits(bits);
    *sums = 0;
    if (bits >= 0x7F800000 || amax < 0x1p-100f) {
        *dx = bits >= 0x7F800000 ? NAN : 0.0f;
        memset(q, 0, SAF_QUANT_BLOCK);
        return;
    }
    *dx = amax / 127.0f;
    __m256 inverse = _mm256_set1_ps(127.0f / amax);
    SAF__UNROLL for (int i = 0; i < 4; i++) w[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    *sums = saf__pack_sums(fold_add(_mm256_add_epi32(w[0], w[1])),
                           fold_add(_mm256_add_epi32(w[2], w[3])));
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(w[0], w[1]), _mm256_packs_epi32(w[2], w[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, bytes);
}

void saf__avx2_float(saf__kernels *k) {
    k->dot_float = avx2_dot_float;
    k->quantise = frame_quantise;
}
