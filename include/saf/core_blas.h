/* saf/core_blas.h: OpenBLAS, loaded on first use: the threads that it starts are of no use to a job
 * that multiplies nothing with it. Local. */
#ifndef SAF_CORE_BLAS_H
#define SAF_CORE_BLAS_H

#include "saf/core.h"

/* As in cblas.h. gemm: order, transposition of both, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc;
 * gemv, for those who compare with it: order, transposition, m, n, alpha, A, lda, x, incx, beta, y,
 * incy. */
enum { SAF_BLAS_ROW_MAJOR = 101, SAF_BLAS_NO_TRANS = 111, SAF_BLAS_TRANS = 112 };

typedef struct {
    void (*sgemm)(int, int, int, int, int, int, float, const float *, int, const float *, int,
                  float, float *, int);
    void (*dgemm)(int, int, int, int, int, int, double, const double *, int, const double *, int,
                  double, double *, int);
    void (*sgemv)(int, int, int, int, float, const float *, int, const float *, int, float, float *,
                  int);
    void (*dgemv)(int, int, int, int, double, const double *, int, const double *, int, double,
                  double *, int);
    void (*set_threads)(int); /* of the process; saf_blas_single sets one */
    const char *core;         /* "SkylakeX": whose kernels run; results of other cores have other
                                 last bits */
} saf_blas;

/* The same table every time; by one thread at a time. It stays loaded: its threads cannot be taken
 * back. Errors: NO_INPUT (there is no OpenBLAS, or one without these functions). */
saf_status saf_blas_load(const saf_blas **out);

/* From now on a product is worked out by the thread that asks for it, of which at most `callers` do
 * so at a time. Errors: NO_MEMORY (OpenBLAS takes up to 128 MiB of address space for each, most of
 * which is never touched, and where there is none asks again for ever). */
saf_status saf_blas_single(const saf_blas *blas, int callers);

#endif
