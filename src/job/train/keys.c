/* The keys of a train job against each other, and its files. */
#include "job/fields.h"
#include "job/share.h"
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
    if (job->output.model && job->output.file &&
        saf__is_same_place(job->output.model, job->output.file))
        return fail_at(given, "output.model", "expected another file than output.file");
    return SAF_OK;
}

static saf_status check_input(const saf_job *job, const char *key, const char *path) {
    const char *const outputs[][2] = {{"output.file", job->output.file},
                                      {"output.model", job->output.model}};
    for (int i = 0; i < 2; i++)
        if (saf_file_is_same(path, outputs[i][1]))
            return saf_fail(SAF_USAGE, "%s (%s) would be replaced by %s (%s): choose another %s",
                            key, path, outputs[i][0], outputs[i][1], outputs[i][0]);
    return SAF_OK;
}

saf_status saf__train_check_outputs(const saf_job *job) {
    saf_status st = check_input(job, "train.vocab", job->train.vocab);
    for (int32_t i = 0; st == SAF_OK && i < job->input.n_text; i++)
        st = check_input(job, "input.text", job->input.text[i]);
    for (int32_t i = 0; st == SAF_OK && i < job->input.n_held_out_text; i++)
        st = check_input(job, "input.held_out_text", job->input.held_out_text[i]);
    return st;
}
