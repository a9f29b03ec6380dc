/* /identity of results files and checkpoints: names and values, as texts. */
#ifndef SAF_STORE_IDENTITY_H
#define SAF_STORE_IDENTITY_H

#include "saf/store_checkpoint.h"
#include "store/h5.h"

extern const saf__h5_label saf__identity_names, saf__identity_values;

/* Nothing is written for an empty one. */
saf_status saf__identity_write(const saf__h5 *f, const saf_identity *id);
/* A file without one: empty. Errors: BAD_INPUT (too many, too long, a name twice). */
saf_status saf__identity_read(const saf__h5 *f, saf_identity *out);

#endif
