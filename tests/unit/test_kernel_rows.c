/* Row-wise operations, rotary positions and what runs over the vocabulary: against double
 * precision, and equal bits for every set of kernels and number of threads. */
#include "unit/kernel_util.h"

enum { TOKENS = 5, MAX_WIDTH = 300 };
static const int64_t widths[] = {1, 8, 15, 16, 17, 64, 100, 255, 300};
enum { WIDTHS = sizeof widths / sizeof widths[0] };

static float in[TOKENS * MAX_WIDTH], other[TOKENS * MAX_WIDTH], out[TOKENS * MAX_WIDTH];
static float first[TOKENS * MAX_WIDTH];

static void fill_inputs(void) {
    util_fill(in, TOKENS * MAX_WIDTH, 2);
    util_fill(other, TOKENS * MAX_WIDTH, 1);
    memset(out, 0, sizeof out);
}
static bool close_to(float got, double want, double relative) {
    return fabs((double)got - want) <= relative * fabs(want) + 1e-30;
}
/* Every set of kernels must reproduce the first one's `out`. */
static void same_as_first_set(int set) {
    if (set == 0) memcpy(first, out, sizeof out);
    assert_memory_equal(first, out, sizeof out);
}
#define EACH_SET(set)                            \
    for (int set = 0; set < KERNEL_NAMES; set++) \
        if (saf_kernels_init(kernel_names[set]) == SAF_OK)

static void test_rows_rms_norm_folds_sixteen_lanes(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int64_t n = widths[i];
        fill_inputs();
        EACH_SET(set) {
#pragma omp parallel num_threads(set + 1)
            saf_rms_norm(in, MAX_WIDTH, other, 1e-6f, TOKENS, n, out, MAX_WIDTH);
            same_as_first_set(set);
        }
        for (int t = 0; t < TOKENS; t++) {
            float lane[16] = {0};
            const float *x = in + t * MAX_WIDTH;
            for (int64_t k = 0; k < n; k++) lane[k % 16] = fmaf(x[k], x[k], lane[k % 16]);
            for (int half = 8; half; half /= 2)
                for (int j = 0; j < half; j++) lane[j] += lane[j + half];
            float scale = 1 / sqrtf(lane[0] / (float)n + 1e-6f);
            for (int64_t k = 0; k < n; k++)
                assert_true(out[t * MAX_WIDTH + k] == x[k] * scale * other[k]);
        }
    }
}

static void test_rows_rms_norm_may_be_in_place(void **state) {
    (void)state;
    fill_inputs();
    saf_rms_norm(in, MAX_WIDTH, other, 1e-5f, TOKENS, 100, out, MAX_WIDTH);
    saf_rms_norm(in, MAX_WIDTH, other, 1e-5f, TOKENS, 100, in, MAX_WIDTH);
    for (int t = 0; t < TOKENS; t++)
        assert_memory_equal(in + t * MAX_WIDTH, out + t * MAX_WIDTH, 100 * sizeof *in);
}

static void test_rows_add_adds_rows_and_biases(void **state) {
    (void)state;
    EACH_SET(set) {
        for (int i = 0; i < WIDTHS; i++) {
            util_seed = 99;
            fill_inputs();
            memcpy(out, other, sizeof out);
            saf_add_rows(in, MAX_WIDTH, TOKENS, widths[i], out, MAX_WIDTH);
            saf_add_bias(in, TOKENS, widths[i], out, MAX_WIDTH);
            for (int t = 0; t < TOKENS; t++)
                for (int64_t k = 0; k < MAX_WIDTH; k++) {
                    float want = other[t * MAX_WIDTH + k];
                    if (k < widths[i]) want = want + in[t * MAX_WIDTH + k] + in[k];
                    assert_true(out[t * MAX_WIDTH + k] == want);
                }
        }
    }
}

static void test_rows_silu_mul_is_close_and_may_be_in_place(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int64_t n = widths[i];
        fill_inputs();
        in[0] = -200, in[MAX_WIDTH] = 200;
        EACH_SET(set) {
#pragma omp parallel num_threads(set + 1)
            saf_silu_mul(in, other, MAX_WIDTH, TOKENS, n, out, MAX_WIDTH);
            same_as_first_set(set);
        }
        for (int t = 0; t < TOKENS; t++)
            for (int64_t k = 0; k < n; k++) {
                double g = (double)in[t * MAX_WIDTH + k];
                double want = g / (1 + exp(-g)) * (double)other[t * MAX_WIDTH + k];
                assert_true(close_to(out[t * MAX_WIDTH + k], want, 1e-6));
            }
        saf_silu_mul(in, other, MAX_WIDTH, TOKENS, n, other, MAX_WIDTH);
        for (int t = 0; t < TOKENS; t++)
            assert_memory_equal(other + t * MAX_WIDTH, out + t * MAX_WIDTH, (size_t)n * 4);
    }
}

static void test_rows_silu_mul_shares_wide_rows(void **state) {
    (void)state;
    enum { WIDE = 5000 };
    static float gate[WIDE], up[WIDE], one[WIDE], many[WIDE];
    util_fill(gate, WIDE, 3);
    util_fill(up, WIDE, 3);
    saf_silu_mul(gate, up, WIDE, 1, WIDE, one, WIDE);
#pragma omp parallel num_threads(3)
    saf_silu_mul(gate, up, WIDE, 1, WIDE, many, WIDE);
    assert_memory_equal(one, many, sizeof one);
}

static void test_rows_finite_finds_any_value_that_is_not(void **state) {
    (void)state;
    bool finite[TOKENS];
    EACH_SET(set) {
        fill_inputs();
        in[1 * MAX_WIDTH + 0] = NAN;
        in[2 * MAX_WIDTH + 98] = INFINITY;
        in[3 * MAX_WIDTH + 17] = -INFINITY;
        in[4 * MAX_WIDTH + 99] = NAN; /* beyond the width */
        in[0] = 0x1.fffffep127f, in[1] = 0x1p-149f;
        saf_rows_finite(in, MAX_WIDTH, TOKENS, 99, finite);
        assert_true(finite[0] && !finite[1] && !finite[2] && !finite[3] && finite[4]);
    }
}

static void test_rows_rope_rotates_pairs(void **state) {
    (void)state;
    enum { HEADS = 2, WIDTH = 100, HALF = 24, LD = HEADS * WIDTH + 7 };
    static float x[TOKENS * LD], table[TOKENS * HALF * 2], one[TOKENS * LD], kept[TOKENS * LD];
    double inv_freq[HALF];
    int32_t positions[TOKENS] = {0, 1, 77, 4095, 1000000};
    for (int i = 0; i < HALF; i++) inv_freq[i] = pow(10000, -i / (double)HALF);
    saf_rope_table(inv_freq, HALF, 1.25, positions, TOKENS, table);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < HALF; i++) {
            double angle = positions[t] * inv_freq[i];
            assert_true(fabs((double)table[2 * (t * HALF + i)] - 1.25 * cos(angle)) < 1e-7);
            assert_true(fabs((double)table[2 * (t * HALF + i) + 1] - 1.25 * sin(angle)) < 1e-7);
        }
    util_fill(kept, TOKENS * LD, 1);
    for (int pairs = SAF_ROPE_ADJACENT; pairs <= SAF_ROPE_HALVES; pairs++) {
        EACH_SET(set) {
            memcpy(x, kept, sizeof x);
#pragma omp parallel num_threads(set + 1)
            saf_rope_apply((saf_rope_pairs)pairs, table, HALF, TOKENS, HEADS, WIDTH, x, LD);
            if (set == 0) memcpy(one, x, sizeof x);
            assert_memory_equal(one, x, sizeof x);
        }
        for (int t = 0; t < TOKENS; t++)
            for (int k = 0; k < LD; k++) {
                int c = k % WIDTH, i = pairs == SAF_ROPE_ADJACENT ? c / 2 : c % HALF;
                const float *cs = table + 2 * (t * HALF + i), *row = kept + t * LD;
                float want = row[k];
                if (k < HEADS * WIDTH && c < 2 * HALF) {
                    bool second = pairs == SAF_ROPE_ADJACENT ? c % 2 : c >= HALF;
                    int step = pairs == SAF_ROPE_ADJACENT ? 1 : HALF;
                    float a = row[second ? k - step : k], b = row[second ? k : k + step];
                    want = second ? fmaf(a, cs[1], b * cs[0]) : fmaf(a, cs[0], -(b * cs[1]));
                }
                assert_true(x[t * LD + k] == want);
            }
    }
}

static void test_rows_log_sum_exp_is_close(void **state) {
    (void)state;
    enum { VOCAB = 20000 };
    static float logits[VOCAB];
    static const int64_t sizes[] = {1, 15, 4096, 4097, VOCAB};
    util_fill(logits, VOCAB, 5);
    logits[12345] = 300;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        long double sum = 0;
        double kept = 0;
        for (int64_t v = 0; v < sizes[i]; v++) sum += expl((long double)logits[v] - 300);
        EACH_SET(set) {
            double got = saf_log_sum_exp(logits, sizes[i]);
            if (set == 0) kept = got;
            assert_true(got == kept);
            assert_true(fabs(got - (double)(300 + logl(sum))) < 1e-5);
        }
    }
}

static void test_rows_argmax_takes_the_first_of_equals(void **state) {
    (void)state;
    static float x[5000];
    EACH_SET(set) {
        util_fill(x, 5000, 1);
        x[4999] = x[1500] = x[1037] = 9;
        assert_int_equal(saf_argmax(x, 5000), 1037);
        x[4998] = 10;
        assert_int_equal(saf_argmax(x, 5000), 4998);
        x[3] = NAN;
        assert_int_equal(saf_argmax(x, 5000), 4998);
        x[0] = -INFINITY;
        assert_int_equal(saf_argmax(x, 1), 0);
        x[0] = -0.0f, x[1] = 0.0f, x[2] = -1;
        assert_int_equal(saf_argmax(x, 3), 0);
    }
}

static void test_rows_exp_shifted_is_exp_of_the_difference(void **state) {
    (void)state;
    float x[37], y[37];
    EACH_SET(set) {
        util_fill(x, 37, 30);
        x[5] = -INFINITY, x[6] = 200, x[36] = NAN;
        saf_exp_shifted(x, 1.5f, 37, y);
        for (int i = 0; i < 36; i++) assert_true(y[i] == saf_math_expf(x[i] - 1.5f));
        assert_true(isnan(y[36]));
    }
}

/* All row operations at once on values of every kind; the vocabulary's as well. */
static int hard_rows(int64_t n, float *y) {
    enum { STEPS = 7 };
    float *at[STEPS];
    for (int i = 0; i < STEPS; i++) at[i] = y + i * MAX_WIDTH;
    saf_rms_norm(in, n, other, 1e-6f, 1, n, at[0], n);
    memcpy(at[1], other, (size_t)n * sizeof *other);
    saf_add_rows(in, n, 1, n, at[1], n);
    saf_silu_mul(in, other, n, 1, n, at[2], n);
    saf_exp_shifted(in, 0.5f, n, at[3]);
    memcpy(at[4], in, (size_t)n * sizeof *in);
    saf_rope_apply(SAF_ROPE_HALVES, other, n / 2, 1, 1, n, at[4], n);
    at[5][0] = (float)saf_log_sum_exp(in, n);
    at[5][1] = (float)saf_argmax(in, n);
    bool finite;
    saf_rows_finite(in, n, 1, n, &finite);
    at[6][0] = finite;
    return STEPS * MAX_WIDTH;
}

static void test_rows_every_set_agrees_on_hard_values(void **state) {
    (void)state;
    static float want[7 * MAX_WIDTH], got[7 * MAX_WIDTH];
    for (int round = 0; round < 400; round++) {
        int64_t n = round < WIDTHS ? widths[round] : 1 + util_below(MAX_WIDTH);
        for (int64_t k = 0; k < n; k++) in[k] = util_hard(round % 4 == 0);
        for (int64_t k = 0; k < n; k++) other[k] = util_hard(round % 8 == 0);
        EACH_SET(set) {
            float *y = set == 0 ? want : got;
            int values = hard_rows(n, y);
            for (int i = 0; i < values; i++) {
                if (util_same(want[i], y[i])) continue;
                fail_msg("%s, width %d, step %d, column %d: %a, the reference says %a",
                         saf_kernels_name(), (int)n, i / MAX_WIDTH, i % MAX_WIDTH, (double)y[i],
                         (double)want[i]);
            }
        }
    }
}

/* What every processor of this kind runs, and none of it. */
#if defined __aarch64__
#define VECTORS "neon"
#define FOREIGN "avx2"
#else
#define VECTORS "avx2"
#define FOREIGN "neon"
#endif

static void test_rows_kernels_are_chosen_by_name(void **state) {
    (void)state;
    assert_int_equal(saf_kernels_init("mmx"), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "unknown kernels \"mmx\""));
    assert_int_equal(saf_kernels_init("scalar"), SAF_OK);
    assert_string_equal(saf_kernels_name(), "scalar");
    assert_int_equal(setenv("SAF_KERNELS", VECTORS, 1), 0);
    assert_int_equal(saf_kernels_init(NULL), SAF_OK);
    assert_ptr_equal(strstr(saf_kernels_name(), VECTORS), saf_kernels_name());
    assert_int_equal(saf_kernels_init(FOREIGN), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "this processor cannot run the " FOREIGN));
    assert_int_equal(setenv("SAF_KERNELS", "bogus", 1), 0);
    assert_int_equal(saf_kernels_init(NULL), SAF_USAGE);
    assert_int_equal(setenv("SAF_KERNELS", "auto", 1), 0);
    assert_int_equal(saf_kernels_init(NULL), SAF_OK);
    assert_int_equal(unsetenv("SAF_KERNELS"), 0);
    assert_int_equal(saf_kernels_check_float_state(), SAF_OK);
}

/* The register that holds rounding and the treatment of denormals. */
#if defined __aarch64__
static const uint64_t FLUSH_TO_ZERO = 1 << 24, ROUNDING = 3 << 22, ROUND_UP = 1 << 22;
static uint64_t float_control(void) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}
static void set_float_control(uint64_t control) {
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
}
#else
static const uint64_t FLUSH_TO_ZERO = 0x8000, ROUNDING = 0x6000, ROUND_UP = 0x4000;
static uint64_t float_control(void) {
    return __builtin_ia32_stmxcsr();
}
static void set_float_control(uint64_t control) {
    __builtin_ia32_ldmxcsr((unsigned)control);
}
#endif

static void test_rows_float_state_notices_flushed_denormals(void **state) {
    (void)state;
    uint64_t kept = float_control();
    set_float_control(kept | FLUSH_TO_ZERO);
    saf_status flushed = saf_kernels_check_float_state();
    set_float_control((kept & ~ROUNDING) | ROUND_UP);
    saf_status upwards = saf_kernels_check_float_state();
    set_float_control(kept);
    assert_int_equal(flushed, SAF_FAILED);
    assert_int_equal(upwards, SAF_FAILED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_rms_norm_folds_sixteen_lanes),
        cmocka_unit_test(test_rows_rms_norm_may_be_in_place),
        cmocka_unit_test(test_rows_add_adds_rows_and_biases),
        cmocka_unit_test(test_rows_silu_mul_is_close_and_may_be_in_place),
        cmocka_unit_test(test_rows_silu_mul_shares_wide_rows),
        cmocka_unit_test(test_rows_finite_finds_any_value_that_is_not),
        cmocka_unit_test(test_rows_rope_rotates_pairs),
        cmocka_unit_test(test_rows_log_sum_exp_is_close),
        cmocka_unit_test(test_rows_argmax_takes_the_first_of_equals),
        cmocka_unit_test(test_rows_exp_shifted_is_exp_of_the_difference),
        cmocka_unit_test(test_rows_every_set_agrees_on_hard_values),
        cmocka_unit_test(test_rows_kernels_are_chosen_by_name),
        cmocka_unit_test(test_rows_float_state_notices_flushed_denormals),
    };
    return saf_kernels_init(NULL) != SAF_OK || cmocka_run_group_tests(tests, NULL, NULL);
}
