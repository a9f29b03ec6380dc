/* Over the vocabulary: one thread. */
#include <math.h>

#include "kernel/kernels.h"

double saf_log_sum_exp(const float *logits, int64_t vocab) {
    enum { SEGMENT = 4096 };
    const saf__kernels *kernels = saf__kernels_get();
    double max = -INFINITY, sum = 0;
    for (int64_t v = 0; v < vocab; v += SEGMENT) {
        int64_t n = saf_i64_min(SEGMENT, vocab - v);
        float segment_max = kernels->max(logits + v, n);
        float segment_sum = kernels->exp_sum(logits + v, segment_max, n);
        if (v == 0) {
            max = (double)segment_max;
            sum = (double)segment_sum;
            continue;
        }
        double merged = (double)segment_max > max ? (double)segment_max : max;
        double part = (double)segment_sum * saf_math_exp((double)segment_max - merged);
        sum = __builtin_fma(sum, saf_math_exp(max - merged), part);
        max = merged;
    }
    return max + saf_math_log(sum);
}

int64_t saf_argmax(const float *x, int64_t n) {
    enum { SEGMENT = 1024 };
    const saf__kernels *kernels = saf__kernels_get();
    float best = -INFINITY;
    int64_t segment = 0;
    for (int64_t i = 0; i < n; i += SEGMENT) {
        float max = kernels->max(x + i, saf_i64_min(SEGMENT, n - i));
        if (max > best) {
            best = max;
            segment = i;
        }
    }
    for (int64_t i = segment; i < n; i++)
        if (x[i] == best) return i;
    return 0; /* nothing but NaN */
}

void saf_exp_shifted(const float *x, float shift, int64_t n, float *y) {
    saf__kernels_get()->exp_shifted(x, shift, n, y);
}
