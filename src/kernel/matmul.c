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

static void multiply_tile(const product *p, int64_t i) {
    int64_t row = i * SAF_TILE_ROWS;
    int rows = (int)saf_i64_min(SAF_TILE_ROWS, p->w->rows - row);
    if (saf_dtype_is_quantised(p->w->dtype))
        p->kernels->dot_quant(p->w->dtype, tile_at(p, i), p->a, rows, p->y + row, p->ldy);
    else
        p->kernels->dot_float(p->w->dtype, tile_at(p, i), p->a, rows, p->y + row, p->ldy);
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
    if (p.a->tokens == 1 && p.kernels->dot_streams && saf_dtype_is_quantised(w->dtype))
        i = multiply_streams(&p, i, saf_i64_min(end, whole));
    for (; i < end; i++) multiply_tile(&p, i);
#pragma omp barrier
}
