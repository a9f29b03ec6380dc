/* What tells one model from another without reading all of it. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "model/gguf.h"

enum { PIECES = 4, PIECE_BYTES = 4096 };

static saf_status add_piece(const saf_gguf *g, const saf_gguf_tensor *t, size_t at, size_t n,
                            XXH3_state_t *hash) {
    char piece[PIECE_BYTES];
    saf_status st = saf_gguf_tensor_read(g, t, at, n, piece);
    if (st == SAF_OK) XXH3_128bits_update(hash, piece, n);
    return st;
}

static saf_status add_tensor(const saf_gguf *g, const saf_gguf_tensor *t, XXH3_state_t *hash) {
    saf_status st = SAF_OK;
    uint64_t bytes = t->bytes;
    XXH3_128bits_update(hash, t->name, strlen(t->name) + 1);
    XXH3_128bits_update(hash, &bytes, sizeof bytes);
    if (t->bytes <= (size_t)PIECES * PIECE_BYTES) {
        for (size_t at = 0; at < t->bytes; at += PIECE_BYTES)
            SAF_TRY(add_piece(g, t, at, (size_t)saf_i64_min(PIECE_BYTES, (int64_t)(t->bytes - at)),
                              hash));
        return SAF_OK;
    }
    size_t step = (t->bytes - PIECE_BYTES) / (PIECES - 1);
    for (size_t i = 0; i < PIECES; i++) {
        size_t at = i == PIECES - 1 ? t->bytes - PIECE_BYTES : i * step;
        SAF_TRY(add_piece(g, t, at, PIECE_BYTES, hash));
    }
out:
    return st;
}

saf_status saf_gguf_fingerprint(const saf_gguf *g, uint8_t out[16]) {
    saf_status st = SAF_OK;
    XXH128_canonical_t bytes;
    XXH3_state_t *hash = NULL;
    SAF_TRY(saf_alloc(1, sizeof *hash, &hash));
    XXH3_128bits_reset(hash);
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++)
        SAF_TRY(add_tensor(g, saf_gguf_tensor_at(g, i), hash));
    XXH128_canonicalFromHash(&bytes, XXH3_128bits_digest(hash));
    memcpy(out, bytes.digest, sizeof bytes.digest);
out:
    saf_free(&hash);
    return st;
}
