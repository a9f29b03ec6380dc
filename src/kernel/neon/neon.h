/* neon.h: what the NEON folder fills the table with. frames.c the row operations and attention,
 * float.c the float products and the quantisation of activations, quant.c the quantised products;
 * the base flags of an aarch64 build are enough for these. dotprod.c the quantised products where
 * the processor has the dot product instructions. */
#ifndef SAF_KERNEL_NEON_NEON_H
#define SAF_KERNEL_NEON_NEON_H

#include <arm_neon.h>

#include "kernel/kernels.h"

enum { QUAD = 4 /* rows of a register */, QUADS = SAF_TILE_ROWS / QUAD };

/* y[t, 0 .. n) of the last rows of a matrix, n < width, to part[t, 0 .. width) with zeros after,
 * and back. The kernels then have whole registers to load and store everywhere. */
static inline void edge_load(int tokens, int n, int width, const float *y, int64_t ldy,
                             float *part) {
    memset(part, 0, (size_t)(tokens * width) * sizeof *part);
    for (int t = 0; t < tokens; t++) memcpy(part + t * width, y + t * ldy, (size_t)n * sizeof *y);
}
static inline void edge_store(int tokens, int n, int width, const float *part, float *y,
                              int64_t ldy) {
    for (int t = 0; t < tokens; t++) memcpy(y + t * ldy, part + t * width, (size_t)n * sizeof *y);
}
static inline float32x4_t quad_halfs(const uint8_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

void saf__neon_float(saf__kernels *k);
void saf__neon_quant(saf__kernels *k);

#endif
