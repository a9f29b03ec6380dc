/* What comes back to stage 0: samples, scores, logits and faults become events. */
#include "parallel/first.h"

static saf_status sampled_token(saf__first *s, int32_t index, const int32_t *words,
                                bool *finished) {
    saf__slot *slot = &s->slots[index];
    int32_t n_top = s->e->work->n_top;
    for (int32_t k = 0; k <= n_top; k++) {
        s->top[k].id = words[2 * k];
        memcpy(&s->top[k].logprob, &words[2 * k + 1], sizeof s->top[k].logprob);
    }
    slot->next_id = s->top[0].id;
    return s->events->token(s->events->ctx, slot->request, s->top[0], s->top + 1, finished);
}

static saf_status scored_tokens(const saf__first *s, const saf_run *run, const int32_t *words,
                                int32_t n) {
    saf_status st = SAF_OK;
    const saf_engine_events *ev = s->events;
    float scores[256];
    for (int32_t at = 0; ev->scores && at < n; at += 256) {
        int32_t some = (int32_t)saf_i64_min(256, n - at);
        memcpy(scores, words + at, (size_t)some * sizeof *scores);
        SAF_TRY(ev->scores(ev->ctx, s->slots[run->slot].request, run->pos0 + at + 1, some, scores));
    }
out:
    return st;
}

/* One run of a flight that came back; *words is moved behind its values, *rows behind its logits.
 */
static saf_status run_result(saf__first *s, const saf__flight *f, int32_t i, const int32_t **words,
                             const float **rows) {
    saf_status st = SAF_OK;
    const saf_engine_events *ev = s->events;
    const saf_run *run = &f->runs[i];
    const saf_work *work = s->e->work;
    saf__slot *slot = &s->slots[run->slot];
    const int32_t *w = *words;
    const float *logits = *rows;
    int32_t fault_layer = w[0], fault_position = w[1], n = w[2];
    *words = w + 3 + (work->score ? n : n * 2 * (1 + work->n_top));
    *rows = logits + run->logits * s->e->p->vocab;
    if (slot->over || slot->drop) return SAF_OK;
    if (fault_layer >= 0) {
        /* What was restored may be at fault (see the event `restore`), and only once. */
        if (saf__request_of(s, run->slot)->cached > 0 && !slot->again) {
            slot->again = slot->drop = true;
            return SAF_OK;
        }
        if (ev->fault) ev->fault(ev->ctx, slot->request, fault_layer, fault_position);
        saf__slots_finish(s, slot);
        return SAF_OK;
    }
    if (work->logits && run->logits > 0 && ev->logits) {
        int32_t first = run->pos0 + run->tokens - run->logits;
        SAF_TRY(ev->logits(ev->ctx, slot->request, first, run->logits, logits));
    }
    if (work->score) {
        SAF_TRY(scored_tokens(s, run, w + 3, n));
        if (run->pos0 + run->tokens == saf__request_of(s, run->slot)->n_prompt)
            saf__slots_finish(s, slot);
    } else if (n > 0) {
        bool finished = false;
        SAF_TRY(sampled_token(s, run->slot, w + 3, &finished));
        if (finished || slot->fed >= s->e->schedule->capacity)
            saf__slots_finish(s, slot);
        else
            saf__slots_enqueue(s, run->slot);
    }
out:
    return st;
}

void saf__flight_home(saf__first *s, const int32_t *words, const float *logits) {
    const saf__flight *f = saf__flight_at(s, 0);
    double start = saf_clock_s();
    for (int32_t i = 0; i < f->n_runs; i++) {
        s->slots[f->runs[i].slot].flights--;
        saf_status st = run_result(s, f, i, &words, &logits);
        if (st != SAF_OK) saf__queue_fail(s->queue, st);
    }
    s->flight_head = (s->flight_head + 1) % s->e->group->n_flights;
    s->under_way--;
    saf__slots_release(s);
    saf_trace_add(s->e->trace, SAF_TRACE_RECEIVE, start, saf_clock_s(), f->number, f->tokens);
}
