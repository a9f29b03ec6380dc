/* The serial twin: what a process without a launcher gets. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "comm/transport.h"
#include "saf/comm.h"

static saf_comm *world;

static int start(void **state) {
    (void)state;
    return saf_comm_start(NULL, NULL, &world) != SAF_OK;
}
static int stop(void **state) {
    (void)state;
    saf_comm_stop(&world);
    saf_comm_stop(&world); /* nothing is fine */
    return world != NULL;
}

static void ok(saf_status st) {
    if (st != SAF_OK) fail_msg("status %d: %s", (int)st, saf_error_text());
}

static void test_serial_never_starts_mpi(void **state) {
    (void)state;
    int (*initialized)(int *) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "MPI_Initialized");
    int flag = 1;
    assert_non_null(symbol);
    memcpy(&initialized, &symbol, sizeof symbol);
    assert_int_equal(initialized(&flag), 0);
    assert_int_equal(flag, 0);
    assert_true(world->transport->alone);
    assert_int_equal(saf_comm_rank(world), 0);
    assert_int_equal(saf_comm_size(world), 1);
    char host[256] = "";
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    assert_string_equal(saf_comm_host(world), host);
}

static void test_serial_starts_once(void **state) {
    (void)state;
    saf_comm *other = NULL;
    assert_int_equal(saf_comm_start(NULL, NULL, &other), SAF_DEFECT);
    assert_null(other);
}

static saf_tensor i32(int32_t *x, int64_t n) {
    return saf_tensor_1d(SAF_DTYPE_I32, x, n);
}

/* By tag, and in order within a tag, whichever side comes first. */
static void test_serial_matches_by_tag_in_order(void **state) {
    (void)state;
    int32_t out[4] = {10, 11, 12, 13}, in[4] = {0};
    saf_comm_request *sends[4] = {0}, *recvs[4] = {0};
    saf_tensor got[4];
    for (int i = 0; i < 4; i++) {
        saf_tensor t = i32(&out[i], 1);
        ok(saf_comm_isend(world, 0, i % 2 ? SAF_TAG_TEST : SAF_TAG_FLIGHT, &t, &sends[i]));
        out[i] = -1; /* small contents have left already; the request stays valid */
    }
    for (int k = 0; k < 4; k++) {
        got[k] = i32(&in[k], 0);
        saf_tag tag = k < 2 ? SAF_TAG_TEST : SAF_TAG_FLIGHT;
        ok(saf_comm_irecv(world, 0, tag, 4, &got[k], &recvs[k]));
    }
    for (int k = 3; k >= 0; k--) ok(saf_comm_wait(&recvs[k]));
    for (int k = 0; k < 4; k++) ok(saf_comm_wait(&sends[k]));
    assert_int_equal(in[0], 11);
    assert_int_equal(in[1], 13);
    assert_int_equal(in[2], 10);
    assert_int_equal(in[3], 12);
    /* Receives first. */
    for (int k = 0; k < 4; k++) {
        got[k] = i32(&in[k], 0);
        saf_tag tag = k < 2 ? SAF_TAG_TEST : SAF_TAG_FLIGHT;
        ok(saf_comm_irecv(world, 0, tag, 4, &got[k], &recvs[k]));
        bool done = true;
        ok(saf_comm_test(&recvs[k], &done));
        assert_false(done);
    }
    for (int i = 0; i < 4; i++) {
        int32_t x = 20 + i;
        saf_tensor t = i32(&x, 1);
        ok(saf_comm_send(world, 0, i % 2 ? SAF_TAG_TEST : SAF_TAG_FLIGHT, &t));
    }
    int index = -1;
    ok(saf_comm_wait_any(recvs, 4, &index));
    assert_int_equal(index, 0);
    for (int k = 1; k < 4; k++) ok(saf_comm_wait(&recvs[k]));
    assert_int_equal(in[0], 21);
    assert_int_equal(in[1], 23);
    assert_int_equal(in[2], 20);
    assert_int_equal(in[3], 22);
}

static void test_serial_large_and_shaped(void **state) {
    (void)state;
    enum { ROWS = 700, COLS = 1000 };
    float *x = NULL, *y = NULL;
    saf_comm_request *r = NULL;
    ok(saf_alloc((size_t)ROWS * COLS, sizeof *x, &x));
    ok(saf_alloc((size_t)ROWS * COLS, sizeof *y, &y));
    for (int i = 0; i < ROWS * COLS; i++) x[i] = (float)i * 0.37f;
    saf_tensor t = saf_tensor_2d(SAF_DTYPE_F32, x, ROWS, COLS);
    for (int first = 0; first < 2; first++) { /* small pieces, and whole */
        saf_tensor got = saf_tensor_1d(SAF_DTYPE_F32, y, 0);
        size_t usual = saf__piece_bytes();
        if (first == 0) saf__comm_set_piece_bytes(4999);
        memset(y, 0, (size_t)ROWS * COLS * sizeof *y);
        ok(saf_comm_isend(world, 0, SAF_TAG_WEIGHTS, &t, &r));
        ok(saf_comm_recv(world, 0, SAF_TAG_WEIGHTS, (size_t)ROWS * COLS * 4, &got));
        ok(saf_comm_wait(&r));
        assert_int_equal(got.ndim, 2);
        assert_int_equal(got.shape[0], ROWS);
        assert_int_equal(got.shape[1], COLS);
        assert_memory_equal(x, y, (size_t)ROWS * COLS * sizeof *x);
        saf__comm_set_piece_bytes(usual);
    }
    saf_free(&x);
    saf_free(&y);
}

/* What would hang is an error. */
static void test_serial_waiting_for_nothing_is_an_error(void **state) {
    (void)state;
    int32_t x = 0;
    saf_tensor t = i32(&x, 1);
    saf_comm_request *r[2] = {0};
    assert_int_equal(saf_comm_recv(world, 0, SAF_TAG_TEST, 4, &t), SAF_DEFECT);
    assert_non_null(strstr(saf_error_text(), "never sent"));
    ok(saf_comm_irecv(world, 0, SAF_TAG_TEST, 4, &t, &r[1]));
    int index = 0;
    assert_int_equal(saf_comm_wait_any(r, 2, &index), SAF_DEFECT);
    assert_int_equal(index, -1);
    assert_non_null(r[1]);
    saf_comm_cancel(&r[1]);
    assert_null(r[1]);
    /* A receive that was given up takes no later message. */
    int32_t seven = 7;
    saf_tensor s = i32(&seven, 1);
    ok(saf_comm_send(world, 0, SAF_TAG_TEST, &s));
    ok(saf_comm_recv(world, 0, SAF_TAG_TEST, 4, &t));
    assert_int_equal(x, 7);
}

static void test_serial_refuses_what_does_not_fit(void **state) {
    (void)state;
    static int32_t many[3000], room[3000];
    saf_comm_request *r = NULL;
    for (int k = 0; k < 2; k++) { /* inside its header, and in pieces */
        saf_tensor t = i32(many, k == 0 ? 3 : 3000), got = i32(room, 5);
        ok(saf_comm_isend(world, 0, SAF_TAG_TEST, &t, &r));
        assert_int_equal(saf_comm_recv(world, 0, SAF_TAG_TEST, 8, &got), SAF_COMM);
        assert_non_null(strstr(saf_error_text(), "expected I32 of at most 8 bytes, got I32 [3"));
        assert_int_equal(got.shape[0], 5);
        ok(saf_comm_wait(&r));
        ok(saf_comm_isend(world, 0, SAF_TAG_TEST, &t, &r));
        got = saf_tensor_1d(SAF_DTYPE_F32, room, 5);
        assert_int_equal(saf_comm_recv(world, 0, SAF_TAG_TEST, sizeof room, &got), SAF_COMM);
        ok(saf_comm_wait(&r));
    }
}

static void test_serial_collectives(void **state) {
    (void)state;
    double x[3] = {1, -2, 3}, y[3] = {0};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, x, 3), all = saf_tensor_1d(SAF_DTYPE_F64, y, 3);
    saf_buf buf = {0}, out = {0};
    ok(saf_comm_barrier(world));
    ok(saf_comm_bcast(world, 0, &t));
    ok(saf_comm_allreduce(world, SAF_OP_SUM, &t));
    ok(saf_comm_allgather(world, &t, &all));
    assert_memory_equal(y, ((double[]){1, -2, 3}), sizeof y);
    all.shape[0] = 2;
    assert_int_equal(saf_comm_allgather(world, &t, &all), SAF_DEFECT);
    ok(saf_buf_printf(&buf, "bytes"));
    ok(saf_comm_bcast_buf(world, 0, &buf));
    assert_string_equal(buf.data, "bytes");
    ok(saf_comm_gather_buf(world, 0, &buf, &out));
    assert_string_equal(out.data, "bytes");
    assert_int_equal(saf_comm_bcast_buf(world, 1, &buf), SAF_DEFECT);
    saf_buf_free(&buf);
    saf_buf_free(&out);
    /* One rank needs no prefix. */
    ok(saf_comm_agree(world, SAF_OK));
    assert_int_equal(saf_comm_agree(world, saf_fail(SAF_IO, "disk full")), SAF_IO);
    assert_string_equal(saf_error_text(), "disk full");
}

static void test_serial_split_and_dup(void **state) {
    (void)state;
    saf_comm *dup = NULL, *part = NULL, *none = world;
    int32_t out[2] = {1, 2}, in = 0;
    saf_tensor a = i32(&out[0], 1), b = i32(&out[1], 1), t = i32(&in, 1);
    ok(saf_comm_dup(world, &dup));
    ok(saf_comm_split(world, 4, 2, &part));
    ok(saf_comm_split(world, -1, 0, &none));
    assert_null(none);
    assert_int_equal(saf_comm_size(part), 1);
    ok(saf_comm_send(world, 0, SAF_TAG_TEST, &a));
    ok(saf_comm_send(dup, 0, SAF_TAG_TEST, &b));
    assert_int_equal(saf_comm_recv(part, 0, SAF_TAG_TEST, 4, &t), SAF_DEFECT);
    ok(saf_comm_recv(dup, 0, SAF_TAG_TEST, 4, &t));
    assert_int_equal(in, 2);
    ok(saf_comm_recv(world, 0, SAF_TAG_TEST, 4, &t));
    assert_int_equal(in, 1);
    ok(saf_comm_send(dup, 0, SAF_TAG_TEST, &b)); /* left behind: freed with its context */
    saf_comm_free(&dup);
    saf_comm_free(&part);
    assert_null(dup);
}

static void test_serial_counters(void **state) {
    (void)state;
    int32_t x[10] = {0};
    saf_comm_counter c[SAF_COUNT_KINDS];
    saf_comm_counters_reset();
    for (int64_t n = 0; n < 4; n++) {
        saf_tensor t = i32(x, n), got = i32(x, 0);
        ok(saf_comm_send(world, 0, SAF_TAG_TEST, &t));
        ok(saf_comm_recv(world, 0, SAF_TAG_TEST, sizeof x, &got));
    }
    saf_comm_counters(c);
    assert_int_equal(c[SAF_COUNT_SEND].calls, 4);
    assert_int_equal(c[SAF_COUNT_RECV].calls, 4);
    assert_int_equal(c[SAF_COUNT_SEND].bytes, 24);
    assert_int_equal(c[SAF_COUNT_RECV].bytes, 24);
}

static int exit_code_of_abort(int code) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) saf_comm_abort(world, code);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_serial_abort(void **state) {
    (void)state;
    assert_int_equal(exit_code_of_abort(1), 1);
    assert_int_equal(exit_code_of_abort(75), 75);
    assert_int_equal(exit_code_of_abort(0), 70); /* never a success */
    assert_int_equal(exit_code_of_abort(256), 70);
    assert_int_equal(exit_code_of_abort(-1), 70);
}

static void test_tensor_bytes(void **state) {
    (void)state;
    size_t bytes = 1;
    saf_tensor t = {.dtype = SAF_DTYPE_Q4_K, .ndim = 3, .shape = {2, 3, 512}};
    ok(saf_tensor_bytes(&t, &bytes));
    assert_int_equal(bytes, 2 * 3 * 2 * 144);
    assert_int_equal(saf_tensor_elements(&t), 3072);
    t = (saf_tensor){.dtype = SAF_DTYPE_F64};
    ok(saf_tensor_bytes(&t, &bytes));
    assert_int_equal(bytes, 8);
    /* Empty, whatever the others are. */
    t = (saf_tensor){.dtype = SAF_DTYPE_F32, .ndim = 3, .shape = {INT64_MAX, 0, INT64_MAX}};
    ok(saf_tensor_bytes(&t, &bytes));
    assert_int_equal(bytes, 0);
    bytes = 1;
    const saf_tensor bad[] = {
        {.dtype = SAF_DTYPE_F32, .ndim = 2, .shape = {INT64_MAX, 2}},
        {.dtype = SAF_DTYPE_F32, .ndim = 1, .shape = {INT64_MAX}},
        {.dtype = SAF_DTYPE_F32, .ndim = 1, .shape = {-1}},
        {.dtype = SAF_DTYPE_F32, .ndim = 2, .shape = {0, -1}},
        {.dtype = SAF_DTYPE_F32, .ndim = 5, .shape = {1, 1, 1, 1}},
        {.dtype = SAF_DTYPE_F32, .ndim = -1},
        {.dtype = SAF_DTYPE_COUNT, .ndim = 1, .shape = {1}},
        {.dtype = (saf_dtype)-1, .ndim = 1, .shape = {1}},
        {.dtype = SAF_DTYPE_Q8_0, .ndim = 2, .shape = {32, 31}},
        {.dtype = SAF_DTYPE_Q8_0, .ndim = 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(saf_tensor_bytes(&bad[i], &bytes), SAF_DEFECT);
    assert_int_equal(bytes, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serial_never_starts_mpi),
        cmocka_unit_test(test_serial_starts_once),
        cmocka_unit_test(test_serial_matches_by_tag_in_order),
        cmocka_unit_test(test_serial_large_and_shaped),
        cmocka_unit_test(test_serial_waiting_for_nothing_is_an_error),
        cmocka_unit_test(test_serial_refuses_what_does_not_fit),
        cmocka_unit_test(test_serial_collectives),
        cmocka_unit_test(test_serial_split_and_dup),
        cmocka_unit_test(test_serial_counters),
        cmocka_unit_test(test_serial_abort),
        cmocka_unit_test(test_tensor_bytes),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
