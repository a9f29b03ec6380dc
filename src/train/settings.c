/* How a model is trained: what is allowed, the rate of each step, the first parameters. */
#include <math.h>

#include "train/train.h"

static const double pi = 0x1.921fb54442d18p+1;

enum { MICRO_BATCHES_MOST = 1 << 20 };

saf_train_settings saf_train_defaults(void) {
    return (saf_train_settings){.learning_rate = 1e-3,
                                .floor = 0.1,
                                .decay = 0.1,
                                .clip = 1,
                                .beta1 = 0.9,
                                .beta2 = 0.95,
                                .epsilon = 1e-8,
                                .seed = 1,
                                .threads = 1};
}

static saf_status check_number(const char *name, double v, double least, double most) {
    if (v >= least && v <= most) return SAF_OK;
    return saf_fail(SAF_USAGE, "cannot train with %s %g: expected %g to %g", name, v, least, most);
}

saf_status saf_train_settings_check(const saf_train_settings *s, int ranks) {
    saf_status st = SAF_OK;
    int64_t m = s->micro_batches;
    if (m < 1 || m > MICRO_BATCHES_MOST || (m & (m - 1)) != 0)
        return saf_fail(SAF_USAGE, "cannot train with %lld micro-batches: expected a power of two",
                        (long long)m);
    if (m < ranks)
        return saf_fail(SAF_USAGE,
                        "%lld micro-batches for %d ranks: each rank needs one, so use at most %lld "
                        "ranks",
                        (long long)m, ranks, (long long)m);
    if (s->batch < m || s->batch % m != 0 || s->batch / m > SAF__TOKENS_MOST)
        return saf_fail(SAF_USAGE,
                        "cannot train with a batch of %lld sequences: expected a multiple of the "
                        "%lld micro-batches",
                        (long long)s->batch, (long long)m);
    if (s->steps < 0 || s->warmup < 0)
        return saf_fail(SAF_USAGE, "cannot train %lld steps with %lld of warm-up",
                        (long long)s->steps, (long long)s->warmup);
    SAF_TRY(check_number("learning rate", s->learning_rate, 0, 1e3));
    SAF_TRY(check_number("floor", s->floor, 0, 1));
    SAF_TRY(check_number("decay", s->decay, 0, 1e3));
    SAF_TRY(check_number("clip", s->clip, 0, 1e30));
    SAF_TRY(check_number("beta1", s->beta1, 0, 0.999999));
    SAF_TRY(check_number("beta2", s->beta2, 0, 0.999999));
    SAF_TRY(check_number("epsilon", s->epsilon, 1e-30, 1));
    if (s->threads < 1) st = saf_fail(SAF_USAGE, "cannot train with %d threads", s->threads);
out:
    return st;
}

saf_status saf_train_check(const saf_train_shape *shape, const saf_train_settings *settings,
                           int ranks) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_train_shape_check(shape));
    SAF_TRY(saf_train_settings_check(settings, ranks));
    int64_t sequences = settings->batch / settings->micro_batches;
    if (sequences > SAF__TOKENS_MOST / shape->context)
        st = saf_fail(SAF_USAGE,
                      "micro-batches of %lld sequences of %lld tokens: expected %d tokens at most",
                      (long long)sequences, (long long)shape->context, SAF__TOKENS_MOST);
out:
    return st;
}

double saf_train_rate(const saf_train_settings *s, int64_t step) {
    double low = s->floor * s->learning_rate, sine, cosine;
    if (step <= s->warmup) return s->learning_rate * ((double)step / (double)s->warmup);
    if (step >= s->steps) return low;
    double share = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    saf_math_sincos(pi * share, &sine, &cosine);
    return low + (s->learning_rate - low) / 2 * (1 + cosine);
}

/* ---- the first parameters -------------------------------------------------------------------- */

/* Two normal numbers (Box and Muller) of one counter. */
static void normal_pair(uint64_t seed, uint64_t tensor, uint64_t counter, double out[2]) {
    uint32_t r[4];
    double sine, cosine;
    saf_philox(seed, tensor, counter, r);
    double u = ((double)r[0] + ((double)r[1] + 0.5) * 0x1p-32) * 0x1p-32; /* never 0 */
    double length = sqrt(-2 * saf_math_log(u));
    saf_math_sincos(2 * pi * ((double)r[2] + (double)r[3] * 0x1p-32) * 0x1p-32, &sine, &cosine);
    out[0] = length * cosine;
    out[1] = length * sine;
}

static double deviation(const saf_train_tensor *t, int64_t layers) {
    if (!strcmp(t->name, "token_embd.weight") || !strcmp(t->name, "output.weight")) return 0.02;
    double sd = 0.45 / sqrt((double)t->cols);
    bool adds = strstr(t->name, "attn_output") || strstr(t->name, "ffn_down");
    return adds ? sd / sqrt(2.0 * (double)layers) : sd;
}

void saf__draw(const saf_train_tensor *tensors, int64_t n, int64_t layers, uint64_t seed,
               int threads, float *values) {
    for (int64_t i = 0; i < n; i++) {
        const saf_train_tensor *t = &tensors[i];
        float *at = values + t->offset;
        double sd = t->rows ? deviation(t, layers) : 0;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t j = 0; j < t->count; j += 2) {
            double pair[2] = {1, 1};
            if (t->rows) {
                normal_pair(seed, (uint64_t)i, (uint64_t)(j / 2), pair);
                pair[0] *= sd;
                pair[1] *= sd;
            }
            at[j] = (float)pair[0];
            if (j + 1 < t->count) at[j + 1] = (float)pair[1];
        }
    }
}
