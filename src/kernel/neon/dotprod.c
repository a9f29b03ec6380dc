/* Quantised products with the dot product instructions. */
#include "kernel/neon/quant.h"

SAF__INLINE int32x4_t dot_word(int32x4_t sum, int8x16_t w, const int8_t *q, const int word) {
    int8x16_t four_words = vld1q_s8(q + word / 4 * 16);
    switch (word % 4) {
        case 0:
            return vdotq_laneq_s32(sum, w, four_words, 0);
        case 1:
            return vdotq_laneq_s32(sum, w, four_words, 1);
        case 2:
            return vdotq_laneq_s32(sum, w, four_words, 2);
        default:
            return vdotq_laneq_s32(sum, w, four_words, 3);
    }
}

void saf__kernels_neon_dotprod(saf__kernels *k) {
    k->name = "neon-dotprod";
    k->dot_quant = neon_dot_quant;
}
