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

/* Norms and gates are made on the way to a batch of activations: here for float weights. */
static void norm(const float *x, const float *weight, float eps, int64_t tokens, int64_t n,
                 bool *finite, float *y, int threads) {
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(tokens, n, &acts), SAF_OK);
#pragma omp parallel num_threads(threads)
    saf_acts_set_norm(acts, x, MAX_WIDTH, weight, eps, tokens, n, SAF_ACTS_FLOATS, finite, y,
                      MAX_WIDTH);
    saf_acts_free(&acts);
}
static void gate_mul(const float *gate, const float *up, int64_t ld, int64_t tokens, int64_t n,
                     float *y, int threads) {
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(tokens, n, &acts), SAF_OK);
#pragma omp parallel num_threads(threads)
    saf_acts_set_silu(acts, gate, up, ld, tokens, n, SAF_ACTS_FLOATS, y, ld);
    saf_acts_free(&acts);
}

/* The rule. */
static float naive_rms_scale(const float *x, int64_t n, float eps) {
    float lane[16] = {0};
    for (int64_t k = 0; k < n; k++) lane[k % 16] = fmaf(x[k], x[k], lane[k % 16]);
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return 1 / sqrtf(lane[0] / (float)n + eps);
}

static void test_rows_rms_norm_folds_sixteen_lanes(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int64_t n = widths[i];
        fill_inputs();
        EACH_SET(set) {
            norm(in, other, 1e-6f, TOKENS, n, NULL, out, set + 1);
            same_as_first_set(set);
        }
        for (int t = 0; t < TOKENS; t++) {
            const float *x = in + t * MAX_WIDTH;
            float scale = naive_rms_scale(x, n, 1e-6f);
            for (int64_t k = 0; k < n; k++)
                assert_true(out[t * MAX_WIDTH + k] == x[k] * scale * other[k]);
        }
    }
}

static void test_rows_rms_norm_says_which_rows_are_finite(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        bool finite[TOKENS] = {true, true, true, true, false};
        fill_inputs();
        in[0] = 3e38f; /* its square is not finite, but the row is */
        in[1 * MAX_WIDTH + 299] = NAN;
        in[2 * MAX_WIDTH + 0] = -INFINITY;
        norm(in, other, 1e-6f, TOKENS, 300, finite, out, threads);
        assert_true(finite[0] && !finite[1] && !finite[2] && finite[3] && !finite[4]);
    }
}

/* One row and several, on any number of threads: the same q as of the finished rows. */
static void test_rows_are_quantised_as_they_are_made(void **state) {
    (void)state;
    enum { WIDE = 1250, ROWS = 23 };
    static float x[ROWS * WIDE], y[ROWS * WIDE], weight[WIDE], want[2][ROWS * 5], got[ROWS * 5];
    uint8_t *raw = util_weights(SAF_DTYPE_Q8_0, 5, 1248, FILL_USUAL);
    saf_weight w = util_pack(SAF_DTYPE_Q8_0, 5, 1248, raw);
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(ROWS, WIDE, &acts), SAF_OK);
    util_fill(x, ROWS * WIDE, 1);
    util_fill(weight, WIDE, 1);
    const saf_row_product product = {&w, got, 5, NULL, 0};
    EACH_SET(set) {
        for (int64_t rows = 1; rows <= ROWS; rows += rows < 3 ? 1 : 10) {
            for (int gated = 0; gated < 2; gated++) {
                for (int threads = 0; threads <= 5; threads++) {
                    bool at_once = threads > 0;
                    saf_acts_form quants = saf_acts_form_of(acts, &product, 1, rows);
                    saf_acts_form form = at_once ? quants : SAF_ACTS_FLOATS;
                    memset(got, 0, sizeof got);
#pragma omp parallel num_threads(at_once ? threads : 1)
                    {
                        if (gated)
                            saf_acts_set_silu(acts, x, x, WIDE, rows, 1248, form, y, WIDE);
                        else
                            saf_acts_set_norm(acts, x, WIDE, weight, 1e-6f, rows, 1248, form, NULL,
                                              y, WIDE);
                        if (!at_once) saf_acts_set(acts, y, WIDE, rows, 1248, quants);
                        saf_matmul(&product, 1, acts);
                    }
                    if (!at_once) memcpy(want[gated], got, sizeof got);
                    assert_memory_equal(want[gated], got, sizeof got);
                }
            }
        }
    }
    saf_acts_free(&acts);
    saf_free(&w.data);
    saf_free(&raw);
}

static void test_rows_silu_mul_is_close_and_may_be_in_place(void **state) {
    (void)state;
    for (int i = 0; i < WIDTHS; i++) {
        int64_t n = widths[i];
        fill_inputs();
        in[0] = -200, in[MAX_WIDTH] = 200;
        EACH_SET(set) {
            gate_mul(in, other, MAX_WIDTH, TOKENS, n, out, set + 1);
            same_as_first_set(set);
        }
        for (int t = 0; t < TOKENS; t++)
            for (int64_t k = 0; k < n; k++) {
                double g = (double)in[t * MAX_WIDTH + k];
                double want = g / (1 + exp(-g)) * (double)other[t * MAX_WIDTH + k];
                assert_true(close_to(out[t * MAX_WIDTH + k], want, 1e-6));
            }
        gate_mul(in, other, MAX_WIDTH, TOKENS, n, other, 1);
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
    gate_mul(gate, up, WIDE, 1, WIDE, one, 1);
    gate_mul(gate, up, WIDE, 1, WIDE, many, 3);
    assert_memory_equal(one, many, sizeof one);
}

static void test_rows_finite_finds_any_value_that_is_not(void **state) {
    (void)state;
    EACH_SET(set) {
        bool finite[TOKENS] = {true, true, true, true, true};
        fill_inputs();
        in[1 * MAX_WIDTH + 0] = NAN;
        in[2 * MAX_WIDTH + 98] = INFINITY;
        in[3 * MAX_WIDTH + 17] = -INFINITY;
        in[4 * MAX_WIDTH + 99] = NAN; /* beyond the width */
        in[0] = 0x1.fffffep127f, in[1] = 0x1p-149f;
        saf_rows_finite(in, MAX_WIDTH, TOKENS, 99, finite);
        assert_true(finite[0] && !finite[1] && !finite[2] && !finite[3] && finite[4]);
        saf_rows_finite(out, MAX_WIDTH, TOKENS, 99, finite); /* what is false stays so */
        assert_true(finite[0] && !finite[1] && !finite[2] && !finite[3] && finite[4]);
    }
}

static void test_rows_finite_shares_wide_rows(void **state) {
    (void)state;
    enum { WIDE = 10000 };
    static float x[2 * WIDE];
    for (int at = 0; at < WIDE; at += 999) {
        bool finite[2] = {true, true};
        x[WIDE + at] = NAN;
#pragma omp parallel num_threads(3)
        saf_rows_finite(x, WIDE, 2, WIDE, finite);
        assert_true(finite[0] && !finite[1]);
        x[WIDE + at] = 0;
    }
}

static void test_rows_rope_rotates_pairs(void **state) {
    (void)state;
    enum { HEADS = 2, WIDTH = 100, HALF = 40, LD = HEADS * WIDTH + 7 };
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
    for (int i = 0; i < TOKENS * LD; i += 7) kept[i] = i % 2 ? 0.0f : -0.0f;
    for (int pairs = SAF_ROPE_ADJACENT; pairs <= SAF_ROPE_HALVES; pairs++) {
        EACH_SET(set) {
            memcpy(x, kept, sizeof x);
            const saf_attn_heads how = {
                .rope_pairs = (saf_rope_pairs)pairs, .rope_half = HALF, .rope = table};
            const saf_attn_shape shape = {HEADS, HEADS, WIDTH, {0, HEADS}, {0, 0}};
            const saf_attn_seq seq = {.tokens = TOKENS};
#pragma omp parallel num_threads(set + 1)
            saf_attn_store(&how, &shape, SAF_KV_F32, &seq, 1, x, LD, NULL, NULL, 0);
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
                assert_true(util_same(x[t * LD + k], want));
            }
    }
}

/* Biases, norms and rotation of every head of q, k and v, and k and v into the cache, of two
 * sequences side by side: step by step by the rules. */
static void test_rows_heads_go_through_every_step(void **state) {
    (void)state;
    enum { HEADS = 5, KV = 2, WIDTH = 20, HALF = 6, LDQ = HEADS * WIDTH + 3, LD = KV * WIDTH + 1 };
    enum { FIRST = 19, ROWS = FIRST + 1, POS0 = 7, SEGMENT = KV * SAF_KV_SEGMENT * WIDTH };
    static float q[ROWS * LDQ], k[ROWS * LD], v[ROWS * LD], cache[2][2][SEGMENT];
    static float kept_q[ROWS * LDQ], kept_k[ROWS * LD], kept_v[ROWS * LD], table[ROWS * HALF * 2];
    float bias[3][HEADS * WIDTH], weight[2][WIDTH];
    util_fill(kept_q, ROWS * LDQ, 1);
    util_fill(kept_k, ROWS * LD, 1);
    util_fill(kept_v, ROWS * LD, 1);
    util_fill(table, ROWS * HALF * 2, 1);
    util_fill(bias[0], 3 * HEADS * WIDTH, 1);
    util_fill(weight[0], 2 * WIDTH, 1);
    const saf_attn_heads how = {.q_bias = bias[0],
                                .k_bias = bias[1],
                                .v_bias = bias[2],
                                .q_norm = weight[0],
                                .k_norm = weight[1],
                                .norm_eps = 1e-5f,
                                .rope_pairs = SAF_ROPE_HALVES,
                                .rope_half = HALF,
                                .rope = table};
    const saf_attn_shape shape = saf_attn_shape_whole(HEADS, KV, WIDTH);
    const saf_attn_seq seqs[] = {{cache[0][0], cache[0][1], 0, POS0, FIRST, 0},
                                 {cache[1][0], cache[1][1], 0, 0, 1, FIRST}};
    EACH_SET(set) {
        memcpy(q, kept_q, sizeof q);
        memcpy(k, kept_k, sizeof k);
        memcpy(v, kept_v, sizeof v);
        memset(cache, 0, sizeof cache);
#pragma omp parallel num_threads(set + 1)
        saf_attn_store(&how, &shape, SAF_KV_F32, seqs, 2, q, LDQ, k, v, LD);
        for (int t = 0; t < ROWS; t++) {
            for (int h = 0; h < HEADS + KV; h++) {
                bool key = h >= HEADS;
                int g = key ? h - HEADS : h, p = t < FIRST ? POS0 + t : 0;
                const float *from =
                    key ? kept_k + t * LD + g * WIDTH : kept_q + t * LDQ + g * WIDTH;
                const float *got = key ? k + t * LD + g * WIDTH : q + t * LDQ + g * WIDTH;
                float x[WIDTH], want[WIDTH];
                for (int c = 0; c < WIDTH; c++) x[c] = from[c] + bias[key][g * WIDTH + c];
                float scale = naive_rms_scale(x, WIDTH, 1e-5f);
                for (int c = 0; c < WIDTH; c++) want[c] = x[c] = x[c] * scale * weight[key][c];
                for (int c = 0; c < HALF; c++) {
                    const float *cs = table + 2 * (t * HALF + c);
                    want[c] = fmaf(x[c], cs[0], -(x[c + HALF] * cs[1]));
                    want[c + HALF] = fmaf(x[c], cs[1], x[c + HALF] * cs[0]);
                }
                assert_memory_equal(want, got, sizeof want);
                for (int c = 0; key && c < WIDTH; c++) {
                    const float(*to)[SEGMENT] = cache[t >= FIRST];
                    int at = ((g * 16 + p / 16) * WIDTH + c) * 16 + p % 16;
                    float value = kept_v[t * LD + g * WIDTH + c] + bias[2][g * WIDTH + c];
                    assert_true(to[0][at] == want[c]);
                    assert_true(to[1][(g * SAF_KV_SEGMENT + p) * WIDTH + c] == value);
                }
            }
        }
    }
}

static void test_rows_log_sum_exp_is_close(void **state) {
    (void)state;
    enum { VOCAB = 20000 };
    static float logits[VOCAB];
    static const int64_t sizes[] = {1, 15, SAF_LOGIT_SEGMENT, SAF_LOGIT_SEGMENT + 1, 4097, VOCAB};
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
            /* as two that have some segments each find it */
            saf_logit_segment segments[VOCAB / SAF_LOGIT_SEGMENT + 1];
            int64_t half = saf_i64_min(sizes[i], 3 * SAF_LOGIT_SEGMENT);
            saf_logit_segments(logits, VOCAB, 1, half, segments, 0);
            saf_logit_segments(logits + half, VOCAB, 1, sizes[i] - half, segments + 3, 0);
            int64_t n = saf_ceil_div(sizes[i], SAF_LOGIT_SEGMENT);
            assert_true(saf_log_sum_exp_of(segments, n) == kept);
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
    enum { STEPS = 6 };
    float *at[STEPS];
    for (int i = 0; i < STEPS; i++) at[i] = y + i * MAX_WIDTH;
    const saf_attn_heads how = {
        .q_bias = other, .rope_pairs = SAF_ROPE_HALVES, .rope_half = n / 2, .rope = other};
    const saf_attn_shape shape = {1, 1, n, {0, 1}, {0, 0}};
    const saf_attn_seq seq = {.tokens = 1};
    norm(in, other, 1e-6f, 1, n, NULL, at[0], 1);
    gate_mul(in, other, n, 1, n, at[1], 1);
    saf_exp_shifted(in, 0.5f, n, at[2]);
    memcpy(at[3], in, (size_t)n * sizeof *in);
    saf_attn_store(&how, &shape, SAF_KV_F32, &seq, 1, at[3], n, NULL, NULL, 0);
    at[4][0] = (float)saf_log_sum_exp(in, n);
    at[4][1] = (float)saf_argmax(in, n);
    bool finite = true;
    saf_rows_finite(in, n, 1, n, &finite);
    at[5][0] = finite;
    return STEPS * MAX_WIDTH;
}

static void test_rows_every_set_agrees_on_hard_values(void **state) {
    (void)state;
    static float want[6 * MAX_WIDTH], got[6 * MAX_WIDTH];
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
        cmocka_unit_test(test_rows_rms_norm_says_which_rows_are_finite),
        cmocka_unit_test(test_rows_are_quantised_as_they_are_made),
        cmocka_unit_test(test_rows_silu_mul_is_close_and_may_be_in_place),
        cmocka_unit_test(test_rows_silu_mul_shares_wide_rows),
        cmocka_unit_test(test_rows_finite_finds_any_value_that_is_not),
        cmocka_unit_test(test_rows_finite_shares_wide_rows),
        cmocka_unit_test(test_rows_rope_rotates_pairs),
        cmocka_unit_test(test_rows_heads_go_through_every_step),
        cmocka_unit_test(test_rows_log_sum_exp_is_close),
        cmocka_unit_test(test_rows_argmax_takes_the_first_of_equals),
        cmocka_unit_test(test_rows_exp_shifted_is_exp_of_the_difference),
        cmocka_unit_test(test_rows_every_set_agrees_on_hard_values),
        cmocka_unit_test(test_rows_kernels_are_chosen_by_name),
        cmocka_unit_test(test_rows_float_state_notices_flushed_denormals),
    };
    return saf_kernels_init(NULL) != SAF_OK || cmocka_run_group_tests(tests, NULL, NULL);
}
