/* What ranks tell each other of rows of logits. */
#ifndef SAF_MODEL_LOGITS_H
#define SAF_MODEL_LOGITS_H

#include "saf/model.h"

/* In the part of one rank. */
typedef struct {
    int32_t n, n_top; /* of its candidates: the likeliest after penalties, then those before */
    float scored_logit;
} saf__found;

/* Of `rows` rows of logits, and of whether all of room.logits are finite. */
typedef struct {
    int64_t rows;
    bool *finite;                /* [ranks, room.logits] */
    saf__found *found;           /* [ranks, rows] */
    saf_candidate *candidates;   /* [ranks, rows, room.candidates] */
    saf_logit_segment *segments; /* [rows, saf__logit_segments] */
} saf__logit_notes;

static inline int64_t saf__logit_segments(const saf_model_params *p) {
    return saf_ceil_div(p->vocab, SAF_LOGIT_SEGMENT);
}
/* A multiple of 64; SIZE_MAX where it overflows. */
size_t saf__logit_notes_bytes(const saf_model_params *p, saf_stage_room room, int32_t ranks);
saf__logit_notes saf__logit_notes_at(const saf_model_params *p, saf_stage_room room, int32_t ranks,
                                     char *memory);

/* ---- candidates.c ---- */

/* Adds more[n_more] to list[n], both in order; of them no more than `most` <= SAF_CANDIDATES stay.
 * Returns how many. */
int32_t saf__candidates_merge(saf_candidate *list, int32_t n, int32_t most,
                              const saf_candidate *more, int32_t n_more);
/* What is asked of the part of a row: out[n + n_top]. segments and row begin with those of token 0;
 * the part's values are penalised afterwards. maxima: scratch for its segments. */
saf__found saf__candidates_find(const saf_logit_ask *ask, saf_span vocab,
                                const saf_logit_segment *segments, float *maxima, float *row,
                                saf_candidate *out);

#endif
