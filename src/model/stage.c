/* A forward pass: a batch through the layers of a stage (stage_layers.c), what is noted of its
 * rows. One parallel region spans all layers. */
#include "model/stage.h"

static int64_t length(saf_span span) {
    return span.end - span.begin;
}

const saf__logit_notes *saf__stage_notes(const saf_stage *s) {
    return s->meetings ? &s->meetings->notes[s->meetings->turn] : &s->notes;
}

/* What it notes without a group. */
static saf_status take_notes(saf_stage *s) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_alloc(saf__logit_notes_bytes(s->p, s->room, 1), 1, &s->notes_memory));
    s->notes = saf__logit_notes_at(s->p, s->room, 1, s->notes_memory);
out:
    return st;
}

/* The group, or that the slice is whole, and the shapes of the part. */
static saf_status find_part(saf_stage *s, const saf_stage_group *group) {
    const saf_model_params *p = s->p;
    const saf_slice_range *r = &s->slice->range;
    s->shape =
        (saf_attn_shape){p->heads, p->kv_heads, p->head_width, r->heads, saf_slice_kv_heads(p, *r)};
    s->q_width = length(r->heads) * p->head_width;
    s->kv_width = length(s->shape.kv) * p->head_width;
    s->width = length(r->width);
    s->ff_width = length(r->ff);
    if (group) return saf__meetings_new(p, *r, s->room, group, &s->meetings);
    if (length(r->heads) != p->heads || s->width != p->width || s->ff_width != p->ff_width ||
        length(r->vocab) != p->vocab)
        return saf_fail(SAF_DEFECT, "a part of a stage, and no group");
    return take_notes(s);
}

/* Columns of the batches of a stage's own: with a group those of the norms, the others are in the
 * group's memory. */
static int64_t widest_batch(const saf_model_params *p, saf_slice_range r, bool group) {
    int64_t q_width = length(r.heads) * p->head_width;
    return group ? p->width : saf_i64_max(saf_i64_max(length(r.width), length(r.ff)), q_width);
}

size_t saf_stage_plan_bytes(const saf_model_params *p, saf_slice_range r, int64_t capacity,
                            saf_stage_room room, bool group) {
    int64_t rows = saf_i64_max(room.tokens, room.logits), layers = r.layer1 - r.layer0;
    int64_t notes = saf_i64_min(room.logits, SAF_LOGIT_ROWS);
    saf_attn_shape shape = {p->heads, p->kv_heads, p->head_width, r.heads,
                            saf_slice_kv_heads(p, r)};
    int64_t q_width = length(r.heads) * p->head_width;
    int64_t kv_width = length(shape.kv) * p->head_width;
    int64_t floats = (rows + room.logits) * p->width + notes * saf__logit_segments(p) +
                     2 * room.tokens * (q_width + kv_width + length(r.ff) + p->rope_half);
    return saf_acts_bytes(rows, widest_batch(p, r, group)) +
           saf_attn_scratch_bytes(&shape, saf_round_up(capacity, SAF_KV_SEGMENT)) +
           (size_t)floats * sizeof(float) + (size_t)room.tokens * sizeof(int32_t) +
           (size_t)(notes * room.candidates) * sizeof(saf_candidate) +
           (size_t)(layers * room.tokens) * sizeof(bool) +
           (size_t)(layers * room.runs) * sizeof(saf_attn_seq) +
           (group ? 0 : saf__logit_notes_bytes(p, room, 1));
}

saf_status saf_stage_new(const saf_model_params *p, saf_slice *slice, saf_kv_cache *kv,
                         saf_stage_room room, const saf_stage_group *group, saf_stage **out) {
    saf_status st = SAF_OK;
    saf_stage *s = NULL;
    int64_t rows = saf_i64_max(room.tokens, room.logits);
    int64_t notes = saf_i64_min(room.logits, SAF_LOGIT_ROWS);
    int64_t layers = slice->range.layer1 - slice->range.layer0;
    int64_t capacity = saf__kv_cache_capacity(kv);
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->p = p;
    s->slice = slice;
    s->kv = kv;
    s->room = room;
    SAF_TRY(find_part(s, group));
    SAF_TRY(saf_acts_new(rows, widest_batch(p, slice->range, group), &s->acts));
    SAF_TRY(saf_attn_scratch_new(&s->shape, capacity, &s->scratch));
    s->bytes = saf_stage_plan_bytes(p, slice->range, capacity, room, group != NULL);
    SAF_TRY(saf_alloc_large((size_t)(rows * p->width), sizeof(float), &s->h));
    SAF_TRY(saf_alloc_large((size_t)(room.tokens * s->q_width), sizeof(float), &s->q));
    SAF_TRY(saf_alloc_large((size_t)(room.tokens * s->kv_width), sizeof(float), &s->k));
    SAF_TRY(saf_alloc_large((size_t)(room.tokens * s->kv_width), sizeof(float), &s->v));
    SAF_TRY(saf_alloc_large((size_t)(room.tokens * s->q_width), sizeof(float), &s->a));
    SAF_TRY(saf_alloc_large((size_t)(room.tokens * s->ff_width), sizeof(float), &s->gate));
    SAF_TRY(saf_alloc_large((size_t)(room.tokens * s->ff_width), sizeof(float), &s->up));
    SAF_TRY(saf_alloc((size_t)(room.tokens * p->rope_half * 2), sizeof(float), &s->rope));
    SAF_TRY(saf_alloc_large((size_t)(room.logits * p->width), sizeof(float), &s->last));
    SAF_TRY(saf_alloc((size_t)(notes * room.candidates), sizeof *s->joined, &s->joined));
    SAF_TRY(saf_alloc((size_t)(notes * saf__logit_segments(p)), sizeof *s->maxima, &s->maxima));
    SAF_TRY(saf_alloc((size_t)(room.tokens), sizeof *s->positions, &s->positions));
    SAF_TRY(saf_alloc((size_t)(layers * room.tokens), sizeof *s->finite, &s->finite));
    SAF_TRY(saf_alloc((size_t)(layers * room.runs), sizeof *s->seqs, &s->seqs));
    *out = s;
    s = NULL;
out:
    saf_stage_free(&s);
    return st;
}

void saf_stage_free(saf_stage **stage) {
    saf_stage *s = *stage;
    if (!s) return;
    saf_acts_free(&s->acts);
    saf_attn_scratch_free(&s->scratch);
    saf__meetings_free(&s->meetings);
    float **buffers[] = {&s->h, &s->q, &s->k, &s->v, &s->a, &s->gate, &s->up, &s->rope, &s->last};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) saf_free(buffers[i]);
    saf_free(&s->notes_memory);
    saf_free(&s->joined);
    saf_free(&s->maxima);
    saf_free(&s->positions);
    saf_free(&s->finite);
    saf_free(&s->seqs);
    saf_free(stage);
}

size_t saf_stage_bytes(const saf_stage *s) {
    return s->bytes;
}

void saf_stage_tick(saf_stage *s, void (*tick)(void *ctx), void *ctx) {
    s->tick = tick;
    s->tick_ctx = ctx;
}

/* ---- profile ---- */

void saf_stage_profile(saf_stage *s, saf_profile *profile) {
    s->profile = profile;
}

void saf__stage_begin_marks(saf_stage *s) {
    if (s->profile) s->since_s = saf_clock_s();
}

/* ---- before and after the layers; one thread ---------------------------------------------------
 */

/* Where each layer keeps keys and values of each run. */
static void find_sequences(saf_stage *s, const saf_batch *batch, int64_t layers) {
    for (int64_t layer = 0; layer < layers; layer++) {
        saf_attn_seq *seq = s->seqs + layer * batch->n_runs;
        int64_t row = 0;
        for (const saf_run *run = batch->runs; run < batch->runs + batch->n_runs; run++, seq++) {
            *seq = (saf_attn_seq){.stride = saf__kv_cache_stride(s->kv),
                                  .pos0 = run->pos0,
                                  .tokens = run->tokens,
                                  .row0 = row};
            saf__kv_cache_layer(s->kv, run->slot, layer, &seq->k, &seq->v);
            row += run->tokens;
        }
    }
}

/* Notes of each run the earliest row that is not finite, and the first layer that it left so: later
 * rows attend to it, but it never to them, so what is noted does not depend on where a prompt is
 * cut. */
static void note_faults(const saf_stage *s, const saf_batch *batch, int64_t layers,
                        saf_fault *faults) {
    int64_t row = 0;
    for (int32_t i = 0; i < batch->n_runs; i++) {
        const saf_run *run = &batch->runs[i];
        faults[i] = (saf_fault){-1, -1, -1};
        for (int32_t t = 0; t < run->tokens && faults[i].run < 0; t++)
            for (int64_t layer = layers - 1; layer >= 0; layer--)
                if (!s->finite[layer * batch->tokens + row + t])
                    faults[i] =
                        (saf_fault){i, (int32_t)(s->slice->range.layer0 + layer), run->pos0 + t};
        row += run->tokens;
    }
}

static void keep_last_rows(saf_stage *s, const saf_batch *batch, const float *x) {
    int64_t D = s->p->width, row = 0, n = 0;
    for (const saf_run *run = batch->runs; run < batch->runs + batch->n_runs; run++) {
        row += run->tokens;
        memcpy(s->last + n * D, x + (row - run->logits) * D, (size_t)(run->logits * D) * sizeof *x);
        n += run->logits;
    }
}

/* ---- the pass ----------------------------------------------------------------------------------
 */

/* Checks a batch, and notes the positions of its rows. */
static saf_status begin_pass(saf_stage *s, const saf_batch *batch) {
    int64_t row = 0, wanted = 0;
    if (batch->tokens > s->room.tokens || batch->n_runs > s->room.runs)
        return saf_fail(SAF_DEFECT, "a batch of %d rows in %d runs exceeds %lld in %lld",
                        batch->tokens, batch->n_runs, (long long)s->room.tokens,
                        (long long)s->room.runs);
    for (int32_t i = 0; i < batch->n_runs; i++) {
        const saf_run *run = &batch->runs[i];
        for (int32_t t = 0; t < run->tokens; t++) s->positions[row++] = run->pos0 + t;
        wanted += run->logits;
    }
    if (s->slice->range.head && wanted > s->room.logits)
        return saf_fail(SAF_DEFECT, "a batch wants %lld rows of logits, room for %lld",
                        (long long)wanted, (long long)s->room.logits);
    return SAF_OK;
}

saf_status saf_stage_forward(saf_stage *s, const saf_batch *batch, float *x, saf_fault *faults) {
    saf_status st = SAF_OK;
    const saf_slice_range *range = &s->slice->range;
    int64_t T = batch->tokens, D = s->p->width, layers = range->layer1 - range->layer0;
    SAF_TRY(begin_pass(s, batch));
    find_sequences(s, batch, layers);
    memset(s->finite, true, (size_t)(layers * T) * sizeof *s->finite);
    if (s->meetings) saf__meetings_begin(s->meetings, range, batch, x);
    saf__stage_begin_marks(s);
#pragma omp parallel
    {
        bool *finite = NULL;
        saf__stage_embed(s, batch, x);
        for (int64_t layer = 0; layer < layers && !saf__stage_apart(s); layer++) {
            saf__stage_layer(s, layer, batch, x, finite);
#pragma omp master
            if (s->tick) s->tick(s->tick_ctx);
            finite = s->finite + layer * T;
        }
        if (finite) saf_rows_finite(x, D, T, D, finite);
        saf__stage_mark(s, SAF_STEP_CHECK);
    }
    if (s->meetings) SAF_TRY(s->meetings->status);
    note_faults(s, batch, layers, faults);
    if (range->head) keep_last_rows(s, batch, x);
out:
    return st;
}
