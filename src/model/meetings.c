/* Memory that the ranks of a stage share, and their meetings in it. First in the memory lies
 *   one batch of activations: what comes out of attention, and out of SiLU, for the product that
 *   reads all its columns. A rank writes the next one after the meeting that follows that product;
 *   and behind it
 *   what is noted of rows of logits (logits.h), twice: a rank may still read that of one call when
 *   another is at the next.
 * The caller's x and logits follow. */
#include "model/meetings.h"

enum { ALIGNMENT = 64 };

/* Columns of the widest batch that several ranks make. */
static int64_t acts_cols(const saf_model_params *p) {
    return saf_i64_max(p->heads * p->head_width, p->ff_width);
}

static bool places(const saf_model_params *p, saf_stage_room room, int32_t ranks,
                   size_t *acts_bytes, size_t *note_bytes) {
    *acts_bytes = saf_acts_shared_bytes(room.tokens, acts_cols(p));
    *note_bytes = saf__logit_notes_bytes(p, room, ranks);
    return *acts_bytes != SIZE_MAX && *note_bytes <= SIZE_MAX / 4;
}

size_t saf_stage_shared_bytes(const saf_model_params *p, saf_stage_room room, int32_t ranks) {
    size_t acts_bytes, note_bytes, bytes;
    if (!places(p, room, ranks, &acts_bytes, &note_bytes) ||
        !saf_size_add(acts_bytes, 2 * note_bytes, &bytes))
        return SIZE_MAX;
    return bytes;
}

/* ---- the parts of a stage ----------------------------------------------------------------------
 */

static bool same(saf_span a, saf_span b) {
    return a.begin == b.begin && a.end == b.end;
}

static bool follows(saf_span part, saf_span before) {
    return part.begin == before.end && part.end >= part.begin;
}
/* Whether a part, each index of which stands for `unit` columns, begins with a block of them. */
static bool begins_block(saf_span part, int64_t unit, int64_t block) {
    return part.begin == part.end || part.begin * unit % block == 0;
}

static saf_status check_group(const saf_model_params *p, saf_slice_range mine,
                              const saf_stage_group *g) {
    saf_slice_range at = {0};
    bool ok = g->rank >= 0 && g->rank < g->ranks && (uintptr_t)g->memory % ALIGNMENT == 0 &&
              (!g->by_token || saf_kernels_by_token());
    for (int32_t i = 0; ok && i < g->ranks; i++) {
        const saf_slice_range *r = &g->ranges[i];
        ok =
            r->layer0 == mine.layer0 && r->layer1 == mine.layer1 &&
            r->embedding == mine.embedding && r->head == mine.head && follows(r->heads, at.heads) &&
            follows(r->width, at.width) && follows(r->ff, at.ff) && follows(r->vocab, at.vocab) &&
            begins_block(r->heads, p->head_width, SAF_QUANT_BLOCK) &&
            begins_block(r->ff, 1, SAF_QUANT_BLOCK) && begins_block(r->vocab, 1, SAF_LOGIT_SEGMENT);
        at = *r;
    }
    if (ok) {
        const saf_slice_range *r = &g->ranges[g->rank];
        ok = at.heads.end == p->heads && at.width.end == p->width && at.ff.end == p->ff_width &&
             at.vocab.end == p->vocab && same(r->heads, mine.heads) && same(r->width, mine.width) &&
             same(r->ff, mine.ff) && same(r->vocab, mine.vocab);
    }
    return ok ? SAF_OK : saf_fail(SAF_DEFECT, "the parts of a stage do not make up the whole");
}

/* ---- what each rank writes ---------------------------------------------------------------------
 */

typedef saf_span (*part_of)(const saf_slice_range *range);
static saf_span heads_of(const saf_slice_range *range) {
    return range->heads;
}
static saf_span width_of(const saf_slice_range *range) {
    return range->width;
}
static saf_span ff_of(const saf_slice_range *range) {
    return range->ff;
}
static saf_span vocab_of(const saf_slice_range *range) {
    return range->vocab;
}

/* Columns of rows [n, width]. */
static void list_columns(saf__meetings *m, saf__meeting what, const float *rows, int64_t n,
                         int64_t width, part_of part) {
    const saf_stage_group *g = m->group;
    for (int32_t i = 0; i < g->ranks; i++) {
        saf_span s = part(&g->ranges[i]);
        if (s.begin == s.end || n == 0) continue;
        m->written[what].items[m->written[what].n++] =
            (saf_part){.owner = i,
                       .rows = n,
                       .offset = (size_t)((const char *)(rows + s.begin) - g->memory),
                       .bytes = (size_t)(s.end - s.begin) * sizeof *rows,
                       .stride = (size_t)width * sizeof *rows};
    }
}

/* Columns of the acts, where each index of a part stands for `unit` of them. */
static void list_acts(saf__meetings *m, saf__meeting what, int64_t tokens, int64_t cols,
                      part_of part, int64_t unit, saf_acts_form form) {
    const saf_stage_group *g = m->group;
    for (int32_t i = 0; i < g->ranks; i++) {
        saf_span s = part(&g->ranges[i]);
        s = (saf_span){s.begin * unit, s.end * unit};
        m->written[what].n += saf_acts_parts(m->acts, i, tokens, cols, s, form,
                                             m->written[what].items + m->written[what].n);
    }
}

static int32_t owner_of(const saf_stage_group *g, int32_t id) {
    int32_t i = 0;
    while (i < g->ranks - 1 && id >= g->ranges[i].vocab.end) i++;
    return i;
}

/* Rows of x; those of one rank that follow each other are one entry. */
static void list_rows(saf__meetings *m, const saf_batch *batch, const float *x) {
    size_t row_bytes = (size_t)m->p->width * sizeof *x;
    saf_part *list = m->written[SAF__MEET_ROWS].items;
    int64_t n = 0;
    for (int64_t t = 0; t < batch->tokens; t++) {
        int32_t owner = owner_of(m->group, batch->ids[t]);
        if (n > 0 && list[n - 1].owner == owner) {
            list[n - 1].rows++;
            continue;
        }
        size_t at = (size_t)((const char *)x - m->group->memory) + (size_t)t * row_bytes;
        list[n++] = (saf_part){owner, 1, at, row_bytes, row_bytes};
    }
    m->written[SAF__MEET_ROWS].n = n;
}

void saf__meetings_begin(saf__meetings *m, const saf_slice_range *range, const saf_batch *batch,
                         const float *x) {
    const saf_model_params *p = m->p;
    int64_t T = batch->tokens, q_width = p->heads * p->head_width;
    if (!m->group->parts) return;
    for (int i = 0; i < SAF__MEET_COUNT; i++) m->written[i].n = 0;
    if (range->embedding) list_rows(m, batch, x);
    list_columns(m, SAF__MEET_COLUMNS, x, T, p->width, width_of);
    for (int form = 0; form < SAF_ACTS_FORMS; form++) {
        list_acts(m, (saf__meeting)(SAF__MEET_ATTENTION + form), T, q_width, heads_of,
                  p->head_width, (saf_acts_form)form);
        list_acts(m, (saf__meeting)(SAF__MEET_FF + form), T, p->ff_width, ff_of, 1,
                  (saf_acts_form)form);
    }
}

/* What is written of rows [n] of a list, `bytes` of each. */
static void list_notes(saf__meetings *m, saf__meeting what, int32_t owner, const void *first,
                       int64_t n, size_t bytes, size_t stride) {
    if (bytes == 0) return;
    size_t at = (size_t)((const char *)first - m->group->memory);
    m->written[what].items[m->written[what].n++] = (saf_part){owner, n, at, bytes, stride};
}

/* Whether there is something to list. */
static bool begin_notes(saf__meetings *m, saf__meeting what, int64_t n) {
    const saf_stage_group *g = m->group;
    m->turn = !m->turn;
    m->written[what].n = 0;
    if (!g->parts || n == 0) return false;
    for (int32_t i = 0; i < g->ranks; i++)
        list_notes(m, what, i, m->notes[m->turn].finite + i * m->room.logits, 1,
                   (size_t)n * sizeof(bool), 0);
    return true;
}

void saf__meetings_begin_logits(saf__meetings *m, int64_t n, const float *logits) {
    if (begin_notes(m, SAF__MEET_LOGITS, n))
        list_columns(m, SAF__MEET_LOGITS, logits, n, m->p->vocab, vocab_of);
}

void saf__meetings_begin_logit_rows(saf__meetings *m, int64_t n, const saf_logit_ask *asks) {
    const saf_stage_group *g = m->group;
    bool list = begin_notes(m, SAF__MEET_LOGIT_ROWS, n);
    int32_t most = 0; /* candidates of a row */
    for (int64_t i = 0; i < n; i++)
        most = asks[i].n + asks[i].n_top > most ? asks[i].n + asks[i].n_top : most;
    const saf__logit_notes *notes = &m->notes[m->turn];
    size_t each = sizeof *notes->segments;
    for (int32_t i = 0; list && i < g->ranks; i++) {
        saf_span vocab = g->ranges[i].vocab;
        int64_t first = vocab.begin / SAF_LOGIT_SEGMENT;
        int64_t segments = saf_ceil_div(vocab.end - vocab.begin, SAF_LOGIT_SEGMENT);
        list_notes(m, SAF__MEET_LOGIT_ROWS, i, notes->segments + first, n, (size_t)segments * each,
                   (size_t)saf__logit_segments(m->p) * each);
        list_notes(m, SAF__MEET_LOGIT_ROWS, i, notes->found + i * notes->rows, 1,
                   (size_t)n * sizeof *notes->found, 0);
        list_notes(m, SAF__MEET_LOGIT_ROWS, i,
                   notes->candidates + i * notes->rows * m->room.candidates, n,
                   segments > 0 ? (size_t)most * sizeof *notes->candidates : 0,
                   (size_t)m->room.candidates * sizeof *notes->candidates);
    }
}

/* ---- meetings ----------------------------------------------------------------------------------
 */

void saf__meetings_meet(saf__meetings *m, saf__meeting what) {
#pragma omp master
    if (m->status == SAF_OK)
        m->status = m->group->share(m->group->ctx, m->written[what].items, m->written[what].n);
#pragma omp barrier
}

saf_status saf__meetings_new(const saf_model_params *p, saf_slice_range range, saf_stage_room room,
                             const saf_stage_group *group, saf__meetings **out) {
    saf_status st = SAF_OK;
    saf__meetings *m = NULL;
    size_t acts_bytes, note_bytes;
    SAF_TRY(check_group(p, range, group));
    if (!places(p, room, group->ranks, &acts_bytes, &note_bytes)) {
        st = saf_fail(SAF_NO_MEMORY, "a stage of %lld rows on %d ranks is too large",
                      (long long)room.tokens, group->ranks);
        goto out;
    }
    SAF_TRY(saf_alloc(1, sizeof *m, &m));
    m->group = group;
    m->p = p;
    m->room = room;
    SAF_TRY(
        saf_acts_shared_new(group->memory, room.tokens, acts_cols(p), group->by_token, &m->acts));
    for (size_t i = 0; i < 2; i++)
        m->notes[i] =
            saf__logit_notes_at(p, room, group->ranks, group->memory + acts_bytes + i * note_bytes);
    for (int i = 0; i < SAF__MEET_COUNT && group->parts; i++) {
        int64_t most = i == SAF__MEET_ROWS ? room.tokens : (int64_t)group->ranks * SAF_ACTS_PARTS;
        SAF_TRY(saf_alloc((size_t)most, sizeof(saf_part), &m->written[i].items));
    }
    *out = m;
    m = NULL;
out:
    saf__meetings_free(&m);
    return st;
}

void saf__meetings_free(saf__meetings **meetings) {
    saf__meetings *m = *meetings;
    if (!m) return;
    saf_acts_free(&m->acts);
    for (int i = 0; i < SAF__MEET_COUNT; i++) saf_free(&m->written[i].items);
    saf_free(meetings);
}
