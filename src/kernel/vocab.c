/* Over the vocabulary: segments, which threads share where there is one row for all of them. */
#include <math.h>
#include <omp.h>

#include "kernel/kernels.h"

enum { SEGMENTS = 512 }; /* of a parallel loop */

static saf_logit_segment segment_of(const saf__kernels *kernels, const float *x, int64_t n) {
    float max = kernels->max(x, n);
    return (saf_logit_segment){max, kernels->exp_sum(x, max, n)};
}

static int64_t length(int64_t i, int64_t n) {
    return saf_i64_min(SAF_LOGIT_SEGMENT, n - i * SAF_LOGIT_SEGMENT);
}

void saf_logit_segments(const float *logits, int64_t ld, int64_t n, int64_t width,
                        saf_logit_segment *out, int64_t ldo) {
    const saf__kernels *kernels = saf__kernels_get();
    int64_t segments = saf_ceil_div(width, SAF_LOGIT_SEGMENT);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < n * segments; item++) {
        int64_t t = item / segments, i = item % segments;
        const float *x = logits + t * ld + i * SAF_LOGIT_SEGMENT;
        out[t * ldo + i] = segment_of(kernels, x, length(i, width));
    }
}

/* Of the segments so far: exp(logits - max) adds up to sum. */
typedef struct {
    double max, sum;
} total;

static void add(total *t, const saf_logit_segment *segments, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double max = (double)segments[i].max, sum = (double)segments[i].sum;
        if (t->sum == 0) {
            *t = (total){max, sum};
        } else if (max > t->max) {
            *t = (total){max, __builtin_fma(t->sum, saf_math_exp(t->max - max), sum)};
        } else {
            t->sum += sum * saf_math_exp(max - t->max);
        }
    }
}

double saf_log_sum_exp_of(const saf_logit_segment *segments, int64_t n) {
    total t = {0};
    add(&t, segments, n);
    return t.max + saf_math_log(t.sum);
}

double saf_log_sum_exp(const float *logits, int64_t vocab) {
    const saf__kernels *kernels = saf__kernels_get();
    int64_t segments = saf_ceil_div(vocab, SAF_LOGIT_SEGMENT);
    total t = {0};
    for (int64_t first = 0; first < segments; first += SEGMENTS) {
        saf_logit_segment some[SEGMENTS];
        int64_t n = saf_i64_min(SEGMENTS, segments - first);
#pragma omp parallel for schedule(static) if (!omp_in_parallel())
        for (int64_t i = 0; i < n; i++)
            some[i] = segment_of(kernels, logits + (first + i) * SAF_LOGIT_SEGMENT,
                                 length(first + i, vocab));
        add(&t, some, n);
    }
    return t.max + saf_math_log(t.sum);
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
