#include "model/sampler.h"

enum { BLOCK = 64, FIRST_CHUNK = 128, CHUNK_GROWTH = 4 };

saf_status saf__order_init(saf__order *o, int64_t n) {
    saf_status st = SAF_OK;
    o->n = n;
    o->n_blocks = saf_ceil_div(n, BLOCK);
    SAF_TRY(saf_alloc((size_t)n, sizeof *o->keys, &o->keys));
    SAF_TRY(saf_alloc((size_t)n, sizeof *o->spare, &o->spare));
    SAF_TRY(saf_alloc((size_t)o->n_blocks, sizeof *o->best, &o->best));
    SAF_TRY(saf_alloc((size_t)o->n_blocks, sizeof *o->bounds, &o->bounds));
out:
    return st;
}

void saf__order_free(saf__order *o) {
    saf_free(&o->keys);
    saf_free(&o->spare);
    saf_free(&o->best);
    saf_free(&o->bounds);
}

/* Falls as the value rises; equal values (0 and -0 are) give equal keys. */
static inline uint32_t falling(float value) {
    uint32_t bits = saf_f32_to_bits(value + 0.0f);
    return bits ^ (uint32_t)(~((int32_t)bits >> 31) & 0x7fffffff);
}

/* Sorts by the upper half, the value, byte by byte from the lowest; each pass keeps the order of
 * equals, so that indices stay ascending. */
static void sort(uint64_t *keys, uint64_t *spare, int64_t n) {
    for (int shift = 32; shift < 64; shift += 8) {
        int64_t at[257] = {0};
        for (int64_t i = 0; i < n; i++) at[(keys[i] >> shift & 255) + 1]++;
        for (int b = 0; b < 256; b++) at[b + 1] += at[b];
        for (int64_t i = 0; i < n; i++) spare[at[keys[i] >> shift & 255]++] = keys[i];
        uint64_t *swap = keys;
        keys = spare;
        spare = swap;
    }
}

void saf__order_start(saf__order *o, const float *values) {
    o->values = values;
    o->ready = 0;
    o->taken_to = 0;
    for (int64_t b = 0; b < o->n_blocks; b++) {
        uint32_t best = UINT32_MAX;
        int64_t end = saf_i64_min(o->n, (b + 1) * BLOCK);
        for (int64_t i = b * BLOCK; i < end; i++) {
            uint32_t key = falling(values[i]);
            best = key < best ? key : best;
        }
        o->best[b] = best;
        o->keys[b] = (uint64_t)best << 32;
    }
    sort(o->keys, o->spare, o->n_blocks);
    for (int64_t b = 0; b < o->n_blocks; b++) o->bounds[b] = (uint32_t)(o->keys[b] >> 32);
}

/* Brings at least `want` values in order. */
static void extend(saf__order *o, int64_t want) {
    uint64_t from = o->taken_to, to = 1ull << 32;
    if (want <= o->n_blocks) to = (uint64_t)o->bounds[want - 1] + 1;
    int64_t at = o->ready;
    for (int64_t b = 0; b < o->n_blocks; b++) {
        if (o->best[b] >= to) continue;
        int64_t end = saf_i64_min(o->n, (b + 1) * BLOCK);
        for (int64_t i = b * BLOCK; i < end; i++) {
            uint32_t key = falling(o->values[i]);
            if (key >= from && key < to) o->keys[at++] = (uint64_t)key << 32 | (uint32_t)i;
        }
    }
    sort(o->keys + o->ready, o->spare, at - o->ready);
    o->ready = at;
    o->taken_to = to;
}

int32_t saf__order_at(saf__order *o, int64_t place) {
    if (place >= o->ready) {
        int64_t want = saf_i64_max(place + 1, CHUNK_GROWTH * o->ready);
        extend(o, saf_i64_min(saf_i64_max(want, FIRST_CHUNK), o->n));
    }
    return (int32_t)(uint32_t)o->keys[place];
}
