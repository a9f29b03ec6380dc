/* One distributed product of matrices made from their indices, so that nothing is read from files
 * and every element of the result is known. By itself, as the names of matrix products and those of
 * the model's are alike. */
#include "job/bench/multiply.h"

#include "saf/matrix.h"

/* a(i, l) = 1 + (i + l) % 3, b(l, j) = 1 + j % 2: sums are small whole numbers, exact in f32. */
static double element(bool of_a, int64_t row, int64_t col) {
    return of_a ? 1 + (double)((row + col) % 3) : 1 + (double)(col % 2);
}

static void put(const saf__multiply *m, void *out, int64_t at, double v) {
    if (m->dtype == SAF_DTYPE_F32)
        ((float *)out)[at] = (float)v;
    else
        ((double *)out)[at] = v;
}

static saf_status fill(const saf__multiply *m, bool of_a, const int64_t region[4], void *out,
                       int64_t ld) {
    for (int64_t i = 0; i < region[1]; i++)
        for (int64_t j = 0; j < region[3]; j++)
            put(m, out, i * ld + j, element(of_a, region[0] + i, region[2] + j));
    return SAF_OK;
}

static saf_status read_a(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    return fill(ctx, true, (int64_t[]){row0, rows, col0, cols}, out, ld);
}

static saf_status read_b(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    return fill(ctx, false, (int64_t[]){row0, rows, col0, cols}, out, ld);
}

/* Row i of A sums to a whole number, which column j takes once or twice. */
static saf_status write_c(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                          const void *in, int64_t ld) {
    saf__multiply *m = ctx;
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t l = 0; l < m->n; l++) sum += element(true, row0 + i, l);
        for (int64_t j = 0; j < cols; j++) {
            int64_t at = i * ld + j;
            double v = m->dtype == SAF_DTYPE_F32 ? (double)((const float *)in)[at]
                                                 : ((const double *)in)[at];
            m->wrong += v != sum * (1 + (double)((col0 + j) % 2));
        }
    }
    return SAF_OK;
}

/* What the callbacks take, making and checking the matrices, does not count. */
static saf_status steps(saf__multiply *m, saf_product *product, double *seconds) {
    saf_status st = SAF_OK;
    bool done = false;
    saf_product_counters counters;
    SAF_TRY(saf_comm_barrier(m->comm));
    double start = saf_clock_s();
    m->apart = true;
    while (!done) SAF_TRY(saf_product_step(product, &done));
    m->apart = false;
    SAF_TRY(saf_product_finish(product));
    saf_product_count(product, &counters);
    *seconds = saf_clock_s() - start - counters.io_s;
out:
    return st;
}

saf_status saf__multiply_run(saf__multiply *m, double *seconds) {
    saf_status st = SAF_OK;
    saf_product_plan *plan = NULL;
    saf_product *product = NULL;
    saf_product_shape shape = {m->n, m->n, m->n, m->dtype};
    saf_product_ranks ranks = {.ranks = saf_comm_size(m->comm), .host = m->host};
    saf_product_io io = {m, read_a, read_b, NULL, write_c};
    SAF_TRY(saf_comm_agree(m->comm, saf_product_plan_new(&shape, &ranks, &plan)));
    m->grid_m = plan->grid_m;
    m->grid_n = plan->grid_n;
    m->grid_k = plan->grid_k;
    SAF_TRY(saf_product_new(m->comm, plan, 1, 0, m->threads, &io, &product));
    SAF_TRY(steps(m, product, seconds));
out:
    if (!m->apart) saf_product_free(&product);
    saf_product_plan_free(&plan);
    return st;
}
