/* What a cache holds, row by row, as it is: for files, and for caches of other heads. */
#include "saf/kernel_kv.h"

#include "kernel/kernels.h"

/* One position of one head in the cache. */
typedef struct {
    char *scales, *values; /* of the first block; of the first channel */
    size_t size, step;     /* bytes of a value, and from one channel to the next */
    int64_t blocks;        /* scales, 16 of which lie side by side: one for each position */
} place;

enum { LANES = 16, SCALE_STEP = LANES * sizeof(float) };

static place find(const saf_kv_part *part, int64_t p) {
    int64_t width = part->head_width, lane = p % LANES;
    bool q8 = part->type == SAF_KV_Q8_0;
    place at = {.size = part->type == SAF_KV_F32   ? 4
                        : part->type == SAF_KV_F16 ? 2
                                                   : 1,
                .blocks = q8 ? saf_ceil_div(width, SAF_QUANT_BLOCK) : 0};
    char *group = (char *)saf__kv_head_at(part->segment, part->type, part->head, width) +
                  (size_t)(p / SAF_KV_SEGMENT) * part->stride +
                  saf_kv_bytes(part->type, p % SAF_KV_SEGMENT / LANES * LANES, 1, width);
    at.scales = group + (size_t)lane * sizeof(float);
    at.values = group + (size_t)at.blocks * SCALE_STEP +
                (size_t)(part->keys ? lane : lane * width) * at.size;
    at.step = part->keys ? LANES * at.size : at.size;
    return at;
}

/* Every step-th value of so many bytes, and values side by side. */
static void gather(const char *from, size_t step, size_t size, int64_t n, char *to) {
    if (step == size)
        memcpy(to, from, (size_t)n * size);
    else if (size == 1)
        for (int64_t i = 0; i < n; i++) to[i] = from[(size_t)i * step];
    else if (size == 2)
        for (int64_t i = 0; i < n; i++) memcpy(to + 2 * i, from + (size_t)i * step, 2);
    else
        for (int64_t i = 0; i < n; i++) memcpy(to + 4 * i, from + (size_t)i * step, 4);
}

static void scatter(const char *from, size_t step, size_t size, int64_t n, char *to) {
    if (step == size)
        memcpy(to, from, (size_t)n * size);
    else if (size == 1)
        for (int64_t i = 0; i < n; i++) to[(size_t)i * step] = from[i];
    else if (size == 2)
        for (int64_t i = 0; i < n; i++) memcpy(to + (size_t)i * step, from + 2 * i, 2);
    else
        for (int64_t i = 0; i < n; i++) memcpy(to + (size_t)i * step, from + 4 * i, 4);
}

void saf_kv_rows_get(const saf_kv_part *part, int64_t p0, int64_t n, void *rows) {
    char *row = rows;
    for (int64_t p = p0; p < p0 + n; p++) {
        place at = find(part, p);
        gather(at.scales, SCALE_STEP, sizeof(float), at.blocks, row);
        row += (size_t)at.blocks * sizeof(float);
        gather(at.values, at.step, at.size, part->head_width, row);
        row += (size_t)part->head_width * at.size;
    }
}

void saf_kv_rows_put(const saf_kv_part *part, int64_t p0, int64_t n, const void *rows) {
    const char *row = rows;
    for (int64_t p = p0; p < p0 + n; p++) {
        place at = find(part, p);
        scatter(row, SCALE_STEP, sizeof(float), at.blocks, at.scales);
        row += (size_t)at.blocks * sizeof(float);
        scatter(row, at.step, at.size, part->head_width, at.values);
        row += (size_t)part->head_width * at.size;
    }
}
