/* Products: which thread multiplies which tiles of 32 rows. */
#include <omp.h>

#include "kernel/acts.h"

typedef struct {
    const saf__kernels *kernels;
    const saf_weight *w;
    const saf__acts_view *a;
    size_t tile_bytes;
    float *y;
    int64_t ldy;
} product;

static const uint8_t *tile_at(const product *p, int64_t i) {
    return (const uint8_t *)p->w->data + (size_t)i * p->tile_bytes;
}

static int tile_rows(const product *p, int64_t i) {
    return (int)saf_i64_min(SAF_TILE_ROWS, p->w->rows - i * SAF_TILE_ROWS);
}

static void multiply_quants(const product *p, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++)
        p->kernels->dot_quant(p->w->dtype, tile_at(p, i), p->a, tile_rows(p, i),
                              p->y + i * SAF_TILE_ROWS, p->ldy);
}

/* Float weights: the tiles pass by once for each part of the activations that fits a core's cache.
 * The columns of a part are a multiple of COLS. */
static void multiply_floats(const product *p, int64_t first, int64_t end) {
    enum { TOKENS = 84, COLS = 256, PART_VALUES = TOKENS * 4 * COLS };
    const saf__acts_view *a = p->a;
    int64_t blocks = saf_i64_max(1, saf_ceil_div(a->tokens, TOKENS));
    int64_t tokens = saf_ceil_div(a->tokens, blocks);
    int64_t cols = PART_VALUES / saf_i64_max(1, tokens) / COLS * COLS;
    int64_t column_bytes = (int64_t)(p->tile_bytes / (size_t)saf_i64_max(1, a->cols));
    for (int64_t k = 0; k < a->cols; k += cols)
        for (int64_t t = 0; t < a->tokens; t += tokens)
            for (int64_t i = first; i < end; i++) {
                saf__float_part part = {.dtype = p->w->dtype,
                                        .tile = tile_at(p, i) + k * column_bytes,
                                        .x = a->x + t * a->ldx + k,
                                        .ldx = a->ldx,
                                        .tokens = saf_i64_min(tokens, a->tokens - t),
                                        .cols = saf_i64_min(cols, a->cols - k),
                                        .rows = tile_rows(p, i),
                                        .more = k > 0,
                                        .y = p->y + t * p->ldy + i * SAF_TILE_ROWS,
                                        .ldy = p->ldy};
                part.next = tile_at(p, i + 1 < end ? i + 1 : first) + k * column_bytes;
                p->kernels->dot_float(&part);
            }
}

/* One token over whole tiles from `first` on, as many as are a multiple of the streams: each stream
 * has its part of them. Returns the tile after them. */
static int64_t multiply_streams(const product *p, int64_t first, int64_t end) {
    int64_t part = (end - first) / SAF__STREAMS;
    for (int64_t i = first; i < first + part; i++) {
        const uint8_t *tiles[SAF__STREAMS];
        float *y[SAF__STREAMS];
        for (int s = 0; s < SAF__STREAMS; s++) {
            tiles[s] = tile_at(p, i + s * part);
            y[s] = p->y + (i + s * part) * SAF_TILE_ROWS;
        }
        p->kernels->dot_streams(p->w->dtype, tiles, p->a, y);
    }
    return first + part * SAF__STREAMS;
}

void saf_matmul(const saf_weight *w, const saf_acts *x, float *y, int64_t ldy) {
    const product p = {.kernels = saf__kernels_get(),
                       .w = w,
                       .a = saf__acts_view_of(x),
                       .tile_bytes = saf__tile_bytes(w->dtype, w->cols),
                       .y = y,
                       .ldy = ldy};
    int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
    int64_t tiles = saf_ceil_div(w->rows, SAF_TILE_ROWS), whole = w->rows / SAF_TILE_ROWS;
    int64_t i = tiles * me / team, end = tiles * (me + 1) / team;
    if (saf_dtype_is_quantised(w->dtype)) {
        if (p.a->tokens == 1 && p.kernels->dot_streams)
            i = multiply_streams(&p, i, saf_i64_min(end, whole));
        multiply_quants(&p, i, end);
    } else {
        multiply_floats(&p, i, end);
    }
#pragma omp barrier
}
