/* OpenBLAS, found when somebody first multiplies. */
#include <dlfcn.h>
#include <stdlib.h>

#include "saf/core_blas.h"

static const char *const library_name = "libopenblas.so.0";

/* POSIX lets what dlsym finds be called, C lets no object pointer become one to a function. */
static bool find(void *library, const char *name, void *function) {
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
    return found != NULL;
}

static bool fill(void *library, saf_blas *b) {
    char *(*core)(void) = NULL;
    bool good =
        find(library, "cblas_sgemm", &b->sgemm) && find(library, "cblas_dgemm", &b->dgemm) &&
        find(library, "cblas_sgemv", &b->sgemv) && find(library, "cblas_dgemv", &b->dgemv) &&
        find(library, "openblas_set_num_threads", &b->set_threads) &&
        find(library, "openblas_get_corename", &core);
    if (good) b->core = core();
    return good && b->core;
}

saf_status saf_blas_load(const saf_blas **out) {
    static saf_blas blas;
    static bool loaded;
    if (!loaded) {
        /* It starts threads when it is loaded, which spin before they sleep. set_threads starts
         * those that are wanted. */
        if (setenv("OPENBLAS_NUM_THREADS", "1", 1) != 0)
            return saf_fail(SAF_NO_MEMORY, "cannot set OPENBLAS_NUM_THREADS");
        void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
        if (!library) return saf_fail(SAF_NO_INPUT, "no OpenBLAS: %s", dlerror());
        if (!fill(library, &blas))
            return saf_fail(SAF_NO_INPUT, "%s lacks functions of OpenBLAS", library_name);
        loaded = true;
    }
    *out = &blas;
    return SAF_OK;
}

saf_status saf_blas_single(const saf_blas *blas, int callers) {
    enum { CALLER_BYTES = 128 << 20 };
    static int most; /* callers that there was room for, and who have taken it since */
    if (callers > most) {
        size_t bytes = (size_t)(callers - most) * CALLER_BYTES;
        saf_status st = saf_memory_spare(bytes, "OpenBLAS");
        if (st != SAF_OK) return st;
        most = callers;
    }
    blas->set_threads(1);
    return SAF_OK;
}
