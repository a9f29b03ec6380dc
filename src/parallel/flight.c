/* Flights: description, transfer, forward pass. */
#include "parallel/flight.h"

static int64_t words_max(const saf__engine *e) {
    return SAF__FLIGHT_HEAD + (int64_t)e->schedule->micro_batch * SAF__FLIGHT_RUN;
}

saf_status saf__flight_new(const saf__engine *e, int32_t place, saf__flight *f) {
    saf_status st = SAF_OK;
    const saf_group *g = e->group;
    size_t runs = (size_t)e->schedule->micro_batch, rows = (size_t)e->schedule->chunk;
    *f = (saf__flight){.place = place};
    f->x = (float *)(void *)(g->memory + g->at.x + (size_t)place * g->at.x_bytes);
    SAF_TRY(saf_alloc(runs, sizeof *f->runs, &f->runs));
    SAF_TRY(saf_alloc(runs, sizeof *f->request, &f->request));
    SAF_TRY(saf_alloc(runs, sizeof *f->faults, &f->faults));
    SAF_TRY(saf_alloc(rows, sizeof *f->ids, &f->ids));
    SAF_TRY(saf_alloc((size_t)words_max(e), sizeof *f->words, &f->words));
out:
    if (st != SAF_OK) saf__flight_free(f);
    return st;
}

void saf__flight_free(saf__flight *f) {
    saf_comm_cancel(&f->words_request);
    saf_comm_cancel(&f->x_request);
    saf_free(&f->runs);
    saf_free(&f->request);
    saf_free(&f->faults);
    saf_free(&f->ids);
    saf_free(&f->words);
}

saf_status saf__flights_new(const saf__engine *e, saf__flight **out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_alloc((size_t)e->group->n_flights, sizeof **out, out));
    for (int32_t i = 0; i < e->group->n_flights; i++) SAF_TRY(saf__flight_new(e, i, &(*out)[i]));
out:
    return st;
}

void saf__flights_free(const saf__engine *e, saf__flight **flights) {
    for (int32_t i = 0; *flights && i < e->group->n_flights; i++) saf__flight_free(&(*flights)[i]);
    saf_free(flights);
}

/* The description, from the members; returns its length. */
static int64_t describe(saf__flight *f) {
    int32_t *w = f->words;
    *w++ = f->stop ? -1 : f->n_runs;
    *w++ = f->tokens;
    for (int32_t i = 0; i < f->n_runs; i++) {
        const saf_run *run = &f->runs[i];
        const int32_t one[SAF__FLIGHT_RUN] = {
            f->request[i],        run->slot,   run->pos0,
            run->tokens,          run->logits, f->faults[i].run < 0 ? -1 : f->faults[i].layer,
            f->faults[i].position};
        memcpy(w, one, sizeof one);
        w += SAF__FLIGHT_RUN;
    }
    return w - f->words;
}

saf_status saf__flight_send(const saf__engine *e, saf__flight *f) {
    saf_status st = SAF_OK;
    double start = saf_clock_s();
    f->words_tensor = saf_tensor_1d(SAF_DTYPE_I32, f->words, describe(f));
    f->x_tensor = saf_tensor_2d(SAF_DTYPE_F32, f->x, f->tokens, e->p->width);
    SAF_TRY(
        saf_comm_isend(e->comm, e->index + 1, SAF_TAG_FLIGHT, &f->words_tensor, &f->words_request));
    SAF_TRY(
        saf_comm_isend(e->comm, e->index + 1, SAF_TAG_ACTIVATIONS, &f->x_tensor, &f->x_request));
    saf_trace_add(e->trace, SAF_TRACE_SEND, start, saf_clock_s(), f->number, f->tokens);
out:
    return st;
}

saf_status saf__flight_post_receive(const saf__engine *e, saf__flight *f) {
    saf_status st = SAF_OK;
    size_t x_bytes = (size_t)e->schedule->chunk * (size_t)e->p->width * sizeof *f->x;
    f->words_tensor = saf_tensor_1d(SAF_DTYPE_I32, f->words, words_max(e));
    f->x_tensor = saf_tensor_2d(SAF_DTYPE_F32, f->x, e->schedule->chunk, e->p->width);
    SAF_TRY(saf_comm_irecv(e->comm, e->index - 1, SAF_TAG_FLIGHT,
                           (size_t)words_max(e) * sizeof *f->words, &f->words_tensor,
                           &f->words_request));
    SAF_TRY(saf_comm_irecv(e->comm, e->index - 1, SAF_TAG_ACTIVATIONS, x_bytes, &f->x_tensor,
                           &f->x_request));
out:
    return st;
}

/* Flights come in the order in which they are computed. */
saf_status saf__flight_wait(const saf__engine *e, saf__flight *f, saf_trace_kind kind) {
    if (!f->words_request && !f->x_request) return SAF_OK;
    int64_t number = kind == SAF_TRACE_WAIT ? e->times->flights : f->number;
    double start = saf_clock_s();
    saf_status st = saf_comm_wait(&f->words_request);
    if (st == SAF_OK) st = saf_comm_wait(&f->x_request);
    double end = saf_clock_s();
    e->times->wait_s += end - start;
    saf_trace_add(e->trace, kind, start, end, number, 0);
    return st;
}

saf_status saf__flight_unpack(const saf__engine *e, saf__flight *f) {
    const int32_t *w = f->words;
    int64_t n = f->words_tensor.shape[0], tokens = 0;
    f->stop = n >= SAF__FLIGHT_HEAD && w[0] < 0;
    f->n_runs = f->stop ? 0 : w[0];
    f->tokens = w[1];
    bool ok = n == SAF__FLIGHT_HEAD + (int64_t)f->n_runs * SAF__FLIGHT_RUN &&
              f->n_runs <= e->schedule->micro_batch && f->tokens <= e->schedule->chunk;
    w += SAF__FLIGHT_HEAD;
    for (int32_t i = 0; ok && i < f->n_runs; i++, w += SAF__FLIGHT_RUN) {
        f->request[i] = w[0];
        f->runs[i] = (saf_run){w[1], w[2], w[3], w[4]};
        f->faults[i] = (saf_fault){w[5] < 0 ? -1 : i, w[5], w[6]};
        tokens += w[3];
        ok = w[0] >= 0 && w[0] < e->work->n_requests && w[1] >= 0 &&
             w[1] < e->schedule->sequences && w[2] >= 0 && w[3] > 0 &&
             w[2] <= e->schedule->capacity - w[3] && w[4] >= 0 && w[4] <= w[3];
    }
    if (!ok || tokens != f->tokens)
        return saf_fail(SAF_COMM, "stage %d is told of a micro-batch that cannot be", e->index);
    return SAF_OK;
}

/* ---- within a group ---------------------------------------------------------------------------
 */

/* All of them, for only the lead knows yet how many count. */
static saf_status meet_over_words(const saf__engine *e, saf_trace_kind kind) {
    saf_group *g = e->group;
    const saf_part told = {0, 1, g->at.words, (size_t)g->at.words_max * sizeof(int32_t), 0};
    return saf__group_meet(g, kind, &told, 1);
}

/* On the first stage every rank makes its own rows of x; to a later one they come. */
static saf_status meet_over_rows(const saf__engine *e, const saf__flight *f) {
    saf_group *g = e->group;
    if (f->stop || e->index == 0 || !g->stage.parts) return SAF_OK;
    const saf_part rows = {0, 1, g->at.x + (size_t)f->place * g->at.x_bytes,
                           (size_t)f->tokens * (size_t)e->p->width * sizeof *f->x, 0};
    return saf__group_meet(g, SAF_TRACE_EXCHANGE, &rows, 1);
}

saf_status saf__flight_tell(const saf__engine *e, saf__flight *f) {
    saf_status st = SAF_OK;
    saf_group *g = e->group;
    if (g->ranks == 1) return SAF_OK;
    int32_t *w = (int32_t *)(void *)(g->memory + g->at.words);
    double before = g->wait_s;
    int64_t n = describe(f);
    w[0] = f->place;
    w[1] = (int32_t)n;
    memcpy(w + 2, f->words, (size_t)n * sizeof *w);
    if (e->index == 0) memcpy(w + 2 + n, f->ids, (size_t)f->tokens * sizeof *w);
    SAF_TRY(meet_over_words(e, SAF_TRACE_EXCHANGE));
    SAF_TRY(meet_over_rows(e, f));
    e->times->wait_s += g->wait_s - before;
out:
    return st;
}

saf_status saf__flight_hear(const saf__engine *e, saf__flight *flights, saf__flight **out) {
    saf_status st = SAF_OK;
    saf_group *g = e->group;
    const int32_t *w = (const int32_t *)(const void *)(g->memory + g->at.words);
    double before = g->wait_s;
    SAF_TRY(meet_over_words(e, SAF_TRACE_WAIT));
    if (w[0] < 0 || w[0] >= g->n_flights || w[1] > words_max(e))
        return saf_fail(SAF_COMM, "the lead of stage %d told a micro-batch that cannot be",
                        e->index);
    saf__flight *f = &flights[w[0]];
    memcpy(f->words, w + 2, (size_t)w[1] * sizeof *w);
    f->words_tensor = saf_tensor_1d(SAF_DTYPE_I32, f->words, w[1]);
    SAF_TRY(saf__flight_unpack(e, f));
    if (e->index == 0) memcpy(f->ids, w + 2 + w[1], (size_t)f->tokens * sizeof *w);
    SAF_TRY(meet_over_rows(e, f));
    e->times->wait_s += g->wait_s - before;
    *out = f;
out:
    return st;
}

/* The first run of a request begins behind its cached positions. */
static saf_status restore_caches(const saf__engine *e, const saf__flight *f) {
    saf_status st = SAF_OK;
    for (int32_t i = 0; i < f->n_runs; i++) {
        int32_t cached = e->work->requests[f->request[i]].cached;
        if (cached == 0 || f->runs[i].pos0 != cached) continue;
        SAF_TRY(e->events->restore(e->events->ctx, f->request[i], f->runs[i].slot));
    }
out:
    return st;
}

saf_status saf__flight_compute(const saf__engine *e, saf__flight *f) {
    saf_status st = SAF_OK;
    saf_fault *found = NULL;
    double start, waited;
    SAF_TRY(restore_caches(e, f));
    start = saf_clock_s();
    waited = e->group->wait_s;
    saf_batch batch = {f->n_runs, f->tokens, f->runs, f->ids};
    SAF_TRY(saf_alloc((size_t)f->n_runs, sizeof *found, &found));
    SAF_TRY(saf_stage_forward(e->stage, &batch, f->x, found));
    for (int32_t i = 0; i < f->n_runs; i++)
        if (found[i].run >= 0 &&
            (f->faults[i].run < 0 || found[i].position < f->faults[i].position))
            f->faults[i] = found[i];
    waited = e->group->wait_s - waited;
    double end = saf_clock_s();
    e->times->wait_s += waited;
    e->times->compute_s += end - start - waited;
    f->number = e->times->flights++;
    saf_trace_add(e->trace, SAF_TRACE_COMPUTE, start, end, f->number, f->tokens);
out:
    saf_free(&found);
    return st;
}
