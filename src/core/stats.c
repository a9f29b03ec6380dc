/* Figures of several values. */
#include <math.h>
#include <stdlib.h>

#include "saf/core.h"

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double saf_median(double *values, int64_t n) {
    if (n < 1) return (double)NAN;
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
