/* rows.h: the row-wise operations, one row a call (see lanes.h for what a frame is). */
#ifndef SAF_KERNEL_FRAME_ROWS_H
#define SAF_KERNEL_FRAME_ROWS_H

#include "kernel/frame/lanes.h"
#include "kernel/kernels.h"

static float frame_rms_scale(const float *x, float eps, int64_t n) {
    v16 sums = v16_set1(0.0f);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        v16 v = v16_load(x + i);
        sums = v16_fma(v, v, sums);
    }
    if (i < n) { /* fma(0, 0, sum) leaves the other lanes as they are: no sum is -0 */
        v16 v = v16_load_n(x + i, n - i);
        sums = v16_fma(v, v, sums);
    }
    return 1.0f / sqrtf(v16_fold_sum(sums) / (float)n + eps);
}

static void frame_scale_mul(const float *x, float scale, const float *weight, int64_t n, float *y) {
    v16 scales = v16_set1(scale);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), scales), v16_load(weight + i)));
    for (; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static void frame_add(const float *x, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(y + i, v16_add(v16_load(y + i), v16_load(x + i)));
    for (; i < n; i++) y[i] = y[i] + x[i];
}

SAF__INLINE v16 silu_mul_lanes(v16 gate, v16 up) {
    v16 e = v16_exp(v16_sub(v16_set1(0.0f), gate));
    return v16_mul(v16_div(gate, v16_add(v16_set1(1.0f), e)), up);
}
static void frame_silu_mul(const float *gate, const float *up, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v16_store(y + i, silu_mul_lanes(v16_load(gate + i), v16_load(up + i)));
    if (i < n)
        v16_store_n(y + i, n - i,
                    silu_mul_lanes(v16_load_n(gate + i, n - i), v16_load_n(up + i, n - i)));
}

static bool frame_finite(const float *x, int64_t n) {
    uint32_t largest = 0; /* of the bits without sign: infinity and NaN are above every number */
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = saf_f32_to_bits(x[i]) & 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x7F800000;
}

/* Sixteen pairs. */
SAF__INLINE void rotate_lanes(const float *table, v16 *a, v16 *b) {
    v16 c, s, x = *a, y = *b;
    v16_load_pairs(table, &c, &s);
    *a = v16_fma(x, c, v16_mul(v16_mul(y, s), v16_set1(-1.0f)));
    *b = v16_fma(x, s, v16_mul(y, c));
}
static void frame_rope(saf_rope_pairs pairs, const float *restrict table, int64_t half,
                       float *restrict x) {
    int64_t step = pairs == SAF_ROPE_ADJACENT ? 2 : 1;
    int64_t other = pairs == SAF_ROPE_ADJACENT ? 1 : half, i = 0;
    for (; i + LANES <= half; i += LANES) {
        v16 a, b;
        if (step == 2) {
            v16_load_pairs(x + 2 * i, &a, &b);
            rotate_lanes(table + 2 * i, &a, &b);
            v16_store_pairs(x + 2 * i, a, b);
        } else {
            a = v16_load(x + i);
            b = v16_load(x + half + i);
            rotate_lanes(table + 2 * i, &a, &b);
            v16_store(x + i, a);
            v16_store(x + half + i, b);
        }
    }
    for (; i < half; i++) {
        float a = x[step * i], b = x[step * i + other];
        float c = table[2 * i], s = table[2 * i + 1];
        x[step * i] = __builtin_fmaf(a, c, -(b * s));
        x[step * i + other] = __builtin_fmaf(a, s, b * c);
    }
}

static void frame_exp_shifted(const float *x, float shift, int64_t n, float *y) {
    v16 shifts = v16_set1(shift);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(y + i, v16_exp(v16_sub(v16_load(x + i), shifts)));
    if (i < n) v16_store_n(y + i, n - i, v16_exp(v16_sub(v16_load_n(x + i, n - i), shifts)));
}

static float frame_max(const float *x, int64_t n) {
    v16 largest = v16_set1(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) largest = v16_max(v16_load(x + i), largest);
    if (i < n) largest = v16_max(v16_first_n(v16_load_n(x + i, n - i), n - i, -INFINITY), largest);
    return v16_fold_max(largest);
}

static float frame_exp_sum(const float *x, float shift, int64_t n) {
    v16 sums = v16_set1(0.0f), shifts = v16_set1(shift);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sums = v16_add(sums, v16_exp(v16_sub(v16_load(x + i), shifts)));
    if (i < n) {
        v16 e = v16_exp(v16_sub(v16_load_n(x + i, n - i), shifts));
        sums = v16_add(sums, v16_first_n(e, n - i, 0.0f));
    }
    return v16_fold_sum(sums);
}

static void frame_rows_fill(saf__kernels *k) {
    k->rms_scale = frame_rms_scale;
    k->scale_mul = frame_scale_mul;
    k->add = frame_add;
    k->silu_mul = frame_silu_mul;
    k->finite = frame_finite;
    k->rope = frame_rope;
    k->exp_shifted = frame_exp_shifted;
    k->max = frame_max;
    k->exp_sum = frame_exp_sum;
}

#endif
