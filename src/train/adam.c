/* AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, with the rate that
 * the schedule gives multiplying the decay as well. */
#include <math.h>

#include "train/train.h"

/* x^n, with few roundings. */
static double pow_whole(double x, int64_t n) {
    double y = 1;
    for (; n > 0; n /= 2) {
        if (n % 2) y *= x;
        x *= x;
    }
    return y;
}

saf__adam saf__adam_of(const saf_train_settings *s, int64_t step, double norm) {
    return (saf__adam){.rate = (float)saf_train_rate(s, step),
                       .decay = (float)s->decay,
                       .beta1 = (float)s->beta1,
                       .beta2 = (float)s->beta2,
                       .rest1 = (float)(1 - s->beta1),
                       .rest2 = (float)(1 - s->beta2),
                       .epsilon = (float)s->epsilon,
                       .clip = s->clip > 0 && norm > s->clip ? (float)(s->clip / norm) : 1,
                       .unbias1 = (float)(1 / (1 - pow_whole(s->beta1, step))),
                       .unbias2 = (float)(1 / (1 - pow_whole(s->beta2, step)))};
}

static void update(const saf__adam *a, float decay, int64_t n, const float *gradient,
                   float *restrict values, float *restrict m, float *restrict v) {
    for (int64_t i = 0; i < n; i++) {
        float g = gradient[i] * a->clip;
        m[i] = a->beta1 * m[i] + a->rest1 * g;
        v[i] = a->beta2 * v[i] + a->rest2 * (g * g);
        float change = m[i] * a->unbias1 / (sqrtf(v[i] * a->unbias2) + a->epsilon);
        values[i] -= a->rate * (change + decay * values[i]);
    }
}

void saf__adam_update(const saf__team *team, const saf__adam *a, const saf_train_tensor *tensors,
                      int64_t n, saf_span span, const float *gradient, float *values, float *m,
                      float *v) {
    for (int64_t i = 0; i < n; i++) {
        const saf_train_tensor *t = &tensors[i];
        int64_t begin = saf_i64_max(span.begin, t->offset);
        int64_t end = saf_i64_min(span.end, t->offset + t->count);
        float decay = t->decay ? a->decay : 0;
#pragma omp parallel for schedule(static) num_threads(team->threads)
        for (int64_t at = begin; at < end; at += SAF_TRAIN_BLOCK)
            update(a, decay, saf_i64_min(SAF_TRAIN_BLOCK, end - at), gradient + at, values + at,
                   m + (at - span.begin), v + (at - span.begin));
    }
}
