/* Row-wise operations over a batch: the rows are shared out among the team. */
#include "kernel/kernels.h"

void saf_rms_norm(const float *x, int64_t ldx, const float *weight, float eps, int64_t tokens,
                  int64_t width, float *y, int64_t ldy) {
    const saf__kernels *kernels = saf__kernels_get();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++)
        kernels->rms_norm(x + t * ldx, weight, eps, width, y + t * ldy);
}

void saf_add_rows(const float *x, int64_t ldx, int64_t tokens, int64_t width, float *y,
                  int64_t ldy) {
    const saf__kernels *kernels = saf__kernels_get();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) kernels->add(x + t * ldx, width, y + t * ldy);
}

void saf_add_bias(const float *bias, int64_t tokens, int64_t width, float *y, int64_t ldy) {
    const saf__kernels *kernels = saf__kernels_get();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) kernels->add(bias, width, y + t * ldy);
}

void saf_silu_mul(const float *gate, const float *up, int64_t ld, int64_t tokens, int64_t width,
                  float *y, int64_t ldy) {
    /* Columns are cut as well, so that a single token keeps the whole team busy. */
    enum { CHUNK = 1024 };
    const saf__kernels *kernels = saf__kernels_get();
    int64_t chunks = saf_ceil_div(width, CHUNK);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < tokens * chunks; item++) {
        int64_t t = item / chunks, c = item % chunks * CHUNK;
        kernels->silu_mul(gate + t * ld + c, up + t * ld + c, saf_i64_min(CHUNK, width - c),
                          y + t * ldy + c);
    }
}

void saf_rows_finite(const float *x, int64_t ldx, int64_t tokens, int64_t width, bool *finite) {
    const saf__kernels *kernels = saf__kernels_get();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) finite[t] = kernels->finite(x + t * ldx, width);
}

void saf_rope_table(const double *inv_freq, int64_t half, double scale, const int32_t *positions,
                    int64_t tokens, float *table) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < half; i++) {
            double sine, cosine;
            saf_math_sincos((double)positions[t] * inv_freq[i], &sine, &cosine);
            table[2 * (t * half + i)] = (float)(scale * cosine);
            table[2 * (t * half + i) + 1] = (float)(scale * sine);
        }
    }
}

void saf_rope_apply(saf_rope_pairs pairs, const float *table, int64_t half, int64_t tokens,
                    int64_t heads, int64_t head_width, float *x, int64_t ldx) {
    const saf__kernels *kernels = saf__kernels_get();
#pragma omp for schedule(static)
    for (int64_t item = 0; item < tokens * heads; item++) {
        int64_t t = item / heads, h = item % heads;
        kernels->rope(pairs, table + 2 * t * half, half, x + t * ldx + h * head_width);
    }
}
