/* attention_scores.h: the scores of a segment and their softmax (see attention.h). */
#ifndef SAF_KERNEL_FRAME_ATTENTION_SCORES_H
#define SAF_KERNEL_FRAME_ATTENTION_SCORES_H

#include "kernel/frame/attention_cache.h"

/* score[i][16 b + lane] of rows row + i, i < R, and NB groups of 16 keys from group b of the
 * segment; lanes are positions. */
SAF__INLINE void score_blocks(const saf_kv_type type, const int R, const int NB, attn_state *s,
                              const saf__kv_head *head, const attn_segment *g, int row, int64_t b) {
    int64_t width = s->head_width, step = LANES * value_bytes(type);
    const char *at[ACCUMULATORS] = {0};
    int64_t ahead[ACCUMULATORS] = {0};
    SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
        at[j] = g->k + (b + j) * g->group_bytes;
        ahead[j] = ahead_of_keys(g, b + j);
    }
    v16 dot[ACCUMULATORS];
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++) dot[i] = v16_set1(0.0f);
    for (int64_t c = 0; c < width; c++) {
        const float *q = s->q + c * SAF__ATTN_ROWS + row;
        v16 key[ACCUMULATORS];
        SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
            key[j] = cache_load(type, at[j] + c * step, 0);
            if (R <= FETCHING_ROWS) __builtin_prefetch(at[j] + c * step + ahead[j], 0, 2);
        }
        SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
            v16 qi = v16_set1(q[i]);
            SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) dot[i * NB + j] =
                v16_fma(qi, key[j], dot[i * NB + j]);
        }
    }
    v16 scale = v16_set1(head->scale);
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++)
        v16_store(s->score[i / NB] + (b + i % NB) * LANES, v16_mul(dot[i], scale));
}

/* The same for Q8_0: each block of channels sums up its codes, then its scale takes it in. */
SAF__INLINE void score_blocks_q8(const int R, const int NB, attn_state *s, const saf__kv_head *head,
                                 const attn_segment *g, int row, int64_t b) {
    int64_t width = s->head_width, blocks = saf_ceil_div(width, SAF_QUANT_BLOCK);
    int64_t group_bytes = g->group_bytes;
    const char *group = g->k + b * group_bytes;
    int64_t ahead[ACCUMULATORS] = {0};
    SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) ahead[j] = ahead_of_keys(g, b + j);
    v16 dot[ACCUMULATORS];
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++) dot[i] = v16_set1(0.0f);
    for (int64_t block = 0; block < blocks; block++) {
        int64_t c = block * SAF_QUANT_BLOCK, end = saf_i64_min(c + SAF_QUANT_BLOCK, width);
        const int8_t *codes = (const int8_t *)group + blocks * LANES * 4;
        v16 sum[ACCUMULATORS];
        SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++) sum[i] = v16_set1(0.0f);
        for (; c < end; c++) {
            const float *q = s->q + c * SAF__ATTN_ROWS + row;
            v16 key[ACCUMULATORS];
            SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
                const int8_t *code = codes + j * group_bytes + c * LANES;
                key[j] = v16_load_i8(code);
                if (R <= FETCHING_ROWS) __builtin_prefetch(code + ahead[j], 0, 2);
            }
            SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
                v16 qi = v16_set1(q[i]);
                SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) sum[i * NB + j] =
                    v16_fma(qi, key[j], sum[i * NB + j]);
            }
        }
        SAF__UNROLL_WIDE for (int j = 0; j < NB; j++) {
            const float *scales = (const float *)(group + j * group_bytes) + block * LANES;
            v16 d = v16_load(scales);
            if (R <= FETCHING_ROWS) __builtin_prefetch((const char *)scales + ahead[j], 0, 2);
            SAF__UNROLL_WIDE for (int i = 0; i < R; i++) dot[i * NB + j] =
                v16_fma(d, sum[i * NB + j], dot[i * NB + j]);
        }
    }
    v16 scale = v16_set1(head->scale);
    SAF__UNROLL_WIDE for (int i = 0; i < R * NB; i++)
        v16_store(s->score[i / NB] + (b + i % NB) * LANES, v16_mul(dot[i], scale));
}

SAF__INLINE void score_some(const saf_kv_type type, const int R, const int NB, attn_state *s,
                            const saf__kv_head *head, const attn_segment *g, int row, int64_t b) {
    if (type == SAF_KV_Q8_0)
        score_blocks_q8(R, NB, s, head, g, row, b);
    else
        score_blocks(type, R, NB, s, head, g, row, b);
}

SAF__INLINE void score_segment(const saf_kv_type type, const int R, attn_state *s,
                               const saf__kv_head *head, const attn_segment *g, int row,
                               int64_t n_blocks) {
    enum { MOST = 4 };
    const int NB = R > 8 ? 2 : LANE_ACCUMULATORS / R < MOST ? LANE_ACCUMULATORS / R : MOST;
    int64_t b = 0;
    for (; b + NB <= n_blocks; b += NB) score_some(type, R, NB, s, head, g, row, b);
    for (; b < n_blocks; b++) score_some(type, R, 1, s, head, g, row, b);
}

/* The first n scores become exp(score - their maximum); returns maximum and sum. */
SAF__INLINE void softmax_segment(float *score, int64_t n, float *max, float *sum) {
    v16 largest = v16_set1(-INFINITY), total = v16_set1(0.0f);
    int64_t p = 0;
    for (; p + LANES <= n; p += LANES) largest = v16_max(v16_load(score + p), largest);
    if (p < n) largest = v16_max(v16_first_n(v16_load(score + p), n - p, -INFINITY), largest);
    *max = v16_fold_max(largest);
    v16 shift = v16_set1(*max);
    for (p = 0; p + LANES <= n; p += LANES) {
        v16 e = v16_exp(v16_sub(v16_load(score + p), shift));
        v16_store(score + p, e);
        total = v16_add(total, e);
    }
    if (p < n) { /* adding 0 changes no lane: none is -0 */
        v16 e = v16_exp(v16_sub(v16_load(score + p), shift));
        e = v16_first_n(e, n - p, 0.0f);
        v16_store(score + p, e);
        total = v16_add(total, e);
    }
    *sum = v16_fold_sum(total);
}

#endif
