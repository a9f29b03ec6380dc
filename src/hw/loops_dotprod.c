/* With the dot product instructions of NEON a product of four bytes and its sum are one. */
#include "hw/loops.h"

#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

static int64_t int8_dot(int64_t rounds) {
    int32x4_t sums[SAF__LOOP_SUMS];
    int8x16_t a = vdupq_n_s8(1), b = a;
    __asm__ volatile("" : "+w"(a), "+w"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vdupq_n_s32(0);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vdotq_s32(sums[i], a, b);
    }
    int64_t sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sum += vaddlvq_s32(sums[i]);
    return sum;
}

void saf__hw_loops_dotprod(saf__hw_loops *loops) {
    loops->name = "neon-dotprod";
    loops->int8 = int8_dot;
    loops->int8_ops = 2 * SAF__LOOP_SUMS * 16;
}

#endif
