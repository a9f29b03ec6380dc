#include "job/saver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "job/state.h"
#include "saf/core_signals.h"

/* Of the time until the next checkpoint, one may cost a fiftieth; a process that is told to end has
 * half a second, for after a second a launcher kills it; a rank beside lasts a little longer, lest
 * its end bring the launcher to end rank 0. */
enum { COST_SHARE = 50 };
static const double grace_s = 0.5, grace_beside_s = 0.7;

struct saf__saver {
    saf__session *s;
    pthread_mutex_t state; /* what events change of the requests, and the time they waited for it */
    double stalled_s;
    /* the thread */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    bool started, quit, flush, anyway, busy, writing_results;
    const char *signal; /* the process is to end: by this */
    saf_status flushed;
    double next_s;          /* the next checkpoint is due */
    double warned_s;        /* it last said that it could not write */
    _Atomic(double) took_s; /* the last one, from beginning to end */
    int64_t written;
    int64_t done_then, tokens_then; /* what the newest checkpoint holds */
};

/* ---- the state ---- */

void saf__state_lock(saf__session *s) {
    struct saf__saver *v = s->saver;
    if (!v || pthread_mutex_trylock(&v->state) == 0) return;
    double start = saf_clock_s();
    pthread_mutex_lock(&v->state);
    v->stalled_s += saf_clock_s() - start;
}

double saf__saver_took_s(saf__session *s) {
    return s->saver ? atomic_load_explicit(&s->saver->took_s, memory_order_relaxed) : 0;
}

void saf__state_unlock(saf__session *s) {
    if (s->saver) pthread_mutex_unlock(&s->saver->state);
}

/* ---- the thread ---- */

/* What checkpoints have cost the computing so far: the time it waited, and that of a core that it
 * could have used. */
static double cost_s(struct saf__saver *v) {
    struct timespec t = {0, 0};
    clockid_t clock;
    if (pthread_getcpuclockid(v->thread, &clock) == 0) clock_gettime(clock, &t);
    pthread_mutex_lock(&v->state);
    double stalled = v->stalled_s;
    pthread_mutex_unlock(&v->state);
    return stalled + (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A checkpoint of what there is, if it is more than the newest holds, or anyway. */
static saf_status save(struct saf__saver *v, bool anyway) {
    saf__state state;
    pthread_mutex_lock(&v->state);
    saf_status st = saf__kept_take(v->s, &state);
    pthread_mutex_unlock(&v->state);
    if (st != SAF_OK) return st;
    bool news = anyway || state.head.done != v->done_then || state.head.tokens != v->tokens_then;
    if (news) {
        st = saf__kept_write(v->s, &state);
        if (st == SAF_OK) {
            v->written++;
            v->done_then = state.head.done;
            v->tokens_then = state.head.tokens;
            saf_signals_exit_code(saf_status_exit_code(SAF_STOPPED));
        }
    }
    saf__kept_free(&state);
    return st;
}

static void save_at_interval(struct saf__saver *v) {
    double before = cost_s(v), start = saf_clock_s(), every = v->s->job->checkpoint.every_seconds;
    saf_status st = save(v, false);
    double now = saf_clock_s(), stretched = COST_SHARE * (cost_s(v) - before);
    v->next_s = now + (stretched > every ? stretched : every);
    atomic_store_explicit(&v->took_s, now - start, memory_order_relaxed);
    if (st == SAF_OK || (v->warned_s > 0 && now - v->warned_s < 600)) return;
    v->warned_s = now;
    saf_log(SAF_LOG_WARNING, "no checkpoint: %s", saf_error_text());
}

/* The process ends here, whatever the other threads are doing. */
static void end_process(struct saf__saver *v) {
    saf__session *s = v->s;
    char part[4096];
    saf_status st = v->writing_results && s->work.logits ? SAF_OK : save(v, false);
    if (st != SAF_OK) saf_log(SAF_LOG_ERROR, "no checkpoint: %s", saf_error_text());
    if (v->written > 0 || s->results.resumes > 0)
        saf_log(SAF_LOG_INFO,
                "ended by %s at %lld of %d requests, %lld tokens; the same command goes on",
                v->signal, (long long)v->done_then, s->n_live, (long long)v->tokens_then);
    else
        saf_log(SAF_LOG_INFO, "ended by %s before there was anything to keep", v->signal);
    snprintf(part, sizeof part, "%s.part", s->job->output.file);
    (void)unlink(part); /* the results that will not be */
    _exit(
        saf_status_exit_code(v->written > 0 || s->results.resumes > 0 ? SAF_STOPPED : SAF_FAILED));
}

/* With v->lock. */
static void wait_for_work(struct saf__saver *v) {
    if (!(v->next_s > 0) || v->writing_results) {
        pthread_cond_wait(&v->wake, &v->lock);
        return;
    }
    struct timespec until = {(time_t)v->next_s,
                             (long)((v->next_s - (double)(time_t)v->next_s) * 1e9)};
    (void)pthread_cond_timedwait(&v->wake, &v->lock, &until);
}

static void *work(void *ctx) {
    struct saf__saver *v = ctx;
    pthread_mutex_lock(&v->lock);
    while (!v->quit) {
        bool due = v->next_s > 0 && !v->writing_results && saf_clock_s() >= v->next_s;
        if (!v->signal && !v->flush && !due) {
            wait_for_work(v);
            continue;
        }
        bool flush = v->flush, anyway = v->anyway, end = v->signal != NULL;
        v->busy = true;
        pthread_mutex_unlock(&v->lock);
        saf_status st = SAF_OK;
        if (end)
            end_process(v);
        else if (flush)
            st = save(v, anyway);
        else
            save_at_interval(v);
        pthread_mutex_lock(&v->lock);
        v->busy = false;
        if (flush) {
            v->flushed = st;
            v->flush = false;
        }
        pthread_cond_signal(&v->done);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

/* ---- the others ---- */

/* By the thread that takes signals. */
static void told(void *ctx, const char *name) {
    struct saf__saver *v = ctx;
    pthread_mutex_lock(&v->lock);
    v->signal = name;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

static void told_beside(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
}

static bool make_conditions(struct saf__saver *v) {
    pthread_condattr_t clock;
    if (pthread_condattr_init(&clock) != 0) return false;
    bool good = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) == 0 &&
                pthread_cond_init(&v->wake, &clock) == 0;
    if (good && pthread_cond_init(&v->done, &clock) != 0) {
        pthread_cond_destroy(&v->wake);
        good = false;
    }
    pthread_condattr_destroy(&clock);
    return good;
}

saf_status saf__saver_begin(saf__session *s) {
    saf_status st = SAF_OK;
    struct saf__saver *v = NULL;
    double every;
    if (s->rank != 0) {
        saf_signals_tell(told_beside, NULL, grace_beside_s);
        return SAF_OK;
    }
    every = s->job->checkpoint.every_seconds;
    SAF_TRY(saf_alloc(1, sizeof *v, &v));
    v->s = s;
    v->done_then = s->finished;
    v->tokens_then = s->before_tokens;
    if (every > 0) v->next_s = saf_clock_s() + every;
    pthread_mutex_init(&v->state, NULL);
    pthread_mutex_init(&v->lock, NULL);
    bool begun = make_conditions(v);
    v->started = begun && pthread_create(&v->thread, NULL, work, v) == 0;
    if (!v->started) {
        if (begun) {
            pthread_cond_destroy(&v->wake);
            pthread_cond_destroy(&v->done);
        }
        saf_free(&v);
        return saf_fail(SAF_NO_MEMORY, "the thread that writes checkpoints does not start");
    }
    s->saver = v;
    saf_signals_tell(told, v, grace_s);
out:
    return st;
}

/* With v->lock: until the thread has nothing to do. The other ranks wait meanwhile, and see that
 * this one gets on. */
static void wait_idle(struct saf__saver *v) {
    while (v->flush || v->busy) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 100000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        (void)pthread_cond_timedwait(&v->done, &v->lock, &until);
        saf_alive();
    }
}

void saf__saver_results(saf__session *s) {
    struct saf__saver *v = s->saver;
    if (!v) return;
    pthread_mutex_lock(&v->lock);
    v->writing_results = true;
    wait_idle(v);
    pthread_mutex_unlock(&v->lock);
    s->results.checkpoints = v->written;
    s->results.checkpoint_s = cost_s(v);
}

saf_status saf__saver_flush(saf__session *s, bool anyway) {
    struct saf__saver *v = s->saver;
    if (!v) return SAF_OK;
    pthread_mutex_lock(&v->lock);
    v->flush = true;
    v->anyway = anyway;
    pthread_cond_signal(&v->wake);
    wait_idle(v);
    saf_status st = v->flushed;
    pthread_mutex_unlock(&v->lock);
    return st;
}

void saf__saver_end(saf__session *s) {
    struct saf__saver *v = s->saver;
    if (!v) {
        if (s->rank != 0) saf_signals_tell(NULL, NULL, 0);
        return;
    }
    pthread_mutex_lock(&v->lock);
    v->quit = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
    pthread_join(v->thread, NULL);
    saf_signals_tell(NULL, NULL, 0);
    pthread_cond_destroy(&v->wake);
    pthread_cond_destroy(&v->done);
    pthread_mutex_destroy(&v->state);
    pthread_mutex_destroy(&v->lock);
    s->saver = NULL;
    saf_free(&v);
}
