/* Rows to logits, and what rows of logits come to: the end of a pass on the last stage. */
#include "model/logits.h"

#include "model/stage.h"

enum { ALIGNMENT = 64 };

static bool reserve(int64_t n, size_t size, size_t *end) {
    size_t bytes;
    return saf_size_mul((size_t)n, size, &bytes) && saf_size_add(bytes, ALIGNMENT - 1, &bytes) &&
           saf_size_add(*end, bytes / ALIGNMENT * ALIGNMENT, end);
}

/* Ends of the three parts. */
static bool places(const saf_model_params *p, int64_t max_logits, int32_t ranks, size_t end[3]) {
    size_t n;
    if (max_logits < 0 || ranks < 1 || !saf_size_mul((size_t)max_logits, (size_t)ranks, &n) ||
        n > INT64_MAX / 64)
        return false;
    end[0] = 0;
    if (!reserve((int64_t)n, sizeof(bool), &end[0])) return false;
    end[1] = end[0];
    if (!reserve((int64_t)n, sizeof(saf__found), &end[1])) return false;
    end[2] = end[1];
    return reserve(max_logits, (size_t)saf__logit_segments(p) * sizeof(saf_logit_segment), &end[2]);
}

size_t saf__logit_notes_bytes(const saf_model_params *p, int64_t max_logits, int32_t ranks) {
    size_t end[3];
    return places(p, max_logits, ranks, end) ? end[2] : SIZE_MAX;
}

saf__logit_notes saf__logit_notes_at(const saf_model_params *p, int64_t max_logits, int32_t ranks,
                                     char *memory) {
    size_t end[3];
    if (!places(p, max_logits, ranks, end)) return (saf__logit_notes){0};
    return (saf__logit_notes){(bool *)memory, (saf__found *)(void *)(memory + end[0]),
                              (saf_logit_segment *)(void *)(memory + end[1])};
}

/* ---- the rank's part of the vocabulary ---------------------------------------------------------
 */

static saf_status check_rows(const saf_stage *s, int64_t row0, int64_t n) {
    if (row0 < 0 || n < 0 || n > s->max_logits - row0)
        return saf_fail(SAF_DEFECT, "rows %lld of logits, from %lld on, of %lld", (long long)n,
                        (long long)row0, (long long)s->max_logits);
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
    for (int32_t r = 0; r < ranks; r++) finite = finite && notes->finite[r * s->max_logits + row];
    return finite;
}

saf_status saf_stage_logits(saf_stage *s, int64_t row0, int64_t n, float *logits, bool *finite) {
    saf__meetings *m = s->meetings;
    saf_status st = check_rows(s, row0, n);
    if (st != SAF_OK) return st;
    if (m) saf__meetings_begin_logits(m, n, logits);
    const saf__logit_notes *notes = saf__stage_notes(s);
    bool *mine = m ? notes->finite + m->group->rank * s->max_logits : finite;
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

/* In the rank's part of a row with these segments. */
static saf__found find(saf_span vocab, const saf_logit_segment *segments, const float *row,
                       int32_t asked) {
    saf__found found = {.best = -1};
    int64_t from = 0;
    for (int64_t v = vocab.begin; v < vocab.end; v += SAF_LOGIT_SEGMENT) {
        float max = segments[v / SAF_LOGIT_SEGMENT].max;
        if (v > vocab.begin && !(max > found.best_logit)) continue;
        found.best_logit = max;
        from = v;
    }
    for (int64_t v = from; v < vocab.end && found.best < 0; v++)
        if (row[v] == found.best_logit) found.best = (int32_t)v;
    if (asked >= vocab.begin && asked < vocab.end) found.asked_logit = row[asked];
    return found;
}

static saf_logit_row join(const saf_stage *s, const saf__logit_notes *notes, int64_t row,
                          int32_t asked) {
    const saf_stage_group *g = s->meetings ? s->meetings->group : NULL;
    int64_t segments = saf__logit_segments(s->p);
    saf_logit_row out = {.finite = finite_everywhere(s, notes, row), .best = -1};
    if (!out.finite) return out;
    for (int32_t r = 0; r < (g ? g->ranks : 1); r++) {
        const saf__found *found = &notes->found[r * s->max_logits + row];
        saf_span vocab = g ? g->ranges[r].vocab : s->slice->range.vocab;
        if (found->best >= 0 && (out.best < 0 || found->best_logit > out.best_logit)) {
            out.best = found->best;
            out.best_logit = found->best_logit;
        }
        if (asked >= vocab.begin && asked < vocab.end) out.asked_logit = found->asked_logit;
    }
    out.log_sum_exp = saf_log_sum_exp_of(notes->segments + row * segments, segments);
    return out;
}

saf_status saf_stage_logit_rows(saf_stage *s, int64_t row0, int64_t n, const int32_t *asked,
                                float *logits, saf_logit_row *out) {
    const saf_span vocab = s->slice->range.vocab;
    saf__meetings *m = s->meetings;
    int64_t V = s->p->vocab, segments = saf__logit_segments(s->p);
    saf_status st = check_rows(s, row0, n);
    if (st != SAF_OK) return st;
    if (m) saf__meetings_begin_logit_rows(m, n);
    const saf__logit_notes *notes = saf__stage_notes(s);
    int64_t mine = m ? m->group->rank * s->max_logits : 0;
    all_true(notes->finite + mine, n);
    saf__stage_begin_marks(s);
#pragma omp parallel
    {
        multiply(s, row0, n, logits, notes->finite + mine);
        saf_logit_segments(logits + vocab.begin, V, n, vocab.end - vocab.begin,
                           notes->segments + vocab.begin / SAF_LOGIT_SEGMENT, segments);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++)
            notes->found[mine + i] =
                find(vocab, notes->segments + i * segments, logits + i * V, asked[i]);
        saf__stage_mark(s, SAF_STEP_CHECK);
        saf__stage_meet(s, SAF__MEET_LOGIT_ROWS);
        if (!saf__stage_apart(s)) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n; i++) out[i] = join(s, notes, i, asked[i]);
        }
        saf__stage_mark(s, SAF_STEP_CHECK);
    }
    return m ? m->status : SAF_OK;
}
