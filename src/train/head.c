/* The output head and the loss: cross entropy, some rows of logits at a time. */
#include "train/train.h"

enum { SUMS = 8 };

/* Lane j of 8 adds x[j], x[j + 8], ... in f64, then the lanes in order. */
static double sum(const float *x, int64_t n) {
    double lanes[SUMS] = {0}, all = 0;
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) lanes[j] += (double)x[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += (double)x[i + j];
    for (int j = 0; j < SUMS; j++) all += lanes[j];
    return all;
}

/* The loss of a row of logits, which become their gradients times `share`. */
static double row_loss(float *x, int64_t vocab, int32_t target, double share) {
    float most = saf__largest(x, vocab);
    double wanted = (double)x[target] - (double)most;
    saf_exp_shifted(x, most, vocab, x);
    double all = sum(x, vocab);
    float factor = (float)(share / all);
    double weight = (double)x[target] / all;
    for (int64_t i = 0; i < vocab; i++) x[i] *= factor;
    x[target] = (float)((weight - 1) * share);
    return saf_math_log(all) - wanted;
}

/* Row t of the micro-batch: whether its prediction counts, and what comes next. */
static bool row_target(const saf__dims *d, const saf__sequences *in, int64_t t, int32_t *target) {
    int64_t sequence = t / d->context, at = t % d->context;
    *target = in->ids[sequence * (d->context + 1) + at + 1];
    return at < in->counted[sequence];
}

static void losses(const saf__pass *p, const saf__team *team, const saf__sequences *in,
                   int64_t row0, int64_t rows, double share) {
    const saf__dims *d = &p->d;
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t r = 0; r < rows; r++) {
        float *x = p->logits + r * d->vocab;
        int32_t target;
        p->row_loss[row0 + r] = 0;
        if (row_target(d, in, row0 + r, &target))
            p->row_loss[row0 + r] = row_loss(x, d->vocab, target, share);
        else
            memset(x, 0, (size_t)d->vocab * sizeof *x);
    }
}

void saf__pass_head(saf__pass *p, saf__team *team, float *values, const saf__sequences *in,
                    double share, float *gradients, double *each) {
    const saf__dims *d = &p->d;
    const float *w = values + d->out;
    for (int64_t row0 = 0; row0 < d->tokens; row0 += SAF__HEAD_ROWS) {
        int64_t rows = saf_i64_min(SAF__HEAD_ROWS, d->tokens - row0);
        const float *x = p->normed + row0 * d->width;
        saf__product products[2] = {
            saf__product_forward(x, w, p->logits, rows, d->vocab, d->width)};
        saf__products(team, products, 1);
        losses(p, team, in, row0, rows, share);
        if (!gradients) continue;
        products[0] = saf__product_inputs(p->logits, w, p->dnormed + row0 * d->width, rows,
                                          d->vocab, d->width);
        products[1] =
            saf__product_weights(p->logits, x, gradients + d->out, rows, d->vocab, d->width);
        products[1].add = row0 > 0;
        saf__products(team, products, 2);
    }
    for (int64_t s = 0; s < d->sequences; s++) {
        each[s] = 0;
        for (int64_t t = 0; t < d->context; t++) each[s] += p->row_loss[s * d->context + t];
    }
}
