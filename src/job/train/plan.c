/* --dry-run of a training: what it takes. */
#include <stdio.h>

#include "job/train/train.h"

static double mib(double bytes) {
    return bytes / 0x1p20;
}

saf_status saf__train_print(const saf__training *x) {
    const saf_train_settings *s = &x->settings;
    const saf__texts *t = &x->texts;
    double tokens = (double)s->batch * (double)t->context;
    double all = (double)saf_train_parameters(&x->shape);
    printf("%s %s, vocabulary %lld: %.0f parameters, %.1f MiB as %s\n",
           saf_arch_name(x->shape.arch), x->job->train.shape, (long long)x->shape.vocab, all,
           mib(all * (double)saf_dtype_block_bytes(saf_job_model_type(x->job)) /
               (double)saf_dtype_block(saf_job_model_type(x->job))),
           saf_dtype_name(saf_job_model_type(x->job)));
    printf("text: %lld tokens (%lld bytes) to learn from, %lld (%lld) held out\n",
           (long long)t->n_learn, (long long)t->bytes, (long long)t->n_held,
           (long long)t->held_bytes);
    printf(
        "%lld steps of %lld sequences of %lld tokens in %lld micro-batches: %.2f times the text\n",
        (long long)s->steps, (long long)s->batch, (long long)t->context,
        (long long)s->micro_batches, (double)s->steps * tokens / (double)t->n_learn);
    printf("%5s %8s %14s %12s\n", "rank", "host", "micro-batches", "memory MiB");
    for (int r = 0; r < x->ranks; r++) {
        int64_t from = r * s->micro_batches / x->ranks, to = (r + 1) * s->micro_batches / x->ranks;
        printf("%5d %8d %14lld %12.1f\n", r, x->host[r], (long long)(to - from),
               mib((double)saf_train_memory_bytes(&x->shape, s, x->ranks, r)));
    }
    return fflush(stdout) == 0 ? SAF_OK : saf_fail(SAF_IO, "cannot write to standard output");
}
