/* avx2.h: what the AVX2 folder fills the table with. frames.c the row operations and attention,
 * float.c the float products and the quantisation of activations, quant.c the quantised products.
 * The base flags of the build are enough for all of it. */
#ifndef SAF_KERNEL_AVX2_AVX2_H
#define SAF_KERNEL_AVX2_AVX2_H

#include <immintrin.h>

#include "kernel/kernels.h"

/* Lanes below n of eight, as maskload and maskstore want them. */
static inline __m256i saf__live_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

void saf__avx2_float(saf__kernels *k);
void saf__avx2_quant(saf__kernels *k);

#endif
