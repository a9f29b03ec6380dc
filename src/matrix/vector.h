/* matrix/vector.h: tiles of products in which one factor is a vector. The matrix is contiguous,
 * row-major; `first`: what is in y does not count. Every product and every sum is rounded. */
#ifndef SAF_MATRIX_VECTOR_H
#define SAF_MATRIX_VECTOR_H

#include "saf/core.h"

/* y[rows] (+)= matrix[rows, cols] x[cols]. A row's sum is worked out in lanes, 64 of F32 and 32 of
 * F64: lane l has the products of elements l, l + lanes, ... in this order from 0 on; then lane l
 * += lane l + h for h = lanes / 2, lanes / 4, ..., 1, and y takes lane 0. */
void saf__matrix_times_column(saf_dtype dtype, int rows, int cols, const void *matrix,
                              const void *x, bool first, void *y);
/* y[cols] (+)= x[rows] matrix[rows, cols]: rows added one after the other, from 0 on. */
void saf__row_times_matrix(saf_dtype dtype, int rows, int cols, const void *x, const void *matrix,
                           bool first, void *y);

#endif
