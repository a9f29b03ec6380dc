/* The engine's entry, and the loops of every stage but the first, and of those who lead none. */
#include "parallel/flight.h"

/* Results on their way back to stage 0. Two sets of buffers would save the last stage a wait of a
 * few microseconds: the words are small, and logits are only sent when they are to be stored. */
typedef struct {
    int32_t *words;
    saf_tensor words_tensor, logits_tensor;
    saf_comm_request *words_request, *logits_request;
    int64_t number; /* of the flight that they are of */
} result_sender;

static saf_status wait_results(const saf__engine *e, result_sender *r) {
    if (!r->words_request && !r->logits_request) return SAF_OK;
    double start = saf_clock_s();
    saf_status st = saf_comm_wait(&r->words_request);
    if (st == SAF_OK) st = saf_comm_wait(&r->logits_request);
    double end = saf_clock_s();
    e->times->wait_s += end - start;
    saf_trace_add(e->trace, SAF_TRACE_SEND, start, end, r->number, 0);
    return st;
}

static saf_status send_results(const saf__engine *e, saf__tail *tail, saf__flight *f,
                               result_sender *r) {
    saf_status st = SAF_OK;
    const int32_t *words;
    const float *logits;
    int64_t n_words, rows;
    SAF_TRY(wait_results(e, r)); /* the tail's buffers are read until then */
    SAF_TRY(saf__tail_run(tail, f, &words, &n_words, &logits, &rows));
    double start = saf_clock_s();
    r->number = f->number;
    r->words_tensor = saf_tensor_1d(SAF_DTYPE_I32, (void *)words, n_words);
    SAF_TRY(saf_comm_isend(e->comm, 0, SAF_TAG_SAMPLED, &r->words_tensor, &r->words_request));
    if (e->work->logits) {
        r->logits_tensor = saf_tensor_2d(SAF_DTYPE_F32, (void *)logits, rows, e->p->vocab);
        SAF_TRY(saf_comm_isend(e->comm, 0, SAF_TAG_LOGITS, &r->logits_tensor, &r->logits_request));
    }
    saf_trace_add(e->trace, SAF_TRACE_SEND, start, saf_clock_s(), f->number, f->tokens);
out:
    return st;
}

/* Two flights: while one is computed the next one arrives. A buffer is free for the next receive
 * once its own transfer to the next stage is over. */
saf_status saf__engine_later(const saf__engine *e) {
    saf_status st = SAF_OK;
    saf__flight *flights = NULL;
    saf__tail *tail = NULL;
    result_sender results = {0};
    bool last = e->index == e->stages - 1, shared_logits = e->group->ranks > 1 && e->work->logits;
    SAF_TRY(saf__flights_new(e, &flights));
    if (last) SAF_TRY(saf__tail_new(e, &tail));
    SAF_TRY(saf__flight_post_receive(e, &flights[0]));
    for (int now = 0;; now = 1 - now) {
        saf__flight *f = &flights[now], *next = &flights[1 - now];
        SAF_TRY(saf__flight_wait(e, f, SAF_TRACE_WAIT));
        SAF_TRY(saf__flight_unpack(e, f));
        SAF_TRY(saf__flight_wait(e, next, SAF_TRACE_SEND));
        SAF_TRY(saf__flight_tell(e, f));
        if (!f->stop) {
            SAF_TRY(saf__flight_post_receive(e, next));
            if (shared_logits) SAF_TRY(wait_results(e, &results)); /* others write into them */
            SAF_TRY(saf__flight_compute(e, f));
            if (last) SAF_TRY(send_results(e, tail, f, &results));
        }
        if (!last) SAF_TRY(saf__flight_send(e, f));
        if (!f->stop) continue;
        SAF_TRY(saf__flight_wait(e, f, SAF_TRACE_SEND));
        SAF_TRY(wait_results(e, &results));
        break;
    }
out:
    saf__tail_free(&tail);
    saf__flights_free(e, &flights);
    return st;
}

saf_status saf__engine_follow(const saf__engine *e) {
    saf_status st = SAF_OK;
    saf__flight *flights = NULL;
    saf__tail *tail = NULL;
    const int32_t *words;
    const float *logits;
    int64_t n_words, rows;
    SAF_TRY(saf__flights_new(e, &flights));
    if (e->index == e->stages - 1) SAF_TRY(saf__tail_new(e, &tail));
    for (;;) {
        saf__flight *f = NULL;
        SAF_TRY(saf__flight_hear(e, flights, &f));
        if (f->stop) break;
        SAF_TRY(saf__flight_compute(e, f));
        if (tail) SAF_TRY(saf__tail_run(tail, f, &words, &n_words, &logits, &rows));
    }
out:
    saf__tail_free(&tail);
    saf__flights_free(e, &flights);
    return st;
}

/* Between two layers: messages move on, and so does the queue of requests. */
static void move_on(void *ctx) {
    saf_group *g = ctx;
    saf_comm_progress();
    if (g->queue) saf__queue_tick(g->queue);
}

saf_status saf_engine_run(saf_group *group, saf_stage *stage, const saf_engine_events *events,
                          saf_trace *trace, saf_engine_times *times) {
    saf__engine e = {.group = group,
                     .comm = group->pipe,
                     .p = group->p,
                     .stage = stage,
                     .work = group->work,
                     .schedule = group->schedule,
                     .events = events,
                     .index = group->place.stage,
                     .stages = group->stages,
                     .times = times,
                     .trace = trace};
    saf_status st, from_events = SAF_OK;
    *times = (saf_engine_times){0};
    group->trace = trace;
    saf_stage_tick(stage, move_on, group);
    if (!saf__group_leads(group))
        st = saf__engine_follow(&e);
    else if (e.index > 0)
        st = saf__engine_later(&e);
    else
        st = saf__engine_first(&e, events, &from_events);
    saf_stage_tick(stage, NULL, NULL);
    times->apart = st != SAF_OK;
    return st != SAF_OK ? st : from_events;
}
