/* The quantised form of activations, of every set of kernels, against the rule and the layout of
 * src/kernel/kernels.h, element by element. */
#include "kernel/acts.h"
#include "unit/kernel_util.h"

enum { MAX_COLS = 100, MAX_TOKENS = 2 * SAF__ACT_TOKENS_BY_TOKEN + 2 };

typedef enum { USUAL, TIES, CUT_OFF, HARD, BROKEN, KINDS } kind;

/* x[T, ldx]: what lies after a row is NaN, so that reading it would show. */
static void fill(kind k, int64_t tokens, int64_t cols, int64_t ldx, float *x) {
    for (int64_t i = 0; i < tokens * ldx; i++) {
        int64_t c = i % ldx;
        /* half a step between two q; at the cut-off, one of many blocks is just above it */
        float ties = c % 32 ? (float)util_below(254) - 126.5f : 127;
        float small = util_below(32) ? 0x1.fffffep-101f : 0x1p-100f;
        x[i] = k == TIES      ? ties
               : k == CUT_OFF ? small
               : k == USUAL   ? util_normal()
                              : util_hard(false);
        if (k == BROKEN && util_below(40) == 0) x[i] = util_below(2) ? NAN : -INFINITY;
        if (c >= cols) x[i] = NAN;
    }
}

/* The rule, for one block of one row. */
static float naive_block_of(const float *x, int64_t n, int *q) {
    float amax = 0;
    for (int k = 0; k < 32; k++) q[k] = 0;
    for (int k = 0; k < n; k++) {
        if (!isfinite(x[k])) return NAN;
        amax = fmaxf(amax, fabsf(x[k]));
    }
    if (amax < 0x1p-100f) return 0;
    for (int k = 0; k < n; k++) q[k] = (int)nearbyintf(x[k] * (127 / amax));
    return amax / 127;
}

static void check(const saf__acts_view *a, int64_t t, int64_t b) {
    int q[32], sum[2] = {0, 0};
    int64_t t0 = t / a->tile * a->tile;
    int64_t n = saf_i64_min(a->tile, a->tokens - t0), at = t0 * a->blocks + b * n;
    float dx = naive_block_of(a->x + t * a->ldx + 32 * b, saf_i64_min(32, a->cols - 32 * b), q);
    for (int k = 0; k < 32; k++) {
        int64_t in_tile = a->by_token ? (t - t0) * 32 + k : (k / 4 * n + t - t0) * 4 + k % 4;
        int got = a->q[at * 32 + in_tile];
        if (got != q[k])
            fail_msg("%s: token %d column %d: q %d, not %d", saf_kernels_name(), (int)t,
                     (int)(32 * b) + k, got, q[k]);
        sum[k / 16] += q[k];
    }
    assert_true(util_same(a->dx[at + t - t0], dx));
    assert_int_equal((int16_t)a->sums[at + t - t0], sum[0]);
    assert_int_equal(a->sums[at + t - t0] >> 16, sum[1]);
}

static void test_acts_follow_the_rule(void **state) {
    (void)state;
    static float x[MAX_TOKENS * (MAX_COLS + 3)];
    saf_acts *acts = NULL;
    assert_int_equal(saf_acts_new(MAX_TOKENS, MAX_COLS, &acts), SAF_OK);
    const saf__acts_view *a = saf__acts_view_of(acts);
    for (int round = 0; round < 200; round++) {
        int64_t tokens = 1 + round % MAX_TOKENS, cols = 1 + util_below(MAX_COLS), ldx = cols + 3;
        fill((kind)(round % KINDS), tokens, cols, ldx, x);
        for (int set = 0; set < KERNEL_NAMES; set++) {
            if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
#pragma omp parallel num_threads(1 + round % 3)
            saf_acts_set(acts, x, ldx, tokens, cols, true);
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t b = 0; b < saf_ceil_div(cols, 32); b++) check(a, t, b);
        }
    }
    saf_acts_free(&acts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acts_follow_the_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
