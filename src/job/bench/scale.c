/* Suite model: the same requests by 1 to all ranks, each a worker with the whole model (replicas),
 * and by 1 to all ranks as the stages of one pipeline: tokens a second, how soon the first token is
 * there, and how busy every rank is. The engine is that of generate jobs. */
#include <stdio.h>

#include "job/bench/bench.h"
#include "job/bench/suites.h"

enum { PROMPT_TOKENS = SAF__SUITE_PROMPT, CHUNK = 128 };

typedef struct {
    saf__suites *w;
    saf_comm *comm; /* the ranks that take part; NULL on the others */
    int32_t ranks, replicas, stages, tokens;
    saf_layout layout;
    saf_slice *slice;
    int32_t *giver;
    saf_work work;
    saf_schedule schedule;
    saf_group *group;
    saf_kv_cache *kv;
    saf_stage *stage;
    /* of a run */
    int32_t *sampled; /* [requests] that this head ran */
    double start_s, first_s;
    double *seconds, *firsts, *compute, *wait; /* [repeats] */
    saf_buf rows;                              /* of the table of busy shares */
} scale;

/* ---- events, at the heads ---- */

static saf_status take_token(void *ctx, int32_t request, saf_sampled token, const saf_sampled *top,
                             bool *finished) {
    scale *c = ctx;
    (void)token;
    (void)top;
    if (c->sampled[request]++ == 0) c->first_s += saf_clock_s() - c->start_s;
    *finished = c->sampled[request] >= c->tokens;
    return SAF_OK;
}

static void take_fault(void *ctx, int32_t request, int32_t layer, int32_t position) {
    scale *c = ctx;
    (void)saf_fail(SAF_FAILED, "a value that is not finite left layer %d at position %d of %d",
                   layer, position, request);
    c->sampled[request] = -1;
}

/* ---- setting up ---- */

static saf_status make_work(scale *c) {
    saf_status st = SAF_OK;
    int32_t n = c->w->s->ranks, vocab = (int32_t)c->w->s->params.vocab;
    SAF_TRY(saf_alloc((size_t)n, sizeof *c->work.requests, &c->work.requests));
    c->work.n_requests = n;
    for (int32_t i = 0; i < n; i++) {
        saf_request *q = &c->work.requests[i];
        *q = (saf_request){.key = (uint64_t)i,
                           .n_prompt = PROMPT_TOKENS,
                           .max_tokens = c->tokens,
                           .sampling = {.top_p = 1, .repeat_penalty = 1}};
        SAF_TRY(saf_alloc(PROMPT_TOKENS, sizeof *q->prompt, &q->prompt));
        for (int32_t k = 0; k < PROMPT_TOKENS; k++) q->prompt[k] = (1 + 7 * k + 13 * i) % vocab;
    }
    SAF_TRY(saf_alloc((size_t)n, sizeof *c->sampled, &c->sampled));
out:
    return st;
}

static void choose_schedule(scale *c) {
    saf_schedule *d = &c->schedule;
    d->sequences = (int32_t)saf_ceil_div(c->work.n_requests, c->replicas);
    d->micro_batch = (int32_t)saf_ceil_div(d->sequences, c->stages);
    d->capacity = PROMPT_TOKENS + c->tokens;
    d->chunk = (int32_t)saf_i64_min(saf_i64_max(CHUNK, d->micro_batch),
                                    (int64_t)d->micro_batch * d->capacity);
}

static saf_status make_stage(scale *c) {
    saf_status st = SAF_OK;
    const saf__session *s = c->w->s;
    const saf_schedule *d = &c->schedule;
    saf_slice_range range = saf_layout_range(&c->layout, saf_comm_rank(c->comm));
    SAF_TRY(saf_kv_cache_new(&s->params, range, (saf_kv_type)s->settings.kv_type, d->sequences,
                             d->capacity, &c->kv));
    SAF_TRY(saf_stage_new(&s->params, c->slice, c->kv, saf_schedule_room(d, &c->work, range.head),
                          saf_group_stage(c->group), &c->stage));
out:
    return st;
}

static void free_run(scale *c) {
    saf_stage_free(&c->stage);
    saf_kv_cache_free(&c->kv);
    saf_group_free(&c->group);
    saf_work_free(&c->work);
    saf_free(&c->sampled);
}

static saf_status load(scale *c) {
    saf_status st = SAF_OK;
    const saf__session *s = c->w->s;
    saf_load_events none = {NULL, NULL};
    saf_load_times times = {0};
    saf_layout_wish wish = {.ranks = c->ranks,
                            .host = s->host,
                            .replicas = c->replicas,
                            .stages = c->stages,
                            .tensor = 1,
                            .mix = {.rows = 1, .logits = 1, .sampled = 1}};
    st = saf_layout_choose(s->gguf, &s->params, &wish, &c->layout);
    if (st == SAF_OK) st = saf_alloc((size_t)c->ranks, sizeof *c->giver, &c->giver);
    SAF_TRY(saf_comm_agree(c->comm, st));
    SAF_TRY(saf_givers_choose(c->comm, s->gguf, &s->params, &c->layout, s->has_file, c->giver));
    st = saf_load_slices(c->comm, s->gguf, &s->params, &c->layout, c->giver, &none, &times,
                         &c->slice);
    if (times.apart) saf__suite_end_apart(c->w, st);
out:
    return st;
}

/* ---- running ---- */

static saf_status run_once(scale *c, int32_t repeat) {
    saf_status st = SAF_OK;
    saf_engine_times times = {0};
    saf_engine_events events = {.ctx = c, .token = take_token, .fault = take_fault};
    memset(c->sampled, 0, (size_t)c->work.n_requests * sizeof *c->sampled);
    c->first_s = 0;
    SAF_TRY(saf_comm_barrier(c->comm));
    c->start_s = saf_clock_s();
    st = saf_engine_run(c->group, c->stage, &events, NULL, &times);
    if (times.apart) saf__suite_end_apart(c->w, st);
    for (int32_t i = 0; st == SAF_OK && i < c->work.n_requests; i++)
        if (c->sampled[i] < 0) st = saf_fail(SAF_FAILED, "suite model: a value is not finite");
    SAF_TRY(saf_comm_agree(c->comm, st));
    double slowest = saf_clock_s() - c->start_s;
    saf_tensor most = saf_tensor_1d(SAF_DTYPE_F64, &slowest, 1);
    saf_tensor sum = saf_tensor_1d(SAF_DTYPE_F64, &c->first_s, 1);
    SAF_TRY(saf_comm_allreduce(c->comm, SAF_OP_MAX, &most));
    SAF_TRY(saf_comm_allreduce(c->comm, SAF_OP_SUM, &sum));
    if (repeat < 0) goto out;
    c->seconds[repeat] = slowest;
    c->firsts[repeat] = c->first_s / c->work.n_requests;
    c->compute[repeat] = times.compute_s / slowest;
    c->wait[repeat] = times.wait_s / slowest;
out:
    return st;
}

static saf_status add_rows(scale *c) {
    saf_status st = SAF_OK;
    const saf__suites *w = c->w;
    saf__figures f;
    double tokens = (double)c->tokens * c->work.n_requests;
    saf_suite_busy busy = {.replicas = c->replicas, .stages = c->stages, .tokens = c->tokens};
    busy.rank = w->s->rank;
    memcpy(busy.host, w->hosts[busy.rank], sizeof busy.host);
    SAF_TRY(saf__spread(c->compute, w->repeats, &busy.busy, &busy.busy_min, &busy.busy_max));
    SAF_TRY(saf__median(c->wait, w->repeats, &busy.waiting));
    SAF_TRY(saf_buf_append(&c->rows, &busy, sizeof busy));
    if (w->s->rank != 0) return SAF_OK;
    SAF_TRY(saf__suite_figures(c->seconds, w->repeats, tokens, &f));
    saf_suite_scale row = {.replicas = c->replicas,
                           .stages = c->stages,
                           .tokens = c->tokens,
                           .requests = c->work.n_requests,
                           .repeats = w->repeats,
                           .seconds = f.seconds,
                           .seconds_min = f.seconds_min,
                           .seconds_max = f.seconds_max,
                           .tokens_per_s = f.rate,
                           .tokens_per_s_min = f.rate_min,
                           .tokens_per_s_max = f.rate_max};
    SAF_TRY(saf__spread(c->firsts, w->repeats, &row.first_token_s, &row.first_token_s_min,
                        &row.first_token_s_max));
    SAF_TRY(saf__suite_row(w, SAF_SUITE_SCALE, &row));
out:
    return st;
}

static saf_status measure_tokens(scale *c) {
    saf_status st = SAF_OK;
    const saf__session *s = c->w->s;
    SAF_TRY(saf_comm_agree(c->comm, make_work(c)));
    choose_schedule(c);
    SAF_TRY(saf_group_new(c->comm, &c->layout, &s->params, &c->work, &c->schedule, &c->group));
    SAF_TRY(saf_comm_agree(c->comm, make_stage(c)));
    for (int32_t r = -1; r < c->w->repeats; r++) SAF_TRY(run_once(c, r));
    SAF_TRY(saf_comm_agree(c->comm, add_rows(c)));
out:
    free_run(c);
    return st;
}

static saf_status measure(scale *c) {
    saf_status st = SAF_OK;
    const saf_job *job = c->w->s->job;
    SAF_TRY(load(c));
    for (int32_t i = 0; i < job->bench.n_completions; i++) {
        c->tokens = job->bench.completions[i];
        SAF_TRY(measure_tokens(c));
    }
out:
    saf_slice_free(&c->slice);
    saf_layout_free(&c->layout);
    saf_free(&c->giver);
    return st;
}

/* The ranks meet first: a split waits inside of MPI. */
static saf_status run_on(scale *c, int32_t replicas, int32_t stages) {
    saf_status st = SAF_OK, mine = SAF_OK;
    const saf__session *s = c->w->s;
    c->replicas = replicas;
    c->stages = stages;
    c->ranks = replicas * stages;
    SAF_TRY(saf_comm_barrier(s->world));
    SAF_TRY(saf_comm_split(s->world, s->rank < c->ranks ? 0 : -1, s->rank, &c->comm));
    if (c->comm) mine = measure(c);
    SAF_TRY(saf_comm_agree(s->world, mine));
out:
    saf_comm_free(&c->comm);
    return st;
}

saf_status saf__suite_scale(saf__suites *w) {
    enum { EVERY_COUNT = 8 }; /* up to here; then doublings */
    saf_status st = SAF_OK;
    scale c = {.w = w};
    size_t n = (size_t)w->repeats;
    int64_t layers = w->s->params.layers;
    if (w->s->job->bench.n_completions == 0) return SAF_OK;
    st = saf_alloc(n, sizeof *c.seconds, &c.seconds);
    if (st == SAF_OK) st = saf_alloc(n, sizeof *c.firsts, &c.firsts);
    if (st == SAF_OK) st = saf_alloc(n, sizeof *c.compute, &c.compute);
    if (st == SAF_OK) st = saf_alloc(n, sizeof *c.wait, &c.wait);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    for (int32_t k = 1; k <= w->s->ranks; k = k < EVERY_COUNT ? k + 1 : 2 * k) {
        SAF_TRY(run_on(&c, k, 1));
        if (k > 1 && k <= layers) SAF_TRY(run_on(&c, 1, k));
    }
    SAF_TRY(saf__suite_gather(w, SAF_SUITE_BUSY, &c.rows));
out:
    saf_free(&c.seconds);
    saf_free(&c.firsts);
    saf_free(&c.compute);
    saf_free(&c.wait);
    saf_buf_free(&c.rows);
    return st;
}
