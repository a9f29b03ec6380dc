/* quantise.h: the activations' blocks around an instruction set's way of quantising one (see
 * lanes.h for what a frame is). The file that includes this one defines quantise_block. */
#ifndef SAF_KERNEL_FRAME_QUANTISE_H
#define SAF_KERNEL_FRAME_QUANTISE_H

#include "kernel/kernels.h"

/* q of x[0, n), n <= 32, zeros after; its dx and its two sums (saf__pack_sums). */
static void quantise_block(const float *x, int64_t n, int8_t q[SAF_QUANT_BLOCK], float *dx,
                           int32_t *sums);

/* Not for by_token. */
static void frame_quantise(const saf__acts_view *a, int64_t t0, int64_t b0, int64_t b1) {
    int64_t n = saf__act_tile_tokens(a, t0);
    for (int64_t t = 0; t < n; t++) {
        const float *x = a->x + (t0 + t) * a->ldx;
        for (int64_t b = b0; b < b1; b++) {
            int64_t k = b * SAF_QUANT_BLOCK, at = t0 * a->blocks + b * n;
            int8_t q[SAF_QUANT_BLOCK], *out = a->q + at * SAF_QUANT_BLOCK;
            quantise_block(x + (k - a->x_col), saf_i64_min(SAF_QUANT_BLOCK, a->cols - k), q,
                           a->dx + at + t, a->sums + at + t);
            int32_t sums = a->sums[at + t];
            a->u[at + t] = a->dx[at + t] * (float)((int16_t)sums + (sums >> 16));
            for (int g = 0; g < SAF__GROUPS; g++) memcpy(out + (g * n + t) * 4, q + 4 * g, 4);
        }
    }
}

#endif
