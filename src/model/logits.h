/* What ranks tell each other of rows of logits. */
#ifndef SAF_MODEL_LOGITS_H
#define SAF_MODEL_LOGITS_H

#include "saf/model.h"

/* In the part of one rank. */
typedef struct {
    int32_t best; /* -1: the part is empty */
    float best_logit, asked_logit;
} saf__found;

/* Of up to max_logits rows. */
typedef struct {
    bool *finite;                /* [ranks, max_logits] */
    saf__found *found;           /* [ranks, max_logits] */
    saf_logit_segment *segments; /* [max_logits, saf__logit_segments] */
} saf__logit_notes;

static inline int64_t saf__logit_segments(const saf_model_params *p) {
    return saf_ceil_div(p->vocab, SAF_LOGIT_SEGMENT);
}
/* A multiple of 64; SIZE_MAX where it overflows. */
size_t saf__logit_notes_bytes(const saf_model_params *p, int64_t max_logits, int32_t ranks);
saf__logit_notes saf__logit_notes_at(const saf_model_params *p, int64_t max_logits, int32_t ranks,
                                     char *memory);

#endif
