/* Stage 0: admits requests to slots, forms flights, follows them, and hands out what comes back.
 *
 * A sequence is ready when it has rows to feed: the rest of its prompt, or the token that was
 * sampled last. Ready sequences wait in a queue; a flight takes from its front up to `micro_batch`
 * sequences and `chunk` rows. A sequence in the middle of its prompt is ready again as soon as its
 * piece has left, so that the pieces of one long prompt keep all stages at work.
 */
#include "parallel/flight.h"

typedef struct {
    int32_t request; /* -1: free */
    int32_t fed;     /* positions that have left */
    int32_t next_id; /* the token sampled last, to be fed when the prompt is done */
    int32_t flights; /* how many under way hold a run of it */
    bool over;       /* finished or failed: what still comes back is dropped */
} slot_state;

typedef struct {
    const saf__engine *e;
    const saf_engine_events *events;
    slot_state *slots; /* [sequences] */
    int32_t *queue;    /* ring of ready slots, [sequences] */
    int32_t queue_head, queued;
    int32_t admitted;     /* requests that have got a slot so far */
    saf__flight *flights; /* ring, [n_flights] */
    int32_t n_flights, flight_head, under_way;
    saf__tail *tail; /* when there is one stage only */
    int32_t *words;  /* results as received */
    float *logits;   /* rows as received */
    saf_sampled *top;
    saf_tensor words_tensor;
    saf_comm_request *words_request;
    saf_status status; /* of a callback: nothing new leaves, what is under way comes home */
} first_stage;

static void enqueue(first_stage *s, int32_t slot) {
    s->queue[(s->queue_head + s->queued++) % s->e->schedule->sequences] = slot;
}

static int32_t dequeue(first_stage *s) {
    int32_t slot = s->queue[s->queue_head];
    s->queue_head = (s->queue_head + 1) % s->e->schedule->sequences;
    s->queued--;
    return slot;
}

static const saf_request *request_of(const first_stage *s, int32_t slot) {
    return &s->e->work->requests[s->slots[slot].request];
}

static void admit(first_stage *s) {
    const saf_work *work = s->e->work;
    for (int32_t i = 0; i < s->e->schedule->sequences && s->admitted < work->n_requests; i++) {
        if (s->slots[i].request >= 0) continue;
        s->slots[i] = (slot_state){.request = s->admitted++};
        if (s->events->admitted) s->events->admitted(s->events->ctx, s->slots[i].request);
        enqueue(s, i);
    }
}

static void finish(first_stage *s, slot_state *slot) {
    if (slot->over) return;
    slot->over = true;
    if (s->events->done) s->events->done(s->events->ctx, slot->request);
}

/* Another flight may leave while fewer are under way than there are stages; one more when it only
 * feeds the middle of a prompt, for nothing that it holds up will be sampled from it. More would
 * split the sequences into ever smaller flights, each of which reads all weights. */
static bool may_leave(const first_stage *s) {
    if (s->queued == 0 || s->status != SAF_OK) return false;
    int32_t limit = s->e->stages;
    int32_t front = s->queue[s->queue_head];
    bool middle = request_of(s, front)->n_prompt - s->slots[front].fed > s->e->schedule->chunk;
    if (limit > 1 && middle) limit++;
    return s->under_way < limit;
}

static void add_run(first_stage *s, saf__flight *f, int32_t index, int32_t rows) {
    slot_state *slot = &s->slots[index];
    const saf_request *r = request_of(s, index);
    int32_t i = f->n_runs++;
    f->request[i] = slot->request;
    f->faults[i] = (saf_fault){-1, -1, -1};
    f->runs[i] = (saf_run){index, slot->fed, rows,
                           saf__run_logits(s->e->work, slot->request, slot->fed, rows)};
    for (int32_t k = 0; k < rows; k++)
        f->ids[f->tokens++] =
            slot->fed + k < r->n_prompt ? r->prompt[slot->fed + k] : slot->next_id;
    slot->fed += rows;
    slot->flights++;
}

static saf__flight *form_flight(first_stage *s) {
    const saf_schedule *schedule = s->e->schedule;
    saf__flight *f = &s->flights[(s->flight_head + s->under_way) % s->n_flights];
    f->stop = false;
    f->n_runs = f->tokens = 0;
    for (int32_t left = s->queued; left > 0; left--) {
        if (f->n_runs == schedule->micro_batch || f->tokens == schedule->chunk) break;
        int32_t index = dequeue(s);
        int32_t rest = request_of(s, index)->n_prompt - s->slots[index].fed;
        int32_t rows = (int32_t)saf_i64_min(saf_i64_max(rest, 1), schedule->chunk - f->tokens);
        add_run(s, f, index, rows);
        if (rest > rows) enqueue(s, index);
    }
    return f;
}

/* ---- what comes back ----------------------------------------------------------------------------
 */

static saf_status sampled_token(first_stage *s, int32_t index, const int32_t *words,
                                bool *finished) {
    slot_state *slot = &s->slots[index];
    int32_t n_top = s->e->work->n_top;
    for (int32_t k = 0; k <= n_top; k++) {
        s->top[k].id = words[2 * k];
        memcpy(&s->top[k].logprob, &words[2 * k + 1], sizeof s->top[k].logprob);
    }
    slot->next_id = s->top[0].id;
    return s->events->token(s->events->ctx, slot->request, s->top[0], s->top + 1, finished);
}

/* One run of a flight that came back; *words is moved behind its values, *rows behind its logits.
 */
static saf_status run_result(first_stage *s, const saf__flight *f, int32_t i, const int32_t **words,
                             const float **rows) {
    saf_status st = SAF_OK;
    const saf_engine_events *ev = s->events;
    const saf_run *run = &f->runs[i];
    const saf_work *work = s->e->work;
    slot_state *slot = &s->slots[run->slot];
    const int32_t *w = *words;
    const float *logits = *rows;
    int32_t fault_layer = w[0], fault_position = w[1], n = w[2];
    *words = w + 3 + (work->score ? n : n * 2 * (1 + work->n_top));
    *rows = logits + run->logits * s->e->p->vocab;
    if (slot->over) return SAF_OK;
    if (fault_layer >= 0) {
        if (ev->fault) ev->fault(ev->ctx, slot->request, fault_layer, fault_position);
        finish(s, slot);
        return SAF_OK;
    }
    if (work->logits && run->logits > 0 && ev->logits) {
        int32_t first = run->pos0 + run->tokens - run->logits;
        SAF_TRY(ev->logits(ev->ctx, slot->request, first, run->logits, logits));
    }
    if (work->score) {
        float scores[256];
        for (int32_t at = 0; ev->scores && at < n; at += 256) {
            int32_t some = (int32_t)saf_i64_min(256, n - at);
            memcpy(scores, w + 3 + at, (size_t)some * sizeof *scores);
            SAF_TRY(ev->scores(ev->ctx, slot->request, run->pos0 + at + 1, some, scores));
        }
        if (run->pos0 + run->tokens == request_of(s, run->slot)->n_prompt) finish(s, slot);
    } else if (n > 0) {
        bool finished = false;
        SAF_TRY(sampled_token(s, run->slot, w + 3, &finished));
        if (finished || slot->fed >= s->e->schedule->capacity)
            finish(s, slot);
        else
            enqueue(s, run->slot);
    }
out:
    return st;
}

/* A sequence that is over leaves its slot when nothing of it is under way any more. A failed one
 * may still wait in the queue with the rest of its prompt. */
static void release_slots(first_stage *s) {
    for (int32_t left = s->queued; left > 0; left--) {
        int32_t index = dequeue(s);
        if (!s->slots[index].over) enqueue(s, index);
    }
    for (int32_t i = 0; i < s->e->schedule->sequences; i++)
        if (s->slots[i].request >= 0 && s->slots[i].over && s->slots[i].flights == 0)
            s->slots[i].request = -1;
    admit(s);
}

static void flight_home(first_stage *s, const int32_t *words, const float *logits) {
    const saf__flight *f = &s->flights[s->flight_head];
    double start = saf_clock_s();
    for (int32_t i = 0; i < f->n_runs; i++) {
        s->slots[f->runs[i].slot].flights--;
        saf_status st = run_result(s, f, i, &words, &logits);
        if (st != SAF_OK && s->status == SAF_OK) s->status = st;
    }
    s->flight_head = (s->flight_head + 1) % s->n_flights;
    s->under_way--;
    release_slots(s);
    saf_trace_add(s->e->trace, SAF_TRACE_RECEIVE, start, saf_clock_s(), f->number, f->tokens);
}

/* ---- the loop
 * -------------------------------------------------------------------------------------*/

static int64_t flight_logits(const saf__flight *f) {
    int64_t rows = 0;
    for (int32_t i = 0; i < f->n_runs; i++) rows += f->runs[i].logits;
    return rows;
}

/* Alone: the flight is home as soon as it is computed. */
static saf_status fly_alone(first_stage *s, saf__flight *f) {
    saf_status st = SAF_OK;
    const int32_t *words;
    const float *logits;
    int64_t n_words, rows;
    SAF_TRY(saf__flight_tell(s->e, f));
    SAF_TRY(saf__flight_compute(s->e, f));
    SAF_TRY(saf__tail_run(s->tail, f, &words, &n_words, &logits, &rows));
    s->under_way++;
    flight_home(s, words, logits);
out:
    return st;
}

static saf_status depart(first_stage *s) {
    saf_status st = SAF_OK;
    saf__flight *f = form_flight(s);
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

static saf_status post_results(first_stage *s) {
    int64_t n = saf__result_words_max(s->e);
    s->words_tensor = saf_tensor_1d(SAF_DTYPE_I32, s->words, n);
    return saf_comm_irecv(s->e->comm, s->e->stages - 1, SAF_TAG_SAMPLED,
                          (size_t)n * sizeof *s->words, &s->words_tensor, &s->words_request);
}

/* Takes the oldest flight home if it has arrived, or (wait) when it has. */
static saf_status arrive(first_stage *s, bool wait, bool *arrived) {
    saf_status st = SAF_OK;
    const saf__engine *e = s->e;
    double start = saf_clock_s();
    if (!s->words_request) SAF_TRY(post_results(s));
    *arrived = true;
    SAF_TRY(wait ? saf_comm_wait(&s->words_request) : saf_comm_test(&s->words_request, arrived));
    if (!*arrived) return SAF_OK;
    if (e->work->logits) {
        int64_t rows = flight_logits(&s->flights[s->flight_head]);
        saf_tensor t = saf_tensor_2d(SAF_DTYPE_F32, s->logits, rows, e->p->vocab);
        SAF_TRY(saf_comm_recv(e->comm, e->stages - 1, SAF_TAG_LOGITS,
                              (size_t)(rows * e->p->vocab) * sizeof *s->logits, &t));
    }
    double end = saf_clock_s();
    e->times->wait_s += end - start;
    saf_trace_add(e->trace, wait ? SAF_TRACE_WAIT : SAF_TRACE_RECEIVE, start, end,
                  s->flights[s->flight_head].number, 0);
    flight_home(s, s->words, s->logits);
out:
    return st;
}

/* To the ranks of this stage and to the next one. */
static saf_status say_stop(first_stage *s) {
    saf_status st = SAF_OK;
    saf__flight *f = &s->flights[s->flight_head];
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

static saf_status loop(first_stage *s) {
    saf_status st = SAF_OK;
    admit(s);
    for (;;) {
        bool arrived = false;
        if (s->under_way > 0) SAF_TRY(arrive(s, false, &arrived));
        if (arrived) continue;
        if (may_leave(s))
            SAF_TRY(depart(s));
        else if (s->under_way > 0)
            SAF_TRY(arrive(s, true, &arrived));
        else
            break;
    }
    SAF_TRY(say_stop(s));
out:
    return st;
}

static saf_status make_room(first_stage *s) {
    saf_status st = SAF_OK;
    const saf__engine *e = s->e;
    size_t sequences = (size_t)e->schedule->sequences;
    s->n_flights = e->group->n_flights;
    SAF_TRY(saf_alloc(sequences, sizeof *s->slots, &s->slots));
    for (size_t i = 0; i < sequences; i++) s->slots[i].request = -1;
    SAF_TRY(saf_alloc(sequences, sizeof *s->queue, &s->queue));
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

saf_status saf__engine_first(const saf__engine *e, const saf_engine_events *events,
                             saf_status *from_events) {
    saf_status st = SAF_OK;
    first_stage s = {.e = e, .events = events};
    SAF_TRY(make_room(&s));
    SAF_TRY(loop(&s));
    *from_events = s.status;
out:
    saf_comm_cancel(&s.words_request);
    saf__tail_free(&s.tail);
    saf__flights_free(e, &s.flights);
    saf_free(&s.slots);
    saf_free(&s.queue);
    saf_free(&s.words);
    saf_free(&s.logits);
    saf_free(&s.top);
    return st;
}
