/* In place of src/model/stage.c: the linker hands what the engine asks of a stage to these. */
#include "stage.h"

#include <math.h>

#include "model/meetings.h"
#include "sim.h"

typedef struct {
    const sim_model *m;
    saf_place place;
    saf_slice_range range;
    saf__meetings *meetings; /* or NULL */
    int32_t *first;          /* [stages + 1] layers */
    saf_plan_host *host;     /* [stages] */
    saf__plan_replica replica;
    saf__plan_batch flight; /* the last one */
    int32_t *next; /* [micro_batch] tokens that follow those of its rows that want logits */
    saf_candidate likely[SAF_LOGIT_ROWS];
    void (*tick)(void *ctx);
    void *ctx;
} stage;

void sim_model_new(const saf_gguf *g, const saf_model_params *p, const saf_layout *layout,
                   const saf_schedule *schedule, sim_model *out) {
    *out = (sim_model){.layout = layout, .schedule = schedule};
    sim_check(saf_plan_model_new(g, p, SAF_KV_F16, &out->plan));
    sim_check(saf__plan_split_make(&out->plan, layout->tensor, &out->split));
}

int32_t sim_token(int64_t vocab, int64_t n) {
    double golden = (double)n * 0.6180339887498949, u = golden - floor(golden);
    return (int32_t)(pow((double)vocab, u) - 0.5);
}

saf_stage *sim_stage_new(const sim_model *m, saf_place place, saf_slice_range range,
                         const saf_schedule *schedule, saf_stage_room room,
                         const saf_stage_group *group) {
    stage *s = NULL;
    int32_t stages = m->layout->stages, *first = NULL;
    saf_plan_host *host = NULL;
    sim_check(saf_alloc(1, sizeof *s, &s));
    sim_check(saf_alloc((size_t)stages + 1, sizeof *first, &first));
    sim_check(saf_alloc((size_t)stages, sizeof *host, &host));
    for (int32_t i = 0; i < stages; i++) {
        saf_place lead = {place.replica, i, 0};
        int32_t rank = saf_layout_rank(m->layout, lead);
        saf_slice_range r = saf_layout_range(m->layout, rank);
        first[i] = (int32_t)r.layer0;
        first[i + 1] = (int32_t)r.layer1;
        host[i] = *sim_class_of(sim_host_of(rank));
    }
    *s = (stage){.m = m, .place = place, .range = range, .first = first, .host = host};
    sim_check(saf_alloc((size_t)schedule->micro_batch, sizeof *s->next, &s->next));
    s->replica = (saf__plan_replica){.stages = stages,
                                     .hosts_per_stage = 1,
                                     .ranks_per_host = sim.ranks_per_host,
                                     .split = &m->split,
                                     .host = host,
                                     .first = first,
                                     .schedule = *schedule};
    if (group) sim_check(saf__meetings_new(m->plan.params, range, room, group, &s->meetings));
    return (saf_stage *)s;
}

void sim_stage_free(saf_stage *which) {
    stage *s = (stage *)which;
    saf__meetings_free(&s->meetings);
    saf_free(&s->next);
    saf_free(&s->host);
    saf_free(&s->first);
    saf_free(&s);
}

static double seconds_of(const stage *s, double logits) {
    saf__plan_batch f = s->flight;
    f.logits = logits;
    return saf__plan_rank_s(&s->m->plan, &s->m->work, &s->replica, s->place.stage, 0, &f);
}

static void meet(const stage *s, saf__meeting what) {
    if (!s->meetings) return;
    saf__meetings_meet(s->meetings, what);
    sim_check(s->meetings->status);
}

/* So that rows x context is what attention computes, and sequences x context what it reads. */
static void note_flight(stage *s, const saf_batch *batch) {
    double pairs = 0, positions = 0;
    int32_t *next = s->next;
    for (int32_t i = 0; i < batch->n_runs; i++) {
        const saf_run *r = &batch->runs[i];
        pairs += r->tokens * (r->pos0 + (r->tokens + 1) / 2.0);
        positions += r->pos0 + r->tokens;
        if (r->logits)
            *next++ =
                sim_token(s->m->plan.params->vocab, 31 * (int64_t)r->slot + r->pos0 + r->tokens);
    }
    s->flight = (saf__plan_batch){.rows = batch->tokens, .context = pairs / batch->tokens};
    s->flight.sequences = positions / s->flight.context;
}

static void meet_in_layers(const stage *s, const saf_batch *batch, const float *x) {
    bool floats = s->m->plan.sums[1].float_ops > s->m->plan.sums[1].int8_ops;
    int form = floats ? SAF_ACTS_FLOATS : SAF_ACTS_BY_TOKEN; /* both orders have as many bytes */
    const saf__meeting turns[4] = {(saf__meeting)(SAF__MEET_ATTENTION + form), SAF__MEET_COLUMNS,
                                   (saf__meeting)(SAF__MEET_FF + form), SAF__MEET_COLUMNS};
    int64_t layers = s->range.layer1 - s->range.layer0;
    double part = seconds_of(s, 0) / (double)layers / 4;
    saf__meetings_begin(s->meetings, &s->range, batch, x);
    if (s->range.embedding) meet(s, SAF__MEET_ROWS);
    for (int64_t layer = 0; layer < layers; layer++) {
        for (int i = 0; i < 4; i++) {
            sim_compute(part);
            meet(s, turns[i]);
        }
        s->tick(s->ctx);
    }
}

/* Between two layers only replicas have something to say to each other. */
static void compute_layers(const stage *s) {
    int64_t pieces = s->m->layout->replicas == 1 ? 1 : s->range.layer1 - s->range.layer0;
    double seconds = seconds_of(s, 0) / (double)pieces;
    for (int64_t i = 0; i < pieces; i++) {
        sim_compute(seconds);
        s->tick(s->ctx);
    }
}

saf_status __wrap_saf_stage_forward(saf_stage *which, const saf_batch *batch, float *x,
                                    saf_fault *faults);
saf_status __wrap_saf_stage_forward(saf_stage *which, const saf_batch *batch, float *x,
                                    saf_fault *faults) {
    stage *s = (stage *)which;
    note_flight(s, batch);
    if (s->meetings)
        meet_in_layers(s, batch, x);
    else
        compute_layers(s);
    for (int32_t i = 0; i < batch->n_runs; i++) faults[i] = (saf_fault){-1, -1, -1};
    return SAF_OK;
}

saf_status __wrap_saf_stage_logit_rows(saf_stage *which, int64_t row0, int64_t n,
                                       const saf_logit_ask *asks, float *logits,
                                       saf_logit_row *out);
saf_status __wrap_saf_stage_logit_rows(saf_stage *which, int64_t row0, int64_t n,
                                       const saf_logit_ask *asks, float *logits,
                                       saf_logit_row *out) {
    stage *s = (stage *)which;
    (void)logits;
    for (int64_t i = 0; i < n; i++) {
        s->likely[i] = (saf_candidate){.id = s->next[row0 + i]};
        out[i] = (saf_logit_row){.finite = true, .n = 1, .likely = &s->likely[i]};
    }
    sim_compute(seconds_of(s, (double)n) - seconds_of(s, 0));
    if (s->meetings) saf__meetings_begin_logit_rows(s->meetings, n, asks);
    meet(s, SAF__MEET_LOGIT_ROWS);
    return SAF_OK;
}

void __wrap_saf_stage_tick(saf_stage *which, void (*tick)(void *ctx), void *ctx);
void __wrap_saf_stage_tick(saf_stage *which, void (*tick)(void *ctx), void *ctx) {
    stage *s = (stage *)which;
    s->tick = tick;
    s->ctx = ctx;
}

/* Nothing is drawn: no memory for it, on hundreds of ranks. */
saf_status __wrap_saf_sampler_new(int64_t vocab, saf_sampler **out);
saf_status __wrap_saf_sampler_new(int64_t vocab, saf_sampler **out) {
    (void)vocab;
    *out = NULL;
    return SAF_OK;
}
