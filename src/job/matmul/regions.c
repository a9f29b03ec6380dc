#include "job/matmul/regions.h"

enum { PIECE_BYTES = 4 << 20, BUFFERS = 4 };
enum { READ, WRITE, OVER };

typedef struct {
    int64_t kind, what;
    saf__region region;
} wish;
enum { WISH_WORDS = sizeof(wish) / sizeof(int64_t) };

typedef enum { ASKS, WAITS_FOR_BUFFER, IS_SENT, SENDS, WENT } phase;

/* What rank 0 knows of another rank. */
typedef struct {
    phase at;
    wish wish;
    saf_tensor wish_tensor, values;
    saf_comm_request *asking, *moving;
    int buffer;
} client;

struct saf__regions {
    saf_comm *comm;
    saf_dtype dtype;
    int64_t size; /* of a value */
    saf__region_read *read;
    saf__region_write *write;
    void *ctx;
    int rank, ranks;
    char *piece; /* this rank's own */
    /* rank 0 */
    client *clients; /* [ranks] */
    int gone;        /* of them */
    char *buffers[BUFFERS];
    bool taken[BUFFERS];
    saf_status failed;
};

/* ---- rank 0 serves ----------------------------------------------------------------------------
 */

static void fail(saf__regions *g, saf_status st) {
    if (st == SAF_OK || g->failed != SAF_OK) return;
    g->failed = st;
    saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
}

static size_t bytes_of(const saf__regions *g, const saf__region *r) {
    return (size_t)(r->rows * r->cols * g->size);
}

static void listen(saf__regions *g, int rank) {
    client *c = &g->clients[rank];
    c->at = ASKS;
    c->wish_tensor = saf_tensor_1d(SAF_DTYPE_I64, &c->wish, WISH_WORDS);
    fail(g, saf_comm_irecv(g->comm, rank, SAF_TAG_REGION, sizeof c->wish, &c->wish_tensor,
                           &c->asking));
}

static void let_go(saf__regions *g, client *c) {
    if (c->buffer >= 0) g->taken[c->buffer] = false;
    c->buffer = -1;
}

static void begin(saf__regions *g, int rank) {
    client *c = &g->clients[rank];
    saf_status st = SAF_OK;
    int b = 0;
    while (b < BUFFERS && g->taken[b]) b++;
    if (b == BUFFERS) return;
    g->taken[b] = true;
    c->buffer = b;
    if (c->wish.kind == WRITE) {
        c->values = saf_tensor_1d(SAF_DTYPE_U8, g->buffers[b], 0);
        fail(g, saf_comm_irecv(g->comm, rank, SAF_TAG_VALUES, PIECE_BYTES, &c->values, &c->moving));
        c->at = SENDS;
        return;
    }
    if (bytes_of(g, &c->wish.region) > PIECE_BYTES)
        st = saf_fail(SAF_DEFECT, "rank %d asks for a region that is too large", rank);
    if (g->failed != SAF_OK) st = g->failed; /* whoever asks is told, and nobody waits */
    if (st == SAF_OK) st = g->read(g->ctx, (int32_t)c->wish.what, &c->wish.region, g->buffers[b]);
    fail(g, st);
    c->values = saf_tensor_1d(SAF_DTYPE_U8, g->buffers[b],
                              st == SAF_OK ? (int64_t)bytes_of(g, &c->wish.region) : 0);
    fail(g, saf_comm_isend(g->comm, rank, SAF_TAG_VALUES, &c->values, &c->moving));
    c->at = IS_SENT;
}

static void finish(saf__regions *g, int rank) {
    client *c = &g->clients[rank];
    if (c->at == SENDS && g->failed == SAF_OK) {
        saf_status st = SAF_OK;
        if (saf_tensor_elements(&c->values) != (int64_t)bytes_of(g, &c->wish.region))
            st = saf_fail(SAF_DEFECT, "rank %d sent another region than it said", rank);
        if (st == SAF_OK)
            st = g->write(g->ctx, (int32_t)c->wish.what, &c->wish.region, g->buffers[c->buffer]);
        fail(g, st);
    }
    let_go(g, c);
    listen(g, rank);
}

/* As far as this client goes now. */
static void look_at(saf__regions *g, int rank) {
    client *c = &g->clients[rank];
    bool done = false;
    if (c->at == ASKS && c->asking) {
        saf_status st = saf_comm_test(&c->asking, &done);
        fail(g, st);
        if (done && st == SAF_OK) {
            c->at = c->wish.kind == OVER ? WENT : WAITS_FOR_BUFFER;
            g->gone += c->at == WENT;
        }
    }
    if (c->at == WAITS_FOR_BUFFER) begin(g, rank);
    if ((c->at == IS_SENT || c->at == SENDS) && c->moving) {
        fail(g, saf_comm_test(&c->moving, &done));
        if (done) finish(g, rank);
    }
}

static void serve(void *ctx) {
    saf__regions *g = ctx;
    for (int r = 1; r < g->ranks; r++) look_at(g, r);
}

/* ---- all --------------------------------------------------------------------------------------
 */

saf_status saf__regions_new(saf_comm *world, saf_dtype dtype, saf__region_read *read,
                            saf__region_write *write, void *ctx, saf__regions **out) {
    saf_status st = SAF_OK;
    saf__regions *g = NULL;
    SAF_TRY(saf_comm_agree(world, saf_alloc(1, sizeof *g, &g)));
    *g = (saf__regions){.dtype = dtype,
                        .size = saf_dtype_block_bytes(dtype),
                        .read = read,
                        .write = write,
                        .ctx = ctx,
                        .rank = saf_comm_rank(world),
                        .ranks = saf_comm_size(world)};
    SAF_TRY(saf_comm_dup(world, &g->comm));
    st = saf_alloc(PIECE_BYTES, 1, &g->piece);
    if (st == SAF_OK && g->rank == 0)
        st = saf_alloc((size_t)g->ranks, sizeof *g->clients, &g->clients);
    for (int b = 0; b < BUFFERS && st == SAF_OK && g->rank == 0 && g->ranks > 1; b++)
        st = saf_alloc(PIECE_BYTES, 1, &g->buffers[b]);
    SAF_TRY(saf_comm_agree(world, st));
    for (int r = 1; g->rank == 0 && r < g->ranks; r++) {
        g->clients[r].buffer = -1;
        listen(g, r);
    }
    if (g->rank == 0 && g->ranks > 1) saf_comm_serve(serve, g);
    *out = g;
    g = NULL;
out:
    saf__regions_free(&g);
    return st;
}

saf_status saf__regions_status(const saf__regions *g) {
    return g->failed;
}

void saf__regions_free(saf__regions **regions) {
    saf__regions *g = *regions;
    if (!g) return;
    if (g->rank == 0) saf_comm_serve(NULL, NULL);
    for (int r = 1; g->clients && r < g->ranks; r++) {
        saf_comm_cancel(&g->clients[r].asking);
        saf_comm_cancel(&g->clients[r].moving);
    }
    saf_comm_free(&g->comm);
    for (int b = 0; b < BUFFERS; b++) saf_free(&g->buffers[b]);
    saf_free(&g->clients);
    saf_free(&g->piece);
    saf_free(regions);
}

/* ---- asking ---- */

/* Between the caller's rows and a contiguous piece. */
static void copy_rows(char *to, int64_t to_ld, const char *from, int64_t from_ld, int64_t rows,
                      size_t bytes) {
    for (int64_t i = 0; i < rows; i++) memcpy(to + i * to_ld, from + i * from_ld, bytes);
}

static saf_status ask(saf__regions *g, int kind, int32_t what, const saf__region *r) {
    wish w = {kind, what, *r};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &w, WISH_WORDS);
    return saf_comm_send(g->comm, 0, SAF_TAG_REGION, &t);
}

static saf_status get_piece(saf__regions *g, int32_t what, bool here, const saf__region *r) {
    saf_status st = SAF_OK;
    size_t bytes = bytes_of(g, r);
    if (here || g->rank == 0) return g->read(g->ctx, what, r, g->piece);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, g->piece, 0);
    SAF_TRY(ask(g, READ, what, r));
    SAF_TRY(saf_comm_recv(g->comm, 0, SAF_TAG_VALUES, PIECE_BYTES, &t));
    if (saf_tensor_elements(&t) != (int64_t)bytes)
        st = saf_fail(SAF_IO, "rank 0 could not read what this rank asked for");
out:
    return st;
}

static saf_status put_piece(saf__regions *g, int32_t what, const saf__region *r) {
    saf_status st = SAF_OK;
    if (g->rank == 0) return g->write(g->ctx, what, r, g->piece);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, g->piece, (int64_t)bytes_of(g, r));
    SAF_TRY(ask(g, WRITE, what, r));
    st = saf_comm_send(g->comm, 0, SAF_TAG_VALUES, &t);
out:
    return st;
}

/* Piece by piece, to or from the caller's rows. */
static saf_status move(saf__regions *g, int32_t what, bool here, const saf__region *r, char *out,
                       const char *in, int64_t ld) {
    saf_status st = SAF_OK;
    int64_t most = PIECE_BYTES / g->size, wide = saf_i64_min(r->cols, most);
    int64_t high = wide > 0 ? most / wide : 1;
    for (int64_t i = 0; i < r->rows; i += high)
        for (int64_t j = 0; j < r->cols; j += wide) {
            saf__region p = {r->row0 + i, saf_i64_min(high, r->rows - i), r->col0 + j,
                             saf_i64_min(wide, r->cols - j)};
            int64_t at = (i * ld + j) * g->size, row = p.cols * g->size;
            if (out) {
                SAF_TRY(get_piece(g, what, here, &p));
                copy_rows(out + at, ld * g->size, g->piece, row, p.rows, (size_t)row);
            } else {
                copy_rows(g->piece, row, in + at, ld * g->size, p.rows, (size_t)row);
                SAF_TRY(put_piece(g, what, &p));
            }
            saf_alive();
        }
out:
    return st;
}

saf_status saf__regions_get(saf__regions *g, int32_t what, bool here, const saf__region *r,
                            void *out, int64_t ld) {
    return move(g, what, here, r, out, NULL, ld);
}

saf_status saf__regions_put(saf__regions *g, int32_t what, const saf__region *r, const void *in,
                            int64_t ld) {
    return move(g, what, false, r, NULL, in, ld);
}

saf_status saf__regions_over(saf__regions *g) {
    saf_status st = SAF_OK;
    static const saf__region nothing = {0, 0, 0, 0};
    if (g->rank != 0) SAF_TRY(ask(g, OVER, 0, &nothing));
    /* Rank 0 serves in this wait, until the last rank has come. */
    SAF_TRY(saf_comm_barrier(g->comm));
    if (g->rank != 0) return SAF_OK;
    while (g->gone < g->ranks - 1 && g->failed == SAF_OK) saf_comm_progress();
    g->gone = 0;
    for (int r = 1; r < g->ranks; r++) listen(g, r);
    st = g->failed;
out:
    return st;
}
