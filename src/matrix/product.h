/* matrix/product.h: a product under way. */
#ifndef SAF_MATRIX_PRODUCT_H
#define SAF_MATRIX_PRODUCT_H

#include "matrix/pool.h"
#include "matrix/sums.h"

/* What an earlier run left; all ranks have the same. */
typedef struct {
    saf_product_part *parts;
    int64_t n;
    int64_t
        *of; /* [tiles of C][segments] part that has this segment, or -1; NULL: no earlier run */
    saf_product_read read;
    void *ctx;
} saf__past;

/* Steps come in phases, the same on all ranks: tiles that stay are read; then in each round batches
 * are multiplied, in slices, and tiles of C are written, in slices too (those of the last round by
 * saf_product_finish). */
typedef enum { SAF__LOAD, SAF__MULTIPLY, SAF__WRITE, SAF__END } saf__phase;
typedef struct {
    saf__phase phase;
    int64_t round, batch, slice; /* batch of the round */
    int64_t number;              /* of the batch since the start */
} saf__cursor;

/* Slices of a batch: so many panels at a time, of so many tiles. */
typedef struct {
    int64_t panels, tiles, count, write_tiles;
} saf__slices;

/* Where a walk over what is held has come: part `index` is sum `sum` of a tile. */
typedef struct {
    int64_t index, round, tile, sum;
} saf__walk;

struct saf_product {
    const saf_product_plan *plan;
    double alpha, beta;
    int threads;
    saf_product_io io;
    const saf_blas *blas;
    saf_comm *comm; /* this product's own, of all ranks */
    saf__pool pool;
    saf__buffers buffers;
    saf__past past;
    saf__cursor at;
    saf__slices slices;
    saf__panel_lists lists[2]; /* of even and odd rounds */
    int64_t batches[2];        /* of those rounds */
    saf__ctile *tiles;         /* of this round, columns of C within rows */
    int64_t n_tiles;
    saf__sum *sums; /* of all of them */
    char *scratch;  /* a tile of C */
    int64_t done_steps, steps;
    saf_product_counters count;
    int64_t listed[2];  /* the rounds that lists are of, + 1 */
    int64_t begun;      /* batches that have been begun */
    int64_t loads;      /* steps that read what stays in memory */
    int64_t most_tiles; /* of a rank in a round */
    bool entered;       /* the first round, or the end */
    saf__walk walk;
    int64_t held; /* parts; -1: not counted since the last step */
    saf_status failed;
};

static inline int64_t saf__round_u(const saf_product *p, int64_t round) {
    return round / saf__rounds_of(p->plan, SAF__B);
}
static inline int64_t saf__round_v(const saf_product *p, int64_t round) {
    return round % saf__rounds_of(p->plan, SAF__B);
}
/* Whether A and B are multiplied at all. */
static inline bool saf__multiplies(const saf_product *p) {
    return p->alpha != 0 && p->plan->tiles.panels > 0;
}

/* product.c: how many steps there are. */
saf_status saf__schedule(saf_product *p);

/* round.c: the tiles of C of a round, and the panels that they need. */
saf_status saf__round_lists(saf_product *p, int64_t round);
void saf__round_begin(saf_product *p, int64_t round);
/* What an earlier run left of a tile's segments before `end`, and this rank is to go on with. */
saf_status saf__round_fetch(saf_product *p, saf__ctile *t, int64_t end);
void saf__round_end(saf_product *p);

/* multiply.c: tiles `slice` of the batch at hand. */
saf_status saf__multiply_slice(saf_product *p, int64_t slice);

/* write.c: sums of tiles [begin, end) of the round come together, and are written. */
saf_status saf__write_tiles(saf_product *p, int64_t begin, int64_t end);

/* past.c */
static inline int64_t saf__past_part(const saf_product *p, int64_t i, int64_t j, int64_t segment) {
    if (!p->past.of) return -1;
    return p->past
        .of[(i * p->plan->tiles.tiles_n + j) * saf_i64_max(1, p->plan->tiles.segments) + segment];
}
bool saf__past_written(const saf_product *p, int64_t i, int64_t j);
/* Panels of this segment of this tile that have been multiplied. */
int64_t saf__past_panels(const saf_product *p, int64_t i, int64_t j, int64_t segment);
void saf__past_free(saf__past *past);

#endif
