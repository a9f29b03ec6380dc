/* A checkpoint with the caches beside it, as a job leaves them: what the target `checkpoint`
 * changes. */
#ifndef SAF_TESTS_CHECKPOINT_SET_H
#define SAF_TESTS_CHECKPOINT_SET_H

#include "h5_edit.h"
#include "saf/store_kv.h"

enum {
    SET_REQUESTS = 3,
    SET_PROMPT = 4, /* tokens of each */
    SET_MAX_TOKENS = 6,
    SET_TOP = 2,
    SET_LAYERS = 3,
    SET_HEADS = 2,
    SET_ROW_BYTES = 4,
    SET_FILES = 4
};

/* In the order in which each vouches for those before it. */
typedef enum { SET_CHECKPOINT, SET_SOURCE_0, SET_SOURCE_1, SET_JOINED } set_file;
extern const char *const set_endings[SET_FILES];
const fuzz_h5_names *set_names(set_file file);

/* What is in the good one. */
extern const saf_kv_saved set_saved;
/* Its head without times; the identity is the caller's to free. */
void set_head(saf_checkpoint_head *out);

/* Once: writes a good set beside `output` and keeps its bytes. */
void set_make(const char *output, int32_t vocab);
const saf_buf *set_bytes(set_file file);

#endif
