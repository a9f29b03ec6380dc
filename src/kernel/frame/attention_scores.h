/* attention_scores.h: the scores of a segment and their softmax (see attention.h). */
#ifndef SAF_KERNEL_FRAME_ATTENTION_SCORES_H
#define SAF_KERNEL_FRAME_ATTENTION_SCORES_H

#include "kernel/frame/attention_cache.h"

/* The groups b .. b + n of the keys, as numbers, into the tile. */
SAF__INLINE void widen_keys(const saf_kv_type type, attn_state *s, const attn_segment *g, int64_t b,
                            int64_t n) {
    int64_t width = s->head_width, step = LANES * value_bytes(type);
    for (int64_t j = 0; j < n; j++) {
        const char *at = g->k + (b + j) * g->group_bytes + scale_bytes(type, width);
        float *to = s->tile + j * width * LANES;
        for (int64_t c = 0; c < width; c++)
            v16_store(to + c * LANES, cache_load(type, at + c * step, 0));
    }
}

/* The bytes [*at, end) are asked for in front of the passes that still come, as many for each:
 * more at once than the processor has places for would make the pass wait. */
SAF__INLINE void fetch_share(const char **at, const char *end, int64_t passes) {
    const char *stop = *at + (end - *at) / passes;
    for (; *at < stop; *at += CACHE_LINE) __builtin_prefetch(*at, 0, 2);
}

/* The scores are complete but for the factor of all. */
SAF__INLINE void store_scores(const int R, const int NB, attn_state *s, const saf__kv_head *head,
                              int row, int64_t b, const v16 *dot) {
    v16 scale = v16_set1(head->scale);
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++)
        v16_store(s->score[row + i / NB] + (b + i % NB) * LANES, v16_mul(dot[i], scale));
}

/* Where the codes of NB groups of keys from group b lie: in the tile or in the cache. */
SAF__INLINE void keys_at(const saf_kv_type type, const int NB, const bool tile, const attn_state *s,
                         const attn_segment *g, int64_t b, const char **at, int64_t *ahead) {
    SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
        at[j] = tile ? (const char *)(s->tile + j * s->head_width * LANES)
                     : g->k + (b + j) * g->group_bytes + scale_bytes(type, s->head_width);
        ahead[j] = tile ? 0 : ahead_of_keys(g, b + j);
    }
}

/* sum[i * NB + j] += q[row + i, c] * key[c, b + j] over the channels [c, end), ascending. */
SAF__INLINE void add_products(const saf_kv_type type, const int R, const int NB, const bool tile,
                              const attn_state *s, int row, const char *const *at,
                              const int64_t *ahead, int64_t c, int64_t end, v16 *sum) {
    const saf_kv_type as = tile ? SAF_KV_F32 : type;
    const bool fetch = !tile && R <= FETCHING_ROWS;
    int64_t step = LANES * value_bytes(as);
    const float *q = s->q[row];
    SAF__UNROLL_FEW for (; c < end; c++) {
        v16 key[ACCUMULATORS];
        SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
            key[j] = cache_load(as, at[j] + c * step, 0);
            if (fetch) __builtin_prefetch(at[j] + c * step + ahead[j], 0, 2);
        }
        SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
            v16 qi = v16_set1(q[i * Q_STRIDE + c]);
            SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) sum[i * NB + j] =
                v16_fma(qi, key[j], sum[i * NB + j]);
        }
    }
}

/* score[row + i][16 b + lane], i < R, of NB groups of sixteen keys from group b of the segment;
 * lanes are positions. */
SAF__INLINE void score_groups(const saf_kv_type type, const int R, const int NB, const bool tile,
                              attn_state *s, const saf__kv_head *head, const attn_segment *g,
                              int row, int64_t b) {
    const char *at[ACCUMULATORS] = {0};
    int64_t ahead[ACCUMULATORS] = {0};
    keys_at(type, NB, tile, s, g, b, at, ahead);
    v16 dot[ACCUMULATORS];
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++) dot[i] = v16_set1(0.0f);
    add_products(type, R, NB, tile, s, row, at, ahead, 0, s->head_width, dot);
    store_scores(R, NB, s, head, row, b, dot);
}

/* The same for Q8_0: each block of channels sums up its codes, then its scale takes it in. */
SAF__INLINE void score_groups_q8(const int R, const int NB, const bool tile, attn_state *s,
                                 const saf__kv_head *head, const attn_segment *g, int row,
                                 int64_t b) {
    int64_t width = s->head_width;
    const char *at[ACCUMULATORS] = {0}, *scales = g->k + b * g->group_bytes;
    int64_t ahead[ACCUMULATORS] = {0};
    keys_at(SAF_KV_Q8_0, NB, tile, s, g, b, at, ahead);
    v16 dot[ACCUMULATORS];
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++) dot[i] = v16_set1(0.0f);
    for (int64_t c = 0; c < width; c += SAF_QUANT_BLOCK, scales += LANES * sizeof(float)) {
        v16 sum[ACCUMULATORS];
        SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++) sum[i] = v16_set1(0.0f);
        add_products(SAF_KV_Q8_0, R, NB, tile, s, row, at, ahead, c,
                     saf_i64_min(c + SAF_QUANT_BLOCK, width), sum);
        SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
            const char *d_at = scales + j * g->group_bytes;
            v16 d = v16_load((const float *)d_at);
            if (!tile && R <= FETCHING_ROWS) __builtin_prefetch(d_at + ahead[j], 0, 2);
            SAF__UNROLL_WIDE for (int i = 0; i < R; i++) dot[i * NB + j] =
                v16_fma(d, sum[i * NB + j], dot[i * NB + j]);
        }
    }
    store_scores(R, NB, s, head, row, b, dot);
}

SAF__INLINE void score_some(const saf_kv_type type, const int R, const int NB, const bool tile,
                            attn_state *s, const saf__kv_head *head, const attn_segment *g, int row,
                            int64_t b) {
    if (type == SAF_KV_Q8_0)
        score_groups_q8(R, NB, tile, s, head, g, row, b);
    else
        score_groups(type, R, NB, tile, s, head, g, row, b);
}

/* As many times NB groups from group b on as there are below `groups`; the group after them. */
SAF__INLINE int64_t score_run(const saf_kv_type type, const int R, const int NB, attn_state *s,
                              const saf__kv_head *head, const attn_segment *g, int row, int64_t b,
                              int64_t groups) {
    for (; b + NB <= groups; b += NB) score_some(type, R, NB, false, s, head, g, row, b);
    return b;
}

/* One pass over all that its rows read of the segment, from the cache itself. */
SAF__INLINE void score_pass(const saf_kv_type type, const int R, attn_state *s,
                            const saf__kv_head *head, const attn_segment *g, int row) {
    enum { MOST = GROUPS_AHEAD, FEW = GROUPS_AHEAD_IN_ORDER };
    const int fit = LANE_ACCUMULATORS / R < MOST ? LANE_ACCUMULATORS / R : MOST;
    const int NB = R == PASS_ROWS ? PASS_GROUPS : fit;
    int64_t b = 0, groups = saf_ceil_div(s->limit[row + R - 1], LANES);
    if (NB <= FEW || !head->in_order) b = score_run(type, R, NB, s, head, g, row, b, groups);
    if (NB > FEW) b = score_run(type, R, FEW, s, head, g, row, b, groups);
    score_run(type, R, 1, s, head, g, row, b, groups);
}

/* One pass over the tile of keys from group b on. */
SAF__INLINE void score_tile(const saf_kv_type type, const int R, attn_state *s,
                            const saf__kv_head *head, const attn_segment *g, int row, int64_t b) {
    int64_t groups = saf_ceil_div(s->limit[row + R - 1], LANES) - b;
    if (groups >= PASS_GROUPS)
        score_some(type, R, PASS_GROUPS, true, s, head, g, row, b);
    else if (groups > 0)
        score_some(type, R, 1, true, s, head, g, row, b);
}

/* The tile of keys that begins with group b for the rows [first, rows). Meanwhile the cache lines
 * of the next tile are fetched and those of the values of this one. */
SAF__INLINE void score_tile_rows(const saf_kv_type type, attn_state *s, const saf__kv_head *head,
                                 const attn_segment *g, int first, int rows, int64_t b) {
    int64_t tile_bytes = PASS_GROUPS * g->group_bytes,
            passes = saf_ceil_div(rows - first, PASS_ROWS);
    bool last = b + PASS_GROUPS >= g->groups;
    const char *k = last ? g->next : g->k + b * g->group_bytes + tile_bytes;
    const char *v = g->v + b * g->group_bytes, *v_end = v + tile_bytes;
    const char *k_end = k ? k + tile_bytes : NULL;
    widen_keys(type, s, g, b, saf_i64_min(PASS_GROUPS, g->groups - b));
    for (int row = first, n; row < rows; row += n, passes--) {
        if (passes > 0) {
            if (k) fetch_share(&k, k_end, passes);
            fetch_share(&v, v_end, passes);
        }
        n = pass_rows(rows - row);
#define PASS(R) score_tile(type, R, s, head, g, row, b)
        WITH_PASS_ROWS(n, PASS)
#undef PASS
    }
}

/* The scores of the rows [first, rows). */
SAF__INLINE void score_segment(const saf_kv_type type, attn_state *s, const saf__kv_head *head,
                               attn_segment g, int first, int rows) {
    if (rows - first <= PASS_ROWS) {
        for (int row = first, n; row < rows; row += n, g.fetch = false) {
            n = pass_rows(rows - row);
#define PASS(R) score_pass(type, R, s, head, &g, row)
            WITH_PASS_ROWS(n, PASS)
#undef PASS
        }
        return;
    }
    for (int64_t b = 0; b < g.groups; b += PASS_GROUPS)
        score_tile_rows(type, s, head, &g, first, rows, b);
}

enum { SOFTMAX_ROWS = WIDE ? 4 : 1 };

/* How many of the sixteen positions from p on lie before the limit. */
SAF__INLINE int64_t lanes_before(int64_t limit, int64_t p) {
    return limit <= p ? 0 : saf_i64_min(limit - p, LANES);
}

/* The scores of the rows row .. row + R become exp(score - the row's maximum) up to each row's
 * limit; maxima and sums. Past its limit, and before that of the last row, a row gets zeros:
 * adding 0 changes no lane, for none is -0. Rows side by side do not wait for each other. */
SAF__INLINE void softmax_rows(const int R, attn_state *s, int row, float *max, float *sum) {
    float(*score)[SAF_KV_SEGMENT] = s->score + row;
    const int64_t *limit = s->limit + row;
    int64_t p, whole = limit[0] / LANES * LANES, end = limit[R - 1];
    v16 lanes[SOFTMAX_ROWS], shift[SOFTMAX_ROWS];
    SAF__UNROLL for (int i = 0; i < R; i++) lanes[i] = v16_set1(-INFINITY);
    for (p = 0; p < whole; p += LANES)
        SAF__UNROLL for (int i = 0; i < R; i++) lanes[i] =
            v16_max(v16_load(score[i] + p), lanes[i]);
    for (; p < end; p += LANES)
        SAF__UNROLL for (int i = 0; i < R; i++) lanes[i] = v16_max(
            v16_first_n(v16_load(score[i] + p), lanes_before(limit[i], p), -INFINITY), lanes[i]);
    SAF__UNROLL for (int i = 0; i < R; i++) {
        max[i] = v16_fold_max(lanes[i]);
        shift[i] = v16_set1(max[i]);
        lanes[i] = v16_set1(0.0f);
    }
    for (p = 0; p < whole; p += LANES) SAF__UNROLL for (int i = 0; i < R; i++) {
            v16 e = v16_exp_not_above_0(v16_sub(v16_load(score[i] + p), shift[i]));
            v16_store(score[i] + p, e);
            lanes[i] = v16_add(lanes[i], e);
        }
    for (; p < end; p += LANES) SAF__UNROLL for (int i = 0; i < R; i++) {
            v16 e = v16_exp_not_above_0(v16_sub(v16_load(score[i] + p), shift[i]));
            e = v16_first_n(e, lanes_before(limit[i], p), 0.0f);
            v16_store(score[i] + p, e);
            lanes[i] = v16_add(lanes[i], e);
        }
    SAF__UNROLL for (int i = 0; i < R; i++) sum[i] = v16_fold_sum(lanes[i]);
}

/* The same for the rows [first, rows). */
static void softmax_segment(attn_state *s, int first, int rows, float *max, float *sum) {
    int row = first;
    for (; row + SOFTMAX_ROWS <= rows; row += SOFTMAX_ROWS)
        softmax_rows(SOFTMAX_ROWS, s, row, max + row, sum + row);
    for (; row < rows; row++) softmax_rows(1, s, row, max + row, sum + row);
}

#endif
