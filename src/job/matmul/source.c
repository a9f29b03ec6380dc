/* Where the values of the matrices come from, and where the product's go. */
#include <math.h>
#include <stdlib.h>

#include "job/matmul/matmul.h"

/* ---- matrices that are made ---- */

/* Element (r, c) of a matrix is a function of seed, matrix and place alone: word c % 4 (f32; f64:
 * the pair c % 2) of a counter that counts the fours (twos) of all rows. Even from -1 to 1, with
 * 24 and 53 bits. */
static double made_value(const uint32_t w[4], int64_t word, bool wide) {
    if (!wide) return (double)(w[word] >> 8) * 0x1p-23 - 1;
    uint64_t bits = (uint64_t)w[2 * word] << 32 | w[2 * word + 1];
    return (double)(bits >> 11) * 0x1p-52 - 1;
}

static void put_value(char *out, int64_t at, bool wide, double value) {
    float narrow = (float)value;
    if (wide)
        memcpy(out + at * 8, &value, sizeof value);
    else
        memcpy(out + at * 4, &narrow, sizeof narrow);
}

/* Region of the matrix as it is stored, or of its transpose. */
static void make_region(const saf__matmul *x, int32_t what, const saf__region *r, char *out) {
    const saf__operand *o = &x->operands[what];
    bool wide = x->shape.dtype == SAF_DTYPE_F64, t = o->transposed;
    int64_t each = wide ? 2 : 4, cols = t ? o->rows : o->cols;
    uint64_t key = x->job->matmul.seed, fours = (uint64_t)saf_ceil_div(cols, each);
    int64_t row0 = t ? r->col0 : r->row0, rows = t ? r->cols : r->rows;
    int64_t col0 = t ? r->row0 : r->col0, n = t ? r->rows : r->cols;
    for (int64_t i = 0; i < rows; i++) {
        uint32_t w[4] = {0};
        uint64_t at = (uint64_t)(row0 + i) * fours;
        for (int64_t j = 0; j < n; j++) {
            int64_t c = col0 + j;
            if (j == 0 || c % each == 0)
                saf_philox(key, (uint64_t)what + 1, at + (uint64_t)(c / each), w);
            put_value(out, t ? j * r->cols + i : i * r->cols + j, wide,
                      made_value(w, c % each, wide));
        }
    }
}

/* ---- reading ---- */

saf_status saf__matmul_region(void *ctx, int32_t what, const saf__region *r, void *out) {
    saf__matmul *x = ctx;
    if (what == SAF__MATRIX_KEPT) {
        if (!x->steps.restored) return saf_fail(SAF_DEFECT, "there is no checkpoint to read from");
        return saf_checkpoint_get_some(x->steps.restored, "data", x->shape.dtype, r->col0, r->cols,
                                       out);
    }
    if (what < 0 || what >= SAF__OPERANDS || !x->operands[what].here)
        return saf_fail(SAF_DEFECT, "this rank is asked for matrix %d", what);
    saf__operand *o = &x->operands[what];
    if (o->file)
        return saf_matrix_read(o->file, o->transposed, r->row0, r->rows, r->col0, r->cols, out,
                               r->cols);
    make_region(x, what, r, out);
    return SAF_OK;
}

saf_status saf__matmul_get(saf__matmul *x, int32_t what, int64_t row0, int64_t rows, int64_t col0,
                           int64_t cols, void *out, int64_t ld) {
    saf__region r = {row0, rows, col0, cols};
    double start = saf_clock_s();
    bool here = what < SAF__OPERANDS && x->operands[what].here;
    saf_status st = saf__regions_get(x->regions, what, here, &r, out, ld);
    x->read_s += saf_clock_s() - start;
    return st;
}

static saf_status read_a(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    return saf__matmul_get(ctx, SAF__MATRIX_A, row0, rows, col0, cols, out, ld);
}

static saf_status read_b(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    return saf__matmul_get(ctx, SAF__MATRIX_B, row0, rows, col0, cols, out, ld);
}

static saf_status read_c(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    return saf__matmul_get(ctx, SAF__MATRIX_C, row0, rows, col0, cols, out, ld);
}

/* ---- the product ---- */

saf_status saf__matmul_store(void *ctx, int32_t what, const saf__region *r, const void *in) {
    saf__matmul *x = ctx;
    if (what != SAF__MATRIX_PRODUCT) return saf_fail(SAF_DEFECT, "matrix %d is written", what);
    if (x->own) return saf_matrix_put(x->own, r->row0, r->rows, r->col0, r->cols, in, r->cols);
    return saf_results_product_put(x->writer, r->row0, r->rows, r->col0, r->cols, in, r->cols);
}

void saf__matmul_signs(int64_t col0, int64_t n, double *out) {
    static const uint64_t key = 0x6672656976616c64; /* of every job */
    uint32_t w[4] = {0};
    for (int64_t j = 0; j < n; j++) {
        int64_t c = col0 + j;
        if (j == 0 || c % 128 == 0) saf_philox(key, 0, (uint64_t)(c / 128), w);
        out[j] = w[c % 128 / 32] >> (c % 32) & 1 ? 1.0 : -1.0;
    }
}

saf_status saf__matmul_sums(saf__matmul *x, int64_t i, double **out) {
    saf_status st = SAF_OK;
    if (!x->sums) SAF_TRY(saf_alloc((size_t)x->plan->tiles.tiles_m, sizeof *x->sums, &x->sums));
    if (!x->sums[i])
        SAF_TRY(saf_alloc((size_t)saf__tile_rows(x, i), sizeof **x->sums, &x->sums[i]));
    *out = x->sums[i];
out:
    return st;
}

saf_status saf__matmul_all_sums(saf__matmul *x, int64_t row0, int64_t n, double *out) {
    int64_t high = x->plan->tiles.tile_m, first = row0 / high;
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t i = first; x->sums && i * high < row0 + n; i++) {
        int64_t begin = saf_i64_max(i * high, row0),
                end = saf_i64_min(i * high + saf__tile_rows(x, i), row0 + n);
        for (int64_t row = begin; x->sums[i] && row < end; row++)
            out[row - row0] = x->sums[i][row - i * high];
    }
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, out, n);
    return saf_comm_allreduce(x->world, SAF_OP_SUM, &t);
}

/* The tile's row sums for the check, in partial sums of 128 columns. */
static saf_status add_sums(saf__matmul *x, int64_t i0, int64_t rows, int64_t col0, int64_t cols,
                           const char *in, int64_t row_bytes) {
    saf_status st = SAF_OK;
    double *signs = NULL, *sums = NULL;
    bool wide = x->shape.dtype == SAF_DTYPE_F64;
    SAF_TRY(saf__matmul_sums(x, i0, &sums));
    SAF_TRY(saf_alloc((size_t)cols, sizeof *signs, &signs));
    saf__matmul_signs(col0, cols, signs);
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < cols;) {
            double part = 0;
            for (int64_t end = saf_i64_min(cols, j + 128); j < end; j++)
                part += signs[j] * saf__value_of(in + i * row_bytes, j, wide);
            sum += part;
        }
        sums[i] += sum;
    }
out:
    saf_free(&signs);
    return st;
}

static saf_status hash_tile(const char *in, int64_t rows, size_t bytes, int64_t row_bytes,
                            uint8_t out[32]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    SAF_TRY(saf_sha256_new(&sha));
    for (int64_t i = 0; i < rows; i++) SAF_TRY(saf_sha256_add(sha, in + i * row_bytes, bytes));
    st = saf_sha256_final(sha, out);
out:
    saf_sha256_free(&sha);
    return st;
}

/* Tests want to see that a wrong product is noticed: of the first tile, one bit. */
static saf_status spoil(const saf__matmul *x, const saf__region *r, const void **in, int64_t ld,
                        char **copy) {
    saf_status st = SAF_OK;
    int64_t size = saf_dtype_block_bytes(x->shape.dtype);
    if (r->row0 != 0 || r->col0 != 0 || !getenv("SAF_TEST_WRONG_PRODUCT")) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)(r->rows * ld), (size_t)size, copy));
    for (int64_t i = 0; i < r->rows; i++)
        memcpy(*copy + i * ld * size, (const char *)*in + i * ld * size, (size_t)(r->cols * size));
    (*copy)[size - 1] ^= 0x20; /* of the exponent */
    *in = *copy;
out:
    return st;
}

static saf_status write_c(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                          const void *in, int64_t ld) {
    saf_status st = SAF_OK;
    saf__matmul *x = ctx;
    const saf_product_tiles *t = &x->plan->tiles;
    saf__region r = {row0, rows, col0, cols};
    saf__done_tile tile = {row0 / t->tile_m, col0 / t->tile_n, {0}};
    int64_t size = saf_dtype_block_bytes(x->shape.dtype);
    double start = saf_clock_s();
    char *copy = NULL;
    if (row0 % t->tile_m || col0 % t->tile_n || rows != saf_i64_min(t->tile_m, x->shape.m - row0) ||
        cols != saf_i64_min(t->tile_n, x->shape.n - col0))
        return saf_fail(SAF_DEFECT, "part of a tile is written");
    SAF_TRY(spoil(x, &r, &in, ld, &copy));
    SAF_TRY(hash_tile(in, rows, (size_t)(cols * size), ld * size, tile.sha256));
    SAF_TRY(add_sums(x, tile.i, rows, col0, cols, in, ld * size));
    SAF_TRY(saf_buf_append(&x->tiles, &tile, sizeof tile));
    if (x->job->output.store)
        SAF_TRY(saf__regions_put(x->regions, SAF__MATRIX_PRODUCT, &r, in, ld));
out:
    saf_free(&copy);
    x->write_s += saf_clock_s() - start;
    return st;
}

saf_product_io saf__matmul_io(saf__matmul *x) {
    return (saf_product_io){.ctx = x,
                            .read_a = read_a,
                            .read_b = read_b,
                            .read_c = x->operands[SAF__MATRIX_C].wanted ? read_c : NULL,
                            .write_c = write_c};
}
