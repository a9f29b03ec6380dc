/* Whether the product is right, by another way to the sums of its rows (Freivalds 1977): with signs
 * x of 1 and -1, C x must be alpha op(A) (op(B) x) + beta C x, which takes as many operations as
 * the matrices have values.
 *
 * How far the two may lie apart by rounding. The product's arithmetic rounds each value of C by at
 * most g |alpha| sum_l |a_il| |b_lj| + g |beta c_ij|, where g = d u / (1 - d u), u is the type's
 * unit roundoff and d the most additions and products that any term goes through: those of a call
 * of OpenBLAS, tile_k; one for each further panel of its segment and each level of the tree of
 * segments; alpha, beta and their sum. (Higham, Accuracy and Stability, 3.1: in whatever order a
 * call adds.) The signs know nothing of these errors, so the sum of a row's errors with them is,
 * but for a chance of p, at most t = sqrt(2 ln(2 / p)) times the root of the sum of their squares
 * (Hoeffding), and that is at most g |alpha| sum_l |a_il| q_l + g |beta| r_i, where q_l and r_i are
 * the roots of the sums of squares of a row of op(B) and of C. p is 1e-12 for all rows together. On
 * top comes what this arithmetic itself rounds, in float64 with sums of partial sums of 128. */
#include <assert.h>
#include <float.h>
#include <math.h>

#include "job/matmul/matmul.h"

enum { BLOCK = 128, C_ROWS = 256 };

typedef struct {
    saf__matmul *x;
    bool wide;
    int64_t row0, row1; /* of this rank */
    double *sum, *size; /* [row1 - row0] the sums by the other way; what g is of */
    double *signs;      /* [n] */
    char *piece;        /* SAF__CHECK_VALUES of them */
    double t, g, own;   /* own: what float64 rounds here, as a part of `size` */
    double ratio, sees;
    saf_status failed; /* of reading, at this rank: the others wait for it in what is collective */
    int64_t unchecked;
} check;

/* Sum of row[j] * by[j], and of squares or of |row[j]| * weight[j]. */
static void add_row(const check *c, const char *row, int64_t n, const double *by,
                    const double *weight, double *sum, double *size) {
    for (int64_t j = 0; j < n;) {
        double part = 0, sizes = 0;
        for (int64_t end = saf_i64_min(n, j + BLOCK); j < end; j++) {
            double v = saf__value_of(row, j, c->wide);
            part += v * by[j];
            sizes += weight ? fabs(v) * weight[j] : v * v;
        }
        *sum += part;
        *size += sizes;
    }
}

/* Region of a matrix against `by`, in pieces; sum[rows] and size[rows] grow. */
static saf_status read_region(check *c, int32_t what, saf__region r, const double *by,
                              const double *weight, double *sum, double *size) {
    saf_status st = SAF_OK;
    int64_t wide = saf_i64_min(r.cols, SAF__CHECK_VALUES),
            high = wide > 0 ? SAF__CHECK_VALUES / wide : 1;
    int64_t bytes = c->wide ? 8 : 4;
    for (int64_t i = 0; i < r.rows; i += high)
        for (int64_t j = 0; j < r.cols; j += wide) {
            int64_t rows = saf_i64_min(high, r.rows - i), cols = saf_i64_min(wide, r.cols - j);
            SAF_TRY(
                saf__matmul_get(c->x, what, r.row0 + i, rows, r.col0 + j, cols, c->piece, cols));
            for (int64_t k = 0; k < rows; k++)
                add_row(c, c->piece + k * cols * bytes, cols, by + j, weight ? weight + j : NULL,
                        &sum[i + k], &size[i + k]);
        }
out:
    return st;
}

/* Nothing more once one could not be read. */
static void add_region(check *c, int32_t what, saf__region r, const double *by,
                       const double *weight, double *sum, double *size) {
    if (c->failed == SAF_OK) c->failed = read_region(c, what, r, by, weight, sum, size);
}

/* This rank's share of n things. */
static saf_span share_of(const saf__matmul *x, int64_t n) {
    int64_t each = n / x->ranks, more = n % x->ranks, r = x->rank;
    int64_t begin = r * each + saf_i64_min(r, more);
    return (saf_span){begin, begin + each + (r < more)};
}

/* One run of k: v = op(B) x and q, which all ranks get, then the rows of op(A) against them. */
static saf_status add_depth(check *c, int64_t k0, int64_t n, double *v, double *q) {
    saf_status st = SAF_OK;
    saf__matmul *x = c->x;
    saf_span mine = share_of(x, n);
    int64_t count = mine.end - mine.begin;
    memset(v, 0, (size_t)n * sizeof *v);
    memset(q, 0, (size_t)n * sizeof *q);
    saf__region b = {k0 + mine.begin, count, 0, x->shape.n};
    add_region(c, SAF__MATRIX_B, b, c->signs, NULL, v + mine.begin, q + mine.begin);
    for (int64_t l = mine.begin; l < mine.end; l++) q[l] = sqrt(q[l]);
    /* Nobody else adds to a place, so the sum is the value. */
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, v, n), s = saf_tensor_1d(SAF_DTYPE_F64, q, n);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_SUM, &t));
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_SUM, &s));
    saf__region a = {c->row0, c->row1 - c->row0, k0, n};
    add_region(c, SAF__MATRIX_A, a, v, q, c->sum, c->size);
out:
    return st;
}

static double rounded(const saf__matmul *x, double factor) {
    return x->shape.dtype == SAF_DTYPE_F64 ? factor : (double)(float)factor;
}

static saf_status other_way(check *c) {
    saf_status st = SAF_OK;
    saf__matmul *x = c->x;
    double alpha = rounded(x, x->job->matmul.alpha), beta = rounded(x, x->job->matmul.beta);
    double *v = NULL, *q = NULL;
    int64_t depth = saf_i64_min(SAF__CHECK_DEPTH, x->shape.k), rows = c->row1 - c->row0;
    st = saf_alloc((size_t)depth, sizeof *v, &v);
    if (st == SAF_OK) st = saf_alloc((size_t)depth, sizeof *q, &q);
    SAF_TRY(saf_comm_agree(x->world, st));
    assert(v && q);
    for (int64_t k0 = 0; alpha != 0 && k0 < x->shape.k; k0 += SAF__CHECK_DEPTH)
        SAF_TRY(add_depth(c, k0, saf_i64_min(SAF__CHECK_DEPTH, x->shape.k - k0), v, q));
    for (int64_t i = 0; i < rows; i++) {
        c->sum[i] *= alpha;
        c->size[i] *= fabs(alpha);
    }
    for (int64_t i = 0; beta != 0 && i < rows; i += C_ROWS) {
        double sum[C_ROWS] = {0}, size[C_ROWS] = {0};
        saf__region r = {c->row0 + i, saf_i64_min(C_ROWS, rows - i), 0, x->shape.n};
        add_region(c, SAF__MATRIX_C, r, c->signs, NULL, sum, size);
        for (int64_t j = 0; j < r.rows; j++) {
            c->sum[i + j] += beta * sum[j];
            c->size[i + j] += fabs(beta) * sqrt(size[j]);
        }
    }
    st = saf_comm_agree(x->world, c->failed);
out:
    saf_free(&v);
    saf_free(&q);
    return st;
}

static saf_status compare_row(check *c, int64_t row, double sum) {
    const saf__matmul *x = c->x;
    double least = c->wide ? DBL_MIN : (double)FLT_MIN, most = c->wide ? DBL_MAX : (double)FLT_MAX;
    double size = c->size[row - c->row0], other = c->sum[row - c->row0];
    double tiny = (double)(x->shape.k + 4) * (double)x->shape.n * least;
    double bound = (c->t * c->g + c->own) * size + tiny;
    double off = fabs(sum - other);
    /* Values that are not finite, or may have overflowed, say nothing. */
    if (!isfinite(bound) || !isfinite(other) || (!isfinite(sum) && size > most / 2)) {
        c->unchecked++;
        return SAF_OK;
    }
    c->sees = fmax(c->sees, 2 * bound);
    if (off <= bound) {
        if (off > 0) c->ratio = fmax(c->ratio, off / bound);
        return SAF_OK;
    }
    return saf_fail(
        SAF_DEFECT,
        "the product is wrong: row %lld, added up with signs, is %.9g, and %.9g another "
        "way, where rounding explains %.3g; --fresh starts over",
        (long long)row, sum, other, bound);
}

static saf_status compare(check *c) {
    saf_status st = SAF_OK, wrong = SAF_OK;
    saf__matmul *x = c->x;
    double *sums = NULL;
    SAF_TRY(saf_comm_agree(x->world, saf_alloc((size_t)saf_i64_min(SAF__CHECK_ROWS, x->shape.m),
                                               sizeof *sums, &sums)));
    for (int64_t row0 = 0; row0 < x->shape.m; row0 += SAF__CHECK_ROWS) {
        int64_t n = saf_i64_min(SAF__CHECK_ROWS, x->shape.m - row0);
        SAF_TRY(saf__matmul_all_sums(x, row0, n, sums));
        for (int64_t i = saf_i64_max(row0, c->row0); i < saf_i64_min(row0 + n, c->row1); i++)
            if (wrong == SAF_OK) wrong = compare_row(c, i, sums[i - row0]);
    }
    SAF_TRY(saf_comm_agree(x->world, wrong));
out:
    saf_free(&sums);
    return st;
}

/* The factors of the bound. */
static void set_bounds(check *c) {
    const saf_product_tiles *t = &c->x->plan->tiles;
    const saf_product_shape *s = &c->x->shape;
    double u = c->wide ? 0x1p-53 : 0x1p-24, n = (double)saf_i64_max(1, s->n);
    double segments = (double)saf_i64_max(1, t->segments);
    double d = (double)t->tile_k + ceil((double)t->panels / segments) + 1 + log2(segments) + 4;
    c->t = sqrt(2 * log(2 * (double)saf_i64_max(1, s->m) / 1e-12));
    c->g = d * u / (1 - d * u);
    double steps = 2.0 * BLOCK + (n + (double)s->k) / BLOCK + 16 + c->x->ranks;
    c->own = steps * 0x1p-53 * sqrt(n);
}

saf_status saf__matmul_check(saf__matmul *x) {
    saf_status st = SAF_OK;
    check c = {.x = x, .wide = x->shape.dtype == SAF_DTYPE_F64};
    saf_span rows = share_of(x, x->shape.m);
    double start = saf_clock_s();
    saf_comm_watch_phase("checking");
    c.row0 = rows.begin;
    c.row1 = rows.end;
    set_bounds(&c);
    st = saf_alloc((size_t)(c.row1 - c.row0), sizeof *c.sum, &c.sum);
    if (st == SAF_OK) st = saf_alloc((size_t)(c.row1 - c.row0), sizeof *c.size, &c.size);
    if (st == SAF_OK) st = saf_alloc((size_t)x->shape.n, sizeof *c.signs, &c.signs);
    if (st == SAF_OK) st = saf_alloc(SAF__CHECK_VALUES, c.wide ? 8 : 4, &c.piece);
    SAF_TRY(saf_comm_agree(x->world, st));
    saf__matmul_signs(0, x->shape.n, c.signs);
    SAF_TRY(other_way(&c));
    SAF_TRY(compare(&c));
    double worst[2] = {c.ratio, c.sees};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, worst, 2);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_MAX, &t));
    saf_tensor u = saf_tensor_1d(SAF_DTYPE_I64, &c.unchecked, 1);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_SUM, &u));
    x->results.product.check_ratio = worst[0];
    x->results.product.check_sees = worst[1];
    x->results.product.check_rows = x->shape.m - c.unchecked;
    x->results.product.check_s = saf_clock_s() - start;
out:
    saf_free(&c.sum);
    saf_free(&c.size);
    saf_free(&c.signs);
    saf_free(&c.piece);
    return st;
}
