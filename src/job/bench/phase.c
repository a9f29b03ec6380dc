#include "job/bench/bench.h"

enum { FILL_CHUNK = 512 };

/* Any tokens do: nothing depends on them but the sampled text, which nobody reads. */
static int32_t token_of(const saf_model_params *p, int64_t sequence, int64_t position) {
    return (int32_t)((1 + 7 * position + 13 * sequence) % p->vocab);
}

static saf_status check_faults(const saf__bench_phase *p, int32_t n_runs) {
    for (int32_t i = 0; i < n_runs; i++)
        if (p->faults[i].run >= 0)
            return saf_fail(SAF_FAILED, "a value that is not finite left layer %d at position %d",
                            p->faults[i].layer, p->faults[i].position);
    return SAF_OK;
}

/* The batch of one pass; ids are there already. */
static saf_batch batch_of(saf__bench_phase *p, int32_t pass) {
    const saf__bench_shape *h = &p->shape;
    for (int32_t i = 0; i < h->sequences; i++)
        p->runs[i] = (saf_run){i, h->context + pass * h->tokens, h->tokens, 1};
    return (saf_batch){h->sequences, h->sequences * h->tokens, p->runs, p->ids};
}

/* Keys and values of everything before the first pass. */
static saf_status fill_context(saf__bench_phase *p) {
    saf_status st = SAF_OK;
    for (int32_t s = 0; s < p->shape.sequences; s++)
        for (int32_t pos = 0; pos < p->shape.context;) {
            int32_t n = (int32_t)saf_i64_min(FILL_CHUNK, p->shape.context - pos);
            saf_run run = {s, pos, n, 0};
            saf_batch batch = {1, n, &run, p->ids};
            for (int32_t i = 0; i < n; i++) p->ids[i] = token_of(p->params, s, pos + i);
            SAF_TRY(saf_stage_forward(p->stage, &batch, p->x, p->faults));
            SAF_TRY(check_faults(p, 1));
            pos += n;
        }
out:
    return st;
}

/* The head and the likeliest token of each sequence, as the last stage of a job picks it. */
static saf_status sample(saf__bench_phase *p) {
    saf_logit_ask asks[SAF_LOGIT_ROWS];
    for (int i = 0; i < SAF_LOGIT_ROWS; i++) asks[i] = (saf_logit_ask){.scored = -1, .n = 1};
    for (int64_t row = 0; row < p->shape.sequences; row += SAF_LOGIT_ROWS) {
        int64_t n = saf_i64_min(SAF_LOGIT_ROWS, p->shape.sequences - row);
        saf_status st = saf_stage_logit_rows(p->stage, row, n, asks, p->logits, p->rows);
        if (st != SAF_OK) return st;
        for (int64_t i = 0; i < n; i++) {
            if (!p->rows[i].finite)
                return saf_fail(SAF_FAILED, "a value that is not finite left the head");
            p->sampled[row + i] = p->rows[i].likely[0].id;
        }
    }
    return SAF_OK;
}

saf_status saf__bench_phase_run(saf__bench_phase *p, int32_t repeat, double *seconds) {
    saf_status st = SAF_OK;
    const saf__bench_shape *h = &p->shape;
    p->profiles[repeat] = (saf_profile){{0}};
    saf_stage_profile(p->stage, &p->profiles[repeat]);
    for (int32_t i = 0; i < h->sequences; i++)
        for (int32_t t = 0; t < h->tokens; t++)
            p->ids[i * h->tokens + t] = token_of(p->params, i, h->context + t);
    double start = saf_clock_s();
    for (int32_t pass = 0; pass < h->passes; pass++) {
        saf_batch batch = batch_of(p, pass);
        SAF_TRY(saf_stage_forward(p->stage, &batch, p->x, p->faults));
        SAF_TRY(check_faults(p, batch.n_runs));
        SAF_TRY(sample(p));
        if (h->tokens == 1)
            for (int32_t i = 0; i < h->sequences; i++) p->ids[i] = p->sampled[i];
    }
    *seconds = saf_clock_s() - start;
out:
    saf_stage_profile(p->stage, NULL);
    return st;
}

/* What the passes of a repetition need, added up. */
static void count_cost(saf__bench_phase *p) {
    saf_cost one[SAF_STEP_COUNT];
    for (int32_t pass = 0; pass < p->shape.passes; pass++) {
        saf_batch batch = batch_of(p, pass);
        saf_stage_cost(p->stage, &batch, one);
        for (int i = 0; i < SAF_STEP_COUNT; i++) {
            p->cost[i].weight_bytes += one[i].weight_bytes;
            p->cost[i].kv_bytes += one[i].kv_bytes;
            p->cost[i].int8_ops += one[i].int8_ops;
            p->cost[i].float_ops += one[i].float_ops;
        }
    }
}

static saf_status make_room(const saf__session *s, int32_t repeats, saf__bench_phase *p) {
    saf_status st = SAF_OK;
    const saf__bench_shape *h = &p->shape;
    size_t n = (size_t)h->sequences, rows = (size_t)p->max_tokens;
    size_t logit_rows = n < SAF_LOGIT_ROWS ? n : SAF_LOGIT_ROWS;
    int64_t capacity = (int64_t)h->context + (int64_t)h->tokens * h->passes;
    SAF_TRY(saf_kv_cache_new(&s->params, s->range, (saf_kv_type)s->settings.kv_type, h->sequences,
                             capacity, &p->kv));
    const saf_stage_room room = {p->max_tokens, h->sequences, h->sequences, 1};
    SAF_TRY(saf_stage_new(&s->params, s->slice, p->kv, room, NULL, &p->stage));
    SAF_TRY(saf_alloc(n, sizeof *p->runs, &p->runs));
    SAF_TRY(saf_alloc(n, sizeof *p->faults, &p->faults));
    SAF_TRY(saf_alloc(rows, sizeof *p->ids, &p->ids));
    SAF_TRY(saf_alloc(rows, (size_t)s->params.width * sizeof *p->x, &p->x));
    SAF_TRY(saf_alloc(logit_rows, (size_t)s->params.vocab * sizeof *p->logits, &p->logits));
    SAF_TRY(saf_alloc(logit_rows, sizeof *p->rows, &p->rows));
    SAF_TRY(saf_alloc(n, sizeof *p->sampled, &p->sampled));
    SAF_TRY(saf_alloc((size_t)repeats, sizeof *p->profiles, &p->profiles));
out:
    return st;
}

saf_status saf__bench_phase_new(const saf__session *s, const saf__bench_shape *shape,
                                int32_t repeats, saf__bench_phase *p) {
    saf_status st = SAF_OK;
    double ignored;
    p->shape = *shape;
    p->params = &s->params;
    p->max_tokens = saf_i64_max((int64_t)shape->sequences * shape->tokens,
                                saf_i64_min(FILL_CHUNK, shape->context));
    SAF_TRY(make_room(s, repeats, p));
    count_cost(p);
    SAF_TRY(fill_context(p));
    SAF_TRY(saf__bench_phase_run(p, 0, &ignored));
out:
    return st;
}

void saf__bench_phase_free(saf__bench_phase *p) {
    saf_free(&p->runs);
    saf_free(&p->faults);
    saf_free(&p->ids);
    saf_free(&p->x);
    saf_free(&p->logits);
    saf_free(&p->rows);
    saf_free(&p->sampled);
    saf_free(&p->profiles);
    saf_stage_free(&p->stage);
    saf_kv_cache_free(&p->kv);
}
