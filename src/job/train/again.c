/* What makes a training another job, and whether its model is there. Rank 0. */
#include <stdio.h>
#include <unistd.h>

#include "job/saver.h"
#include "job/train/train.h"

/* The settings that change bits of the model, and what it learns from. */
saf_status saf__train_identity(saf__training *x) {
    saf_status st = SAF_OK;
    saf_identity *id = &x->results.identity;
    char numbers[16];
    snprintf(numbers, sizeof numbers, "%d", SAF_NUMBERS);
    SAF_TRY(saf_identity_add(id, "job", saf_job_kind_name(x->job->kind)));
    SAF_TRY(saf_identity_add(id, "numbers", numbers));
    SAF_TRY(saf__identity_settings(x->job, id));
    /* The vocabulary after the texts, whose tokens it has: what differs first is named. */
    SAF_TRY(saf_identity_add(id, "input.text", x->learn_sha256));
    SAF_TRY(saf_identity_add(id, "input.held_out_text", x->held_sha256));
    st = saf_identity_add(id, "train.vocab", x->vocab_sha256);
out:
    return st;
}

bool saf__train_is_there(const void *training) {
    const saf__training *x = training;
    return access(x->job->output.model, F_OK) == 0;
}
