/* avx512.h: what the AVX-512 folder fills the table with. frames.c the row operations and
 * attention, float.c the float products, quantise.c the quantisation of activations, vnni.c the
 * quantised products (amx/ takes those of many tokens where the processor has AMX). A processor
 * with AVX-512 but without VNNI takes the quantised products of AVX2. */
#ifndef SAF_KERNEL_AVX512_AVX512_H
#define SAF_KERNEL_AVX512_AVX512_H

#include <immintrin.h>

#include "kernel/kernels.h"

/* The rows of a tile, as the lanes of two registers. */
static inline __mmask16 live_rows(int rows, int half) {
    int n = rows - 16 * half;
    return (__mmask16)((1u << (n < 0 ? 0 : n < 16 ? n : 16)) - 1);
}

void saf__avx512_float(saf__kernels *k);
void saf__avx512_quantise(saf__kernels *k);
void saf__vnni_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                         float *y, int64_t ldy);

#endif
