/* The state of a job as a checkpoint holds it: of every request that is done what came of it, of
 * those on their way the tokens so far. Prefill of known tokens gives the same state of the model
 * to the last bit, so this is all there is to keep. Rank 0. */
#ifndef SAF_JOB_STATE_H
#define SAF_JOB_STATE_H

#include "job/session.h"

/* A request; what follows it in the buffers lies in the order of these. */
typedef struct {
    int64_t row;                                       /* its line of the results */
    int64_t tokens, text_bytes, logprobs, logits_rows; /* of each so many */
    int32_t end, fault_layer, fault_position, replica, given;
    double admitted_s, first_s, last_s;
    /* not stored: */
    bool done;           /* its logits are in the results file; those of others in `logits` below */
    int64_t logits_row0; /* where */
} saf__kept;

typedef struct {
    saf_buf kept; /* saf__kept each */
    saf_buf tokens, text, logprobs, top_ids, top_logprobs;
    saf_buf logits;           /* rows of those that are not done */
    int64_t logits_rows;      /* of all */
    saf_checkpoint_head head; /* its texts are borrowed */
} saf__state;

/* Copies what there is. The caller keeps it from changing meanwhile. Errors: NO_MEMORY. */
saf_status saf__kept_take(const saf__session *s, saf__state *out);
/* Writes a checkpoint of it. Any thread, beside the events:
 * rows of logits of requests that are done do not change. Errors: those of the store room. */
saf_status saf__kept_write(const saf__session *s, const saf__state *state);
void saf__kept_free(saf__state *state);

/* The session's requests, as they were made from the input, take up what a checkpoint of the same
 * job holds: those that are done move behind those still to run, and of these the tokens so far
 * become part of the prompt. Errors: BAD_INPUT (it does not fit the requests), NO_MEMORY. */
saf_status saf__kept_restore(saf__session *s, const saf_checkpoint *c);
/* And their rows of logits, once there is a results file to take them. */
saf_status saf__kept_restore_logits(saf__session *s, const saf_checkpoint *c);

#endif
