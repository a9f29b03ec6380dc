/* A blocked MPI call spins, and an idle rank that spins takes cores from busy ones. So nothing in
 * saf blocks inside MPI: it starts an operation and waits here. Fast answers are caught by polling;
 * after that the rank sleeps, each time for a hundredth of what it has waited so far, so that
 * sleeping prolongs no wait by more than that. */
#include <sched.h>
#include <time.h>

#include "comm/transport.h"

static const double POLL_S = 1e-3;   /* before the first sleep */
static const double MOVED_S = 50e-6; /* a poll that takes longer has moved data */
static const double SLEEP_SHARE = 0.01, SLEEP_LEAST_S = 20e-6, SLEEP_MOST_S = 1e-3;

static void nap(double waited_s) {
    double s = SLEEP_SHARE * waited_s;
    if (s < SLEEP_LEAST_S) s = SLEEP_LEAST_S;
    if (s > SLEEP_MOST_S) s = SLEEP_MOST_S;
    nanosleep(&(struct timespec){.tv_nsec = (long)(s * 1e9)}, NULL); /* a signal may cut it short */
}

static saf_status wait_until(const saf_comm *comm, saf__poll poll, void *what) {
    double start = 0, busy_until = 0, before = 0;
    bool slept = false;
    uint64_t moved = 0;
    for (;;) {
        bool done = false;
        uint64_t now_moved = saf__progress();
        saf_status st = poll(what, &done);
        if (st != SAF_OK || done) return st;
        if (comm->transport->alone) {
            if (now_moved == moved)
                return saf__comm_fail(comm, SAF_DEFECT,
                                      "waits for a message from itself that was never sent");
            moved = now_moved;
            continue;
        }
        double now = saf_clock_s();
        if (start == 0) {
            start = now;
            busy_until = now + POLL_S;
            saf__watch_waiting(true);
        }
        /* MPI moves data only inside its calls: while a large message flows, keep calling. */
        if (slept && now - before > MOVED_S) busy_until = now + POLL_S;
        slept = now > busy_until;
        if (slept)
            nap(now - start);
        else if (comm->crowded)
            sched_yield();
        before = saf_clock_s();
    }
}

saf_status saf__wait_until(const saf_comm *comm, saf__poll poll, void *what) {
    saf_status st = wait_until(comm, poll, what);
    saf__watch_waiting(false);
    saf__watch_moved();
    return st;
}

typedef struct {
    saf_comm *comm;
    saf__op *ops;
    int64_t n, next;
    saf_status failed;
} op_list;

static saf_status poll_ops(void *what, bool *done) {
    op_list *list = what;
    for (; list->next < list->n; list->next++) {
        bool one = false;
        size_t got;
        saf_status st = list->comm->transport->test(list->comm, &list->ops[list->next], &one, &got);
        if (st == SAF_OK && !one) return SAF_OK;
        if (list->failed == SAF_OK) list->failed = st;
    }
    *done = true;
    return SAF_OK;
}

saf_status saf__wait_ops(saf_comm *comm, saf__op *ops, int64_t n) {
    op_list list = {.comm = comm, .ops = ops, .n = n};
    saf_status st = saf__wait_until(comm, poll_ops, &list);
    return st != SAF_OK ? st : list.failed;
}
