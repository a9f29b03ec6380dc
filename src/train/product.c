/* Products: cut into tiles by their shapes alone, each of them single-threaded calls of OpenBLAS,
 * which the threads share out. No sum over k is ever shared by threads. */
#include <omp.h>

#include "train/train.h"

/* Tiles shrink from TILE until a product has enough of them for several threads. Smaller ones cost
 * a thread speed (doc/performance.md). */
enum { TILE = 1024, TILE_LEAST = 256, TILES_WANTED = 2 };

saf__product saf__product_forward(const float *x, const float *w, float *y, int64_t m, int64_t n,
                                  int64_t k) {
    return (saf__product){.c = y,
                          .m = m,
                          .n = n,
                          .ldc = n,
                          .terms = 1,
                          .term = {{.a = x, .lda = k, .b = w, .ldb = k, .k = k, .trans_b = true}}};
}

saf__product saf__product_inputs(const float *dy, const float *w, float *dx, int64_t m, int64_t n,
                                 int64_t k) {
    saf__product p = {.c = dx, .m = m, .n = k, .ldc = k};
    saf__product_also(&p, dy, w, n);
    return p;
}

void saf__product_also(saf__product *p, const float *dy, const float *w, int64_t n) {
    p->term[p->terms++] = (saf__term){.a = dy, .lda = n, .b = w, .ldb = p->n, .k = n};
}

saf__product saf__product_weights(const float *dy, const float *x, float *dw, int64_t m, int64_t n,
                                  int64_t k) {
    return (saf__product){.c = dw,
                          .m = n,
                          .n = k,
                          .ldc = k,
                          .terms = 1,
                          .term = {{.a = dy, .lda = n, .b = x, .ldb = k, .k = m, .trans_a = true}}};
}

/* `length` in even tiles of at most `tile`, multiples of 16. */
static int64_t even_tile(int64_t length, int64_t tile) {
    int64_t tiles = saf_ceil_div(length, tile);
    return saf_i64_min(length, saf_round_up(saf_ceil_div(length, tiles), 16));
}

/* Halves the longer side of a tile at a time. */
static void cut(const saf__product *p, int64_t *tile_m, int64_t *tile_n) {
    int64_t m = TILE, n = TILE;
    while (saf_ceil_div(p->m, m) * saf_ceil_div(p->n, n) < TILES_WANTED) {
        int64_t tm = saf_i64_min(m, p->m), tn = saf_i64_min(n, p->n);
        if (tm <= TILE_LEAST && tn <= TILE_LEAST) break;
        if (tm > tn)
            m = saf_i64_max(tm / 2, TILE_LEAST);
        else
            n = saf_i64_max(tn / 2, TILE_LEAST);
    }
    *tile_m = even_tile(p->m, m);
    *tile_n = even_tile(p->n, n);
}

typedef struct {
    int64_t tile_m, tile_n, tiles_n, tiles;
} cuts;

/* The calls of one tile. */
static void multiply(const saf_blas *blas, const saf__product *p, const cuts *c, int64_t tile) {
    int64_t i = tile / c->tiles_n * c->tile_m, j = tile % c->tiles_n * c->tile_n;
    int m = (int)saf_i64_min(c->tile_m, p->m - i), n = (int)saf_i64_min(c->tile_n, p->n - j);
    for (int s = 0; s < p->terms; s++) {
        const saf__term *t = &p->term[s];
        const float *a = t->trans_a ? t->a + i : t->a + i * t->lda;
        const float *b = t->trans_b ? t->b + j * t->ldb : t->b + j;
        blas->sgemm(SAF_BLAS_ROW_MAJOR, t->trans_a ? SAF_BLAS_TRANS : SAF_BLAS_NO_TRANS,
                    t->trans_b ? SAF_BLAS_TRANS : SAF_BLAS_NO_TRANS, m, n, (int)t->k, 1, a,
                    (int)t->lda, b, (int)t->ldb, p->add || s > 0 ? 1 : 0, p->c + i * p->ldc + j,
                    (int)p->ldc);
    }
}

void saf__products(saf__team *team, const saf__product *products, int n) {
    cuts c[SAF__PRODUCTS];
    int64_t first[SAF__PRODUCTS + 1] = {0};
    for (int i = 0; i < n; i++) {
        const saf__product *p = &products[i];
        cut(p, &c[i].tile_m, &c[i].tile_n);
        c[i].tiles_n = saf_ceil_div(p->n, c[i].tile_n);
        c[i].tiles = c[i].tiles_n * saf_ceil_div(p->m, c[i].tile_m);
        first[i + 1] = first[i] + c[i].tiles;
        for (int s = 0; s < p->terms; s++)
            team->operations += 2.0 * (double)p->m * (double)p->n * (double)p->term[s].k;
    }
#pragma omp parallel for schedule(dynamic) num_threads(team->threads)
    for (int64_t tile = 0; tile < first[n]; tile++) {
        int i = 0;
        while (tile >= first[i + 1]) i++;
        multiply(team->blas, &products[i], &c[i], tile - first[i]);
    }
    saf_comm_progress();
}
