/* A matmul job over the ranks: open, multiply, check, write. */
#include "job/matmul/matmul.h"

#include "job/share.h"

static saf_status place(const void *ctx, saf_buf *out) {
    const saf__matmul *x = ctx;
    return saf_buf_printf(out, "at %.0f %% of the product", 100 * saf_product_progress(x->product));
}

/* A checkpoint is as large as C, or twice that, and is written, sealed and read back in ten seconds
 * a gigabyte (saf_checkpoint_commit). */
static void set_steps(saf__matmul *x) {
    double bytes =
        (double)x->shape.m * (double)x->shape.n * (double)saf_dtype_block_bytes(x->shape.dtype);
    x->steps = (saf__steps){.world = x->world,
                            .job = x->job,
                            .options = x->options,
                            .results = &x->results,
                            .rank = x->rank,
                            .start_s = x->start_s,
                            .ctx = x,
                            .unit = "tile products",
                            .write = saf__matmul_keep,
                            .place = place,
                            .is_there = saf__matmul_is_there,
                            .replaces = x->chain && x->chain->replaces,
                            .guess_s = 10e-9 * bytes * (x->plan->tiles.segments > 1 ? 2 : 1)};
}

saf_status saf__matmul_alone(const saf__matmul *x, saf_status st) {
    return saf__job_alone(x->world, st);
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
        if (saf__steps_speak(&x->steps))
            saf_log(SAF_LOG_INFO, "%.0f %% of the product in %.0f s",
                    100 * saf_product_progress(x->product), saf_clock_s() - x->steps.run_start_s);
        if (!done) SAF_TRY(saf__steps_between(&x->steps, (saf_clock_s() - start) / n, &steps));
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
    saf__steps_begin(&x->steps);
    x->results.load_s = x->steps.run_start_s - x->start_s;
    SAF_TRY(saf_product_new(x->world, x->plan, job->matmul.alpha, job->matmul.beta,
                            x->host_share.threads, &io, &x->product));
    if (x->steps.goes_on) SAF_TRY(saf__matmul_restore(x));
    SAF_TRY(multiply(x));
    x->results.run_s = saf__steps_run_s(&x->steps);
    SAF_TRY(saf__matmul_check(x));
out:
    return st;
}

/* ---- the whole ---- */

static void close_all(saf__matmul *x) {
    saf__steps_end(&x->steps);
    saf_product_free(&x->product);
    saf__regions_free(&x->regions);
    for (int w = 0; w < SAF__OPERANDS; w++) saf_matrix_close(&x->operands[w].file);
    saf_matrix_writer_free(&x->own);
    saf_results_writer_free(&x->writer);
    saf_results_free(&x->results);
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
    set_steps(&x);
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? saf__matmul_identity(&x) : SAF_OK));
    SAF_TRY(saf__steps_again(&x.steps));
    if (x.steps.over) goto out;
    /* The output first: a folder that is not there shows before anything is read. */
    SAF_TRY(saf_comm_agree(world, x.rank == 0 ? create_outputs(&x) : SAF_OK));
    SAF_TRY(compute(&x));
    SAF_TRY(saf__matmul_finish(&x));
out:
    close_all(&x);
    return st;
}
