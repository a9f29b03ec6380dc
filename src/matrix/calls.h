/* matrix/calls.h: the arithmetic of one tile. Lengths of tiles fit int. */
#ifndef SAF_MATRIX_CALLS_H
#define SAF_MATRIX_CALLS_H

#include "matrix/tiles.h"
#include "saf/core_blas.h"

/* acc[rows, cols] (+)= a[rows, depth] b[depth, cols]: tiles (i, panel), (panel, j) and (i, j), each
 * contiguous. `first`: what was in acc does not count. */
void saf__call_multiply(const saf_blas *blas, const saf_product_plan *plan, int64_t i, int64_t j,
                        int64_t panel, const void *a, const void *b, bool first, void *acc);
/* sum += x, n elements. */
void saf__call_add(saf_dtype dtype, int64_t n, const void *x, void *sum);
/* c = fma(alpha, acc, beta * c), n elements; acc NULL: beta * c; beta 0: c is not read. */
void saf__call_end(saf_dtype dtype, int64_t n, double alpha, double beta, const void *acc, void *c);

#endif
