/* quantise.h: the activations' blocks around an instruction set's way of quantising one (see
 * lanes.h for what a frame is). The file that includes this one defines quantise_block. */
#ifndef SAF_KERNEL_FRAME_QUANTISE_H
#define SAF_KERNEL_FRAME_QUANTISE_H

#include "kernel/kernels.h"

/* q of x[0, n), n <= 32, zeros after; its dx and its two sums (saf__pack_sums). */
static void quantise_block(const float *x, int64_t n, int8_t q[SAF_QUANT_BLOCK], float *dx,
                           int32_t *sums);

static void frame_quantise(const saf__acts_view *a, int64_t t0, int64_t b0, int64_t b1) {
    int64_t n = saf__act_tile_tokens(a, t0);
    int64_t group = a->by_token ? 4 : n * 4; /* from one group of four to the next */
    for (int64_t t = 0; t < n; t++) {
        const float *x = a->x + (t0 + t) * a->ldx;
        for (int64_t b = b0; b < b1; b++) {
            int64_t k = b * SAF_QUANT_BLOCK, at = t0 * a->blocks + b * n;
            int8_t q[SAF_QUANT_BLOCK], *out = a->q + at * SAF_QUANT_BLOCK;
            out += t * (a->by_token ? SAF_QUANT_BLOCK : 4);
            quantise_block(x + k, saf_i64_min(SAF_QUANT_BLOCK, a->cols - k), q, a->dx + at + t,
                           a->sums + at + t);
            for (int g = 0; g < SAF__GROUPS; g++) memcpy(out + g * group, q + 4 * g, 4);
        }
    }
}

#endif
