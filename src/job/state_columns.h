/* What the two sides of a checkpoint agree on: the arrays of /state with a value for each request.
 */
#ifndef SAF_JOB_STATE_COLUMNS_H
#define SAF_JOB_STATE_COLUMNS_H

#include "job/state.h"

typedef struct {
    const char *name;
    saf_dtype dtype;
    size_t offset; /* in saf__kept */
} saf__column;

#define COLUMN(name, dtype, member) \
    { name, SAF_DTYPE_##dtype, offsetof(saf__kept, member) }
static const saf__column saf__columns[] = {
    COLUMN("row", I64, row),
    COLUMN("request_tokens", I64, tokens),
    COLUMN("request_text_bytes", I64, text_bytes),
    COLUMN("request_logprobs", I64, logprobs),
    COLUMN("request_logits_rows", I64, logits_rows),
    COLUMN("end", I32, end),
    COLUMN("fault_layer", I32, fault_layer),
    COLUMN("fault_position", I32, fault_position),
    COLUMN("replica", I32, replica),
    COLUMN("given", I32, given),
    COLUMN("admitted_s", F64, admitted_s),
    COLUMN("first_s", F64, first_s),
    COLUMN("last_s", F64, last_s),
};
#undef COLUMN
enum { SAF__N_COLUMNS = sizeof saf__columns / sizeof saf__columns[0] };
#define SAF__LOGITS "logits"

/* Rows of logits that are copied at a time. */
static inline int64_t saf__logits_piece_rows(int64_t vocab) {
    return saf_i64_max(1, (4 << 20) / (vocab * (int64_t)sizeof(float)));
}

#endif
