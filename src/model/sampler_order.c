#include <stdlib.h>

#include "model/sampler.h"

enum { BUCKETS = 1 << 16, FIRST_CHUNK = 256, CHUNK_GROWTH = 4 };

saf_status saf__order_init(saf__order *o, int64_t n) {
    saf_status st = SAF_OK;
    o->n = n;
    SAF_TRY(saf_alloc((size_t)n, sizeof *o->keys, &o->keys));
    SAF_TRY(saf_alloc(BUCKETS, sizeof *o->counts, &o->counts));
out:
    return st;
}

void saf__order_free(saf__order *o) {
    saf_free(&o->keys);
    saf_free(&o->counts);
}

/* Falls as the value rises; equal values (0 and -0 are) give equal keys. */
static inline uint32_t falling(float value) {
    uint32_t bits = saf_f32_to_bits(value + 0.0f);
    return bits ^ (uint32_t)(~((int32_t)bits >> 31) & 0x7fffffff);
}

void saf__order_start(saf__order *o, const float *values) {
    o->values = values;
    o->ready = 0;
    o->next_bucket = 0;
    memset(o->counts, 0, BUCKETS * sizeof *o->counts);
    for (int64_t i = 0; i < o->n; i++) o->counts[falling(values[i]) >> 16]++;
}

static int by_key(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Takes over the next buckets until `want` values are in order. */
static void extend(saf__order *o, int64_t want) {
    uint32_t first = o->next_bucket;
    int64_t begin = o->ready, total = begin;
    while (total < want && o->next_bucket < BUCKETS) total += o->counts[o->next_bucket++];
    uint32_t span = o->next_bucket - first;
    int64_t at = begin;
    for (int64_t i = 0; i < o->n; i++) {
        uint32_t key = falling(o->values[i]);
        if ((key >> 16) - first < span) o->keys[at++] = (uint64_t)key << 32 | (uint32_t)i;
    }
    qsort(o->keys + begin, (size_t)(at - begin), sizeof *o->keys, by_key);
    o->ready = at;
}

int32_t saf__order_at(saf__order *o, int64_t place) {
    if (place >= o->ready) {
        int64_t want = saf_i64_max(place + 1, CHUNK_GROWTH * o->ready);
        extend(o, saf_i64_min(saf_i64_max(want, FIRST_CHUNK), o->n));
    }
    return (int32_t)(uint32_t)o->keys[place];
}
