/* attention_values.h: the weighted sum over the values of a segment (see attention.h). */
#ifndef SAF_KERNEL_FRAME_ATTENTION_VALUES_H
#define SAF_KERNEL_FRAME_ATTENTION_VALUES_H

#include "kernel/frame/attention_cache.h"

SAF__INLINE void merge_store(const attn_merge *m, float *out, int64_t n, v16 o) {
    if (!m->first)
        o = v16_fma(n == LANES ? v16_load(out) : v16_load_n(out, n), v16_set1(m->old_factor),
                    v16_mul(o, v16_set1(m->new_factor)));
    if (n == LANES)
        v16_store(out, o);
    else
        v16_store_n(out, n, o);
}

/* scaled[i * blocks + block][p] = weight of row + i * scale of the block at channel c + 32 block,
 * for the positions of whole groups [p, end). */
SAF__INLINE void scale_weights(const int R, const int blocks, attn_state *s, const attn_segment *g,
                               int row, int64_t c, int64_t p, int64_t end) {
    for (; p < end; p += LANES) {
        const char *group = g->v + p / LANES * g->group_bytes;
        const float *d = (const float *)group + c / SAF_QUANT_BLOCK * LANES;
        SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
            v16 e = v16_load(s->score[row + i] + p);
            SAF__UNROLL_WIDE for (int j = 0; j < blocks; j++)
                v16_store(s->scaled[i * blocks + j] + p, v16_mul(e, v16_load(d + j * LANES)));
        }
    }
}

/* ---- few rows: from the cache itself ---- */

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
    int64_t skip = scale_bytes(type, width);
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
                              const attn_segment *g, float *const *out, int row, int64_t c,
                              int64_t n) {
    const bool q8 = type == SAF_KV_Q8_0;
    const int blocks = (NC + 1) / 2; /* of channels; c is a multiple of 32 where NC is above 1 */
    const int64_t *limit = s->limit + row;
    attn_walk walk = {g->v + c * value_bytes(type), 0};
    if (q8) scale_weights(R, blocks, s, g, row, c, 0, limit[R - 1]);
    const float *weight[ACCUMULATORS] = {0}; /* of row i and the sixteen channels j */
    v16 o[ACCUMULATORS];
    SAF__UNROLL_WIDE for (int i = 0; i < R * NC; i++) {
        weight[i] = q8 ? s->scaled[i / NC * blocks + i % NC / 2] : s->score[row + i / NC];
        o[i] = v16_set1(0.0f);
    }
    weigh_positions(type, R, NC, true, s->head_width, g, weight, limit, 0, limit[0], &walk, n, o);
    weigh_positions(type, R, NC, false, s->head_width, g, weight, limit, limit[0], limit[R - 1],
                    &walk, n, o);
    SAF__UNROLL_WIDE for (int i = 0; i < R * NC; i++)
        merge_store(&s->merge[row + i / NC], out[row + i / NC] + c + i % NC * LANES, n, o[i]);
}

SAF__INLINE void weigh_pass(const saf_kv_type type, const int R, attn_state *s,
                            const attn_segment *g, float *const *out, int row) {
    enum { MOST = 8 };
    const int fit = LANE_ACCUMULATORS / R < MOST ? LANE_ACCUMULATORS / R : MOST;
    const int NC = R == PASS_ROWS ? PASS_GROUPS : fit;
    int64_t c = 0, width = s->head_width;
    for (; c + NC * LANES <= width; c += NC * LANES)
        weigh_values(type, R, NC, s, g, out, row, c, LANES);
    for (; c + LANES <= width; c += LANES) weigh_values(type, R, 1, s, g, out, row, c, LANES);
    if (c < width) weigh_values(type, R, 1, s, g, out, row, c, width - c);
}

/* ---- many rows: from tiles ---- */

/* The values of the channels c .. c + TILE_CHANNELS and the positions [p, end), as numbers, into
 * the tile; zeros past the head's last channel. */
SAF__INLINE void widen_values(const saf_kv_type type, attn_state *s, const attn_segment *g,
                              int64_t c, int64_t p, int64_t end) {
    int64_t width = s->head_width, left = width - c;
    float *to = s->tile;
    for (; p < end; p++, to += TILE_CHANNELS) {
        const char *at = g->v + p / LANES * g->group_bytes + scale_bytes(type, width) +
                         (p % LANES * width + c) * value_bytes(type);
        SAF__UNROLL for (int j = 0; j < TILE_CHANNELS; j += LANES) {
            v16 value = v16_set1(0.0f);
            if (left - j >= LANES)
                value = cache_load(type, at, j);
            else if (left - j > 0)
                value = cache_load_n(type, at, j, left - j);
            v16_store(to + j, value);
        }
    }
}

/* Adds up the positions [p, end) of the tile that begins with position `base`, for R rows: all read
 * them. `weight` is that of the first row and of `base`; part[i] of row i. */
SAF__INLINE void weigh_tile_positions(const int R, const int NC, const float *tile,
                                      const float *weight, int64_t p, int64_t end, bool from_zero,
                                      float (*part)[TILE_CHANNELS]) {
    SAF__UNROLL for (int h = 0; h < TILE_CHANNELS; h += NC * LANES) {
        v16 o[ACCUMULATORS];
        SAF__UNROLL_WIDE for (int i = 0; i < R * NC; i++) o[i] =
            from_zero ? v16_set1(0.0f) : v16_load(part[i / NC] + h + i % NC * LANES);
        const float *value = tile + p * TILE_CHANNELS + h;
        SAF__UNROLL_FEW for (int64_t t = p; t < end; t++, value += TILE_CHANNELS) {
            v16 v[ACCUMULATORS];
            SAF__UNROLL_WIDE for (int j = 0; j < NC; j++) v[j] = v16_load(value + j * LANES);
            SAF__UNROLL_WIDE for (int i = 0; i < R; i++) {
                v16 e = v16_set1(weight[i * SAF_KV_SEGMENT + t]);
                SAF__UNROLL_WIDE for (int j = 0; j < NC; j++) o[i * NC + j] =
                    v16_fma(e, v[j], o[i * NC + j]);
            }
        }
        SAF__UNROLL_WIDE for (int i = 0; i < R * NC; i++)
            v16_store(part[i / NC] + h + i % NC * LANES, o[i]);
    }
}

/* One pass over the tile of the positions [p, end) and the channels from c on: those that all its
 * rows read, then each row's own. */
SAF__INLINE void weigh_tile(const saf_kv_type type, const int R, attn_state *s,
                            const attn_segment *g, int row, int64_t c, int64_t p, int64_t end) {
    const int64_t *limit = s->limit + row;
    const float *weight = type == SAF_KV_Q8_0 ? s->scaled[0] + p : s->score[row] + p;
    end = saf_i64_min(end, limit[R - 1]) - p;
    if (end <= 0) return;
    if (type == SAF_KV_Q8_0) scale_weights(R, 1, s, g, row, c, p, p + end);
    int64_t common = saf_i64_max(saf_i64_min(end, limit[0] - p), 0);
    weigh_tile_positions(R, PASS_GROUPS, s->tile, weight, 0, common, p == 0, s->part + row);
    for (int i = 1; i < R; i++)
        if (limit[i] - p > common)
            weigh_tile_positions(1, TILE_CHANNELS / LANES, s->tile, weight + i * SAF_KV_SEGMENT,
                                 common, saf_i64_min(end, limit[i] - p), false, s->part + row + i);
}

/* What the rows [first, rows) make of the values of the segment. */
SAF__INLINE void weigh_segment(const saf_kv_type type, attn_state *s, attn_segment g,
                               float *const *out, int first, int rows) {
    if (rows - first <= PASS_ROWS) {
        for (int row = first, n; row < rows; row += n, g.fetch = false) {
            n = pass_rows(rows - row);
#define PASS(R) weigh_pass(type, R, s, &g, out, row)
            WITH_PASS_ROWS(n, PASS)
#undef PASS
        }
        return;
    }
    int64_t last = s->limit[rows - 1];
    for (int64_t c = 0; c < s->head_width; c += TILE_CHANNELS) {
        for (int64_t p = 0; p < last; p += TILE_POSITIONS) {
            int64_t end = saf_i64_min(p + TILE_POSITIONS, last);
            widen_values(type, s, &g, c, p, end);
            for (int row = first, n; row < rows; row += n) {
                n = pass_rows(rows - row);
#define PASS(R) weigh_tile(type, R, s, &g, row, c, p, end)
                WITH_PASS_ROWS(n, PASS)
#undef PASS
            }
        }
        for (int64_t h = c; h < s->head_width && h < c + TILE_CHANNELS; h += LANES)
            for (int row = first; row < rows; row++)
                merge_store(&s->merge[row], out[row] + h, saf_i64_min(LANES, s->head_width - h),
                            v16_load(s->part[row] + h - c));
    }
}

#endif
