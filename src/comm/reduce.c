/* Sums, least and greatest of what the ranks have, from messages: the library's own non-blocking
 * reductions take 2 to 6 times as long as its blocking ones, which would spin (wait.c). Source:
 * Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH
 * (2005): short vectors by recursive doubling; of long ones each rank reduces a block, and gives it
 * to all. Lower ranks come first wherever two are joined, so that all ranks have the same bits. */
#include "comm/transport.h"

enum {
    SHORT_BYTES = 2048,    /* and a long vector is one of blocks of a quarter of that at least */
    CHUNK_BYTES = 1 << 20, /* of a block, while others are under way */
    ROOM_BYTES = 8 << 20,  /* of what comes from all others together */
    FEW_RANKS = 16,
    FEW_OPS = 4 * (FEW_RANKS - 1),
    LITTLE_ROOM = 16 << 10
};

/* ---- element by element -----------------------------------------------------------------------*/

/* out may be a or b. */
#define EACH(type, expression)                                                        \
    do {                                                                              \
        const type *x = a, *y = b;                                                    \
        type *z = out;                                                                \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++) z[i] = (type)(expression); \
    } while (0)
#define REDUCE(name, type)                                                                    \
    static void reduce_##name(saf_op op, void *out, const void *a, const void *b, size_t n) { \
        if (op == SAF_OP_SUM)                                                                 \
            EACH(type, x[i] + y[i]);                                                          \
        else if (op == SAF_OP_MIN)                                                            \
            EACH(type, y[i] < x[i] ? y[i] : x[i]);                                            \
        else                                                                                  \
            EACH(type, y[i] > x[i] ? y[i] : x[i]);                                            \
    }
/* The analyzer does not know that receives fill in what they are given. */
// NOLINTBEGIN(clang-analyzer-core.UndefinedBinaryOperatorResult)
REDUCE(f32, float)
REDUCE(f64, double)
REDUCE(i32, int32_t)
REDUCE(i64, int64_t)
REDUCE(u8, uint8_t)
// NOLINTEND(clang-analyzer-core.UndefinedBinaryOperatorResult)

typedef struct {
    saf_comm *comm;
    saf_op op;
    saf_dtype dtype;
    size_t width; /* bytes of an element */
} kind;

static void join(const kind *k, void *out, const void *a, const void *b, size_t bytes) {
    static void (*const reduce[SAF_DTYPE_COUNT])(saf_op, void *, const void *, const void *,
                                                 size_t) = {
        [SAF_DTYPE_F32] = reduce_f32, [SAF_DTYPE_F64] = reduce_f64, [SAF_DTYPE_I32] = reduce_i32,
        [SAF_DTYPE_I64] = reduce_i64, [SAF_DTYPE_U8] = reduce_u8,
    };
    reduce[k->dtype](k->op, out, a, b, bytes / k->width);
}

/* ---- short ones -------------------------------------------------------------------------------*/

static saf_status give(saf_comm *comm, int peer, const void *bytes, size_t len, saf__op *op) {
    *op = (saf__op){0};
    return comm->transport->isend(comm, peer, SAF__TAG_REDUCE, bytes, len, op);
}

static saf_status take(saf_comm *comm, int peer, void *bytes, size_t len, saf__op *op) {
    *op = (saf__op){0};
    return comm->transport->irecv(comm, peer, SAF__TAG_REDUCE, bytes, len, op);
}

static saf_status pass_one(saf_comm *comm, bool receive, int peer, void *bytes, size_t len) {
    saf__op op;
    saf_status st = receive ? take(comm, peer, bytes, len, &op) : give(comm, peer, bytes, len, &op);
    return st != SAF_OK ? st : saf__wait_ops(comm, &op, 1);
}

/* Both have what they and those behind them had. */
static saf_status exchange(const kind *k, int peer, char *data, size_t bytes) {
    saf_status st = SAF_OK;
    char theirs[SHORT_BYTES] __attribute__((aligned(64)));
    saf__op ops[2];
    SAF_TRY(take(k->comm, peer, theirs, bytes, &ops[0]));
    SAF_TRY(give(k->comm, peer, data, bytes, &ops[1]));
    SAF_TRY(saf__wait_ops(k->comm, ops, 2));
    bool first = k->comm->rank < peer;
    join(k, data, first ? data : theirs, first ? theirs : data, bytes);
out:
    return st;
}

/* Of the ranks beyond a power of two each has a neighbour that speaks for it. */
static saf_status reduce_short(const kind *k, char *data, size_t bytes) {
    saf_status st = SAF_OK;
    int power = 1, rank = k->comm->rank;
    while (2 * power <= k->comm->size) power *= 2;
    int spoken_for = k->comm->size - power, me = rank - spoken_for;
    if (rank < 2 * spoken_for) {
        if (rank % 2 == 1) {
            SAF_TRY(pass_one(k->comm, false, rank - 1, data, bytes));
            return pass_one(k->comm, true, rank - 1, data, bytes);
        }
        char theirs[SHORT_BYTES] __attribute__((aligned(64)));
        SAF_TRY(pass_one(k->comm, true, rank + 1, theirs, bytes));
        join(k, data, data, theirs, bytes);
        me = rank / 2;
    }
    for (int bit = 1; bit < power; bit *= 2) {
        int other = me ^ bit;
        int peer = other < spoken_for ? 2 * other : other + spoken_for;
        SAF_TRY(exchange(k, peer, data, bytes));
    }
    if (rank < 2 * spoken_for) SAF_TRY(pass_one(k->comm, false, rank + 1, data, bytes));
out:
    return st;
}

/* ---- long ones --------------------------------------------------------------------------------*/

/* Every rank has a block: [begin(r), begin(r + 1)) of `all`. Of all blocks a chunk at a time is
 * sent to those whose they are, who join them in `out`; those of the next are under way
 * meanwhile. What is given to all goes when all chunks are joined: by turns with them it took three
 * times as long. */
typedef struct {
    kind k;
    const char *all; /* of this rank */
    char *out;       /* its block, reduced: may be where its own part of `all` is */
    size_t count;    /* elements of all */
    size_t step;     /* elements of a chunk */
    int64_t chunks;
    char *room;          /* [2, ranks, step] of even and odd chunks */
    saf__op *scatter[2]; /* [2 (ranks - 1)] each */
} blocks;

static size_t block_begin(const blocks *b, int r) {
    size_t n = (size_t)b->k.comm->size, each = b->count / n, more = b->count % n, at = (size_t)r;
    return at * each + (at < more ? at : more);
}

/* Bytes of a chunk of the block of rank r; *at: where they begin in `all`. */
static size_t chunk_of(const blocks *b, int r, int64_t chunk, size_t *at) {
    size_t begin = block_begin(b, r), end = block_begin(b, r + 1), first = (size_t)chunk * b->step,
           n = end - begin;
    size_t len = first >= n ? 0 : n - first < b->step ? n - first : b->step;
    *at = (begin + first) * b->k.width;
    return len * b->k.width;
}

static char *room_of(const blocks *b, int64_t chunk, int r) {
    size_t bytes = b->step * b->k.width;
    return b->room + ((size_t)(chunk % 2) * (size_t)b->k.comm->size + (size_t)r) * bytes;
}

static saf_status start_scatter(blocks *b, int64_t chunk) {
    saf_status st = SAF_OK;
    saf_comm *comm = b->k.comm;
    saf__op *op = b->scatter[chunk % 2];
    size_t at, len, mine = chunk_of(b, comm->rank, chunk, &at);
    for (int i = 1; i < comm->size && mine > 0; i++) {
        int r = (comm->rank + i) % comm->size; /* not everybody at the same rank at a time */
        SAF_TRY(take(comm, r, room_of(b, chunk, r), mine, op++));
    }
    for (int i = 1; i < comm->size; i++) {
        int r = (comm->rank + i) % comm->size;
        len = chunk_of(b, r, chunk, &at);
        if (len > 0) SAF_TRY(give(comm, r, b->all + at, len, op++));
    }
out:
    return st;
}

/* In the order of the ranks. */
static void join_chunk(blocks *b, int64_t chunk) {
    int rank = b->k.comm->rank, size = b->k.comm->size;
    size_t at, len = chunk_of(b, rank, chunk, &at);
    const char *own = b->all + at, *sum = rank == 0 ? own : room_of(b, chunk, 0);
    char *out = b->out + at - block_begin(b, rank) * b->k.width, *first = room_of(b, chunk, 0);
    for (int r = 1; r < size && len > 0; r++) {
        /* Until the last, not where this rank's own part may be. */
        char *to = r == size - 1 || rank < r ? out : first;
        join(&b->k, to, sum, r == rank ? own : room_of(b, chunk, r), len);
        sum = to;
    }
}

/* The communicator keeps it: new pages take longer than what is put into them. */
static saf_status take_room(blocks *b, char *little, saf__op *few) {
    saf_status st = SAF_OK;
    saf_comm *comm = b->k.comm;
    saf__op *ops = few;
    size_t ranks = (size_t)comm->size, longest = block_begin(b, 1);
    size_t bytes = ROOM_BYTES / 2 / ranks < CHUNK_BYTES ? ROOM_BYTES / 2 / ranks : CHUNK_BYTES;
    if (bytes > saf__eager_piece_bytes()) bytes = saf__eager_piece_bytes();
    b->step = bytes < b->k.width ? 1 : bytes / b->k.width;
    if (b->step > longest && longest > 0) b->step = longest;
    b->chunks = saf_ceil_div((int64_t)longest, (int64_t)b->step);
    size_t room = (2 * ranks * b->step * b->k.width + 63) / 64 * 64, each = 2 * (ranks - 1);
    b->room = little;
    if (room > LITTLE_ROOM || 2 * each > FEW_OPS) {
        size_t all = room + 2 * each * sizeof *ops;
        if (all > comm->room_bytes) {
            saf_free(&comm->room);
            comm->room_bytes = 0;
            SAF_TRY(saf__agree(comm, saf_alloc(all, 1, &comm->room)));
            comm->room_bytes = all;
        }
        b->room = comm->room;
        ops = (saf__op *)(void *)(comm->room + room);
    }
    memset(ops, 0, 2 * each * sizeof *ops);
    b->scatter[0] = ops;
    b->scatter[1] = ops + each;
out:
    return st;
}

static saf_status reduce_blocks(blocks *b) {
    saf_status st = SAF_OK;
    saf_comm *comm = b->k.comm;
    int64_t each = 2 * ((int64_t)comm->size - 1);
    char little[LITTLE_ROOM] __attribute__((aligned(64)));
    saf__op few[FEW_OPS];
    SAF_TRY(take_room(b, little, few));
    SAF_TRY(start_scatter(b, 0));
    for (int64_t chunk = 0; chunk < b->chunks; chunk++) {
        if (chunk + 1 < b->chunks) SAF_TRY(start_scatter(b, chunk + 1));
        SAF_TRY(saf__wait_ops(comm, b->scatter[chunk % 2], each));
        join_chunk(b, chunk);
    }
out:
    b->room = NULL;
    b->scatter[0] = b->scatter[1] = NULL;
    return st;
}

static saf_status reduce_long(const kind *k, char *data, size_t bytes) {
    saf_status st = SAF_OK;
    saf_comm *comm = k->comm;
    saf_tensor few[FEW_RANKS], *taken = NULL, *all = few;
    blocks b = {.k = *k, .all = data, .count = bytes / k->width};
    b.out = data + block_begin(&b, comm->rank) * k->width;
    SAF_TRY(reduce_blocks(&b));
    if (comm->size > FEW_RANKS) {
        SAF_TRY(saf__agree(comm, saf_alloc((size_t)comm->size, sizeof *taken, &taken)));
        all = taken;
    }
    for (int r = 0; r < comm->size; r++) {
        size_t begin = block_begin(&b, r) * k->width, end = block_begin(&b, r + 1) * k->width;
        all[r] = saf_tensor_1d(SAF_DTYPE_U8, data + begin, (int64_t)(end - begin));
    }
    SAF_TRY(saf__allgather(comm, &all[comm->rank], all, (size_t)all[comm->rank].shape[0]));
out:
    saf_free(&taken);
    return st;
}

/* ---- both -------------------------------------------------------------------------------------*/

static kind kind_of(saf_comm *comm, saf_op op, saf_dtype dtype) {
    return (kind){comm, op, dtype, (size_t)saf_dtype_block_bytes(dtype)};
}

saf_status saf__allreduce(saf_comm *comm, saf_op op, saf_dtype dtype, void *data, size_t bytes) {
    saf_status st = SAF_OK;
    kind k = kind_of(comm, op, dtype);
    size_t most = saf__piece_bytes() < SHORT_BYTES ? saf__piece_bytes() : SHORT_BYTES;
    if (comm->size == 1) return SAF_OK;
    if (bytes > most && bytes >= SHORT_BYTES / 4 * (size_t)comm->size)
        return reduce_long(&k, data, bytes);
    most = most < k.width ? k.width : most / k.width * k.width;
    for (size_t at = 0; at < bytes && st == SAF_OK; at += most)
        st = reduce_short(&k, (char *)data + at, bytes - at < most ? bytes - at : most);
    return st;
}

saf_status saf__reduce_scatter(saf_comm *comm, saf_op op, saf_dtype dtype, const void *all,
                               void *mine, size_t bytes) {
    kind k = kind_of(comm, op, dtype);
    blocks b = {.k = k, .all = all, .out = mine};
    b.count = bytes / k.width * (size_t)comm->size;
    if (comm->size == 1 && bytes > 0) memmove(mine, all, bytes);
    return comm->size == 1 || bytes == 0 ? SAF_OK : reduce_blocks(&b);
}
