/* OpenBLAS as a yardstick for products of floats. */
#include <dlfcn.h>
#include <time.h>

#include "saf/hw.h"

/* As in cblas.h: order, transposition of both, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc. */
typedef void (*sgemm_function)(int, int, int, int, int, int, float, const float *, int,
                               const float *, int, float, float *, int);
typedef void (*set_threads_function)(int);
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef struct {
    sgemm_function sgemm;
    set_threads_function set_threads;
} blas;

/* POSIX lets what dlsym finds be called, C lets no object pointer become one to a function. */
static void find(void *library, const char *name, void *function) {
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
}

/* Stays loaded: its threads cannot be taken back. */
static bool load(blas *b) {
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    find(library, "cblas_sgemm", &b->sgemm);
    find(library, "openblas_set_num_threads", &b->set_threads);
    return b->sgemm && b->set_threads;
}

saf_status saf_hw_sgemm_sample(int threads, int64_t m, int64_t n, int64_t k, double *ops_s) {
    saf_status st = SAF_OK;
    static blas b;
    float *x[3] = {NULL, NULL, NULL};
    const int64_t size[3] = {m * k, n * k, m * n};
    *ops_s = 0;
    if (!b.sgemm && !load(&b)) return SAF_OK;
    for (int i = 0; i < 3; i++) {
        SAF_TRY(saf_alloc((size_t)size[i], sizeof *x[i], &x[i]));
        for (int64_t j = 0; j < size[i]; j++) x[i][j] = (float)(j % 7) - 3;
    }
    b.set_threads(threads);
    double best = 0;
    for (int repeat = 0; repeat < 3; repeat++) { /* the first one starts the threads */
        double start = saf_clock_s();
        b.sgemm(ROW_MAJOR, NO_TRANS, TRANS, (int)m, (int)n, (int)k, 1, x[0], (int)k, x[1], (int)k,
                0, x[2], (int)n);
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
