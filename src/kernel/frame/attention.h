/* attention.h: the attention of up to SAF__ATTN_ROWS query rows over one key head (see lanes.h for
 * what a frame is). Keys and values of a segment are read for several rows at once; a row's own
 * operations and their order do not depend on which rows share the call. */
#ifndef SAF_KERNEL_FRAME_ATTENTION_H
#define SAF_KERNEL_FRAME_ATTENTION_H

#include "kernel/frame/lanes.h"
#include "kernel/kernels.h"

/* The most rows that share one pass over the keys, and the accumulators of a pass: with 32
 * registers a pass of twelve rows leaves just enough for its operands. */
enum {
    WIDE = LANE_ACCUMULATORS >= 16,
    PASS_ROWS = WIDE ? 12 : 4,
    ACCUMULATORS = WIDE ? 24 : LANE_ACCUMULATORS,
    MOST_SCALED = WIDE ? 12 : 4 /* rows of weights by blocks of channels of a call */
};

typedef struct {
    int64_t head_width;
    float q[SAF_MAX_HEAD_WIDTH * SAF__ATTN_ROWS]; /* q[c * SAF__ATTN_ROWS + row] */
    float score[PASS_ROWS][SAF_KV_SEGMENT];
    /* Q8_0: the weights of the positions times the scales of a block of channels */
    float scaled[MOST_SCALED][SAF_KV_SEGMENT];
} attn_state;

SAF__INLINE v16 cache_load(const saf_kv_type type, const void *base, int64_t at) {
    return type == SAF_KV_F16   ? v16_load_f16((const uint16_t *)base + at)
           : type == SAF_KV_F32 ? v16_load((const float *)base + at)
                                : v16_load_i8((const int8_t *)base + at);
}
SAF__INLINE v16 cache_load_n(const saf_kv_type type, const void *base, int64_t at, int64_t n) {
    return type == SAF_KV_F16   ? v16_load_f16_n((const uint16_t *)base + at, n)
           : type == SAF_KV_F32 ? v16_load_n((const float *)base + at, n)
                                : v16_load_i8_n((const int8_t *)base + at, n);
}

/* A segment's groups of sixteen positions in the order they are read: keys, then values, then the
 * keys of the next segment. Whoever reads a group first asks for the one that comes some groups
 * later: the processor alone guesses too little. Passes of many rows have enough to do meanwhile.
 */
typedef struct {
    const char *k, *v, *next; /* next: NULL where nobody will read it */
    int64_t groups, group_bytes;
    bool fetch;
} attn_segment;

enum { GROUPS_AHEAD = 4, CACHE_LINE = 64, FETCHING_ROWS = 4 };

/* How far the group lies away that is to be fetched with group i of the keys or values. */
SAF__INLINE int64_t ahead_of_keys(const attn_segment *g, int64_t i) {
    int64_t then = i + GROUPS_AHEAD - g->groups;
    if (!g->fetch) return 0;
    if (then < 0) return GROUPS_AHEAD * g->group_bytes;
    return then < g->groups ? g->v + then * g->group_bytes - (g->k + i * g->group_bytes) : 0;
}
SAF__INLINE int64_t ahead_of_values(const attn_segment *g, int64_t i) {
    int64_t then = i + GROUPS_AHEAD - g->groups;
    if (!g->fetch) return 0;
    if (then < 0) return GROUPS_AHEAD * g->group_bytes;
    return g->next ? g->next + then * g->group_bytes - (g->v + i * g->group_bytes) : 0;
}

SAF__INLINE int64_t value_bytes(const saf_kv_type type) {
    return type == SAF_KV_F16 ? 2 : type == SAF_KV_F32 ? 4 : 1;
}

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

SAF__INLINE void attend_pass(const saf_kv_type type, const int R, attn_state *s,
                             const saf__kv_head *head, const attn_segment *g, saf__attn_rows *rows,
                             int row, int64_t segment, bool first) {
    enum { MOST = 8 };
    const int NC = R > 8 ? 2 : LANE_ACCUMULATORS / R < MOST ? LANE_ACCUMULATORS / R : MOST;
    int64_t limit[PASS_ROWS];
    attn_merge merge[PASS_ROWS] = {{0}};
    for (int i = 0; i < R; i++)
        limit[i] = saf_i64_min(rows->limit[row + i] - segment, SAF_KV_SEGMENT);
    score_segment(type, R, s, head, g, row, saf_ceil_div(limit[R - 1], LANES));
    for (int i = 0; i < R; i++) {
        float max, sum, *old_max = &rows->max[row + i], *old_sum = &rows->sum[row + i];
        softmax_segment(s->score[i], limit[i], &max, &sum);
        merge[i].first = first;
        if (merge[i].first) {
            *old_max = max;
            *old_sum = sum;
            continue;
        }
        float merged = max > *old_max ? max : *old_max;
        merge[i].old_factor = saf__expf(*old_max - merged);
        merge[i].new_factor = saf__expf(max - merged);
        *old_sum = __builtin_fmaf(*old_sum, merge[i].old_factor, sum * merge[i].new_factor);
        *old_max = merged;
    }
    int64_t c = 0;
    for (; c + NC * LANES <= s->head_width; c += NC * LANES)
        weigh_values(type, R, NC, s, g, rows, row, limit, merge, c, LANES);
    for (; c + LANES <= s->head_width; c += LANES)
        weigh_values(type, R, 1, s, g, rows, row, limit, merge, c, LANES);
    if (c < s->head_width)
        weigh_values(type, R, 1, s, g, rows, row, limit, merge, c, s->head_width - c);
}

SAF__INLINE int64_t group_bytes_of(const saf_kv_type type, int64_t width) {
    return type == SAF_KV_Q8_0 ? saf__kv_q8_group_bytes(width) : LANES * width * value_bytes(type);
}

SAF__INLINE void attend_rows(const saf_kv_type type, attn_state *s, const saf__kv_head *head,
                             saf__attn_rows *rows, int64_t s0, int64_t s1) {
    int concerned = 0; /* limits ascend: the rows that a segment concerns are the last ones */
    int64_t group_bytes = group_bytes_of(type, s->head_width);
    for (int64_t i = s0; i < s1; i++) {
        int64_t p0 = i * SAF_KV_SEGMENT;
        int64_t positions = saf_i64_min(rows->limit[rows->rows - 1] - p0, SAF_KV_SEGMENT);
        while (concerned < rows->rows && rows->limit[concerned] <= p0) concerned++;
        attn_segment g = {.k = (const char *)head->k + (size_t)i * head->stride,
                          .v = (const char *)head->v + (size_t)i * head->stride,
                          .groups = saf_ceil_div(positions, LANES),
                          .group_bytes = group_bytes,
                          .fetch = true};
        g.next = i + 1 < s1 ? g.k + head->stride : NULL;
        int row = concerned;
        if (WIDE)
            for (; row + 12 <= rows->rows; row += 12, g.fetch = false)
                attend_pass(type, PASS_ROWS, s, head, &g, rows, row, p0, i == s0);
        if (WIDE)
            for (; row + 8 <= rows->rows; row += 8, g.fetch = false)
                attend_pass(type, WIDE ? 8 : 4, s, head, &g, rows, row, p0, i == s0);
        for (; row + 4 <= rows->rows; row += 4, g.fetch = false)
            attend_pass(type, 4, s, head, &g, rows, row, p0, i == s0);
        for (; row + 2 <= rows->rows; row += 2, g.fetch = false)
            attend_pass(type, 2, s, head, &g, rows, row, p0, i == s0);
        for (; row < rows->rows; row++, g.fetch = false)
            attend_pass(type, 1, s, head, &g, rows, row, p0, i == s0);
    }
}

static void frame_attend_f16(attn_state *s, const saf__kv_head *head, saf__attn_rows *rows,
                             int64_t s0, int64_t s1) {
    attend_rows(SAF_KV_F16, s, head, rows, s0, s1);
}
static void frame_attend_f32(attn_state *s, const saf__kv_head *head, saf__attn_rows *rows,
                             int64_t s0, int64_t s1) {
    attend_rows(SAF_KV_F32, s, head, rows, s0, s1);
}

static void frame_attend_q8(attn_state *s, const saf__kv_head *head, saf__attn_rows *rows,
                            int64_t s0, int64_t s1) {
    attend_rows(SAF_KV_Q8_0, s, head, rows, s0, s1);
}

static void frame_attend(const saf__kv_head *head, saf__attn_rows *rows, int64_t s0, int64_t s1) {
    attn_state s;
    s.head_width = head->head_width;
    for (int64_t c = 0; c < head->head_width; c++)
        for (int i = 0; i < rows->rows; i++) s.q[c * SAF__ATTN_ROWS + i] = rows->q[i][c];
    if (head->type == SAF_KV_F16)
        frame_attend_f16(&s, head, rows, s0, s1);
    else if (head->type == SAF_KV_F32)
        frame_attend_f32(&s, head, rows, s0, s1);
    else
        frame_attend_q8(&s, head, rows, s0, s1);
}

static void round_f16(const float *x, int64_t n, uint16_t *y) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store_f16(y + i, v16_load(x + i));
    for (; i < n; i++) y[i] = saf_f16_from_f32(x[i]);
}

/* x[0, n), n <= 32, as codes and their scale. The bits of magnitudes are in order as integers. */
static float round_q8(const float *x, int64_t n, int8_t *q) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t magnitude = saf_f32_to_bits(x[i]) & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    float amax = saf_f32_from_bits(largest);
    bool finite = largest < 0x7F800000;
    if (!finite || amax < 0x1p-100f) {
        for (int64_t i = 0; i < n; i++) q[i] = 0;
        return finite ? 0.0f : NAN;
    }
    float inverse = 127.0f / amax;
    for (int64_t i = 0; i < n; i++) q[i] = (int8_t)(int)rintf(x[i] * inverse);
    return amax / 127.0f;
}

static void kv_store_q8(const float *k, const float *v, int64_t width, int64_t position,
                        void *k_head, void *v_head) {
    int64_t blocks = saf_ceil_div(width, SAF_QUANT_BLOCK), lane = position % LANES;
    int64_t at = position / LANES * saf__kv_q8_group_bytes(width);
    float *k_scale = (float *)((char *)k_head + at), *v_scale = (float *)((char *)v_head + at);
    int8_t *k_codes = (int8_t *)(k_scale + blocks * LANES) + lane;
    int8_t *v_codes = (int8_t *)(v_scale + blocks * LANES) + lane * width;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t c = b * SAF_QUANT_BLOCK, n = saf_i64_min(SAF_QUANT_BLOCK, width - c);
        int8_t codes[SAF_QUANT_BLOCK];
        k_scale[b * LANES + lane] = round_q8(k + c, n, codes);
        for (int64_t i = 0; i < n; i++) k_codes[(c + i) * LANES] = codes[i];
        v_scale[b * LANES + lane] = round_q8(v + c, n, v_codes + c);
    }
}

static void frame_kv_store(const float *k, const float *v, int64_t width, saf_kv_type type,
                           int64_t position, void *k_head, void *v_head) {
    int64_t lane = position / LANES * width * LANES + position % LANES;
    if (type == SAF_KV_Q8_0) {
        kv_store_q8(k, v, width, position, k_head, v_head);
        return;
    }
    if (type == SAF_KV_F32) {
        for (int64_t c = 0; c < width; c++) ((float *)k_head)[lane + c * LANES] = k[c];
        memcpy((float *)v_head + position * width, v, (size_t)width * sizeof *v);
        return;
    }
    uint16_t rounded[SAF_MAX_HEAD_WIDTH];
    round_f16(k, width, rounded);
    for (int64_t c = 0; c < width; c++) ((uint16_t *)k_head)[lane + c * LANES] = rounded[c];
    round_f16(v, width, (uint16_t *)v_head + position * width);
}

static void frame_attention_fill(saf__kernels *k) {
    k->attend = frame_attend;
    k->kv_store = frame_kv_store;
}

#endif
