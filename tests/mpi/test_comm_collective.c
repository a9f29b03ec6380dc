/* Calls that all ranks make together. */
#include <math.h>
#include <time.h>

#include "comm/transport.h"
#include "mpi/mpi_test.h"

static void test_collective_who(saf_comm *world) {
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    CHECK(rank >= 0 && rank < size);
    CHECK(strlen(saf_comm_host(world)) > 0);
    int64_t seen = (int64_t)1 << rank;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &seen, 1);
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
    CHECK_EQ(seen, ((int64_t)1 << size) - 1);
    CHECK_STATUS(saf_comm_start(NULL, NULL, &world), SAF_DEFECT);
}

/* Nobody leaves before the last has come. */
static void test_collective_barrier(saf_comm *world) {
    for (int late = 0; late < saf_comm_size(world); late++) {
        /* From before the first barrier: the late rank starts to count when all have come there. */
        double t0 = saf_clock_s(), limit = 0.1;
        CHECK_OK(saf_comm_barrier(world));
        double begun = saf_clock_s();
        if (saf_comm_rank(world) == late)
            while (saf_clock_s() < begun + limit) continue;
        CHECK_OK(saf_comm_barrier(world));
        CHECK(saf_clock_s() - t0 > 0.9 * limit);
    }
}

static void test_collective_bcast_from_every_root(saf_comm *world) {
    static const int64_t lengths[] = {0, 1, 1000, 300000};
    for (int root = 0; root < saf_comm_size(world); root++) {
        for (int k = 0; k < 4; k++) {
            uint32_t *x = NULL;
            int64_t n = lengths[k];
            CHECK_OK(saf_alloc((size_t)n, sizeof *x, &x));
            if (saf_comm_rank(world) == root)
                for (int64_t i = 0; i < n; i++) x[i] = 0x7F800001u + (uint32_t)(i * (root + 1));
            saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, n > 0 ? x : NULL, n);
            CHECK_OK(saf_comm_bcast(world, root, &t));
            for (int64_t i = 0; i < n; i++)
                if (!CHECK_EQ(x[i], 0x7F800001u + (uint32_t)(i * (root + 1)))) break;
            saf_free(&x);
        }
    }
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, NULL, 0);
    CHECK_STATUS(saf_comm_bcast(world, saf_comm_size(world), &t), SAF_DEFECT);
    CHECK_STATUS(saf_comm_bcast(world, -1, &t), SAF_DEFECT);
}

static void check_bcast_buf(saf_comm *world, int root, size_t len) {
    saf_buf buf = {0};
    bool mine = saf_comm_rank(world) == root;
    CHECK_OK(saf_buf_printf(&buf, "what was there before, on rank %d", saf_comm_rank(world)));
    if (mine) CHECK_OK(saf_buf_resize(&buf, len));
    for (size_t i = 0; mine && i < len; i++) buf.data[i] = (char)(i * 31 + (size_t)root);
    CHECK_OK(saf_comm_bcast_buf(world, root, &buf));
    CHECK_EQ(buf.len, len);
    bool same = true;
    for (size_t i = 0; i < len && i < buf.len; i++)
        same = same && buf.data[i] == (char)(i * 31 + (size_t)root);
    CHECK(same);
    CHECK(buf.data && buf.data[buf.len] == 0);
    saf_buf_free(&buf);
}

static void test_collective_bcast_buf(saf_comm *world) {
    for (int root = 0; root < saf_comm_size(world); root++) {
        check_bcast_buf(world, root, 0);
        check_bcast_buf(world, root, 1);
        check_bcast_buf(world, root, 5 << 20);
    }
}

/* Every rank's values are a function of its rank, so every rank can say what must come out. */
static int64_t value_of(int rank, int64_t i, saf_dtype dtype) {
    int64_t v = (i * 7 + rank * 13) % 29; /* small: sums are exact in every type */
    return dtype == SAF_DTYPE_U8 ? v : v - 14;
}

static int64_t reduced(saf_op op, int size, int64_t i, saf_dtype dtype) {
    int64_t r = value_of(0, i, dtype);
    for (int k = 1; k < size; k++) {
        int64_t v = value_of(k, i, dtype);
        r = op == SAF_OP_SUM ? r + v : op == SAF_OP_MIN ? saf_i64_min(r, v) : saf_i64_max(r, v);
    }
    return r;
}

static void put(saf_dtype dtype, void *x, int64_t i, int64_t v) {
    switch (dtype) {
        case SAF_DTYPE_F32:
            ((float *)x)[i] = (float)v;
            break;
        case SAF_DTYPE_F64:
            ((double *)x)[i] = (double)v;
            break;
        case SAF_DTYPE_I32:
            ((int32_t *)x)[i] = (int32_t)v;
            break;
        case SAF_DTYPE_I64:
            ((int64_t *)x)[i] = v;
            break;
        default:
            ((uint8_t *)x)[i] = (uint8_t)v;
            break;
    }
}

static void check_allreduce(saf_comm *world, saf_dtype dtype, int64_t n) {
    size_t bytes = 0;
    char *x = NULL, *expected = NULL;
    CHECK(saf_dtype_bytes(dtype, n, &bytes));
    CHECK_OK(saf_alloc(bytes, 1, &x));
    CHECK_OK(saf_alloc(bytes, 1, &expected));
    for (saf_op op = SAF_OP_SUM; op <= SAF_OP_MAX; op++) {
        for (int64_t i = 0; i < n; i++) {
            put(dtype, x, i, value_of(saf_comm_rank(world), i, dtype));
            put(dtype, expected, i, reduced(op, saf_comm_size(world), i, dtype));
        }
        saf_tensor t = saf_tensor_1d(dtype, x, n);
        CHECK_OK(saf_comm_allreduce(world, op, &t));
        CHECK(memcmp(x, expected, bytes) == 0);
    }
    saf_free(&x);
    saf_free(&expected);
}

static void test_collective_allreduce(saf_comm *world) {
    static const saf_dtype dtypes[] = {SAF_DTYPE_F32, SAF_DTYPE_F64, SAF_DTYPE_I32, SAF_DTYPE_I64,
                                       SAF_DTYPE_U8};
    static const int64_t lengths[] = {0, 1, 17, 300, 4096, 100003, 700001};
    for (int d = 0; d < 5; d++)
        for (int k = 0; k < 7; k++) check_allreduce(world, dtypes[d], lengths[k]);
    int64_t extreme = saf_comm_rank(world) % 2 ? INT64_MIN : INT64_MAX;
    saf_tensor t = {.dtype = SAF_DTYPE_I64, .ndim = 0, .data = &extreme};
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_MIN, &t));
    CHECK(extreme == (saf_comm_size(world) > 1 ? INT64_MIN : INT64_MAX));
    t = saf_tensor_1d(SAF_DTYPE_F16, &extreme, 1);
    CHECK_STATUS(saf_comm_allreduce(world, SAF_OP_SUM, &t), SAF_DEFECT);
}

/* Sums that no float holds: rounded the same way on every rank. */
static void test_collective_same_bits(saf_comm *world) {
    enum { N = 300001 };
    float *x = NULL, *first = NULL;
    CHECK_OK(saf_alloc(N, sizeof *x, &x));
    CHECK_OK(saf_alloc(N, sizeof *first, &first));
    for (int n = 7; n <= N; n += 99998) {
        for (int64_t i = 0; i < n; i++)
            x[i] = 1.0f / (float)(1 + (i * 7919 + saf_comm_rank(world) * 104729) % 1000003);
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, x, n);
        CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
        memcpy(first, x, (size_t)n * sizeof *x);
        t.data = first;
        CHECK_OK(saf_comm_bcast(world, 0, &t));
        CHECK(memcmp(first, x, (size_t)n * sizeof *x) == 0);
    }
    saf_free(&x);
    saf_free(&first);
}

/* Part r of every rank's, n elements, to rank r. */
static void check_reduce_scatter(saf_comm *world, saf_dtype dtype, int64_t n) {
    int64_t ranks = saf_comm_size(world), first = saf_comm_rank(world) * n;
    size_t bytes = 0;
    char *all = NULL, *mine = NULL, *expected = NULL;
    CHECK(saf_dtype_bytes(dtype, n, &bytes));
    CHECK_OK(saf_alloc(bytes, (size_t)ranks, &all));
    CHECK_OK(saf_alloc(bytes, 1, &mine));
    CHECK_OK(saf_alloc(bytes, 1, &expected));
    for (saf_op op = SAF_OP_SUM; op <= SAF_OP_MAX; op++) {
        for (int64_t i = 0; i < n * ranks; i++)
            put(dtype, all, i, value_of(saf_comm_rank(world), i, dtype));
        for (int64_t i = 0; i < n; i++)
            put(dtype, expected, i, reduced(op, saf_comm_size(world), first + i, dtype));
        saf_tensor from = saf_tensor_1d(dtype, all, n * ranks), to = saf_tensor_1d(dtype, mine, n);
        CHECK_OK(saf_comm_reduce_scatter(world, op, &from, &to));
        CHECK(memcmp(mine, expected, bytes) == 0);
    }
    saf_free(&all);
    saf_free(&mine);
    saf_free(&expected);
}

static void test_collective_reduce_scatter(saf_comm *world) {
    static const saf_dtype dtypes[] = {SAF_DTYPE_F32, SAF_DTYPE_F64, SAF_DTYPE_I32, SAF_DTYPE_I64,
                                       SAF_DTYPE_U8};
    static const int64_t lengths[] = {0, 1, 17, 4096, 100003};
    int64_t ranks = saf_comm_size(world), room[8] = {0};
    for (int d = 0; d < 5; d++)
        for (int k = 0; k < 5; k++) check_reduce_scatter(world, dtypes[d], lengths[k]);
    saf_tensor all = saf_tensor_1d(SAF_DTYPE_I64, room, ranks + 1),
               mine = saf_tensor_1d(SAF_DTYPE_I64, room, 1);
    if (ranks > 1)
        CHECK_STATUS(saf_comm_reduce_scatter(world, SAF_OP_SUM, &all, &mine), SAF_DEFECT);
    all = saf_tensor_1d(SAF_DTYPE_F64, room, ranks);
    CHECK_STATUS(saf_comm_reduce_scatter(world, SAF_OP_SUM, &all, &mine), SAF_DEFECT);
    all = saf_tensor_1d(SAF_DTYPE_F16, room, ranks);
    mine = saf_tensor_1d(SAF_DTYPE_F16, room, 1);
    CHECK_STATUS(saf_comm_reduce_scatter(world, SAF_OP_SUM, &all, &mine), SAF_DEFECT);
}

/* Rank r gives r * step + extra rows (none from rank 0 when extra is 0). */
static void check_allgather(saf_comm *world, int64_t step, int64_t extra, bool in_place) {
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    saf_tensor *all = NULL;
    int32_t *mine = NULL;
    CHECK_OK(saf_alloc((size_t)size, sizeof *all, &all));
    for (int r = 0; r < size; r++) {
        int64_t rows = r * step + extra;
        int32_t *room = NULL;
        CHECK_OK(saf_alloc((size_t)rows * 5 + 1, sizeof *room, &room));
        room[rows * 5] = 4711; /* nobody writes behind the end */
        all[r] = saf_tensor_2d(SAF_DTYPE_I32, room, rows, 5);
    }
    int64_t n = 5 * (rank * step + extra);
    CHECK_OK(saf_alloc((size_t)n, sizeof *mine, &mine));
    int32_t *from = in_place ? all[rank].data : mine;
    for (int64_t i = 0; i < n; i++) from[i] = (int32_t)(rank * 1000003 + i);
    saf_tensor t = saf_tensor_2d(SAF_DTYPE_I32, from, n / 5, 5);
    CHECK_OK(saf_comm_allgather(world, &t, all));
    for (int r = 0; r < size; r++) {
        int32_t *got = all[r].data;
        int64_t len = 5 * (r * step + extra);
        bool same = true;
        for (int64_t i = 0; i < len; i++) same = same && got[i] == (int32_t)(r * 1000003 + i);
        CHECK(same);
        CHECK_EQ(got[len], 4711);
        saf_free(&all[r].data);
    }
    saf_free(&all);
    saf_free(&mine);
}

static void test_collective_allgather(saf_comm *world) {
    for (int in_place = 0; in_place < 2; in_place++) {
        check_allgather(world, 0, 0, in_place);
        check_allgather(world, 0, 1, in_place);
        check_allgather(world, 3, 0, in_place);
        check_allgather(world, 1000, 7, in_place);
        check_allgather(world, 100000, 0, in_place);
    }
    const size_t usual = saf__piece_bytes();
    saf__comm_set_piece_bytes(100);
    check_allgather(world, 40, 1, false); /* more pieces than fit without memory of their own */
    saf__comm_set_piece_bytes(usual);
    for (int i = 0; i < 200; i++) check_allgather(world, i % 3, i % 2, true);
}

static void check_gather_buf(saf_comm *world, int root, size_t step) {
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    saf_buf mine = {0}, *out = NULL;
    CHECK_OK(saf_alloc((size_t)size, sizeof *out, &out));
    CHECK_OK(saf_buf_printf(&out[0], "old text"));
    for (size_t i = 0; i < (size_t)rank * step; i++)
        CHECK_OK(saf_buf_append(&mine, &(char){(char)(i + (size_t)rank)}, 1));
    CHECK_OK(saf_comm_gather_buf(world, root, &mine, rank == root ? out : NULL));
    for (int r = 0; rank == root && r < size; r++) {
        bool same = true;
        CHECK_EQ(out[r].len, (size_t)r * step);
        for (size_t i = 0; i < out[r].len; i++)
            same = same && out[r].data[i] == (char)(i + (size_t)r);
        CHECK(same);
    }
    for (int r = 0; r < size; r++) saf_buf_free(&out[r]);
    saf_free(&out);
    saf_buf_free(&mine);
}

static void test_collective_gather_buf(saf_comm *world) {
    for (int root = 0; root < saf_comm_size(world); root++) {
        check_gather_buf(world, root, 0);
        check_gather_buf(world, root, 3);
        check_gather_buf(world, root, 200000);
    }
    const size_t usual = saf__piece_bytes();
    saf__comm_set_piece_bytes(64);
    check_gather_buf(world, 0, 3000);
    saf__comm_set_piece_bytes(usual);
}

static void test_collective_pieces(saf_comm *world) {
    const size_t usual = saf__piece_bytes();
    saf__comm_set_piece_bytes(1001); /* no multiple of any element */
    check_allreduce(world, SAF_DTYPE_F64, 1000);
    check_allreduce(world, SAF_DTYPE_U8, 1001);
    check_reduce_scatter(world, SAF_DTYPE_F64, 1001);
    check_reduce_scatter(world, SAF_DTYPE_U8, 503);
    check_bcast_buf(world, saf_comm_size(world) - 1, 10010);
    check_bcast_buf(world, 0, 10011);
    saf__comm_set_piece_bytes(3);
    check_reduce_scatter(world, SAF_DTYPE_I64, 10);
    check_allreduce(world, SAF_DTYPE_I64, 10); /* never less than an element */
    saf__comm_set_piece_bytes(usual);
}

/* The same tag to the same rank in three contexts, received in another order. */
static void test_collective_dup_isolates(saf_comm *world) {
    saf_comm *other[2] = {0}, *all[3];
    saf_comm_request *sends[3] = {0};
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    int32_t out[3], in;
    for (int k = 0; k < 2; k++) CHECK_OK(saf_comm_dup(world, &other[k]));
    all[0] = world, all[1] = other[0], all[2] = other[1];
    for (int k = 0; k < 3; k++) {
        CHECK_EQ(saf_comm_rank(all[k]), rank);
        CHECK_EQ(saf_comm_size(all[k]), size);
        CHECK(strcmp(saf_comm_host(all[k]), saf_comm_host(world)) == 0);
        out[k] = 10 * rank + k;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &out[k], 1);
        CHECK_OK(saf_comm_isend(all[k], (rank + 1) % size, SAF_TAG_TEST, &t, &sends[k]));
    }
    for (int k = 2; k >= 0; k--) {
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &in, 1);
        CHECK_OK(saf_comm_recv(all[k], (rank + size - 1) % size, SAF_TAG_TEST, 4, &t));
        CHECK_EQ(in, 10 * ((rank + size - 1) % size) + k);
    }
    for (int k = 0; k < 3; k++) CHECK_OK(saf_comm_wait(&sends[k]));
    saf_comm_free(&other[0]);
    saf_comm_free(&other[1]);
    CHECK(!other[0]);
    saf_comm_free(&other[0]);
}

static void test_collective_split(saf_comm *world) {
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    saf_comm *part = NULL;
    CHECK_OK(saf_comm_split(world, rank % 2, -rank, &part)); /* in reverse */
    int members = rank % 2 == 0 ? (size + 1) / 2 : size / 2;
    CHECK_EQ(saf_comm_size(part), members);
    CHECK_EQ(saf_comm_rank(part), members - 1 - rank / 2);
    int64_t sum = rank, expected = 0;
    for (int r = rank % 2; r < size; r += 2) expected += r;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &sum, 1);
    CHECK_OK(saf_comm_allreduce(part, SAF_OP_SUM, &t));
    CHECK_EQ(sum, expected);
    saf_comm_free(&part);
    /* Same color and key: the order of the old ranks. A negative color takes no part. */
    CHECK_OK(saf_comm_split(world, rank == size - 1 ? -1 : 3, 0, &part));
    if (rank == size - 1) {
        CHECK(!part);
    } else {
        CHECK_EQ(saf_comm_rank(part), rank);
        CHECK_EQ(saf_comm_size(part), size - 1);
        CHECK_OK(saf_comm_barrier(part));
    }
    saf_comm_free(&part);
}

static void test_collective_agree_when_all_is_well(saf_comm *world) {
    saf_comm_counter c[SAF_COUNT_KINDS];
    saf_comm_counters_reset();
    CHECK_OK(saf_comm_agree(world, SAF_OK));
    saf_comm_counters(c);
    CHECK_EQ(c[SAF_COUNT_ALLREDUCE].calls, 1);
    CHECK_EQ(c[SAF_COUNT_BCAST].calls, 0);
}

static void test_collective_agree_one_fails(saf_comm *world) {
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    for (int bad = 0; bad < size; bad++) {
        saf_status mine = SAF_OK;
        if (rank == bad) mine = saf_fail(SAF_NO_INPUT, "no file \"%d %%s\"", bad);
        CHECK_STATUS(saf_comm_agree(world, mine), SAF_NO_INPUT);
        char expected[512];
        if (size > 1) /* one host in this test */
            snprintf(expected, sizeof expected, "rank %d on %s: no file \"%d %%s\"", bad,
                     saf_comm_host(world), bad);
        else
            snprintf(expected, sizeof expected, "no file \"0 %%s\"");
        CHECK(strcmp(saf_error_text(), expected) == 0);
        /* Agreeing again on what was agreed changes nothing. */
        CHECK_STATUS(saf_comm_agree(world, SAF_NO_INPUT), SAF_NO_INPUT);
        CHECK(strcmp(saf_error_text(), expected) == 0);
        CHECK_OK(saf_comm_agree(world, SAF_OK));
    }
}

static void test_collective_agree_several_fail(saf_comm *world) {
    static const saf_status statuses[] = {SAF_IO, SAF_BAD_INPUT, SAF_STOPPED, SAF_DEFECT};
    int rank = saf_comm_rank(world), size = saf_comm_size(world), first = size > 1 ? 1 : 0;
    saf_status mine = SAF_OK;
    if (rank >= first) mine = saf_fail(statuses[rank % 4], "cause of rank %d", rank);
    CHECK_STATUS(saf_comm_agree(world, mine), statuses[first]);
    CHECK_TEXT("cause of rank ");
    CHECK_EQ(saf_error_text()[strlen(saf_error_text()) - 1], '0' + first);
    /* A long text is cut, not lost. */
    char longest[2047];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    mine = rank == size - 1 ? saf_fail(SAF_IO, "%s", longest) : SAF_OK;
    CHECK_STATUS(saf_comm_agree(world, mine), SAF_IO);
    CHECK(strlen(saf_error_text()) > 1900);
}

static void test_collective_counters(saf_comm *world) {
    saf_comm_counter c[SAF_COUNT_KINDS];
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    float x[10] = {0};
    saf_tensor all[64], t = saf_tensor_1d(SAF_DTYPE_F32, x, 10);
    float room[64][10];
    saf_buf mine = {0}, out[64] = {{0}};
    saf_comm_counters_reset();
    for (int r = 0; r < size; r++) all[r] = saf_tensor_1d(SAF_DTYPE_F32, room[r], 10);
    CHECK_OK(saf_comm_barrier(world));
    CHECK_OK(saf_comm_bcast(world, 0, &t));
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_MAX, &t));
    CHECK_OK(saf_comm_allgather(world, &t, all));
    for (int i = 0; i < rank + 5; i++) CHECK_OK(saf_buf_append(&mine, "x", 1));
    CHECK_OK(saf_comm_gather_buf(world, 0, &mine, out));
    saf_comm_counters(c);
    const int64_t bytes[SAF_COUNT_KINDS] = {0, 0, 40, 40, 40, rank + 5, 0};
    const int64_t calls[SAF_COUNT_KINDS] = {0, 0, 1, 1, 1, 1, 1};
    for (int k = 0; k < SAF_COUNT_KINDS; k++) {
        CHECK_EQ(c[k].calls, calls[k]);
        CHECK_EQ(c[k].bytes, bytes[k]);
        CHECK(c[k].wait_s >= 0 && (calls[k] > 0 || c[k].wait_s == 0));
        CHECK(strlen(saf_count_kind_name((saf_count_kind)k)) >= 4);
    }
    saf_comm_counters_reset();
    if (rank == 0) nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    CHECK_OK(saf_comm_barrier(world));
    saf_comm_counters(c);
    CHECK(rank == 0 || c[SAF_COUNT_BARRIER].wait_s > 0.1); /* for rank 0 */
    saf_comm_counters_reset();
    saf_comm_counters(c);
    CHECK_EQ(c[SAF_COUNT_BARRIER].calls, 0);
    for (int r = 0; r < 64; r++) saf_buf_free(&out[r]);
    saf_buf_free(&mine);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_collective_who),
        MPI_CASE(test_collective_barrier),
        MPI_CASE(test_collective_bcast_from_every_root),
        MPI_CASE(test_collective_bcast_buf),
        MPI_CASE(test_collective_allreduce),
        MPI_CASE(test_collective_same_bits),
        MPI_CASE(test_collective_reduce_scatter),
        MPI_CASE(test_collective_allgather),
        MPI_CASE(test_collective_gather_buf),
        MPI_CASE(test_collective_pieces),
        MPI_CASE(test_collective_dup_isolates),
        MPI_CASE(test_collective_split),
        MPI_CASE(test_collective_agree_when_all_is_well),
        MPI_CASE(test_collective_agree_one_fails),
        MPI_CASE(test_collective_agree_several_fail),
        MPI_CASE(test_collective_counters),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
