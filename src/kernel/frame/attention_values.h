/* attention_values.h: the weighted sum over the values of a segment (see attention.h). */
#ifndef SAF_KERNEL_FRAME_ATTENTION_VALUES_H
#define SAF_KERNEL_FRAME_ATTENTION_VALUES_H

#include "kernel/frame/attention_cache.h"

/* How a segment's output joins the ones before it. */
typedef struct {
    bool first;
    float old_factor, new_factor;
} attn_merge;

SAF__INLINE void merge_store(const attn_merge *m, float *out, int64_t n, v16 o) {
    if (!m->first)
        o = v16_fma(n == LANES ? v16_load(out) : v16_load_n(out, n), v16_set1(m->old_factor),
                    v16_mul(o, v16_set1(m->new_factor)));
    if (n == LANES)
        v16_store(out, o);
    else
        v16_store_n(out, n, o);
}

/* scaled[i * blocks + block][p] = weight of row i * scale of the block at channel c + 32 block. */
SAF__INLINE void scale_weights(const int R, const int blocks, attn_state *s, const attn_segment *g,
                               int64_t n, int64_t c) {
    const char *group = g->v;
    for (int64_t p = 0; p < n; p += LANES, group += g->group_bytes) {
        const float *d = (const float *)group + c / SAF_QUANT_BLOCK * LANES;
        SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
            v16 e = v16_load(s->score[i] + p);
            SAF__UNROLL_WIDE for (int j = 0; j < blocks; j++)
                v16_store(s->scaled[i * blocks + j] + p, v16_mul(e, v16_load(d + j * LANES)));
        }
    }
}

typedef struct {
    const char *at; /* the values of the position that comes next */
    int64_t ahead;  /* of its group */
} attn_walk;

/* Positions [p, end) of what one call of weigh_values reads; a row takes part up to its limit, or,
 * where `all` says so, everywhere. */
SAF__INLINE void weigh_positions(const saf_kv_type type, const int R, const int NC, const bool all,
                                 int64_t width, const attn_segment *g, const float *const *weight,
                                 const int64_t *limit, int64_t p, int64_t end, attn_walk *walk,
                                 int64_t n, v16 *o) {
    int64_t skip = type == SAF_KV_Q8_0 ? LANES * 4 * saf_ceil_div(width, SAF_QUANT_BLOCK) : 0;
    const char *at = walk->at;
    int64_t ahead = walk->ahead;
    for (; p < end; p++, at += width * value_bytes(type)) {
        if (p % LANES == 0) {
            at += skip; /* over the scales of the group */
            ahead = ahead_of_values(g, p / LANES);
        }
        v16 value[ACCUMULATORS];
        SAF__UNROLL_WIDE for (int j = 0; j < NC; j++) value[j] =
            n == LANES ? cache_load(type, at, j * LANES) : cache_load_n(type, at, j * LANES, n);
        SAF__UNROLL_WIDE for (int j = 0; j < NC * LANES * value_bytes(type);
                              j += CACHE_LINE) if (R <= FETCHING_ROWS)
            __builtin_prefetch(at + ahead + j, 0, 2);
        SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
            if (!all && p >= limit[i]) continue;
            SAF__UNROLL_WIDE for (int j = 0; j < NC; j++) o[i * NC + j] =
                v16_fma(v16_set1(weight[i * NC + j][p]), value[j], o[i * NC + j]);
        }
    }
    *walk = (attn_walk){at, ahead};
}

/* Channels c .. c + 16 NC of the outputs of R rows (fewer in the last sixteen lanes where `n` is
 * below 16): positions ascending, first those that all rows read, then each row's own. */
SAF__INLINE void weigh_values(const saf_kv_type type, const int R, const int NC, attn_state *s,
                              const attn_segment *g, const saf__attn_rows *rows, int row,
                              const int64_t *limit, const attn_merge *merge, int64_t c, int64_t n) {
    const bool q8 = type == SAF_KV_Q8_0;
    const int blocks = (NC + 1) / 2; /* of channels; c is a multiple of 32 where NC is above 1 */
    attn_walk walk = {g->v + c * value_bytes(type), 0};
    if (q8) scale_weights(R, blocks, s, g, limit[R - 1], c);
    const float *weight[ACCUMULATORS] = {0}; /* of row i and the sixteen channels j */
    v16 o[ACCUMULATORS];
    SAF__UNROLL_WIDE for (int i = 0; i < R * NC; i++) {
        weight[i] = q8 ? s->scaled[i / NC * blocks + i % NC / 2] : s->score[i / NC];
        o[i] = v16_set1(0.0f);
    }
    weigh_positions(type, R, NC, true, s->head_width, g, weight, limit, 0, limit[0], &walk, n, o);
    weigh_positions(type, R, NC, false, s->head_width, g, weight, limit, limit[0], limit[R - 1],
                    &walk, n, o);
    SAF__UNROLL_WIDE for (int i = 0; i < R * NC; i++)
        merge_store(merge + i / NC, rows->out[row + i / NC] + c + i % NC * LANES, n, o[i]);
}

#endif
