/* A train job on every rank: rank 0's job, where the ranks are, the texts, and whether the model
 * can be trained so. */
#include "job/share.h"
#include "job/train/train.h"

static void take_settings(saf__training *x) {
    const saf_job *job = x->job;
    x->settings = (saf_train_settings){.steps = job->train.steps,
                                       .warmup = job->train.warmup,
                                       .batch = job->train.batch,
                                       .micro_batches = job->train.micro_batches,
                                       .learning_rate = job->train.learning_rate,
                                       .floor = job->train.floor,
                                       .decay = job->train.decay,
                                       .clip = job->train.clip,
                                       .beta1 = job->train.beta1,
                                       .beta2 = job->train.beta2,
                                       .epsilon = job->train.epsilon,
                                       .seed = job->train.seed,
                                       .shard = job->train.shard,
                                       .threads = x->host_share.threads};
}

static saf_status take_shape(saf__training *x) {
    saf_model_make_options o = {0};
    const saf_job *job = x->job;
    if (!saf_model_shape_read(job->train.shape, &o))
        return saf_fail(SAF_DEFECT, "the shape of the model is none");
    x->shape = (saf_train_shape){.arch = job->train.arch ? SAF_ARCH_QWEN3 : SAF_ARCH_LLAMA,
                                 .layers = o.layers,
                                 .width = o.width,
                                 .heads = o.heads,
                                 .kv_heads = o.kv_heads,
                                 .head_width = o.head_width,
                                 .ff_width = o.ff_width,
                                 .context = job->train.context,
                                 .rope_base = job->train.rope_base,
                                 .norm_eps = job->train.norm_eps,
                                 .tied = job->train.tied};
    x->texts.context = job->train.context;
    x->texts.seed = job->train.seed;
    return SAF_OK;
}

static saf_status prepare(saf__training *x) {
    saf_status st = saf_kernels_init(NULL);
    if (st == SAF_OK) st = saf_kernels_check_float_state();
    if (st == SAF_OK) st = take_shape(x);
    if (st == SAF_OK && x->rank == 0) st = saf__texts_read(x);
    return st;
}

saf_status saf__train_open(saf__training *x) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("opening");
    x->dry_run = x->options->dry_run;
    SAF_TRY(saf__job_share(x->world, x->job, &x->given_job, &x->dry_run));
    if (x->rank != 0) x->job = &x->given_job;
    SAF_TRY(saf_comm_watch(x->world, x->job->run.watchdog_seconds));
    SAF_TRY(saf__hosts_share(x->world, x->job->layout.threads, &x->host_share, &x->host));
    take_settings(x);
    SAF_TRY(saf_comm_agree(x->world, prepare(x)));
    SAF_TRY(saf__texts_share(x));
    st = saf_comm_agree(x->world, saf_train_check(&x->shape, &x->settings, x->ranks));
out:
    return st;
}
