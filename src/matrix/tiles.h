/* matrix/tiles.h: the lengths of tiles, which follow from the shape alone. A dense matrix product
 * over ranks is what this room is for; it knows ranks through comm, and where matrices are through
 * its caller's functions: no files, no jobs. */
#ifndef SAF_MATRIX_TILES_H
#define SAF_MATRIX_TILES_H

#include "saf/matrix.h"

static inline int64_t saf__tile_rows(const saf_product_plan *p, int64_t i) {
    return saf_i64_min(p->tiles.tile_m, p->shape.m - i * p->tiles.tile_m);
}
static inline int64_t saf__tile_cols(const saf_product_plan *p, int64_t j) {
    return saf_i64_min(p->tiles.tile_n, p->shape.n - j * p->tiles.tile_n);
}
static inline int64_t saf__tile_depth(const saf_product_plan *p, int64_t panel) {
    return saf_i64_min(p->tiles.tile_k, p->shape.k - panel * p->tiles.tile_k);
}
static inline size_t saf__element_bytes(const saf_product_plan *p) {
    return p->shape.dtype == SAF_DTYPE_F64 ? 8 : 4;
}
/* The segment that a panel belongs to. */
int64_t saf__segment_of(const saf_product_tiles *tiles, int64_t panel);

#endif
