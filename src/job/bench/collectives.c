/* Suite comm: barrier, broadcast, all-reduce, reduce-scatter and all-gather by size and number of
 * ranks. A time is that of the slowest rank; roots take turns, or a broadcast's would run ahead of
 * the others. What comes out is checked once for each size. */
#include <stdio.h>

#include "job/bench/suites.h"

typedef enum { BARRIER, BROADCAST, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, OPERATIONS } operation;
static const char *const names[] = {"barrier", "broadcast", "all-reduce", "reduce-scatter",
                                    "all-gather"};

typedef struct {
    saf__suites *w;
    saf_comm *comm; /* the ranks that take part; NULL on the others */
    int32_t ranks;
    char *data, *mine; /* room for the largest, and for this rank's part of it */
    saf_tensor *all;   /* [ranks] of an all-gather */
    double *samples;   /* [repeats] */
} collectives;

/* Bytes that every rank has afterwards (of a reduce-scatter before), of those asked for: whole
 * numbers, equal parts. */
static int64_t whole_bytes(const collectives *c, operation op, int64_t bytes) {
    if (op == ALL_REDUCE) return saf_i64_max(1, bytes / 4) * 4;
    if (op == REDUCE_SCATTER) return saf_i64_max(1, bytes / 4 / c->ranks) * 4 * c->ranks;
    if (op == ALL_GATHER) return saf_i64_max(1, bytes / c->ranks) * c->ranks;
    return bytes;
}

static saf_status do_once(const collectives *c, operation op, int64_t bytes, int root) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, c->data, bytes), part;
    switch (op) {
        case BARRIER:
            return saf_comm_barrier(c->comm);
        case BROADCAST:
            return saf_comm_bcast(c->comm, root, &t);
        case ALL_REDUCE:
            t = saf_tensor_1d(SAF_DTYPE_F32, c->data, bytes / 4);
            return saf_comm_allreduce(c->comm, SAF_OP_SUM, &t);
        case REDUCE_SCATTER:
            t = saf_tensor_1d(SAF_DTYPE_F32, c->data, bytes / 4);
            part = saf_tensor_1d(SAF_DTYPE_F32, c->mine, bytes / 4 / c->ranks);
            return saf_comm_reduce_scatter(c->comm, SAF_OP_SUM, &t, &part);
        case ALL_GATHER:
            t = saf_tensor_1d(SAF_DTYPE_U8, c->mine, bytes / c->ranks);
            return saf_comm_allgather(c->comm, &t, c->all);
        case OPERATIONS:
            break;
    }
    return saf_fail(SAF_DEFECT, "no operation %d", (int)op);
}

static void set_parts(const collectives *c, int64_t bytes) {
    int64_t part = bytes / c->ranks;
    for (int32_t r = 0; r < c->ranks; r++)
        c->all[r] = saf_tensor_1d(SAF_DTYPE_U8, c->data + r * part, part);
}

/* What each rank puts in, and whether everything is there afterwards. */
static saf_status check(const collectives *c, operation op, int64_t bytes) {
    saf_status st = SAF_OK;
    int rank = saf_comm_rank(c->comm), root = c->ranks - 1;
    int64_t wrong = 0, part = bytes / c->ranks;
    float one = 1, sum;
    memset(c->data, rank + 1, (size_t)bytes);
    for (int64_t i = 0; (op == ALL_REDUCE || op == REDUCE_SCATTER) && i < bytes; i += 4)
        memcpy(c->data + i, &one, sizeof one);
    if (op == ALL_GATHER) memset(c->mine, rank + 1, (size_t)part);
    SAF_TRY(do_once(c, op, bytes, root));
    for (int64_t i = 0; op == BROADCAST && i < bytes; i++) wrong += c->data[i] != (char)(root + 1);
    for (int64_t i = 0; op == ALL_GATHER && i < bytes; i++)
        wrong += c->data[i] != (char)(i / part + 1);
    for (int64_t i = 0; op == ALL_REDUCE && i < bytes; i += 4) {
        memcpy(&sum, c->data + i, sizeof sum);
        wrong += sum != (float)c->ranks;
    }
    for (int64_t i = 0; op == REDUCE_SCATTER && i < part; i += 4) {
        memcpy(&sum, c->mine + i, sizeof sum);
        wrong += sum != (float)c->ranks;
    }
    memset(c->data, 0, (size_t)bytes);
    if (wrong > 0)
        st = saf_fail(SAF_FAILED, "suite comm: %s of %lld bytes on %d ranks: %lld wrong values",
                      names[op], (long long)bytes, c->ranks, (long long)wrong);
out:
    return saf_comm_agree(c->comm, st);
}

static saf_status sample(const collectives *c, operation op, int64_t bytes, int32_t rounds,
                         double *seconds) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_comm_barrier(c->comm));
    double start = saf_clock_s();
    for (int32_t i = 0; i < rounds; i++) SAF_TRY(do_once(c, op, bytes, i % c->ranks));
    *seconds = (saf_clock_s() - start) / rounds;
out:
    return st;
}

static saf_status add_row(const collectives *c, operation op, int64_t bytes, int32_t rounds) {
    saf__figures f;
    int32_t repeats = c->w->repeats;
    saf_status st = saf__suite_figures(c->samples, repeats, (double)bytes, &f);
    if (st != SAF_OK) return st;
    saf_suite_collective row = {.ranks = c->ranks,
                                .bytes = bytes,
                                .repeats = repeats,
                                .rounds = rounds,
                                .seconds = f.seconds,
                                .seconds_min = f.seconds_min,
                                .seconds_max = f.seconds_max,
                                .bytes_per_s = f.rate,
                                .bytes_per_s_min = f.rate_min,
                                .bytes_per_s_max = f.rate_max};
    snprintf(row.operation, sizeof row.operation, "%s", names[op]);
    return saf__suite_row(c->w, SAF_SUITE_COLLECTIVES, &row);
}

static saf_status measure(collectives *c, operation op, int64_t bytes) {
    saf_status st = SAF_OK;
    double ignored;
    int32_t rounds = saf__suite_rounds(bytes), repeats = c->w->repeats;
    set_parts(c, bytes);
    SAF_TRY(check(c, op, bytes));
    SAF_TRY(sample(c, op, bytes, rounds, &ignored));
    for (int32_t i = 0; i < repeats; i++) SAF_TRY(sample(c, op, bytes, rounds, &c->samples[i]));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, c->samples, repeats);
    SAF_TRY(saf_comm_allreduce(c->comm, SAF_OP_MAX, &t));
    SAF_TRY(saf_comm_agree(c->comm, c->w->s->rank == 0 ? add_row(c, op, bytes, rounds) : SAF_OK));
out:
    return st;
}

/* All operations by the ranks of c->comm. */
static saf_status measure_all(collectives *c) {
    saf_status st = SAF_OK;
    int64_t sizes[SAF__SIZES_MAX], most = c->w->s->job->bench.message_bytes;
    int n = saf__suite_sizes(most, sizes);
    SAF_TRY(measure(c, BARRIER, 0));
    for (operation op = BROADCAST; op < OPERATIONS; op++) {
        int64_t last = 0;
        for (int i = 0; i < n; i++) {
            int64_t bytes = whole_bytes(c, op, sizes[i]);
            if (bytes > last) SAF_TRY(measure(c, op, bytes));
            last = bytes;
        }
    }
out:
    return st;
}

/* The ranks meet first: a split waits inside of MPI. */
static saf_status run_on(collectives *c, int32_t ranks) {
    saf_status st = SAF_OK;
    const saf__session *s = c->w->s;
    c->ranks = ranks;
    SAF_TRY(saf_comm_barrier(s->world));
    SAF_TRY(saf_comm_split(s->world, s->rank < ranks ? 0 : -1, s->rank, &c->comm));
    if (c->comm) saf__suite_end_apart(c->w, measure_all(c));
    SAF_TRY(saf_comm_barrier(s->world));
out:
    saf_comm_free(&c->comm);
    return st;
}

saf_status saf__suite_collectives(saf__suites *w) {
    enum { EVERY_COUNT = 8 }; /* up to here; then doublings, and all ranks */
    saf_status st = SAF_OK;
    collectives c = {.w = w};
    int32_t all = w->s->ranks;
    /* The smallest number of bytes that all ranks have a part of, or a number. */
    size_t most = (size_t)saf_i64_max(w->s->job->bench.message_bytes, saf_i64_max(4, all));
    st = saf_alloc(most, 1, &c.data);
    if (st == SAF_OK) st = saf_alloc(most, 1, &c.mine);
    if (st == SAF_OK) memset(c.mine, 0, most);
    if (st == SAF_OK) memset(c.data, 0, most);
    if (st == SAF_OK) st = saf_alloc((size_t)all, sizeof *c.all, &c.all);
    if (st == SAF_OK) st = saf_alloc((size_t)w->repeats, sizeof *c.samples, &c.samples);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    for (int32_t n = 2; n < all; n = n < EVERY_COUNT ? n + 1 : 2 * n) SAF_TRY(run_on(&c, n));
    SAF_TRY(run_on(&c, all));
out:
    saf_free(&c.data);
    saf_free(&c.mine);
    saf_free(&c.all);
    saf_free(&c.samples);
    return st;
}
