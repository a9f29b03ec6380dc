/* avx512.h: what the AVX-512 folder fills the table with. frames.c the row operations and
 * attention, float.c the float products and the quantisation of activations (both without VNNI),
 * vnni.c the quantised products. A processor with AVX-512 but without VNNI takes the quantised
 * products of AVX2. */
#ifndef SAF_KERNEL_AVX512_AVX512_H
#define SAF_KERNEL_AVX512_AVX512_H

#include "kernel/kernels.h"

void saf__avx512_float(saf__kernels *k);

#endif
