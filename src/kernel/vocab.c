/* Over the vocabulary: segments, which threads share where there is one row for all of them. */
#include <math.h>
#include <omp.h>

#include "kernel/kernels.h"

enum { SEGMENTS = 64 }; /* of a parallel loop */

double saf_log_sum_exp(const float *logits, int64_t vocab) {
    enum { SEGMENT = 4096 };
    const saf__kernels *kernels = saf__kernels_get();
    double max = -INFINITY, sum = 0;
    for (int64_t v0 = 0; v0 < vocab; v0 += SEGMENTS * SEGMENT) {
        float maxima[SEGMENTS], sums[SEGMENTS];
        int64_t segments = saf_i64_min(SEGMENTS, saf_ceil_div(vocab - v0, SEGMENT));
#pragma omp parallel for schedule(static) if (!omp_in_parallel())
        for (int64_t i = 0; i < segments; i++) {
            int64_t v = v0 + i * SEGMENT, n = saf_i64_min(SEGMENT, vocab - v);
            maxima[i] = kernels->max(logits + v, n);
            sums[i] = kernels->exp_sum(logits + v, maxima[i], n);
        }
        for (int64_t i = 0; i < segments; i++) {
            double segment_max = (double)maxima[i], segment_sum = (double)sums[i];
            if (v0 + i == 0) {
                max = segment_max;
                sum = segment_sum;
                continue;
            }
            double merged = segment_max > max ? segment_max : max;
            double part = segment_sum * saf_math_exp(segment_max - merged);
            sum = __builtin_fma(sum, saf_math_exp(max - merged), part);
            max = merged;
        }
    }
    return max + saf_math_log(sum);
}

int64_t saf_argmax(const float *x, int64_t n) {
    enum { SEGMENT = 4096 };
    const saf__kernels *kernels = saf__kernels_get();
    float best = -INFINITY;
    int64_t found = 0;
    for (int64_t i0 = 0; i0 < n; i0 += SEGMENTS * SEGMENT) {
        float maxima[SEGMENTS];
        int64_t segments = saf_i64_min(SEGMENTS, saf_ceil_div(n - i0, SEGMENT));
#pragma omp parallel for schedule(static) if (!omp_in_parallel())
        for (int64_t i = 0; i < segments; i++) {
            int64_t at = i0 + i * SEGMENT;
            maxima[i] = kernels->max(x + at, saf_i64_min(SEGMENT, n - at));
        }
        for (int64_t i = 0; i < segments; i++) {
            if (!(maxima[i] > best)) continue;
            best = maxima[i];
            found = i0 + i * SEGMENT;
        }
    }
    for (int64_t i = found; i < n; i++)
        if (x[i] == best) return i;
    return 0; /* nothing but NaN */
}

void saf_exp_shifted(const float *x, float shift, int64_t n, float *y) {
    saf__kernels_get()->exp_shifted(x, shift, n, y);
}
