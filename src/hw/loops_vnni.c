/* With VNNI a product of four bytes and its sum are one instruction. */
#include "hw/loops.h"

#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include <immintrin.h>

static int64_t int8_vnni(int64_t rounds) {
    __m512i sums[SAF__LOOP_SUMS], a = _mm512_set1_epi8(1), b = a;
    __asm__ volatile("" : "+v"(a), "+v"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm512_setzero_si512();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    }
    int64_t sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) {
        int32_t lanes[16];
        _mm512_storeu_si512(lanes, sums[i]);
        for (int j = 0; j < 16; j++) sum += lanes[j];
    }
    return sum;
}

void saf__hw_loops_vnni(saf__hw_loops *loops) {
    loops->name = "avx512-vnni";
    loops->int8 = int8_vnni;
    loops->int8_ops = 2 * SAF__LOOP_SUMS * 64;
}

#endif
