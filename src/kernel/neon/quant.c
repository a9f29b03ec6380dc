/* Quantised products with NEON alone. Two products of bytes fit into 16 bits together: at most
 * 2 * 128 * 127. */
#include "kernel/neon/quant.h"

SAF__INLINE int32x4_t dot_word(int32x4_t sum, int8x16_t w, const int8_t *q, const int word) {
    int32_t four;
    memcpy(&four, q + 4 * word, sizeof four);
    int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}

void saf__neon_quant(saf__kernels *k) {
    k->dot_quant = neon_dot_quant;
}
