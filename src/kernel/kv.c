/* The key-value cache: its size, and storing into it. */
#include <assert.h>
#include <omp.h>

#include "kernel/kernels.h"

/* Bytes of one position of one head; of Q8_0, a sixteenth of a group's. */
static size_t position_bytes(saf_kv_type type, int64_t head_width) {
    switch (type) {
        case SAF_KV_F16:
            return (size_t)head_width * sizeof(uint16_t);
        case SAF_KV_F32:
            return (size_t)head_width * sizeof(float);
        case SAF_KV_Q8_0:
            break;
    }
    return (size_t)saf__kv_q8_group_bytes(head_width) / 16;
}

size_t saf_kv_bytes(saf_kv_type type, int64_t positions, int64_t kv_heads, int64_t head_width) {
    size_t bytes;
    if (positions < 0 || kv_heads < 0 || head_width < 0 || head_width > SAF_MAX_HEAD_WIDTH ||
        !saf_size_mul(position_bytes(type, head_width), (size_t)positions, &bytes) ||
        !saf_size_mul(bytes, (size_t)kv_heads, &bytes))
        return SIZE_MAX; /* what no allocation can give */
    return bytes;
}

void *saf__kv_head_at(void *segment, saf_kv_type type, int64_t g, int64_t head_width) {
    return (char *)segment + (size_t)(g * SAF_KV_SEGMENT) * position_bytes(type, head_width);
}

void saf_kv_store(saf_kv_type type, const saf_attn_seq *seqs, int64_t n_seqs, int64_t kv_heads,
                  int64_t head_width, const float *k, const float *v, int64_t ld) {
    /* An item is a head and sixteen positions, whose keys lie in the same cache lines. */
    enum { BLOCK = 16 };
    assert(head_width <= SAF_MAX_HEAD_WIDTH);
    const saf__kernels *kernels = saf__kernels_get();
    int64_t me = omp_get_thread_num(), team = omp_get_num_threads(), item = 0;
    for (int64_t s = 0; s < n_seqs; s++) {
        const saf_attn_seq *seq = &seqs[s];
        int64_t end = seq->pos0 + seq->tokens;
        for (int64_t g = 0; g < kv_heads; g++) {
            char *k_head = saf__kv_head_at(seq->k, type, g, head_width);
            char *v_head = saf__kv_head_at(seq->v, type, g, head_width);
            for (int64_t p0 = seq->pos0 / BLOCK * BLOCK; p0 < end; p0 += BLOCK) {
                if (item++ % team != me) continue;
                size_t segment = (size_t)(p0 / SAF_KV_SEGMENT) * seq->stride;
                int64_t p = saf_i64_max(p0, seq->pos0), stop = saf_i64_min(p0 + BLOCK, end);
                for (; p < stop; p++) {
                    int64_t at = (seq->row0 + p - seq->pos0) * ld + g * head_width;
                    kernels->kv_store(k + at, v + at, head_width, type, p % SAF_KV_SEGMENT,
                                      k_head + segment, v_head + segment);
                }
            }
        }
    }
#pragma omp barrier
}
