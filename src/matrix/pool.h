/* matrix/pool.h: tiles of A and B in the memory that a host shares. In residence a tile that a rank
 * of this host owns stays in a slot of its own; all others come a batch at a time into one of two
 * halves of a buffer, and the next batch arrives while one is multiplied. A factor that each rank
 * has for itself is in memory of its own, which can have larger pages.
 *
 *   slots of A | slots of B | buffers of A, even batches | odd | buffers of B, even | odd
 *
 * Every rank of a host works out the same slots, and so does each sender whom it sends to: nothing
 * but tiles travels. */
#ifndef SAF_MATRIX_POOL_H
#define SAF_MATRIX_POOL_H

#include "matrix/plan.h"

/* Ranks of a group that are on one host. */
typedef struct {
    int32_t host, n;
    const int32_t *rank;
} saf__near;

typedef struct {
    int32_t group, hosts;
    saf__near *near;   /* [hosts] ascending */
    int32_t *ranks;    /* of all near */
    int64_t *resident; /* [lines][panels] of the share: slot, or -1 */
} saf__my_group;

/* Panels that come together, and where their tiles are. */
typedef struct {
    const int64_t *panels; /* [n] ascending */
    int64_t n;
    saf_span lines[SAF__FACTORS]; /* of the round */
    void **at[SAF__FACTORS];      /* [lines][n] */
    int64_t room[SAF__FACTORS];
    saf_comm_request **receives, **sends;
    saf_tensor *tensors; /* of the receives */
    int64_t n_receives, n_sends, receives_room, sends_room;
} saf__batch;

/* What is read, sent and received; the counters are the product's. */
typedef struct {
    saf_comm *comm, *host; /* all ranks; those of this host that compute */
    const saf_product_plan *plan;
    const saf_product_io *io;
    saf_product_counters *count;
    int32_t rank, place;
    saf__share share;
    saf_shared *shared;
    char *own[SAF__FACTORS]; /* saf__own_tiles, or NULL */
    saf__host_room room;
    saf__my_group mine[SAF__FACTORS];
    saf__batch batch[2]; /* even, odd */
    int64_t loaded;      /* resident tiles of this rank that have been read */
} saf__pool;

/* Panels of the round, by place along k, that anybody needs. */
typedef struct {
    int64_t *panels; /* all of them, one list after another */
    int64_t *begin;  /* [grid_k + 1] */
} saf__panel_lists;

/* Collective on comm; of no use to an idle rank, whose place is -1. */
saf_status saf__pool_new(saf__pool *pool);
void saf__pool_free(saf__pool *pool); /* collective */
/* Tiles that stay in memory, `most` more of those that this rank owns; done: all of them. */
saf_status saf__pool_load(saf__pool *pool, int64_t most, bool *done);
/* By all ranks of a host, when they have read all of theirs. */
saf_status saf__pool_loaded(saf__pool *pool);
int64_t saf__pool_owned(const saf__pool *pool);
/* Between the files of the pool. */
int32_t saf__pool_owner_of(const saf__pool *pool, int f, int32_t group, int64_t line,
                           int64_t panel);
bool saf__pool_is_here(const saf__pool *pool, int32_t rank);
bool saf__pool_group_is_here(const saf__pool *pool, int f, int32_t group);
int64_t saf__pool_resident_slot(const saf__pool *pool, int f, int64_t line, int64_t panel);
char *saf__pool_slot_at(const saf__pool *pool, int f, int64_t slot);
char *saf__pool_buffer_at(const saf__pool *pool, int f, int64_t number, int64_t slot);
saf_status saf__pool_read_tile(saf__pool *pool, int f, int64_t line, int64_t panel, void *to);

/* Batch `number` since the start, `index` in its round (u rows, v columns) gets slots, receives are
 * posted, and what this rank owns of it is read and sent. Nobody reads the batch two before any
 * more. */
saf_status saf__pool_begin(saf__pool *pool, int64_t number, const saf__panel_lists *lists,
                           int64_t u, int64_t v, int64_t index);
/* Until it is there for all ranks of this host. */
saf_status saf__pool_wait(saf__pool *pool, int64_t number);
static inline const void *saf__pool_tile(const saf__batch *b, int f, int64_t line, int64_t x) {
    return b->at[f][(line - b->lines[f].begin) * b->n + x];
}

#endif
