/* One product alone, y[T, R] = x[T, K] W[R, K], beside the yardsticks of the same minute: few
 * tokens are compared with the read bandwidth (bytes of the weights), many with the peak of
 * operations. `make bench-matmul`; medians. matmul [TYPE [THREADS [TOKENS [R [K]]]]] Matrices are
 * walked in turn, so that weights come from memory as in a model. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "saf/hw.h"
#include "saf/kernel.h"

enum { REPEATS = 9, WALKED_BYTES = 256 << 20 };

typedef struct {
    saf_dtype dtype;
    int64_t tokens, rows, cols, n;
    saf_weight *w; /* [n] */
    char *block;   /* the weights' bytes, on huge pages */
    float *x, *y;
    saf_acts *acts;
    saf_hw_yardstick *yard;
} bench;

static saf_status fill(bench *b) {
    saf_status st = SAF_OK;
    uint8_t *raw = NULL;
    saf_weight w;
    SAF_TRY(saf_weight_plan(b->dtype, b->rows, b->cols, &w));
    b->n = saf_i64_max(2, saf_ceil_div(WALKED_BYTES, (int64_t)w.bytes));
    size_t raw_bytes = 0;
    if (!saf_dtype_bytes(b->dtype, b->rows * b->cols, &raw_bytes))
        return saf_fail(SAF_USAGE, "a matrix of that size has no whole blocks");
    SAF_TRY(saf_alloc(raw_bytes, 1, &raw));
    /* Every pair of bytes is a small finite number in each type. */
    for (size_t i = 0; i < raw_bytes; i++) raw[i] = (uint8_t)(i * 7 % 41);
    SAF_TRY(saf_alloc((size_t)b->n, sizeof *b->w, &b->w));
    SAF_TRY(saf_alloc_huge(w.bytes * (size_t)b->n, &b->block));
    for (int64_t i = 0; i < b->n; i++) {
        b->w[i] = w;
        b->w[i].data = b->block + (size_t)i * w.bytes;
        saf_weight_pack(&b->w[i], 0, b->rows, raw);
    }
    SAF_TRY(saf_alloc((size_t)(b->tokens * b->cols), sizeof *b->x, &b->x));
    SAF_TRY(saf_alloc((size_t)(b->tokens * (b->rows + 16)), sizeof *b->y, &b->y));
    for (int64_t i = 0; i < b->tokens * b->cols; i++) b->x[i] = (float)(i * 7919 % 1000) / 500 - 1;
    SAF_TRY(saf_acts_new(b->tokens, b->cols, &b->acts));
    SAF_TRY(saf_hw_yardstick_new(WALKED_BYTES, &b->yard));
out:
    saf_free(&raw);
    return st;
}

/* Seconds of one product, over as many as take about a tenth of a second. */
static double product_s(bench *b, bool quantise_each) {
    int64_t times =
        saf_i64_max(b->n, (int64_t)(3e10 / (2.0 * (double)(b->tokens * b->rows * b->cols))));
    double t0 = saf_clock_s();
    const saf_row_product first = {.w = &b->w[0]};
    const saf_acts_form form = saf_acts_form_of(b->acts, &first, 1, b->tokens);
#pragma omp parallel
    {
        saf_acts_set(b->acts, b->x, b->cols, b->tokens, b->cols, form);
        for (int64_t i = 0; i < times; i++) {
            if (quantise_each) saf_acts_set(b->acts, b->x, b->cols, b->tokens, b->cols, form);
            const saf_row_product product = {.w = &b->w[i % b->n], .y = b->y, .ldy = b->rows + 16};
            saf_matmul(&product, 1, b->acts);
        }
    }
    return (saf_clock_s() - t0) / (double)times;
}

static void measure(bench *b) {
    double product[REPEATS], quantise[REPEATS], read[REPEATS], int8[REPEATS], f32[REPEATS];
    double ops = 2.0 * (double)(b->tokens * b->rows * b->cols), bytes = (double)b->w[0].bytes;
    for (int i = 0; i < REPEATS; i++) {
        saf_hw_rates rates;
        saf_hw_yardstick_sample(b->yard, &rates);
        double s = product_s(b, false);
        product[i] = s;
        quantise[i] = product_s(b, true) - s;
        read[i] = bytes / s / rates.read_bytes_s;
        int8[i] = ops / s / rates.int8_ops_s;
        f32[i] = ops / s / rates.f32_ops_s;
    }
    double s = saf_median(product, REPEATS);
    printf(
        "%7.1f us, quantising %.1f us; %7.1f Gop/s, %3.0f %% of the int8 peak, %3.0f %% of f32; "
        "%6.2f GB/s, %3.0f %% of the read bandwidth\n",
        1e6 * s, 1e6 * saf_median(quantise, REPEATS), ops / s / 1e9,
        100 * saf_median(int8, REPEATS), 100 * saf_median(f32, REPEATS), bytes / s / 1e9,
        100 * saf_median(read, REPEATS));
}

int main(int argc, char **argv) {
    bench b = {.dtype = SAF_DTYPE_Q8_0, .tokens = 512, .rows = 3072, .cols = 1024};
    if (argc > 1 && !saf_dtype_from_name(argv[1], &b.dtype)) {
        fprintf(stderr, "matmul: no type '%s'\n", argv[1]);
        return 2;
    }
    if (argc > 2) omp_set_num_threads(atoi(argv[2]));
    if (argc > 3) b.tokens = atoll(argv[3]);
    if (argc > 4) b.rows = atoll(argv[4]);
    if (argc > 5) b.cols = atoll(argv[5]);
    if (saf_kernels_init(NULL) != SAF_OK || fill(&b) != SAF_OK) {
        fprintf(stderr, "matmul: %s\n", saf_error_text());
        return 1;
    }
    printf("%s %s, threads %d, %lld tokens, %lld x %lld: ", saf_dtype_name(b.dtype),
           saf_kernels_name(), omp_get_max_threads(), (long long)b.tokens, (long long)b.rows,
           (long long)b.cols);
    measure(&b);
    saf_hw_yardstick_free(&b.yard);
    saf_acts_free(&b.acts);
    saf_free(&b.block);
    saf_free(&b.w);
    saf_free(&b.x);
    saf_free(&b.y);
    return 0;
}
