/* What an earlier run left, on whatever grid; and what this one holds between two steps. */
#include "matrix/product.h"

/* ---- going on ---------------------------------------------------------------------------------*/

static saf_status check_part(const saf_product *p, const saf_product_part *part) {
    const saf_product_tiles *t = &p->plan->tiles;
    int64_t n = part->segments, all = saf_i64_max(1, t->segments);
    bool good = part->i >= 0 && part->i < t->tiles_m && part->j >= 0 && part->j < t->tiles_n &&
                n >= 1 && (n & (n - 1)) == 0 && part->segment >= 0 && part->segment % n == 0 &&
                n <= all && part->segment <= all - n;
    if (good && part->elements == 0) good = part->segment == 0 && n == all;
    if (good && part->elements != 0) {
        good = t->segments > 0 && part->elements == saf__tile_rows(p->plan, part->i) *
                                                        saf__tile_cols(p->plan, part->j);
        int64_t panels = 0;
        for (int64_t s = part->segment; good && s < part->segment + n; s++) {
            saf_span span = saf_product_segment(t, s);
            panels += span.end - span.begin;
        }
        good =
            good && part->panels >= 1 && (n == 1 ? part->panels <= panels : part->panels == panels);
    }
    if (good) return SAF_OK;
    return saf_fail(
        SAF_BAD_INPUT,
        "no part of this product: tile (%lld, %lld), segments %lld + %lld, %lld panels, "
        "%lld elements",
        (long long)part->i, (long long)part->j, (long long)part->segment, (long long)n,
        (long long)part->panels, (long long)part->elements);
}

static saf_status take_part(saf_product *p, int64_t index) {
    const saf_product_part *part = &p->past.parts[index];
    saf_status st = check_part(p, part);
    if (st != SAF_OK) return st;
    int64_t all = saf_i64_max(1, p->plan->tiles.segments);
    int64_t *of = p->past.of + (part->i * p->plan->tiles.tiles_n + part->j) * all;
    for (int64_t s = part->segment; s < part->segment + part->segments; s++) {
        if (of[s] >= 0)
            return saf_fail(SAF_BAD_INPUT, "segment %lld of tile (%lld, %lld) is in two parts",
                            (long long)s, (long long)part->i, (long long)part->j);
        of[s] = index;
    }
    return SAF_OK;
}

static saf_status take_all(saf_product *p, const saf_product_part *parts, int64_t n) {
    saf_status st = SAF_OK;
    const saf_product_tiles *t = &p->plan->tiles;
    int64_t tiles, all;
    if (p->done_steps > 0 || p->past.of)
        return saf_fail(SAF_DEFECT, "a product that has begun does not go on from another");
    if (n < 0 || !saf_i64_mul(t->tiles_m, t->tiles_n, &tiles) ||
        !saf_i64_mul(tiles, saf_i64_max(1, t->segments), &all) || n > all)
        return saf_fail(SAF_BAD_INPUT, "%lld parts of a product", (long long)n);
    SAF_TRY(saf_alloc((size_t)n, sizeof *parts, &p->past.parts));
    SAF_TRY(saf_alloc((size_t)all, sizeof *p->past.of, &p->past.of));
    if (n > 0) memcpy(p->past.parts, parts, (size_t)n * sizeof *parts);
    p->past.n = n;
    for (int64_t x = 0; x < all; x++) p->past.of[x] = -1;
    for (int64_t x = 0; x < n; x++) SAF_TRY(take_part(p, x));
out:
    return st;
}

saf_status saf_product_resume(saf_product *p, const saf_product_part *parts, int64_t n,
                              saf_product_read read, void *ctx) {
    p->past.read = read;
    p->past.ctx = ctx;
    p->held = -1;
    saf_status st = take_all(p, parts, n);
    if (st == SAF_OK) st = saf__schedule(p);
    st = saf_comm_agree(p->comm, st);
    if (st != SAF_OK) p->failed = st;
    return st;
}

void saf__past_free(saf__past *past) {
    saf_free(&past->parts);
    saf_free(&past->of);
}

bool saf__past_written(const saf_product *p, int64_t i, int64_t j) {
    int64_t index = saf__past_part(p, i, j, 0);
    return index >= 0 && p->past.parts[index].elements == 0;
}

int64_t saf__past_panels(const saf_product *p, int64_t i, int64_t j, int64_t segment) {
    int64_t index = saf__past_part(p, i, j, segment);
    if (index < 0) return 0;
    const saf_product_part *part = &p->past.parts[index];
    return part->segments == 1 && part->elements > 0 ? part->panels : p->plan->tiles.panels;
}

/* ---- what is held -----------------------------------------------------------------------------*/

/* The walk goes over the tiles of this rank's share, round by round, and over the sums of each. A
 * place in it: the tile's number there, and the number of the sum. */
typedef struct {
    int64_t i, j;
    int64_t round, in_round; /* the tile's number in its round */
} where;

static int64_t length(saf_span s) {
    return s.end - s.begin;
}

/* False: there are no more. `number` counts within a round; a new round begins at 0. */
static bool next_place(const saf_product *p, where *w) {
    for (; w->round < p->plan->rounds; w->round++, w->in_round = 0) {
        saf_span rows = saf__round_lines(p->plan, SAF__A, p->pool.share.line[SAF__A],
                                         saf__round_u(p, w->round)),
                 cols = saf__round_lines(p->plan, SAF__B, p->pool.share.line[SAF__B],
                                         saf__round_v(p, w->round));
        if (w->in_round >= length(rows) * length(cols)) continue;
        w->i = rows.begin + w->in_round / length(cols);
        w->j = cols.begin + w->in_round % length(cols);
        return true;
    }
    return false;
}

static bool is_home(const saf_product *p, int64_t i, int64_t j) {
    return p->pool.place % p->plan->grid_k == saf__turn(i, j, p->plan->grid_k);
}

typedef struct {
    saf_product_part part;
    const void *data;
    int64_t past; /* in an earlier run's state still, or -1 */
} held;

static held written_part(const saf_product *p, const where *w) {
    const saf_product_tiles *t = &p->plan->tiles;
    return (held){.part = {.i = w->i,
                           .j = w->j,
                           .segments = saf_i64_max(1, t->segments),
                           .panels = t->panels},
                  .past = -1};
}

/* Part `number` of the tile at w; false: it has fewer. */
static bool part_of_tile(const saf_product *p, const where *w, int64_t number, held *out) {
    bool begun = p->done_steps > 0 && w->round == p->at.round && p->n_tiles > 0;
    const saf__ctile *t = begun ? &p->tiles[w->in_round] : NULL;
    if (t ? t->written : w->round < p->at.round || saf__past_written(p, w->i, w->j)) {
        *out = written_part(p, w);
        return number == 0 && is_home(p, w->i, w->j);
    }
    if (t && number < t->n) {
        const saf__sum *s = &t->sums[number];
        *out = (held){{w->i, w->j, s->segment, s->segments, s->panels, t->elements}, s->data, -1};
        return true;
    }
    if (t) number -= t->n;
    for (int64_t s = t ? t->next : p->pool.share.segments.begin; s < p->pool.share.segments.end;
         s++) {
        int64_t index = saf__past_part(p, w->i, w->j, s);
        if (index < 0 || p->past.parts[index].segment != s || number-- > 0) continue;
        *out = (held){p->past.parts[index], NULL, index};
        return true;
    }
    return false;
}

static bool find_held(const saf_product *p, saf__walk *walk, int64_t index, held *out) {
    where w = {.round = walk->round, .in_round = walk->tile};
    while (next_place(p, &w)) {
        for (; part_of_tile(p, &w, walk->sum, out); walk->sum++, walk->index++) {
            if (walk->index != index) continue;
            walk->round = w.round;
            walk->tile = w.in_round;
            return true;
        }
        walk->sum = 0;
        w.in_round++;
    }
    return false;
}

int64_t saf_product_held(saf_product *p) {
    saf__walk walk = {.index = 0};
    held unused;
    if (p->held < 0 && p->pool.place >= 0) (void)find_held(p, &walk, -1, &unused);
    if (p->held < 0) p->held = walk.index;
    return p->held;
}

saf_status saf_product_held_at(saf_product *p, int64_t index, saf_product_part *out,
                               const void **data) {
    saf_status st = SAF_OK;
    held h;
    if (index < p->walk.index) p->walk = (saf__walk){.index = 0};
    if (p->pool.place < 0 || index < 0 || !find_held(p, &p->walk, index, &h))
        return saf_fail(SAF_DEFECT, "no part %lld of a product", (long long)index);
    if (data && h.past >= 0 && h.part.elements > 0) {
        SAF_TRY(p->past.read(p->past.ctx, h.past, p->scratch));
        h.data = p->scratch;
    }
    *out = h.part;
    if (data) *data = h.data;
out:
    return st;
}
