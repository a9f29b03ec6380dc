#include <stdlib.h>

#include "job/bench/bench.h"

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

saf_status saf__spread(const double *values, int64_t n, double *median, double *least,
                       double *most) {
    double *v = NULL;
    saf_status st = saf_alloc((size_t)n, sizeof *v, &v);
    if (st != SAF_OK) return st;
    memcpy(v, values, (size_t)n * sizeof *v);
    qsort(v, (size_t)n, sizeof *v, compare);
    *median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    *least = v[0];
    *most = v[n - 1];
    saf_free(&v);
    return SAF_OK;
}

saf_status saf__median(const double *values, int64_t n, double *out) {
    double least, most;
    return saf__spread(values, n, out, &least, &most);
}
