/* Products of many lengths, transposes and factors: as OpenBLAS has them in one call, within what
 * rounding explains, and the same bits on any number of ranks. Every element of C lies within
 * g(d) (|alpha| sum_l |a_il| |b_lj| + |beta c_ij|) of the exact one, g(d) = d u / (1 - d u), where
 * u is the type's unit roundoff and d the most roundings that any term goes through: k + 2 in one
 * call, whatever its order, and in tiles no more than k + levels of the tree of segments + 4.
 *
 * A few cases by default, and all (SAF_TEST_MATMUL_LONG) in `make test-matmul`, which compares what
 * SAF_TEST_HASHES, a file, is given here: a hash of each case's product, by rank count. */
#define XXH_INLINE_ALL
#include <float.h>
#include <xxhash.h>

#include "matrix_fixture.h"

/* 0, 1, primes, and both sides of powers of two. */
static const int64_t sizes[] = {0,   1,   2,   7,   31,  32,  33,  61,  63,   64,   65,  127,
                                128, 129, 191, 251, 255, 256, 257, 509, 1021, 1023, 1025};
/* Of k now and then, so that it has segments. */
static const int64_t depths[] = {4095, 4096, 4097, 9973};
enum { SIZES = sizeof sizes / sizeof sizes[0], CASES = SIZES * 101, FEW = 191, ROOMY = 600000000 };
static const double factors[] = {0, 1, -1.75};

typedef struct {
    matrix_case x; /* a and b as they are stored */
    bool trans_a, trans_b;
    int64_t number;
} sized;

static saf_status read_stored(const sized *s, const char *matrix, bool trans, int64_t all_rows,
                              int64_t all_cols, const int64_t r[4], void *out, int64_t ld) {
    size_t es = s->x.es;
    if (!trans) return case_read(&s->x, matrix, all_cols, r[0], r[1], r[2], r[3], out, ld);
    for (int64_t i = 0; i < r[1]; i++)
        for (int64_t j = 0; j < r[3]; j++)
            memcpy((char *)out + (size_t)(i * ld + j) * es,
                   matrix + (size_t)((r[2] + j) * all_rows + r[0] + i) * es, es);
    return SAF_OK;
}

static saf_status read_a(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    const sized *s = ctx;
    const int64_t r[4] = {row0, rows, col0, cols};
    return read_stored(s, s->x.a, s->trans_a, s->x.shape.m, s->x.shape.k, r, out, ld);
}

static saf_status read_b(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    const sized *s = ctx;
    const int64_t r[4] = {row0, rows, col0, cols};
    return read_stored(s, s->x.b, s->trans_b, s->x.shape.k, s->x.shape.n, r, out, ld);
}

/* ---- beside OpenBLAS --------------------------------------------------------------------------*/

/* Of alpha 0, for which some of its kernels read A, none of k. */
static void whole_call(const sized *s, const saf_blas *blas, double alpha, const void *a,
                       const void *b, double beta, void *c, bool wide) {
    int m = (int)s->x.shape.m, n = (int)s->x.shape.n, k = alpha != 0 ? (int)s->x.shape.k : 0,
        lda = s->trans_a ? m : k, ldb = s->trans_b ? k : n, row = SAF_BLAS_ROW_MAJOR,
        ta = s->trans_a ? SAF_BLAS_TRANS : SAF_BLAS_NO_TRANS,
        tb = s->trans_b ? SAF_BLAS_TRANS : SAF_BLAS_NO_TRANS;
    if (lda < 1) lda = 1;
    if (ldb < 1) ldb = 1;
    if (wide)
        blas->dgemm(row, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, n);
    else
        blas->sgemm(row, ta, tb, m, n, k, (float)alpha, a, lda, b, ldb, (float)beta, c, n);
}

/* sum_l |a_il| |b_lj|, in float64. */
static saf_status absolute_product(const sized *s, const saf_blas *blas, double *out) {
    saf_status st = SAF_OK;
    int64_t n_a = s->x.shape.m * s->x.shape.k, n_b = s->x.shape.k * s->x.shape.n;
    double *a = NULL, *b = NULL;
    SAF_TRY(saf_alloc((size_t)n_a, sizeof *a, &a));
    SAF_TRY(saf_alloc((size_t)n_b, sizeof *b, &b));
    for (int64_t e = 0; e < n_a; e++) a[e] = fabs(case_at(&s->x, s->x.a, e));
    for (int64_t e = 0; e < n_b; e++) b[e] = fabs(case_at(&s->x, s->x.b, e));
    whole_call(s, blas, 1, a, b, 0, out, true);
out:
    saf_free(&a);
    saf_free(&b);
    return st;
}

static double rounding(const sized *s, double roundings) {
    double du = roundings * (s->x.es == 8 ? 0x1p-53 : 0x1p-24);
    return du / (1 - du);
}

static saf_status compare(const sized *s) {
    saf_status st = SAF_OK;
    const saf_blas *blas = NULL;
    const matrix_case *x = &s->x;
    int64_t n = x->shape.m * x->shape.n, wrong = 0;
    double *sizes_of = NULL, k = (double)x->shape.k, tiny = x->es == 8 ? DBL_MIN : (double)FLT_MIN;
    double g = rounding(s, k + 2) + rounding(s, k + 10);
    char *whole = NULL;
    if (n == 0) return SAF_OK;
    SAF_TRY(saf_blas_load(&blas));
    blas->set_threads(1);
    SAF_TRY(saf_alloc((size_t)n, x->es, &whole));
    SAF_TRY(saf_alloc((size_t)n, sizeof *sizes_of, &sizes_of));
    memcpy(whole, x->c0, case_bytes(x, x->shape.m, x->shape.n));
    whole_call(s, blas, x->alpha, x->a, x->b, x->beta, whole, x->es == 8);
    if (x->alpha != 0) SAF_TRY(absolute_product(s, blas, sizes_of));
    for (int64_t e = 0; e < n; e++) {
        double size = fabs(x->alpha) * sizes_of[e];
        if (x->beta != 0) size += fabs(x->beta * case_at(x, x->c0, e));
        wrong += !(fabs(case_at(x, x->c, e) - case_at(x, whole, e)) <= g * size + tiny);
    }
    CHECK_EQ(wrong, 0);
out:
    saf_free(&whole);
    saf_free(&sizes_of);
    return st;
}

/* ---- a case -----------------------------------------------------------------------------------*/

/* The counts of sizes, factors, transposes and types have no divisor in common but the last two. */
static saf_status sized_new(int64_t number, sized *s) {
    saf_status st = SAF_OK;
    int64_t turn = number / SIZES, m = sizes[number % SIZES], n = sizes[(number + turn) % SIZES],
            k = sizes[(number * 3 + turn * 7 + turn / SIZES) % SIZES];
    int64_t which = number % 9, flags = number / 9 % 8;
    matrix_case *x = &s->x;
    saf_dtype dtype = flags & 4 ? SAF_DTYPE_F64 : SAF_DTYPE_F32;
    *s = (sized){.number = number, .trans_a = flags & 1, .trans_b = flags & 2};
    if (number % 13 == 5) k = depths[number / 13 % 4];
    while (m * n * k > ROOMY) m /= 2;
    *x = (matrix_case){
        .shape = {m, n, k, dtype}, .alpha = factors[which % 3], .beta = factors[which / 3]};
    x->es = flags & 4 ? 8 : 4;
    SAF_TRY(saf_alloc((size_t)(m * k), x->es, &x->a));
    SAF_TRY(saf_alloc((size_t)(k * n), x->es, &x->b));
    SAF_TRY(saf_alloc((size_t)(m * n), x->es, &x->c0));
    SAF_TRY(saf_alloc((size_t)(m * n), x->es, &x->c));
    SAF_TRY(saf_alloc((size_t)(m * n), 1, &x->times));
    case_fill(x, x->a, m * k, (uint64_t)number + 1);
    case_fill(x, x->b, k * n, (uint64_t)number + 2);
    case_fill(x, x->c0, m * n, (uint64_t)number + 3);
    /* What does not count is not read. */
    if (x->beta == 0 && m * n > 0) memset(x->c0, 0xff, case_bytes(x, m, n));
    if (x->alpha == 0 && m * k > 0) memset(x->a, 0xff, case_bytes(x, m, k));
out:
    return st;
}

/* The grid that is chosen, and every third time another one; now and then one under a cap. */
static saf_status plan_of(saf_comm *world, const sized *s, saf_product_plan **out) {
    int32_t hosts[64], n = saf_comm_size(world), at = 0, count = 0;
    saf_product_ranks ranks = {.ranks = n, .host = hosts};
    host_table(world, (int)(s->number % HOST_TABLES), hosts);
    if (s->number % 4 == 1 && s->number % 3 != 2) ranks.memory_bytes = (int64_t)16 << 20;
    if (s->number % 3 != 2) return saf_product_plan_new(&s->x.shape, &ranks, out);
    for (int pass = 0; pass < 2; pass++) {
        int32_t wanted = pass ? (int32_t)(s->number / 3 % count) : -1;
        at = 0;
        for (int32_t a = 1; a <= n; a++)
            for (int32_t b = 1; a * b <= n; b++)
                for (int32_t c = 1; a * b * c <= n; c++, at++)
                    if (at == wanted) return saf__plan_grid(&s->x.shape, &ranks, a, b, c, out);
        count = at;
    }
    return saf_fail(SAF_DEFECT, "no grid");
}

static bool gathered(saf_comm *world, sized *s) {
    matrix_case *x = &s->x;
    int64_t n = x->shape.m * x->shape.n, wrong = 0;
    saf_tensor t = saf_tensor_1d(x->es == 8 ? SAF_DTYPE_I64 : SAF_DTYPE_I32, x->c, n);
    saf_tensor times = saf_tensor_1d(SAF_DTYPE_U8, x->times, n);
    if (n == 0) return true;
    if (!CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t))) return false;
    if (!CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &times))) return false;
    for (int64_t e = 0; e < n; e++) wrong += x->times[e] != 1;
    return CHECK_EQ(wrong, 0);
}

static void run_case(saf_comm *world, int64_t number, FILE *hashes) {
    sized s;
    saf_product_plan *plan = NULL;
    saf_product *p = NULL;
    bool done = false;
    int failed = mpi_test_failures;
    if (!CHECK_OK(sized_new(number, &s)) || !CHECK_OK(plan_of(world, &s, &plan))) goto out;
    saf_product_io io = {.ctx = &s,
                         .read_a = read_a,
                         .read_b = read_b,
                         .read_c = s.x.beta != 0 ? case_read_c : NULL,
                         .write_c = case_write_c};
    if (!CHECK_OK(
            saf_product_new(world, plan, s.x.alpha, s.x.beta, 1 + (int)(number % 5 == 4), &io, &p)))
        goto out;
    while (!done)
        if (!CHECK_OK(saf_product_step(p, &done))) goto out;
    CHECK_OK(saf_product_finish(p));
    if (s.x.alpha != 0) {
        saf_product_counters count;
        saf_product_count(p, &count);
        CHECK_EQ(count.bytes_received, plan->bytes_received[saf_comm_rank(world)]);
        CHECK_EQ(count.bytes_read, plan->bytes_read[saf_comm_rank(world)]);
    }
    if (!gathered(world, &s) || saf_comm_rank(world) != 0) goto out;
    CHECK_OK(compare(&s));
    if (hashes)
        fprintf(hashes, "%lld %016llx\n", (long long)number,
                (unsigned long long)XXH3_64bits(s.x.c, case_bytes(&s.x, s.x.shape.m, s.x.shape.n)));
out:
    if (mpi_test_failures > failed)
        fprintf(stderr, "# case %lld: %lld x %lld x %lld, alpha %g, beta %g\n", (long long)number,
                (long long)s.x.shape.m, (long long)s.x.shape.n, (long long)s.x.shape.k, s.x.alpha,
                s.x.beta);
    saf_product_free(&p);
    saf_product_plan_free(&plan);
    case_free(&s.x);
}

static void test_matrix_any_sizes(saf_comm *world) {
    const char *path = getenv("SAF_TEST_HASHES");
    int64_t step = getenv("SAF_TEST_MATMUL_LONG") ? 1 : FEW, n = 0;
    FILE *hashes = path && saf_comm_rank(world) == 0 ? fopen(path, "w") : NULL;
    CHECK(!path || saf_comm_rank(world) != 0 || hashes);
    /* Other ones by default on other ranks. */
    for (int64_t c = step > 1 ? saf_comm_size(world) * 29 % step : 0; c < CASES; c += step, n++)
        run_case(world, c, hashes);
    if (hashes) CHECK(fclose(hashes) == 0);
    printf("# %lld cases on %d ranks\n", (long long)n, saf_comm_size(world));
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {MPI_CASE(test_matrix_any_sizes)};
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
