/* The arithmetic of one tile: what of it is OpenBLAS's, and what is element by element. */
#include "matrix/calls.h"

#include <math.h>

#include "matrix/vector.h"

void saf__call_multiply(const saf_blas *blas, const saf_product_plan *plan, int64_t i, int64_t j,
                        int64_t panel, const void *a, const void *b, bool first, void *acc) {
    int m = (int)saf__tile_rows(plan, i), n = (int)saf__tile_cols(plan, j),
        k = (int)saf__tile_depth(plan, panel);
    double beta = first ? 0 : 1;
    if (plan->shape.n == 1)
        saf__matrix_times_column(plan->shape.dtype, m, k, a, b, first, acc);
    else if (plan->shape.m == 1)
        saf__row_times_matrix(plan->shape.dtype, k, n, a, b, first, acc);
    else if (plan->shape.dtype == SAF_DTYPE_F64)
        blas->dgemm(SAF_BLAS_ROW_MAJOR, SAF_BLAS_NO_TRANS, SAF_BLAS_NO_TRANS, m, n, k, 1, a, k, b,
                    n, beta, acc, n);
    else
        blas->sgemm(SAF_BLAS_ROW_MAJOR, SAF_BLAS_NO_TRANS, SAF_BLAS_NO_TRANS, m, n, k, 1, a, k, b,
                    n, (float)beta, acc, n);
}

void saf__call_add(saf_dtype dtype, int64_t n, const void *x, void *sum) {
    if (dtype == SAF_DTYPE_F64) {
        const double *from = x;
        double *to = sum;
        for (int64_t e = 0; e < n; e++) to[e] += from[e];
    } else {
        const float *from = x;
        float *to = sum;
        for (int64_t e = 0; e < n; e++) to[e] += from[e];
    }
}

static void end_f64(int64_t n, double alpha, double beta, const double *acc, double *c) {
    for (int64_t e = 0; e < n; e++) {
        if (beta == 0)
            c[e] = acc ? alpha * acc[e] : 0;
        else
            c[e] = acc ? fma(alpha, acc[e], beta * c[e]) : beta * c[e];
    }
}

static void end_f32(int64_t n, float alpha, float beta, const float *acc, float *c) {
    for (int64_t e = 0; e < n; e++) {
        if (beta == 0)
            c[e] = acc ? alpha * acc[e] : 0;
        else
            c[e] = acc ? fmaf(alpha, acc[e], beta * c[e]) : beta * c[e];
    }
}

void saf__call_end(saf_dtype dtype, int64_t n, double alpha, double beta, const void *acc,
                   void *c) {
    if (dtype == SAF_DTYPE_F64)
        end_f64(n, alpha, beta, acc, c);
    else
        end_f32(n, (float)alpha, (float)beta, acc, c);
}
