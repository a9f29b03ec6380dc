/* A train job over the ranks: open, learn step by step, write. */
#include "job/train/train.h"

#include <math.h>

#include "job/share.h"

static saf_status place(const void *ctx, saf_buf *out) {
    const saf__training *x = ctx;
    return saf_buf_printf(out, "after step %lld of %lld", (long long)saf_train_steps(x->train),
                          (long long)x->settings.steps);
}

/* A checkpoint is three arrays, at ten seconds a gigabyte (saf_checkpoint_commit). */
static void set_steps(saf__training *x) {
    x->steps = (saf__steps){.world = x->world,
                            .job = x->job,
                            .options = x->options,
                            .results = &x->results,
                            .rank = x->rank,
                            .start_s = x->start_s,
                            .ctx = x,
                            .unit = "steps",
                            .write = saf__train_keep,
                            .place = place,
                            .is_there = saf__train_is_there,
                            .guess_s = 10e-9 * 12 * (double)saf_train_parameters(&x->shape)};
}

/* ---- learning ---- */

/* What cannot be agreed on ends all ranks. */
static saf_status checked(const saf__training *x, saf_status st) {
    return st == SAF_COMM ? saf__job_alone(x->world, st) : st;
}

static void say_step(saf__training *x, const saf_result_evaluation *e) {
    const saf_result_training *t = &x->results.training;
    const saf_result_train_step *s = &t->curve[t->n_curve - 1];
    if (x->options->quiet || (!saf__steps_speak(&x->steps) && !e)) return;
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
    int32_t steps = 1;
    int64_t at, last = x->settings.steps, stop_after = x->job->train.stop_after;
    while ((at = saf_train_steps(x->train)) < last) {
        double start = saf_clock_s();
        int64_t until = saf_i64_min(last, at + steps);
        if (stop_after > at && stop_after < until) until = stop_after;
        for (int64_t n = at; n < until; n++) SAF_TRY(step(x));
        if (until == last) break;
        if (until == stop_after) return saf__steps_stop(&x->steps, true);
        double each_s = (saf_clock_s() - start) / (double)(until - at);
        SAF_TRY(saf__steps_between(&x->steps, each_s, &steps));
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
    saf__steps_begin(&x->steps);
    SAF_TRY(checked(x, saf_train_new(x->world, &x->shape, &x->settings, &x->train)));
    if (x->steps.goes_on) SAF_TRY(saf__train_restore(x));
    x->results.load_s = saf_clock_s() - x->start_s;
    SAF_TRY(learn(x));
    x->results.run_s = saf__steps_run_s(&x->steps);
out:
    return st;
}

/* ---- the whole ---- */

static void close_all(saf__training *x) {
    saf__steps_end(&x->steps);
    saf_train_free(&x->train);
    saf__texts_free(&x->texts);
    saf_results_writer_free(&x->writer);
    saf_results_free(&x->results);
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
    set_steps(&x);
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? saf__train_identity(&x) : SAF_OK));
    SAF_TRY(saf__steps_again(&x.steps));
    if (x.steps.over) goto out;
    /* The output first: a folder that is not there shows before anything is computed. */
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? create_outputs(&x) : SAF_OK));
    SAF_TRY(compute(&x));
    SAF_TRY(saf__train_finish(&x));
out:
    close_all(&x);
    return st;
}
