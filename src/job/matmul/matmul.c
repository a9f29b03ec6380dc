/* A matmul job over the ranks: open, multiply, check, write. */
#include "job/matmul/matmul.h"

#include <unistd.h>

#include "job/saver.h"
#include "job/share.h"
#include "saf/core_signals.h"

/* How often ranks agree whether to stop or to write a checkpoint: the steps between take so long.
 * A process that is told to end has a second until a launcher kills it. */
static const double agree_s = 0.25, grace_s = 0.9, grace_alone_s = 10;
enum { COST_SHARE = 50 }; /* of the time until the next checkpoint, one may cost this part */

/* ---- stopping ---- */

static void told(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
    saf_signals_ask_stop();
}

enum { GO_ON = 0, KEEP = 1, STOP = 2 };

/* What a checkpoint takes: the last one, or as the first one is guessed. It is as large as C, or
 * twice that, and is written, sealed and read back in ten seconds a gigabyte
 * (saf_checkpoint_commit). */
static double cost_s(const saf__matmul *x) {
    double bytes =
        (double)x->shape.m * (double)x->shape.n * (double)saf_dtype_block_bytes(x->shape.dtype);
    return x->took_s > 0 ? x->took_s : 10e-9 * bytes * (x->plan->tiles.segments > 1 ? 2 : 1);
}

/* Rank 0: what all do now. */
static int32_t decide(const saf__matmul *x, bool asked, double longest_s) {
    double now = saf_clock_s();
    double spare = x->stop.limit_s / 10 < 10 ? x->stop.limit_s / 10 : 10;
    double margin = spare + (x->took_s > 0 ? 3 : 1) * cost_s(x) + 2 * longest_s;
    if (asked || (x->stop.at_s > 0 && x->stop.at_s - now < margin)) return STOP;
    return x->next_s > 0 && now >= x->next_s ? KEEP : GO_ON;
}

static void say_progress(saf__matmul *x) {
    double seconds = saf_clock_s() - x->run_start_s;
    if (x->rank != 0 || x->options->quiet || seconds < x->log_after_s) return;
    x->log_after_s = seconds + (seconds < 600 ? seconds : 600);
    saf_log(SAF_LOG_INFO, "%.0f %% of the product in %.0f s",
            100 * saf_product_progress(x->product), seconds);
}

/* Who wants one more often than every second has the first one when it is due. */
static void plan_next(saf__matmul *x) {
    double every = x->job->checkpoint.every_seconds;
    double stretched = x->took_s > 0 || every >= 1 ? COST_SHARE * cost_s(x) : 0;
    if (every > 0) x->next_s = saf_clock_s() + (stretched > every ? stretched : every);
}

static saf_status stop_now(saf__matmul *x) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__matmul_keep(x));
    st = saf_fail(SAF_STOPPED,
                  "stopped%s at %.0f %% of the product; %s.ckpt-*: the same command "
                  "goes on",
                  saf_signals_stop_asked() ? " as asked" : " in time",
                  100 * saf_product_progress(x->product), x->job->output.file);
out:
    return st;
}

saf_status saf__matmul_alone(const saf__matmul *x, saf_status st) {
    return saf__job_alone(x->world, st);
}

/* Between steps; *steps: how many until the next time. */
static saf_status between(saf__matmul *x, double each_s, int32_t *steps) {
    saf_status st = SAF_OK;
    int32_t asked = saf_signals_stop_asked(), words[2] = {GO_ON, 1};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &asked, 1);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_MAX, &t));
    if (x->rank == 0) {
        double n = each_s > 0 ? agree_s / each_s : 1000;
        words[0] = decide(x, asked != 0, each_s * *steps);
        words[1] = n < 1 ? 1 : n > 1000 ? 1000 : (int32_t)n;
    }
    saf_tensor u = saf_tensor_1d(SAF_DTYPE_I32, words, 2);
    SAF_TRY(saf_comm_bcast(x->world, 0, &u));
    *steps = words[1];
    if (words[0] == STOP) return stop_now(x);
    if (words[0] == KEEP) {
        st = saf__matmul_keep(x);
        plan_next(x);
        if (st == SAF_IO || st == SAF_CANNOT_CREATE) { /* everybody's, and no reason to end */
            if (x->rank == 0) saf_log(SAF_LOG_WARNING, "no checkpoint: %s", saf_error_text());
            st = saf__matmul_alone(x, saf__regions_status(x->regions));
        }
    }
out:
    return st;
}

/* ---- multiplying ---- */

static saf_status multiply(saf__matmul *x) {
    saf_status st = SAF_OK;
    bool done = false;
    int32_t steps = 1;
    while (!done) {
        double start = saf_clock_s();
        int32_t n = 0;
        for (; n < steps && !done; n++) {
            st = saf__matmul_alone(x, saf_product_step(x->product, &done));
            if (st == SAF_OK) st = saf__matmul_alone(x, saf__regions_status(x->regions));
            if (st != SAF_OK) goto out;
            saf_comm_progress();
        }
        say_progress(x);
        if (!done) SAF_TRY(between(x, (saf_clock_s() - start) / n, &steps));
    }
    SAF_TRY(saf_product_finish(x->product));
    SAF_TRY(saf_comm_agree(x->world, saf__regions_over(x->regions)));
out:
    return st;
}

static saf_status create_outputs(saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_job *job = x->job;
    saf_matrix_shape shape = {x->shape.m, x->shape.n, x->shape.dtype};
    char now[32];
    saf_clock_iso8601(now);
    if (!x->results.start_time) SAF_TRY(saf_strdup(now, &x->results.start_time));
    SAF_TRY(saf_results_create(job->output.file, &x->writer));
    if (job->output.product)
        st = saf_matrix_create(job->output.product, &shape,
                               "the product alpha op(A) op(B) + beta C, row-major", &x->own);
    else if (job->output.store)
        st = saf_results_product(x->writer, &shape);
out:
    return st;
}

static saf_status compute(saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_job *job = x->job;
    saf_product_io io = saf__matmul_io(x);
    x->run_start_s = saf_clock_s();
    x->results.load_s = x->run_start_s - x->start_s;
    x->log_after_s = 5;
    saf_comm_watch_phase("running");
    saf_signals_tell(told, NULL, x->ranks > 1 ? grace_s : grace_alone_s);
    SAF_TRY(saf_product_new(x->world, x->plan, job->matmul.alpha, job->matmul.beta,
                            x->host_share.threads, &io, &x->product));
    if (x->goes_on) SAF_TRY(saf__matmul_restore(x));
    if (x->rank == 0) plan_next(x);
    SAF_TRY(multiply(x));
    x->results.run_s = x->before_s + saf_clock_s() - x->run_start_s;
    SAF_TRY(saf__matmul_check(x));
out:
    return st;
}

/* ---- the whole ---- */

static saf_status share_again(saf__matmul *x) {
    saf_status st = SAF_OK;
    int32_t words[2] = {x->over, x->goes_on};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, words, 2);
    SAF_TRY(saf_comm_bcast(x->world, 0, &t));
    x->over = words[0] != 0;
    x->goes_on = words[1] != 0;
out:
    return st;
}

static void close_all(saf__matmul *x) {
    saf_signals_tell(NULL, NULL, 0);
    saf_product_free(&x->product);
    saf__regions_free(&x->regions);
    for (int w = 0; w < SAF__OPERANDS; w++) saf_matrix_close(&x->operands[w].file);
    saf_matrix_writer_free(&x->own);
    saf_results_writer_free(&x->writer);
    saf_results_free(&x->results);
    saf_checkpoint_free(&x->restored);
    saf_buf_free(&x->tiles);
    for (int64_t i = 0; x->sums && i < x->plan->tiles.tiles_m; i++) saf_free(&x->sums[i]);
    saf_free(&x->sums);
    saf_product_plan_free(&x->plan);
    saf_free(&x->parts);
    saf_free(&x->part_at);
    saf_free(&x->host);
    saf_free(&x->share);
    saf_job_free(&x->given_job);
}

saf_status saf__matmul_run(saf_comm *world, const saf_job *job, const saf_run_options *options) {
    saf_status st = SAF_OK;
    int32_t chain = job->matmul.n_chain; /* rank 0's */
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &chain, 1);
    SAF_TRY(saf_comm_bcast(world, 0, &t));
    st = chain > 0 ? saf__matmul_chain(world, job, options)
                   : saf__matmul_one(world, job, options, NULL);
out:
    return st;
}

saf_status saf__matmul_one(saf_comm *world, const saf_job *job, const saf_run_options *options,
                           const saf__chain *chain) {
    saf_status st = SAF_OK;
    saf__matmul x = {.world = world,
                     .job = job,
                     .options = options,
                     .chain = chain,
                     .rank = saf_comm_rank(world),
                     .ranks = saf_comm_size(world),
                     .start_s = saf_clock_s()};
    SAF_TRY(saf__matmul_open(&x));
    if (x.dry_run) {
        if (x.rank == 0) saf__matmul_print(&x);
        goto out;
    }
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? saf__matmul_again(&x) : SAF_OK));
    SAF_TRY(share_again(&x));
    if (x.over) goto out;
    if (x.rank == 0)
        saf__stop_limit(x.job, options->start_s > 0 ? options->start_s : x.start_s, &x.stop);
    /* The output first: a folder that is not there shows before anything is read. */
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? create_outputs(&x) : SAF_OK));
    SAF_TRY(compute(&x));
    SAF_TRY(saf__matmul_finish(&x));
out:
    close_all(&x);
    return st;
}
