/* The watchdog: notices a rank that is stopped, hangs, or cannot be reached, which MPI never does.
 *
 * Every rank hears from the next one (the last from rank 0): a beat, eight times within the
 * watchdog's time. Beats are sent and taken by the thread that may call MPI, when it waits, tests a
 * message or calls saf_comm_progress, so a rank that is stopped sends none. Then the rank before it
 * ends the job. Only one rank listens to each, so that one message tells of it.
 *
 * A thread counts ticks. It sets a flag when there is something to do, so that nothing else than
 * reading that flag is added to a wait or a test; and it ends the job by itself when this rank
 * hangs, in a loop or in a system call: sooner than the rank before notices, and with the reason
 * known.
 *
 * All times are counted in own ticks and not read from a clock: a job that is suspended as a whole
 * and goes on an hour later has heard nothing for an hour, and nothing is wrong with it. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "comm/transport.h"

enum {
    BEATS = 8,          /* within the watchdog's time */
    START_LEAST_S = 20, /* MPI takes its time to start many ranks, or on a busy machine */
    GRANULES = 16,      /* ticks of a short time; a tick of a longer one is a second */
    HOST_BYTES = 256
};

typedef struct {
    int32_t over;  /* no more beats will come */
    int32_t still; /* ticks since something moved on any rank that the sender has heard of */
} beat;

static struct {
    saf_comm *world; /* NULL: MPI has not begun */
    saf_comm *comm;  /* its own context over the world; NULL: no beats */
    int rank;
    char host[HOST_BYTES];
    double start_s; /* the time for the start; 0: nobody watches it */
    double seconds, tick_s;
    int32_t limit, every; /* ticks: the watchdog's time, between two beats */
    /* the rank that is listened to */
    int next;
    char next_host[HOST_BYTES];
    saf__op hears;
    beat heard;
    int32_t silent; /* answers of this rank since it was heard: what counts is being able to hear */
    int32_t next_still; /* what it said, and how long ago */
    int64_t heard_tick;
    bool next_over, leaving; /* the last beat was heard, was told */
    /* the rank that listens */
    saf__op tells;
    beat told;
    int64_t told_tick;
    /* the thread */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool started, stop;
} w = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_bool due;            /* a tick has passed that nobody has looked at */
static atomic_bool waiting;        /* for another rank, and able to answer */
static atomic_uint_fast64_t moved; /* grows whenever this rank gets on */
static atomic_int_fast64_t ticks;
static atomic_bool beating; /* beats have begun: others may notice as well */
static atomic_int still;    /* ticks since `moved` grew */
static _Atomic(const char *) inside, phase = "starting";

/* ---- the end -----------------------------------------------------------------------------------
 */

static void bark(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void bark(const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    saf_log(SAF_LOG_ERROR, "%s", text);
    if (w.world) saf_comm_abort(w.world, saf_status_exit_code(SAF_WATCHDOG));
    fflush(NULL);
    _exit(saf_status_exit_code(SAF_WATCHDOG)); /* for which the launcher ends the others */
}

static const char *phase_now(void) {
    return atomic_load_explicit(&phase, memory_order_relaxed);
}

/* ---- the thread
 * ---------------------------------------------------------------------------------- */

/* Inside MPI nobody answers, so no rank knows which one does not come, and all of them wait for as
 * long. Rank 0 says so, the next ones only if it does not. */
static int32_t turn_to_say(void) {
    return (int32_t)((double)saf_i64_min(w.rank, 2) * 2 / w.tick_s);
}

static void check_myself(void) {
    const char *call = atomic_load_explicit(&inside, memory_order_relaxed);
    bool waits = atomic_load_explicit(&waiting, memory_order_relaxed);
    int n = atomic_load_explicit(&still, memory_order_relaxed), times = 2;
    if (!atomic_load_explicit(&beating, memory_order_relaxed)) {
        times = 1;
        if (waits && !call) call = "the first meeting";
    }
    if (call && n >= times * w.limit + turn_to_say())
        bark(
            "rank %d on %s has waited in %s for %g seconds, while %s: another rank does not come "
            "(watchdog)",
            w.rank, w.host, call, times * w.seconds, phase_now());
    if (!call && !waits && n >= w.limit)
        bark("rank %d on %s hangs: it has not got on for %g seconds, while %s (watchdog)", w.rank,
             w.host, w.seconds, phase_now());
}

static void count_tick(uint_fast64_t *seen) {
    uint_fast64_t now = atomic_load_explicit(&moved, memory_order_relaxed);
    atomic_fetch_add_explicit(&ticks, 1, memory_order_relaxed);
    if (now != *seen)
        atomic_store_explicit(&still, 0, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&still, 1, memory_order_relaxed);
    *seen = now;
    atomic_store_explicit(&due, true, memory_order_relaxed);
    check_myself();
}

static void *watch(void *unused) {
    (void)unused;
    uint_fast64_t seen = 0;
    pthread_mutex_lock(&w.lock);
    while (!w.stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t ns = until.tv_nsec + (int64_t)(w.tick_s * 1e9);
        until.tv_sec += ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        /* A tick at each waking: also the first after a stop, however long it was. */
        (void)pthread_cond_timedwait(&w.wake, &w.lock, &until);
        if (!w.stop) count_tick(&seen);
    }
    pthread_mutex_unlock(&w.lock);
    return NULL;
}

static saf_status start_thread(void) {
    pthread_condattr_t attributes;
    sigset_t all, before;
    bool begun = pthread_condattr_init(&attributes) == 0;
    if (begun) {
        begun = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                pthread_cond_init(&w.wake, &attributes) == 0;
        pthread_condattr_destroy(&attributes);
    }
    if (!begun) goto out;
    w.stop = false;
    sigfillset(&all); /* signals go to the threads that were here before */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    begun = w.started = pthread_create(&w.thread, NULL, watch, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!begun) pthread_cond_destroy(&w.wake);
out:
    return begun ? SAF_OK : saf_fail(SAF_NO_MEMORY, "the thread of the watchdog does not start");
}

static void stop_thread(void) {
    pthread_mutex_lock(&w.lock);
    w.stop = true;
    pthread_cond_signal(&w.wake);
    pthread_mutex_unlock(&w.lock);
    pthread_join(w.thread, NULL);
    pthread_cond_destroy(&w.wake);
    atomic_store_explicit(&due, false, memory_order_relaxed);
}

/* ---- beats -------------------------------------------------------------------------------------
 */

static saf_status listen(void) {
    return w.comm->transport->irecv(w.comm, w.next, SAF__TAG_WATCH, &w.heard, sizeof w.heard,
                                    &w.hears);
}

static saf_status tell(bool over, int32_t still_ticks) {
    int before = (w.comm->rank + w.comm->size - 1) % w.comm->size;
    w.told = (beat){.over = over, .still = still_ticks};
    return w.comm->transport->isend(w.comm, before, SAF__TAG_WATCH, &w.told, sizeof w.told,
                                    &w.tells);
}

/* Takes what has come. */
static saf_status hear(int64_t now) {
    saf_status st = SAF_OK;
    size_t got;
    while (!w.next_over) {
        bool done = false;
        SAF_TRY(w.comm->transport->test(w.comm, &w.hears, &done, &got));
        if (!done) break;
        w.silent = 0;
        w.next_still = w.heard.still;
        w.heard_tick = now;
        w.next_over = w.heard.over != 0;
        if (!w.next_over) SAF_TRY(listen());
    }
out:
    return st;
}

/* Ticks since something moved anywhere, as far as this rank has heard: news goes from rank to rank
 * with the beats, all the way round. */
static int32_t still_everywhere(int64_t now) {
    int64_t mine = atomic_load_explicit(&still, memory_order_relaxed);
    int64_t others = w.next_still + (now - w.heard_tick);
    return (int32_t)saf_i64_min(INT32_MAX, saf_i64_min(mine, others));
}

static saf_status beat_again(int64_t now) {
    saf_status st = SAF_OK;
    bool done = true;
    size_t got;
    if (w.leaving || now - w.told_tick < w.every) return SAF_OK;
    SAF_TRY(w.comm->transport->test(w.comm, &w.tells, &done, &got));
    if (!done) goto out;
    w.told_tick = now;
    st = tell(false, still_everywhere(now));
out:
    return st;
}

/* A rank that hangs has the time of the watchdog to say so itself, and a little more. */
static void judge(int64_t now) {
    if (!w.next_over && w.silent >= w.limit + w.limit / 4 + 2)
        bark(
            "rank %d on %s has not answered for %g seconds, while %s: it is stopped or out of "
            "reach "
            "(watchdog)",
            w.next, w.next_host, w.seconds, phase_now());
    int64_t round = 2 * (int64_t)w.every * w.comm->size;
    if (w.comm->rank == 0 && still_everywhere(now) >= 2 * w.limit + round)
        bark(
            "all %d ranks have waited for each other for %g seconds, while %s: a defect in saf "
            "(watchdog)",
            w.comm->size, 2 * w.seconds, phase_now());
}

void saf__watch_answer(void) {
    if (!atomic_load_explicit(&due, memory_order_relaxed) || !w.comm) return;
    atomic_store_explicit(&due, false, memory_order_relaxed);
    int64_t now = atomic_load_explicit(&ticks, memory_order_relaxed);
    w.silent++;
    /* A connection that has failed is one that nothing is heard over. */
    if (hear(now) == SAF_OK) (void)beat_again(now);
    judge(now);
}

void saf__watch_moved(void) {
    uint_fast64_t n = atomic_load_explicit(&moved, memory_order_relaxed);
    atomic_store_explicit(&moved, n + 1, memory_order_relaxed);
}

void saf__watch_waiting(bool is) {
    atomic_store_explicit(&waiting, is, memory_order_relaxed);
}

void saf__watch_inside(const char *call) {
    if (!call) saf__watch_moved();
    atomic_store_explicit(&inside, call, memory_order_relaxed);
}

void saf_comm_watch_phase(const char *name) {
    saf__watch_moved();
    atomic_store_explicit(&phase, name, memory_order_relaxed);
}

/* ---- beginning and end -------------------------------------------------------------------------
 */

/* The name of the next rank's host. */
static saf_status meet_neighbours(saf_comm *c) {
    saf_status st = SAF_OK;
    saf__op ops[2] = {{0}, {0}};
    char mine[HOST_BYTES];
    int before = (c->rank + c->size - 1) % c->size;
    _Static_assert(sizeof mine == sizeof c->host, "a whole name is sent");
    memcpy(mine, c->host, sizeof mine);
    w.next = (c->rank + 1) % c->size;
    SAF_TRY(c->transport->irecv(c, w.next, SAF__TAG_WATCH, w.next_host, HOST_BYTES, &ops[0]));
    SAF_TRY(c->transport->isend(c, before, SAF__TAG_WATCH, mine, HOST_BYTES, &ops[1]));
    SAF_TRY(saf__wait_ops(c, ops, 2));
    w.next_host[HOST_BYTES - 1] = 0;
out:
    return st;
}

static void set_times(double seconds) {
    w.seconds = seconds;
    w.tick_s = seconds < GRANULES ? seconds / GRANULES : 1;
    w.limit = (int32_t)(seconds / w.tick_s + 0.5);
    w.every = w.limit / BEATS;
}

/* Nothing has been heard or told yet, in ticks of the time that holds now. */
static void begin(double seconds) {
    if (w.started) pthread_mutex_lock(&w.lock);
    set_times(seconds);
    w.silent = w.next_still = 0;
    w.heard_tick = atomic_load_explicit(&ticks, memory_order_relaxed);
    w.told_tick = w.heard_tick - w.every;
    saf__watch_moved();
    atomic_store_explicit(&still, 0, memory_order_relaxed);
    if (!w.started) return;
    pthread_cond_signal(&w.wake);
    pthread_mutex_unlock(&w.lock);
}

/* The thread that watched the start runs, and names this rank where it ends the job. */
static void set_world(saf_comm *world) {
    if (w.started) pthread_mutex_lock(&w.lock);
    w.world = world;
    w.rank = world->rank;
    snprintf(w.host, sizeof w.host, "%s", world->host);
    if (w.started) pthread_mutex_unlock(&w.lock);
}

/* The time until beats have begun. */
static double start_s(double seconds) {
    return seconds < START_LEAST_S ? START_LEAST_S : seconds;
}

void saf_comm_watch_start(double seconds) {
    w.start_s = seconds;
}

saf_status saf__watch_launch(const char *host) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "MV2_COMM_WORLD_RANK"};
    const char *rank = NULL;
    if (w.start_s <= 0) return SAF_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !rank; i++) rank = getenv(names[i]);
    w.rank = rank ? (int)strtol(rank, NULL, 10) : 0;
    snprintf(w.host, sizeof w.host, "%s", host);
    atomic_store_explicit(&phase, "starting", memory_order_relaxed);
    atomic_store_explicit(&beating, false, memory_order_relaxed);
    begin(start_s(w.start_s));
    saf__watch_inside("MPI_Init");
    return start_thread();
}

saf_status saf__watch_launched(saf_comm *world) {
    double seconds = w.start_s;
    saf__watch_inside(NULL);
    w.start_s = 0;
    return seconds > 0 ? saf_comm_watch(world, seconds) : SAF_OK;
}

saf_status saf_comm_watch(saf_comm *world, double seconds) {
    saf_status st = SAF_OK;
    saf_comm *comm = NULL;
    if (w.comm && seconds > 0) { /* no moment without */
        begin(seconds);
        return SAF_OK;
    }
    saf__watch_leave();
    if (seconds <= 0 || world->size == 1) {
        saf__watch_stop();
        return SAF_OK;
    }
    set_world(world);
    w.next_over = w.leaving = false;
    atomic_store_explicit(&beating, false, memory_order_relaxed);
    begin(start_s(seconds));
    SAF_TRY(saf__agree(world, w.started ? SAF_OK : start_thread()));
    SAF_TRY(saf_comm_dup(world, &comm));
    SAF_TRY(meet_neighbours(comm));
    begin(seconds);
    w.comm = comm;
    comm = NULL;
    SAF_TRY(listen());
    atomic_store_explicit(&beating, true, memory_order_relaxed);
    saf_alive_calls(saf_comm_progress);
out:
    if (st != SAF_OK) {
        saf_comm_free(&comm);
        saf_comm_free(&w.comm);
        saf__watch_stop();
    }
    return st;
}

/* The last beats have been sent and taken. */
static saf_status is_over(void *unused, bool *done) {
    saf_status st = SAF_OK;
    bool sent = false;
    size_t got;
    (void)unused;
    SAF_TRY(hear(atomic_load_explicit(&ticks, memory_order_relaxed)));
    SAF_TRY(w.comm->transport->test(w.comm, &w.tells, &sent, &got));
    if (sent && !w.leaving) {
        w.leaving = true;
        SAF_TRY(tell(true, 0));
        sent = false;
    }
    *done = sent && w.next_over;
out:
    return st;
}

void saf__watch_leave(void) {
    if (!w.comm) return;
    (void)saf__wait_until(w.comm, is_over, NULL); /* after an error there is nobody to hear */
    saf_comm_free(&w.comm);
}

void saf__watch_stop(void) {
    if (w.started) stop_thread();
    w.started = false;
    saf_alive_calls(NULL);
    w.world = NULL;
}
