/* What a whole batch needs beside its products: rows shared out among the team. */
#include "kernel/kernels.h"

void saf_rows_finite(const float *x, int64_t ldx, int64_t tokens, int64_t width, bool *finite) {
    /* Columns are cut as well, so that a single row keeps the whole team busy. */
    enum { CHUNK = 4096 };
    const saf__kernels *kernels = saf__kernels_get();
    int64_t chunks = saf_ceil_div(width, CHUNK);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < tokens * chunks; item++) {
        int64_t t = item / chunks, c = item % chunks * CHUNK;
        if (kernels->finite(x + t * ldx + c, saf_i64_min(CHUNK, width - c))) continue;
#pragma omp atomic write
        finite[t] = false;
    }
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
