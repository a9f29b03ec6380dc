/* saf/store_kv.h: caches of keys and values that are kept beside a checkpoint, so that a job that
 * goes on from it need not compute them again.
 *
 * OUTPUT.ckpt-N.kv-R is what rank R had of them, OUTPUT.ckpt-N.kv says which of these files there
 * are, how long each is and its SHA-256, and of which checkpoint they are; for h5py it joins them
 * by virtual datasets. It is written last, so that it names only what is durable. All are sealed
 * and written as checkpoints are, and go when their checkpoint goes. The schema is in
 * doc/results.md.
 *
 * Ranks: everything is local. Threads: as checkpoints.
 */
#ifndef SAF_PUBLIC_STORE_KV_H
#define SAF_PUBLIC_STORE_KV_H

#include "saf/store_checkpoint.h"

enum { SAF_KV_SCHEMA = 1 };

/* A request's first `positions` positions. Those of one set are held by the same ranks. */
typedef struct {
    int64_t row; /* its line of the results, by which it is known */
    int64_t set, positions;
} saf_kv_sequence;

/* What one rank wrote of all sequences of its set: layers [layer0, layer0 + layers), key heads
 * [head0, head0 + heads). */
typedef struct {
    int64_t rank, set, layer0, layers, head0, heads;
    int64_t bytes; /* of the file */
    uint8_t sha256[32];
} saf_kv_source;

/* All of them: the sources of a set have each head of each layer once; no row and no rank is there
 * twice. */
typedef struct {
    char *type;                       /* "f16" */
    int64_t layers, heads, row_bytes; /* of the model; of a row, see saf/kernel_kv.h */
    int64_t n_sequences, n_sources;
    saf_kv_sequence *sequences; /* [n_sequences] */
    saf_kv_source *sources;     /* [n_sources] */
} saf_kv_saved;
void saf_kv_saved_free(saf_kv_saved *saved); /* the members; leaves {0} */

/* Rows of one sequence: the keys or values of one key head at positions [pos0, pos0 + n). */
typedef struct {
    int64_t sequence; /* of saf_kv_saved */
    int64_t layer, head;
    bool keys;
    int64_t pos0, n;
} saf_kv_place;

/* ---- writing: `checkpoint` is the path of one that is durable ---- */

typedef struct saf_kv_writer saf_kv_writer;
/* For source->rank; bytes and sha256 are not looked at. `saved` and `source` must outlive it.
 * Errors: CANNOT_CREATE, IO, DEFECT. */
saf_status saf_kv_create(const char *checkpoint, const saf_kv_saved *saved,
                         const saf_kv_source *source, saf_kv_writer **out);
/* Each once, in any order. After an error only saf_kv_writer_free is of use. Errors: IO. */
saf_status saf_kv_put(saf_kv_writer *w, const saf_kv_place *place, const void *rows);
/* Durable under its name when this returns, with its length and checksum. Errors: IO. */
saf_status saf_kv_commit(saf_kv_writer *w, int64_t *bytes, uint8_t sha256[32]);
void saf_kv_writer_free(saf_kv_writer **w); /* removes what was not committed */

/* The file that joins the sources, which must be there as they say. Errors: NO_INPUT, BAD_INPUT (a
 * source is not here, or is another one), CANNOT_CREATE, IO, DEFECT (they leave gaps). */
saf_status saf_kv_join(const char *checkpoint, const saf_kv_saved *saved);
/* Removes the file of a rank, fine if there is none; rank -1: the one that joins them. */
void saf_kv_remove(const char *checkpoint, int64_t rank);

/* ---- reading ---- */

/* What is kept beside this checkpoint; *there false where nothing is. Does not look at the sources.
 * Errors: BAD_INPUT (damaged, of another checkpoint), IO, NO_MEMORY. */
saf_status saf_kv_saved_read(const char *checkpoint, saf_kv_saved *out, bool *there);

typedef struct saf_kv_file saf_kv_file;
/* Reads all of a source to compare length and checksum; it stays open, so that it can be read even
 * when its name is gone. `saved` and `source` must outlive it. Errors: NO_INPUT, BAD_INPUT, IO. */
saf_status saf_kv_open(const char *checkpoint, const saf_kv_saved *saved,
                       const saf_kv_source *source, saf_kv_file **out);
/* Errors: BAD_INPUT, IO, DEFECT (not of this source). */
saf_status saf_kv_get(saf_kv_file *f, const saf_kv_place *place, void *rows);
void saf_kv_close(saf_kv_file **f);

#endif
