/* Calls that all ranks of a communicator make together. */
#include <stdio.h>

#include "comm/transport.h"

static size_t piece_bytes = (size_t)1 << 30;

size_t saf__piece_bytes(void) {
    return piece_bytes;
}
void saf__comm_set_piece_bytes(size_t bytes) {
    piece_bytes = bytes;
}
size_t saf__eager_piece_bytes(void) {
    return piece_bytes < SAF__EAGER_BYTES ? piece_bytes : SAF__EAGER_BYTES;
}

static size_t piece_of(size_t left) {
    return left < piece_bytes ? left : piece_bytes;
}

enum { BCAST_SHORT_BYTES = 65535 };

/* ---- barrier, broadcast ---------------------------------------------------------------------- */

/* Source: Hensgen, Finkel and Manber, Two algorithms for barrier synchronization (1988): who has
 * heard of 2^i ranks before it hears of as many more. */
saf_status saf__barrier(saf_comm *comm) {
    saf_status st = SAF_OK;
    for (int away = 1; away < comm->size; away *= 2) {
        saf__op ops[2] = {{0}};
        char said = 0, heard;
        SAF_TRY(comm->transport->irecv(comm, (comm->rank - away + comm->size) % comm->size,
                                       SAF__TAG_BARRIER, &heard, 1, &ops[0]));
        SAF_TRY(comm->transport->isend(comm, (comm->rank + away) % comm->size, SAF__TAG_BARRIER,
                                       &said, 1, &ops[1]));
        SAF_TRY(saf__wait_ops(comm, ops, 2));
    }
out:
    return st;
}

saf_status saf_comm_barrier(saf_comm *comm) {
    saf__stopwatch watch = saf__stopwatch_start(0);
    saf_status st = saf__barrier(comm);
    saf__count(SAF_COUNT_BARRIER, 1, 0, saf__stopwatch_s(&watch));
    return st;
}

/* Down a binomial tree, in messages of their own: the library's non-blocking call takes twice as
 * long for them. Each rank hears from the one without its lowest bit, counted from the root. */
static saf_status bcast_short(saf_comm *comm, int root, void *bytes, size_t len) {
    saf_status st = SAF_OK;
    saf__op ops[32] = {{0}};
    int size = comm->size, me = (comm->rank - root + size) % size, bit = 1, n = 0;
    while (bit < size && !(me & bit)) bit *= 2;
    if (me > 0) {
        SAF_TRY(comm->transport->irecv(comm, (me - bit + root) % size, SAF__TAG_BCAST, bytes, len,
                                       &ops[0]));
        SAF_TRY(saf__wait_ops(comm, ops, 1));
    }
    for (bit /= 2; bit > 0; bit /= 2)
        if (me + bit < size)
            SAF_TRY(comm->transport->isend(comm, (me + bit + root) % size, SAF__TAG_BCAST, bytes,
                                           len, &ops[n++]));
    if (n > 0) SAF_TRY(saf__wait_ops(comm, ops, n));
out:
    return st;
}

static saf_status bcast_bytes(saf_comm *comm, int root, void *bytes, size_t len) {
    saf_status st = SAF_OK;
    char *p = bytes;
    if (len > 0 && len <= BCAST_SHORT_BYTES && len <= piece_bytes)
        return bcast_short(comm, root, bytes, len);
    while (len > 0) {
        saf__op op = {0};
        size_t n = piece_of(len);
        SAF_TRY(comm->transport->ibcast(comm, root, p, n, &op));
        SAF_TRY(saf__wait_ops(comm, &op, 1));
        p += n;
        len -= n;
    }
out:
    return st;
}

static saf_status check_root(const saf_comm *comm, int root) {
    if (root >= 0 && root < comm->size) return SAF_OK;
    return saf__comm_fail(comm, SAF_DEFECT, "no root %d in a communicator of %d", root, comm->size);
}

saf_status saf_comm_bcast(saf_comm *comm, int root, const saf_tensor *t) {
    size_t bytes = 0;
    saf_status st = saf_tensor_bytes(t, &bytes);
    saf__stopwatch watch = saf__stopwatch_start(bytes);
    if (st == SAF_OK) st = check_root(comm, root);
    if (st == SAF_OK) st = bcast_bytes(comm, root, t->data, bytes);
    saf__count(SAF_COUNT_BCAST, 1, bytes, saf__stopwatch_s(&watch));
    return st;
}

saf_status saf_comm_bcast_buf(saf_comm *comm, int root, saf_buf *buf) {
    saf_status st = SAF_OK;
    uint64_t len = buf->len;
    double t0 = saf_clock_s();
    SAF_TRY(check_root(comm, root));
    SAF_TRY(bcast_bytes(comm, root, &len, sizeof len));
    /* A rank without the memory must not leave the others waiting for it. */
    SAF_TRY(saf__agree(comm, saf_buf_resize(buf, len)));
    SAF_TRY(bcast_bytes(comm, root, buf->data, len));
out:
    saf__count(SAF_COUNT_BCAST, 1, st == SAF_OK ? (size_t)len : 0, saf_clock_s() - t0);
    return st;
}

/* ---- all-reduce, agreement ------------------------------------------------------------------- */

static saf_status check_reduced(saf_comm *comm, const char *what, saf_dtype dtype) {
    if (dtype == SAF_DTYPE_F32 || dtype == SAF_DTYPE_F64 || dtype == SAF_DTYPE_I32 ||
        dtype == SAF_DTYPE_I64 || dtype == SAF_DTYPE_U8)
        return SAF_OK;
    return saf__comm_fail(comm, SAF_DEFECT, "%s of %s is not supported", what,
                          saf_dtype_name(dtype));
}

saf_status saf_comm_allreduce(saf_comm *comm, saf_op op, const saf_tensor *t) {
    size_t bytes = 0;
    saf_status st = saf_tensor_bytes(t, &bytes);
    saf__stopwatch watch = saf__stopwatch_start(bytes);
    if (st == SAF_OK) st = check_reduced(comm, "an all-reduce", t->dtype);
    if (st == SAF_OK) st = saf__allreduce(comm, op, t->dtype, t->data, bytes);
    saf__count(SAF_COUNT_ALLREDUCE, 1, bytes, saf__stopwatch_s(&watch));
    return st;
}

enum { AGREED_BYTES = 2048 }; /* of error text */

/* Prefixed with who it was, unless the text says so: from this rank, or from an agreement before.
 */
static void tell_error(const saf_comm *comm, char text[AGREED_BYTES], const char *agreed,
                       saf_status mine) {
    char prefix[320];
    const char *cause = saf_error_text()[0] ? saf_error_text() : saf_status_text(mine);
    int n = snprintf(prefix, sizeof prefix, "rank %d on %s: ", comm->rank, comm->host);
    bool told = strcmp(cause, agreed) == 0 || strncmp(cause, prefix, (size_t)n) == 0;
    snprintf(text, AGREED_BYTES, "%s%s", told ? "" : prefix, cause);
}

saf_status saf__agree(saf_comm *comm, saf_status mine) {
    static char agreed[AGREED_BYTES]; /* by the newest agreement */
    saf_status st = SAF_OK;
    if (comm->size == 1) return mine;
    int64_t lowest = mine == SAF_OK ? INT64_MAX : (int64_t)comm->rank << 32 | (int64_t)mine;
    SAF_TRY(saf__allreduce(comm, SAF_OP_MIN, SAF_DTYPE_I64, &lowest, sizeof lowest));
    if (lowest == INT64_MAX) goto out;
    int rank = (int)(lowest >> 32);
    char text[AGREED_BYTES] = "";
    if (rank == comm->rank) tell_error(comm, text, agreed, mine);
    SAF_TRY(bcast_bytes(comm, rank, text, sizeof text));
    memcpy(agreed, text, sizeof agreed);
    agreed[AGREED_BYTES - 1] = 0;
    st = saf_fail((saf_status)(lowest & INT32_MAX), "%s", agreed);
out:
    return st;
}

saf_status saf_comm_agree(saf_comm *comm, saf_status mine) {
    saf__stopwatch watch = saf__stopwatch_start(sizeof(int64_t));
    saf_status st = saf__agree(comm, mine);
    saf__count(SAF_COUNT_ALLREDUCE, 1, sizeof(int64_t), saf__stopwatch_s(&watch));
    return st;
}

/* ---- reduce-scatter ---------------------------------------------------------------------------*/

saf_status saf_comm_reduce_scatter(saf_comm *comm, saf_op op, const saf_tensor *all,
                                   const saf_tensor *mine) {
    saf_status st = SAF_OK;
    saf__stopwatch watch = saf__stopwatch_start(0);
    size_t bytes = 0, part = 0;
    SAF_TRY(saf_tensor_bytes(all, &bytes));
    SAF_TRY(saf_tensor_bytes(mine, &part));
    watch = saf__stopwatch_start(bytes);
    SAF_TRY(check_reduced(comm, "a reduce-scatter", all->dtype));
    if (mine->dtype != all->dtype || bytes / (size_t)comm->size != part ||
        bytes % (size_t)comm->size != 0)
        SAF_TRY(saf__comm_fail(comm, SAF_DEFECT,
                               "a reduce-scatter of %zu bytes to %d ranks of %zu bytes each", bytes,
                               comm->size, part));
    SAF_TRY(saf__reduce_scatter(comm, op, all->dtype, all->data, mine->data, part));
out:
    saf__count(SAF_COUNT_ALLREDUCE, 1, bytes, saf__stopwatch_s(&watch));
    return st;
}

/* ---- gathering: plain messages whose lengths both sides know ----------------------------------
 */

/* Operations under way; the first few need no memory of their own. */
typedef struct {
    saf__op few[32], *ops;
    int64_t n;
} exchange;

static size_t message_of(size_t left) {
    return left < saf__eager_piece_bytes() ? left : saf__eager_piece_bytes();
}

static int64_t pieces_of(size_t bytes) {
    size_t most = saf__eager_piece_bytes();
    return bytes <= most ? bytes > 0 : saf_ceil_div((int64_t)bytes, (int64_t)most);
}

static saf_status exchange_room(exchange *x, int64_t ops) {
    x->n = 0;
    x->ops = x->few;
    if (ops <= (int64_t)(sizeof x->few / sizeof x->few[0])) return SAF_OK;
    x->ops = NULL;
    return saf_alloc((size_t)ops, sizeof *x->ops, &x->ops);
}

static void exchange_free(exchange *x) {
    if (x->ops != x->few) saf_free(&x->ops);
}

static saf_status post(exchange *x, saf_comm *comm, bool receive, int peer, int tag, void *bytes,
                       size_t len) {
    saf_status st = SAF_OK;
    char *p = bytes;
    while (len > 0) {
        size_t n = message_of(len);
        saf__op *op = &x->ops[x->n];
        *op = (saf__op){0};
        SAF_TRY(receive ? comm->transport->irecv(comm, peer, tag, p, n, op)
                        : comm->transport->isend(comm, peer, tag, p, n, op));
        x->n++;
        p += n;
        len -= n;
    }
out:
    return st;
}

saf_status saf__allgather(saf_comm *comm, const saf_tensor *mine, const saf_tensor *all,
                          size_t bytes) {
    saf_status st = SAF_OK;
    exchange x = {.ops = NULL};
    const saf_tensor *own = &all[comm->rank];
    size_t theirs;
    int64_t pieces = pieces_of(bytes) * (comm->size - 1);
    x.ops = x.few;
    for (int r = 0; r < comm->size; r++) {
        SAF_TRY(saf_tensor_bytes(&all[r], &theirs));
        if (r != comm->rank) pieces += pieces_of(theirs);
        if (r == comm->rank && (theirs != bytes || own->dtype != mine->dtype)) {
            st = saf__comm_fail(
                comm, SAF_DEFECT, "an all-gather of %s in %zu bytes where %s in %zu was announced",
                saf_dtype_name(mine->dtype), bytes, saf_dtype_name(own->dtype), theirs);
            goto out;
        }
    }
    SAF_TRY(exchange_room(&x, pieces));
    for (int i = 1; i < comm->size; i++) {
        int r = (comm->rank + i) % comm->size; /* not everybody at the same rank at a time */
        SAF_TRY(saf_tensor_bytes(&all[r], &theirs));
        SAF_TRY(post(&x, comm, true, r, SAF__TAG_ALLGATHER, all[r].data, theirs));
    }
    for (int i = 1; i < comm->size; i++)
        SAF_TRY(post(&x, comm, false, (comm->rank + i) % comm->size, SAF__TAG_ALLGATHER, mine->data,
                     bytes));
    if (bytes > 0 && own->data != mine->data) memmove(own->data, mine->data, bytes);
    SAF_TRY(saf__wait_ops(comm, x.ops, x.n));
out:
    exchange_free(&x);
    return st;
}

saf_status saf_comm_allgather(saf_comm *comm, const saf_tensor *mine, const saf_tensor *all) {
    size_t bytes = 0;
    saf_status st = saf_tensor_bytes(mine, &bytes);
    saf__stopwatch watch = saf__stopwatch_start(bytes);
    if (st == SAF_OK) st = saf__allgather(comm, mine, all, bytes);
    saf__count(SAF_COUNT_ALLGATHER, 1, bytes, saf__stopwatch_s(&watch));
    return st;
}

/* Lengths to the root, which makes room; then, if it could, the bytes. */
static saf_status gather(saf_comm *comm, int root, const saf_buf *mine, saf_buf *out) {
    saf_status st = SAF_OK;
    bool at_root = comm->rank == root;
    uint64_t *lens = NULL;
    exchange x = {.ops = NULL};
    int64_t pieces = pieces_of(mine->len);
    x.ops = x.few;
    st = saf_alloc((size_t)comm->size, sizeof *lens, &lens);
    if (st == SAF_OK) st = exchange_room(&x, comm->size);
    SAF_TRY(saf__agree(comm, st));
    lens[comm->rank] = mine->len;
    for (int r = 0; r < comm->size; r++)
        if (at_root ? r != root : r == comm->rank)
            SAF_TRY(post(&x, comm, at_root, at_root ? r : root, SAF__TAG_GATHER, &lens[r],
                         sizeof lens[r]));
    SAF_TRY(saf__wait_ops(comm, x.ops, x.n));
    exchange_free(&x);
    for (int r = 0; at_root && r < comm->size; r++) {
        pieces += pieces_of(lens[r]);
        if (st == SAF_OK) st = saf_buf_resize(&out[r], lens[r]);
    }
    if (st == SAF_OK) st = exchange_room(&x, pieces);
    SAF_TRY(saf__agree(comm, st));
    if (at_root) {
        for (int r = 0; r < comm->size; r++)
            if (r != root) SAF_TRY(post(&x, comm, true, r, SAF__TAG_GATHER, out[r].data, lens[r]));
        if (mine->len > 0) memcpy(out[root].data, mine->data, mine->len);
    } else {
        SAF_TRY(post(&x, comm, false, root, SAF__TAG_GATHER, mine->data, mine->len));
    }
    SAF_TRY(saf__wait_ops(comm, x.ops, x.n));
out:
    exchange_free(&x);
    saf_free(&lens);
    return st;
}

saf_status saf_comm_gather_buf(saf_comm *comm, int root, const saf_buf *mine, saf_buf *out) {
    double t0 = saf_clock_s();
    saf_status st = check_root(comm, root);
    if (st == SAF_OK) st = gather(comm, root, mine, out);
    saf__count(SAF_COUNT_GATHER, 1, mine->len, saf_clock_s() - t0);
    return st;
}
