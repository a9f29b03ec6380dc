/* The end of the pipeline: rows to logits, logits to tokens or log-probabilities. */
#include <omp.h>

#include "parallel/flight.h"

struct saf__tail {
    const saf__engine *e;
    int64_t block;        /* rows of `logits` */
    bool *finite;         /* [block] whether a row of `logits` is */
    float *scores;        /* [max rows] log-probability of the token that follows a row */
    saf_sampled *sampled; /* [micro_batch, 1 + n_top] */
    saf_logit_ask asks[SAF_LOGIT_ROWS]; /* of rows that nobody needs whole, */
    saf_logit_row rows[SAF_LOGIT_ROWS]; /* and what they come to; */
    int64_t undecided[SAF_LOGIT_ROWS];  /* which of the block are needed whole after all, */
    int64_t n_undecided;                /* and how many */
    /* in the group's memory: of rows that somebody does, and what the ranks make of them */
    float *logits; /* [block, V] */
    float *shared_scores;
    saf_sampled *shared_sampled;
    saf_sampler **samplers; /* one for each thread */
    int n_samplers;
    saf_part *parts;  /* [ranks of the group] */
    saf_ids *history; /* [slots] tokens of the sequence in each slot */
    int32_t *words;
};

/* A row that wants logits: which run, and which position of the sequence. */
typedef struct {
    int32_t run, position;
} row_place;

int64_t saf_schedule_max_logits(const saf_schedule *schedule, const saf_work *work) {
    return work->score ? schedule->chunk : schedule->micro_batch;
}

/* What is asked of a row; -1: all of it. */
static int32_t candidates_of(const saf_work *work, const saf_request *r) {
    const saf_sampling *s = &r->sampling;
    if (work->logits) return -1;
    if (work->score) return 0;
    bool penalised = s->repeat_penalty != 1.0;
    bool far = s->repeat_last < 0 || s->repeat_last > SAF_PENALISED;
    int32_t n = saf_sampling_candidates(s);
    if (n == 0 || n > SAF_CANDIDATES - work->n_top || (penalised && far)) return -1;
    return n + work->n_top;
}

bool saf_work_whole_rows(const saf_work *work, const saf_request *request) {
    return candidates_of(work, request) < 0;
}

int32_t saf_work_candidates(const saf_work *work) {
    int32_t most = 0;
    for (int32_t i = 0; i < work->n_requests; i++) {
        int32_t n = candidates_of(work, &work->requests[i]);
        most = n > most ? n : most;
    }
    return most;
}

saf_stage_room saf_schedule_room(const saf_schedule *schedule, const saf_work *work, bool last) {
    return (saf_stage_room){.tokens = schedule->chunk,
                            .runs = schedule->micro_batch,
                            .logits = last ? saf_schedule_max_logits(schedule, work) : 0,
                            .candidates = last ? saf_work_candidates(work) : 0};
}

int64_t saf__result_words_max(const saf__engine *e) {
    int64_t per_run = 3 + (e->work->score ? 0 : 2 * (1 + (int64_t)e->work->n_top));
    return per_run * e->schedule->micro_batch + (e->work->score ? e->schedule->chunk : 0);
}

int32_t saf__run_logits(const saf_work *work, int32_t request, int32_t pos0, int32_t tokens) {
    if (work->score) return tokens;
    return pos0 + tokens >= work->requests[request].n_prompt ? 1 : 0;
}

saf_status saf__tail_new(const saf__engine *e, saf__tail **out) {
    saf_status st = SAF_OK;
    saf__tail *t = NULL;
    SAF_TRY(saf_alloc(1, sizeof *t, &t));
    t->e = e;
    char *memory = e->group->memory;
    t->logits = (float *)(void *)(memory + e->group->at.logits);
    t->shared_scores = (float *)(void *)(memory + e->group->at.scores);
    t->shared_sampled = (saf_sampled *)(void *)(memory + e->group->at.sampled);
    t->block = e->group->logits_block;
    t->n_samplers = omp_get_max_threads();
    SAF_TRY(saf_alloc((size_t)t->block, sizeof *t->finite, &t->finite));
    SAF_TRY(saf_alloc((size_t)saf_schedule_max_logits(e->schedule, e->work), sizeof *t->scores,
                      &t->scores));
    SAF_TRY(saf_alloc((size_t)e->schedule->micro_batch * (size_t)(1 + e->work->n_top),
                      sizeof *t->sampled, &t->sampled));
    SAF_TRY(saf_alloc((size_t)t->n_samplers, sizeof *t->samplers, &t->samplers));
    for (int i = 0; i < t->n_samplers; i++) SAF_TRY(saf_sampler_new(e->p->vocab, &t->samplers[i]));
    SAF_TRY(saf_alloc((size_t)e->schedule->sequences, sizeof *t->history, &t->history));
    SAF_TRY(saf_alloc((size_t)saf__result_words_max(e), sizeof *t->words, &t->words));
    SAF_TRY(saf_alloc((size_t)e->group->ranks, sizeof *t->parts, &t->parts));
    *out = t;
    t = NULL;
out:
    saf__tail_free(&t);
    return st;
}

void saf__tail_free(saf__tail **tail) {
    saf__tail *t = *tail;
    if (!t) return;
    for (int i = 0; t->samplers && i < t->n_samplers; i++) saf_sampler_free(&t->samplers[i]);
    for (int32_t i = 0; t->history && i < t->e->schedule->sequences; i++)
        saf_ids_free(&t->history[i]);
    saf_free(&t->samplers);
    saf_free(&t->history);
    saf_free(&t->finite);
    saf_free(&t->scores);
    saf_free(&t->sampled);
    saf_free(&t->words);
    saf_free(&t->parts);
    saf_free(tail);
}

/* A sequence that enters its slot brings its prompt along. */
static saf_status begin_histories(saf__tail *t, const saf__flight *f) {
    saf_status st = SAF_OK;
    for (int32_t i = 0; i < f->n_runs; i++) {
        const saf_request *r = &t->e->work->requests[f->request[i]];
        if (f->runs[i].pos0 != r->cached) continue;
        saf_ids *h = &t->history[f->runs[i].slot];
        h->len = 0;
        for (int32_t k = 0; k < r->n_prompt; k++) SAF_TRY(saf_ids_append(h, r->prompt[k]));
    }
out:
    return st;
}

static bool is_fault(const saf__flight *f, row_place place) {
    const saf_fault *fault = &f->faults[place.run];
    return fault->run >= 0 && fault->position <= place.position;
}

/* The head is what comes after the last layer. */
static void note_faults(const saf__tail *t, saf__flight *f, const row_place *places, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!t->finite[i] && !is_fault(f, places[i]))
            f->faults[places[i].run] =
                (saf_fault){places[i].run, (int32_t)t->e->p->layers, places[i].position};
}

/* The token that is scored by this row; -1 after the last one. */
static int32_t token_after(const saf__tail *t, const saf__flight *f, row_place place) {
    const saf_request *r = &t->e->work->requests[f->request[place.run]];
    return place.position + 1 < r->n_prompt ? r->prompt[place.position + 1] : -1;
}

/* ---- rows of which nobody needs all logits -----------------------------------------------------
 */

static bool are_whole(const saf__tail *t, const saf__flight *f, const row_place *places,
                      int64_t n) {
    const saf_work *work = t->e->work;
    bool whole = false;
    for (int64_t i = 0; i < n; i++)
        whole = whole || saf_work_whole_rows(work, &work->requests[f->request[places[i].run]]);
    return whole;
}

static saf_logit_ask ask_of(const saf__tail *t, const saf__flight *f, row_place place) {
    const saf_work *work = t->e->work;
    const saf_request *r = &work->requests[f->request[place.run]];
    const saf_ids *h = &t->history[f->runs[place.run].slot];
    if (work->score) return (saf_logit_ask){.scored = token_after(t, f, place)};
    return (saf_logit_ask){.scored = -1,
                           .n = saf_sampling_candidates(&r->sampling),
                           .n_top = work->n_top,
                           .sampling = &r->sampling,
                           .history = h->data,
                           .n_history = h->len};
}

static saf_sampled sampled_of(const saf_candidate *c, const saf_logit_row *row) {
    return (saf_sampled){c->id, (float)((double)c->logit - row->log_sum_exp)};
}

/* False: it takes more tokens than are known. */
static bool pick(const saf__tail *t, const saf__flight *f, row_place place,
                 const saf_logit_row *row) {
    const saf_work *work = t->e->work;
    const saf_request *r = &work->requests[f->request[place.run]];
    saf_sampled *out = t->sampled + (int64_t)place.run * (1 + work->n_top);
    int64_t position = t->history[f->runs[place.run].slot].len;
    int32_t chosen = saf_sampling_draw(row->likely, row->n, t->e->p->vocab, row->log_sum_exp,
                                       &r->sampling, r->key, position);
    if (chosen < 0) return false;
    *out++ = sampled_of(&row->likely[chosen], row);
    for (int32_t i = 0; i < row->n_top; i++) *out++ = sampled_of(&row->top[i], row);
    return true;
}

/* Each rank makes the same of what all have noted of their logits, and finds the same rows
 * undecided. */
static saf_status evaluate_joined(saf__tail *t, saf__flight *f, const row_place *places,
                                  int64_t row0, int64_t n) {
    saf_status st = SAF_OK;
    for (int64_t i = 0; i < n; i++) t->asks[i] = ask_of(t, f, places[i]);
    t->n_undecided = 0;
    SAF_TRY(saf_stage_logit_rows(t->e->stage, row0, n, t->asks, t->logits, t->rows));
    for (int64_t i = 0; i < n; i++) t->finite[i] = t->rows[i].finite;
    note_faults(t, f, places, n);
    for (int64_t i = 0; i < n; i++) {
        const saf_logit_row *row = &t->rows[i];
        if (is_fault(f, places[i])) continue;
        if (t->e->work->score)
            t->scores[row0 + i] =
                t->asks[i].scored < 0 ? 0 : (float)((double)row->scored_logit - row->log_sum_exp);
        else if (!pick(t, f, places[i], row))
            t->undecided[t->n_undecided++] = i;
    }
out:
    return st;
}

/* ---- whole rows --------------------------------------------------------------------------------
 */

static saf_status sample_row(saf__tail *t, const saf__flight *f, row_place place,
                             const float *logits) {
    const saf_work *work = t->e->work;
    const saf_request *r = &work->requests[f->request[place.run]];
    const saf_ids *h = &t->history[f->runs[place.run].slot];
    saf_sampled *out = &t->shared_sampled[(int64_t)place.run * (1 + work->n_top)];
    return saf_sampler_pick(t->samplers[omp_get_thread_num()], logits, &r->sampling, h->data,
                            h->len, r->key, h->len, out, work->n_top, out + 1);
}

static float score_row(const saf__tail *t, const saf__flight *f, row_place place,
                       const float *logits) {
    int32_t token = token_after(t, f, place);
    return token < 0 ? 0 : (float)((double)logits[token] - saf_log_sum_exp(logits, t->e->p->vocab));
}

/* Fills the group's samples or scores of one row; what belongs to a fault is left out. */
static saf_status evaluate_row(saf__tail *t, const saf__flight *f, row_place place, int64_t row,
                               const float *logits) {
    if (is_fault(f, place)) return SAF_OK;
    if (!t->e->work->score) return sample_row(t, f, place, logits);
    t->shared_scores[row] = score_row(t, f, place, logits);
    return SAF_OK;
}

/* Rows [a, b) of logits[., V], which begin with row0, by this rank alone. A single row has the
 * threads to itself: no parallel region around it, not even one of a single thread, or libgomp
 * would start new threads for those inside. */
static saf_status evaluate_rows(saf__tail *t, const saf__flight *f, const row_place *places,
                                int64_t row0, int64_t a, int64_t b, const float *logits) {
    saf_status st = SAF_OK;
    int64_t V = t->e->p->vocab;
    if (a >= b) return SAF_OK;
    if (b - a == 1) return evaluate_row(t, f, places[row0 + a], row0 + a, logits + a * V);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = a; i < b; i++) {
        saf_status mine = evaluate_row(t, f, places[row0 + i], row0 + i, logits + i * V);
        if (mine != SAF_OK) {
#pragma omp critical(saf_tail_status)
            st = mine;
        }
    }
    return st;
}

/* What rank r of the group makes of rows [row0 + a, row0 + b). */
static saf_part evaluated_part(const saf__tail *t, const row_place *places, int32_t r, int64_t a,
                               int64_t b) {
    const saf__group_places *at = &t->e->group->at;
    if (a == b) return (saf_part){.owner = r};
    if (t->e->work->score)
        return (saf_part){r, 1, at->scores + (size_t)a * sizeof *t->scores,
                          (size_t)(b - a) * sizeof *t->scores, 0};
    /* at most one row of each run, in their order */
    size_t each = (size_t)(1 + t->e->work->n_top) * sizeof *t->sampled;
    size_t first = (size_t)places[a].run, end = (size_t)places[b - 1].run + 1;
    return (saf_part){r, 1, at->sampled + first * each, (end - first) * each, 0};
}

/* Each rank of the group takes its share of the rows, and takes over what all have made of theirs.
 */
static saf_status share_out(saf__tail *t, const saf__flight *f, const row_place *places,
                            int64_t row0, int64_t n, const float *logits) {
    saf_status st = SAF_OK;
    saf_group *g = t->e->group;
    int32_t me = g->place.part;
    int64_t each = 1 + (int64_t)t->e->work->n_top;
    SAF_TRY(evaluate_rows(t, f, places, row0, n * me / g->ranks, n * (me + 1) / g->ranks, logits));
    for (int32_t r = 0; g->stage.parts && r < g->ranks; r++)
        t->parts[r] =
            evaluated_part(t, places, r, row0 + n * r / g->ranks, row0 + n * (r + 1) / g->ranks);
    SAF_TRY(saf__group_meet(g, SAF_TRACE_EXCHANGE, t->parts, g->stage.parts ? g->ranks : 0));
    for (int64_t row = row0; row < row0 + n; row++) {
        int64_t run = places[row].run * each;
        if (t->e->work->score)
            t->scores[row] = t->shared_scores[row];
        else
            memcpy(t->sampled + run, t->shared_sampled + run, (size_t)each * sizeof *t->sampled);
    }
out:
    return st;
}

static saf_status evaluate_whole(saf__tail *t, saf__flight *f, const row_place *places,
                                 int64_t row0, int64_t n) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_stage_logits(t->e->stage, row0, n, t->logits, t->finite));
    note_faults(t, f, places + row0, n);
    st = share_out(t, f, places, row0, n, t->logits);
out:
    return st;
}

/* Rows of the block at row0 for which the candidates were not enough, those side by side at once.
 */
static saf_status evaluate_undecided(saf__tail *t, const saf__flight *f, const row_place *places,
                                     int64_t row0) {
    saf_status st = SAF_OK;
    for (int64_t k = 0, n; k < t->n_undecided; k += n) {
        int64_t i = t->undecided[k];
        const float *logits = t->logits + i * t->e->p->vocab;
        for (n = 1; k + n < t->n_undecided && t->undecided[k + n] == i + n;) n++;
        SAF_TRY(saf_stage_share_logits(t->e->stage, n, logits));
        SAF_TRY(share_out(t, f, places, row0 + i, n, logits));
    }
    t->n_undecided = 0;
out:
    return st;
}

static saf_status evaluate(saf__tail *t, saf__flight *f, const row_place *places, int64_t rows) {
    saf_status st = SAF_OK;
    for (int64_t row0 = 0; row0 < rows; row0 += t->block) {
        int64_t n = saf_i64_min(t->block, rows - row0);
        if (are_whole(t, f, places + row0, n))
            SAF_TRY(evaluate_whole(t, f, places, row0, n));
        else
            SAF_TRY(evaluate_joined(t, f, places + row0, row0, n));
        SAF_TRY(evaluate_undecided(t, f, places, row0));
    }
out:
    return st;
}

/* The values of run i; `row` is its first row of scores. */
static saf_status put_values(saf__tail *t, const saf__flight *f, int32_t i, int64_t row,
                             int32_t **w) {
    const saf_work *work = t->e->work;
    const saf_run *run = &f->runs[i];
    if (work->score) {
        int32_t n_prompt = work->requests[f->request[i]].n_prompt;
        int32_t n = (int32_t)saf_i64_min(run->tokens, n_prompt - 1 - run->pos0);
        *(*w)++ = n;
        memcpy(*w, t->scores + row, (size_t)n * sizeof **w);
        *w += n;
        return SAF_OK;
    }
    *(*w)++ = run->logits;
    if (run->logits == 0) return SAF_OK;
    const saf_sampled *s = &t->sampled[(int64_t)i * (1 + work->n_top)];
    for (int32_t k = 0; k <= work->n_top; k++) {
        *(*w)++ = s[k].id;
        memcpy((*w)++, &s[k].logprob, sizeof s[k].logprob);
    }
    return saf_ids_append(&t->history[run->slot], s[0].id);
}

saf_status saf__tail_run(saf__tail *t, saf__flight *f, const int32_t **words, int64_t *n_words,
                         const float **logits, int64_t *rows) {
    saf_status st = SAF_OK;
    row_place *places = NULL;
    int64_t wanted = 0, row = 0;
    int32_t *w = t->words;
    double start = saf_clock_s(), waited = t->e->group->wait_s;
    SAF_TRY(saf_alloc((size_t)f->tokens, sizeof *places, &places));
    SAF_TRY(begin_histories(t, f));
    for (int32_t i = 0; i < f->n_runs; i++) {
        const saf_run *run = &f->runs[i];
        for (int32_t k = run->tokens - run->logits; k < run->tokens; k++)
            places[wanted++] = (row_place){i, run->pos0 + k};
    }
    SAF_TRY(evaluate(t, f, places, wanted));
    for (int32_t i = 0; i < f->n_runs; i++) {
        bool failed = f->faults[i].run >= 0;
        *w++ = failed ? f->faults[i].layer : -1;
        *w++ = f->faults[i].position;
        if (failed)
            *w++ = 0;
        else
            SAF_TRY(put_values(t, f, i, row, &w));
        row += f->runs[i].logits;
    }
    *words = t->words;
    *n_words = w - t->words;
    *logits = t->logits;
    *rows = t->e->work->logits ? wanted : 0;
    waited = t->e->group->wait_s - waited;
    t->e->times->wait_s += waited;
    double end = saf_clock_s();
    t->e->times->compute_s += end - start - waited;
    saf_trace_add(t->e->trace, SAF_TRACE_SAMPLE, start, end, f->number, f->tokens);
out:
    saf_free(&places);
    return st;
}
