/* saf/kernel_kv.h: what a key-value cache holds, row by row, for files and for other caches. */
#ifndef SAF_PUBLIC_KERNEL_KV_H
#define SAF_PUBLIC_KERNEL_KV_H

#include "saf/kernel.h"

/* The keys, or the values, of one key head in the cache of a sequence and a layer. */
typedef struct {
    saf_kv_type type;
    bool keys;
    void *segment;            /* the first of the layer's keys, or values */
    size_t stride;            /* bytes from a segment to the next */
    int64_t head_width, head; /* C; of the heads that are here */
} saf_kv_part;

/* Positions [p0, p0 + n) as the cache holds them, in an order that says nothing of it: a row of
 * saf_kv_bytes(type, 1, 1, C) bytes for each position, side by side. f16 and f32: its C channels.
 * Q8_0: the f32 scales of its blocks, then its C codes. `put` makes the cache hold, bit for bit,
 * what `get` found in another. By one thread. */
void saf_kv_rows_get(const saf_kv_part *part, int64_t p0, int64_t n, void *rows);
void saf_kv_rows_put(const saf_kv_part *part, int64_t p0, int64_t n, const void *rows);

#endif
