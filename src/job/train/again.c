/* A training that was begun before: it is over, or goes on from its newest checkpoint, unless what
 * is there is of another job. Rank 0. */
#include <stdio.h>
#include <unistd.h>

#include "job/saver.h"
#include "job/train/train.h"
#include "saf/core_signals.h"

/* The settings that change bits of the model, and what it learns from. */
static saf_status make_identity(saf__training *x) {
    saf_status st = SAF_OK;
    saf_identity *id = &x->results.identity;
    char numbers[16];
    snprintf(numbers, sizeof numbers, "%d", SAF_NUMBERS);
    SAF_TRY(saf_identity_add(id, "job", saf_job_kind_name(x->job->kind)));
    SAF_TRY(saf_identity_add(id, "numbers", numbers));
    SAF_TRY(saf__identity_settings(x->job, id));
    SAF_TRY(saf_identity_add(id, "train.vocab", x->vocab_sha256));
    st = saf_identity_add(id, "input", x->texts_sha256);
out:
    return st;
}

static saf_status go_on(saf__training *x, saf_checkpoint **c) {
    saf_status st = SAF_OK;
    const saf_checkpoint_head *head = saf_checkpoint_head_of(*c);
    SAF_TRY(saf_strdup(head->start_time, &x->results.start_time));
    x->before_s = head->seconds;
    x->before_steps = head->done;
    x->results.resumes = head->resumes + 1;
    saf_signals_exit_code(saf_status_exit_code(SAF_STOPPED));
    if (!x->options->quiet)
        saf_log(SAF_LOG_INFO, "goes on from %s: %lld of %lld steps done", saf_checkpoint_path(*c),
                (long long)head->done, (long long)head->total);
    x->restored = *c;
    x->goes_on = true;
    *c = NULL;
out:
    return st;
}

saf_status saf__train_again(saf__training *x) {
    saf_status st = SAF_OK;
    const char *file = x->job->output.file, *model = x->job->output.model;
    saf_results r = {0};
    saf_checkpoint *c = NULL;
    SAF_TRY(make_identity(x));
    if (x->options->fresh) return SAF_OK;
    bool exists = access(file, F_OK) == 0;
    if (exists) SAF_TRY(saf__results_read(file, &r));
    if (exists && saf__results_check(&x->results.identity, &r, file) == SAF_OK) {
        /* A model that is gone is trained again. */
        x->over = access(model, F_OK) == 0;
        if (x->over)
            saf_log(SAF_LOG_INFO,
                    "%s has the results of this job, and %s its model: nothing to compute (--fresh "
                    "starts over)",
                    file, model);
        if (x->over) goto out;
    }
    SAF_TRY(saf_checkpoint_open_newest(file, &c));
    /* A checkpoint of this job beside results of another: those were to be replaced. */
    if (c) {
        st = saf_identity_check(&x->results.identity, &saf_checkpoint_head_of(c)->identity,
                                saf_checkpoint_path(c));
        if (st == SAF_OK) st = go_on(x, &c);
        if (st != SAF_BAD_INPUT || !exists) goto out;
    }
    st = SAF_OK;
    if (exists) st = saf__results_check(&x->results.identity, &r, file);
out:
    saf_checkpoint_free(&c);
    saf_results_free(&r);
    return st;
}
