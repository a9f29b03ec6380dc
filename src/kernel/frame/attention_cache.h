/* attention_cache.h: what the passes of attention read and keep: the segments of a cache, the rows
 * in work. */
#ifndef SAF_KERNEL_FRAME_ATTENTION_CACHE_H
#define SAF_KERNEL_FRAME_ATTENTION_CACHE_H

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

SAF__INLINE int64_t group_bytes_of(const saf_kv_type type, int64_t width) {
    return type == SAF_KV_Q8_0 ? saf__kv_q8_group_bytes(width) : LANES * width * value_bytes(type);
}

#endif
