/* A job over the ranks: open, load, run, write. Every phase ends in an agreement, so that one
 * rank's failure is everybody's before anyone goes on. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "job/caches.h"
#include "job/matmul/matmul.h"
#include "job/saver.h"
#include "job/state.h"
#include "job/train/train.h"
#include "saf/core_signals.h"

/* mpirun gives its ranks a pipe and passes on what they say: then its own standard error counts. */
static bool stderr_is_terminal(int ranks) {
    char path[32], name[16] = "";
    struct stat st;
    if (isatty(STDERR_FILENO)) return true;
    if (ranks == 1 || fstat(STDERR_FILENO, &st) != 0 || !S_ISFIFO(st.st_mode)) return false;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getppid(), STDERR_FILENO);
    return readlink(path, name, sizeof name - 1) > 0 &&
           (strncmp(name, "/dev/pts/", 9) == 0 || strncmp(name, "/dev/tty", 8) == 0);
}

static saf_status open_results(saf__session *s) {
    saf_status st = SAF_OK;
    char now[32];
    saf_clock_iso8601(now);
    if (!s->results.start_time) SAF_TRY(saf_strdup(now, &s->results.start_time));
    SAF_TRY(saf_results_create(s->job->output.file, &s->writer));
    if (s->restored) SAF_TRY(saf__kept_restore_logits(s, s->restored));
    saf_checkpoint_free(&s->restored);
    s->stream = !s->options->quiet && !s->work.score && s->n_live == 1;
    s->watched = !s->options->quiet && stderr_is_terminal(s->ranks);
    s->progress = s->watched && !s->stream;
out:
    return st;
}

/* Everybody knows whether the run was stopped before it was over; rank 0 says where it stands. */
static saf_status stop(saf__session *s) {
    saf_status st = SAF_OK;
    int32_t stopped = s->times.stopped && s->finished < s->n_live;
    bool caches = false;
    char *written = NULL;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &stopped, 1);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    if (!stopped) return SAF_OK;
    saf_comm_watch_phase("writing a checkpoint");
    SAF_TRY(saf__caches_gather(s, &caches));
    SAF_TRY(saf_comm_agree(s->world, saf__saver_flush(s, caches)));
    SAF_TRY(saf__caches_save(s));
    if (s->rank == 0) SAF_TRY(saf_checkpoint_newest(s->job->output.file, &written));
    st = saf_fail(SAF_STOPPED,
                  "stopped%s at %lld of %d requests, %lld tokens in this run; %s: "
                  "the same command goes on",
                  saf_signals_stop_asked() ? " as asked" : " in time", (long long)s->finished,
                  s->n_live, (long long)s->sampled_tokens, written ? written : "");
out:
    saf_free(&written);
    return st;
}

static saf_status compute(saf__session *s) {
    saf_status st = SAF_OK;
    saf_engine_events events = {0};
    if (!s->head)
        events = (saf_engine_events){.ctx = s, .restore = saf__caches_restore};
    else
        events = s->work.score ? saf__score_events(s) : saf__generate_events(s);
    saf_comm_watch_phase("running");
    s->run_start_s = saf_clock_s();
    s->log_after_s = 5;
    SAF_TRY(saf_comm_agree(s->world, saf__saver_begin(s)));
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? saf__generate_begin(s) : SAF_OK));
    st = saf_engine_run(s->group, s->stage, &events, s->trace, &s->times);
    if (s->times.apart && s->ranks > 1) {
        saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
        saf_comm_abort(s->world, saf_status_exit_code(st));
    }
    if (st == SAF_OK) st = s->status;
    s->results.run_s = s->before_s + saf_clock_s() - s->run_start_s;
    saf__caches_close(s);
    if (s->rank == 0) saf__progress_draw(s, true);
    SAF_TRY(saf_comm_agree(s->world, st));
    st = stop(s);
out:
    return st;
}

/* Of all slices: what is held twice counts twice. */
static size_t model_bytes(const saf__session *s) {
    size_t sum = 0, replicated;
    for (int r = 0; r < s->ranks; r++)
        sum +=
            saf_slice_file_bytes(s->gguf, &s->params, saf_layout_range(&s->layout, r), &replicated);
    return sum;
}

/* Asked before anything was begun: then nothing is, and there is nothing to lose. */
static saf_status stop_before(saf__session *s) {
    saf_status st = SAF_OK;
    int32_t asked = saf_signals_stop_asked();
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &asked, 1);
    SAF_TRY(saf_comm_allreduce(s->world, SAF_OP_MAX, &t));
    if (asked)
        st = saf_fail(SAF_STOPPED,
                      "stopped as asked before anything was computed; the same command "
                      "goes on");
out:
    return st;
}

static saf_status run_requests(saf__session *s) {
    saf_status st = SAF_OK;
    SAF_TRY(stop_before(s));
    SAF_TRY(saf__session_load(s));
    SAF_TRY(saf__caches_open(s));
    s->results.load_s = saf_clock_s() - s->start_s;
    if (s->rank == 0 && !s->options->quiet) {
        double mb = (double)model_bytes(s) / 1e6;
        saf_log(SAF_LOG_INFO, "loaded %.1f MB in %.2f s (%.0f MB/s), %d request%s to go", mb,
                s->slices_s, s->slices_s > 0 ? mb / s->slices_s : 0, s->work.n_requests,
                s->work.n_requests == 1 ? "" : "s");
    }
    SAF_TRY(saf__timeline_begin(s));
    SAF_TRY(compute(s));
    st = saf__timeline_gather(s);
out:
    return st;
}

static void say_checkpoints(const saf__session *s) {
    const saf_results *r = &s->results;
    double run_s = r->run_s - s->before_s;
    if (s->rank != 0 || s->options->quiet || r->checkpoints == 0) return;
    saf_log(SAF_LOG_INFO, "checkpoints: %lld written, %.2f %% of the run",
            (long long)r->checkpoints, run_s > 0 ? 100 * r->checkpoint_s / run_s : 0);
}

static saf_status run_model(saf_comm *world, const saf_job *job, const saf_run_options *options) {
    saf_status st = SAF_OK;
    saf__session s = {.world = world,
                      .job = job,
                      .options = options,
                      .rank = saf_comm_rank(world),
                      .ranks = saf_comm_size(world),
                      .start_s = saf_clock_s()};
    SAF_TRY(saf__session_open(&s));
    if (s.over) goto out;
    if (s.rank == 0)
        saf__stop_limit(job, options->start_s > 0 ? options->start_s : s.start_s, &s.stop);
    bool bench = s.settings.kind == SAF_JOB_BENCH;
    if (s.settings.dry_run) {
        st = saf__plan_print(&s);
        goto out;
    }
    /* The output first: a folder that is not there shows before minutes of loading. */
    SAF_TRY(saf_comm_agree(world, s.rank == 0 ? open_results(&s) : SAF_OK));
    SAF_TRY(bench ? saf__bench_run(&s) : run_requests(&s));
    SAF_TRY(saf__results_write(&s));
    say_checkpoints(&s);
out:
    saf__session_close(&s);
    return st;
}

saf_status saf_job_run(saf_comm *world, const saf_job *job, const saf_run_options *options) {
    saf_status st = SAF_OK;
    int32_t kind = job->kind; /* rank 0's */
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &kind, 1);
    SAF_TRY(saf_comm_bcast(world, 0, &t));
    st = kind == SAF_JOB_MATMUL  ? saf__matmul_run(world, job, options)
         : kind == SAF_JOB_TRAIN ? saf__train_run(world, job, options)
                                 : run_model(world, job, options);
out:
    return st;
}
