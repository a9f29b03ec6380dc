/* Rows to logits, and what rows of logits come to: the end of a pass on the last stage. */
#include "model/logits.h"

#include "model/sampler.h"
#include "model/stage.h"

enum { ALIGNMENT = 64 };

static bool reserve(int64_t n, size_t size, size_t *end) {
    size_t bytes;
    return saf_size_mul((size_t)n, size, &bytes) && saf_size_add(bytes, ALIGNMENT - 1, &bytes) &&
           saf_size_add(*end, bytes / ALIGNMENT * ALIGNMENT, end);
}

/* Ends of the four parts. */
static bool places(const saf_model_params *p, saf_stage_room room, int32_t ranks, size_t end[4]) {
    int64_t rows = saf_i64_min(room.logits, SAF_LOGIT_ROWS);
    size_t n;
    if (room.logits < 0 || ranks < 1 || room.candidates < 0 ||
        !saf_size_mul((size_t)room.logits, (size_t)ranks, &n) || n > INT64_MAX / 64)
        return false;
    end[0] = 0;
    if (!reserve((int64_t)n, sizeof(bool), &end[0])) return false;
    end[1] = end[0];
    if (!reserve(rows * ranks, sizeof(saf__found), &end[1])) return false;
    end[2] = end[1];
    if (!reserve(rows * ranks * room.candidates, sizeof(saf_candidate), &end[2])) return false;
    end[3] = end[2];
    return reserve(rows, (size_t)saf__logit_segments(p) * sizeof(saf_logit_segment), &end[3]);
}

size_t saf__logit_notes_bytes(const saf_model_params *p, saf_stage_room room, int32_t ranks) {
    size_t end[4];
    return places(p, room, ranks, end) ? end[3] : SIZE_MAX;
}

saf__logit_notes saf__logit_notes_at(const saf_model_params *p, saf_stage_room room, int32_t ranks,
                                     char *memory) {
    size_t end[4];
    if (!places(p, room, ranks, end)) return (saf__logit_notes){0};
    return (saf__logit_notes){saf_i64_min(room.logits, SAF_LOGIT_ROWS), (bool *)memory,
                              (saf__found *)(void *)(memory + end[0]),
                              (saf_candidate *)(void *)(memory + end[1]),
                              (saf_logit_segment *)(void *)(memory + end[2])};
}

/* ---- the rank's part of the vocabulary ---------------------------------------------------------
 */

static saf_status check_rows(const saf_stage *s, int64_t row0, int64_t n) {
    if (row0 < 0 || n < 0 || n > s->room.logits - row0)
        return saf_fail(SAF_DEFECT, "rows %lld of logits, from %lld on, of %lld", (long long)n,
                        (long long)row0, (long long)s->room.logits);
    return SAF_OK;
}

/* Team. */
static void multiply(saf_stage *s, int64_t row0, int64_t n, float *logits, bool *finite) {
    const saf_span vocab = s->slice->range.vocab;
    int64_t D = s->p->width, V = s->p->vocab;
    const saf_row_product product = {saf__slice_head(s->slice), logits + vocab.begin, V, NULL, 0};
    saf_acts_set_norm(s->acts, s->last + row0 * D, D, s->slice->output_norm, s->p->norm_eps, n, D,
                      saf_acts_form_of(s->acts, &product, 1, n), NULL, s->h, D);
    saf__stage_mark(s, SAF_STEP_NORM);
    saf_matmul(&product, 1, s->acts);
    saf__stage_mark(s, SAF_STEP_HEAD);
    saf_rows_finite(logits + vocab.begin, V, n, vocab.end - vocab.begin, finite);
}

static void all_true(bool *finite, int64_t n) {
    for (int64_t i = 0; i < n; i++) finite[i] = true;
}

static bool finite_everywhere(const saf_stage *s, const saf__logit_notes *notes, int64_t row) {
    int32_t ranks = s->meetings ? s->meetings->group->ranks : 1;
    bool finite = true;
    for (int32_t r = 0; r < ranks; r++) finite = finite && notes->finite[r * s->room.logits + row];
    return finite;
}

saf_status saf_stage_logits(saf_stage *s, int64_t row0, int64_t n, float *logits, bool *finite) {
    saf__meetings *m = s->meetings;
    saf_status st = check_rows(s, row0, n);
    if (st != SAF_OK) return st;
    if (m) saf__meetings_begin_logits(m, n, logits);
    const saf__logit_notes *notes = saf__stage_notes(s);
    bool *mine = m ? notes->finite + m->group->rank * s->room.logits : finite;
    all_true(mine, n);
    saf__stage_begin_marks(s);
#pragma omp parallel
    {
        multiply(s, row0, n, logits, mine);
        saf__stage_mark(s, SAF_STEP_CHECK);
        saf__stage_meet(s, SAF__MEET_LOGITS);
    }
    if (!m) return SAF_OK;
    for (int64_t i = 0; i < n && m->status == SAF_OK; i++)
        finite[i] = finite_everywhere(s, notes, i);
    return m->status;
}

/* ---- what rows come to -------------------------------------------------------------------------
 */

static bool fits_room(const saf_stage *s, const saf_logit_ask *a) {
    int32_t most = s->room.candidates < SAF_CANDIDATES ? s->room.candidates : SAF_CANDIDATES;
    saf_span window = {0, 0};
    if (a->sampling) window = saf__sampling_window(a->sampling, a->n_history);
    return a->n >= 0 && a->n_top >= 0 && a->n <= most - a->n_top && a->n_top <= s->p->vocab &&
           a->scored < s->p->vocab && window.end - window.begin <= SAF_PENALISED;
}

static saf_status check_asks(const saf_stage *s, int64_t n, const saf_logit_ask *asks) {
    bool fits = n <= SAF_LOGIT_ROWS;
    for (int64_t i = 0; fits && i < n; i++) fits = fits_room(s, &asks[i]);
    return fits ? SAF_OK
                : saf_fail(SAF_DEFECT, "more is asked of rows of logits than there is room for");
}

/* Where the candidates of a row lie, of rank r or joined. */
static saf_candidate *candidates_of(const saf_stage *s, const saf__logit_notes *notes, int32_t r,
                                    int64_t row) {
    return notes->candidates + (r * notes->rows + row) * s->room.candidates;
}

static saf_logit_row join(const saf_stage *s, const saf__logit_notes *notes, int64_t row,
                          const saf_logit_ask *ask) {
    const saf_stage_group *g = s->meetings ? s->meetings->group : NULL;
    int64_t segments = saf__logit_segments(s->p);
    saf_candidate *likely = s->joined + row * s->room.candidates, *top = likely + ask->n;
    saf_logit_row out = {.finite = finite_everywhere(s, notes, row), .likely = likely, .top = top};
    if (!out.finite) return out;
    for (int32_t r = 0; r < (g ? g->ranks : 1); r++) {
        const saf__found *found = &notes->found[r * notes->rows + row];
        const saf_candidate *c = candidates_of(s, notes, r, row);
        saf_span vocab = g ? g->ranges[r].vocab : s->slice->range.vocab;
        out.n = saf__candidates_merge(likely, out.n, ask->n, c, found->n);
        out.n_top = saf__candidates_merge(top, out.n_top, ask->n_top, c + ask->n, found->n_top);
        if (ask->scored >= vocab.begin && ask->scored < vocab.end)
            out.scored_logit = found->scored_logit;
    }
    out.log_sum_exp = saf_log_sum_exp_of(notes->segments + row * segments, segments);
    return out;
}

saf_status saf_stage_logit_rows(saf_stage *s, int64_t row0, int64_t n, const saf_logit_ask *asks,
                                float *logits, saf_logit_row *out) {
    saf_status st = SAF_OK;
    const saf_span vocab = s->slice->range.vocab;
    saf__meetings *m = s->meetings;
    int64_t V = s->p->vocab, segments = saf__logit_segments(s->p);
    int32_t rank = m ? m->group->rank : 0;
    SAF_TRY(check_rows(s, row0, n));
    SAF_TRY(check_asks(s, n, asks));
    if (m) saf__meetings_begin_logit_rows(m, n, asks);
    const saf__logit_notes *notes = saf__stage_notes(s);
    bool *finite = notes->finite + rank * s->room.logits;
    all_true(finite, n);
    saf__stage_begin_marks(s);
#pragma omp parallel
    {
        multiply(s, row0, n, logits, finite);
        saf_logit_segments(logits + vocab.begin, V, n, vocab.end - vocab.begin,
                           notes->segments + vocab.begin / SAF_LOGIT_SEGMENT, segments);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            notes->found[rank * notes->rows + i] = saf__candidates_find(
                &asks[i], vocab, notes->segments + i * segments, s->maxima + i * segments,
                logits + i * V, candidates_of(s, notes, rank, i));
        saf__stage_mark(s, SAF_STEP_CHECK);
        saf__stage_meet(s, SAF__MEET_LOGIT_ROWS);
        if (!saf__stage_apart(s)) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n; i++) out[i] = join(s, notes, i, &asks[i]);
        }
        saf__stage_mark(s, SAF_STEP_CHECK);
    }
    if (m) st = m->status;
out:
    return st;
}

saf_status saf_stage_share_logits(saf_stage *s, int64_t n, const float *logits) {
    saf_status st = SAF_OK;
    saf__meetings *m = s->meetings;
    SAF_TRY(check_rows(s, 0, n));
    if (!m || !m->group->parts) return m ? m->status : SAF_OK;
    saf__meetings_begin_logits(m, n, logits);
    all_true(saf__stage_notes(s)->finite + m->group->rank * s->room.logits, n);
    saf__stage_begin_marks(s);
    saf__stage_meet(s, SAF__MEET_LOGITS);
    st = m->status;
out:
    return st;
}
