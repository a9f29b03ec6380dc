/* expf.h: the constants of saf's f32 exp, shared by the scalar function and by v16_exp.
 *
 *   x clamped to [LOW, HIGH]; t = fma(x, log2 e, MAGIC), n = t - MAGIC (x / ln 2 rounded to an
 *   integer); r = fma(n, -LN2_HI, x), exact; r = fma(n, -LN2_LO, r);
 *   p = 1 + r (1 + r (C2 + r (C3 + r (C4 + r (C5 + r C6))))) by fma; result p * 2^(n >> 1) *
 *   2^(n - (n >> 1)), whose first product is exact and whose second rounds once.
 *
 * C2..C6 minimise the largest relative error on |r| <= ln 2 / 2, which is 2^-28.2.
 */
#ifndef SAF_KERNEL_EXPF_H
#define SAF_KERNEL_EXPF_H

#include "saf/core.h"

/* 1.5 * 2^23: adding it rounds to an integer, nearest even, kept in the low bits of the sum. */
#define SAF__EXPF_MAGIC 0x1.8p23f
#define SAF__EXPF_MAGIC_BITS 0x4B400000
/* Below LOW the result is 0, above HIGH infinity: so are they for the clamped argument. */
#define SAF__EXPF_LOW (-104.5f)
#define SAF__EXPF_HIGH 89.0f
#define SAF__EXPF_LOG2E 0x1.715476p+0f
#define SAF__EXPF_LN2_HI 0x1.62e43p-1f
#define SAF__EXPF_LN2_LO (-0x1.05c61p-29f)
#define SAF__EXPF_C2 0x1.fffffcp-2f
#define SAF__EXPF_C3 0x1.555492p-3f
#define SAF__EXPF_C4 0x1.5558f2p-5f
#define SAF__EXPF_C5 0x1.1239f2p-7f
#define SAF__EXPF_C6 0x1.6a241ap-10f

/* p * 2^n, n held by t = n + MAGIC. Integer steps are unsigned: a NaN in t may hold any bits. */
static inline float saf__expf_scale(float p, float t) {
    uint32_t n = saf_f32_to_bits(t) - SAF__EXPF_MAGIC_BITS;
    uint32_t half = n >> 1 | (n & 0x80000000);
    float lo = saf_f32_from_bits((half + 127) << 23);
    float hi = saf_f32_from_bits((n - half + 127) << 23);
    return p * lo * hi;
}

static inline float saf__expf(float x) {
    x = SAF__EXPF_HIGH < x ? SAF__EXPF_HIGH : x;
    x = SAF__EXPF_LOW > x ? SAF__EXPF_LOW : x;
    float t = __builtin_fmaf(x, SAF__EXPF_LOG2E, SAF__EXPF_MAGIC);
    float n = t - SAF__EXPF_MAGIC;
    float r = __builtin_fmaf(n, -SAF__EXPF_LN2_HI, x);
    r = __builtin_fmaf(n, -SAF__EXPF_LN2_LO, r);
    float p = SAF__EXPF_C6;
    p = __builtin_fmaf(p, r, SAF__EXPF_C5);
    p = __builtin_fmaf(p, r, SAF__EXPF_C4);
    p = __builtin_fmaf(p, r, SAF__EXPF_C3);
    p = __builtin_fmaf(p, r, SAF__EXPF_C2);
    p = __builtin_fmaf(p, r, 1.0f);
    p = __builtin_fmaf(p, r, 1.0f);
    return saf__expf_scale(p, t);
}

#endif
