/* The keys of a train job against each other. */
#include "job/fields.h"
#include "job/train/train.h"

static saf_status fail_at(const saf__where *given, const char *key, const char *text) {
    const saf__field *f = saf__field_find(SAF_JOB_TRAIN, key);
    return saf__fail_at(&given[f - saf__fields], f->key, "%s", text);
}

saf_status saf__train_keys_check(const saf_job *job, const saf__where *given,
                                 const saf__where *whole) {
    saf_model_make_options ignored;
    char quoted[SAF__QUOTE_BYTES];
    int32_t batch = job->train.batch, pieces = job->train.micro_batches;
    if (!saf_model_shape_read(job->train.shape, &ignored)) {
        const saf__field *f = saf__field_find(SAF_JOB_TRAIN, "train.shape");
        return saf__fail_at(&given[f - saf__fields], f->key,
                            "expected layers:width:heads:kv_heads:head_width:feed_forward, got %s",
                            saf__quote(job->train.shape, quoted));
    }
    if ((pieces & (pieces - 1)) != 0)
        return fail_at(given, "train.micro_batches", "expected a power of two");
    if (batch % pieces != 0)
        return saf__fail_at(whole, "train.batch",
                            "expected a multiple of train.micro_batches, "
                            "which is %d, got %d",
                            pieces, batch);
    if (job->train.warmup > job->train.steps)
        return saf__fail_at(whole, "train.warmup",
                            "expected at most train.steps, which is %d, "
                            "got %d",
                            job->train.steps, job->train.warmup);
    if (job->output.model && job->output.file && strcmp(job->output.model, job->output.file) == 0)
        return fail_at(given, "output.model", "expected another file than output.file");
    return SAF_OK;
}
