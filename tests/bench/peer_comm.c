/* Messages by saf's comm and by MPI itself, in turn, in one program: send and receive there and
 * back, broadcast, all-reduce, reduce-scatter, all-gather and barrier, by size. `make
 * bench-peers-comm`; medians of repetitions, and saf's time over MPI's: the median of each
 * repetition's, and that of the two shortest, which others who use the machine disturb least.
 * mpirun -np 2 --bind-to core bench-peer_comm [LARGEST] */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "saf/comm.h"

enum { REPEATS = 15, MOST_ROUNDS = 1024, TOGETHER = 16 << 20 };

typedef enum { PASS, BROADCAST, ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BARRIER, KINDS } kind;
static const char *const names[] = {"send, receive",  "broadcast",  "all-reduce",
                                    "reduce-scatter", "all-gather", "barrier"};

typedef struct {
    saf_comm *world;
    int rank, ranks;
    char *out, *in;
    saf_tensor *all;
} bench;

static void must(int code) {
    if (code == MPI_SUCCESS) return;
    fprintf(stderr, "a call of MPI failed\n");
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void must_saf(saf_status st) {
    if (st == SAF_OK) return;
    fprintf(stderr, "%s\n", saf_error_text());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void raw(const bench *b, kind what, int bytes, int root) {
    int peer = 1 - b->rank;
    switch (what) {
        case PASS:
            if (b->rank > 1) return;
            if (b->rank == 0) must(MPI_Send(b->out, bytes, MPI_BYTE, peer, 1, MPI_COMM_WORLD));
            must(MPI_Recv(b->in, bytes, MPI_BYTE, peer, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
            if (b->rank == 1) must(MPI_Send(b->out, bytes, MPI_BYTE, peer, 1, MPI_COMM_WORLD));
            return;
        case BROADCAST:
            must(MPI_Bcast(b->in, bytes, MPI_BYTE, root, MPI_COMM_WORLD));
            return;
        case ALL_REDUCE:
            must(MPI_Allreduce(MPI_IN_PLACE, b->in, bytes / 4, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD));
            return;
        case REDUCE_SCATTER:
            must(MPI_Reduce_scatter_block(b->out, b->in, bytes / b->ranks / 4, MPI_FLOAT, MPI_SUM,
                                          MPI_COMM_WORLD));
            return;
        case ALL_GATHER:
            must(MPI_Allgather(b->out, bytes / b->ranks, MPI_BYTE, b->in, bytes / b->ranks,
                               MPI_BYTE, MPI_COMM_WORLD));
            return;
        case BARRIER:
            must(MPI_Barrier(MPI_COMM_WORLD));
            return;
        case KINDS:
            return;
    }
}

static void ours(const bench *b, kind what, int bytes, int root) {
    saf_tensor out = saf_tensor_1d(SAF_DTYPE_U8, b->out, bytes);
    saf_tensor in = saf_tensor_1d(SAF_DTYPE_U8, b->in, bytes);
    int peer = 1 - b->rank;
    switch (what) {
        case PASS:
            if (b->rank > 1) return;
            if (b->rank == 0) must_saf(saf_comm_send(b->world, peer, SAF_TAG_BENCH, &out));
            must_saf(saf_comm_recv(b->world, peer, SAF_TAG_BENCH, (size_t)bytes, &in));
            if (b->rank == 1) must_saf(saf_comm_send(b->world, peer, SAF_TAG_BENCH, &out));
            return;
        case BROADCAST:
            must_saf(saf_comm_bcast(b->world, root, &in));
            return;
        case ALL_REDUCE:
            in = saf_tensor_1d(SAF_DTYPE_F32, b->in, bytes / 4);
            must_saf(saf_comm_allreduce(b->world, SAF_OP_SUM, &in));
            return;
        case REDUCE_SCATTER:
            out = saf_tensor_1d(SAF_DTYPE_F32, b->out, bytes / b->ranks / 4 * b->ranks);
            in = saf_tensor_1d(SAF_DTYPE_F32, b->in, bytes / b->ranks / 4);
            must_saf(saf_comm_reduce_scatter(b->world, SAF_OP_SUM, &out, &in));
            return;
        case ALL_GATHER:
            out = saf_tensor_1d(SAF_DTYPE_U8, b->out, bytes / b->ranks);
            for (int r = 0; r < b->ranks; r++)
                b->all[r] = saf_tensor_1d(
                    SAF_DTYPE_U8, b->in + (size_t)r * (size_t)(bytes / b->ranks), bytes / b->ranks);
            must_saf(saf_comm_allgather(b->world, &out, b->all));
            return;
        case BARRIER:
            must_saf(saf_comm_barrier(b->world));
            return;
        case KINDS:
            return;
    }
}

/* Seconds of one, of the slowest rank. */
static double sample(const bench *b, bool saf, kind what, int bytes) {
    int rounds = TOGETHER / (bytes + 1) < MOST_ROUNDS ? TOGETHER / (bytes + 1) : MOST_ROUNDS;
    rounds = rounds > 0 ? rounds : 1;
    must(MPI_Barrier(MPI_COMM_WORLD));
    double start = MPI_Wtime(), s;
    for (int i = 0; i < rounds; i++)
        saf ? ours(b, what, bytes, i % b->ranks) : raw(b, what, bytes, i % b->ranks);
    s = (MPI_Wtime() - start) / rounds / (what == PASS ? 2 : 1);
    must(MPI_Allreduce(MPI_IN_PLACE, &s, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD));
    return s;
}

static void compare(const bench *b, kind what, int bytes) {
    double mine[REPEATS], theirs[REPEATS], ratio[REPEATS];
    (void)sample(b, false, what, bytes);
    (void)sample(b, true, what, bytes);
    for (int i = 0; i < REPEATS; i++) {
        theirs[i] = sample(b, false, what, bytes);
        mine[i] = sample(b, true, what, bytes);
        ratio[i] = mine[i] / theirs[i];
    }
    if (b->rank != 0) return;
    double r = saf_median(ratio, REPEATS), us = saf_median(mine, REPEATS) * 1e6,
           raw_us = saf_median(theirs, REPEATS) * 1e6;
    printf(
        "%-14s %9d bytes  MPI %9.2f us, least %9.2f  saf %9.2f us, least %9.2f  %6.3f times, of "
        "the least %.3f\n",
        names[what], bytes, raw_us, theirs[0] * 1e6, us, mine[0] * 1e6, r, mine[0] / theirs[0]);
    fflush(stdout);
}

int main(int argc, char **argv) {
    bench b = {.rank = 0};
    int most = argc > 1 ? atoi(argv[1]) : 64 << 20;
    int level;
    must(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level));
    must_saf(saf_comm_start(&argc, &argv, &b.world));
    b.rank = saf_comm_rank(b.world);
    b.ranks = saf_comm_size(b.world);
    b.out = calloc((size_t)most + 64, 1);
    b.in = calloc((size_t)most + 64, 1);
    b.all = calloc((size_t)b.ranks, sizeof *b.all);
    if (b.ranks < 2 || most < 1 || !b.out || !b.in || !b.all) {
        fprintf(stderr, "usage: mpirun -np RANKS bench-peer_comm [LARGEST], 2 ranks or more\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    memset(b.out, 1, (size_t)most);
    memset(b.in, 0, (size_t)most);
    for (kind what = PASS; what < BARRIER; what++)
        for (int bytes = what == PASS ? 1 : 4 * b.ranks;;
             bytes = bytes > most / 8 ? most : 8 * bytes) {
            compare(&b, what, bytes);
            if (bytes >= most) break;
        }
    compare(&b, BARRIER, 0);
    free(b.out);
    free(b.in);
    free(b.all);
    saf_comm_stop(&b.world);
    must(MPI_Finalize());
    return 0;
}
