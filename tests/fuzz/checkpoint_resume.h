/* A job that takes up what a checkpoint holds, as far as rank 0 alone goes. */
#ifndef SAF_TESTS_CHECKPOINT_RESUME_H
#define SAF_TESTS_CHECKPOINT_RESUME_H

#include "saf/store_checkpoint.h"

/* Once: the tokenizer of a model made in this file; its vocabulary. */
int32_t resume_make(const char *model);
/* Restores the requests of checkpoint_set.h from it, and checks what came of them. */
saf_status resume_from(const saf_checkpoint *c, bool score, bool logits);

#endif
