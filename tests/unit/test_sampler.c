/* The sampler against a plain double-precision one with a full sort, written here. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "saf/model.h"

static const saf_sampling plain = {.temperature = 1.0, .top_p = 1.0, .repeat_penalty = 1.0};

static saf_sampler *new_ok(int64_t vocab) {
    saf_sampler *s = NULL;
    if (saf_sampler_new(vocab, &s) != SAF_OK) fail_msg("%s", saf_error_text());
    return s;
}

static saf_sampled pick_ok(saf_sampler *s, const float *logits, saf_sampling settings,
                           const int32_t *history, int64_t n, uint64_t request, int64_t position) {
    saf_sampled out = {-1, 0};
    assert_int_equal(
        saf_sampler_pick(s, logits, &settings, history, n, request, position, &out, 0, NULL),
        SAF_OK);
    return out;
}

/* Bell-shaped logits around -2, with a spread. */
static void random_logits(uint64_t seed, double spread, int64_t n, float *logits) {
    for (int64_t i = 0; i < n; i++) {
        double sum = -6;
        for (uint64_t k = 0; k < 12; k++) sum += saf_philox_uniform(seed, 77, (uint64_t)i * 12 + k);
        logits[i] = (float)(spread * sum - 2.0);
    }
}

/* ---- the reference ----------------------------------------------------------------------------
 */

typedef struct {
    double value;
    int32_t id;
} scored;

static int by_value(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* The token, and how far the mark lies from the nearest place where another would be chosen. */
static int32_t reference(const float *logits, int64_t vocab, const saf_sampling *settings,
                         const int32_t *history, int64_t n_history, double uniform,
                         double *margin) {
    scored *c = malloc((size_t)vocab * sizeof *c);
    double *w = malloc((size_t)vocab * sizeof *w);
    assert_true(c && w);
    for (int64_t i = 0; i < vocab; i++) c[i] = (scored){logits[i], (int32_t)i};
    bool *seen = calloc((size_t)vocab, sizeof *seen);
    int64_t from =
        settings->repeat_last < 0 ? 0 : saf_i64_max(0, n_history - settings->repeat_last);
    for (int64_t i = from; i < n_history; i++) {
        int32_t id = history[i];
        if (seen[id]) continue;
        seen[id] = true;
        c[id].value = (float)(c[id].value > 0 ? c[id].value / settings->repeat_penalty
                                              : c[id].value * settings->repeat_penalty);
    }
    free(seen);
    qsort(c, (size_t)vocab, sizeof *c, by_value);
    int64_t n = vocab;
    *margin = 1;
    if (settings->temperature > 0) {
        if (settings->top_k > 0 && settings->top_k < n) n = settings->top_k;
        double total = 0, sum = 0;
        for (int64_t i = 0; i < n; i++) total += w[i] = exp(c[i].value - c[0].value);
        if (settings->top_p < 1) {
            int64_t keep = 0;
            while (keep < n && (keep == 0 || sum < settings->top_p * total)) {
                sum += w[keep++];
                *margin = fmin(*margin, fabs(sum / total - settings->top_p));
            }
            n = keep;
        }
        int64_t keep = 1;
        while (keep < n && w[keep] >= settings->min_p) keep++;
        if (settings->min_p > 0) {
            n = keep;
            for (int64_t i = 0; i <= n && i < vocab; i++)
                *margin = fmin(*margin, fabs(w[i] - settings->min_p));
        }
        total = sum = 0;
        for (int64_t i = 0; i < n; i++)
            total += w[i] = exp((c[i].value - c[0].value) / settings->temperature);
        int64_t chosen = -1;
        for (int64_t i = 0; i < n && chosen < 0; i++) {
            sum += w[i];
            *margin = fmin(*margin, fabs(sum / total - uniform));
            if (sum > uniform * total) chosen = i;
        }
        c[0] = c[chosen < 0 ? n - 1 : chosen];
    }
    int32_t id = c[0].id;
    free(c);
    free(w);
    return id;
}

static void test_sampler_agrees_with_a_plain_one(void **state) {
    static const saf_sampling settings[] = {
        {.temperature = 1.0, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 0.7, .top_p = 1.0, .repeat_penalty = 1.0, .top_k = 40},
        {.temperature = 0.8, .top_p = 0.9, .repeat_penalty = 1.0},
        {.temperature = 0.8, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1.0, .top_k = 40},
        {.temperature = 2.5, .top_p = 1.0, .min_p = 0.02, .repeat_penalty = 1.0},
        {.temperature = 0.05, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 30.0, .top_p = 0.999, .repeat_penalty = 1.3, .repeat_last = -1},
        {.temperature = 1.0, .top_p = 1.0, .repeat_penalty = 1.7, .repeat_last = 5, .top_k = 7},
        {.temperature = 1.0, .top_p = 0.5, .repeat_penalty = 0.6, .repeat_last = 64, .top_k = 1000},
        {.temperature = 0.0, .top_p = 0.5, .repeat_penalty = 2.0, .repeat_last = 20},
    };
    enum { VOCAB = 5003, HISTORY = 30, REPEATS = 100 };
    static const double spreads[] = {0.01, 1.5, 6};
    float *logits = malloc(VOCAB * sizeof *logits);
    int32_t history[HISTORY];
    saf_sampler *s = new_ok(VOCAB);
    int close = 0, compared = 0;
    (void)state;
    assert_non_null(logits);
    for (uint64_t r = 0; r < REPEATS; r++) {
        random_logits(r, spreads[r % 3], VOCAB, logits);
        for (int i = 0; i < HISTORY; i++) /* likely tokens among them, some twice */
            history[i] = (int32_t)(saf_philox_uniform(r, 5, (uint64_t)i) * (i < 20 ? VOCAB : 40));
        for (int i = 0; i < 10; i++) logits[history[i + 20]] += (float)(i * spreads[r % 3]);
        for (size_t k = 0; k < sizeof settings / sizeof settings[0]; k++) {
            saf_sampling with = settings[k];
            with.seed = r * 31 + k;
            double margin, uniform = saf_philox_uniform(with.seed, 9, r);
            int32_t want = reference(logits, VOCAB, &with, history, HISTORY, uniform, &margin);
            int32_t got = pick_ok(s, logits, with, history, HISTORY, 9, (int64_t)r).id;
            compared++;
            if (margin < 1e-6)
                close++; /* float weights may fall on the other side */
            else if (got != want)
                fail_msg("settings %zu, repeat %d: %d, expected %d", k, (int)r, got, want);
        }
    }
    assert_true(close < compared / 10);
    saf_sampler_free(&s);
    free(logits);
}

/* The first n of all in order, made likelier or less by what came before. */
static int32_t list_likeliest(const float *logits, int64_t vocab, const saf_sampling *settings,
                              const int32_t *history, int64_t n_history, saf_candidate *out) {
    scored *all = malloc((size_t)vocab * sizeof *all);
    assert_non_null(all);
    for (int64_t i = 0; i < vocab; i++) all[i] = (scored){(double)logits[i], (int32_t)i};
    for (int64_t i = 0; i < n_history; i++) {
        double x = (double)logits[history[i]], r = settings->repeat_penalty;
        all[history[i]].value = (double)(float)(x > 0 ? x / r : x * r);
    }
    qsort(all, (size_t)vocab, sizeof *all, by_value);
    int32_t n = (int32_t)saf_i64_min(saf_sampling_candidates(settings), vocab);
    for (int32_t i = 0; i < n; i++)
        out[i] = (saf_candidate){all[i].id, (float)all[i].value, logits[all[i].id]};
    free(all);
    return n;
}

/* From a list of the likeliest the same is drawn as from all logits, and of a vocabulary as small
 * as the list too. */
static void test_sampler_draws_from_a_list_as_from_all(void **state) {
    (void)state;
    enum { MOST = 3000, TRIES = 440 };
    static const int64_t vocabs[] = {
        1, 7, 9, 64, SAF_NUCLEUS - 1, SAF_NUCLEUS, SAF_NUCLEUS + 1, SAF_CANDIDATES, MOST};
    static float logits[MOST];
    static const saf_sampling settings[] = {
        {.temperature = 0, .top_k = 0, .top_p = 1, .repeat_penalty = 1.7, .repeat_last = 64},
        {.temperature = 1, .top_k = 1, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 3, .top_k = 9, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 0.8,
         .top_k = 40,
         .top_p = 0.95,
         .min_p = 0.02,
         .repeat_penalty = 0.6,
         .repeat_last = -1},
        {.temperature = 1.5,
         .top_k = SAF_CANDIDATES,
         .top_p = 0.99,
         .repeat_penalty = 1.3,
         .repeat_last = 64},
        {.temperature = 2, .top_k = 200, .top_p = 1, .min_p = 0.001, .repeat_penalty = 1},
        {.temperature = 0.7, .top_p = 0.95, .repeat_penalty = 1},
        {.temperature = 1.4, .top_p = 0.5, .repeat_penalty = 1, .repeat_last = 64},
        {.temperature = 1, .top_p = 1, .min_p = 0.1, .repeat_penalty = 1},
        {.temperature = 3, .top_p = 0.9, .min_p = 0.01, .repeat_penalty = 1.5, .repeat_last = 0},
        {.temperature = 1, .top_p = 0.95, .min_p = 0.1, .repeat_penalty = 1}};
    int undecided[sizeof settings / sizeof *settings] = {0};
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        const int64_t V = vocabs[v];
        const int32_t history[] = {0, (int32_t)(V / 2), (int32_t)(V - 1), 0};
        saf_sampler *s = new_ok(V);
        for (int32_t k = 0; k < TRIES; k++) {
            const saf_sampling *with = &settings[(size_t)k % (sizeof settings / sizeof *settings)];
            saf_candidate list[SAF_CANDIDATES];
            random_logits((uint64_t)k, 2.0, V, logits);
            bool penalised = with->repeat_penalty != 1.0 && with->repeat_last != 0;
            int32_t n = list_likeliest(logits, V, with, history, penalised ? 4 : 0, list);
            double sum = saf_log_sum_exp(logits, V);
            int32_t at = saf_sampling_draw(list, n, V, sum, with, 3, k);
            if (V == MOST) undecided[with - settings] += at < 0;
            assert_true(at >= 0 || (with->top_k == 0 && V > SAF_NUCLEUS));
            if (at >= 0)
                assert_int_equal(list[at].id, pick_ok(s, logits, *with, history, 4, 3, k).id);
        }
        saf_sampler_free(&s);
    }
    /* of 3000 tokens, forty tries each: 95 % are in some thousand, half of it in some seventy, and
     * a tenth of the largest some forty */
    assert_int_equal(undecided[6], TRIES / 11);
    assert_in_range(undecided[7], 0, TRIES / 20);
    assert_in_range(undecided[8], 0, TRIES / 20);
    assert_in_range(undecided[10], 0, TRIES / 20); /* top-p alone would take a thousand */
    assert_int_equal(saf_sampling_candidates(&plain), 0);
    assert_int_equal(
        saf_sampling_candidates(&(saf_sampling){.temperature = 1, .top_k = SAF_CANDIDATES + 1}), 0);
}

static void test_sampler_draws_as_often_as_the_softmax_says(void **state) {
    enum { VOCAB = 16, DRAWS = 60000 };
    float logits[VOCAB];
    int count[VOCAB] = {0};
    saf_sampler *s = new_ok(VOCAB);
    double total = 0, chi2 = 0;
    (void)state;
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)((i * 7) % VOCAB) * 0.25f;
        total += exp(logits[i] / 1.5);
    }
    saf_sampling settings = plain;
    settings.temperature = 1.5;
    for (int64_t i = 0; i < DRAWS; i++) count[pick_ok(s, logits, settings, NULL, 0, 123, i).id]++;
    for (int i = 0; i < VOCAB; i++) {
        double want = DRAWS * exp(logits[i] / 1.5) / total;
        chi2 += (count[i] - want) * (count[i] - want) / want;
    }
    assert_true(chi2 < 37.7); /* 15 degrees of freedom: one in a thousand lies above */
    assert_true(chi2 > 3.5);  /* and one in a thousand below */
    saf_sampler_free(&s);
}

static void test_sampler_is_greedy_at_temperature_zero(void **state) {
    float logits[] = {1, 5, 3, 5, -2, 4};
    int32_t history[] = {1, 3, 1};
    saf_sampler *s = new_ok(6);
    saf_sampling settings = plain;
    (void)state;
    settings.temperature = 0;
    assert_int_equal(pick_ok(s, logits, settings, history, 3, 1, 1).id, 1); /* the smaller id */
    settings.repeat_penalty = 1.2;                                          /* 5 / 1.2 = 4.17 */
    settings.repeat_last = 1;
    assert_int_equal(pick_ok(s, logits, settings, history, 3, 1, 1).id, 3);
    settings.repeat_last = -1;
    assert_int_equal(pick_ok(s, logits, settings, history, 3, 1, 1).id, 1);
    settings.repeat_penalty = 1.3; /* 3.85: once, though id 1 is there twice */
    assert_int_equal(pick_ok(s, logits, settings, history, 3, 1, 1).id, 5);
    float negative[] = {-2, -1, -1.5f};
    int32_t last[] = {1};
    settings.repeat_penalty = 2; /* -1 becomes -2, and id 0 is the smaller */
    saf_sampler_free(&s);
    s = new_ok(3);
    assert_int_equal(pick_ok(s, negative, settings, last, 1, 1, 1).id, 2);
    negative[2] = -5;
    assert_int_equal(pick_ok(s, negative, settings, last, 1, 1, 1).id, 0);
    saf_sampler_free(&s);
}

static void test_sampler_gives_the_plain_logprobs(void **state) {
    enum { VOCAB = 3000, TOP = 600 };
    float logits[VOCAB];
    double total = 0;
    (void)state;
    random_logits(4, 3, VOCAB, logits);
    logits[17] = logits[2000] = 11; /* a tie at the top */
    for (int i = 0; i < VOCAB; i++) total += exp(logits[i]);
    int32_t history[] = {17, 2000, 3};
    saf_sampling settings[] = {plain, plain, plain};
    settings[1].temperature = 0;
    settings[2].repeat_penalty = 1.8;
    settings[2].repeat_last = -1;
    settings[2].temperature = 3;
    saf_sampler *s = new_ok(VOCAB);
    for (int k = 0; k < 3; k++) {
        saf_sampled out, top[TOP];
        assert_int_equal(
            saf_sampler_pick(s, logits, &settings[k], history, 3, 8, 9, &out, TOP, top), SAF_OK);
        assert_true(fabs(out.logprob - (logits[out.id] - log(total))) < 1e-5);
        assert_int_equal(top[0].id, 17);
        assert_int_equal(top[1].id, 2000);
        for (int i = 0; i < TOP; i++) {
            assert_true(fabs(top[i].logprob - (logits[top[i].id] - log(total))) < 1e-5);
            if (i > 1) assert_true(logits[top[i].id] <= logits[top[i - 1].id]);
        }
        int above = 0; /* the last is what a count says it is */
        for (int i = 0; i < VOCAB; i++) above += logits[i] > logits[top[TOP - 1].id];
        assert_true(above == TOP - 1);
    }
    saf_sampler_free(&s);
}

static void test_sampler_depends_on_seed_request_and_position_alone(void **state) {
    enum { VOCAB = 2000, N = 50 };
    float logits[VOCAB];
    int32_t first[N];
    int other_seed = 0, other_request = 0, other_position = 0;
    saf_sampler *a = new_ok(VOCAB), *b = new_ok(VOCAB);
    saf_sampling settings = plain, reseeded = plain;
    (void)state;
    reseeded.seed = 1;
    random_logits(2, 0.5, VOCAB, logits);
    for (int64_t i = 0; i < N; i++) first[i] = pick_ok(a, logits, settings, NULL, 0, 7, i).id;
    for (int64_t i = N - 1; i >= 0; i--) { /* another sampler, in another order */
        assert_int_equal(pick_ok(b, logits, settings, NULL, 0, 7, i).id, first[i]);
        other_seed += pick_ok(b, logits, reseeded, NULL, 0, 7, i).id != first[i];
        other_request += pick_ok(b, logits, settings, NULL, 0, 8, i).id != first[i];
        other_position += pick_ok(b, logits, settings, NULL, 0, 7, i + N).id != first[i];
    }
    assert_true(other_seed > N / 2 && other_request > N / 2 && other_position > N / 2);
    saf_sampler_free(&a);
    saf_sampler_free(&b);
}

static void test_sampler_keeps_within_its_filters(void **state) {
    enum { VOCAB = 200000 };
    float *logits = malloc(VOCAB * sizeof *logits);
    saf_sampler *s = new_ok(VOCAB);
    (void)state;
    assert_non_null(logits);
    for (int i = 0; i < VOCAB; i++) logits[i] = 1.0f; /* all the same: the smaller ids come first */
    saf_sampling settings = plain;
    settings.top_k = 3;
    int seen[3] = {0};
    for (int i = 0; i < 30; i++) {
        int32_t id = pick_ok(s, logits, settings, NULL, 0, 1, i).id;
        assert_true(id >= 0 && id < 3);
        seen[id]++;
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    settings.top_k = 0;
    settings.top_p = 0.5;
    for (int i = 0; i < 5; i++)
        assert_true(pick_ok(s, logits, settings, NULL, 0, 1, i).id < VOCAB / 2);
    settings.top_p = 0.0;
    assert_int_equal(pick_ok(s, logits, settings, NULL, 0, 1, 1).id, 0);
    saf_sampler_free(&s);
    free(logits);
}

/* Callers refuse such rows; here they must only do no harm. */
static void test_sampler_survives_what_is_no_number(void **state) {
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, -0.0f};
    enum { VOCAB = 300 };
    float logits[VOCAB];
    int32_t history[] = {-1, VOCAB, 0, 5};
    saf_sampler *s = new_ok(VOCAB);
    (void)state;
    for (int k = 0; k < 7; k++) {
        for (int i = 0; i < VOCAB; i++) logits[i] = k < 6 ? (i % 3 ? bad[k] : 0.0f) : bad[i % 6];
        for (int all = 0; all < 2; all++) {
            for (int i = 0; all && i < VOCAB; i++) logits[i] = bad[k % 6];
            for (int j = 0; j < 8; j++) {
                saf_sampling settings = {.temperature = j & 1 ? 1e-300 : 1.0,
                                         .top_p = j & 2 ? 0.9 : 1.0,
                                         .min_p = j & 4 ? 0.1 : 0.0,
                                         .repeat_penalty = 1e-300,
                                         .repeat_last = -1};
                int32_t id = pick_ok(s, logits, settings, history, 4, 1, j).id;
                assert_true(id >= 0 && id < VOCAB);
            }
        }
    }
    saf_sampler_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_agrees_with_a_plain_one),
        cmocka_unit_test(test_sampler_draws_from_a_list_as_from_all),
        cmocka_unit_test(test_sampler_draws_as_often_as_the_softmax_says),
        cmocka_unit_test(test_sampler_is_greedy_at_temperature_zero),
        cmocka_unit_test(test_sampler_gives_the_plain_logprobs),
        cmocka_unit_test(test_sampler_depends_on_seed_request_and_position_alone),
        cmocka_unit_test(test_sampler_keeps_within_its_filters),
        cmocka_unit_test(test_sampler_survives_what_is_no_number),
    };
    if (saf_kernels_init(NULL) != SAF_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
