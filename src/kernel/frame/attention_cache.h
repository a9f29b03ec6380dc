/* attention_cache.h: what the passes of attention read and keep: the segments of a cache, the rows
 * in work. */
#ifndef SAF_KERNEL_FRAME_ATTENTION_CACHE_H
#define SAF_KERNEL_FRAME_ATTENTION_CACHE_H

#include <assert.h>

#include "kernel/frame/lanes.h"
#include "kernel/kernels.h"

/* A pass: the rows whose sums a loop keeps in registers, by sixteens of positions (of channels for
 * the weighted sum). With 32 registers of sixteen lanes twelve by two leave just enough for the
 * operands, with 16 of eight or 32 of four lanes six by one. */
enum {
    WIDE = LANE_ACCUMULATORS >= 16,
    PASS_ROWS = WIDE ? 12 : 6,
    PASS_GROUPS = WIDE ? 2 : 1,
    ACCUMULATORS = WIDE ? 24 : 8
};

/* Several passes over the same keys or values read them from a tile: as f32, and small enough to
 * stay in the first cache. Of keys, PASS_GROUPS groups [channel][16 positions]; of values,
 * [TILE_POSITIONS][TILE_CHANNELS]. */
enum {
    TILE_POSITIONS = SAF_KV_SEGMENT / 2,
    TILE_CHANNELS = SAF_QUANT_BLOCK,
    TILE_VALUES = PASS_GROUPS * LANES * SAF_MAX_HEAD_WIDTH,
    Q_STRIDE = SAF_MAX_HEAD_WIDTH + LANES /* no power of two: its rows would meet in the cache */
};

/* How a segment's output joins the ones before it. */
typedef struct {
    bool first;
    float old_factor, new_factor;
} attn_merge;

/* The rows in work and one segment of theirs. */
typedef struct {
    int64_t head_width;
    int64_t limit[SAF__ATTN_ROWS]; /* positions of the segment that a row reads */
    attn_merge merge[SAF__ATTN_ROWS];
    float q[SAF__ATTN_ROWS][Q_STRIDE];
    _Alignas(64) float score[SAF__ATTN_ROWS][SAF_KV_SEGMENT]; /* then their exp: the weights */
    /* Q8_0: the weights of a pass times the scales of a block of channels */
    _Alignas(64) float scaled[PASS_ROWS][SAF_KV_SEGMENT];
    _Alignas(64) float tile[TILE_VALUES];
    _Alignas(64) float part[SAF__ATTN_ROWS][TILE_CHANNELS]; /* sums between two tiles of values */
} attn_state;

static_assert(TILE_VALUES >= TILE_POSITIONS * TILE_CHANNELS, "both kinds of tile fit");

/* How many rows the next pass takes of those left, and CALL(R) with that number as a constant. */
SAF__INLINE int pass_rows(int left) {
    return left >= PASS_ROWS   ? PASS_ROWS
           : WIDE && left >= 8 ? 8
           : left >= 4         ? 4
           : left >= 2         ? 2
                               : 1;
}
#define WITH_PASS_ROWS(rows, CALL) \
    switch (rows) {                \
        case PASS_ROWS:            \
            CALL(PASS_ROWS);       \
            break;                 \
        case 8:                    \
            CALL((WIDE ? 8 : 1));  \
            break;                 \
        case 4:                    \
            CALL(4);               \
            break;                 \
        case 2:                    \
            CALL(2);               \
            break;                 \
        default:                   \
            CALL(1);               \
    }

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
 * later: the processor alone guesses too little. Passes of many rows have enough to do meanwhile,
 * and the first pass over a segment has fetched it for the others. Few rows read as many groups of
 * keys side by side as they are ahead. */
typedef struct {
    const char *k, *v, *next; /* next: NULL where nobody will read it */
    int64_t groups, group_bytes, groups_ahead;
    bool fetch;
} attn_segment;

enum { GROUPS_AHEAD = 4, GROUPS_AHEAD_IN_ORDER = 2, CACHE_LINE = 64, FETCHING_ROWS = 4 };

/* How far the group lies away that is to be fetched with group i of the keys or values. */
SAF__INLINE int64_t ahead_of_keys(const attn_segment *g, int64_t i) {
    int64_t then = i + g->groups_ahead - g->groups;
    if (!g->fetch) return 0;
    if (then < 0) return g->groups_ahead * g->group_bytes;
    return then < g->groups ? g->v + then * g->group_bytes - (g->k + i * g->group_bytes) : 0;
}
SAF__INLINE int64_t ahead_of_values(const attn_segment *g, int64_t i) {
    int64_t then = i + g->groups_ahead - g->groups;
    if (!g->fetch) return 0;
    if (then < 0) return g->groups_ahead * g->group_bytes;
    return g->next ? g->next + then * g->group_bytes - (g->v + i * g->group_bytes) : 0;
}

SAF__INLINE int64_t value_bytes(const saf_kv_type type) {
    return type == SAF_KV_F16 ? 2 : type == SAF_KV_F32 ? 4 : 1;
}

/* Of a group: the scales in front of the codes, and all. */
SAF__INLINE int64_t scale_bytes(const saf_kv_type type, int64_t width) {
    return type == SAF_KV_Q8_0 ? LANES * 4 * saf_ceil_div(width, SAF_QUANT_BLOCK) : 0;
}
SAF__INLINE int64_t group_bytes_of(const saf_kv_type type, int64_t width) {
    return scale_bytes(type, width) + LANES * width * value_bytes(type);
}

#endif
