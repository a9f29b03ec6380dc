/* Jobs that go in steps: checkpoints between them, a stop, a beginning after one. */
#include "job/steps.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "job/saver.h"
#include "saf/core_signals.h"

/* How often ranks agree whether to stop or to write a checkpoint: the steps between take so long.
 * A process that is told to end has a second until a launcher kills it. */
static const double agree_s = 0.25, grace_s = 0.9, grace_alone_s = 10;
enum { COST_SHARE = 50 }; /* of the time until the next checkpoint, one may cost this part */
enum { GO_ON = 0, KEEP = 1, STOP = 2 };

/* ---- what an earlier run left, rank 0 ----------------------------------------------------------
 */

static saf_status go_on(saf__steps *s, saf_checkpoint **c) {
    saf_status st = SAF_OK;
    const saf_checkpoint_head *head = saf_checkpoint_head_of(*c);
    SAF_TRY(saf_strdup(head->start_time, &s->results->start_time));
    s->before_s = head->seconds;
    s->results->resumes = head->resumes + 1;
    saf_signals_exit_code(saf_status_exit_code(SAF_STOPPED));
    if (!s->options->quiet)
        saf_log(SAF_LOG_INFO, "goes on from %s: %lld of %lld %s done", saf_checkpoint_path(*c),
                (long long)head->done, (long long)head->total, s->unit);
    s->restored = *c;
    s->goes_on = true;
    *c = NULL;
out:
    return st;
}

static saf_status look(saf__steps *s) {
    saf_status st = SAF_OK;
    const char *file = s->job->output.file;
    saf_results r = {0};
    saf_checkpoint *c = NULL;
    if (s->options->fresh) return SAF_OK;
    bool exists = access(file, F_OK) == 0;
    if (exists) SAF_TRY(saf__results_read(file, &r));
    if (exists && saf__results_check(&s->results->identity, &r, file) == SAF_OK) {
        /* What is gone of its output is made again. */
        s->over = s->is_there(s->ctx);
        if (s->over)
            saf_log(SAF_LOG_INFO,
                    "%s has the results of this job: nothing to compute (--fresh starts over)",
                    file);
        if (s->over) goto out;
    }
    SAF_TRY(saf_checkpoint_open_newest(file, &c));
    /* A checkpoint of this job beside results of another: those were to be replaced. */
    if (c) {
        st = saf_identity_check(&s->results->identity, &saf_checkpoint_head_of(c)->identity,
                                saf_checkpoint_path(c));
        if (st == SAF_OK) st = go_on(s, &c);
        if (st != SAF_BAD_INPUT || !exists) goto out;
    }
    st = SAF_OK;
    if (exists && !s->replaces) st = saf__results_check(&s->results->identity, &r, file);
out:
    saf_checkpoint_free(&c);
    saf_results_free(&r);
    return st;
}

saf_status saf__steps_again(saf__steps *s) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? look(s) : SAF_OK));
    int32_t words[2] = {s->over, s->goes_on};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, words, 2);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    s->over = words[0] != 0;
    s->goes_on = words[1] != 0;
out:
    return st;
}

/* ---- checkpoints and stopping ------------------------------------------------------------------
 */

static void told(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
    saf_signals_ask_stop();
}

static double cost_s(const saf__steps *s) {
    return s->took_s > 0 ? s->took_s : s->guess_s;
}

/* Rank 0: what all do now. */
static int32_t decide(saf__steps *s, bool asked) {
    double now = saf_clock_s();
    s->longest_s = fmax(s->longest_s, now - s->asked_s);
    double spare = s->stop.limit_s / 10 < 10 ? s->stop.limit_s / 10 : 10;
    double margin = spare + (s->took_s > 0 ? 3 : 1) * cost_s(s) + 2 * s->longest_s;
    if (asked || (s->stop.at_s > 0 && s->stop.at_s - now < margin)) return STOP;
    return s->next_s > 0 && now >= s->next_s ? KEEP : GO_ON;
}

/* Who wants one more often than every second has the first one when it is due. */
static void plan_next(saf__steps *s) {
    double every = s->job->checkpoint.every_seconds;
    double stretched = s->took_s > 0 || every >= 1 ? COST_SHARE * cost_s(s) : 0;
    if (every > 0) s->next_s = saf_clock_s() + (stretched > every ? stretched : every);
}

saf_status saf__steps_keep(saf__steps *s) {
    saf_status st = SAF_OK, written = SAF_OK;
    double start = saf_clock_s();
    saf_comm_watch_phase("writing a checkpoint");
    SAF_TRY(s->write(s->ctx, &written));
    SAF_TRY(saf_comm_agree(s->world, written));
    if (s->rank == 0) s->written++;
    saf_signals_exit_code(saf_status_exit_code(SAF_STOPPED));
out:
    s->took_s = saf_clock_s() - start;
    s->stalled_s += s->took_s;
    saf_comm_watch_phase("running");
    return st;
}

static saf_status keep_now(saf__steps *s) {
    saf_status st = saf__steps_keep(s);
    plan_next(s);
    if (st != SAF_IO && st != SAF_CANNOT_CREATE) return st;
    /* Everybody's, and no reason to end. */
    if (s->rank == 0) saf_log(SAF_LOG_WARNING, "no checkpoint: %s", saf_error_text());
    return SAF_OK;
}

saf_status saf__steps_stop(saf__steps *s, bool asked) {
    saf_status st = SAF_OK;
    saf_buf place = {0};
    SAF_TRY(saf__steps_keep(s));
    SAF_TRY(saf_comm_agree(s->world, s->place(s->ctx, &place)));
    st = saf_fail(SAF_STOPPED, "stopped %s %s; %s.ckpt-*: the same command goes on",
                  asked || saf_signals_stop_asked() ? "as asked" : "in time", place.data,
                  s->job->output.file);
out:
    saf_buf_free(&place);
    return st;
}

void saf__steps_begin(saf__steps *s) {
    double given_s = s->options->start_s;
    s->run_start_s = saf_clock_s();
    s->asked_s = s->run_start_s;
    s->log_after_s = 5;
    saf_comm_watch_phase("running");
    saf_signals_tell(told, NULL, saf_comm_size(s->world) > 1 ? grace_s : grace_alone_s);
    if (s->rank != 0) return;
    saf__stop_limit(s->job, given_s > 0 ? given_s : s->start_s, &s->stop);
    plan_next(s);
}

saf_status saf__steps_between(saf__steps *s, double each_s, int32_t *steps) {
    saf_status st = SAF_OK;
    int32_t asked = saf_signals_stop_asked(), words[2] = {GO_ON, 1};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &asked, 1);
    SAF_TRY(saf_comm_allreduce(s->world, SAF_OP_MAX, &t));
    if (s->rank == 0) {
        double n = each_s > 0 ? agree_s / each_s : 1000;
        words[0] = decide(s, asked != 0);
        words[1] = n < 1 ? 1 : n > 1000 ? 1000 : (int32_t)n;
    }
    saf_tensor u = saf_tensor_1d(SAF_DTYPE_I32, words, 2);
    SAF_TRY(saf_comm_bcast(s->world, 0, &u));
    *steps = words[1];
    if (words[0] == STOP) return saf__steps_stop(s, false);
    if (words[0] == KEEP) st = keep_now(s);
    s->asked_s = saf_clock_s();
out:
    return st;
}

bool saf__steps_speak(saf__steps *s) {
    double seconds = saf_clock_s() - s->run_start_s;
    if (s->rank != 0 || s->options->quiet || seconds < s->log_after_s) return false;
    s->log_after_s = seconds + (seconds < 600 ? seconds : 600);
    return true;
}

void saf__steps_end(saf__steps *s) {
    saf_signals_tell(NULL, NULL, 0);
    saf_checkpoint_free(&s->restored);
}

/* ---- what is told of it ------------------------------------------------------------------------
 */

double saf__steps_run_s(const saf__steps *s) {
    return s->before_s + saf_clock_s() - s->run_start_s;
}

saf_status saf__steps_create(const saf__steps *s, int64_t done, int64_t total, int64_t tokens,
                             saf_checkpoint_writer **out) {
    char version[] = SAF_VERSION, now[32], kind[16];
    snprintf(kind, sizeof kind, "%s", saf_job_kind_name(s->job->kind));
    saf_clock_iso8601(now);
    const saf_checkpoint_head head = {.kind = kind,
                                      .version = version,
                                      .start_time = s->results->start_time,
                                      .written = now,
                                      .done = done,
                                      .total = total,
                                      .tokens = tokens,
                                      .seconds = saf__steps_run_s(s),
                                      .resumes = (int32_t)s->results->resumes,
                                      .identity = s->results->identity};
    return saf_checkpoint_create(s->job->output.file, &head, out);
}

void saf__steps_fill(const saf__steps *s) {
    s->results->checkpoints = s->written;
    s->results->checkpoint_s = s->stalled_s;
}

void saf__steps_say(const saf__steps *s) {
    double run_s = s->results->run_s - s->before_s;
    if (s->rank != 0 || s->options->quiet || s->written == 0) return;
    saf_log(SAF_LOG_INFO, "checkpoints: %lld written, %.2f %% of the run", (long long)s->written,
            run_s > 0 ? 100 * s->stalled_s / run_s : 0);
}
