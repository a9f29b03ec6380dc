/* A round: the tiles of C that a rank holds at a time, what it has of them from an earlier run, and
 * which panels anybody of its place along k still needs. */
#include "matrix/product.h"

static bool tile_needs(const saf_product *p, int64_t i, int64_t j, int64_t panel) {
    int64_t segment = saf__segment_of(&p->plan->tiles, panel);
    int64_t begin = saf_product_segment(&p->plan->tiles, segment).begin;
    return panel - begin >= saf__past_panels(p, i, j, segment);
}

/* Of the tiles of all places along m and n. */
static bool is_needed(const saf_product *p, int64_t round, int64_t panel) {
    if (!p->past.of) return true;
    for (int32_t a = 0; a < p->plan->grid_m; a++) {
        saf_span rows =
            saf__round_lines(p->plan, SAF__A, (saf_span){p->plan->row0[a], p->plan->row0[a + 1]},
                             saf__round_u(p, round));
        for (int32_t b = 0; b < p->plan->grid_n; b++) {
            saf_span cols = saf__round_lines(p->plan, SAF__B,
                                             (saf_span){p->plan->col0[b], p->plan->col0[b + 1]},
                                             saf__round_v(p, round));
            for (int64_t i = rows.begin; i < rows.end; i++)
                for (int64_t j = cols.begin; j < cols.end; j++)
                    if (tile_needs(p, i, j, panel)) return true;
        }
    }
    return false;
}

saf_status saf__round_lists(saf_product *p, int64_t round) {
    saf_status st = SAF_OK;
    saf__panel_lists *l = &p->lists[round % 2];
    int64_t n = 0, most = 0;
    if (p->listed[round % 2] == round + 1) return SAF_OK;
    if (!l->panels) {
        SAF_TRY(saf_alloc((size_t)p->plan->tiles.panels, sizeof *l->panels, &l->panels));
        SAF_TRY(saf_alloc((size_t)p->plan->grid_k + 1, sizeof *l->begin, &l->begin));
    }
    for (int32_t c = 0; c < p->plan->grid_k; c++) {
        l->begin[c] = n;
        saf_span panels = saf__share_of(p->plan, c).panels;
        for (int64_t panel = panels.begin; saf__multiplies(p) && panel < panels.end; panel++)
            if (is_needed(p, round, panel)) l->panels[n++] = panel;
        most = saf_i64_max(most, n - l->begin[c]);
    }
    l->begin[p->plan->grid_k] = n;
    p->listed[round % 2] = round + 1;
    p->batches[round % 2] = saf_ceil_div(most, p->plan->batch);
out:
    return st;
}

/* In their order, so that there are never more sums than the plan has. */
saf_status saf__round_fetch(saf_product *p, saf__ctile *t, int64_t end) {
    saf_status st = SAF_OK;
    for (; t->next < end && !t->written && saf__multiplies(p); t->next++) {
        int64_t index = saf__past_part(p, t->i, t->j, t->next);
        saf__sum *sum = NULL;
        if (index < 0 || p->past.parts[index].segment != t->next) continue;
        SAF_TRY(saf__sum_begin(t, t->next, &p->buffers, &sum));
        sum->segments = p->past.parts[index].segments;
        sum->panels = p->past.parts[index].panels;
        SAF_TRY(p->past.read(p->past.ctx, index, sum->data));
        saf__sums_join(t, p->plan, &p->buffers);
    }
out:
    return st;
}

void saf__round_begin(saf_product *p, int64_t round) {
    saf_span rows = saf__round_lines(p->plan, SAF__A, p->pool.share.line[SAF__A],
                                     saf__round_u(p, round)),
             cols = saf__round_lines(p->plan, SAF__B, p->pool.share.line[SAF__B],
                                     saf__round_v(p, round));
    int64_t segments = saf_i64_max(1, p->plan->tiles.segments);
    saf__round_end(p);
    for (int64_t i = rows.begin; i < rows.end; i++)
        for (int64_t j = cols.begin; j < cols.end; j++) {
            saf__ctile *t = &p->tiles[p->n_tiles];
            *t = (saf__ctile){.i = i, .j = j, .sums = p->sums + p->n_tiles * segments};
            t->next = p->pool.share.segments.begin;
            t->elements = saf__tile_rows(p->plan, i) * saf__tile_cols(p->plan, j);
            t->written = saf__past_written(p, i, j);
            p->n_tiles++;
        }
}

void saf__round_end(saf_product *p) {
    for (int64_t x = 0; x < p->n_tiles; x++) saf__sums_drop(&p->tiles[x], &p->buffers);
    p->n_tiles = 0;
}
