/* The meetings of the ranks that hold the parts of one stage: where in the group's memory a pass
 * keeps what they tell each other, and which bytes of it each of them writes. */
#ifndef SAF_MODEL_MEETINGS_H
#define SAF_MODEL_MEETINGS_H

#include "model/logits.h"

/* What has been written when the ranks meet. */
typedef enum {
    SAF__MEET_ROWS,      /* of x: tokens that a rank's part of the vocabulary has */
    SAF__MEET_COLUMNS,   /* of x: a rank's part of the width */
    SAF__MEET_ATTENTION, /* the acts, in each of their forms: what comes out of its heads */
    SAF__MEET_FF = SAF__MEET_ATTENTION + SAF_ACTS_FORMS, /* its part of the feed-forward columns */
    SAF__MEET_LOGITS = SAF__MEET_FF + SAF_ACTS_FORMS, /* of the vocabulary; whether it is finite */
    SAF__MEET_LOGIT_ROWS, /* what a rank's part of the vocabulary comes to */
    SAF__MEET_COUNT
} saf__meeting;

typedef struct {
    const saf_stage_group *group;
    const saf_model_params *p;
    saf_stage_room room;
    saf_status status; /* of the first meeting that failed: there are none after it */
    saf_acts *acts; /* in the group's memory, by turns of the heads and of feed-forward columns */
    saf__logit_notes notes[2]; /* in the group's memory; calls take turns */
    int turn;
    struct {
        saf_part *items;
        int64_t n;
    } written[SAF__MEET_COUNT]; /* where the group wants to know */
} saf__meetings;

/* Errors: DEFECT (parts that do not make up a whole stage, or memory that begins elsewhere than at
 * a multiple of 64), NO_MEMORY. */
saf_status saf__meetings_new(const saf_model_params *p, saf_slice_range range, saf_stage_room room,
                             const saf_stage_group *group, saf__meetings **out);
void saf__meetings_free(saf__meetings **meetings);

/* Before the meetings of a pass, and before that of logits; by one thread. */
void saf__meetings_begin(saf__meetings *m, const saf_slice_range *range, const saf_batch *batch,
                         const float *x);
void saf__meetings_begin_logits(saf__meetings *m, int64_t n, const float *logits);
void saf__meetings_begin_logit_rows(saf__meetings *m, int64_t n, const saf_logit_ask *asks);

/* All ranks meet. Team: every thread has come to a barrier before. */
void saf__meetings_meet(saf__meetings *m, saf__meeting what);

#endif
