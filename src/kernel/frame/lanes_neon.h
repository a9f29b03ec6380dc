/* lanes_neon.h: the sixteen lanes of lanes.h as four registers of NEON. */
#ifndef SAF_KERNEL_FRAME_LANES_NEON_H
#define SAF_KERNEL_FRAME_LANES_NEON_H

#include <arm_neon.h>

enum { LANE_ACCUMULATORS = 4 };
typedef struct {
    float32x4_t r[4];
} v16;

#define V16_EACH(expr)                                       \
    v16 out;                                                 \
    SAF__UNROLL for (int j = 0; j < 4; j++) out.r[j] = expr; \
    return out

SAF__INLINE v16 v16_set1(float x) {
    V16_EACH(vdupq_n_f32(x));
}
SAF__INLINE v16 v16_load(const float *p) {
    V16_EACH(vld1q_f32(p + 4 * j));
}
SAF__INLINE void v16_store(float *p, v16 a) {
    SAF__UNROLL for (int j = 0; j < 4; j++) vst1q_f32(p + 4 * j, a.r[j]);
}
SAF__INLINE v16 v16_load_n(const float *p, int64_t n) {
    float part[LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return v16_load(part);
}
SAF__INLINE void v16_store_n(float *p, int64_t n, v16 a) {
    float part[LANES];
    v16_store(part, a);
    memcpy(p, part, (size_t)n * sizeof *p);
}
SAF__INLINE void v16_load_pairs(const float *p, v16 *a, v16 *b) {
    SAF__UNROLL for (int j = 0; j < 4; j++) {
        float32x4x2_t both = vld2q_f32(p + 8 * j);
        a->r[j] = both.val[0];
        b->r[j] = both.val[1];
    }
}
SAF__INLINE void v16_store_pairs(float *p, v16 a, v16 b) {
    SAF__UNROLL for (int j = 0; j < 4; j++) vst2q_f32(p + 8 * j, (float32x4x2_t){{a.r[j], b.r[j]}});
}
SAF__INLINE v16 v16_load_f16(const uint16_t *p) {
    V16_EACH(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * j))));
}
SAF__INLINE v16 v16_load_f16_n(const uint16_t *p, int64_t n) {
    uint16_t part[LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return v16_load_f16(part);
}
SAF__INLINE void v16_store_f16(uint16_t *p, v16 a) {
    SAF__UNROLL for (int j = 0; j < 4; j++)
        vst1_u16(p + 4 * j, vreinterpret_u16_f16(vcvt_f16_f32(a.r[j])));
}
SAF__INLINE v16 v16_load_i8(const int8_t *p) {
    int8x16_t a = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(a)), hi = vmovl_s8(vget_high_s8(a));
    return (v16){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}
SAF__INLINE v16 v16_load_i8_n(const int8_t *p, int64_t n) {
    int8_t part[LANES] = {0};
    memcpy(part, p, (size_t)n);
    return v16_load_i8(part);
}
SAF__INLINE v16 v16_first_n(v16 a, int64_t n, float rest) {
    static const int32_t lane[4] = {0, 1, 2, 3};
    V16_EACH(vbslq_f32(vcltq_s32(vld1q_s32(lane), vdupq_n_s32((int)n - 4 * j)), a.r[j],
                       vdupq_n_f32(rest)));
}
SAF__INLINE v16 v16_add(v16 a, v16 b) {
    V16_EACH(vaddq_f32(a.r[j], b.r[j]));
}
SAF__INLINE v16 v16_sub(v16 a, v16 b) {
    V16_EACH(vsubq_f32(a.r[j], b.r[j]));
}
SAF__INLINE v16 v16_mul(v16 a, v16 b) {
    V16_EACH(vmulq_f32(a.r[j], b.r[j]));
}
SAF__INLINE v16 v16_div(v16 a, v16 b) {
    V16_EACH(vdivq_f32(a.r[j], b.r[j]));
}
SAF__INLINE v16 v16_fma(v16 a, v16 b, v16 c) {
    V16_EACH(vfmaq_f32(c.r[j], a.r[j], b.r[j]));
}
/* By comparison: vmaxq and vminq give NaN where either is. */
SAF__INLINE float32x4_t v4_max(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
SAF__INLINE v16 v16_max(v16 a, v16 b) {
    V16_EACH(v4_max(a.r[j], b.r[j]));
}
SAF__INLINE v16 v16_min(v16 a, v16 b) {
    V16_EACH(vbslq_f32(vcltq_f32(a.r[j], b.r[j]), a.r[j], b.r[j]));
}
SAF__INLINE float v16_fold_sum(v16 a) {
    float32x4_t b = vaddq_f32(vaddq_f32(a.r[0], a.r[2]), vaddq_f32(a.r[1], a.r[3]));
    float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}
SAF__INLINE float v16_fold_max(v16 a) {
    float32x4_t b = v4_max(v4_max(a.r[0], a.r[2]), v4_max(a.r[1], a.r[3]));
    b = v4_max(b, vextq_f32(b, b, 2));
    b = v4_max(b, vextq_f32(b, b, 1));
    return vgetq_lane_f32(b, 0);
}
/* p * 2^n, n the integer whose float carrier is t = n + SAF__EXPF_MAGIC; two exact factors. */
SAF__INLINE float32x4_t v4_scale(float32x4_t p, float32x4_t t) {
    int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(t), vdupq_n_s32(SAF__EXPF_MAGIC_BITS));
    int32x4_t half = vshrq_n_s32(n, 1), bias = vdupq_n_s32(127);
    int32x4_t lo = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t hi = vshlq_n_s32(vaddq_s32(vsubq_s32(n, half), bias), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(lo)), vreinterpretq_f32_s32(hi));
}
SAF__INLINE v16 v16_scale(v16 p, v16 t) {
    V16_EACH(v4_scale(p.r[j], t.r[j]));
}

#undef V16_EACH

#endif
