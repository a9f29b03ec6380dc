/* What a stage computes with, for the files that make up a forward pass. */
#ifndef SAF_MODEL_STAGE_H
#define SAF_MODEL_STAGE_H

#include "model/meetings.h"
#include "model/slice.h"

struct saf_stage {
    const saf_model_params *p;
    saf_slice *slice;
    saf_kv_cache *kv;
    saf__meetings *meetings; /* NULL alone */
    saf__logit_notes notes;  /* alone */
    char *notes_memory;
    saf_profile *profile;    /* NULL unless asked for */
    double since_s;          /* the end of the step before, where there is a profile */
    void (*tick)(void *ctx); /* after every layer; NULL: nothing */
    void *tick_ctx;
    saf_stage_room room;
    saf_attn_shape shape;
    int64_t q_width, kv_width, width, ff_width; /* columns of the part: of q, of k, of x, of gate */
    size_t bytes;
    saf_acts *acts;
    saf_attn_scratch *scratch;
    float *h; /* [T or room.logits, D] */
    float *q, *k, *v, *a, *gate, *up;
    float *rope;           /* [T, rope_half, 2] */
    float *last;           /* [room.logits, D] the rows that want logits */
    saf_candidate *joined; /* [SAF_LOGIT_ROWS, room.candidates] of all ranks */
    float *maxima;         /* [SAF_LOGIT_ROWS, segments of the vocabulary] */
    int32_t *positions;    /* [T] */
    bool *finite;          /* [layers, T] whether each layer left each row so */
    saf_attn_seq *seqs;    /* [layers, runs] */
};

/* The steps of a pass. Called by every thread of the team.
 *
 * x of the tokens that the part has, and the angles of all positions; then, for a layer, x +=
 * attention, x += feed-forward. finite[t] becomes false where a value of x[t, :] as it came in is
 * not finite; NULL on the first layer. */
void saf__stage_embed(saf_stage *s, const saf_batch *batch, float *x);
void saf__stage_layer(saf_stage *s, int64_t layer, const saf_batch *batch, float *x, bool *finite);
/* What each rank has written so far the others read from now on. */
void saf__stage_meet(saf_stage *s, saf__meeting what);
/* Whether the ranks no longer meet; the same for all threads. */
bool saf__stage_apart(const saf_stage *s);
/* Where the rank notes what comes of rows of logits. */
const saf__logit_notes *saf__stage_notes(const saf_stage *s);
/* Before the first step, by one thread. */
void saf__stage_begin_marks(saf_stage *s);
/* A step is over for every thread of the team: each ends with a barrier, so that one thread's
 * clock tells. */
void saf__stage_mark(saf_stage *s, saf_step step);

#endif
