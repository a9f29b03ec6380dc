/* What the sources of checkpoints share: which files there are, the seal in front of each, and
 * what is inside. */
#ifndef SAF_STORE_CHECKPOINT_ROOM_H
#define SAF_STORE_CHECKPOINT_ROOM_H

#include "store/identity.h"
#include "store/part.h"

/* ---- the files of one output (checkpoint_files.c) ---- */

typedef struct {
    int64_t number;
    bool kv;      /* caches kept beside it */
    bool part;    /* still being written */
    bool regular; /* no folder, no symbolic link */
    char *path;
} saf__checkpoint_file;

typedef struct {
    int64_t n;
    saf__checkpoint_file *files; /* [n], ascending by number */
} saf__checkpoint_list;

/* A folder that is not there holds none. Errors: IO, NO_MEMORY. */
saf_status saf__checkpoint_list_read(const char *output, saf__checkpoint_list *out);
void saf__checkpoint_list_free(saf__checkpoint_list *list); /* leaves {0} */
/* Removes .part files of dead writers, those that are finished but for the newest `keep`, and the
 * caches beside those that are not there, unless somebody reads them.
 * Errors: CANNOT_CREATE (another process writes one), IO (one could not be removed). */
saf_status saf__checkpoint_list_prune(const saf__checkpoint_list *list, int64_t keep);

/* ---- the seal: the user block in front of HDF5's part (checkpoint_seal.c) ---- */

enum { SAF__SEAL_BYTES = 512 };

/* Hashes what follows the block and writes it. Errors: IO. */
saf_status saf__seal_write(int fd, const char *path);
/* What a file's seal says: its length, and the SHA-256 of what follows the block. Does not look at
 * that. Errors: BAD_INPUT (no seal, or another length), IO. */
saf_status saf__seal_read(int fd, const char *path, int64_t *bytes, uint8_t sha256[32]);
/* The file is as long as the block says and has its checksum. Errors: BAD_INPUT, IO. */
saf_status saf__seal_check(int fd, const char *path);

/* ---- what is inside ---- */

/* Root attributes and /identity (checkpoint_head.c). */
saf_status saf__checkpoint_head_write(const saf__h5 *f, const saf_checkpoint_head *head);
/* *newer: it is of a schema that this saf does not know, which makes it BAD_INPUT as well. */
saf_status saf__checkpoint_head_read(const saf__h5 *f, saf_checkpoint_head *out, bool *newer);

/* /state/NAME (checkpoint_state.c): n values, contiguous. Name and type come from other rooms:
 * what does not fit is a DEFECT of theirs. */
saf_status saf__state_check(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t n);
saf_status saf__state_create(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t n,
                             hid_t *out);
saf_status saf__state_open(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t *n,
                           hid_t *out);
/* Values [at, at + count), a piece after the other, each entered and left by itself. */
saf_status saf__state_write(const saf__h5 *f, hid_t dataset, saf_dtype dtype, int64_t at,
                            int64_t count, const void *data);
saf_status saf__state_read(const saf__h5 *f, hid_t dataset, saf_dtype dtype, int64_t at,
                           int64_t count, void *data);
/* As saf_checkpoint_get. */
saf_status saf__state_get(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t most,
                          int64_t *n, void *data);

/* ---- reading (checkpoint_read.c) ---- */

struct saf_checkpoint {
    saf__h5 h5;
    char *path;
    saf_checkpoint_head head;
};
/* As saf_checkpoint_open; *newer as above. */
saf_status saf__checkpoint_open(const char *path, saf_checkpoint **out, bool *newer);

#endif
