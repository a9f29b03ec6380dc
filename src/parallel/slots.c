/* Sequences in flight: requests get slots, those with rows to feed form flights.
 *
 * A sequence is ready when it has rows to feed: the rest of its prompt, or the token that was
 * sampled last. Ready sequences wait in line; a flight takes from the front up to `micro_batch`
 * sequences and `chunk` rows. A sequence in the middle of its prompt is ready again as soon as its
 * piece has left, so that the pieces of one long prompt keep all stages at work.
 */
#include "parallel/first.h"

saf_status saf__slots_new(saf__first *s) {
    saf_status st = SAF_OK;
    int32_t n = s->e->schedule->sequences;
    SAF_TRY(saf_alloc((size_t)n, sizeof *s->slots, &s->slots));
    for (int32_t i = 0; i < n; i++) s->slots[i].request = -1;
    s->n_free = n;
    SAF_TRY(saf_alloc((size_t)n, sizeof *s->ready, &s->ready));
out:
    return st;
}

void saf__slots_free(saf__first *s) {
    saf_free(&s->slots);
    saf_free(&s->ready);
}

void saf__slots_enqueue(saf__first *s, int32_t slot) {
    s->ready[(s->ready_head + s->n_ready++) % s->e->schedule->sequences] = slot;
}

static int32_t dequeue(saf__first *s) {
    int32_t slot = s->ready[s->ready_head];
    s->ready_head = (s->ready_head + 1) % s->e->schedule->sequences;
    s->n_ready--;
    return slot;
}

saf_status saf__slots_admit(saf__first *s) {
    saf_status st = SAF_OK;
    const saf_engine_events *ev = s->events;
    int32_t request, count;
    if (s->n_free == 0) return SAF_OK;
    SAF_TRY(saf__queue_draw(s->queue, s->n_free, &request, &count));
    for (int32_t i = 0; count > 0; i++) {
        if (s->slots[i].request >= 0) continue;
        s->slots[i] = (saf__slot){.request = request, .fed = s->e->work->requests[request].cached};
        request++;
        if (ev->admitted) ev->admitted(ev->ctx, s->slots[i].request);
        saf__slots_enqueue(s, i);
        s->n_free--;
        count--;
    }
out:
    return st;
}

bool saf__slots_undone(const saf__first *s) {
    for (int32_t i = 0; i < s->e->schedule->sequences; i++)
        if (s->slots[i].request >= 0 && !s->slots[i].over) return true;
    return false;
}

saf_status saf__slots_held(const saf__first *s) {
    saf_status st = SAF_OK;
    const saf_engine_events *ev = s->events;
    for (int32_t i = 0; ev->held && i < s->e->schedule->sequences; i++) {
        const saf__slot *slot = &s->slots[i];
        if (slot->request < 0 || slot->over) continue;
        /* What was cached before is put there only when the first run leaves. */
        if (slot->fed > saf__request_of(s, i)->cached)
            SAF_TRY(ev->held(ev->ctx, slot->request, i, slot->fed));
    }
out:
    return st;
}

void saf__slots_finish(saf__first *s, saf__slot *slot) {
    if (slot->over) return;
    slot->over = true;
    if (s->events->done) s->events->done(s->events->ctx, slot->request);
}

/* A failed sequence may still wait in line with the rest of its prompt. One that is begun again
 * waits until all of it is home. */
void saf__slots_release(saf__first *s) {
    for (int32_t left = s->n_ready; left > 0; left--) {
        int32_t index = dequeue(s);
        if (!s->slots[index].over && !s->slots[index].drop) saf__slots_enqueue(s, index);
    }
    for (int32_t i = 0; i < s->e->schedule->sequences; i++) {
        saf__slot *slot = &s->slots[i];
        if (slot->request < 0 || slot->flights > 0) continue;
        if (slot->drop) {
            slot->drop = false;
            slot->fed = 0;
            saf__slots_enqueue(s, i);
        }
        if (!slot->over) continue;
        slot->request = -1;
        s->n_free++;
    }
}

static int32_t rest_of_prompt(const saf__first *s, int32_t slot) {
    return saf__request_of(s, slot)->n_prompt - s->slots[slot].fed;
}

/* Rows of the next flight. While the first piece of a prompt goes through empty stages, and while
 * the last one does, stages wait for it: where a long prompt is alone, these two are half as long.
 */
static int32_t rows_to_leave(const saf__first *s) {
    int32_t chunk = s->e->schedule->chunk, half = (chunk + 1) / 2;
    bool alone = s->n_free == s->e->schedule->sequences - 1;
    if (s->e->stages == 1 || !alone || s->n_ready == 0) return chunk;
    int32_t rest = rest_of_prompt(s, s->ready[s->ready_head]);
    bool first = s->under_way == 0, last = rest <= chunk;
    return rest > half && (first || last) ? half : chunk;
}

/* Another flight may leave while fewer are under way than there are stages; one more when it only
 * feeds the middle of a prompt, for nothing that it holds up will be sampled from it. More would
 * split the sequences into ever smaller flights, each of which reads all weights. */
bool saf__slots_may_leave(const saf__first *s) {
    if (s->n_ready == 0 || saf__queue_begins_nothing(s->queue)) return false;
    int32_t limit = s->e->stages, front = s->ready[s->ready_head];
    bool middle = rest_of_prompt(s, front) > rows_to_leave(s);
    if (limit > 1 && middle) limit++;
    return s->under_way < limit;
}

static void add_run(saf__first *s, saf__flight *f, int32_t index, int32_t rows) {
    saf__slot *slot = &s->slots[index];
    const saf_request *r = saf__request_of(s, index);
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

saf__flight *saf__slots_form(saf__first *s) {
    const saf_schedule *schedule = s->e->schedule;
    saf__flight *f = saf__flight_at(s, s->under_way);
    int32_t most = rows_to_leave(s);
    f->stop = false;
    f->n_runs = f->tokens = 0;
    for (int32_t left = s->n_ready; left > 0; left--) {
        if (f->n_runs == schedule->micro_batch || f->tokens == most) break;
        int32_t index = dequeue(s), rest = rest_of_prompt(s, index);
        int32_t rows = (int32_t)saf_i64_min(saf_i64_max(rest, 1), most - f->tokens);
        add_run(s, f, index, rows);
        if (rest > rows) saf__slots_enqueue(s, index);
    }
    return f;
}
