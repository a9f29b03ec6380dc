/* Tensors from rank to rank. */
#include <sys/resource.h>
#include <time.h>

#include "comm/message.h"
#include "mpi/mpi_test.h"

static int next_of(const saf_comm *c) {
    return (saf_comm_rank(c) + 1) % saf_comm_size(c);
}
static int before_of(const saf_comm *c) {
    return (saf_comm_rank(c) + saf_comm_size(c) - 1) % saf_comm_size(c);
}

/* Any bytes: the pattern of a rank and a round. */
static void fill(void *data, size_t bytes, uint64_t rank, uint64_t round) {
    unsigned char *p = data;
    uint64_t x = (rank + 1) * 0x9E3779B97F4A7C15u ^ (round + 1) * 0xD1B54A32D192ED03u;
    for (size_t i = 0; i < bytes; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        p[i] = (unsigned char)(x >> 56);
    }
}

/* Sends `t` to the next rank while receiving as much from the one before. */
static void pass_round(saf_comm *c, const saf_tensor *t, size_t bytes, saf_tensor *got) {
    saf_comm_request *out = NULL, *in = NULL;
    CHECK_OK(saf_comm_irecv(c, before_of(c), SAF_TAG_TEST, bytes, got, &in));
    CHECK_OK(saf_comm_isend(c, next_of(c), SAF_TAG_TEST, t, &out));
    CHECK_OK(saf_comm_wait(&in));
    CHECK_OK(saf_comm_wait(&out));
    CHECK(!in && !out);
}

static void check_round(saf_comm *c, saf_dtype dtype, int ndim, const int64_t *shape,
                        uint64_t round) {
    saf_tensor t = {.dtype = dtype, .ndim = ndim}, got = {.dtype = dtype, .ndim = 3};
    unsigned char *sent = NULL, *came = NULL, *expected = NULL;
    size_t bytes = 0;
    for (int i = 0; i < ndim; i++) t.shape[i] = shape[i];
    CHECK_OK(saf_tensor_bytes(&t, &bytes));
    CHECK_OK(saf_alloc(bytes, 1, &sent));
    CHECK_OK(saf_alloc(bytes, 1, &came));
    CHECK_OK(saf_alloc(bytes, 1, &expected));
    fill(sent, bytes, (uint64_t)saf_comm_rank(c), round);
    fill(expected, bytes, (uint64_t)before_of(c), round);
    t.data = bytes > 0 ? sent : NULL;
    got.data = bytes > 0 ? came : NULL;
    pass_round(c, &t, bytes, &got);
    CHECK_EQ(got.ndim, ndim);
    for (int i = 0; i < ndim; i++) CHECK_EQ(got.shape[i], shape[i]);
    CHECK(memcmp(came, expected, bytes) == 0);
    saf_free(&sent);
    saf_free(&came);
    saf_free(&expected);
}

static void test_message_every_dtype_and_shape(saf_comm *world) {
    for (int d = 0; d < SAF_DTYPE_COUNT; d++) {
        int64_t block = saf_dtype_block((saf_dtype)d);
        const int64_t shapes[][4] = {
            {block},      {0},           {3 * block},      {5, 2 * block},
            {0, block},   {2, 3, block}, {3, 2, 2, block}, {2, 0, 2, block},
            {257, block},
        };
        const int ndims[] = {1, 1, 1, 2, 2, 3, 4, 4, 2};
        for (size_t i = 0; i < sizeof ndims / sizeof ndims[0]; i++)
            check_round(world, (saf_dtype)d, ndims[i], shapes[i], (uint64_t)d * 16 + i);
        if (block == 1) check_round(world, (saf_dtype)d, 0, NULL, 99);
    }
}

/* From a few bytes to some megabytes: every way in which MPI moves a message. */
static void test_message_every_length(saf_comm *world) {
    for (int64_t n = 1; n <= 8 << 20; n *= 8) {
        check_round(world, SAF_DTYPE_U8, 1, &(int64_t){n}, (uint64_t)n);
        check_round(world, SAF_DTYPE_U8, 1, &(int64_t){n + 1}, (uint64_t)n + 1);
    }
}

static void test_message_keeps_every_bit(saf_comm *world) {
    const uint32_t bits[] = {
        0x7F800000, 0xFF800000,                         /* infinities */
        0x7F800001, 0xFFBFFFFF, 0x7FC12345, 0xFFFFFFFF, /* NaN: signalling, payloads, negative */
        0x00000001, 0x807FFFFF,                         /* denormals */
        0x80000000, 0x00000000, 0x00800000, 0x7F7FFFFF,
    };
    const uint64_t wide[] = {
        0x7FF0000000000000, 0xFFF0000000000000, 0x7FF0000000000001, 0xFFF7FFFFFFFFFFFF,
        0x7FF8000012345678, 0x0000000000000001, 0x800FFFFFFFFFFFFF, 0x8000000000000000,
    };
    uint32_t came[sizeof bits / 4] = {0};
    uint64_t came_wide[sizeof wide / 8] = {0};
    uint16_t half[65536], came_half[65536] = {0};
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, (void *)(uintptr_t)bits, sizeof bits / 4);
    saf_tensor got = saf_tensor_1d(SAF_DTYPE_F32, came, 0);
    pass_round(world, &t, sizeof came, &got);
    CHECK(memcmp(bits, came, sizeof bits) == 0);
    t = saf_tensor_1d(SAF_DTYPE_F64, (void *)(uintptr_t)wide, sizeof wide / 8);
    got = saf_tensor_1d(SAF_DTYPE_F64, came_wide, 0);
    pass_round(world, &t, sizeof came_wide, &got);
    CHECK(memcmp(wide, came_wide, sizeof wide) == 0);
    for (int k = 0; k < 2; k++) {
        saf_dtype d = k == 0 ? SAF_DTYPE_F16 : SAF_DTYPE_BF16;
        t = saf_tensor_2d(d, half, 256, 256);
        got = saf_tensor_1d(d, came_half, 0);
        memset(came_half, 0, sizeof came_half);
        pass_round(world, &t, sizeof came_half, &got);
        CHECK(memcmp(half, came_half, sizeof half) == 0);
        CHECK_EQ(got.ndim, 2);
    }
}

static void test_message_blocking(saf_comm *world) {
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    enum { N = 300000 };
    float *x = NULL;
    if (size == 1) {
        SKIP("one rank has nobody to block on");
        return;
    }
    CHECK_OK(saf_alloc(N, sizeof *x, &x));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, x, N);
    if (rank == 0) { /* a counter that goes round; every rank adds to it */
        for (int i = 0; i < N; i++) x[i] = (float)i;
        CHECK_OK(saf_comm_send(world, 1, SAF_TAG_TEST, &t));
        CHECK_OK(saf_comm_recv(world, size - 1, SAF_TAG_TEST, N * sizeof *x, &t));
        for (int i = 0; i < N; i++)
            if (!CHECK(x[i] == (float)(i + size - 1))) break;
    } else {
        CHECK_OK(saf_comm_recv(world, rank - 1, SAF_TAG_TEST, N * sizeof *x, &t));
        CHECK_EQ(t.shape[0], N);
        for (int i = 0; i < N; i++) x[i] += 1;
        CHECK_OK(saf_comm_send(world, next_of(world), SAF_TAG_TEST, &t));
    }
    saf_free(&x);
}

/* Two buffers each way, always one of them under way: lengths change from round to round. */
static void test_message_double_buffered_ring(saf_comm *world) {
    enum { ROUNDS = 200, MOST = 20000 };
    static unsigned char out[2][MOST], in[2][MOST], expected[MOST];
    saf_comm_request *sends[2] = {0}, *recvs[2] = {0};
    saf_tensor got[2];
    for (int i = 0; i < 2; i++) {
        got[i] = saf_tensor_1d(SAF_DTYPE_U8, in[i], 0);
        CHECK_OK(
            saf_comm_irecv(world, before_of(world), SAF_TAG_ACTIVATIONS, MOST, &got[i], &recvs[i]));
    }
    for (int k = 0; k < ROUNDS; k++) {
        int i = k % 2;
        int64_t n = (int64_t)k * 7919 % MOST;
        CHECK_OK(saf_comm_wait(&sends[i]));
        fill(out[i], (size_t)n, (uint64_t)saf_comm_rank(world), (uint64_t)k);
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, out[i], n);
        CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_ACTIVATIONS, &t, &sends[i]));
        CHECK_OK(saf_comm_wait(&recvs[i]));
        CHECK_EQ(got[i].shape[0], n);
        fill(expected, (size_t)n, (uint64_t)before_of(world), (uint64_t)k);
        CHECK(memcmp(in[i], expected, (size_t)n) == 0);
        if (k + 2 < ROUNDS)
            CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_ACTIVATIONS, MOST, &got[i],
                                    &recvs[i]));
    }
    for (int i = 0; i < 2; i++) CHECK_OK(saf_comm_wait(&sends[i]));
}

/* A posted receive goes on whatever its rank waits for: its own send, or a barrier. */
static void test_message_posted_receive_goes_on(saf_comm *world) {
    enum { BYTES = 3 << 20 };
    static unsigned char out[BYTES], in[BYTES], expected[BYTES];
    for (int k = 0; k < 2; k++) {
        saf_comm_request *send = NULL, *recv = NULL;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, out, BYTES);
        saf_tensor got = saf_tensor_1d(SAF_DTYPE_U8, in, 0);
        fill(out, BYTES, (uint64_t)saf_comm_rank(world), (uint64_t)k);
        fill(expected, BYTES, (uint64_t)before_of(world), (uint64_t)k);
        CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, BYTES, &got, &recv));
        CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t, &send));
        if (k == 0 || saf_comm_rank(world) % 2 == 0) CHECK_OK(saf_comm_wait(&send));
        if (k == 1) CHECK_OK(saf_comm_barrier(world));
        CHECK_OK(saf_comm_wait(&send));
        CHECK_OK(saf_comm_wait(&recv));
        CHECK(memcmp(in, expected, BYTES) == 0);
    }
}

/* More than is sent unasked, moved by a rank that never waits. */
static void test_message_progress_moves_all(saf_comm *world) {
    enum { BYTES = 24 << 20 };
    unsigned char *out = NULL, *in = NULL;
    saf_comm_request *send = NULL, *recv = NULL;
    saf_comm_counter c[SAF_COUNT_KINDS];
    bool sent = false, received = false;
    CHECK_OK(saf_alloc(BYTES, 1, &out));
    CHECK_OK(saf_alloc(BYTES, 1, &in));
    memset(out, saf_comm_rank(world) + 1, BYTES);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, out, BYTES);
    saf_tensor got = saf_tensor_1d(SAF_DTYPE_U8, in, 0);
    saf_comm_progress(); /* nothing to do */
    saf_comm_counters_reset();
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, BYTES, &got, &recv));
    CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t, &send));
    double t0 = saf_clock_s();
    do {
        saf_comm_progress();
        saf_comm_counters(c);
    } while (c[SAF_COUNT_RECV].bytes == 0 && saf_clock_s() < t0 + 30);
    CHECK_EQ(c[SAF_COUNT_RECV].bytes, BYTES);
    CHECK_OK(saf_comm_test(&recv, &received));
    CHECK(received);
    for (int i = 0; i < BYTES; i += 4093)
        if (!CHECK_EQ(in[i], before_of(world) + 1)) break;
    while (!sent && saf_clock_s() < t0 + 30) CHECK_OK(saf_comm_test(&send, &sent));
    CHECK(sent);
    saf_free(&out);
    saf_free(&in);
}

/* Receives of different tags are served in the order of the sends, not of the receives. */
static void test_message_wait_any_and_test(saf_comm *world) {
    static const saf_tag tags[] = {SAF_TAG_FLIGHT, SAF_TAG_ACTIVATIONS, SAF_TAG_SAMPLED};
    int32_t in[3] = {0};
    saf_tensor got[3];
    saf_comm_request *recvs[4] = {0}, *send = NULL;
    int index = 7;
    bool done = false;
    CHECK_OK(saf_comm_wait_any(recvs, 4, &index));
    CHECK_EQ(index, -1);
    for (int i = 0; i < 3; i++) {
        got[i] = saf_tensor_1d(SAF_DTYPE_I32, &in[i], 1);
        CHECK_OK(saf_comm_irecv(world, before_of(world), tags[i], 4, &got[i], &recvs[i + 1]));
    }
    CHECK_OK(saf_comm_test(&recvs[1], &done));
    CHECK(!done && recvs[1]);
    for (int k = 2; k >= 0; k--) {
        CHECK_OK(saf_comm_barrier(world));
        int32_t value = 100 * saf_comm_rank(world) + k;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &value, 1);
        CHECK_OK(saf_comm_isend(world, next_of(world), tags[k], &t, &send));
        CHECK_OK(saf_comm_wait_any(recvs, 4, &index));
        CHECK_EQ(index, k + 1);
        CHECK(!recvs[k + 1]);
        CHECK_EQ(in[k], 100 * before_of(world) + k);
        CHECK_OK(saf_comm_wait(&send));
    }
    CHECK_OK(saf_comm_wait_any(recvs, 4, &index));
    CHECK_EQ(index, -1);
    CHECK_OK(saf_comm_test(&recvs[0], &done));
    CHECK(done);
}

/* Two messages of which the second was expected first: both are found, and nothing before. */
static void test_message_test_any(saf_comm *world) {
    static const saf_tag tags[] = {SAF_TAG_SAMPLED, SAF_TAG_FLIGHT};
    int32_t in[2] = {0};
    saf_tensor got[2];
    saf_comm_request *recvs[3] = {0}, *send = NULL;
    int index = 7;
    CHECK_OK(saf_comm_test_any(recvs, 3, &index));
    CHECK_EQ(index, -1);
    for (int i = 0; i < 2; i++) {
        got[i] = saf_tensor_1d(SAF_DTYPE_I32, &in[i], 1);
        CHECK_OK(saf_comm_irecv(world, before_of(world), tags[i], 4, &got[i], &recvs[i + 1]));
    }
    for (int k = 1; k >= 0; k--) {
        index = 7;
        CHECK_OK(saf_comm_test_any(recvs, 3, &index));
        CHECK_EQ(index, -1);
        CHECK_OK(saf_comm_barrier(world));
        int32_t value = 100 * saf_comm_rank(world) + k;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &value, 1);
        CHECK_OK(saf_comm_isend(world, next_of(world), tags[k], &t, &send));
        double t0 = saf_clock_s();
        do {
            CHECK_OK(saf_comm_test_any(recvs, 3, &index));
        } while (index < 0 && saf_clock_s() < t0 + 30);
        CHECK_EQ(index, k + 1);
        CHECK(!recvs[k + 1]);
        CHECK_EQ(in[k], 100 * before_of(world) + k);
        CHECK_OK(saf_comm_wait(&send));
    }
}

static void test_message_cancel(saf_comm *world) {
    static char in[3][100000];
    saf_tensor never = saf_tensor_1d(SAF_DTYPE_U8, in[0], 0);
    saf_comm_request *r = NULL;
    saf_comm_cancel(&r); /* nothing is fine */
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_LOGITS, sizeof in[0], &never, &r));
    saf_comm_cancel(&r);
    CHECK(!r);
    /* What is sent after everybody gave up meets the receive that is posted afterwards. */
    CHECK_OK(saf_comm_barrier(world));
    check_round(world, SAF_DTYPE_F32, 1, &(int64_t){5000}, 1);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, in[1], (int64_t)sizeof in[1]);
    saf_tensor got = saf_tensor_1d(SAF_DTYPE_U8, in[2], 0);
    saf_comm_request *in_r = NULL;
    fill(in[1], sizeof in[1], 1, 2);
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_LOGITS, sizeof in[2], &got, &in_r));
    CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_LOGITS, &t, &r));
    saf_comm_cancel(&r); /* a send is waited for; it needs its receive to get on */
    CHECK_OK(saf_comm_wait(&in_r));
    CHECK(memcmp(in[1], in[2], sizeof in[1]) == 0);
}

/* A communicator that ends takes its messages along, and nothing touches it afterwards. */
static void test_message_of_a_freed_communicator(saf_comm *world) {
    saf_comm *dup = NULL;
    saf_comm_request *r[2] = {0};
    int32_t x[2];
    bool done = false;
    saf_tensor t[2] = {saf_tensor_1d(SAF_DTYPE_I32, &x[0], 1),
                       saf_tensor_1d(SAF_DTYPE_I32, &x[1], 1)};
    CHECK_OK(saf_comm_dup(world, &dup));
    for (int k = 0; k < 2; k++)
        CHECK_OK(saf_comm_irecv(dup, before_of(world), SAF_TAG_TEST, 4, &t[k], &r[k]));
    CHECK_OK(saf_comm_barrier(world));
    saf_comm_free(&dup);
    check_round(world, SAF_DTYPE_F32, 1, &(int64_t){5000}, 1);
    CHECK_STATUS(saf_comm_wait(&r[0]), SAF_DEFECT);
    CHECK_STATUS(saf_comm_test(&r[1], &done), SAF_DEFECT);
    CHECK_TEXT("communicator was freed");
    CHECK(done && !r[0] && !r[1]);
}

/* A receive whose message had come all the same is used up by cancelling it. */
static void test_message_cancel_too_late(saf_comm *world) {
    int32_t one = 1, two = 2, x = 0, y = 0;
    saf_tensor t1 = saf_tensor_1d(SAF_DTYPE_I32, &one, 1),
               t2 = saf_tensor_1d(SAF_DTYPE_I32, &two, 1);
    saf_tensor gx = saf_tensor_1d(SAF_DTYPE_I32, &x, 1), gy = saf_tensor_1d(SAF_DTYPE_I32, &y, 1);
    saf_comm_request *r = NULL, *s[2] = {0};
    CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t1, &s[0]));
    CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t2, &s[1]));
    for (int i = 0; i < 2; i++) CHECK_OK(saf_comm_wait(&s[i]));
    CHECK_OK(saf_comm_barrier(world));
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, 4, &gx, &r));
    bool done = false;
    for (int i = 0; i < 1000 && !done; i++) { /* it is under way or there */
        struct timespec nap = {.tv_nsec = 10000};
        nanosleep(&nap, NULL);
        done = i > 10;
    }
    saf_comm_cancel(&r);
    CHECK(!r);
    CHECK_OK(saf_comm_recv(world, before_of(world), SAF_TAG_TEST, 4, &gy));
    CHECK_EQ(y, 2);
}

static void test_message_pieces(saf_comm *world) {
    const size_t usual = saf__piece_bytes();
    const size_t pieces[] = {7, 64, 1000, 2048, 65536};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        saf__comm_set_piece_bytes(pieces[i]);
        int64_t n = (int64_t)pieces[i], most = saf_i64_max(5000, 5 * n + 1);
        const int64_t lengths[] = {0, 1, n - 1, n, n + 1, 2 * n, 1984, 1985, 4096, most};
        for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++)
            check_round(world, SAF_DTYPE_U8, 1, &lengths[k], k);
    }
    saf__comm_set_piece_bytes(usual);
}

/* Several large tensors at once: the later pieces of each find their own receive, whatever the
 * order in which the receiver looks. */
static void test_message_pieces_interleaved(saf_comm *world) {
    enum { K = 5, BYTES = 50000 };
    static unsigned char out[K][BYTES], in[K][BYTES], expected[BYTES];
    const size_t usual = saf__piece_bytes();
    saf_comm_request *sends[K] = {0}, *recvs[K] = {0};
    saf_tensor got[K];
    saf__comm_set_piece_bytes(3000);
    for (int k = 0; k < K; k++) {
        got[k] = saf_tensor_1d(SAF_DTYPE_U8, in[k], 0);
        CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, BYTES, &got[k], &recvs[k]));
    }
    for (int k = 0; k < K; k++) {
        fill(out[k], BYTES, (uint64_t)saf_comm_rank(world), (uint64_t)k);
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, out[k], BYTES - k);
        CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t, &sends[k]));
    }
    for (int k = K - 1; k >= 0; k--) {
        CHECK_OK(saf_comm_wait(&recvs[k]));
        CHECK_EQ(got[k].shape[0], BYTES - k);
        fill(expected, BYTES, (uint64_t)before_of(world), (uint64_t)k);
        CHECK(memcmp(in[k], expected, (size_t)(BYTES - k)) == 0);
    }
    for (int k = 0; k < K; k++) CHECK_OK(saf_comm_wait(&sends[k]));
    saf__comm_set_piece_bytes(usual);
}

/* One tensor that does not fit what the receiver expects, then one that does. */
static void check_refused(saf_comm *world, saf_dtype dtype, int64_t n, saf_dtype wanted,
                          size_t capacity) {
    unsigned char *out = NULL, *in = NULL;
    saf_comm_request *send = NULL, *recv = NULL;
    size_t bytes = 0;
    saf_tensor t = saf_tensor_1d(dtype, NULL, n);
    CHECK_OK(saf_tensor_bytes(&t, &bytes));
    CHECK_OK(saf_alloc(bytes, 1, &out));
    CHECK_OK(saf_alloc(capacity + 64, 1, &in));
    memset(in + capacity, 0xA5, 64);
    t.data = out;
    saf_tensor got = saf_tensor_1d(wanted, in, 77);
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, capacity, &got, &recv));
    CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t, &send));
    CHECK_STATUS(saf_comm_wait(&recv), SAF_COMM);
    CHECK(!recv);
    char part[64];
    snprintf(part, sizeof part, "rank %d on ", saf_comm_rank(world));
    CHECK(strstr(saf_error_text(), part) != NULL);
    snprintf(part, sizeof part, "expected %s of at most %zu bytes", saf_dtype_name(wanted),
             capacity);
    CHECK(strstr(saf_error_text(), part) != NULL);
    snprintf(part, sizeof part, "got %s [%lld] of %zu bytes", saf_dtype_name(dtype), (long long)n,
             bytes);
    CHECK(strstr(saf_error_text(), part) != NULL);
    snprintf(part, sizeof part, "from rank %d, tag 1 (test)", before_of(world));
    CHECK(strstr(saf_error_text(), part) != NULL);
    CHECK_OK(saf_comm_wait(&send));
    CHECK_EQ(got.ndim, 1); /* the receiver's own shape stays */
    CHECK_EQ(got.shape[0], 77);
    for (int i = 0; i < 64; i++) CHECK_EQ(in[capacity + (size_t)i], 0xA5);
    check_round(world, SAF_DTYPE_I16, 1, &(int64_t){1000}, 3);
    saf_free(&out);
    saf_free(&in);
}

static void test_message_wrong_dtype(saf_comm *world) {
    check_refused(world, SAF_DTYPE_F16, 100, SAF_DTYPE_BF16, 200);
    check_refused(world, SAF_DTYPE_F32, 1 << 20, SAF_DTYPE_I32, 4 << 20);
    check_refused(world, SAF_DTYPE_F64, 0, SAF_DTYPE_F32, 0);
}

static void test_message_too_large(saf_comm *world) {
    check_refused(world, SAF_DTYPE_F32, 11, SAF_DTYPE_F32, 40);
    check_refused(world, SAF_DTYPE_F32, 1, SAF_DTYPE_F32, 0);
    check_refused(world, SAF_DTYPE_U8, 20000, SAF_DTYPE_U8, 100);
    check_refused(world, SAF_DTYPE_U8, 5 << 20, SAF_DTYPE_U8, 1000);
    check_refused(world, SAF_DTYPE_U8, 5 << 20, SAF_DTYPE_U8, (5 << 20) - 1);
}

static void test_message_refused_in_pieces(saf_comm *world) {
    const size_t usual = saf__piece_bytes();
    saf__comm_set_piece_bytes(1000);
    check_refused(world, SAF_DTYPE_U8, 10001, SAF_DTYPE_U8, 10000);
    check_refused(world, SAF_DTYPE_U8, 10001, SAF_DTYPE_U8, 10);
    check_refused(world, SAF_DTYPE_F32, 10001, SAF_DTYPE_I32, 50000);
    saf__comm_set_piece_bytes(usual);
}

/* Each error is told when its own request is waited for, whatever failed in between. */
static void test_message_errors_keep_their_text(saf_comm *world) {
    int32_t x[3] = {0}, y[3] = {0};
    saf_comm_request *send = NULL, *recv[3] = {0};
    saf_tensor got[3];
    char part[32];
    for (int k = 0; k < 3; k++) {
        got[k] = saf_tensor_1d(SAF_DTYPE_I32, y, 0);
        CHECK_OK(
            saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, (size_t)k, &got[k], &recv[k]));
    }
    for (int k = 0; k < 3; k++) {
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, x, k + 1);
        CHECK_OK(saf_comm_isend(world, next_of(world), SAF_TAG_TEST, &t, &send));
        CHECK_OK(saf_comm_wait(&send));
    }
    for (int k = 2; k >= 0; k--) {
        CHECK_STATUS(saf_comm_wait(&recv[k]), SAF_COMM);
        snprintf(part, sizeof part, "at most %d bytes, got I32 [%d]", k, k + 1);
        CHECK(strstr(saf_error_text(), part) != NULL);
    }
}

/* Bytes that are no tensor of saf, straight from the transport. */
static void test_message_foreign_header(saf_comm *world) {
    static const size_t lengths[] = {0, 10, 64, 64, 2048};
    static const unsigned char contents[] = {0, 0, 0, 0xFF, 0x53};
    unsigned char junk[2048];
    int32_t x = 0;
    for (int k = 0; k < 5; k++) {
        saf__op op = {0};
        saf_comm_request *r = NULL;
        saf_tensor got = saf_tensor_1d(SAF_DTYPE_I32, &x, 1);
        memset(junk, contents[k], sizeof junk);
        CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, sizeof x, &got, &r));
        CHECK_OK(
            world->transport->isend(world, next_of(world), SAF_TAG_TEST, junk, lengths[k], &op));
        CHECK_STATUS(saf_comm_wait(&r), SAF_COMM);
        CHECK_TEXT("no tensor of this version");
        CHECK_OK(saf__wait_ops(world, &op, 1));
    }
    check_round(world, SAF_DTYPE_I32, 1, &(int64_t){10}, 4);
}

static void refuses(saf_comm *world, const void *wire, size_t length) {
    int32_t y[4] = {0};
    saf_comm_request *r = NULL;
    saf_tensor got = saf_tensor_1d(SAF_DTYPE_I32, y, 0);
    saf__op op = {0};
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, sizeof y, &got, &r));
    CHECK_OK(world->transport->isend(world, next_of(world), SAF_TAG_TEST, wire, length, &op));
    CHECK_STATUS(saf_comm_wait(&r), SAF_COMM);
    CHECK_TEXT("no tensor of this version");
    CHECK_OK(saf__wait_ops(world, &op, 1));
}

/* Headers that begin well. */
static void test_message_hostile_headers(saf_comm *world) {
    static char wire[SAF__MESSAGE_BYTES];
    const saf__short_header right = {SAF__SHORT_MAGIC, SAF_DTYPE_I32, 1, 0, {3, 0, 0, 0}};
    saf__short_header brief[6] = {right, right, right, right, right, right};
    const saf__header good = {.magic = SAF__WIRE_MAGIC,
                              .dtype = SAF_DTYPE_I32,
                              .ndim = 1,
                              .piece_tag = SAF__TAG_PIECES,
                              .piece_bytes = saf__eager_piece_bytes(),
                              .shape = {3}};
    saf__header full[6] = {good, good, good, good, good, good};
    brief[0].dtype = SAF_DTYPE_COUNT;
    brief[1].ndim = SAF_MAX_DIMS + 1;
    brief[2].shape[0] = 2;
    brief[3].shape[0] = 4;
    brief[4].shape[0] = UINT16_MAX;
    brief[5].magic = SAF__WIRE_MAGIC;
    full[0].dtype = SAF_DTYPE_COUNT;
    full[1].ndim = SAF_MAX_DIMS + 1;
    full[2].piece_tag = SAF__TAG_PIECES_END;
    full[3].piece_bytes = 1;
    full[4].shape[0] = INT64_MAX;
    full[5].shape[0] = -3;
    for (int k = 0; k < 6; k++) {
        memcpy(wire, &brief[k], sizeof brief[k]);
        refuses(world, wire, sizeof brief[k] + 12);
        memcpy(wire, &full[k], sizeof full[k]);
        refuses(world, wire, sizeof full[k] + 12);
    }
    memcpy(wire, &brief[4], sizeof right); /* pieces, on no tag */
    refuses(world, wire, sizeof right);
    memcpy(wire, &right, sizeof right); /* contents cut off, or too many, or none of the header */
    refuses(world, wire, sizeof right + 11);
    refuses(world, wire, sizeof right + 13);
    refuses(world, wire, sizeof right - 1);
    memcpy(wire, &good, sizeof good);
    refuses(world, wire, sizeof good + 11);
    refuses(world, wire, sizeof good - 1);
    check_round(world, SAF_DTYPE_I32, 1, &(int64_t){10}, 4);
}

/* Long shapes of few bytes, and the last ones whose header is the short one. */
static void test_message_shapes_of_few_bytes(saf_comm *world) {
    check_round(world, SAF_DTYPE_I32, 2, (int64_t[]){0, (int64_t)1 << 40}, 5);
    check_round(world, SAF_DTYPE_U8, 3, (int64_t[]){0, UINT16_MAX, UINT16_MAX}, 6);
    check_round(world, SAF_DTYPE_U8, 3, (int64_t[]){0, UINT16_MAX + 1, 1}, 7);
    check_round(world, SAF_DTYPE_U8, 1, (int64_t[]){SAF__INLINE_BYTES}, 8);
    check_round(world, SAF_DTYPE_U8, 1, (int64_t[]){SAF__INLINE_BYTES + 1}, 9);
    check_round(world, SAF_DTYPE_U8, 4, (int64_t[]){2, 2, 2, 2}, 10);
    check_round(world, SAF_DTYPE_U8, 0, (int64_t[]){0}, 11);
}

static void test_message_defects_are_refused(saf_comm *world) {
    float x[4] = {0};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F32, x, 4);
    saf_comm_request *r = NULL;
    CHECK_STATUS(saf_comm_isend(world, saf_comm_size(world), SAF_TAG_TEST, &t, &r), SAF_DEFECT);
    CHECK_STATUS(saf_comm_isend(world, -1, SAF_TAG_TEST, &t, &r), SAF_DEFECT);
    CHECK_STATUS(saf_comm_irecv(world, -1, SAF_TAG_TEST, 16, &t, &r), SAF_DEFECT);
    CHECK_STATUS(saf_comm_isend(world, 0, (saf_tag)0, &t, &r), SAF_DEFECT);
    CHECK_STATUS(saf_comm_irecv(world, 0, SAF_TAG_COUNT, 16, &t, &r), SAF_DEFECT);
    t.data = NULL;
    CHECK_STATUS(saf_comm_isend(world, 0, SAF_TAG_TEST, &t, &r), SAF_DEFECT);
    CHECK_STATUS(saf_comm_irecv(world, 0, SAF_TAG_TEST, 16, &t, &r), SAF_DEFECT);
    t.data = x;
    t.ndim = 5;
    CHECK_STATUS(saf_comm_isend(world, 0, SAF_TAG_TEST, &t, &r), SAF_DEFECT);
    t = saf_tensor_1d(SAF_DTYPE_F32, x, -1);
    CHECK_STATUS(saf_comm_isend(world, 0, SAF_TAG_TEST, &t, &r), SAF_DEFECT);
    t = saf_tensor_1d(SAF_DTYPE_Q8_0, x, 33);
    CHECK_STATUS(saf_comm_isend(world, 0, SAF_TAG_TEST, &t, &r), SAF_DEFECT);
    CHECK(!r);
}

static void test_message_counters_add_up(saf_comm *world) {
    saf_comm_counter c[SAF_COUNT_KINDS];
    saf_comm_counters_reset();
    for (int64_t n = 0; n < 40; n++)
        check_round(world, SAF_DTYPE_F32, 2, (int64_t[]){n, saf_comm_rank(world) >= 0 ? 3 : 0},
                    (uint64_t)n);
    saf_comm_counters(c);
    CHECK_EQ(c[SAF_COUNT_SEND].calls, 40);
    CHECK_EQ(c[SAF_COUNT_RECV].calls, 40);
    CHECK_EQ(c[SAF_COUNT_SEND].bytes, 4 * 3 * 39 * 40 / 2);
    CHECK(c[SAF_COUNT_RECV].wait_s >= 0 && c[SAF_COUNT_RECV].wait_s < 60);
    int64_t sums[2] = {c[SAF_COUNT_SEND].bytes, c[SAF_COUNT_RECV].bytes};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, sums, 2);
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
    CHECK_EQ(sums[0], sums[1]);
    saf_comm_counters(c);
    CHECK_EQ(c[SAF_COUNT_ALLREDUCE].calls, 1);
    CHECK_EQ(c[SAF_COUNT_ALLREDUCE].bytes, 16);
}

/* Rank 0 sends late: the wait for it is counted, and a message that is there is not waited for. */
static void test_message_counters_of_waits(saf_comm *world) {
    saf_comm_counter c[SAF_COUNT_KINDS];
    int32_t x = 1, y = 0;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &x, 1), got = saf_tensor_1d(SAF_DTYPE_I32, &y, 0);
    saf_comm_request *recv = NULL;
    CHECK_OK(saf_comm_barrier(world));
    saf_comm_counters_reset();
    if (saf_comm_rank(world) == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
        CHECK_OK(saf_comm_send(world, next_of(world), SAF_TAG_TEST, &t));
    }
    CHECK_OK(saf_comm_recv(world, before_of(world), SAF_TAG_TEST, sizeof y, &got));
    if (saf_comm_rank(world) != 0) CHECK_OK(saf_comm_send(world, next_of(world), SAF_TAG_TEST, &t));
    saf_comm_counters(c);
    if (saf_comm_rank(world) != 0)
        CHECK(c[SAF_COUNT_RECV].wait_s > 0.1 && c[SAF_COUNT_RECV].wait_s < 60);
    CHECK(c[SAF_COUNT_SEND].wait_s < 0.1);
    CHECK_OK(saf_comm_irecv(world, before_of(world), SAF_TAG_TEST, sizeof y, &got, &recv));
    CHECK_OK(saf_comm_send(world, next_of(world), SAF_TAG_TEST, &t));
    CHECK_OK(saf_comm_barrier(world));
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    saf_comm_counters_reset();
    CHECK_OK(saf_comm_wait(&recv));
    saf_comm_counters(c);
    CHECK(c[SAF_COUNT_RECV].wait_s < 0.1);
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* A rank that waits leaves its core to others. */
static void test_message_waiting_is_idle(saf_comm *world) {
    int32_t x = 0;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &x, 1);
    saf_comm_counter c[SAF_COUNT_KINDS];
    int rank = saf_comm_rank(world), size = saf_comm_size(world);
    if (size == 1) {
        SKIP("one rank has nobody to wait for");
        return;
    }
    CHECK_OK(saf_comm_barrier(world));
    saf_comm_counters_reset();
    double wall = saf_clock_s(), cpu = cpu_s();
    if (rank == 0) {
        nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
        for (int r = 1; r < size; r++) CHECK_OK(saf_comm_send(world, r, SAF_TAG_TEST, &t));
    } else {
        CHECK_OK(saf_comm_recv(world, 0, SAF_TAG_TEST, sizeof x, &t));
        wall = saf_clock_s() - wall;
        cpu = cpu_s() - cpu;
        saf_comm_counters(c);
        fprintf(stderr, "# rank %d waited %.2f s with %.1f %% of a core\n", rank, wall,
                100 * cpu / wall);
        CHECK(wall > 1.5);
        CHECK(cpu < 0.3 * wall);
        CHECK(c[SAF_COUNT_RECV].wait_s > 1.5 && c[SAF_COUNT_RECV].wait_s <= wall + 0.01);
    }
    CHECK_OK(saf_comm_barrier(world));
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_message_every_dtype_and_shape),
        MPI_CASE(test_message_every_length),
        MPI_CASE(test_message_keeps_every_bit),
        MPI_CASE(test_message_blocking),
        MPI_CASE(test_message_double_buffered_ring),
        MPI_CASE(test_message_posted_receive_goes_on),
        MPI_CASE(test_message_progress_moves_all),
        MPI_CASE(test_message_wait_any_and_test),
        MPI_CASE(test_message_test_any),
        MPI_CASE(test_message_cancel),
        MPI_CASE(test_message_cancel_too_late),
        MPI_CASE(test_message_of_a_freed_communicator),
        MPI_CASE(test_message_pieces),
        MPI_CASE(test_message_pieces_interleaved),
        MPI_CASE(test_message_wrong_dtype),
        MPI_CASE(test_message_too_large),
        MPI_CASE(test_message_refused_in_pieces),
        MPI_CASE(test_message_errors_keep_their_text),
        MPI_CASE(test_message_foreign_header),
        MPI_CASE(test_message_hostile_headers),
        MPI_CASE(test_message_shapes_of_few_bytes),
        MPI_CASE(test_message_defects_are_refused),
        MPI_CASE(test_message_counters_add_up),
        MPI_CASE(test_message_counters_of_waits),
        MPI_CASE(test_message_waiting_is_idle),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
