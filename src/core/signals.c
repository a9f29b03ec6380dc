#include "saf/core_signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_bool stop_asked, speaks;
static atomic_int exit_code = 1;

static struct {
    pthread_mutex_t lock;
    saf_signals_told *told;
    void *ctx;
    double grace_s;
    bool ending;
} end = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const int taken[] = {SIGUSR1, SIGTERM, SIGINT, SIGHUP};
enum { N_TAKEN = sizeof taken / sizeof taken[0] };

static void fill(sigset_t *set) {
    sigemptyset(set);
    for (int i = 0; i < N_TAKEN; i++) sigaddset(set, taken[i]);
}

static const char *name_of(int signal) {
    switch (signal) {
        case SIGTERM:
            return "SIGTERM";
        case SIGINT:
            return "SIGINT";
        case SIGHUP:
            return "SIGHUP";
        default:
            return "a signal";
    }
}

/* Asks the kernel itself: the C library may not have begun. */
void saf_signals_block(void) {
    uint64_t mask = 0;
    for (int i = 0; i < N_TAKEN; i++) mask |= UINT64_C(1) << (taken[i] - 1);
    (void)syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, sizeof mask);
}

void saf_signals_for_child(sigset_t *mask) {
    for (int i = 0; i < N_TAKEN; i++) sigdelset(mask, taken[i]);
}

bool saf_signals_stop_asked(void) {
    return atomic_load_explicit(&stop_asked, memory_order_relaxed);
}

void saf_signals_ask_stop(void) {
    atomic_store_explicit(&stop_asked, true, memory_order_relaxed);
}

void saf_signals_exit_code(int code) {
    atomic_store(&exit_code, code);
}

void saf_signals_speak(void) {
    atomic_store(&speaks, true);
}

void saf_signals_tell(saf_signals_told *told, void *ctx, double grace_s) {
    pthread_mutex_lock(&end.lock);
    end.told = told;
    end.ctx = ctx;
    end.grace_s = grace_s;
    pthread_mutex_unlock(&end.lock);
}

/* Neither exit handlers nor the others' memory: other threads are in the middle of something. */
static void end_now(void) {
    _exit(atomic_load(&exit_code));
}

/* Whoever is told has its time, unless a second signal cuts it short. */
static void end_process(const sigset_t *set, int signal) {
    pthread_mutex_lock(&end.lock);
    double grace_s = end.told ? end.grace_s : 0;
    if (end.told)
        end.told(end.ctx, name_of(signal));
    else if (atomic_load(&speaks))
        saf_log(SAF_LOG_ERROR, "ended by %s", name_of(signal));
    pthread_mutex_unlock(&end.lock);
    double until = saf_clock_s() + grace_s;
    for (;;) {
        double left = until - saf_clock_s();
        if (left <= 0) break;
        struct timespec wait = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        int next = sigtimedwait(set, NULL, &wait);
        if (next == SIGTERM || next == SIGINT || next == SIGHUP) break;
    }
    end_now();
}

static void *take(void *unused) {
    (void)unused;
    sigset_t set;
    fill(&set);
    for (;;) {
        int signal = 0;
        if (sigwait(&set, &signal) != 0) continue;
        if (signal == SIGUSR1)
            saf_signals_ask_stop();
        else
            end_process(&set, signal);
    }
    return NULL;
}

saf_status saf_signals_start(void) {
    pthread_t thread;
    sigset_t all, mine;
    saf_signals_block();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mine);
    bool begun = pthread_create(&thread, NULL, take, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &mine, NULL);
    if (!begun) return saf_fail(SAF_NO_MEMORY, "the thread that takes signals does not start");
    pthread_detach(thread);
    return SAF_OK;
}
