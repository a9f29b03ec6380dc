/* The queue that replicas draw from: each rank is the head of one that only pretends to compute. */
#include <time.h>

#include "mpi/mpi_test.h"
#include "parallel/queue.h"

enum { REQUESTS_MAX = 400 };

/* What a request is reported as; `pad` bytes of its own follow. */
typedef struct {
    int32_t request, pad;
} done_head;

typedef struct {
    saf__queue *q;
    int rank, ranks;
    int32_t n;
    int times[REQUESTS_MAX], by[REQUESTS_MAX], drawn, reports;
    int32_t fails_at; /* the report that cannot be stored; -1: none */
    bool in_order;
    /* halts: is told to when it has drawn so many and is asked; or any number, once it has ended */
    bool halts, when_ended, ended;
    int32_t halts_at, said_yes;
} replica;

/* In layers, after each of which the queue may move on. */
static void compute(replica *r, double seconds) {
    enum { LAYERS = 20 };
    struct timespec t = {0, (long)(seconds / LAYERS * 1e9)};
    for (int i = 0; i < LAYERS; i++) {
        nanosleep(&t, NULL);
        saf__queue_tick(r->q);
    }
}

static uint32_t random_of(const replica *r, int i) {
    uint32_t words[4];
    saf_philox(7, (uint64_t)r->rank, (uint64_t)i, words);
    return words[0];
}

static char pad_byte(int32_t request, int32_t at) {
    return (char)(request * 31 + at);
}

static saf_status on_report(void *ctx, int32_t from, const void *bytes, size_t len) {
    replica *r = ctx;
    done_head head;
    CHECK((uintptr_t)bytes % 8 == 0 && len >= sizeof head);
    memcpy(&head, bytes, sizeof head);
    const char *pad = (const char *)bytes + sizeof head;
    CHECK_EQ(len, sizeof head + (size_t)head.pad);
    for (int32_t i = 0; i < head.pad; i += 997) CHECK(pad[i] == pad_byte(head.request, i));
    if (!CHECK(head.request >= 0 && head.request < r->n)) return SAF_OK;
    for (int32_t i = head.request + 1; i < r->n; i++) /* those of one replica in its order */
        if (r->times[i] > 0 && r->by[i] == from) r->in_order = false;
    r->times[head.request]++;
    r->by[head.request] = from;
    if (r->reports++ == r->fails_at) return saf_fail(SAF_IO, "no room");
    return SAF_OK;
}

static bool on_stop(void *ctx) {
    replica *r = ctx;
    bool yes = r->halts && r->drawn >= r->halts_at && (r->ended || !r->when_ended);
    CHECK_EQ(r->said_yes, 0);
    r->said_yes += yes;
    return yes;
}

static void begin(saf_comm *world, int32_t n, replica *r) {
    *r = (replica){.rank = saf_comm_rank(world),
                   .ranks = saf_comm_size(world),
                   .n = n,
                   .fails_at = -1,
                   .in_order = true};
    CHECK_OK(saf_comm_barrier(world));
    CHECK_OK(saf__queue_new(r->ranks > 1 ? world : NULL, n,
                            (saf__queue_events){r, on_report, on_stop}, &r->q));
}

static void finish(replica *r) {
    saf__queue_free(&r->q);
}

static void done(replica *r, int32_t request, int32_t pad) {
    done_head head = {request, pad};
    char *bytes = NULL;
    r->drawn++;
    if (r->rank == 0) {
        r->times[request]++;
        return;
    }
    CHECK_OK(saf_alloc((size_t)pad, 1, &bytes));
    for (int32_t i = 0; i < pad; i++) bytes[i] = pad_byte(request, i);
    CHECK_OK(saf__queue_report(r->q, &head, sizeof head, bytes, (size_t)pad));
    saf_free(&bytes);
}

/* Draws, and takes its time for each request: `seconds`, or up to 2 ms at random below 0. */
static void run(replica *r, int32_t room, double seconds, int32_t pad) {
    for (int i = 0;;) {
        int32_t first, count;
        int32_t some = room > 0 ? room : 1 + (int32_t)(random_of(r, i) % 5);
        CHECK_OK(saf__queue_draw(r->q, some, &first, &count));
        CHECK(count <= some);
        if (count == 0 && saf__queue_is_over(r->q)) break;
        if (count == 0) CHECK_OK(saf__queue_wait(r->q, NULL));
        for (int32_t k = first; k < first + count && !saf__queue_is_stopped(r->q); k++, i++) {
            compute(r, seconds >= 0 ? seconds : 2e-6 * (double)(random_of(r, i) % 1000));
            done(r, k, pad);
        }
        CHECK_OK(saf__queue_step(r->q));
    }
    CHECK_OK(saf__queue_end(r->q, false));
}

static void test_queue_each_request_once(saf_comm *world) {
    static const int32_t counts[] = {0, 1, 2, 3, 7, 200};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        replica r;
        begin(world, counts[i], &r);
        run(&r, 0, -1, 3);
        CHECK(saf__queue_is_over(r.q));
        CHECK_EQ(saf__queue_failed(r.q), SAF_OK);
        int32_t drawn = r.drawn;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &drawn, 1);
        CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
        CHECK_EQ(drawn, r.n);
        if (r.rank == 0) {
            for (int32_t k = 0; k < r.n; k++) CHECK_EQ(r.times[k], 1);
            CHECK(r.in_order);
            CHECK_EQ(r.drawn + r.reports, r.n);
        }
        finish(&r);
    }
}

/* All draw until nothing is left, the slow one too, but it gets what its speed allows. */
static void test_queue_a_slow_replica_gets_fewer(saf_comm *world) {
    if (saf_comm_size(world) == 1) {
        SKIP("one replica is neither slow nor fast");
        return;
    }
    for (int slow = 0; slow < saf_comm_size(world); slow++) {
        replica r;
        int32_t drawn[8] = {0};
        begin(world, 150, &r);
        run(&r, 1, r.rank == slow ? 40e-3 : 4e-3, 0);
        drawn[r.rank] = r.drawn;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, drawn, 8);
        CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
        for (int k = 0; k < r.ranks; k++)
            CHECK(k == slow ? drawn[k] > 0 : 2 * drawn[k] > 3 * drawn[slow]); /* a busy machine */
        finish(&r);
    }
}

/* Larger ones than are gathered, and an owner that takes them while it computes. */
static void test_queue_large_reports(saf_comm *world) {
    static const int32_t pads[] = {1000003, SAF__QUEUE_GATHERED_BYTES, 6000000};
    for (size_t i = 0; i < sizeof pads / sizeof *pads; i++) {
        replica r;
        begin(world, 12, &r);
        run(&r, 1, 1e-3, pads[i]);
        for (int32_t k = 0; r.rank == 0 && k < r.n; k++) CHECK_EQ(r.times[k], 1);
        finish(&r);
    }
}

/* The owner cannot store a report: the others hear of it and end in order, whatever they have yet
 * to tell. */
static void test_queue_the_owner_fails(saf_comm *world) {
    for (int32_t pad = 1; pad < 10000000; pad += 4999999) {
        replica r;
        begin(world, REQUESTS_MAX, &r);
        if (r.ranks > 1 && r.rank == 0) r.fails_at = 3;
        run(&r, 1, 2e-3, pad);
        CHECK_EQ(saf__queue_is_stopped(r.q), r.ranks > 1);
        CHECK_EQ(saf__queue_failed(r.q), r.ranks > 1 && r.rank == 0 ? SAF_IO : SAF_OK);
        int32_t drawn = r.drawn;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &drawn, 1);
        CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
        CHECK(r.ranks == 1 || drawn < r.n);
        if (r.rank == 0 && r.ranks > 1) CHECK_EQ(r.reports, 4); /* none after it */
        finish(&r);
    }
}

/* One of the others fails: all stop, and it alone says why. */
static void test_queue_another_fails(saf_comm *world) {
    replica r;
    begin(world, REQUESTS_MAX, &r);
    bool bad = r.rank > 0 && r.rank == r.ranks - 1;
    if (bad) {
        int32_t first = 0, count = 0;
        while (count == 0) {
            CHECK_OK(saf__queue_draw(r.q, 1, &first, &count));
            if (count == 0) CHECK_OK(saf__queue_wait(r.q, NULL));
        }
        saf__queue_fail(r.q, SAF_NO_MEMORY);
        saf__queue_fail(r.q, SAF_IO); /* the first counts */
        CHECK_OK(saf__queue_end(r.q, false));
    } else {
        run(&r, 1, 2e-3, 10);
    }
    CHECK_EQ(saf__queue_is_stopped(r.q), r.ranks > 1);
    CHECK_EQ(saf__queue_failed(r.q), bad ? SAF_NO_MEMORY : SAF_OK);
    finish(&r);
}

static int64_t sum(saf_comm *world, int64_t value) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &value, 1);
    CHECK_OK(saf_comm_allreduce(world, SAF_OP_SUM, &t));
    return value;
}

/* As `run` does, but a request is left undone in a halt, and reported as that. Returns how many. */
static int32_t run_until_halt(replica *r, int32_t room, double seconds, int32_t pad) {
    int32_t undone = 0;
    for (;;) {
        int32_t first, count;
        CHECK_OK(saf__queue_step(r->q));
        CHECK_OK(saf__queue_draw(r->q, room, &first, &count));
        if (count == 0 && saf__queue_is_over(r->q)) break;
        if (count == 0) CHECK_OK(saf__queue_wait(r->q, NULL));
        for (int32_t k = first; k < first + count; k++) {
            if (!saf__queue_begins_nothing(r->q)) compute(r, seconds);
            undone += saf__queue_is_halted(r->q);
            done(r, k, pad);
        }
    }
    r->ended = true;
    CHECK_OK(saf__queue_end(r->q, undone > 0));
    return undone;
}

/* By each head in turn, at the first question and later: all hear of it, what they report after it
 * is taken, and all agree that something is left. One that a busy machine held up, so that the
 * others have drawn nearly all, does not get to its later question. */
static void test_queue_halt(saf_comm *world) {
    for (int who = 0; who < saf_comm_size(world); who++)
        for (int32_t at = 0; at < 40; at += 13) {
            replica r;
            begin(world, REQUESTS_MAX, &r);
            r.halts = r.rank == who;
            r.halts_at = at;
            run_until_halt(&r, 3, 1e-3, at * 40000);
            bool asked = sum(world, r.halts && r.drawn >= at) > 0;
            CHECK(asked || at > 0);
            CHECK(saf__queue_is_halted(r.q) == asked && saf__queue_left_undone(r.q) == asked);
            CHECK_EQ(saf__queue_failed(r.q), SAF_OK);
            CHECK_EQ(r.said_yes, r.halts && asked);
            int64_t drawn = sum(world, r.drawn);
            CHECK((drawn < r.n) == asked);
            if (r.rank == 0) CHECK_EQ(r.reports, drawn - r.drawn);
            for (int32_t k = 0; k < r.n && r.rank == 0; k++) CHECK(r.times[k] <= 1);
            finish(&r);
        }
}

/* One that has ended is told to while others are in the middle. */
static void test_queue_halt_by_one_that_has_ended(saf_comm *world) {
    for (int who = 0; who < saf_comm_size(world) && saf_comm_size(world) > 1; who++) {
        replica r;
        begin(world, saf_comm_size(world), &r);
        r.halts = r.when_ended = r.rank == who;
        int32_t undone = run_until_halt(&r, 1, r.halts ? 1e-3 : 0.7, 10);
        CHECK_EQ(saf__queue_is_halted(r.q), true);
        CHECK(!r.halts || undone == 0);
        int64_t all = sum(world, undone);
        CHECK(all > 0);
        CHECK(saf__queue_left_undone(r.q));
        finish(&r);
    }
}

/* When nothing is left it changes nothing. */
static void test_queue_halt_too_late(saf_comm *world) {
    static const int32_t counts[] = {0, 1, 9};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        replica r;
        begin(world, counts[i], &r);
        r.halts = r.when_ended = r.rank == (int)i % r.ranks;
        run(&r, 1, 1e-3, 3);
        r.ended = true;
        CHECK(!saf__queue_left_undone(r.q));
        finish(&r);
        begin(world, 0, &r);
        r.halts = true; /* all of them, and in each other's way */
        CHECK_EQ(run_until_halt(&r, 1, 0, 0), 0);
        CHECK(saf__queue_is_halted(r.q) && !saf__queue_left_undone(r.q));
        finish(&r);
    }
}

/* A report that cannot be stored after it: a failure, and nothing else. */
static void test_queue_halt_then_failure(saf_comm *world) {
    replica r;
    begin(world, REQUESTS_MAX, &r);
    r.halts = r.rank == r.ranks - 1;
    r.halts_at = 2;
    bool fails = r.ranks > 1 && r.rank == 0;
    if (fails) r.fails_at = 2;
    run_until_halt(&r, 3, 3e-3, 100);
    CHECK_EQ(saf__queue_failed(r.q), fails ? SAF_IO : SAF_OK);
    CHECK_EQ(saf__queue_left_undone(r.q), r.ranks == 1);
    finish(&r);
}

/* While it waits for something else, which comes in time all the same. */
static void test_queue_halt_in_a_wait(saf_comm *world) {
    int32_t word = 0;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &word, 1);
    saf_comm_request *other = NULL;
    struct timespec long_time = {0, 600000000};
    replica r = {.rank = saf_comm_rank(world), .ranks = saf_comm_size(world)};
    if (r.ranks == 1) {
        SKIP("one rank waits for nobody");
        return;
    }
    CHECK_OK(saf_comm_barrier(world));
    if (r.rank == 1) {
        nanosleep(&long_time, NULL);
        CHECK_OK(saf_comm_send(world, 0, SAF_TAG_TEST, &t));
    } else if (r.rank == 0) {
        CHECK_OK(saf__queue_new(NULL, 5, (saf__queue_events){&r, on_report, on_stop}, &r.q));
        CHECK_OK(saf_comm_irecv(world, 1, SAF_TAG_TEST, sizeof word, &t, &other));
        double start = saf_clock_s();
        CHECK_OK(saf__queue_step(r.q));
        CHECK(!saf__queue_is_halted(r.q));
        r.halts = true;
        CHECK_OK(saf__queue_wait(r.q, &other));
        CHECK(other && saf__queue_is_halted(r.q));
        CHECK(saf_clock_s() - start < 0.4);
        CHECK_OK(saf__queue_wait(r.q, &other));
        CHECK(!other && saf_clock_s() - start > 0.4);
        CHECK_OK(saf__queue_end(r.q, true));
        CHECK(saf__queue_left_undone(r.q));
        finish(&r);
    }
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_queue_each_request_once),
        MPI_CASE(test_queue_a_slow_replica_gets_fewer),
        MPI_CASE(test_queue_large_reports),
        MPI_CASE(test_queue_the_owner_fails),
        MPI_CASE(test_queue_another_fails),
        MPI_CASE(test_queue_halt),
        MPI_CASE(test_queue_halt_by_one_that_has_ended),
        MPI_CASE(test_queue_halt_too_late),
        MPI_CASE(test_queue_halt_then_failure),
        MPI_CASE(test_queue_halt_in_a_wait),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
