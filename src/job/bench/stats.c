#include "job/bench/bench.h"

saf_status saf__spread(const double *values, int64_t n, double *median, double *least,
                       double *most) {
    double *v = NULL;
    saf_status st = saf_alloc((size_t)n, sizeof *v, &v);
    if (st != SAF_OK) return st;
    memcpy(v, values, (size_t)n * sizeof *v);
    *median = saf_median(v, n); /* sorted by now */
    *least = v[0];
    *most = v[n - 1];
    saf_free(&v);
    return SAF_OK;
}

saf_status saf__median(const double *values, int64_t n, double *out) {
    double least, most;
    return saf__spread(values, n, out, &least, &most);
}
