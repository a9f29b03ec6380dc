/* Float products and the quantisation of activations with AVX-512. */
#include <immintrin.h>
#include <math.h>

#include "kernel/avx512/avx512.h"
#include "kernel/frame/inline.h"
#include "kernel/frame/quantise.h"

/* Columns of one pass over all tokens: their weights stay in the first-level cache. */
enum { PANEL_COLS = 128, PREFETCH_BYTES = 2048 };

SAF__INLINE __m512 weights_load(const saf_dtype D, const uint8_t *at) {
    if (D == SAF_DTYPE_F32) return _mm512_loadu_ps(at);
    __m256i half = _mm256_loadu_si256((const __m256i *)at);
    if (D == SAF_DTYPE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* N tokens and 32 rows over columns [k0, k1). */
SAF__INLINE void dot_panel(const saf_dtype D, const int N, const uint8_t *tile, const float *x,
                           int64_t ldx, int64_t k0, int64_t k1, int rows, float *y, int64_t ldy) {
    const int width = D == SAF_DTYPE_F32 ? 4 : 2;
    __mmask16 live[2] = {(__mmask16)((1u << (rows < 16 ? rows : 16)) - 1),
                         (__mmask16)((1u << (rows < 16 ? 0 : rows - 16)) - 1)};
    __m512 acc[2 * SAF__ACT_TOKENS];
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) acc[i] =
        k0 == 0 ? _mm512_setzero_ps()
                : _mm512_maskz_loadu_ps(live[i % 2], y + i / 2 * ldy + i % 2 * 16);
    for (int64_t k = k0; k < k1; k++) {
        const uint8_t *at = tile + k * SAF_TILE_ROWS * width;
        if (N == 1) { /* a single pass over weights from memory */
            _mm_prefetch((const char *)at + PREFETCH_BYTES, _MM_HINT_T0);
            if (width == 4) _mm_prefetch((const char *)at + PREFETCH_BYTES + 64, _MM_HINT_T0);
        }
        __m512 w0 = weights_load(D, at), w1 = weights_load(D, at + 16 * width);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m512 xt = _mm512_set1_ps(x[t * ldx + k]);
            acc[2 * t] = _mm512_fmadd_ps(xt, w0, acc[2 * t]);
            acc[2 * t + 1] = _mm512_fmadd_ps(xt, w1, acc[2 * t + 1]);
        }
    }
    SAF__UNROLL for (int i = 0; i < 2 * N; i++)
        _mm512_mask_storeu_ps(y + i / 2 * ldy + i % 2 * 16, live[i % 2], acc[i]);
}

SAF__INLINE void dot_tokens(const saf_dtype D, int64_t n, const uint8_t *tile, const float *x,
                            int64_t ldx, int64_t k0, int64_t k1, int rows, float *y, int64_t ldy) {
    switch (n) {
        case 1:
            dot_panel(D, 1, tile, x, ldx, k0, k1, rows, y, ldy);
            break;
        case 2:
            dot_panel(D, 2, tile, x, ldx, k0, k1, rows, y, ldy);
            break;
        case 3:
            dot_panel(D, 3, tile, x, ldx, k0, k1, rows, y, ldy);
            break;
        case 4:
            dot_panel(D, 4, tile, x, ldx, k0, k1, rows, y, ldy);
            break;
        case 5:
            dot_panel(D, 5, tile, x, ldx, k0, k1, rows, y, ldy);
            break;
        default:
            dot_panel(D, 6, tile, x, ldx, k0, k1, rows, y, ldy);
            break;
    }
}

SAF__INLINE void dot_type(const saf_dtype D, const uint8_t *tile, const saf__acts_view *a, int rows,
                          float *y, int64_t ldy) {
    int64_t panel = a->tokens > SAF__ACT_TOKENS ? PANEL_COLS : a->cols;
    for (int64_t k0 = 0; k0 < a->cols; k0 += panel) {
        int64_t k1 = saf_i64_min(k0 + panel, a->cols);
        for (int64_t t = 0; t < a->tokens; t += SAF__ACT_TOKENS)
            dot_tokens(D, saf_i64_min(SAF__ACT_TOKENS, a->tokens - t), tile, a->x + t * a->ldx,
                       a->ldx, k0, k1, rows, y + t * ldy, ldy);
    }
}

static void avx512_dot_float(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a,
                             int rows, float *y, int64_t ldy) {
    if (dtype == SAF_DTYPE_F32)
        dot_type(SAF_DTYPE_F32, tile, a, rows, y, ldy);
    else if (dtype == SAF_DTYPE_F16)
        dot_type(SAF_DTYPE_F16, tile, a, rows, y, ldy);
    else
        dot_type(SAF_DTYPE_BF16, tile, a, rows, y, ldy);
}

/* ---- activations --------------------------------------------------------------------------- */

static void quantise_block(const float *x, int64_t n, int8_t q[SAF_QUANT_BLOCK], float *dx,
                           int32_t *sums) {
    __mmask32 live = (__mmask32)(((uint64_t)1 << n) - 1);
    __m512 x0 = _mm512_maskz_loadu_ps((__mmask16)live, x);
    __m512 x1 = _mm512_maskz_loadu_ps((__mmask16)(live >> 16), x + 16);
    __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i m0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
    __m512i m1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
    /* As integers: infinity and NaN are the largest, so the maximum tells of them. */
    uint32_t bits = _mm512_reduce_max_epu32(_mm512_max_epu32(m0, m1));
    float amax = saf_f32_from_bits(bits);
    *sums = 0;
    if (bits >= 0x7F800000 || amax < 0x1p-100f) {
        *dx = bits >= 0x7F800000 ? NAN : 0.0f;
        memset(q, 0, SAF_QUANT_BLOCK);
        return;
    }
    *dx = amax / 127.0f;
    __m512 inverse = _mm512_set1_ps(127.0f / amax);
    __m512i q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
    __m512i q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
    *sums = saf__pack_sums(_mm512_reduce_add_epi32(q0), _mm512_reduce_add_epi32(q1));
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(q1));
}

void saf__avx512_float(saf__kernels *k) {
    k->dot_float = avx512_dot_float;
    k->quantise = frame_quantise;
}
