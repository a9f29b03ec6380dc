/* Stage 0's loop: requests come in, flights leave and come home, what others report is taken. */
#include "parallel/first.h"

/* ---- flights leave ---- */

/* Alone: the flight is home as soon as it is computed. */
static saf_status fly_alone(saf__first *s, saf__flight *f) {
    saf_status st = SAF_OK;
    const int32_t *words;
    const float *logits;
    int64_t n_words, rows;
    SAF_TRY(saf__flight_tell(s->e, f));
    SAF_TRY(saf__flight_compute(s->e, f));
    SAF_TRY(saf__tail_run(s->tail, f, &words, &n_words, &logits, &rows));
    s->under_way++;
    saf__flight_home(s, words, logits);
out:
    return st;
}

static saf_status depart(saf__first *s) {
    saf_status st = SAF_OK;
    saf__flight *f = saf__slots_form(s);
    if (s->e->stages == 1) return fly_alone(s, f);
    /* The flight that had this buffer before is home, so its transfer is over: this only frees the
     * requests. */
    SAF_TRY(saf__flight_wait(s->e, f, SAF_TRACE_SEND));
    SAF_TRY(saf__flight_tell(s->e, f));
    SAF_TRY(saf__flight_compute(s->e, f));
    SAF_TRY(saf__flight_send(s->e, f));
    s->under_way++;
out:
    return st;
}

/* To the ranks of this stage and to the next one. */
static saf_status say_stop(saf__first *s) {
    saf_status st = SAF_OK;
    saf__flight *f = saf__flight_at(s, 0);
    SAF_TRY(saf__flight_wait(s->e, f, SAF_TRACE_SEND));
    f->stop = true;
    f->n_runs = f->tokens = 0;
    SAF_TRY(saf__flight_tell(s->e, f));
    if (s->e->stages == 1) return SAF_OK;
    SAF_TRY(saf__flight_send(s->e, f));
    SAF_TRY(saf__flight_wait(s->e, f, SAF_TRACE_SEND));
out:
    return st;
}

/* ---- and come home ---- */

static saf_status post_results(saf__first *s) {
    int64_t n = saf__result_words_max(s->e);
    if (s->under_way == 0 || s->words_request) return SAF_OK;
    s->words_tensor = saf_tensor_1d(SAF_DTYPE_I32, s->words, n);
    return saf_comm_irecv(s->e->comm, s->e->stages - 1, SAF_TAG_SAMPLED,
                          (size_t)n * sizeof *s->words, &s->words_tensor, &s->words_request);
}

static int64_t flight_logits(const saf__flight *f) {
    int64_t rows = 0;
    for (int32_t i = 0; i < f->n_runs; i++) rows += f->runs[i].logits;
    return rows;
}

/* The results of the oldest flight are there, or its logits still come. */
static saf_status take_home(saf__first *s) {
    saf_status st = SAF_OK;
    const saf__engine *e = s->e;
    if (e->work->logits) {
        int64_t rows = flight_logits(saf__flight_at(s, 0));
        saf_tensor t = saf_tensor_2d(SAF_DTYPE_F32, s->logits, rows, e->p->vocab);
        double start = saf_clock_s(), end;
        SAF_TRY(saf_comm_recv(e->comm, e->stages - 1, SAF_TAG_LOGITS,
                              (size_t)(rows * e->p->vocab) * sizeof *s->logits, &t));
        end = saf_clock_s();
        e->times->wait_s += end - start;
        saf_trace_add(e->trace, SAF_TRACE_RECEIVE, start, end, saf__flight_at(s, 0)->number, 0);
    }
    saf__flight_home(s, s->words, s->logits);
out:
    return st;
}

static saf_status take_those_home(saf__first *s, bool *any) {
    saf_status st = SAF_OK;
    *any = false;
    while (s->under_way > 0) {
        bool here = false;
        SAF_TRY(post_results(s));
        SAF_TRY(saf_comm_test(&s->words_request, &here));
        if (!here) break;
        SAF_TRY(take_home(s));
        *any = true;
    }
out:
    return st;
}

static void note_wait(const saf__first *s, double start, int64_t flight) {
    double end = saf_clock_s();
    s->e->times->wait_s += end - start;
    saf_trace_add(s->e->trace, SAF_TRACE_WAIT, start, end, flight, 0);
}

/* For a flight, or for what the queue has. */
static saf_status wait(saf__first *s) {
    saf_status st = SAF_OK;
    double start = saf_clock_s();
    bool flight = s->under_way > 0;
    SAF_TRY(post_results(s));
    SAF_TRY(saf__queue_wait(s->queue, &s->words_request));
    note_wait(s, start, flight ? saf__flight_at(s, 0)->number : -1);
    if (flight && !s->words_request) st = take_home(s);
out:
    return st;
}

static saf_status loop(saf__first *s) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__slots_admit(s)); /* at the owner before the others ask: it has the first request */
    for (;;) {
        bool any = false;
        SAF_TRY(saf__queue_step(s->queue));
        SAF_TRY(saf__slots_admit(s));
        SAF_TRY(take_those_home(s, &any));
        if (any) continue;
        if (saf__slots_may_leave(s))
            SAF_TRY(depart(s));
        else if (s->under_way > 0 || !saf__queue_is_over(s->queue))
            SAF_TRY(wait(s));
        else
            break;
    }
    SAF_TRY(say_stop(s));
out:
    return st;
}

/* ---- */

static saf_status make_room(saf__first *s) {
    saf_status st = SAF_OK;
    const saf__engine *e = s->e;
    SAF_TRY(saf__slots_new(s));
    SAF_TRY(saf_alloc((size_t)e->work->n_top + 1, sizeof *s->top, &s->top));
    SAF_TRY(saf__flights_new(e, &s->flights));
    if (e->stages == 1) {
        SAF_TRY(saf__tail_new(e, &s->tail));
    } else {
        SAF_TRY(saf_alloc((size_t)saf__result_words_max(e), sizeof *s->words, &s->words));
        if (e->work->logits)
            SAF_TRY(saf_alloc((size_t)saf_schedule_max_logits(e->schedule, e->work),
                              (size_t)e->p->vocab * sizeof *s->logits, &s->logits));
    }
out:
    return st;
}

/* What is left undone is told; the other replicas may have work for longer. */
static saf_status end(saf__first *s) {
    bool undone = saf__slots_undone(s);
    if (undone && s->events->stopped && !saf__queue_is_stopped(s->queue)) {
        saf_status st = s->events->stopped(s->events->ctx);
        if (st == SAF_OK) st = saf__slots_held(s);
        if (st != SAF_OK) saf__queue_fail(s->queue, st);
    }
    double start = saf_clock_s();
    saf_status st = saf__queue_end(s->queue, undone);
    note_wait(s, start, -1);
    s->e->times->stopped = saf__queue_left_undone(s->queue);
    return st;
}

saf_status saf__engine_first(const saf__engine *e, const saf_engine_events *events,
                             saf_status *from_events) {
    saf_status st = SAF_OK;
    saf__first s = {.e = e, .events = events};
    saf__queue_events told = {events->ctx, events->report, events->stop};
    SAF_TRY(saf__queue_new(e->group->heads, e->work->n_requests, told, &e->group->queue));
    s.queue = e->group->queue;
    SAF_TRY(make_room(&s));
    SAF_TRY(loop(&s));
    SAF_TRY(end(&s));
    *from_events = saf__queue_failed(s.queue);
out:
    saf_comm_cancel(&s.words_request);
    saf__tail_free(&s.tail);
    saf__flights_free(e, &s.flights);
    saf__slots_free(&s);
    saf__queue_free(&e->group->queue);
    saf_free(&s.words);
    saf_free(&s.logits);
    saf_free(&s.top);
    return st;
}
