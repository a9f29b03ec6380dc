/* What the sources of saved caches share: /kv/ROW of a file, uint8 [layers, keys and values, key
 * heads, positions, bytes of a row], and the names of the files. */
#ifndef SAF_STORE_KV_ROOM_H
#define SAF_STORE_KV_ROOM_H

#include <stdio.h>

#include "saf/store_kv.h"
#include "store/checkpoint.h"

enum { SAF__KV_NDIM = 5, SAF__KV_NAME = 32 };

static inline void saf__kv_name(int64_t row, char out[SAF__KV_NAME]) {
    snprintf(out, SAF__KV_NAME, "/kv/%lld", (long long)row);
}
/* "g.h5.ckpt-3.kv-2", and "g.h5.ckpt-3.kv" for rank -1. */
saf_status saf__kv_path(const char *checkpoint, int64_t rank, saf_buf *out);
/* Of one sequence in one source. */
void saf__kv_dims(const saf_kv_saved *saved, const saf_kv_source *source, int64_t sequence,
                  hsize_t dims[SAF__KV_NDIM]);
/* Counts that can be, no rank and no row twice, and sources without gaps or overlap, in a time that
 * grows as their number (times its logarithm). Errors: `wrong`, naming `path`; NO_MEMORY. */
saf_status saf__kv_check(const saf_kv_saved *saved, const char *path, saf_status wrong);
/* A sealed regular file, checked from end to end where `whole`; what its seal says. */
saf_status saf__kv_check_file(const char *path, bool whole, int64_t *bytes, uint8_t sha256[32]);

#endif
