/* Products of every weight type and every set of kernels against the rule of saf/kernel.h, worked
 * out naively from the file's bytes: equal bits. */
#include "unit/kernel_util.h"

typedef enum { X_USUAL, X_ALL_EQUAL, X_TIES, X_EXTREME, X_TINY, X_BROKEN, X_KINDS } x_kind;

/* x[T, K] with row stride ldx. */
static float *make_x(int64_t tokens, int64_t cols, int64_t ldx, x_kind kind) {
    float *x = util_new((size_t)(tokens * ldx) * sizeof *x);
    util_fill(x, tokens * ldx, 1.0f);
    for (int64_t t = 0; t < tokens; t++) {
        float *row = x + t * ldx;
        for (int64_t k = 0; k < cols; k++) {
            /* every q 127, or every q -127: the largest sums there are */
            if (kind == X_ALL_EQUAL) row[k] = t % 2 ? -3 : 3;
            /* halfway between two q: dx is 1 */
            if (kind == X_TIES) row[k] = k % 32 ? (float)util_below(254) - 126.5f : 127;
            /* every q at +-127; blocks of zeros; blocks around the cut-off at 2^-100 */
            if (kind == X_EXTREME) row[k] = util_below(2) ? 3e38f : -3e38f;
            if (kind == X_EXTREME && t % 3 == 1) row[k] = k % 2 ? 1e30f : 0.0f;
            if (kind == X_EXTREME && k / 32 % 5 == 4) row[k] = -0.0f;
            if (kind == X_TINY) row[k] = ldexpf(row[k], -98 - (int)(k / 32 % 4) - (t % 2 ? 40 : 0));
        }
        if (kind == X_TINY) row[util_below((int)cols)] = t % 2 ? 0x1p-100f : 0x1.fffffep-101f;
        if (kind == X_BROKEN && t % 2 == 0)
            row[util_below((int)cols)] = t % 4 ? NAN : (t % 8 ? INFINITY : -INFINITY);
    }
    return x;
}

/* q and dx of one block of up to 32 columns. */
static float naive_quantise(const float *x, int64_t n, int *q) {
    float amax = 0;
    bool finite = true;
    for (int k = 0; k < 32; k++) q[k] = 0;
    for (int k = 0; k < n; k++) {
        finite = finite && isfinite(x[k]);
        amax = fmaxf(amax, fabsf(x[k]));
    }
    if (!finite) return NAN;
    if (amax < 0x1p-100f) return 0;
    for (int k = 0; k < n; k++) {
        float r = nearbyintf(x[k] * (127 / amax));
        q[k] = (int)fmaxf(-127, fminf(127, r));
    }
    return amax / 127;
}

static float naive_dot_quant(saf_dtype dtype, const uint8_t *raw, const float *x, int64_t cols) {
    int block = saf_dtype_block(dtype), q[32];
    bool by_halves = dtype == SAF_DTYPE_Q2_K || dtype == SAF_DTYPE_Q3_K || dtype == SAF_DTYPE_Q6_K;
    bool has_min = dtype == SAF_DTYPE_Q4_1 || dtype == SAF_DTYPE_Q5_1 || dtype == SAF_DTYPE_Q2_K ||
                   dtype == SAF_DTYPE_Q4_K || dtype == SAF_DTYPE_Q5_K;
    float acc = 0;
    naive_block n;
    for (int64_t k0 = 0; k0 < cols; k0 += 32) {
        const uint8_t *at = raw + k0 / block * saf_dtype_block_bytes(dtype);
        int e0 = (int)(k0 % block), s = 0, dot = 0, sum[2] = {0, 0};
        if (e0 == 0) naive_decode(dtype, at, &n);
        float dx = naive_quantise(x + k0, 32, q);
        for (int k = 0; k < 32; k++) {
            s += n.scale[e0 + k] * n.code[e0 + k] * q[k];
            dot += n.code[e0 + k] * q[k];
            sum[k / 16] += q[k];
        }
        assert_true(abs(s) < 1 << 24);
        if (by_halves)
            acc = fmaf(n.d * dx, (float)s, acc);
        else
            acc = fmaf(n.d * (float)n.scale[e0] * dx, (float)dot, acc);
        if (has_min && !by_halves)
            acc = fmaf(-n.dmin * (float)n.min[e0], dx * (float)(sum[0] + sum[1]), acc);
        for (int h = 0; has_min && by_halves && h < 2; h++)
            acc = fmaf(-n.dmin * (float)n.min[e0 + 16 * h], dx * (float)sum[h], acc);
    }
    return acc;
}

static float naive_dot(saf_dtype dtype, const uint8_t *raw, const float *x, int64_t cols,
                       float *row) {
    if (saf_dtype_block(dtype) > 1) return naive_dot_quant(dtype, raw, x, cols);
    float acc = 0;
    naive_row(dtype, raw, cols, row);
    for (int64_t k = 0; k < cols; k++) acc = fmaf(x[k], row[k], acc);
    return acc;
}

/* One product on `threads` threads; y[T, ldy]. The same from activations in each form. */
static void product(const saf_weight *w, saf_acts *acts, const float *x, int64_t ldx,
                    int64_t tokens, float *y, int64_t ldy, int threads) {
    float *other = util_new((size_t)(tokens * w->rows) * sizeof *other);
    const saf_row_product to_y = {w, y, ldy, NULL, 0}, to_other = {w, other, w->rows, NULL, 0};
    saf_acts_form form = saf_acts_form_of(acts, &to_y, 1, tokens);
    bool both = form != SAF_ACTS_FLOATS && saf_kernels_by_token();
#pragma omp parallel num_threads(threads)
    {
        saf_acts_set(acts, x, ldx, tokens, w->cols, form);
        saf_matmul(&to_y, 1, acts);
        if (both) {
            saf_acts_set(acts, x, ldx, tokens, w->cols,
                         form == SAF_ACTS_BY_GROUP ? SAF_ACTS_BY_TOKEN : SAF_ACTS_BY_GROUP);
            saf_matmul(&to_other, 1, acts);
        }
    }
    for (int64_t t = 0; both && t < tokens; t++)
        for (int64_t r = 0; r < w->rows; r++)
            assert_true(util_same(y[t * ldy + r], other[t * w->rows + r]));
    saf_free(&other);
}

static void check(saf_dtype dtype, int64_t rows, int64_t cols, int64_t tokens,
                  util_fill_kind weights, x_kind values) {
    int64_t ldx = cols + 5, ldy = rows + 3;
    size_t row_bytes = 0;
    assert_true(saf_dtype_bytes(dtype, cols, &row_bytes));
    uint8_t *raw = util_weights(dtype, rows, cols, weights);
    saf_weight w = util_pack(dtype, rows, cols, raw);
    float *x = make_x(tokens, cols, ldx, values), *row = util_new((size_t)cols * 4);
    float *want = util_new((size_t)(tokens * ldy) * 4), *got = util_new((size_t)(tokens * ldy) * 4);
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(tokens, cols, &acts), SAF_OK);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t r = 0; r < rows; r++)
            want[t * ldy + r] =
                naive_dot(dtype, raw + (size_t)r * row_bytes, x + t * ldx, cols, row);
        for (int64_t r = rows; r < ldy; r++) want[t * ldy + r] = 12345;
    }
    for (int set = 0; set < KERNEL_NAMES; set++) {
        if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
        /* by a few tokens weights are read in either of two ways, by the maker of the processor */
        for (int in_order = 0; in_order <= (tokens <= SAF__ACT_TOKENS); in_order++) {
            if (tokens <= SAF__ACT_TOKENS) saf__kernels_read_in_order(in_order);
            for (int64_t i = 0; i < tokens * ldy; i++) got[i] = 12345;
            product(&w, acts, x, ldx, tokens, got, ldy, 1 + set % (tokens == 1 ? 2 : 3));
            for (int64_t i = 0; i < tokens * ldy; i++) {
                if (util_same(want[i], got[i])) continue;
                print_error(
                    "%s %s [%d,%d] x %d, weights %d x %d, in order %d: token %d row %d: "
                    "expected %a, got %a\n",
                    saf_kernels_name(), saf_dtype_name(dtype), (int)rows, (int)cols, (int)tokens,
                    (int)weights, (int)values, in_order, (int)(i / ldy), (int)(i % ldy),
                    (double)want[i], (double)got[i]);
                fail();
            }
        }
    }
    saf_acts_free(&acts);
    saf_free(&want);
    saf_free(&got);
    saf_free(&row);
    saf_free(&x);
    saf_free(&w.data);
    saf_free(&raw);
}

static void test_matmul_follows_the_rule_on_ragged_shapes(void **state) {
    (void)state;
    static const int64_t rows[] = {1, 5, 31, 32, 33, 64, 77};
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        int block = saf_dtype_block(weight_types[i]);
        /* up to four tiles of five, and one of sixteen by token, with every remainder */
        for (int64_t tokens = 1; tokens <= 64; tokens += tokens < 22 ? 1 : 7) {
            int64_t cols = block == 1 ? 1 + util_below(90) : block * (1 + util_below(4));
            check(weight_types[i], rows[tokens % 7], cols, tokens, FILL_USUAL, X_USUAL);
        }
    }
}

static void test_matmul_follows_the_rule_on_long_rows(void **state) {
    (void)state;
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        int64_t cols = saf_dtype_block(weight_types[i]) == 32 ? 32 * 75 : 256 * 9;
        if (saf_dtype_block(weight_types[i]) == 1) cols = 1111;
        static const int64_t tokens[] = {1, 2, 3, 4, 5, 6, 9, 20, 21, 53};
        for (size_t n = 0; n < sizeof tokens / sizeof *tokens; n++)
            check(weight_types[i], 40, cols, tokens[n], FILL_USUAL, X_USUAL);
        check(weight_types[i], 301, 512, 1, FILL_USUAL, X_USUAL);  /* several tiles side by side */
        check(weight_types[i], 19, 256, 530, FILL_USUAL, X_USUAL); /* more than stays in a cache */
    }
}

/* Float weights go by panels of 256 columns within parts of up to 84 tokens and of so many columns
 * that a cache holds the part. */
static void test_matmul_follows_the_rule_across_panels_and_parts(void **state) {
    (void)state;
    static const struct {
        int64_t rows, cols, tokens;
    } shapes[] = {{33, 255, 12}, {33, 256, 13}, {47, 257, 25},  {65, 513, 83},  {65, 256, 84},
                  {48, 300, 85}, {16, 40, 169}, {40, 1281, 61}, {49, 1300, 90}, {33, 1025, 84}};
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        if (saf_dtype_is_quantised(weight_types[i])) continue;
        for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++)
            check(weight_types[i], shapes[n].rows, shapes[n].cols, shapes[n].tokens, FILL_USUAL,
                  X_USUAL);
    }
}

static void test_matmul_follows_the_rule_on_adversarial_values(void **state) {
    (void)state;
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        int64_t cols = 2 * 256;
        for (int kind = 0; kind < FILL_KINDS; kind++)
            for (int values = 0; values < X_KINDS; values++) {
                /* extremes of both meet where it matters: in the sums and in denormals */
                if (kind != FILL_USUAL && kind != FILL_SMALLEST && values >= X_TINY) continue;
                check(weight_types[i], 129, cols, 1, (util_fill_kind)kind, (x_kind)values);
                check(weight_types[i], 33, cols, 5, (util_fill_kind)kind, (x_kind)values);
                check(weight_types[i], 33, cols, 7, (util_fill_kind)kind, (x_kind)values);
                check(weight_types[i], 17, 256, 49, (util_fill_kind)kind, (x_kind)values);
            }
    }
}

/* Quantised activations cost accuracy; the rule must still be a product. */
static void test_matmul_is_close_to_the_float_product(void **state) {
    (void)state;
    enum { ROWS = 40, COLS = 1024 };
    float row[COLS], x[COLS], y[ROWS];
    assert_int_equal(saf_kernels_init(NULL), SAF_OK);
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        uint8_t *raw = util_weights(weight_types[i], ROWS, COLS, FILL_USUAL);
        saf_weight w = util_pack(weight_types[i], ROWS, COLS, raw);
        saf_acts *acts = NULL;
        assert_int_equal(saf_acts_new(1, COLS, &acts), SAF_OK);
        util_fill(x, COLS, 1);
        product(&w, acts, x, COLS, 1, y, ROWS, 1);
        for (int r = 0; r < ROWS; r++) {
            double exact = 0, squares = 0;
            saf_weight_row(&w, r, row);
            for (int k = 0; k < COLS; k++) {
                exact += (double)row[k] * (double)x[k];
                squares += (double)row[k] * (double)row[k];
            }
            /* an error of dx / sqrt(12) a column, dx about 2.5 / 127: six times its deviation */
            double bound = saf_dtype_is_quantised(w.dtype) ? 6 * 0.006 * sqrt(squares)
                                                           : 1e-5 * sqrt(squares * COLS);
            assert_true(fabs((double)y[r] - exact) <= bound);
        }
        saf_acts_free(&acts);
        saf_free(&w.data);
        saf_free(&raw);
    }
}

static void test_matmul_does_not_depend_on_threads_or_company(void **state) {
    (void)state;
    enum { ROWS = 200, COLS = 768, TOKENS = 17 };
    static float x[TOKENS * COLS], together[TOKENS * ROWS], alone[ROWS], threads[TOKENS * ROWS];
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(TOKENS, COLS, &acts), SAF_OK);
    util_fill(x, TOKENS * COLS, 1);
    for (int set = 0; set < KERNEL_NAMES; set++) {
        if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
        for (int i = 0; i < WEIGHT_TYPES; i++) {
            uint8_t *raw = util_weights(weight_types[i], ROWS, COLS, FILL_USUAL);
            saf_weight w = util_pack(weight_types[i], ROWS, COLS, raw);
            const saf_row_product all = {&w, together, ROWS, NULL, 0};
            /* outside of a parallel region */
            saf_acts_set(acts, x, COLS, TOKENS, COLS, saf_acts_form_of(acts, &all, 1, TOKENS));
            saf_matmul(&all, 1, acts);
            for (int n = 2; n <= 3; n++) {
                product(&w, acts, x, COLS, TOKENS, threads, ROWS, n);
                assert_memory_equal(together, threads, sizeof together);
            }
            for (int t = 0; t < TOKENS; t++) {
                product(&w, acts, x + t * COLS, COLS, 1, alone, ROWS, 1);
                assert_memory_equal(together + t * ROWS, alone, sizeof alone);
            }
            saf_free(&w.data);
            saf_free(&raw);
        }
    }
    saf_acts_free(&acts);
}

/* Matrices of other types and heights that read the same activations, and sums: as one by one. */
static void test_matmul_takes_several_products_at_once(void **state) {
    (void)state;
    enum { N = 4, COLS = 512, MOST_ROWS = 300, LD = MOST_ROWS + 3, TOKENS = 259, MOST_THREADS = 7 };
    static const int64_t rows[N] = {300, 33, 1, 96};
    static const int64_t tokens[] = {1, 20, 49,
                                     TOKENS}; /* of the last ones each half of a team has some */
    static float x[TOKENS * COLS], want[N][TOKENS * LD], y[N][TOKENS * LD];
    static float kept[TOKENS * LD], sum[TOKENS * LD];
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(TOKENS, COLS, &acts), SAF_OK);
    util_fill(x, TOKENS * COLS, 1);
    util_fill(kept, TOKENS * LD, 1);
    for (int i = 0; i < WEIGHT_TYPES * 4; i++) {
        int64_t T = tokens[i % 4];
        uint8_t *raw[N];
        saf_weight w[N];
        saf_row_product products[N];
        if (saf_kernels_init(kernel_names[i % KERNEL_NAMES]) != SAF_OK)
            assert_int_equal(saf_kernels_init(NULL), SAF_OK);
        memset(want, 0, sizeof want);
        for (int m = 0; m < N; m++) {
            saf_dtype dtype = weight_types[(i / 4 + m * 2) % WEIGHT_TYPES];
            raw[m] = util_weights(dtype, rows[m], COLS, FILL_USUAL);
            w[m] = util_pack(dtype, rows[m], COLS, raw[m]);
            products[m] = (saf_row_product){&w[m], y[m], LD, m == 1 ? sum : NULL, LD};
            product(&w[m], acts, x, COLS, T, want[m], LD, 1);
        }
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            memset(y, 0, sizeof y);
            memcpy(sum, kept, sizeof sum);
#pragma omp parallel num_threads(threads)
            {
                saf_acts_set(acts, x, COLS, T, COLS, saf_acts_form_of(acts, products, N, T));
                saf_matmul(products, N, acts);
            }
            assert_memory_equal(want, y, sizeof want);
            bool right = true;
            for (int64_t at = 0; at < TOKENS * LD; at++)
                right = right && sum[at] == kept[at] + want[1][at];
            assert_true(right);
        }
        for (int m = 0; m < N; m++) {
            saf_free(&w[m].data);
            saf_free(&raw[m]);
        }
    }
    saf_acts_free(&acts);
}

static void test_matmul_acts_refuse_absurd_sizes(void **state) {
    (void)state;
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(INT64_MAX, INT64_MAX, &acts), SAF_NO_MEMORY);
    assert_int_equal(saf_acts_new(-1, 4, &acts), SAF_NO_MEMORY);
    assert_null(acts);
    assert_true(saf_acts_bytes(INT64_MAX, INT64_MAX) == SIZE_MAX);
    saf_acts_free(&acts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_follows_the_rule_on_ragged_shapes),
        cmocka_unit_test(test_matmul_follows_the_rule_on_long_rows),
        cmocka_unit_test(test_matmul_follows_the_rule_across_panels_and_parts),
        cmocka_unit_test(test_matmul_follows_the_rule_on_adversarial_values),
        cmocka_unit_test(test_matmul_is_close_to_the_float_product),
        cmocka_unit_test(test_matmul_does_not_depend_on_threads_or_company),
        cmocka_unit_test(test_matmul_takes_several_products_at_once),
        cmocka_unit_test(test_matmul_acts_refuse_absurd_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
