/* One token from the logits of a position. The formulas are in saf/model.h. */
#include <float.h>

#include "model/sampler.h"
#include "saf/model.h"

enum { LANES = 8, CHUNK = 1024 };

struct saf_sampler {
    int64_t vocab;
    float *values; /* [V] logits, finite, penalties applied */
    float largest; /* of them */
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

static bool penalise(saf_sampler *s, const float *logits, const saf_sampling *settings,
                     const int32_t *history, int64_t n) {
    double r = settings->repeat_penalty;
    if (r == 1.0 || settings->repeat_last == 0) return false;
    int64_t from = settings->repeat_last < 0 ? 0 : saf_i64_max(0, n - settings->repeat_last);
    for (int64_t i = from; i < n; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= s->vocab) continue;
        /* From the logit itself, so that an id seen twice is penalised once. */
        double x = finite(logits[id]);
        s->values[id] = finite(x > 0 ? x / r : x * r);
    }
    return from < n;
}

/* What a logit weighs against the largest, at a temperature. */
static inline float scaled(const saf_sampler *s, float value, double temperature) {
    double z = ((double)value - (double)s->largest) / temperature;
    return z > -200.0 ? (float)z : -200.0f; /* exp gives 0 below -104 */
}

static double weight_at(saf_sampler *s, int64_t place, double temperature) {
    return saf_math_expf(scaled(s, s->values[saf__order_at(&s->order, place)], temperature));
}

static double sum_all(const saf_sampler *s, double temperature) {
    double lane[LANES] = {0};
    float z[CHUNK], w[CHUNK];
    for (int64_t at = 0; at < s->vocab; at += CHUNK) {
        int64_t n = saf_i64_min(CHUNK, s->vocab - at);
        for (int64_t i = 0; i < n; i++) z[i] = scaled(s, s->values[at + i], temperature);
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
static double sum_first(saf_sampler *s, int64_t n, double temperature) {
    if (n == s->vocab) return sum_all(s, temperature);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += weight_at(s, i, temperature);
    return sum;
}

/* How many of the likeliest top-k, top-p and min-p leave, one at least. */
static int64_t candidates(saf_sampler *s, const saf_sampling *settings) {
    int64_t n = s->vocab;
    if (settings->top_k > 0) n = saf_i64_min(n, settings->top_k);
    if (settings->top_p < 1.0) {
        double need = settings->top_p * sum_first(s, n, 1.0), sum = 0;
        int64_t i = 0;
        while (i < n && (i == 0 || sum < need)) sum += weight_at(s, i++, 1.0);
        n = i;
    }
    if (settings->min_p > 0.0) {
        int64_t i = 1;
        while (i < n && weight_at(s, i, 1.0) >= settings->min_p) i++;
        n = i;
    }
    return n;
}

static int32_t draw(saf_sampler *s, const saf_sampling *settings, double uniform) {
    int64_t n = candidates(s, settings), last = 0;
    double mark = uniform * sum_first(s, n, settings->temperature), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double w = weight_at(s, i, settings->temperature);
        sum += w;
        if (sum > mark) return saf__order_at(&s->order, i);
        if (w == 0.0) break; /* so are all that follow */
        last = i;
    }
    return saf__order_at(&s->order, last); /* the two sums differ in their last bits */
}

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
        s->largest = s->values[best];
        saf__order_start(&s->order, s->values);
        best = draw(s, settings, saf_philox_uniform(settings->seed, request, (uint64_t)position));
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
