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

/* Block b of token t of a batch x[T, ldx]. */
static void check(const saf__acts_view *a, const float *x, int64_t ldx, int64_t t, int64_t b) {
    int q[32], sum[2] = {0, 0};
    int64_t t0 = t / a->tile * a->tile;
    int64_t n = saf_i64_min(a->tile, a->tokens - t0), at = t0 * a->blocks + b * n;
    float dx = naive_block_of(x + t * ldx + 32 * b, saf_i64_min(32, a->cols - 32 * b), q);
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
    assert_true(util_same(a->u[at + t - t0], dx * (float)(sum[0] + sum[1])));
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
            saf_acts_form form =
                round % 2 == 1 && saf_kernels_by_token() ? SAF_ACTS_BY_TOKEN : SAF_ACTS_BY_GROUP;
#pragma omp parallel num_threads(1 + round % 3)
            saf_acts_set(acts, x, ldx, tokens, cols, form);
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t b = 0; b < saf_ceil_div(cols, 32); b++) check(a, x, ldx, t, b);
        }
    }
    saf_acts_free(&acts);
}

/* ---- batches that several ranks make ---- */

enum { RANKS = 5, WIDE = 11 * 32 + 7 };

/* A rank with memory of its own, and what it makes of a batch. */
typedef struct {
    char *memory;
    saf_acts *acts;
    saf_span part;
} rank;

typedef struct {
    int64_t tokens, cols;
    saf_acts_form form;
    bool gated;
    const float *x, *up; /* [tokens, cols] */
} batch;

/* Cuts at random multiples of 32; some parts are empty. */
static void cut(rank *ranks, int64_t cols) {
    for (int r = 0; r < RANKS; r++) {
        int64_t begin = r ? ranks[r - 1].part.end : 0;
        int64_t end = begin + 32 * util_below((int)(cols / 32) / 2 + 2);
        ranks[r].part = (saf_span){begin, r == RANKS - 1 ? cols : saf_i64_min(end, cols)};
    }
}

static void make(rank *r, const batch *b, int threads) {
    int64_t n = r->part.end - r->part.begin, ld = n + 2;
    float *x = util_new((size_t)(b->tokens * ld + 1) * 4);
    float *up = util_new((size_t)(b->tokens * ld + 1) * 4);
    for (int64_t t = 0; t < b->tokens; t++) {
        memcpy(x + t * ld, b->x + t * b->cols + r->part.begin, (size_t)n * 4);
        memcpy(up + t * ld, b->up + t * b->cols + r->part.begin, (size_t)n * 4);
    }
#pragma omp parallel num_threads(threads)
    if (b->gated)
        saf_acts_set_silu_part(r->acts, x, up, ld, b->tokens, b->cols, r->part, b->form);
    else
        saf_acts_set_part(r->acts, x, ld, b->tokens, b->cols, r->part, b->form);
    saf_free(&x);
    saf_free(&up);
}

/* Sends what rank `from` lists to rank 0. Bytes that are not listed have not been written. */
static void send(const rank *ranks, int from, const batch *b, size_t bytes) {
    saf_part parts[SAF_ACTS_PARTS];
    bool *listed = util_new(bytes);
    int n = saf_acts_parts(ranks[from].acts, from, b->tokens, b->cols, ranks[from].part, b->form,
                           parts);
    assert_true(n <= SAF_ACTS_PARTS);
    for (int i = 0; i < n; i++) {
        assert_int_equal(parts[i].owner, from);
        for (int64_t row = 0; row < parts[i].rows; row++) {
            size_t at = parts[i].offset + (size_t)row * parts[i].stride;
            assert_true(at + parts[i].bytes <= bytes);
            memcpy(ranks[0].memory + at, ranks[from].memory + at, parts[i].bytes);
            for (size_t k = 0; k < parts[i].bytes; k++) {
                assert_false(listed[at + k]);
                listed[at + k] = true;
            }
        }
    }
    for (size_t k = 0; from > 0 && k < bytes; k++)
        if (!listed[k]) assert_int_equal(ranks[from].memory[k], 0x5A);
    saf_free(&listed);
}

static void test_acts_of_several_ranks_are_those_of_one(void **state) {
    (void)state;
    static float x[MAX_TOKENS * WIDE], up[MAX_TOKENS * WIDE], gated[MAX_TOKENS * WIDE];
    const size_t bytes = saf_acts_shared_bytes(MAX_TOKENS, WIDE);
    rank ranks[RANKS] = {0};
    saf_acts *whole = NULL;
    assert_int_equal(saf_acts_new(MAX_TOKENS, WIDE, &whole), SAF_OK);
    for (int round = 0; round < 120; round++) {
        batch b = {.tokens = 1 + round % MAX_TOKENS,
                   .cols = 1 + util_below(WIDE),
                   .gated = round % 3 == 0,
                   .x = x,
                   .up = up};
        fill((kind)(round % KINDS), b.tokens, b.cols, b.cols, x);
        util_fill(up, b.tokens * b.cols, 1);
        for (int set = 0; set < KERNEL_NAMES; set++) {
            if (saf_kernels_init(kernel_names[set]) != SAF_OK) continue;
            const float *want = x;
            b.form = round % 4 == 0                             ? SAF_ACTS_FLOATS
                     : round % 2 == 1 && saf_kernels_by_token() ? SAF_ACTS_BY_TOKEN
                                                                : SAF_ACTS_BY_GROUP;
            if (b.gated)
                saf_acts_set_silu(whole, x, up, b.cols, b.tokens, b.cols, SAF_ACTS_FLOATS, gated,
                                  b.cols);
            if (b.gated) want = gated;
            cut(ranks, b.cols);
            for (int r = 0; r < RANKS; r++) {
                ranks[r].memory = util_new(bytes);
                memset(ranks[r].memory, 0x5A, bytes);
                assert_int_equal(saf_acts_shared_new(ranks[r].memory, MAX_TOKENS, WIDE,
                                                     saf_kernels_by_token(), &ranks[r].acts),
                                 SAF_OK);
                make(&ranks[r], &b, 1 + (round + r) % 3);
            }
            for (int r = 0; r < RANKS; r++) send(ranks, r, &b, bytes);
            const saf__acts_view *a = saf__acts_view_of(ranks[0].acts);
            for (int64_t t = 0; t < b.tokens; t++)
                for (int64_t k = 0; k < b.cols; k++)
                    if (b.form != SAF_ACTS_FLOATS && k % 32 == 0)
                        check(a, want, b.cols, t, k / 32);
                    else if (b.form == SAF_ACTS_FLOATS)
                        assert_true(util_same(a->x[t * a->ldx + k], want[t * b.cols + k]));
            for (int r = 0; r < RANKS; r++) {
                saf_acts_free(&ranks[r].acts);
                saf_free(&ranks[r].memory);
            }
        }
    }
    saf_acts_free(&whole);
}

static void test_acts_too_large_to_share(void **state) {
    (void)state;
    saf_acts *acts = NULL;
    char memory[64];
    assert_true(saf_acts_shared_bytes(INT64_MAX, INT64_MAX) == SIZE_MAX);
    assert_true(saf_acts_shared_bytes(-1, 4) == SIZE_MAX);
    assert_int_equal(saf_acts_shared_new(memory, INT64_MAX / 64, INT64_MAX, false, &acts),
                     SAF_NO_MEMORY);
    assert_null(acts);
    assert_int_equal(saf_acts_shared_bytes(3, 40) % 64, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acts_follow_the_rule),
        cmocka_unit_test(test_acts_of_several_ranks_are_those_of_one),
        cmocka_unit_test(test_acts_too_large_to_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
