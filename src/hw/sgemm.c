/* OpenBLAS as a yardstick for products of floats. */
#include <time.h>

#include "saf/core_blas.h"
#include "saf/hw.h"

saf_status saf_hw_sgemm_sample(int threads, int64_t m, int64_t n, int64_t k, double *ops_s) {
    saf_status st = SAF_OK;
    const saf_blas *b = NULL;
    float *x[3] = {NULL, NULL, NULL};
    const int64_t size[3] = {m * k, n * k, m * n};
    *ops_s = 0;
    if (saf_blas_load(&b) != SAF_OK) return SAF_OK;
    for (int i = 0; i < 3; i++) {
        SAF_TRY(saf_alloc((size_t)size[i], sizeof *x[i], &x[i]));
        for (int64_t j = 0; j < size[i]; j++) x[i][j] = (float)(j % 7) - 3;
    }
    SAF_TRY(saf_blas_single(b, threads));
    b->set_threads(threads);
    double best = 0;
    for (int repeat = 0; repeat < 3; repeat++) { /* the first one starts the threads */
        double start = saf_clock_s();
        b->sgemm(SAF_BLAS_ROW_MAJOR, SAF_BLAS_NO_TRANS, SAF_BLAS_TRANS, (int)m, (int)n, (int)k, 1,
                 x[0], (int)k, x[1], (int)k, 0, x[2], (int)n);
        double s = saf_clock_s() - start;
        if (best == 0 || s < best) best = s;
    }
    *ops_s = 2.0 * (double)m * (double)n * (double)k / best;
    /* Its threads spin for a while before they sleep, and would be in the way of what comes next.
     */
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
out:
    for (int i = 0; i < 3; i++) saf_free(&x[i]);
    return st;
}
