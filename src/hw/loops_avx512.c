/* The loops of 512 bits. */
#include "hw/loops.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>

static int64_t int8_maddubs(int64_t rounds) {
    __m512i sums[SAF__ADD_SUMS], ones = _mm512_set1_epi8(1), pair = _mm512_set1_epi16(1), a = ones;
    for (int i = 0; i < SAF__ADD_SUMS; i++) sums[i] = _mm512_setzero_si512();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) {
            __asm__ volatile("" : "+v"(a));
            __m512i products = _mm512_madd_epi16(_mm512_maddubs_epi16(a, ones), pair);
            sums[i % SAF__ADD_SUMS] = _mm512_add_epi32(sums[i % SAF__ADD_SUMS], products);
        }
    }
    int64_t sum = 0;
    for (int i = 0; i < SAF__ADD_SUMS; i++) {
        int32_t lanes[16];
        _mm512_storeu_si512(lanes, sums[i]);
        for (int j = 0; j < 16; j++) sum += lanes[j];
    }
    return sum;
}

static double f32_fma(int64_t rounds) {
    __m512 sums[SAF__LOOP_SUMS], a = _mm512_set1_ps(1), b = a;
    __asm__ volatile("" : "+v"(a), "+v"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm512_setzero_ps();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
    }
    double sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) {
        float lanes[16];
        _mm512_storeu_ps(lanes, sums[i]);
        for (int j = 0; j < 16; j++) sum += (double)lanes[j];
    }
    return sum;
}

static double f64_fma(int64_t rounds) {
    __m512d sums[SAF__LOOP_SUMS], a = _mm512_set1_pd(1), b = a;
    __asm__ volatile("" : "+v"(a), "+v"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm512_setzero_pd();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm512_fmadd_pd(a, b, sums[i]);
    }
    double sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) {
        double lanes[8];
        _mm512_storeu_pd(lanes, sums[i]);
        for (int j = 0; j < 8; j++) sum += lanes[j];
    }
    return sum;
}

void saf__hw_loops_avx512(saf__hw_loops *loops) {
    loops->name = "avx512";
    loops->int8 = int8_maddubs;
    loops->int8_ops = 2 * SAF__LOOP_SUMS * 64;
    loops->f32 = f32_fma;
    loops->f32_ops = 2 * SAF__LOOP_SUMS * 16;
    loops->f64 = f64_fma;
    loops->f64_ops = 2 * SAF__LOOP_SUMS * 8;
}

#endif
