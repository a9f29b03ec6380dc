/* Products: which thread multiplies which tiles of 32 rows by which tokens.
 *
 * Of many tokens each group of threads has some: those that its threads normed and quantised, and
 * whose results they norm and quantise next, so that rows stay in their cores' caches. Weights are
 * read once by each group, which with so many tokens takes far less time than the operations.
 *
 * The tiles of all products of a call lie on a line, each as long as it takes, and the line is cut
 * into as many equal parts as a group has threads: matrices that read the same activations need one
 * meeting of the threads, and a matrix of few tiles does not leave some of them without work.
 */
#include <omp.h>

#include "kernel/acts.h"

typedef struct {
    const saf__kernels *kernels;
    saf_row_product p;
    const saf__acts_view *a;
    size_t tile_bytes;
    int64_t tiles, cost; /* of a tile */
} product;

static product product_of(const saf_row_product *p, const saf__acts_view *a) {
    size_t tile_bytes = saf__tile_bytes(p->w->dtype, p->w->cols);
    return (product){.kernels = saf__kernels_get(),
                     .p = *p,
                     .a = a,
                     .tile_bytes = tile_bytes,
                     .tiles = saf_ceil_div(p->w->rows, SAF_TILE_ROWS),
                     /* to read a byte takes as long as some sixty operations */
                     .cost = (int64_t)tile_bytes + a->tokens * p->w->cols};
}

static const uint8_t *tile_at(const product *m, int64_t i) {
    return (const uint8_t *)m->p.w->data + (size_t)i * m->tile_bytes;
}

static int tile_rows(const product *m, int64_t i) {
    return (int)saf_i64_min(SAF_TILE_ROWS, m->p.w->rows - i * SAF_TILE_ROWS);
}

static void multiply_quants(const product *m, int64_t first, int64_t end) {
    const saf__kernels *k = m->kernels;
    const bool few = k->in_order && k->dot_few && !m->a->by_token && m->a->tokens <= m->a->tile;
    for (int64_t i = first; i < end; i++)
        (few ? k->dot_few : k->dot_quant)(m->p.w->dtype, tile_at(m, i), m->a, tile_rows(m, i),
                                          m->p.y + i * SAF_TILE_ROWS, m->p.ldy);
}

/* Float weights: the tiles pass by once for each part of the activations that fits a core's cache.
 * The columns of a part are a multiple of COLS. */
static void multiply_floats(const product *m, int64_t first, int64_t end) {
    enum { TOKENS = 84, COLS = 256, PART_VALUES = TOKENS * 4 * COLS };
    const saf__acts_view *a = m->a;
    int64_t blocks = saf_i64_max(1, saf_ceil_div(a->tokens, TOKENS));
    int64_t tokens = saf_ceil_div(a->tokens, blocks);
    int64_t cols = PART_VALUES / saf_i64_max(1, tokens) / COLS * COLS;
    int64_t column_bytes = (int64_t)(m->tile_bytes / (size_t)saf_i64_max(1, a->cols));
    for (int64_t k = 0; k < a->cols; k += cols)
        for (int64_t t = 0; t < a->tokens; t += tokens)
            for (int64_t i = first; i < end; i++) {
                saf__float_part part = {.dtype = m->p.w->dtype,
                                        .tile = tile_at(m, i) + k * column_bytes,
                                        .x = a->x + t * a->ldx + k,
                                        .ldx = a->ldx,
                                        .tokens = saf_i64_min(tokens, a->tokens - t),
                                        .cols = saf_i64_min(cols, a->cols - k),
                                        .rows = tile_rows(m, i),
                                        .more = k > 0,
                                        .y = m->p.y + t * m->p.ldy + i * SAF_TILE_ROWS,
                                        .ldy = m->p.ldy};
                const bool last = t + tokens >= a->tokens && k + cols < a->cols;
                part.next = i + 1 < end ? tile_at(m, i + 1) + k * column_bytes
                                        : tile_at(m, first) + (last ? k + cols : k) * column_bytes;
                m->kernels->dot_float(&part);
            }
}

/* One token over whole tiles from `first` on, as many as are a multiple of the streams: each stream
 * has its part of them. Returns the tile after them. */
static int64_t multiply_streams(const product *m, int64_t first, int64_t end) {
    int64_t part = (end - first) / SAF__STREAMS;
    for (int64_t i = first; i < first + part; i++) {
        const uint8_t *tiles[SAF__STREAMS];
        float *y[SAF__STREAMS];
        for (int s = 0; s < SAF__STREAMS; s++) {
            tiles[s] = tile_at(m, i + s * part);
            y[s] = m->p.y + (i + s * part) * SAF_TILE_ROWS;
        }
        m->kernels->dot_streams(m->p.w->dtype, tiles, m->a, y);
    }
    return first + part * SAF__STREAMS;
}

static void multiply(const product *m, int64_t first, int64_t end) {
    const saf_weight *w = m->p.w;
    if (saf_dtype_is_quantised(w->dtype)) {
        int64_t i = first, whole = w->rows / SAF_TILE_ROWS;
        if (m->a->tokens == 1 && m->kernels->dot_streams && !m->kernels->in_order)
            i = multiply_streams(m, i, saf_i64_min(end, whole));
        multiply_quants(m, i, end);
    } else {
        multiply_floats(m, first, end);
    }
    if (!m->p.sum) return;
    int64_t row = first * SAF_TILE_ROWS, rows = saf_i64_min(end * SAF_TILE_ROWS, w->rows) - row;
    for (int64_t t = 0; t < m->a->tokens; t++)
        m->kernels->add(m->p.y + t * m->p.ldy + row, rows, m->p.sum + t * m->p.ldsum + row);
}

/* How many of a product's tiles come before `at`, counted from where it begins on the line. */
static int64_t tiles_before(const product *m, int64_t at) {
    if (at <= 0) return 0;
    return saf_i64_min((at + m->cost / 2) / m->cost, m->tiles);
}

/* Groups of threads, as many as have so many tokens each. Tiles of AMX are left alone: there rows
 * are kept for several tiles of tokens at a time. */
static int64_t groups_of(const saf__acts_view *a, int64_t team) {
    enum { TOKENS = 128 };
    if (a->by_token) return 1;
    for (int64_t n = team; n > 1; n--)
        if (team % n == 0 && a->tokens / n >= TOKENS) return n;
    return 1;
}

/* Whole tiles of tokens: those of group g of n. */
static saf_span tokens_of(const saf__acts_view *a, int64_t g, int64_t n) {
    int64_t tiles = saf_ceil_div(a->tokens, a->tile);
    return (saf_span){saf__share(tiles, g, n) * a->tile,
                      saf_i64_min(saf__share(tiles, g + 1, n) * a->tile, a->tokens)};
}

static saf__acts_view view_part(const saf__acts_view *a, saf_span tokens) {
    saf__acts_view part = *a;
    int64_t at = tokens.begin * a->blocks;
    part.tokens = tokens.end - tokens.begin;
    part.x = a->x ? a->x + tokens.begin * a->ldx : NULL;
    part.q = a->q ? a->q + at * SAF_QUANT_BLOCK : NULL;
    part.dx = a->dx ? a->dx + at : NULL;
    part.sums = a->sums ? a->sums + at : NULL;
    part.u = a->u ? a->u + at : NULL;
    return part;
}

void saf_matmul(const saf_row_product *products, int n, const saf_acts *x) {
    const saf__acts_view *whole = saf__acts_view_of(x);
    int64_t team = omp_get_num_threads(), groups = groups_of(whole, team), each = team / groups;
    int64_t me = omp_get_thread_num() % each, total = 0, start = 0;
    saf_span tokens = tokens_of(whole, omp_get_thread_num() / each, groups);
    saf__acts_view a = groups > 1 ? view_part(whole, tokens) : *whole;
    for (int i = 0; i < n; i++) {
        product m = product_of(&products[i], &a);
        total += m.tiles * m.cost;
    }
    int64_t from = saf__share(total, me, each), to = saf__share(total, me + 1, each);
    for (int i = 0; i < n; i++) {
        product m = product_of(&products[i], &a);
        int64_t first = tiles_before(&m, from - start), end = tiles_before(&m, to - start);
        m.p.y += tokens.begin * m.p.ldy;
        if (m.p.sum) m.p.sum += tokens.begin * m.p.ldsum;
        if (first < end) multiply(&m, first, end);
        start += m.tiles * m.cost;
    }
#pragma omp barrier
}
