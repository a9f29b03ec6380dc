#include "kernel/acts.h"

void saf_matmul(const saf_weight *w, const saf_acts *x, float *y, int64_t ldy) {
    const saf__kernels *kernels = saf__kernels_get();
    const saf__acts_view *a = saf__acts_view_of(x);
    size_t tile_bytes = saf__tile_bytes(w->dtype, w->cols);
    bool quantised = saf_dtype_is_quantised(w->dtype);
    int64_t tiles = saf_ceil_div(w->rows, SAF_TILE_ROWS);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < tiles; i++) {
        const uint8_t *tile = (const uint8_t *)w->data + (size_t)i * tile_bytes;
        int64_t r = i * SAF_TILE_ROWS;
        int rows = (int)saf_i64_min(SAF_TILE_ROWS, w->rows - r);
        if (quantised)
            kernels->dot_quant(w->dtype, tile, a, rows, y + r, ldy);
        else
            kernels->dot_float(w->dtype, tile, a, rows, y + r, ldy);
    }
}
