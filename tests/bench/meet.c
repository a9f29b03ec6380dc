/* Meetings of ranks that share memory, in microseconds: alone; with BYTES that each rank writes
 * before and all others read after, as the parts of a layer do; and an all-gather of as much by
 * messages. `make bench-meet`; medians of repetitions in turn. mpirun -np 2 --bind-to core meet
 * [BYTES] */
#include <stdio.h>
#include <stdlib.h>

#include "saf/comm.h"

enum { REPEATS = 21, MEETINGS = 20000, GATHERS = 2000, MUCH = 16384 };

typedef struct {
    saf_comm *world;
    saf_shared *shared;
    saf_part *parts;
    saf_tensor *all; /* places of their own */
    size_t bytes;
    uint64_t sum;
} bench;

/* Of so many of a few bytes fewer with more. */
static int times(const bench *b, int most) {
    size_t fewer = b->bytes / MUCH + 1;
    return fewer < (size_t)most / 10 ? most / (int)fewer : 10;
}

static void write_bytes(void *bytes, size_t n, int round) {
    memset(bytes, round, n);
}

static void read_bytes(bench *b, const char *bytes) {
    uint64_t x;
    for (size_t i = 0; i < b->bytes * (size_t)saf_comm_size(b->world); i += sizeof x) {
        memcpy(&x, bytes + i, sizeof x);
        b->sum += x;
    }
}

/* Two halves of the block in turn: others may still read the one that was written before. */
static saf_status meet(bench *b, bool with_bytes, double *us) {
    saf_status st = SAF_OK;
    size_t half = b->bytes * (size_t)saf_comm_size(b->world);
    SAF_TRY(saf_comm_barrier(b->world));
    SAF_TRY(saf_shared_meet(b->shared, NULL, 0));
    int size = saf_comm_size(b->world), rank = saf_comm_rank(b->world);
    int n = with_bytes ? times(b, MEETINGS) : MEETINGS;
    char *block = saf_shared_data(b->shared);
    double t0 = saf_clock_s();
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)(i % 2) * half;
        for (int r = 0; with_bytes && r < size; r++) b->parts[r].offset = at + (size_t)r * b->bytes;
        if (with_bytes) write_bytes(block + b->parts[rank].offset, b->bytes, i);
        SAF_TRY(saf_shared_meet(b->shared, b->parts, with_bytes ? size : 0));
        if (with_bytes) read_bytes(b, block + at);
    }
    *us = 1e6 * (saf_clock_s() - t0) / n;
out:
    return st;
}

static saf_status gather(bench *b, double *us) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_comm_barrier(b->world));
    double t0 = saf_clock_s();
    int n = times(b, GATHERS);
    const saf_tensor *mine = &b->all[saf_comm_rank(b->world)];
    for (int i = 0; i < n; i++) {
        write_bytes(mine->data, b->bytes, i);
        SAF_TRY(saf_comm_allgather(b->world, mine, b->all));
        read_bytes(b, b->all[0].data);
    }
    *us = 1e6 * (saf_clock_s() - t0) / n;
out:
    return st;
}

static saf_status run(bench *b) {
    saf_status st = SAF_OK;
    double alone[REPEATS], full[REPEATS], gathered[REPEATS];
    char *room = NULL;
    int size = saf_comm_size(b->world);
    st = saf_alloc((size_t)size, sizeof *b->parts, &b->parts);
    if (st == SAF_OK) st = saf_alloc((size_t)size, sizeof *b->all, &b->all);
    if (st == SAF_OK) st = saf_alloc((size_t)size, b->bytes, &room);
    SAF_TRY(saf_comm_agree(b->world, st));
    for (int r = 0; r < size; r++) {
        b->parts[r] = (saf_part){r, 1, 0, b->bytes, b->bytes};
        b->all[r] = saf_tensor_1d(SAF_DTYPE_U8, room + (size_t)r * b->bytes, (int64_t)b->bytes);
    }
    SAF_TRY(saf_shared_new(b->world, 2 * b->bytes * (size_t)size, &b->shared));
    for (int i = 0; i < REPEATS; i++) {
        SAF_TRY(meet(b, false, &alone[i]));
        SAF_TRY(meet(b, true, &full[i]));
        SAF_TRY(gather(b, &gathered[i]));
    }
    double a = saf_median(alone, REPEATS), f = saf_median(full, REPEATS),
           g = saf_median(gathered, REPEATS);
    if (saf_comm_rank(b->world) == 0)
        printf(
            "%d ranks, microseconds: meeting %.2f (%.2f to %.2f), with %zu bytes of each %.2f, "
            "all-gather of as much %.2f\n",
            size, a, alone[0], alone[REPEATS - 1], b->bytes, f, g);
out:
    saf_shared_free(&b->shared);
    saf_free(&b->parts);
    saf_free(&b->all);
    saf_free(&room);
    return st;
}

int main(int argc, char **argv) {
    bench b = {.bytes = 4096};
    saf_status st = saf_comm_start(&argc, &argv, &b.world);
    if (st == SAF_OK && argc > 1) b.bytes = (size_t)strtoul(argv[1], NULL, 10) / 8 * 8;
    if (st == SAF_OK) st = run(&b);
    if (st != SAF_OK) fprintf(stderr, "%s\n", saf_error_text());
    if (st != SAF_OK && b.world) saf_comm_abort(b.world, 1);
    saf_comm_stop(&b.world);
    return st == SAF_OK ? 0 : 1;
}
