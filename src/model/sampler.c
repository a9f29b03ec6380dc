/* One token from the logits of a position. The formulas are in saf/model.h. */
#include <float.h>

#include "model/sampler.h"
#include "saf/model.h"

enum { LANES = 8, CHUNK = 1024 };

struct saf_sampler {
    int64_t vocab;
    float *values; /* [V] logits, finite, penalties applied */
    saf__order order;
};

saf_status saf_sampler_new(int64_t vocab, saf_sampler **out) {
    saf_status st = SAF_OK;
    saf_sampler *s = NULL;
    if (vocab < 1 || vocab > INT32_MAX)
        SAF_TRY(saf_fail(SAF_DEFECT, "a sampler for %lld tokens", (long long)vocab));
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->vocab = vocab;
    SAF_TRY(saf_alloc((size_t)vocab, sizeof *s->values, &s->values));
    SAF_TRY(saf__order_init(&s->order, vocab));
    *out = s;
    s = NULL;
out:
    saf_sampler_free(&s);
    return st;
}

void saf_sampler_free(saf_sampler **ps) {
    saf_sampler *s = *ps;
    if (!s) return;
    saf_free(&s->values);
    saf__order_free(&s->order);
    saf_free(ps);
}

/* Finite, so that no difference below is NaN: NaN counts as the least. */
static inline float finite(double x) {
    if (!(x > -FLT_MAX)) return -FLT_MAX;
    return x < FLT_MAX ? (float)x : FLT_MAX;
}

static void copy_finite(saf_sampler *s, const float *logits) {
    for (int64_t i = 0; i < s->vocab; i++) {
        float x = logits[i];
        x = x > -FLT_MAX ? x : -FLT_MAX;
        s->values[i] = x < FLT_MAX ? x : FLT_MAX;
    }
}

saf_span saf__sampling_window(const saf_sampling *settings, int64_t n_history) {
    if (settings->repeat_penalty == 1.0 || settings->repeat_last == 0)
        return (saf_span){n_history, n_history};
    if (settings->repeat_last < 0) return (saf_span){0, n_history};
    return (saf_span){saf_i64_max(0, n_history - settings->repeat_last), n_history};
}

float saf__penalised(float logit, const saf_sampling *settings) {
    double x = (double)logit, r = settings->repeat_penalty;
    return finite(x > 0 ? x / r : x * r);
}

static bool penalise(saf_sampler *s, const float *logits, const saf_sampling *settings,
                     const int32_t *history, int64_t n) {
    saf_span window = saf__sampling_window(settings, n);
    for (int64_t i = window.begin; i < window.end; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= s->vocab) continue;
        /* From the logit itself, so that an id seen twice is penalised once. */
        s->values[id] = saf__penalised(finite((double)logits[id]), settings);
    }
    return window.begin < window.end;
}

/* ---- drawing -----------------------------------------------------------------------------------
 */

/* What is drawn from: the values of a whole vocabulary, brought into order as far as somebody asks,
 * or the likeliest of them in a list. */
typedef struct {
    int64_t n, vocab; /* n: of the list, or all */
    const float *values;
    saf__order *order;
    const saf_candidate *list; /* or NULL */
    float largest;
    double log_sum; /* saf_log_sum_exp of the values of all of the vocabulary */
} pool;

static inline int32_t id_at(const pool *p, int64_t place) {
    return p->list ? p->list[place].id : saf__order_at(p->order, place);
}

static inline float value_at(const pool *p, int64_t place) {
    return p->list ? p->list[place].value : p->values[saf__order_at(p->order, place)];
}

/* What a logit weighs against the largest, at a temperature. */
static inline float scaled(const pool *p, float value, double temperature) {
    double z = ((double)value - (double)p->largest) / temperature;
    return z > -200.0 ? (float)z : -200.0f; /* exp gives 0 below -104 */
}

static double weight_at(const pool *p, int64_t place, double temperature) {
    return saf_math_expf(scaled(p, value_at(p, place), temperature));
}

static double sum_values(const pool *p, const float *values, double temperature) {
    double lane[LANES] = {0};
    float z[CHUNK], w[CHUNK];
    for (int64_t at = 0; at < p->vocab; at += CHUNK) {
        int64_t n = saf_i64_min(CHUNK, p->vocab - at);
        for (int64_t i = 0; i < n; i++) z[i] = scaled(p, values[at + i], temperature);
        saf_exp_shifted(z, 0.0f, n, w);
        for (int64_t i = n; i < saf_round_up(n, LANES); i++) w[i] = 0.0f;
        for (int64_t i = 0; i < n; i += LANES)
            for (int j = 0; j < LANES; j++) lane[j] += (double)w[i + j];
    }
    double sum = 0;
    for (int j = 0; j < LANES; j++) sum += lane[j];
    return sum;
}

/* Of the first n in order. All of them have another way: it needs no order. */
static double sum_first(const pool *p, int64_t n, double temperature) {
    double sum = 0;
    if (n == p->vocab && !p->list) return sum_values(p, p->values, temperature);
    if (n == p->vocab) { /* a small one, by the order of its ids */
        float values[SAF_CANDIDATES];
        for (int64_t i = 0; i < n; i++) values[p->list[i].id] = p->list[i].value;
        return sum_values(p, values, temperature);
    }
    for (int64_t i = 0; i < n; i++) sum += weight_at(p, i, temperature);
    return sum;
}

/* How many of the likeliest top-k, top-p and min-p leave, one at least; -1: more than a list has
 * would have to be known. */
static int64_t candidates(const pool *p, const saf_sampling *settings) {
    int64_t n = p->n;
    bool few = settings->top_k > 0 && settings->top_k < p->vocab, ends = n < p->vocab;
    if (settings->top_k > 0 && settings->top_k <= n) {
        n = settings->top_k;
        ends = false;
    }
    if (settings->top_p < 1.0) {
        double all = few ? sum_first(p, n, 1.0) : saf_math_exp(p->log_sum - (double)p->largest);
        double need = settings->top_p * all, sum = 0;
        int64_t i = 0;
        while (i < n && (i == 0 || sum < need)) sum += weight_at(p, i++, 1.0);
        n = i;
        ends = ends && sum < need;
    }
    if (settings->min_p > 0.0) {
        int64_t i = 1;
        while (i < n && weight_at(p, i, 1.0) >= settings->min_p) i++;
        ends = ends && i == n;
        n = i;
    }
    return ends ? -1 : n;
}

/* The place of the one that is picked, or -1. */
static int64_t draw(const pool *p, const saf_sampling *settings, double uniform) {
    int64_t n = candidates(p, settings), last = 0;
    if (n < 0) return -1;
    double mark = uniform * sum_first(p, n, settings->temperature), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double w = weight_at(p, i, settings->temperature);
        sum += w;
        if (sum > mark) return i;
        if (w == 0.0) break; /* so are all that follow */
        last = i;
    }
    return last; /* the two sums differ in their last bits */
}

int32_t saf_sampling_candidates(const saf_sampling *s) {
    if (!(s->temperature > 0.0)) return 1;
    if (s->top_k > 0) return s->top_k <= SAF_CANDIDATES ? s->top_k : 0;
    bool penalised = s->repeat_penalty != 1.0 && s->repeat_last != 0;
    return !penalised && (s->top_p < 1.0 || s->min_p > 0.0) ? SAF_NUCLEUS : 0;
}

/* Of a list that has all of a vocabulary. */
static double log_sum_of_list(const saf_candidate *list, int32_t n) {
    float values[SAF_CANDIDATES];
    for (int32_t i = 0; i < n; i++) values[list[i].id] = list[i].value;
    return saf_log_sum_exp(values, n);
}

int32_t saf_sampling_draw(const saf_candidate *likely, int32_t n, int64_t vocab, double log_sum_exp,
                          const saf_sampling *settings, uint64_t request, int64_t position) {
    if (!(settings->temperature > 0.0)) return 0;
    const pool p = {.n = n,
                    .vocab = vocab,
                    .list = likely,
                    .largest = likely[0].value,
                    .log_sum = n == vocab ? log_sum_of_list(likely, n) : log_sum_exp};
    return (int32_t)draw(&p, settings,
                         saf_philox_uniform(settings->seed, request, (uint64_t)position));
}

/* ---- from all logits ---------------------------------------------------------------------------
 */

saf_status saf_sampler_pick(saf_sampler *s, const float *logits, const saf_sampling *settings,
                            const int32_t *history, int64_t n_history, uint64_t request,
                            int64_t position, saf_sampled *out, int n_top, saf_sampled *top) {
    if (n_top < 0 || n_top > s->vocab)
        return saf_fail(SAF_DEFECT, "%d likeliest of %lld tokens", n_top, (long long)s->vocab);
    double total = saf_log_sum_exp(logits, s->vocab);
    bool greedy = !(settings->temperature > 0.0), changed = false;
    int32_t best = (int32_t)saf_argmax(logits, s->vocab);
    if (!greedy || settings->repeat_penalty != 1.0 ||
        !(logits[best] > -FLT_MAX && logits[best] < FLT_MAX)) {
        copy_finite(s, logits);
        changed = penalise(s, logits, settings, history, n_history);
        best = (int32_t)saf_argmax(s->values, s->vocab);
    }
    if (!greedy) {
        const pool p = {.n = s->vocab,
                        .vocab = s->vocab,
                        .values = s->values,
                        .order = &s->order,
                        .largest = s->values[best],
                        .log_sum = changed ? saf_log_sum_exp(s->values, s->vocab) : total};
        saf__order_start(&s->order, s->values);
        best = id_at(&p, draw(&p, settings,
                              saf_philox_uniform(settings->seed, request, (uint64_t)position)));
    }
    out->id = best;
    out->logprob = (float)((double)logits[best] - total);
    if (n_top > 0 && (greedy || changed)) {
        copy_finite(s, logits);
        saf__order_start(&s->order, s->values);
    }
    for (int i = 0; i < n_top; i++) {
        top[i].id = saf__order_at(&s->order, i);
        top[i].logprob = (float)((double)logits[top[i].id] - total);
    }
    return SAF_OK;
}
