/* train_fixture.h: a tiny model and made-up tokens for tests of src/train. */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "saf/train.h"

/* Grouped queries, ragged lengths, a context beyond one block of queries where asked for. */
static inline saf_train_shape train_fixture_shape(saf_arch arch, bool tied, int64_t context) {
    return (saf_train_shape){.arch = arch,
                             .layers = 2,
                             .width = 24,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_width = 6,
                             .ff_width = 40,
                             .vocab = 37,
                             .context = context,
                             .rope_base = 10000,
                             .norm_eps = 1e-5,
                             .tied = tied};
}

static inline saf_train_settings train_fixture_settings(int64_t steps) {
    saf_train_settings s = saf_train_defaults();
    s.steps = steps;
    s.warmup = steps / 5;
    s.batch = 16;
    s.micro_batches = 8;
    s.learning_rate = 5e-3;
    s.clip = 0.5;
    s.seed = 7;
    return s;
}

/* Tokens that can be learned: each follows from the one before and a little chance. Every third
 * sequence counts fewer predictions than it has. ctx: the saf_train_shape. */
static inline saf_status train_fixture_read(void *ctx, int64_t step, int64_t sequence, int32_t *ids,
                                            int64_t *counted) {
    const saf_train_shape *s = ctx;
    int64_t last = sequence;
    for (int64_t i = 0; i <= s->context; i++) {
        uint32_t r[4];
        saf_philox(99, (uint64_t)(step * 1000 + sequence), (uint64_t)i, r);
        last = (last * 5 + 3 + r[0] % 2) % s->vocab;
        ids[i] = (int32_t)last;
    }
    if (sequence % 3 == 2) *counted = s->context / 2;
    return SAF_OK;
}

#endif
