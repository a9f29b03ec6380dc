/* The key-value cache: its size, and what goes into it. */
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

/* A call of saf_attn_store. */
typedef struct {
    const saf__kernels *kernels;
    const saf_attn_heads *how;
    saf_kv_type type;
    int64_t head_width, ldq, ld;
    float *q, *k, *v;
} store;

/* One head of one row: in place what comes before attention. */
static void make_head(const store *c, int64_t t, const float *bias, const float *norm, float *x) {
    const saf_attn_heads *how = c->how;
    if (bias) c->kernels->add(bias, c->head_width, x);
    if (norm) {
        float scale = c->kernels->rms_scale(x, how->norm_eps, c->head_width);
        c->kernels->scale_mul(x, scale, norm, c->head_width, x);
    }
    c->kernels->rope(how->rope_pairs, how->rope + 2 * t * how->rope_half, how->rope_half, x);
}

/* Asks for the sixteen positions of keys that an item writes into, all lines of them. */
static void fetch_keys(const store *c, const saf_attn_seq *seq, int64_t p0, int64_t g) {
    size_t bytes = 16 * position_bytes(c->type, c->head_width);
    const char *at = (const char *)saf__kv_head_at(seq->k, c->type, g, c->head_width) +
                     (size_t)(p0 / SAF_KV_SEGMENT) * seq->stride +
                     (size_t)(p0 % SAF_KV_SEGMENT / 16) * bytes;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 1, 3);
}

static void make_query(const store *c, int64_t t, int64_t h) {
    int64_t at = h * c->head_width;
    make_head(c, t, c->how->q_bias ? c->how->q_bias + at : NULL, c->how->q_norm,
              c->q + t * c->ldq + at);
}

static void store_key_value(const store *c, const saf_attn_seq *seq, int64_t p, int64_t g) {
    int64_t t = seq->row0 + p - seq->pos0, at = g * c->head_width;
    float *k = c->k + t * c->ld + at, *v = c->v + t * c->ld + at;
    size_t segment = (size_t)(p / SAF_KV_SEGMENT) * seq->stride;
    make_head(c, t, c->how->k_bias ? c->how->k_bias + at : NULL, c->how->k_norm, k);
    if (c->how->v_bias) c->kernels->add(c->how->v_bias + at, c->head_width, v);
    c->kernels->kv_store(k, v, c->head_width, c->type, p % SAF_KV_SEGMENT,
                         (char *)saf__kv_head_at(seq->k, c->type, g, c->head_width) + segment,
                         (char *)saf__kv_head_at(seq->v, c->type, g, c->head_width) + segment);
}

void saf_attn_store(const saf_attn_heads *how, const saf_attn_shape *shape, saf_kv_type type,
                    const saf_attn_seq *seqs, int64_t n_seqs, float *q, int64_t ldq, float *k,
                    float *v, int64_t ld) {
    /* An item is a head and sixteen positions: keys of these lie in the same cache lines. Those of
     * the keys and values come first, which take longer. */
    enum { BLOCK = 16, MANY = 8 };
    assert(shape->head_width <= SAF_MAX_HEAD_WIDTH);
    const store c = {saf__kernels_get(), how, type, shape->head_width, ldq, ld, q, k, v};
    int64_t heads = shape->q.end - shape->q.begin, kv_heads = shape->kv.end - shape->kv.begin;
    int64_t me = omp_get_thread_num(), team = omp_get_num_threads(), item = 0, items = 0;
    for (const saf_attn_seq *seq = seqs; seq < seqs + n_seqs; seq++)
        items +=
            (saf_ceil_div(seq->pos0 + seq->tokens, BLOCK) - seq->pos0 / BLOCK) * (kv_heads + heads);
    /* Many are taken in a row, which are of the rows that a thread has in its caches (matmul.c). */
    bool many = items >= MANY * team * (kv_heads + heads);
    int64_t from = saf__share(items, me, team), to = saf__share(items, me + 1, team);
    for (const saf_attn_seq *seq = seqs; seq < seqs + n_seqs; seq++) {
        int64_t end = seq->pos0 + seq->tokens;
        for (int64_t p0 = seq->pos0 / BLOCK * BLOCK; p0 < end; p0 += BLOCK) {
            int64_t first = saf_i64_max(p0, seq->pos0), stop = saf_i64_min(p0 + BLOCK, end);
            for (int64_t i = 0; i < kv_heads + heads; i++, item++) {
                if (many ? item < from || item >= to : item % team != me) continue;
                if (i < kv_heads) fetch_keys(&c, seq, p0, i);
                for (int64_t p = first; p < stop; p++) {
                    if (i < kv_heads)
                        store_key_value(&c, seq, p, i);
                    else
                        make_query(&c, seq->row0 + p - seq->pos0, i - kv_heads);
                }
            }
        }
    }
#pragma omp barrier
}
