/* A train job over the ranks: open, learn step by step, write. */
#include "job/train/train.h"

#include <math.h>

#include "job/saver.h"
#include "job/share.h"
#include "saf/core_signals.h"

/* How often ranks agree whether to stop or to write a checkpoint: the steps between take so long.
 * A process that is told to end has a second until a launcher kills it. */
static const double agree_s = 0.25, grace_s = 0.9, grace_alone_s = 10;
enum { COST_SHARE = 50 }; /* of the time until the next checkpoint, one may cost this part */
enum { GO_ON = 0, KEEP = 1, STOP = 2 };

static void told(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
    saf_signals_ask_stop();
}

/* ---- stopping ---- */

/* What a checkpoint takes: the last one, or, as the first one is guessed, three arrays of ten
 * seconds a gigabyte (saf_checkpoint_commit). */
static double cost_s(const saf__training *x) {
    double bytes = 12 * (double)saf_train_parameters(&x->shape);
    return x->took_s > 0 ? x->took_s : 10e-9 * bytes;
}

/* Rank 0: what all do now. */
static int32_t decide(const saf__training *x, bool asked, double longest_s) {
    double now = saf_clock_s();
    double spare = x->stop.limit_s / 10 < 10 ? x->stop.limit_s / 10 : 10;
    double margin = spare + (x->took_s > 0 ? 3 : 1) * cost_s(x) + 2 * longest_s;
    if (asked || (x->stop.at_s > 0 && x->stop.at_s - now < margin)) return STOP;
    return x->next_s > 0 && now >= x->next_s ? KEEP : GO_ON;
}

static void plan_next(saf__training *x) {
    double every = x->job->checkpoint.every_seconds;
    double stretched = x->took_s > 0 || every >= 1 ? COST_SHARE * cost_s(x) : 0;
    if (every > 0) x->next_s = saf_clock_s() + (stretched > every ? stretched : every);
}

static saf_status stop_now(saf__training *x) {
    saf_status st = SAF_OK;
    int64_t steps = saf_train_steps(x->train);
    const char *why =
        saf_signals_stop_asked() || steps == x->job->train.stop_after ? "as asked" : "in time";
    SAF_TRY(saf__train_keep(x));
    st = saf_fail(SAF_STOPPED,
                  "stopped %s after step %lld of %lld; %s.ckpt-*: the same command "
                  "goes on",
                  why, (long long)steps, (long long)x->settings.steps, x->job->output.file);
out:
    return st;
}

static saf_status keep_now(saf__training *x) {
    saf_status st = saf__train_keep(x);
    plan_next(x);
    if (st != SAF_IO && st != SAF_CANNOT_CREATE) return st;
    /* Everybody's, and no reason to end. */
    if (x->rank == 0) saf_log(SAF_LOG_WARNING, "no checkpoint: %s", saf_error_text());
    return SAF_OK;
}

/* Between steps; *steps: how many until the next time. */
static saf_status between(saf__training *x, double each_s, int64_t *steps) {
    saf_status st = SAF_OK;
    int32_t asked = saf_signals_stop_asked(), words[2] = {GO_ON, 1};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &asked, 1);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_MAX, &t));
    if (x->rank == 0) {
        double n = each_s > 0 ? agree_s / each_s : 1000;
        words[0] = decide(x, asked != 0, each_s * (double)*steps);
        words[1] = n < 1 ? 1 : n > 1000 ? 1000 : (int32_t)n;
    }
    saf_tensor u = saf_tensor_1d(SAF_DTYPE_I32, words, 2);
    SAF_TRY(saf_comm_bcast(x->world, 0, &u));
    *steps = words[1];
    if (words[0] == STOP) return stop_now(x);
    if (words[0] == KEEP) st = keep_now(x);
out:
    return st;
}

/* ---- learning ---- */

/* What cannot be agreed on ends all ranks. */
static saf_status checked(const saf__training *x, saf_status st) {
    return st == SAF_COMM ? saf__job_alone(x->world, st) : st;
}

static void say_step(saf__training *x, const saf_result_evaluation *e) {
    const saf_result_training *t = &x->results.training;
    const saf_result_train_step *s = &t->curve[t->n_curve - 1];
    double seconds = saf_clock_s() - x->run_start_s;
    if (x->options->quiet || (!e && seconds < x->log_after_s)) return;
    x->log_after_s = seconds + (seconds < 600 ? seconds : 600);
    if (e)
        saf_log(SAF_LOG_INFO,
                "step %lld of %lld: loss %.4f; held out %.4f, %.4f nats per byte; %.0f tokens/s",
                (long long)s->step, (long long)x->settings.steps, s->loss, e->loss,
                e->loss_per_byte, (double)s->tokens / s->seconds);
    else
        saf_log(SAF_LOG_INFO, "step %lld of %lld: loss %.4f; %.0f tokens/s", (long long)s->step,
                (long long)x->settings.steps, s->loss, (double)s->tokens / s->seconds);
}

static saf_status evaluate(saf__training *x, saf_result_evaluation *row) {
    saf_status st = SAF_OK;
    saf_train_loss loss;
    double start = saf_clock_s();
    SAF_TRY(checked(x, saf_train_evaluate(x->train, saf__texts_held_sequences(&x->texts),
                                          saf__texts_held, &x->texts, &loss, NULL)));
    *row = (saf_result_evaluation){
        .step = saf_train_steps(x->train),
        .loss = loss.nats / (double)loss.tokens,
        .loss_per_byte = x->texts.held_bytes > 0 ? loss.nats / (double)x->texts.held_bytes : NAN,
        .tokens = loss.tokens,
        .bytes = x->texts.held_bytes,
        .seconds = saf_clock_s() - start};
out:
    return st;
}

static saf_status step(saf__training *x) {
    saf_status st = SAF_OK;
    saf_train_report r;
    saf_result_evaluation e;
    int64_t every = x->job->train.evaluate_every;
    SAF_TRY(checked(x, saf_train_step(x->train, saf__texts_learn, &x->texts, &r)));
    saf_comm_progress();
    saf_result_train_step row = {r.step, r.loss, r.rate, r.gradient_norm, r.tokens, r.seconds};
    if (x->rank == 0) st = saf__curve_add(x, &row);
    bool due = x->texts.n_held > 0 && saf__texts_held_sequences(&x->texts) > 0 &&
               (r.step == x->settings.steps || (every > 0 && r.step % every == 0));
    if (!due && x->rank == 0 && st == SAF_OK) say_step(x, NULL);
    if (!due) return saf__job_alone(x->world, st);
    SAF_TRY(saf__job_alone(x->world, st));
    SAF_TRY(evaluate(x, &e));
    if (x->rank == 0) st = saf__evaluations_add(x, &e);
    if (x->rank == 0 && st == SAF_OK) say_step(x, &e);
    st = saf__job_alone(x->world, st);
out:
    return st;
}

static saf_status learn(saf__training *x) {
    saf_status st = SAF_OK;
    int64_t at, steps = 1, last = x->settings.steps, stop_after = x->job->train.stop_after;
    while ((at = saf_train_steps(x->train)) < last) {
        double start = saf_clock_s();
        int64_t until = saf_i64_min(last, at + steps);
        if (stop_after > at && stop_after < until) until = stop_after;
        for (int64_t n = at; n < until; n++) SAF_TRY(step(x));
        if (until == last) break;
        if (until == stop_after) return stop_now(x);
        SAF_TRY(between(x, (saf_clock_s() - start) / (double)(until - at), &steps));
    }
out:
    return st;
}

static saf_status create_outputs(saf__training *x) {
    saf_status st = SAF_OK;
    saf_gguf_writer *model = NULL;
    char now[32];
    saf_clock_iso8601(now);
    if (!x->results.start_time) SAF_TRY(saf_strdup(now, &x->results.start_time));
    SAF_TRY(saf_results_create(x->job->output.file, &x->writer));
    st = saf_gguf_writer_open(x->job->output.model, &model); /* it can be written */
out:
    saf_gguf_writer_free(&model);
    return st;
}

static saf_status compute(saf__training *x) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("running");
    x->run_start_s = saf_clock_s();
    x->log_after_s = 5;
    saf_signals_tell(told, NULL, x->ranks > 1 ? grace_s : grace_alone_s);
    SAF_TRY(saf_train_new(x->world, &x->shape, &x->settings, &x->train));
    if (x->goes_on) SAF_TRY(saf__train_restore(x));
    x->results.load_s = saf_clock_s() - x->start_s;
    if (x->rank == 0) plan_next(x);
    SAF_TRY(learn(x));
    x->results.run_s = x->before_s + saf_clock_s() - x->run_start_s;
out:
    return st;
}

/* ---- the whole ---- */

static saf_status share_again(saf__training *x) {
    saf_status st = SAF_OK;
    int32_t words[2] = {x->over, x->goes_on};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, words, 2);
    SAF_TRY(saf_comm_bcast(x->world, 0, &t));
    x->over = words[0] != 0;
    x->goes_on = words[1] != 0;
out:
    return st;
}

static void close_all(saf__training *x) {
    saf_signals_tell(NULL, NULL, 0);
    saf_train_free(&x->train);
    saf__texts_free(&x->texts);
    saf_results_writer_free(&x->writer);
    saf_results_free(&x->results);
    saf_checkpoint_free(&x->restored);
    saf_free(&x->host);
    saf_job_free(&x->given_job);
}

saf_status saf__train_run(saf_comm *world, const saf_job *job, const saf_run_options *options) {
    saf_status st = SAF_OK;
    saf__training x = {.world = world,
                       .job = job,
                       .options = options,
                       .rank = saf_comm_rank(world),
                       .ranks = saf_comm_size(world),
                       .start_s = saf_clock_s()};
    SAF_TRY(saf__train_open(&x));
    if (x.dry_run) {
        st = saf_comm_agree(world, x.rank == 0 ? saf__train_print(&x) : SAF_OK);
        goto out;
    }
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? saf__train_again(&x) : SAF_OK));
    SAF_TRY(share_again(&x));
    if (x.over) goto out;
    if (x.rank == 0)
        saf__stop_limit(x.job, options->start_s > 0 ? options->start_s : x.start_s, &x.stop);
    /* The output first: a folder that is not there shows before anything is computed. */
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? create_outputs(&x) : SAF_OK));
    SAF_TRY(compute(&x));
    SAF_TRY(saf__train_finish(&x));
out:
    close_all(&x);
    return st;
}
