/* What is done row by row or value by value: norms, rotary positions, SiLU, and backwards. Lanes
 * and their order are written out, so that no compiler's choice of vectors changes a bit. */
#include <math.h>

#include "train/train.h"

enum { LANES = 16, COLUMNS = 16, VALUES = 1024 };

static float fold(float lanes[LANES]) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* Lane j sums j, j + 16, ... */
static float dot(const float *x, const float *y, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] = __builtin_fmaf(x[i + j], y[i + j], lanes[j]);
    for (int j = 0; i + j < n; j++) lanes[j] = __builtin_fmaf(x[i + j], y[i + j], lanes[j]);
    return fold(lanes);
}

static float dot3(const float *x, const float *y, const float *z, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] = __builtin_fmaf(x[i + j] * y[i + j], z[i + j], lanes[j]);
    for (int j = 0; i + j < n; j++)
        lanes[j] = __builtin_fmaf(x[i + j] * y[i + j], z[i + j], lanes[j]);
    return fold(lanes);
}

void saf__norm(const saf__team *team, const float *x, const float *weight, float eps, int64_t rows,
               int64_t cols, float *inverse, float *y) {
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t t = 0; t < rows; t++) {
        const float *from = x + t * cols;
        float *to = y + t * cols;
        float r = 1.0f / sqrtf(dot(from, from, cols) / (float)cols + eps);
        inverse[t] = r;
        for (int64_t i = 0; i < cols; i++) to[i] = from[i] * r * weight[i];
    }
}

/* dweight[c] = sum over ascending rows of dy x inverse; a thread has whole columns. */
static void norm_weights(const saf__team *team, const float *x, const float *inverse,
                         const float *dy, int64_t rows, int64_t cols, float *dweight) {
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t c = 0; c < cols; c += COLUMNS) {
        double sum[COLUMNS] = {0};
        int64_t n = saf_i64_min(COLUMNS, cols - c);
        for (int64_t t = 0; t < rows; t++)
            for (int64_t i = 0; i < n; i++) {
                int64_t at = t * cols + c + i;
                sum[i] += (double)(dy[at] * (x[at] * inverse[t]));
            }
        for (int64_t i = 0; i < n; i++) dweight[c + i] = (float)sum[i];
    }
}

/* y = x r w with r = (mean x^2 + eps)^(-1/2): dx = r (w dy) - x r^3 / K * sum(w dy x). */
void saf__norm_back(const saf__team *team, const float *x, const float *weight,
                    const float *inverse, const float *dy, int64_t rows, int64_t cols, bool add,
                    float *dx, float *dweight) {
    norm_weights(team, x, inverse, dy, rows, cols, dweight);
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t t = 0; t < rows; t++) {
        const float *xt = x + t * cols, *dyt = dy + t * cols;
        float *to = dx + t * cols, r = inverse[t];
        float common = dot3(dyt, weight, xt, cols) / (float)cols * r * r * r;
        if (add)
            for (int64_t i = 0; i < cols; i++) to[i] += dyt[i] * weight[i] * r - xt[i] * common;
        else
            for (int64_t i = 0; i < cols; i++) to[i] = dyt[i] * weight[i] * r - xt[i] * common;
    }
}

static void turn(float cosine, float sine, float *a, float *b) {
    float x = *a, y = *b;
    *a = __builtin_fmaf(x, cosine, -(y * sine));
    *b = __builtin_fmaf(x, sine, y * cosine);
}

void saf__rope(const saf__team *team, const saf__dims *d, saf_rope_pairs pairs, const float *table,
               int64_t heads, bool back, float *x) {
    int64_t half = d->head_width / 2;
    int64_t step = pairs == SAF_ROPE_ADJACENT ? 2 : 1,
            other = pairs == SAF_ROPE_ADJACENT ? 1 : half;
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t t = 0; t < d->tokens; t++) {
        const float *angles = table + t % d->context * half * 2;
        for (int64_t h = 0; h < heads; h++) {
            float *at = x + (t * heads + h) * d->head_width;
            for (int64_t i = 0; i < half; i++)
                turn(angles[2 * i], back ? -angles[2 * i + 1] : angles[2 * i + 1], at + step * i,
                     at + step * i + other);
        }
    }
}

/* 1 / (1 + exp(-gate)) of n <= VALUES values. */
static void sigmoid(const float *gate, int64_t n, float *s) {
    for (int64_t i = 0; i < n; i++) s[i] = -gate[i];
    saf_exp_shifted(s, 0, n, s);
    for (int64_t i = 0; i < n; i++) s[i] = 1.0f / (1.0f + s[i]);
}

void saf__silu(const saf__team *team, const float *gate, const float *up, int64_t n, float *h) {
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t at = 0; at < n; at += VALUES) {
        float s[VALUES];
        int64_t count = saf_i64_min(VALUES, n - at);
        sigmoid(gate + at, count, s);
        for (int64_t i = 0; i < count; i++) h[at + i] = gate[at + i] * s[i] * up[at + i];
    }
}

void saf__silu_back(const saf__team *team, const float *gate, const float *up, const float *dh,
                    int64_t n, float *h, float *dgate, float *dup) {
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t at = 0; at < n; at += VALUES) {
        float s[VALUES];
        int64_t count = saf_i64_min(VALUES, n - at);
        const float *g = gate + at, *u = up + at, *dy = dh + at;
        sigmoid(g, count, s);
        for (int64_t i = 0; i < count; i++) {
            float silu = g[i] * s[i];
            h[at + i] = silu * u[i];
            dup[at + i] = dy[i] * silu;
            dgate[at + i] = dy[i] * u[i] * (s[i] + silu * (1.0f - s[i]));
        }
    }
}

void saf__add(const saf__team *team, const float *x, int64_t n, float *sum) {
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

float saf__largest(const float *x, int64_t n) {
    float lanes[LANES], most = x[0];
    int64_t i = 0;
    for (int j = 0; j < LANES; j++) lanes[j] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    for (int j = 0; j < LANES; j++) most = lanes[j] > most ? lanes[j] : most;
    return most;
}
