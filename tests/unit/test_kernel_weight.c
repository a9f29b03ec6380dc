/* Planning, packing and reading back weights of every type. */
#include "unit/kernel_util.h"

static void test_weight_plan_refuses_what_has_no_kernels(void **state) {
    (void)state;
    saf_weight w = {0};
    assert_int_equal(saf_weight_plan(SAF_DTYPE_I32, 4, 4, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_F64, 4, 4, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_COUNT, 4, 4, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_Q8_0, 4, 33, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_Q4_K, 4, 32, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_F32, -1, 4, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_F32, 4, -4, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_F32, INT64_MAX, 1, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_F32, 1, INT64_MAX, &w), SAF_BAD_INPUT);
    assert_int_equal(saf_weight_plan(SAF_DTYPE_F16, (int64_t)1 << 40, (int64_t)1 << 40, &w),
                     SAF_BAD_INPUT);
    assert_null(w.data);
    assert_int_equal(w.bytes, 0);
}

static void test_weight_bytes_stay_close_to_the_file(void **state) {
    (void)state;
    static const struct {
        saf_dtype dtype;
        size_t bytes; /* of 256 weights of one row */
    } expected[] = {
        {SAF_DTYPE_F32, 1024}, {SAF_DTYPE_F16, 512},  {SAF_DTYPE_BF16, 512}, {SAF_DTYPE_Q8_0, 272},
        {SAF_DTYPE_Q4_0, 144}, {SAF_DTYPE_Q4_1, 160}, {SAF_DTYPE_Q5_0, 176}, {SAF_DTYPE_Q5_1, 192},
        {SAF_DTYPE_Q2_K, 84},  {SAF_DTYPE_Q3_K, 114}, {SAF_DTYPE_Q4_K, 148}, {SAF_DTYPE_Q5_K, 180},
        {SAF_DTYPE_Q6_K, 210},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        saf_weight w = {0};
        assert_int_equal(saf_weight_plan(expected[i].dtype, 33, 512, &w), SAF_OK);
        assert_int_equal(w.bytes, 64 * 2 * expected[i].bytes);
        assert_int_equal(w.rows, 33);
        assert_int_equal(w.cols, 512);
    }
}

static void check_rows(saf_dtype dtype, int64_t rows, int64_t cols, util_fill_kind kind) {
    uint8_t *raw = util_weights(dtype, rows, cols, kind);
    saf_weight w = util_pack(dtype, rows, cols, raw);
    size_t row_bytes = 0;
    assert_true(saf_dtype_bytes(dtype, cols, &row_bytes));
    float *want = util_new((size_t)cols * sizeof *want),
          *got = util_new((size_t)cols * sizeof *got);
    for (int64_t r = 0; r < rows; r++) {
        naive_row(dtype, raw + (size_t)r * row_bytes, cols, want);
        saf_weight_row(&w, r, got);
        for (int64_t k = 0; k < cols; k++) {
            /* +0 and -0 are the same value */
            if (want[k] == got[k] || (isnan(want[k]) && isnan(got[k]))) continue;
            print_error("%s kind %d row %d column %d: expected %a, got %a\n", saf_dtype_name(dtype),
                        (int)kind, (int)r, (int)k, (double)want[k], (double)got[k]);
            fail();
        }
    }
    saf_free(&want);
    saf_free(&got);
    saf_free(&w.data);
    saf_free(&raw);
}

static void test_weight_row_is_the_dequantised_row(void **state) {
    (void)state;
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        int block = saf_dtype_block(weight_types[i]);
        for (int kind = 0; kind < FILL_KINDS; kind++) {
            check_rows(weight_types[i], 1, 3 * block, (util_fill_kind)kind);
            check_rows(weight_types[i], 71, block == 1 ? 67 : 2 * block, (util_fill_kind)kind);
        }
    }
}

static void test_weight_packs_the_same_in_pieces(void **state) {
    (void)state;
    for (int i = 0; i < WEIGHT_TYPES; i++) {
        int64_t rows = 100, cols = 512;
        size_t row_bytes = 0;
        assert_true(saf_dtype_bytes(weight_types[i], cols, &row_bytes));
        uint8_t *raw = util_weights(weight_types[i], rows, cols, FILL_USUAL);
        saf_weight whole = util_pack(weight_types[i], rows, cols, raw), pieces = whole;
        pieces.data = util_new(pieces.bytes);
        saf_weight_pack(&pieces, 64, 36, raw + 64 * row_bytes);
        saf_weight_pack(&pieces, 0, 32, raw);
        saf_weight_pack(&pieces, 32, 32, raw + 32 * row_bytes);
        assert_memory_equal(whole.data, pieces.data, whole.bytes);
        saf_free(&whole.data);
        saf_free(&pieces.data);
        saf_free(&raw);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight_plan_refuses_what_has_no_kernels),
        cmocka_unit_test(test_weight_bytes_stay_close_to_the_file),
        cmocka_unit_test(test_weight_row_is_the_dequantised_row),
        cmocka_unit_test(test_weight_packs_the_same_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
