/* Steps and evaluations. */
#include <math.h>

#include "train/train.h"

/* ---- tokens ---------------------------------------------------------------------------------- */

/* A sequence into its place of ids[] and counted[]. */
static saf_status read_one(const saf_train *t, saf_train_read read, void *ctx, int64_t sequence,
                           int64_t place) {
    saf_status st = SAF_OK;
    int64_t n = t->d.context + 1;
    int32_t *ids = t->ids + place * n;
    t->counted[place] = t->d.context;
    SAF_TRY(read(ctx, t->step, sequence, ids, &t->counted[place]));
    if (t->counted[place] < 0 || t->counted[place] > t->d.context) {
        st = saf_fail(SAF_DEFECT, "sequence %lld counts %lld of its %lld predictions",
                      (long long)sequence, (long long)t->counted[place], (long long)t->d.context);
        goto out;
    }
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->d.vocab) {
            st = saf_fail(SAF_DEFECT,
                          "sequence %lld has the token %d at %lld, beyond a vocabulary "
                          "of %lld",
                          (long long)sequence, (int)ids[i], (long long)i, (long long)t->d.vocab);
            goto out;
        }
out:
    return st;
}

static saf__sequences sequences_at(const saf_train *t, int64_t place) {
    return (saf__sequences){t->ids + place * (t->d.context + 1), t->counted + place};
}

/* Of all ranks; those that a rank did not work out are 0 there, so no order changes a bit. */
static saf_status share_losses(const saf_train *t, double *losses, int64_t n, double *sum) {
    saf_tensor all = saf_tensor_1d(SAF_DTYPE_F64, losses, n);
    saf_status st = saf_comm_allreduce(t->comm, SAF_OP_SUM, &all);
    *sum = 0;
    for (int64_t i = 0; i < n; i++) *sum += losses[i];
    return st;
}

static saf_status share_count(const saf_train *t, int64_t *count) {
    saf_tensor all = saf_tensor_1d(SAF_DTYPE_I64, count, 1);
    return saf_comm_allreduce(t->comm, SAF_OP_SUM, &all);
}

/* ---- time ------------------------------------------------------------------------------------ */

typedef struct {
    double start, waited;
} watch;

static double waited(void) {
    saf_comm_counter counters[SAF_COUNT_KINDS];
    double all = 0;
    saf_comm_counters(counters);
    for (int i = 0; i < SAF_COUNT_KINDS; i++) all += counters[i].wait_s;
    return all;
}

static watch watch_start(void) {
    return (watch){saf_clock_s(), waited()};
}

static double watch_stop(saf_train *t, watch w) {
    double seconds = saf_clock_s() - w.start, waiting = waited() - w.waited;
    t->counters.wait_s += waiting;
    t->counters.compute_s += seconds - waiting;
    t->counters.operations = t->team.operations;
    return seconds;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* A micro-batch on its way back: gradients that are complete join the sums that wait for them. */
typedef struct {
    saf_train *train;
    int top, merges; /* the slot of the gradients, and how many slots below they join */
    bool last;       /* of this rank's micro-batches */
} joining;

static saf_status join(void *ctx, int64_t layer) {
    const joining *j = ctx;
    saf_train *t = j->train;
    int64_t chunk = t->d.layers - layer;
    saf_span span = saf__reduction_part(t->reduction, chunk, -1);
    for (int i = j->top; i > j->top - j->merges; i--)
        saf__add(&t->team, t->slots[i] + span.begin, span.end - span.begin,
                 t->slots[i - 1] + span.begin);
    saf_status st = SAF_OK;
    if (j->last) st = saf__reduction_send(t->reduction, chunk, t->slots);
    saf_comm_progress();
    return st;
}

/* All micro-batches of this rank: partial sums in its slots, on their way to the others. */
static saf_status work(saf_train *t, double share) {
    saf_status st = SAF_OK;
    saf__node nodes[SAF__NODES];
    int n = 0;
    memset(t->losses, 0, (size_t)t->settings.batch * sizeof *t->losses);
    for (int64_t b = t->mine.begin; b < t->mine.end; b++) {
        saf__sequences in = sequences_at(t, (b - t->mine.begin) * t->d.sequences);
        joining j = {.train = t, .top = n, .last = b + 1 == t->mine.end};
        saf__back back = {&j, join};
        float *gradients = t->slots[n];
        n = saf__nodes_add(nodes, n, b, &j.merges);
        saf__pass_forward(t->pass, &t->team, t->values, &in);
        saf__pass_head(t->pass, &t->team, t->values, &in, share, gradients,
                       t->losses + b * t->d.sequences);
        SAF_TRY(saf__pass_back(t->pass, &t->team, t->values, &in, &back, gradients));
        t->counters.micro_batches++;
        saf_comm_progress();
    }
    SAF_TRY(saf__reduction_finish(t->reduction, &t->team, t->slots));
out:
    return st;
}

static saf_status update(saf_train *t, double norm) {
    saf_status st = SAF_OK;
    saf__adam a = saf__adam_of(&t->settings, t->step + 1, norm);
    if (!t->settings.shard) {
        SAF_TRY(saf__reduction_gather(t->reduction, t->slots[0]));
        saf__adam_update(&t->team, &a, t->tensors, t->n_tensors, (saf_span){0, t->d.values},
                         t->slots[0], t->values, t->m, t->v);
        goto out;
    }
    for (int64_t c = 0, at = 0; c < saf__reduction_chunks(t->reduction); c++) {
        saf_span own = saf__reduction_part(t->reduction, c, t->rank);
        saf__adam_update(&t->team, &a, t->tensors, t->n_tensors, own, t->slots[0], t->values,
                         t->m + at, t->v + at);
        at += own.end - own.begin;
    }
    SAF_TRY(saf__reduction_gather(t->reduction, t->values));
out:
    return st;
}

/* From the tokens that all ranks have to the losses and the gradient of all. */
static saf_status sum_up(saf_train *t, saf_train_report *r, double *loss, double *squares) {
    saf_status st = SAF_OK;
    SAF_TRY(share_count(t, &r->tokens));
    SAF_TRY(work(t, r->tokens > 0 ? 1.0 / (double)r->tokens : 0));
    SAF_TRY(share_losses(t, t->losses, t->settings.batch, loss));
    SAF_TRY(saf__reduction_squares(t->reduction, &t->team, t->slots[0], squares));
out:
    return st;
}

static saf_status step(saf_train *t, saf_train_read read, void *ctx, saf_train_report *r) {
    saf_status st = SAF_OK;
    double sum = 0, squares = 0;
    int64_t first = t->mine.begin * t->d.sequences, end = t->mine.end * t->d.sequences;
    r->tokens = 0;
    for (int64_t s = first; s < end && st == SAF_OK; s++) {
        st = read_one(t, read, ctx, s, s - first);
        r->tokens += t->counted[s - first];
    }
    SAF_TRY(saf_comm_agree(t->comm, st));
    SAF_TRY(saf__unagreed(t->comm, sum_up(t, r, &sum, &squares)));
    r->loss = r->tokens > 0 ? sum / (double)r->tokens : 0;
    r->gradient_norm = sqrt(squares);
    r->step = t->step + 1;
    r->rate = saf_train_rate(&t->settings, r->step);
    if (!isfinite(r->loss) || !isfinite(r->gradient_norm)) {
        st = saf_fail(SAF_FAILED,
                      "step %lld: a loss of %g nats per token and a gradient of norm %g: expected "
                      "finite numbers; a smaller learning rate may help",
                      (long long)r->step, r->loss, r->gradient_norm);
        goto out;
    }
    SAF_TRY(saf__unagreed(t->comm, update(t, r->gradient_norm)));
    t->step++;
out:
    return st;
}

saf_status saf_train_step(saf_train *train, saf_train_read read, void *ctx, saf_train_report *out) {
    saf_train_report r = {0};
    if (train->step >= train->settings.steps)
        return saf_fail(SAF_DEFECT, "a step beyond the last, %lld",
                        (long long)train->settings.steps);
    watch w = watch_start();
    saf_status st = step(train, read, ctx, &r);
    r.seconds = watch_stop(train, w);
    if (st == SAF_OK) *out = r;
    return st;
}

/* ---- evaluation ------------------------------------------------------------------------------ */

/* A micro-batch of them; what is missing of the last one counts nothing. */
static saf_status evaluate_some(saf_train *t, saf_train_read read, void *ctx, int64_t first,
                                int64_t n, double *losses, int64_t *tokens) {
    saf_status st = SAF_OK;
    for (int64_t s = 0; s < t->d.sequences; s++) {
        if (s < n) {
            SAF_TRY(read_one(t, read, ctx, first + s, s));
            *tokens += t->counted[s];
        } else {
            memset(t->ids + s * (t->d.context + 1), 0, (size_t)(t->d.context + 1) * sizeof *t->ids);
            t->counted[s] = 0;
        }
    }
    saf__sequences in = sequences_at(t, 0);
    saf__pass_forward(t->pass, &t->team, t->values, &in);
    saf__pass_head(t->pass, &t->team, t->values, &in, 1, NULL, t->losses);
    memcpy(losses + first, t->losses, (size_t)n * sizeof *losses);
    saf_comm_progress();
out:
    return st;
}

static saf_status evaluate(saf_train *t, int64_t sequences, saf_train_read read, void *ctx,
                           double *losses, saf_train_loss *out) {
    saf_status st = SAF_OK;
    saf_train_loss loss = {0};
    saf_span mine = saf__rank_share(saf_ceil_div(sequences, t->d.sequences), t->ranks, t->rank);
    memset(losses, 0, (size_t)sequences * sizeof *losses);
    for (int64_t i = mine.begin; i < mine.end && st == SAF_OK; i++) {
        int64_t first = i * t->d.sequences;
        st = evaluate_some(t, read, ctx, first, saf_i64_min(t->d.sequences, sequences - first),
                           losses, &loss.tokens);
    }
    SAF_TRY(saf_comm_agree(t->comm, st));
    SAF_TRY(saf__unagreed(t->comm, share_count(t, &loss.tokens)));
    SAF_TRY(saf__unagreed(t->comm, share_losses(t, losses, sequences, &loss.nats)));
    if (!isfinite(loss.nats)) {
        st = saf_fail(SAF_FAILED, "after step %lld: a loss of %g, expected a finite number",
                      (long long)t->step, loss.nats);
        goto out;
    }
    *out = loss;
out:
    return st;
}

saf_status saf_train_evaluate(saf_train *train, int64_t sequences, saf_train_read read, void *ctx,
                              saf_train_loss *out, double *each) {
    saf_status st = SAF_OK;
    double *own = NULL;
    if (sequences < 0)
        return saf_fail(SAF_DEFECT, "evaluates %lld sequences", (long long)sequences);
    watch w = watch_start();
    if (!each) st = saf_alloc((size_t)sequences, sizeof *own, &own);
    SAF_TRY(saf_comm_agree(train->comm, st));
    SAF_TRY(evaluate(train, sequences, read, ctx, each ? each : own, out));
out:
    (void)watch_stop(train, w);
    saf_free(&own);
    return st;
}
