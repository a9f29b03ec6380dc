/* lanes.h: sixteen f32 lanes, the one vector type of the frames. A frame (rows.h, attention.h)
 * is compiled once per instruction set: the including file defines one of SAF__LANES_SCALAR,
 * SAF__LANES_AVX2, SAF__LANES_AVX512, SAF__LANES_NEON first. Every function here is one IEEE
 * operation a lane, or a fixed sequence of them, so that all versions give the same bits.
 *
 *   v16_max(a, b) = a > b ? a : b     v16_min(a, b) = a < b ? a : b     (b when either is NaN)
 *   v16_load_pairs, v16_store_pairs: of 32 values those of even places in a, of odd ones in b
 */
#ifndef SAF_KERNEL_FRAME_LANES_H
#define SAF_KERNEL_FRAME_LANES_H

#include <math.h>

#include "kernel/expf.h"
#include "kernel/frame/inline.h"
#include "saf/core.h"

enum { LANES = 16 };

#if defined SAF__LANES_AVX512

#include <immintrin.h>

/* How many accumulators of sixteen lanes the registers hold beside the operands. */
enum { LANE_ACCUMULATORS = 16 };
typedef __m512 v16;

SAF__INLINE v16 v16_set1(float x) {
    return _mm512_set1_ps(x);
}
SAF__INLINE v16 v16_load(const float *p) {
    return _mm512_loadu_ps(p);
}
SAF__INLINE void v16_store(float *p, v16 a) {
    _mm512_storeu_ps(p, a);
}
SAF__INLINE __mmask16 v16_mask(int64_t n) {
    return (__mmask16)((1u << n) - 1);
}
SAF__INLINE v16 v16_load_n(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps(v16_mask(n), p);
}
SAF__INLINE void v16_store_n(float *p, int64_t n, v16 a) {
    _mm512_mask_storeu_ps(p, v16_mask(n), a);
}
SAF__INLINE void v16_load_pairs(const float *p, v16 *a, v16 *b) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    v16 low = v16_load(p), high = v16_load(p + 16);
    *a = _mm512_permutex2var_ps(low, even, high);
    *b = _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
}
SAF__INLINE void v16_store_pairs(float *p, v16 a, v16 b) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    v16_store(p, _mm512_permutex2var_ps(a, low, b));
    v16_store(p + 16, _mm512_permutex2var_ps(a, _mm512_add_epi32(low, _mm512_set1_epi32(8)), b));
}
SAF__INLINE v16 v16_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
SAF__INLINE v16 v16_load_f16_n(const uint16_t *p, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v16_mask(n), p));
}
SAF__INLINE void v16_store_f16(uint16_t *p, v16 a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
SAF__INLINE v16 v16_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
SAF__INLINE v16 v16_load_i8_n(const int8_t *p, int64_t n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(v16_mask(n), p)));
}
SAF__INLINE v16 v16_first_n(v16 a, int64_t n, float rest) {
    return _mm512_mask_mov_ps(_mm512_set1_ps(rest), v16_mask(n), a);
}
SAF__INLINE v16 v16_add(v16 a, v16 b) {
    return _mm512_add_ps(a, b);
}
SAF__INLINE v16 v16_sub(v16 a, v16 b) {
    return _mm512_sub_ps(a, b);
}
SAF__INLINE v16 v16_mul(v16 a, v16 b) {
    return _mm512_mul_ps(a, b);
}
SAF__INLINE v16 v16_div(v16 a, v16 b) {
    return _mm512_div_ps(a, b);
}
SAF__INLINE v16 v16_fma(v16 a, v16 b, v16 c) {
    return _mm512_fmadd_ps(a, b, c);
}
SAF__INLINE v16 v16_max(v16 a, v16 b) {
    return _mm512_max_ps(a, b);
}
SAF__INLINE v16 v16_min(v16 a, v16 b) {
    return _mm512_min_ps(a, b);
}
SAF__INLINE float v16_fold_sum(v16 a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
SAF__INLINE float v16_fold_max(v16 a) {
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
/* p * 2^n, n the integer whose float carrier is t = n + SAF__EXPF_MAGIC; rounded once, as by two
 * factors of which the first is exact. */
SAF__INLINE v16 v16_scale(v16 p, v16 t) {
    return _mm512_scalef_ps(p, _mm512_sub_ps(t, _mm512_set1_ps(SAF__EXPF_MAGIC)));
}

#elif defined SAF__LANES_AVX2

#include <immintrin.h>

enum { LANE_ACCUMULATORS = 4 };
typedef struct {
    __m256 lo, hi;
} v16;

SAF__INLINE v16 v16_set1(float x) {
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
SAF__INLINE v16 v16_load(const float *p) {
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
SAF__INLINE void v16_store(float *p, v16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
SAF__INLINE __m256i v16_mask8(int64_t n) { /* lanes 0..7 below n */
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SAF__INLINE v16 v16_load_n(const float *p, int64_t n) {
    return (v16){_mm256_maskload_ps(p, v16_mask8(n)),
                 n > 8 ? _mm256_maskload_ps(p + 8, v16_mask8(n - 8)) : _mm256_setzero_ps()};
}
SAF__INLINE void v16_store_n(float *p, int64_t n, v16 a) {
    _mm256_maskstore_ps(p, v16_mask8(n), a.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, v16_mask8(n - 8), a.hi);
}
/* Of sixteen values those of even places (0x88) or of odd ones (0xDD). */
#define V16_EVERY_OTHER(p, which)                                                                 \
    _mm256_castpd_ps(_mm256_permute4x64_pd(                                                       \
        _mm256_castps_pd(_mm256_shuffle_ps(_mm256_loadu_ps(p), _mm256_loadu_ps((p) + 8), which)), \
        0xD8))
SAF__INLINE void v16_load_pairs(const float *p, v16 *a, v16 *b) {
    *a = (v16){V16_EVERY_OTHER(p, 0x88), V16_EVERY_OTHER(p + 16, 0x88)};
    *b = (v16){V16_EVERY_OTHER(p, 0xDD), V16_EVERY_OTHER(p + 16, 0xDD)};
}
SAF__INLINE void v16_store_pairs8(float *p, __m256 a, __m256 b) {
    __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    _mm256_storeu_ps(p, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(low, high, 0x31));
}
SAF__INLINE void v16_store_pairs(float *p, v16 a, v16 b) {
    v16_store_pairs8(p, a.lo, b.lo);
    v16_store_pairs8(p + 16, a.hi, b.hi);
}
SAF__INLINE v16 v16_load_f16(const uint16_t *p) {
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
SAF__INLINE v16 v16_load_f16_n(const uint16_t *p, int64_t n) {
    uint16_t part[LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return v16_load_f16(part);
}
SAF__INLINE void v16_store_f16(uint16_t *p, v16 a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
SAF__INLINE __m256 v16_load_i8x8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
SAF__INLINE v16 v16_load_i8(const int8_t *p) {
    return (v16){v16_load_i8x8(p), v16_load_i8x8(p + 8)};
}
SAF__INLINE v16 v16_load_i8_n(const int8_t *p, int64_t n) {
    int8_t part[LANES] = {0};
    memcpy(part, p, (size_t)n);
    return v16_load_i8(part);
}
SAF__INLINE v16 v16_first_n(v16 a, int64_t n, float rest) {
    __m256 r = _mm256_set1_ps(rest);
    return (v16){_mm256_blendv_ps(r, a.lo, _mm256_castsi256_ps(v16_mask8(n))),
                 _mm256_blendv_ps(r, a.hi, _mm256_castsi256_ps(v16_mask8(n - 8)))};
}
SAF__INLINE v16 v16_add(v16 a, v16 b) {
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
SAF__INLINE v16 v16_sub(v16 a, v16 b) {
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
SAF__INLINE v16 v16_mul(v16 a, v16 b) {
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
SAF__INLINE v16 v16_div(v16 a, v16 b) {
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
SAF__INLINE v16 v16_fma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
SAF__INLINE v16 v16_max(v16 a, v16 b) {
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
SAF__INLINE v16 v16_min(v16 a, v16 b) {
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
SAF__INLINE float v16_fold_sum(v16 a) {
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
SAF__INLINE float v16_fold_max(v16 a) {
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
SAF__INLINE __m256 v16_scale8(__m256 p, __m256 t) {
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(SAF__EXPF_MAGIC_BITS));
    __m256i half = _mm256_srai_epi32(n, 1), bias = _mm256_set1_epi32(127);
    __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(lo)), _mm256_castsi256_ps(hi));
}
SAF__INLINE v16 v16_scale(v16 p, v16 t) {
    return (v16){v16_scale8(p.lo, t.lo), v16_scale8(p.hi, t.hi)};
}

#elif defined SAF__LANES_NEON

#include "kernel/frame/lanes_neon.h"

#elif defined SAF__LANES_SCALAR

enum { LANE_ACCUMULATORS = 4 };
typedef struct {
    float at[LANES];
} v16;

#define V16_EACH(expr)                              \
    v16 r;                                          \
    for (int j = 0; j < LANES; j++) r.at[j] = expr; \
    return r

SAF__INLINE v16 v16_set1(float x) {
    V16_EACH(x);
}
SAF__INLINE v16 v16_load(const float *p) {
    V16_EACH(p[j]);
}
SAF__INLINE void v16_store(float *p, v16 a) {
    for (int j = 0; j < LANES; j++) p[j] = a.at[j];
}
SAF__INLINE v16 v16_load_n(const float *p, int64_t n) {
    V16_EACH(j < n ? p[j] : 0.0f);
}
SAF__INLINE void v16_store_n(float *p, int64_t n, v16 a) {
    for (int j = 0; j < n; j++) p[j] = a.at[j];
}
SAF__INLINE void v16_load_pairs(const float *p, v16 *a, v16 *b) {
    for (int j = 0; j < LANES; j++) {
        a->at[j] = p[2 * j];
        b->at[j] = p[2 * j + 1];
    }
}
SAF__INLINE void v16_store_pairs(float *p, v16 a, v16 b) {
    for (int j = 0; j < LANES; j++) {
        p[2 * j] = a.at[j];
        p[2 * j + 1] = b.at[j];
    }
}
SAF__INLINE v16 v16_load_f16(const uint16_t *p) {
    V16_EACH(saf_f32_from_f16(p[j]));
}
SAF__INLINE v16 v16_load_f16_n(const uint16_t *p, int64_t n) {
    V16_EACH(j < n ? saf_f32_from_f16(p[j]) : 0.0f);
}
SAF__INLINE void v16_store_f16(uint16_t *p, v16 a) {
    for (int j = 0; j < LANES; j++) p[j] = saf_f16_from_f32(a.at[j]);
}
SAF__INLINE v16 v16_load_i8(const int8_t *p) {
    V16_EACH((float)p[j]);
}
SAF__INLINE v16 v16_load_i8_n(const int8_t *p, int64_t n) {
    V16_EACH(j < n ? (float)p[j] : 0.0f);
}
SAF__INLINE v16 v16_first_n(v16 a, int64_t n, float rest) {
    V16_EACH(j < n ? a.at[j] : rest);
}
SAF__INLINE v16 v16_add(v16 a, v16 b) {
    V16_EACH(a.at[j] + b.at[j]);
}
SAF__INLINE v16 v16_sub(v16 a, v16 b) {
    V16_EACH(a.at[j] - b.at[j]);
}
SAF__INLINE v16 v16_mul(v16 a, v16 b) {
    V16_EACH(a.at[j] * b.at[j]);
}
SAF__INLINE v16 v16_div(v16 a, v16 b) {
    V16_EACH(a.at[j] / b.at[j]);
}
SAF__INLINE v16 v16_fma(v16 a, v16 b, v16 c) {
    V16_EACH(__builtin_fmaf(a.at[j], b.at[j], c.at[j]));
}
SAF__INLINE v16 v16_max(v16 a, v16 b) {
    V16_EACH(a.at[j] > b.at[j] ? a.at[j] : b.at[j]);
}
SAF__INLINE v16 v16_min(v16 a, v16 b) {
    V16_EACH(a.at[j] < b.at[j] ? a.at[j] : b.at[j]);
}
SAF__INLINE float v16_fold_sum(v16 a) {
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++) a.at[j] = a.at[j] + a.at[j + width];
    return a.at[0];
}
SAF__INLINE float v16_fold_max(v16 a) {
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            a.at[j] = a.at[j] > a.at[j + width] ? a.at[j] : a.at[j + width];
    return a.at[0];
}
SAF__INLINE v16 v16_scale(v16 p, v16 t) {
    V16_EACH(saf__expf_scale(p.at[j], t.at[j]));
}

#else
#error "a frame needs SAF__LANES_SCALAR, _AVX2, _AVX512 or _NEON"
#endif

/* exp of every lane, none above 0: the steps of saf__expf (expf.h) but for the upper bound. */
SAF__INLINE v16 v16_exp_not_above_0(v16 x) {
    x = v16_max(v16_set1(SAF__EXPF_LOW), x);
    v16 magic = v16_set1(SAF__EXPF_MAGIC);
    v16 t = v16_fma(x, v16_set1(SAF__EXPF_LOG2E), magic);
    v16 n = v16_sub(t, magic);
    v16 r = v16_fma(n, v16_set1(-SAF__EXPF_LN2_HI), x);
    r = v16_fma(n, v16_set1(-SAF__EXPF_LN2_LO), r);
    v16 p = v16_set1(SAF__EXPF_C6);
    p = v16_fma(p, r, v16_set1(SAF__EXPF_C5));
    p = v16_fma(p, r, v16_set1(SAF__EXPF_C4));
    p = v16_fma(p, r, v16_set1(SAF__EXPF_C3));
    p = v16_fma(p, r, v16_set1(SAF__EXPF_C2));
    p = v16_fma(p, r, v16_set1(1.0f));
    p = v16_fma(p, r, v16_set1(1.0f));
    return v16_scale(p, t);
}

/* exp of every lane. */
SAF__INLINE v16 v16_exp(v16 x) {
    return v16_exp_not_above_0(v16_min(v16_set1(SAF__EXPF_HIGH), x));
}

#endif
