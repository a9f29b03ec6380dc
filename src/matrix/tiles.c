/* How a product is cut: of its lengths and type alone, so that the same calls of OpenBLAS make it
 * up on any ranks. Sizes were chosen by measurement (doc/performance.md). */
#include "matrix/tiles.h"

enum {
    TILE = 1024,      /* rows and columns of a whole tile of C, where there are enough of them */
    TILE_LEAST = 256, /* what they may shrink to, so that there are */
    TILES_WANTED = 8,
    DEPTH = 512,       /* panels of k */
    PARTS_WANTED = 64, /* tiles of C times segments of k */
    SEGMENT_LEAST = 4, /* panels of a segment */
    /* Of a matrix that is multiplied with a vector: */
    VECTOR_ROWS = 1024,
    VECTOR_ROW_BYTES = 4096 /* as much of the vector stays in the first-level cache (vector.c) */
};

static const int64_t ELEMENTS_MOST = (int64_t)1 << 62;

/* `length` in even tiles of at most `tile`, a multiple of 16. */
static int64_t even_tile(int64_t length, int64_t tile) {
    if (length == 0) return tile;
    int64_t tiles = saf_ceil_div(length, tile);
    return saf_i64_min(length, saf_round_up(saf_ceil_div(length, tiles), 16));
}

/* Halves one side of a tile at a time until there are enough: of f32 the longer one, columns before
 * rows, and of f64 rows first, as the packing of OpenBLAS has it. */
static void cut(const saf_product_shape *s, saf_product_tiles *t) {
    int64_t m = TILE, n = TILE;
    while (saf_ceil_div(s->m, m) * saf_ceil_div(s->n, n) < TILES_WANTED) {
        int64_t tm = saf_i64_min(m, s->m), tn = saf_i64_min(n, s->n);
        bool can_m = tm > TILE_LEAST, can_n = tn > TILE_LEAST;
        if (!can_m && !can_n) break;
        bool rows = can_m && (!can_n || s->dtype == SAF_DTYPE_F64 || tm > tn);
        if (rows)
            m = saf_i64_max(tm / 2, TILE_LEAST);
        else
            n = saf_i64_max(tn / 2, TILE_LEAST);
    }
    t->tile_m = even_tile(s->m, m);
    t->tile_n = even_tile(s->n, n);
    t->tile_k = even_tile(s->k, DEPTH);
}

static void cut_vector(const saf_product_shape *s, saf_product_tiles *t) {
    int64_t cols = VECTOR_ROW_BYTES / saf_dtype_block_bytes(s->dtype);
    t->tile_m = s->m == 1 ? 1 : even_tile(s->m, VECTOR_ROWS);
    t->tile_n = s->n == 1 ? 1 : even_tile(s->n, cols);
    t->tile_k = even_tile(s->k, s->n == 1 ? cols : VECTOR_ROWS);
}

static saf_status check(const saf_product_shape *s) {
    int64_t a = 0, b = 0, c = 0;
    if (s->dtype != SAF_DTYPE_F32 && s->dtype != SAF_DTYPE_F64)
        return saf_fail(SAF_USAGE, "a product of %s: only f32 and f64 are multiplied",
                        s->dtype < SAF_DTYPE_COUNT ? saf_dtype_name(s->dtype) : "an unknown type");
    bool good = s->m >= 0 && s->n >= 0 && s->k >= 0 && saf_i64_mul(s->m, s->k, &a) &&
                saf_i64_mul(s->k, s->n, &b) && saf_i64_mul(s->m, s->n, &c) && a <= ELEMENTS_MOST &&
                b <= ELEMENTS_MOST && c <= ELEMENTS_MOST && s->m <= ELEMENTS_MOST &&
                s->n <= ELEMENTS_MOST && s->k <= ELEMENTS_MOST;
    if (good) return SAF_OK;
    return saf_fail(SAF_USAGE, "no product of %lld x %lld by %lld x %lld", (long long)s->m,
                    (long long)s->k, (long long)s->k, (long long)s->n);
}

saf_status saf_product_tiles_of(const saf_product_shape *shape, saf_product_tiles *out) {
    saf_product_tiles t = {0};
    saf_status st = check(shape);
    if (st != SAF_OK) return st;
    if (shape->m == 1 || shape->n == 1)
        cut_vector(shape, &t);
    else
        cut(shape, &t);
    t.tiles_m = saf_ceil_div(shape->m, t.tile_m);
    t.tiles_n = saf_ceil_div(shape->n, t.tile_n);
    t.panels = saf_ceil_div(shape->k, t.tile_k);
    t.segments = t.panels > 0 ? 1 : 0;
    if (t.panels > 0 && t.tiles_m > 0 && t.tiles_n > 0)
        while (t.segments * SEGMENT_LEAST * 2 <= t.panels &&
               t.segments < saf_ceil_div(PARTS_WANTED, t.tiles_m * t.tiles_n))
            t.segments *= 2;
    *out = t;
    return SAF_OK;
}

/* The larger segments come first. */
saf_span saf_product_segment(const saf_product_tiles *tiles, int64_t s) {
    int64_t each = tiles->panels / tiles->segments, more = tiles->panels % tiles->segments;
    int64_t begin = s * each + saf_i64_min(s, more);
    return (saf_span){begin, begin + each + (s < more)};
}

int64_t saf__segment_of(const saf_product_tiles *tiles, int64_t panel) {
    int64_t each = tiles->panels / tiles->segments, more = tiles->panels % tiles->segments;
    return panel < more * (each + 1) ? panel / (each + 1)
                                     : more + (panel - more * (each + 1)) / each;
}
