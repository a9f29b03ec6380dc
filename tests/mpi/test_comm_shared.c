/* Memory that ranks share, and their meetings: on one host, and on pretended ones. */
#include <sys/resource.h>
#include <time.h>

#include "comm/transport.h"
#include "mpi/mpi_test.h"

/* The same numbers on all ranks. */
static uint64_t chance;

static int64_t below(int64_t n) {
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((chance >> 33) % (uint64_t)n);
}

static unsigned char byte_of(size_t at, int64_t round) {
    uint64_t x = (at + 1) * 0x9E3779B97F4A7C15u ^ (uint64_t)(round + 1) * 0xD1B54A32D192ED03u;
    return (unsigned char)((x ^ x >> 29) * 0xBF58476D1CE4E5B9u >> 56);
}

static void write_part(unsigned char *bytes, const saf_part *p, int64_t round) {
    for (int64_t row = 0; row < p->rows; row++)
        for (size_t i = 0; i < p->bytes; i++) {
            size_t at = p->offset + (size_t)row * p->stride + i;
            bytes[at] = byte_of(at, round);
        }
}

/* ---- random parts ---------------------------------------------------------------------------- */

enum { PARTS = 200 };
typedef struct {
    saf_part parts[PARTS];
    int n;
    int ranks, only; /* only: the owner of all of them, or -1 */
} part_list;

static void add(part_list *l, size_t offset, int64_t rows, size_t bytes, size_t stride) {
    if (l->n >= PARTS) return;
    int32_t owner = l->only >= 0 ? l->only : (int32_t)below(l->ranks);
    l->parts[l->n++] = (saf_part){owner, rows, offset, bytes, stride};
}

/* Rows that several owners have columns of. */
static size_t add_rows(part_list *l, size_t begin, size_t longest) {
    int64_t rows = 1 + below(9);
    size_t stride = 1 + (size_t)below((int64_t)longest), at = 0;
    if ((size_t)rows * stride > longest) rows = (int64_t)(longest / stride);
    while (at < stride) {
        size_t bytes = 1 + (size_t)below((int64_t)(stride - at));
        if (below(4) > 0) add(l, begin + at, rows, bytes, stride);
        at += bytes;
    }
    return (size_t)rows * stride;
}

/* Parts of [begin, end) with gaps, without gaps, of nothing; of everybody, of one, of nobody. */
static void make_parts(part_list *l, size_t begin, size_t end) {
    l->n = 0;
    l->only = below(4) == 0 ? (int)below(l->ranks) : -1;
    if (below(16) == 0) return;
    size_t at = begin, longest = 1 + (size_t)below((int64_t)(end - begin));
    while (at < end) {
        size_t most = longest < end - at ? longest : end - at;
        size_t some = 1 + (size_t)below((int64_t)most);
        switch (below(6)) {
            case 0:
                at += some;
                break;
            case 1:
                add(l, at, 0, some, 1);
                break;
            case 2:
                add(l, end, below(3), 0, some);
                break;
            case 3:
                add(l, at, 1, some, (size_t)below(3));
                at += some;
                break;
            default:
                at += add_rows(l, at, most);
        }
    }
}

/* Every round writes into the other half of the block than the one before: of that, ranks may still
 * be reading. */
static void check_meetings(saf_comm *c, int rounds, size_t half, uint64_t seed) {
    saf_shared *shared = NULL;
    unsigned char *model = NULL;
    part_list *l = NULL;
    chance = seed;
    CHECK_OK(saf_alloc(2 * half, 1, &model));
    CHECK_OK(saf_alloc(1, sizeof *l, &l));
    l->ranks = saf_comm_size(c);
    if (!CHECK_OK(saf_shared_new(c, 2 * half, &shared))) goto out;
    unsigned char *block = saf_shared_data(shared);
    for (int round = 0; round < rounds; round++) {
        size_t begin = round % 2 * half;
        make_parts(l, begin, begin + half);
        for (int i = 0; i < l->n; i++) {
            write_part(model, &l->parts[i], round);
            if (l->parts[i].owner == saf_comm_rank(c)) write_part(block, &l->parts[i], round);
        }
        if (!CHECK_OK(saf_shared_meet(shared, l->parts, l->n))) break;
        CHECK(memcmp(block + begin, model + begin, half) == 0);
        /* Somebody is late, now and then. */
        if (below(64) == 0 && below(l->ranks) == saf_comm_rank(c))
            nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
out:
    saf_shared_free(&shared);
    CHECK(!shared);
    saf_free(&model);
    saf_free(&l);
}

/* On hosts of 1 rank, of 2, and on one. */
static void on_all_hosts(saf_comm *world, void (*run)(saf_comm *world, int host_ranks)) {
    for (int host_ranks = 0; host_ranks <= 2; host_ranks++) {
        saf__comm_set_host_ranks(host_ranks);
        run(world, host_ranks);
    }
    saf__comm_set_host_ranks(0);
}

/* How many hosts that is, from the names of the real ones. */
static int hosts_of(saf_comm *world, int host_ranks) {
    enum { MOST = 64, NAME = 256 };
    static char names[MOST][NAME];
    saf_tensor all[MOST];
    int hosts = 0;
    for (int r = 0; r < saf_comm_size(world); r++)
        all[r] = saf_tensor_1d(SAF_DTYPE_U8, names[r], NAME);
    memset(names, 0, sizeof names);
    snprintf(names[saf_comm_rank(world)], NAME, "%s", saf_comm_host(world));
    CHECK_OK(saf_comm_allgather(world, &all[saf_comm_rank(world)], all));
    for (int r = 0; r < saf_comm_size(world); r++) {
        int before = 0;
        for (int q = 0; q < r; q++) before += strcmp(names[q], names[r]) == 0;
        hosts += before == 0 || (host_ranks > 0 && before % host_ranks == 0);
    }
    return hosts;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void check_new(saf_comm *world, int host_ranks) {
    static const size_t sizes[] = {0, 1, 1000, 5 << 20};
    int hosts = hosts_of(world, host_ranks);
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        saf_shared *shared = NULL;
        if (!CHECK_OK(saf_shared_new(world, sizes[k], &shared))) return;
        const unsigned char *block = saf_shared_data(shared);
        CHECK(block && (uintptr_t)block % 64 == 0);
        CHECK_EQ(saf_shared_one_host(shared), hosts == 1);
        size_t set = 0;
        for (size_t i = 0; i < sizes[k]; i++) set += block[i] != 0;
        CHECK_EQ(set, 0);
        CHECK_OK(saf_shared_meet(shared, NULL, 0)); /* all have looked */
        if (sizes[k] > 0 && saf_comm_rank(world) == 0)
            memset(saf_shared_data(shared), 255, sizes[k]);
        CHECK_OK(saf_shared_meet(shared, NULL, 0));
        if (sizes[k] > 0 && hosts == 1) CHECK_EQ(block[sizes[k] - 1], 255);
        saf_shared_free(&shared);
        saf_shared_free(&shared);
    }
}
static void test_shared_is_zeroed(saf_comm *world) {
    on_all_hosts(world, check_new);
}

static void check_random(saf_comm *world, int host_ranks) {
    check_meetings(world, 2000, 500, 17 + (uint64_t)host_ranks);
    check_meetings(world, 300, 20000, 4711);
}
static void test_shared_random_meetings(saf_comm *world) {
    on_all_hosts(world, check_random);
}

static void test_shared_in_pieces(saf_comm *world) {
    size_t usual = saf__piece_bytes();
    saf__comm_set_piece_bytes(1000);
    saf__comm_set_host_ranks(1);
    check_meetings(world, 200, 30000, 99);
    saf__comm_set_host_ranks(0);
    saf__comm_set_piece_bytes(usual);
}

/* Columns of rows, each rank's as wide, 4 MiB each; then all of it from one rank. */
static void check_large(saf_comm *world, int host_ranks) {
    (void)host_ranks;
    enum { ROWS = 64, COLUMN = 1 << 16 };
    int size = saf_comm_size(world), rank = saf_comm_rank(world);
    size_t row = (size_t)COLUMN * (size_t)size, bytes = row * ROWS;
    saf_shared *shared = NULL;
    saf_part *parts = NULL;
    CHECK_OK(saf_alloc((size_t)size, sizeof *parts, &parts));
    if (!CHECK_OK(saf_shared_new(world, bytes, &shared))) goto out;
    unsigned char *block = saf_shared_data(shared);
    for (int r = 0; r < size; r++) parts[r] = (saf_part){r, ROWS, (size_t)r * COLUMN, COLUMN, row};
    write_part(block, &parts[rank], 1);
    CHECK_OK(saf_shared_meet(shared, parts, size));
    size_t wrong = 0;
    for (size_t i = 0; i < bytes; i++) wrong += block[i] != byte_of(i, 1);
    CHECK_EQ(wrong, 0);
    CHECK_OK(saf_shared_meet(shared, NULL, 0));
    saf_part whole = {size - 1, 1, 0, bytes, 0};
    if (rank == size - 1) write_part(block, &whole, 2);
    CHECK_OK(saf_shared_meet(shared, &whole, 1));
    for (size_t i = 0; i < bytes; i++) wrong += block[i] != byte_of(i, 2);
    CHECK_EQ(wrong, 0);
out:
    saf_shared_free(&shared);
    saf_free(&parts);
}
static void test_shared_many_megabytes(saf_comm *world) {
    on_all_hosts(world, check_large);
}

/* With parts, without, and where only one rank wrote: nobody leaves before the last has come. */
static void check_late(saf_comm *world, int host_ranks) {
    (void)host_ranks;
    saf_shared *shared = NULL;
    if (!CHECK_OK(saf_shared_new(world, 64, &shared))) return;
    for (int late = 0; late < saf_comm_size(world); late++) {
        saf_part part = {(late + 1) % saf_comm_size(world), 1, 0, 64, 64};
        CHECK_OK(saf_comm_barrier(world));
        double begun = saf_clock_s();
        CHECK_OK(saf_comm_barrier(world));
        if (saf_comm_rank(world) == late) nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
        CHECK_OK(saf_shared_meet(shared, &part, late % 2));
        CHECK(saf_clock_s() - begun > 0.055);
    }
    saf_shared_free(&shared);
}
static void test_shared_nobody_leaves_early(saf_comm *world) {
    on_all_hosts(world, check_late);
}

/* A rank that waits leaves its core to others, and the time is counted. */
static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void check_wait(saf_comm *world, int host_ranks) {
    (void)host_ranks;
    saf_shared *shared = NULL;
    saf_comm_counter c[SAF_COUNT_KINDS];
    if (!CHECK_OK(saf_shared_new(world, 64, &shared))) return;
    CHECK_OK(saf_comm_barrier(world));
    saf_comm_counters_reset();
    double busy = cpu_s();
    if (saf_comm_rank(world) == 0) nanosleep(&(struct timespec){.tv_nsec = 700000000}, NULL);
    CHECK_OK(saf_shared_meet(shared, NULL, 0));
    CHECK(cpu_s() - busy < 0.25);
    saf_comm_counters(c);
    CHECK_EQ(c[SAF_COUNT_MEET].calls, 1);
    if (saf_comm_rank(world) > 0) CHECK(c[SAF_COUNT_MEET].wait_s > 0.5);
    CHECK(c[SAF_COUNT_MEET].wait_s < 30);
    saf_shared_free(&shared);
}
static void test_shared_waits_politely(saf_comm *world) {
    on_all_hosts(world, check_wait);
}

/* What leaves a host is what its ranks wrote, once to each other host. */
static void check_counters(saf_comm *world, int host_ranks) {
    enum { MEETINGS = 40 };
    int size = saf_comm_size(world), hosts = hosts_of(world, host_ranks);
    saf_shared *shared = NULL;
    saf_comm_counter c[SAF_COUNT_KINDS];
    saf_part *parts = NULL;
    int64_t all = 0;
    CHECK_OK(saf_alloc((size_t)size, sizeof *parts, &parts));
    size_t at = 0;
    for (int r = 0; r < size; r++) {
        parts[r] = (saf_part){r, 3, at, (size_t)r + 1, (size_t)r + 4};
        at += 3 * (size_t)(r + 4);
        all += 3 * (r + 1);
    }
    if (!CHECK_OK(saf_shared_new(world, at, &shared))) goto out;
    saf_comm_counters_reset();
    for (int i = 0; i < MEETINGS; i++) CHECK_OK(saf_shared_meet(shared, parts, size));
    saf_comm_counters(c);
    CHECK_EQ(c[SAF_COUNT_MEET].calls, MEETINGS);
    CHECK_EQ(c[SAF_COUNT_MEET].bytes, 0);
    for (int k = 0; k < SAF_COUNT_KINDS; k++)
        if (k != SAF_COUNT_MEET && k != SAF_COUNT_SEND && k != SAF_COUNT_RECV)
            CHECK_EQ(c[k].calls, 0);
    int64_t sums[4] = {c[SAF_COUNT_SEND].calls, c[SAF_COUNT_RECV].calls, c[SAF_COUNT_SEND].bytes,
                       c[SAF_COUNT_RECV].bytes};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, sums, 4);
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
    CHECK_EQ(sums[0], MEETINGS * hosts * (hosts - 1));
    CHECK_EQ(sums[1], sums[0]);
    CHECK_EQ(sums[2], MEETINGS * (hosts - 1) * all);
    CHECK_EQ(sums[3], sums[2]);
out:
    saf_shared_free(&shared);
    saf_free(&parts);
}
static void test_shared_counters(saf_comm *world) {
    on_all_hosts(world, check_counters);
}

/* Messages get on while ranks meet, and do not match what a meeting sends. */
static void check_messages(saf_comm *world, int host_ranks) {
    (void)host_ranks;
    enum { BYTES = 6 << 20 };
    int size = saf_comm_size(world), rank = saf_comm_rank(world);
    unsigned char *sent = NULL, *came = NULL;
    saf_comm_request *in = NULL, *out = NULL;
    CHECK_OK(saf_alloc(BYTES, 1, &sent));
    CHECK_OK(saf_alloc(BYTES, 1, &came));
    for (int i = 0; i < BYTES; i++) sent[i] = byte_of((size_t)i, rank);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, sent, BYTES),
               got = saf_tensor_1d(SAF_DTYPE_U8, came, 0);
    CHECK_OK(saf_comm_irecv(world, (rank + size - 1) % size, SAF_TAG_TEST, BYTES, &got, &in));
    CHECK_OK(saf_comm_isend(world, (rank + 1) % size, SAF_TAG_TEST, &t, &out));
    check_meetings(world, 300, 300, 5);
    CHECK_OK(saf_comm_wait(&in));
    CHECK_OK(saf_comm_wait(&out));
    size_t wrong = 0;
    for (int i = 0; i < BYTES; i++)
        wrong += came[i] != byte_of((size_t)i, (rank + size - 1) % size);
    CHECK_EQ(wrong, 0);
    saf_free(&sent);
    saf_free(&came);
}
static void test_shared_beside_messages(saf_comm *world) {
    on_all_hosts(world, check_messages);
}

/* A group of the ranks has a block of its own, beside the others'. */
static void check_groups(saf_comm *world, int host_ranks) {
    saf_comm *group = NULL;
    int rank = saf_comm_rank(world);
    if (!CHECK_OK(saf_comm_split(world, rank % 2, -rank, &group))) return;
    check_meetings(group, 400, 700, 31 + (uint64_t)(rank % 2) * 8 + (uint64_t)host_ranks);
    saf_comm_free(&group);
}
static void test_shared_in_groups(saf_comm *world) {
    on_all_hosts(world, check_groups);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void check_wrong_parts(saf_comm *world, int host_ranks) {
    enum { BYTES = 1000 };
    const int size = saf_comm_size(world);
    const saf_part wrong[] = {
        {0, 1, 1, BYTES, 0},            /* a byte beyond the end */
        {0, 1, BYTES + 1, 1, 1},        /* begins beyond */
        {0, 11, 0, 50, 100},            /* its last row beyond */
        {0, -1, 0, 1, 1},               /* rows */
        {0, 2, 0, 10, 9},               /* overlap */
        {0, 3, 0, 1, SIZE_MAX / 2 + 1}, /* the product overflows */
        {0, 2, 64, 8, SIZE_MAX - 64},   /* the sum does */
        {0, INT64_MAX, 0, 1, 1},        /* far more than there is */
        {0, 1, SIZE_MAX, SIZE_MAX, 1},  /* both */
        {-1, 1, 0, 1, 1},
        {size, 1, 0, 1, 1},
    };
    saf_shared *shared = NULL;
    if (hosts_of(world, host_ranks) == 1) return; /* parts are not looked at */
    if (!CHECK_OK(saf_shared_new(world, BYTES, &shared))) return;
    unsigned char *block = saf_shared_data(shared);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        saf_part parts[2] = {{0, 1, 0, BYTES, BYTES}, wrong[i]};
        CHECK_STATUS(saf_shared_meet(shared, parts, 2), SAF_DEFECT);
        CHECK_TEXT("part 1 of rank");
    }
    CHECK_STATUS(saf_shared_meet(shared, NULL, 1), SAF_DEFECT);
    CHECK_STATUS(saf_shared_meet(shared, wrong, -1), SAF_DEFECT);
    /* All of it fits, and the block is as good as before. */
    saf_part whole = {size - 1, 10, 0, BYTES / 10, BYTES / 10};
    if (saf_comm_rank(world) == size - 1) memset(block, 7, BYTES);
    CHECK_OK(saf_shared_meet(shared, &whole, 1));
    CHECK(block[0] == 7 && memcmp(block, block + 1, BYTES - 1) == 0);
    saf_shared_free(&shared);
}
static void test_shared_refuses_wrong_parts(saf_comm *world) {
    on_all_hosts(world, check_wrong_parts);
}

static void check_refused(saf_comm *world, int host_ranks) {
    (void)host_ranks;
    saf_shared *shared = NULL;
    CHECK_STATUS(saf_shared_new(world, SIZE_MAX, &shared), SAF_NO_MEMORY);
    CHECK_STATUS(saf_shared_new(world, (size_t)1 << 50, &shared), SAF_NO_MEMORY);
    CHECK_TEXT("1125899906");
    CHECK(!shared);
    if (saf_comm_size(world) == 1) return;
    CHECK_STATUS(saf_shared_new(world, 100 + (size_t)saf_comm_rank(world), &shared), SAF_DEFECT);
    CHECK_TEXT("shares");
    CHECK(!shared);
}
static void test_shared_refuses_what_cannot_be(saf_comm *world) {
    on_all_hosts(world, check_refused);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_shared_is_zeroed),
        MPI_CASE(test_shared_random_meetings),
        MPI_CASE(test_shared_in_pieces),
        MPI_CASE(test_shared_many_megabytes),
        MPI_CASE(test_shared_nobody_leaves_early),
        MPI_CASE(test_shared_waits_politely),
        MPI_CASE(test_shared_counters),
        MPI_CASE(test_shared_beside_messages),
        MPI_CASE(test_shared_in_groups),
        MPI_CASE(test_shared_refuses_wrong_parts),
        MPI_CASE(test_shared_refuses_what_cannot_be),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
