/* matrix_fixture.h: a product of matrices in memory, and what it must come to: every rank works out
 * the same calls of OpenBLAS by itself, in plain loops, and one large call beside them. */
#ifndef SAF_TESTS_MATRIX_FIXTURE_H
#define SAF_TESTS_MATRIX_FIXTURE_H

#include <math.h>

#include "matrix/plan.h"
#include "mpi_test.h"
#include "saf/core_blas.h"

typedef struct {
    saf_product_shape shape;
    double alpha, beta;
    size_t es;
    char *a, *b, *c0; /* whole, on every rank */
    char *c;          /* what this rank was given to write; zeros elsewhere */
    unsigned char *times;
    char *expected;
    int64_t calls; /* to stop after so many reads */
} matrix_case;

static inline size_t case_bytes(const matrix_case *x, int64_t rows, int64_t cols) {
    return (size_t)(rows * cols) * x->es;
}

static inline double case_at(const matrix_case *x, const char *matrix, int64_t e) {
    if (x->es == 8) return ((const double *)(const void *)matrix)[e];
    return (double)((const float *)(const void *)matrix)[e];
}

static inline void case_fill(const matrix_case *x, char *matrix, int64_t n, uint64_t seed) {
    for (int64_t e = 0; e < n; e++) {
        uint64_t h = ((uint64_t)e + seed * 1000003) * 0x9E3779B97F4A7C15u;
        double v = (double)(int64_t)(h >> 33) / 1073741824.0 - 1;
        if (x->es == 8)
            ((double *)(void *)matrix)[e] = v;
        else
            ((float *)(void *)matrix)[e] = (float)v;
    }
}

static inline void copy_region(char *to, size_t to_stride, const char *from, size_t from_stride,
                               int64_t rows, size_t bytes) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + (size_t)r * to_stride, from + (size_t)r * from_stride, bytes);
}

static inline saf_status case_read(const matrix_case *x, const char *matrix, int64_t width,
                                   int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                                   void *out, int64_t ld) {
    copy_region(out, (size_t)ld * x->es, matrix + (size_t)(row0 * width + col0) * x->es,
                (size_t)width * x->es, rows, (size_t)cols * x->es);
    return SAF_OK;
}
static inline saf_status case_read_a(void *ctx, int64_t row0, int64_t rows, int64_t col0,
                                     int64_t cols, void *out, int64_t ld) {
    matrix_case *x = ctx;
    return case_read(x, x->a, x->shape.k, row0, rows, col0, cols, out, ld);
}
static inline saf_status case_read_b(void *ctx, int64_t row0, int64_t rows, int64_t col0,
                                     int64_t cols, void *out, int64_t ld) {
    matrix_case *x = ctx;
    return case_read(x, x->b, x->shape.n, row0, rows, col0, cols, out, ld);
}
static inline saf_status case_read_c(void *ctx, int64_t row0, int64_t rows, int64_t col0,
                                     int64_t cols, void *out, int64_t ld) {
    matrix_case *x = ctx;
    return case_read(x, x->c0, x->shape.n, row0, rows, col0, cols, out, ld);
}
static inline saf_status case_write_c(void *ctx, int64_t row0, int64_t rows, int64_t col0,
                                      int64_t cols, const void *in, int64_t ld) {
    matrix_case *x = ctx;
    size_t at = (size_t)(row0 * x->shape.n + col0);
    copy_region(x->c + at * x->es, (size_t)x->shape.n * x->es, in, (size_t)ld * x->es, rows,
                (size_t)cols * x->es);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < cols; e++) x->times[at + (size_t)(r * x->shape.n + e)]++;
    return SAF_OK;
}

static inline saf_product_io case_io(matrix_case *x) {
    return (saf_product_io){.ctx = x,
                            .read_a = case_read_a,
                            .read_b = case_read_b,
                            .read_c = x->beta != 0 ? case_read_c : NULL,
                            .write_c = case_write_c};
}

/* ---- what it must come to ---------------------------------------------------------------------*/

static inline void plain_gemm(const matrix_case *x, const saf_blas *blas, int m, int n, int k,
                              const void *a, int lda, const void *b, int ldb, double beta, void *c,
                              int ldc) {
    int row = SAF_BLAS_ROW_MAJOR, no = SAF_BLAS_NO_TRANS, trans = SAF_BLAS_TRANS;
    bool vector = x->shape.m == 1 || x->shape.n == 1, column = x->shape.n == 1;
    if (!vector && x->es == 8)
        blas->dgemm(row, no, no, m, n, k, 1, a, lda, b, ldb, beta, c, ldc);
    else if (!vector)
        blas->sgemm(row, no, no, m, n, k, 1, a, lda, b, ldb, (float)beta, c, ldc);
    else if (column && x->es == 8)
        blas->dgemv(row, no, m, k, 1, a, lda, b, 1, beta, c, 1);
    else if (column)
        blas->sgemv(row, no, m, k, 1, a, lda, b, 1, (float)beta, c, 1);
    else if (x->es == 8)
        blas->dgemv(row, trans, k, n, 1, b, ldb, a, 1, beta, c, 1);
    else
        blas->sgemv(row, trans, k, n, 1, b, ldb, a, 1, (float)beta, c, 1);
}

/* y += sum of lanes, as matrix/vector.h has it, and row after row: element by element. */
#define PLAIN_VECTOR(type)                                                                        \
    static inline void plain_column_##type(int m, int k, const type *a, const type *b, type *y) { \
        enum { LANES = 256 / sizeof(type) };                                                      \
        for (int i = 0; i < m; i++) {                                                             \
            type lane[LANES] = {0};                                                               \
            for (int p = 0; p < k; p++) lane[p % LANES] += a[(size_t)i * (size_t)k + p] * b[p];   \
            for (int half = LANES / 2; half > 0; half /= 2)                                       \
                for (int l = 0; l < half; l++) lane[l] += lane[l + half];                         \
            y[i] += lane[0];                                                                      \
        }                                                                                         \
    }                                                                                             \
    static inline void plain_row_##type(int n, int k, const type *a, const type *b, type *y) {    \
        for (int p = 0; p < k; p++)                                                               \
            for (int j = 0; j < n; j++) y[j] += a[p] * b[(size_t)p * (size_t)n + j];              \
    }
PLAIN_VECTOR(float)
PLAIN_VECTOR(double)

static inline void plain_tile(const matrix_case *x, const saf_blas *blas, int m, int n, int k,
                              const void *a, const void *b, bool first, void *c) {
    bool vector = x->shape.m == 1 || x->shape.n == 1, column = x->shape.n == 1;
    if (vector && first) memset(c, 0, (size_t)m * (size_t)n * x->es);
    if (!vector)
        plain_gemm(x, blas, m, n, k, a, k, b, n, !first, c, n);
    else if (column && x->es == 8)
        plain_column_double(m, k, a, b, c);
    else if (column)
        plain_column_float(m, k, a, b, c);
    else if (x->es == 8)
        plain_row_double(n, k, a, b, c);
    else
        plain_row_float(n, k, a, b, c);
}

/* acc[rows, cols] of one segment, by packed tiles. */
static inline saf_status segment_sum(const matrix_case *x, const saf_blas *blas,
                                     const saf_product_tiles *t, saf_span rows, saf_span cols,
                                     saf_span panels, char *acc) {
    saf_status st = SAF_OK;
    char *a = NULL, *b = NULL;
    int64_t m = rows.end - rows.begin, n = cols.end - cols.begin;
    SAF_TRY(saf_alloc((size_t)(m * t->tile_k), x->es, &a));
    SAF_TRY(saf_alloc((size_t)(n * t->tile_k), x->es, &b));
    for (int64_t p = panels.begin; p < panels.end; p++) {
        int64_t k0 = p * t->tile_k, k = saf_i64_min(t->tile_k, x->shape.k - k0);
        (void)case_read(x, x->a, x->shape.k, rows.begin, m, k0, k, a, k);
        (void)case_read(x, x->b, x->shape.n, k0, k, cols.begin, n, b, n);
        plain_tile(x, blas, (int)m, (int)n, (int)k, a, b, p == panels.begin, acc);
    }
out:
    saf_free(&a);
    saf_free(&b);
    return st;
}

static inline void element_sum(const matrix_case *x, char *to, const char *from, int64_t n) {
    for (int64_t e = 0; e < n; e++) {
        if (x->es == 8)
            ((double *)(void *)to)[e] += ((const double *)(const void *)from)[e];
        else
            ((float *)(void *)to)[e] += ((const float *)(const void *)from)[e];
    }
}

static inline void element_end(const matrix_case *x, const char *acc, int64_t e, int64_t at) {
    if (x->es == 8) {
        double c0 = x->beta != 0 ? ((double *)(void *)x->c0)[at] : 0,
               *out = (double *)(void *)x->expected;
        double s = acc ? ((const double *)(const void *)acc)[e] : 0;
        out[at] = acc ? (x->beta != 0 ? fma(x->alpha, s, x->beta * c0) : x->alpha * s)
                      : (x->beta != 0 ? x->beta * c0 : 0);
    } else {
        float c0 = x->beta != 0 ? ((float *)(void *)x->c0)[at] : 0,
              *out = (float *)(void *)x->expected;
        float s = acc ? ((const float *)(const void *)acc)[e] : 0, alpha = (float)x->alpha,
              beta = (float)x->beta;
        out[at] =
            acc ? (beta != 0 ? fmaf(alpha, s, beta * c0) : alpha * s) : (beta != 0 ? beta * c0 : 0);
    }
}

static inline saf_status expect_tile(matrix_case *x, const saf_blas *blas,
                                     const saf_product_tiles *t, saf_span rows, saf_span cols) {
    saf_status st = SAF_OK;
    char *sum[64] = {NULL};
    int64_t n = (rows.end - rows.begin) * (cols.end - cols.begin);
    bool none = x->alpha == 0 || t->segments == 0;
    for (int64_t s = 0; s < t->segments && !none; s++) {
        SAF_TRY(saf_alloc((size_t)n, x->es, &sum[s]));
        SAF_TRY(segment_sum(x, blas, t, rows, cols, saf_product_segment(t, s), sum[s]));
    }
    for (int64_t step = 1; step < t->segments && !none; step *= 2)
        for (int64_t s = 0; s < t->segments; s += 2 * step)
            element_sum(x, sum[s], sum[s + step], n);
    for (int64_t e = 0; e < n; e++) {
        int64_t width = cols.end - cols.begin;
        element_end(x, none ? NULL : sum[0], e,
                    (rows.begin + e / width) * x->shape.n + cols.begin + e % width);
    }
out:
    for (int s = 0; s < 64; s++) saf_free(&sum[s]);
    return st;
}

/* Beside one large call: |difference| <= bound of both sums, k products of |a| and |b| up to 1. */
static inline saf_status expect_close(matrix_case *x, const saf_blas *blas) {
    saf_status st = SAF_OK;
    int64_t m = x->shape.m, n = x->shape.n, k = x->shape.k, wrong = 0;
    char *whole = NULL;
    double unit = x->es == 8 ? 0x1p-53 : 0x1p-24;
    if (m * n == 0 || k == 0 || x->alpha == 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)(m * n), x->es, &whole));
    plain_gemm(x, blas, (int)m, (int)n, (int)k, x->a, (int)k, x->b, (int)n, 0, whole, (int)n);
    for (int64_t e = 0; e < m * n; e++) {
        double c0 = x->beta != 0 ? x->beta * case_at(x, x->c0, e) : 0;
        double bound =
            2 * (double)k * unit * ((double)k + 2) * fabs(x->alpha) + 4 * unit * fabs(c0);
        wrong +=
            !(fabs(x->alpha * case_at(x, whole, e) + c0 - case_at(x, x->expected, e)) <= bound);
    }
    CHECK_EQ(wrong, 0);
out:
    saf_free(&whole);
    return st;
}

static inline saf_status case_expect(matrix_case *x) {
    saf_status st = SAF_OK;
    const saf_blas *blas = NULL;
    saf_product_tiles t;
    SAF_TRY(saf_blas_load(&blas));
    blas->set_threads(1);
    SAF_TRY(saf_product_tiles_of(&x->shape, &t));
    for (int64_t i = 0; i < x->shape.m; i += t.tile_m)
        for (int64_t j = 0; j < x->shape.n; j += t.tile_n)
            SAF_TRY(expect_tile(x, blas, &t, (saf_span){i, saf_i64_min(i + t.tile_m, x->shape.m)},
                                (saf_span){j, saf_i64_min(j + t.tile_n, x->shape.n)}));
    SAF_TRY(expect_close(x, blas));
out:
    return st;
}

/* ---- cases ------------------------------------------------------------------------------------*/

static inline void case_free(matrix_case *x) {
    saf_free(&x->a);
    saf_free(&x->b);
    saf_free(&x->c0);
    saf_free(&x->c);
    saf_free(&x->times);
    saf_free(&x->expected);
}

static inline saf_status case_new(matrix_case *x, saf_dtype dtype, int64_t m, int64_t n, int64_t k,
                                  double alpha, double beta) {
    saf_status st = SAF_OK;
    *x = (matrix_case){.shape = {m, n, k, dtype}, .alpha = alpha, .beta = beta};
    x->es = dtype == SAF_DTYPE_F64 ? 8 : 4;
    SAF_TRY(saf_alloc((size_t)(m * k), x->es, &x->a));
    SAF_TRY(saf_alloc((size_t)(k * n), x->es, &x->b));
    SAF_TRY(saf_alloc((size_t)(m * n), x->es, &x->c0));
    SAF_TRY(saf_alloc((size_t)(m * n), x->es, &x->c));
    SAF_TRY(saf_alloc((size_t)(m * n), x->es, &x->expected));
    SAF_TRY(saf_alloc((size_t)(m * n), 1, &x->times));
    case_fill(x, x->a, m * k, 1);
    case_fill(x, x->b, k * n, 2);
    case_fill(x, x->c0, m * n, 3);
    if (beta == 0 && m * n > 0) memset(x->c0, 0xff, case_bytes(x, m, n)); /* NaN: never read */
    if (alpha == 0 && m * k > 0) memset(x->a, 0xff, case_bytes(x, m, k));
    SAF_TRY(case_expect(x));
out:
    return st;
}

/* Every element was written once, by whichever rank, and has the bits that it must. Collective. */
static inline void case_check(saf_comm *world, matrix_case *x) {
    int64_t n = x->shape.m * x->shape.n, wrong = 0;
    saf_tensor t = saf_tensor_1d(x->es == 8 ? SAF_DTYPE_I64 : SAF_DTYPE_I32, x->c, n);
    saf_tensor times = saf_tensor_1d(SAF_DTYPE_U8, x->times, n);
    if (n == 0) return;
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t)); /* zeros but for one rank's bits */
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &times));
    for (int64_t e = 0; e < n; e++) wrong += x->times[e] != 1;
    CHECK_EQ(wrong, 0);
    CHECK(memcmp(x->c, x->expected, case_bytes(x, x->shape.m, x->shape.n)) == 0);
}

static inline void case_clear(matrix_case *x) {
    memset(x->c, 0, case_bytes(x, x->shape.m, x->shape.n));
    memset(x->times, 0, (size_t)(x->shape.m * x->shape.n));
}

/* ---- host tables ------------------------------------------------------------------------------*/

enum { HOST_TABLES = 3 };

/* Of many cases every one, or as many as SAF_TEST_EVERY says where ranks meet slowly: over real
 * hosts, which are then the only host table. */
static inline int every(void) {
    const char *n = getenv("SAF_TEST_EVERY");
    return n && atoi(n) > 0 ? atoi(n) : 1;
}

static inline int host_tables(void) {
    return every() > 1 ? 1 : HOST_TABLES;
}

/* The ranks' hosts as they are, each rank alone, or at most two together. Collective. */
static inline void host_table(saf_comm *world, int which, int32_t *out) {
    int32_t real[64], pair[64];
    int ranks = saf_comm_size(world);
    if (!CHECK_OK(saf_comm_hosts(world, real))) return;
    for (int r = 0, hosts = 0; r < ranks; r++) {
        pair[r] = which == 0 ? real[r] : which == 1 ? r : real[r] * 64 + r / 2;
        out[r] = -1;
        for (int q = 0; q < r && out[r] < 0; q++)
            if (pair[q] == pair[r]) out[r] = out[q];
        if (out[r] < 0) out[r] = hosts++;
    }
}

/* ---- running ----------------------------------------------------------------------------------*/

/* `steps` steps (< 0: all, and the end). */
static inline saf_product *case_run(saf_comm *world, matrix_case *x, const saf_product_plan *plan,
                                    int threads, int64_t steps) {
    saf_product *p = NULL;
    saf_product_io io = case_io(x);
    bool done = false;
    if (!CHECK_OK(saf_product_new(world, plan, x->alpha, x->beta, threads, &io, &p))) return NULL;
    for (int64_t s = 0; !done && s != steps; s++)
        if (!CHECK_OK(saf_product_step(p, &done))) break;
    if (steps < 0) CHECK_OK(saf_product_finish(p));
    return p;
}

/* What messages brought to this rank is what the plan says. */
static inline void case_count(const saf_product_plan *plan, const saf_product *p, int rank,
                              int64_t counted) {
    saf_product_counters count;
    saf_product_count(p, &count);
    CHECK_EQ(count.bytes_received, plan->bytes_received[rank]);
    CHECK_EQ(counted, plan->bytes_received[rank]);
    CHECK_EQ(count.bytes_read, plan->bytes_read[rank]);
}

static inline void case_run_whole(saf_comm *world, matrix_case *x, const saf_product_plan *plan,
                                  int threads) {
    saf_comm_counter before[SAF_COUNT_KINDS], after[SAF_COUNT_KINDS];
    case_clear(x);
    saf_comm_counters(before);
    saf_product *p = case_run(world, x, plan, threads, -1);
    saf_comm_counters(after);
    if (!p) return;
    if (x->alpha != 0)
        case_count(plan, p, saf_comm_rank(world),
                   after[SAF_COUNT_RECV].bytes - before[SAF_COUNT_RECV].bytes);
    saf_product_free(&p);
    case_check(world, x);
}

#endif
