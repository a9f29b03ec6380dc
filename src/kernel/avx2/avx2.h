/* avx2.h: what the AVX2 folder fills the table with. frames.c the row operations and attention,
 * float.c the float products and the quantisation of activations, quant.c the quantised products.
 * The base flags of the build are enough for all of it. */
#ifndef SAF_KERNEL_AVX2_AVX2_H
#define SAF_KERNEL_AVX2_AVX2_H

#include <immintrin.h>

#include "kernel/kernels.h"

void saf__avx2_float(saf__kernels *k);
void saf__avx2_quant(saf__kernels *k);

#endif
