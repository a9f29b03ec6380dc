/* A blocked MPI call spins, and an idle rank that spins takes cores from busy ones. So nothing in
 * saf blocks inside MPI: it starts an operation and waits here. Fast answers are caught by polling;
 * after that the rank sleeps and looks by turns. It sleeps for a hundredth of what it has waited so
 * far, which prolongs no wait by more than that, but long enough that waking up and looking takes a
 * small share of a core. What a turn takes is measured as it goes: some 5 microseconds on a machine
 * of its own, 25 on a virtual one. Ranks of the same host cut a sleep short (bell.c). */
#include <math.h>
#include <sched.h>
#include <time.h>

#include "comm/transport.h"

static const double POLL_S = 1e-3;       /* before the first sleep */
static const double EARNED_SHARE = 2;    /* or for this much of what it has worked, */
static const double EARNED_MOST_S = 0.1; /* up to this */
static const double FREE_S = 50e-6;  /* shorter waits ask for no processor time: that takes long */
static const double RUNG_S = 100e-6; /* and after somebody rang */
static const double MOVED_S = 50e-6; /* a poll that computes for longer has moved data */
static const double SLEEP_SHARE = 0.01, SLEEP_LEAST_S = 20e-6, SLEEP_MOST_S = 5e-3;
static const double CORE_SHARE = 0.025; /* of a core, for one that sleeps and polls by turns */

enum { LOOKS_ALONE = 64 }; /* of a short wait between two at everything */

static double core_s(void) {
    struct timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0) return 0;
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double earned_s, ended_core_s; /* polling that is paid for; when the last wait ended */

/* For how long a wait that begins may poll. */
static double allowance_s(const saf_comm *comm) {
    earned_s += EARNED_SHARE * (core_s() - ended_core_s);
    if (earned_s > EARNED_MOST_S) earned_s = EARNED_MOST_S;
    return comm->crowded || earned_s < POLL_S ? POLL_S : earned_s;
}

static void spend(double polled_s) {
    earned_s = earned_s > polled_s ? earned_s - polled_s : 0;
    ended_core_s = core_s();
}

/* A wait that was over before its allowance was looked up: polling all the time, it took as much of
 * the processor, and that was no work. */
static void spend_briefly(double polled_s) {
    ended_core_s += polled_s;
}

/* Sleeping and looking by turns. */
typedef struct {
    bool begun, slept; /* since the last look */
    uint32_t heard;    /* of the bell, before that look */
    double core_s;     /* processor time of this thread: before the sleep, */
    double woke_s;     /* after it */
} turns;

static double turn_s = 5e-6; /* processor time of a turn, as the last ones took */

/* Before a look. */
static void prepare(turns *t) {
    if (t->begun) t->heard = saf__bell_listen();
}

/* After it: whether it has moved data. */
static bool moved_data(turns *t) {
    if (!t->slept) return false;
    t->slept = false;
    double look_s = core_s() - t->woke_s;
    bool moved = look_s > MOVED_S;
    turn_s += (t->woke_s - t->core_s + (moved ? MOVED_S : look_s) - turn_s) / 8;
    return moved;
}

/* True when somebody rang. */
static bool sleep_a_little(turns *t, double waited_s) {
    double s = SLEEP_SHARE * waited_s;
    if (!t->begun) { /* another look, for which the bell is listened to */
        t->begun = true;
        return false;
    }
    if (s < SLEEP_LEAST_S) s = SLEEP_LEAST_S;
    if (s < turn_s / CORE_SHARE) s = turn_s / CORE_SHARE;
    if (s > SLEEP_MOST_S) s = SLEEP_MOST_S;
    t->core_s = core_s();
    bool rung = saf__bell_sleep(t->heard, s);
    t->woke_s = core_s();
    t->slept = true;
    return rung;
}

static void stop_turns(turns *t) {
    if (t->begun) saf__bell_ignore();
    t->begun = false;
}

static double waited_s; /* a wait inside of another is a part of it */

double saf__waited_s(void) {
    return waited_s;
}

static saf_status wait_until(const saf_comm *comm, turns *t, saf__poll poll, void *what) {
    double start = 0, now = 0, busy_until = 0, allowed_s = 0, before_s = waited_s;
    uint64_t moved = 0;
    unsigned looks = 0;
    for (;;) {
        bool done = false;
        prepare(t);
        uint64_t now_moved = saf__progress();
        saf__serve();
        saf_status st = poll(what, &done);
        if (st != SAF_OK || done) {
            if (allowed_s > 0) {
                now = saf_clock_s();
                spend(fmin(now - start, allowed_s));
            } else {
                spend_briefly(now - start);
            }
            waited_s = before_s + (now - start);
            return st;
        }
        if (comm->transport->alone) {
            if (now_moved == moved)
                return saf__comm_fail(comm, SAF_DEFECT,
                                      "waits for a message from itself that was never sent");
            moved = now_moved;
            continue;
        }
        now = saf_clock_s();
        if (start == 0) {
            start = now;
            busy_until = start + FREE_S;
            saf__watch_waiting(true);
        }
        if (allowed_s == 0 && now >= start + FREE_S) {
            allowed_s = allowance_s(comm);
            busy_until = start + allowed_s;
        }
        /* MPI moves data only inside its calls: while a large message flows, keep calling. */
        if (moved_data(t)) busy_until = now + POLL_S;
        /* A look at a ring or at a flag moves nothing on for others. */
        if (allowed_s > 0 || ++looks % LOOKS_ALONE == 0) saf__near_progress();
        if (now <= busy_until) {
            stop_turns(t);
            if (comm->crowded) sched_yield();
        } else if (sleep_a_little(t, now - start)) {
            busy_until = saf_clock_s() + RUNG_S;
        }
    }
}

saf_status saf__wait_until(const saf_comm *comm, saf__poll poll, void *what) {
    turns t = {.begun = false};
    saf_status st = wait_until(comm, &t, poll, what);
    stop_turns(&t);
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
    /* What has been started waits for somebody perhaps, and so may what is passed on at the end. */
    saf__bell_ring_all(comm);
    saf_status st = saf__wait_until(comm, poll_ops, &list);
    saf__bell_nudge_all(comm);
    return st != SAF_OK ? st : list.failed;
}
