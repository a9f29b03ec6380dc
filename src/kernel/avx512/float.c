/* Float products with AVX-512. */
#include <immintrin.h>

#include "kernel/avx512/avx512.h"
#include "kernel/frame/inline.h"

enum { PASS_TOKENS = 12, PASS_ROWS = SAF_TILE_ROWS };
#include "kernel/frame/floats.h"

SAF__INLINE __m512 weights_load(const saf_dtype D, const uint8_t *at) {
    if (D == SAF_DTYPE_F32) return _mm512_loadu_ps(at);
    __m256i half = _mm256_loadu_si256((const __m256i *)at);
    if (D == SAF_DTYPE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static void widen(saf_dtype dtype, const uint8_t *at, int64_t n, float *out) {
    if (dtype == SAF_DTYPE_F16)
        for (int64_t i = 0; i < n; i += 16)
            _mm512_storeu_ps(out + i, weights_load(SAF_DTYPE_F16, at + 2 * i));
    else
        for (int64_t i = 0; i < n; i += 16)
            _mm512_storeu_ps(out + i, weights_load(SAF_DTYPE_BF16, at + 2 * i));
}

SAF__INLINE void pass_n(const int N, const float_pass *p) {
    const __mmask16 live[2] = {live_rows(p->rows, 0), live_rows(p->rows, 1)};
    const float *w = p->w, *x = p->x, *end = w + p->cols * SAF_TILE_ROWS;
    const uint8_t *ahead = p->ahead;
    int64_t by_turns = 0;
    float *y = p->y;
    __m512 acc[2 * PASS_TOKENS];
    SAF__UNROLL_WIDE for (int i = 0; i < 2 * N; i++) acc[i] =
        p->more ? _mm512_maskz_loadu_ps(live[i % 2], y + i / 2 * p->ldy + i % 2 * 16)
                : _mm512_setzero_ps();
    for (; w < end; w += SAF_TILE_ROWS, x++, ahead += p->step) {
        _mm_prefetch((const char *)ahead + by_turns, _MM_HINT_T0);
        _mm_prefetch((const char *)ahead + by_turns + 2 * p->quarter, _MM_HINT_T0);
        by_turns = p->quarter - by_turns;
        __m512 w0 = _mm512_loadu_ps(w), w1 = _mm512_loadu_ps(w + 16);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m512 xt = _mm512_set1_ps(x[t * p->ldx]);
            acc[2 * t] = _mm512_fmadd_ps(xt, w0, acc[2 * t]);
            acc[2 * t + 1] = _mm512_fmadd_ps(xt, w1, acc[2 * t + 1]);
        }
    }
    SAF__UNROLL_WIDE for (int i = 0; i < 2 * N; i++)
        _mm512_mask_storeu_ps(y + i / 2 * p->ldy + i % 2 * 16, live[i % 2], acc[i]);
}

static void pass_tokens(const float_pass *p, int tokens) {
    switch (tokens) {
        SAF__PASSES_1_TO_6(p)
        SAF__PASSES_7_TO_12(p)
    }
}

SAF__INLINE void one_token(const saf_dtype D, const saf__float_part *p) {
    enum { AHEAD_BYTES = 2048 }; /* a single pass over weights from memory */
    const int width = D == SAF_DTYPE_F32 ? 4 : 2;
    const __mmask16 live[2] = {live_rows(p->rows, 0), live_rows(p->rows, 1)};
    const uint8_t *at = p->tile;
    __m512 acc[2];
    SAF__UNROLL for (int i = 0; i < 2; i++) acc[i] =
        p->more ? _mm512_maskz_loadu_ps(live[i], p->y + 16 * i) : _mm512_setzero_ps();
    for (int64_t k = 0; k < p->cols; k++, at += SAF_TILE_ROWS * width) {
        _mm_prefetch((const char *)at + AHEAD_BYTES, _MM_HINT_T0);
        if (width == 4) _mm_prefetch((const char *)at + AHEAD_BYTES + 64, _MM_HINT_T0);
        __m512 xk = _mm512_set1_ps(p->x[k]);
        acc[0] = _mm512_fmadd_ps(xk, weights_load(D, at), acc[0]);
        acc[1] = _mm512_fmadd_ps(xk, weights_load(D, at + 16 * width), acc[1]);
    }
    SAF__UNROLL for (int i = 0; i < 2; i++) _mm512_mask_storeu_ps(p->y + 16 * i, live[i], acc[i]);
}

void saf__avx512_float(saf__kernels *k) {
    k->dot_float = frame_dot_float;
}
