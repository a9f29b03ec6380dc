/* Inside of the sampler: logits in order, the likeliest first, as far as somebody asks. */
#ifndef SAF_MODEL_SAMPLER_H
#define SAF_MODEL_SAMPLER_H

#include "saf/model.h"

/* Of a history of n tokens those that are penalised. */
saf_span saf__sampling_window(const saf_sampling *settings, int64_t n_history);
/* A finite logit of a token among them. */
float saf__penalised(float logit, const saf_sampling *settings);

/* Sorting a whole vocabulary for each token would take longer than choosing it. The vocabulary is
 * cut into blocks. The k-th best of the blocks' best values is a bound that at least k values
 * reach, and only blocks whose best reaches it need a look. What is found is sorted; later calls
 * go on below the bound. */
typedef struct {
    int64_t n, n_blocks;
    const float *values;    /* [n] finite */
    uint64_t *keys, *spare; /* [n] keys: `ready` of them are in order */
    int64_t ready;
    uint32_t *best;    /* [n_blocks] of each block, as a key */
    uint32_t *bounds;  /* [n_blocks] the same, sorted */
    uint64_t taken_to; /* all keys below it are in `keys` */
} saf__order;

saf_status saf__order_init(saf__order *o, int64_t n);
void saf__order_free(saf__order *o);
/* Begins anew; `values` must not change as long as order is asked for. */
void saf__order_start(saf__order *o, const float *values);
/* The index of the value at `place` (0: the largest) in the order value descending, index
 * ascending; place < n. */
int32_t saf__order_at(saf__order *o, int64_t place);

#endif
