/* Inside of the sampler: logits in order, the likeliest first, as far as somebody asks. */
#ifndef SAF_MODEL_SAMPLER_H
#define SAF_MODEL_SAMPLER_H

#include "saf/core.h"

/* Sorting a whole vocabulary for each token would take longer than choosing it: values are counted
 * by their upper 16 bits, and only the buckets at the top are sorted, more of them on demand. */
typedef struct {
    int64_t n;
    const float *values; /* [n] finite */
    uint64_t *keys;      /* [n] of which `ready` are in order */
    int64_t ready;
    uint32_t *counts;     /* [65536] */
    uint32_t next_bucket; /* all before it are in `keys` */
} saf__order;

saf_status saf__order_init(saf__order *o, int64_t n);
void saf__order_free(saf__order *o);
/* Begins anew; `values` must not change as long as order is asked for. */
void saf__order_start(saf__order *o, const float *values);
/* The index of the value at `place` (0: the largest) in the order value descending, index
 * ascending; place < n. */
int32_t saf__order_at(saf__order *o, int64_t place);

#endif
