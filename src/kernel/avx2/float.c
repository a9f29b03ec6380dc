/* Float products and the quantisation of activations with AVX2. */
#include <math.h>

#include "kernel/avx2/avx2.h"
#include "kernel/frame/inline.h"
#include "kernel/frame/quantise.h"

enum { ROWS = 8, PASS_TOKENS = 6, PASS_ROWS = 2 * ROWS };
#include "kernel/frame/floats.h"

SAF__INLINE __m256 weights_load(const saf_dtype D, const uint8_t *at) {
    if (D == SAF_DTYPE_F32) return _mm256_loadu_ps((const float *)(const void *)at);
    __m128i half = _mm_loadu_si128((const __m128i *)at);
    if (D == SAF_DTYPE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

static void widen(saf_dtype dtype, const uint8_t *at, int64_t n, float *out) {
    if (dtype == SAF_DTYPE_F16)
        for (int64_t i = 0; i < n; i += ROWS)
            _mm256_storeu_ps(out + i, weights_load(SAF_DTYPE_F16, at + 2 * i));
    else
        for (int64_t i = 0; i < n; i += ROWS)
            _mm256_storeu_ps(out + i, weights_load(SAF_DTYPE_BF16, at + 2 * i));
}

SAF__INLINE void pass_n(const int N, const float_pass *p) {
    const __m256i live[2] = {saf__live_lanes(p->rows), saf__live_lanes(p->rows - ROWS)};
    const float *w = p->w, *x = p->x, *end = w + p->cols * SAF_TILE_ROWS;
    const uint8_t *ahead = p->ahead;
    int64_t by_turns = 0;
    __m256 acc[2 * PASS_TOKENS];
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) acc[i] =
        p->more ? _mm256_maskload_ps(p->y + i / 2 * p->ldy + i % 2 * ROWS, live[i % 2])
                : _mm256_setzero_ps();
    for (; w < end; w += SAF_TILE_ROWS, x++, ahead += p->step) {
        _mm_prefetch((const char *)ahead + by_turns, _MM_HINT_T0);
        by_turns = p->quarter - by_turns;
        __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + ROWS);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m256 xt = _mm256_set1_ps(x[t * p->ldx]);
            acc[2 * t] = _mm256_fmadd_ps(xt, w0, acc[2 * t]);
            acc[2 * t + 1] = _mm256_fmadd_ps(xt, w1, acc[2 * t + 1]);
        }
    }
    SAF__UNROLL for (int i = 0; i < 2 * N; i++)
        _mm256_maskstore_ps(p->y + i / 2 * p->ldy + i % 2 * ROWS, live[i % 2], acc[i]);
}

static void pass_tokens(const float_pass *p, int tokens) {
    switch (tokens) { SAF__PASSES_1_TO_6(p) }
}

SAF__INLINE void one_token(const saf_dtype D, const saf__float_part *p) {
    enum { REGISTERS = SAF_TILE_ROWS / ROWS, AHEAD_BYTES = 2048 };
    const int width = D == SAF_DTYPE_F32 ? 4 : 2;
    const uint8_t *at = p->tile;
    __m256 acc[REGISTERS];
    SAF__UNROLL for (int i = 0; i < REGISTERS; i++) acc[i] =
        p->more ? _mm256_maskload_ps(p->y + i * ROWS, saf__live_lanes(p->rows - i * ROWS))
                : _mm256_setzero_ps();
    for (int64_t k = 0; k < p->cols; k++, at += SAF_TILE_ROWS * width) {
        _mm_prefetch((const char *)at + AHEAD_BYTES, _MM_HINT_T0);
        if (width == 4) _mm_prefetch((const char *)at + AHEAD_BYTES + 64, _MM_HINT_T0);
        __m256 xk = _mm256_set1_ps(p->x[k]);
        SAF__UNROLL for (int i = 0; i < REGISTERS; i++) acc[i] =
            _mm256_fmadd_ps(xk, weights_load(D, at + i * ROWS * width), acc[i]);
    }
    SAF__UNROLL for (int i = 0; i < REGISTERS; i++)
        _mm256_maskstore_ps(p->y + i * ROWS, saf__live_lanes(p->rows - i * ROWS), acc[i]);
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
    k->dot_float = frame_dot_float;
    k->quantise = frame_quantise;
}
