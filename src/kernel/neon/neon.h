/* neon.h: what the NEON folder fills the table with. frames.c the row operations and attention,
 * float.c the float products and the quantisation of activations, quant.c the quantised products;
 * the base flags of an aarch64 build are enough for these. dotprod.c the quantised products where
 * the processor has the dot product instructions. */
#ifndef SAF_KERNEL_NEON_NEON_H
#define SAF_KERNEL_NEON_NEON_H

#include <arm_neon.h>

#include "kernel/kernels.h"

enum { QUAD = 4 /* rows of a register */, QUADS = SAF_TILE_ROWS / QUAD };

/* The first n of four values, zeros after; n may be any number. */
static inline float32x4_t quad_load(const float *p, int n) {
    float part[QUAD] = {0};
    if (n >= QUAD) return vld1q_f32(p);
    for (int i = 0; i < n; i++) part[i] = p[i];
    return vld1q_f32(part);
}
static inline void quad_store(float *p, int n, float32x4_t v) {
    float part[QUAD];
    if (n >= QUAD) {
        vst1q_f32(p, v);
        return;
    }
    vst1q_f32(part, v);
    for (int i = 0; i < n; i++) p[i] = part[i];
}
static inline float32x4_t quad_halfs(const uint8_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

void saf__neon_float(saf__kernels *k);
void saf__neon_quant(saf__kernels *k);

#endif
