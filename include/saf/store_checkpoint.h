/* saf/store_checkpoint.h: a job's state on disk, so that the same command goes on from it.
 *
 * OUTPUT.ckpt-N, N from 1 on, the newest two kept: an HDF5 file behind a user block of 512 bytes
 * that holds the SHA-256 of all that follows it. It is written as OUTPUT.ckpt-N.part (mode 0600),
 * closed, made durable, read back and compared with its checksum, and only then renamed; the folder
 * is made durable as well. A reader checks the checksum before HDF5 sees the file. The schema is
 * documented in doc/results.md.
 *
 * What is in /state is the affair of the kind of job: one-dimensional arrays by name.
 * Ranks: everything is local; rank 0 writes. Threads: one at a time is in HDF5, which the store
 * room sees to itself, letting go between pieces of a few MiB: a checkpoint may be written by one
 * thread while another writes a results file. One writer or reader is for one thread at a time. The
 * text of saf_error_text is one for all threads: a second thread copies its own as soon as a call
 * failed.
 */
#ifndef SAF_PUBLIC_STORE_CHECKPOINT_H
#define SAF_PUBLIC_STORE_CHECKPOINT_H

#include "saf/core.h"

enum { SAF_CHECKPOINT_SCHEMA = 1, SAF_CHECKPOINTS_KEPT = 2 };

/* ---- identity: what makes two runs the same job -------------------------------------------------
 * Names ("model", "input", "generate.max_tokens") and values, in a fixed order; results files hold
 * it as well, in /identity. */
typedef struct {
    char *name, *value; /* owned, UTF-8 */
} saf_identity_item;

typedef struct {
    int32_t n;
    saf_identity_item *items; /* [n] */
} saf_identity;

/* Copies both, as valid UTF-8. Errors: DEFECT (the name is empty or there already). */
saf_status saf_identity_add(saf_identity *id, const char *name, const char *value);
void saf_identity_free(saf_identity *id); /* the members; leaves {0} */
/* Errors: BAD_INPUT, naming `file`, the first item that differs or is missing on one side, what it
 * was and what it is ("results/g.h5 is of another job: generate.max_tokens was 12 and is 64;
 * --fresh starts over, or choose another output.file"). */
saf_status saf_identity_check(const saf_identity *now, const saf_identity *then, const char *file);

/* ---- what a checkpoint says of its job ---- */

typedef struct {
    char *kind;          /* of the job: "generate" */
    char *model_name;    /* for people; NULL where there is none */
    char *version;       /* of saf */
    char *start_time;    /* of the first run; ISO 8601 */
    char *written;       /* when this was */
    int64_t done, total; /* units of work: requests; done <= total */
    int64_t tokens;      /* so far, sampled or scored */
    double seconds;      /* of work so far, over all runs */
    int32_t resumes;     /* times that the job went on from a checkpoint */
    saf_identity identity;
} saf_checkpoint_head;
void saf_checkpoint_head_free(saf_checkpoint_head *head); /* the members; leaves {0} */

/* ---- writing ---- */

typedef struct saf_checkpoint_writer saf_checkpoint_writer;

/* Creates the .part of the next number for this results file (one more than the largest there is).
 * Leftover .part files of checkpoints of this output are removed. Errors: CANNOT_CREATE (another
 * process writes one as well included), IO. */
saf_status saf_checkpoint_create(const char *output, const saf_checkpoint_head *head,
                                 saf_checkpoint_writer **out);
/* /state/NAME: n values of type F32, F64, F16, BF16 (as 16-bit words), I8, I16, I32, I64 (64-bit
 * seeds go as I64 as well) or U8. A name has lower-case letters, digits and underscores, and is
 * given once. After an error only saf_checkpoint_writer_free is of use; HDF5 then keeps a
 * descriptor and some kilobytes until the process ends, so nobody should try for ever. Errors: IO
 * (disk full included, with the bytes needed), DEFECT. */
saf_status saf_checkpoint_put(saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                              int64_t n, const void *data);
/* For what does not fit into memory at once: n values of which rows [at, at + count) are given
 * now, in ascending order without gaps, before anything else is put. n 0: one call with count 0. */
saf_status saf_checkpoint_put_some(saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                                   int64_t n, int64_t at, int64_t count, const void *data);
/* Durable under its name when this returns; then those older than the newest two are removed (a
 * warning where that fails). *bytes, if not NULL: its size. Reads all of it back, and takes about
 * ten seconds for a gigabyte, nearly all of them outside of HDF5.
 * Errors: IO; the files that were there before are untouched. */
saf_status saf_checkpoint_commit(saf_checkpoint_writer *w, int64_t *bytes);
void saf_checkpoint_writer_free(saf_checkpoint_writer **w); /* removes an unfinished .part */

/* ---- reading ---- */

typedef struct saf_checkpoint saf_checkpoint;

/* The newest good checkpoint of this results file; *out is NULL when there is none at all. One
 * that is damaged, cannot be read or is no regular file is named in a warning and the one before is
 * tried. Errors: BAD_INPUT (there are checkpoints and none is good; the newest good one is of a
 * newer schema), IO (the folder cannot be listed; none is good and one could not be read),
 * NO_MEMORY.
 */
saf_status saf_checkpoint_open_newest(const char *output, saf_checkpoint **out);
/* Its path alone, unread (saf_free); NULL when there is none. Errors: IO, NO_MEMORY. */
saf_status saf_checkpoint_newest(const char *output, char **path);
/* One by its own path. Errors: NO_INPUT, BAD_INPUT, IO. */
saf_status saf_checkpoint_open(const char *path, saf_checkpoint **out);
const saf_checkpoint_head *saf_checkpoint_head_of(const saf_checkpoint *c);
const char *saf_checkpoint_path(const saf_checkpoint *c);
/* Values of /state/NAME, n of them in *data (saf_free); the type must be `dtype`, and n is at most
 * `most`. Errors: BAD_INPUT (missing, another type, too many), NO_MEMORY. */
saf_status saf_checkpoint_get(const saf_checkpoint *c, const char *name, saf_dtype dtype,
                              int64_t most, int64_t *n, void *data);
/* How many values it has. Errors: BAD_INPUT (missing, another type). */
saf_status saf_checkpoint_count(const saf_checkpoint *c, const char *name, saf_dtype dtype,
                                int64_t *n);
/* Values [at, at + count) of it, into the caller's memory. Errors: BAD_INPUT (missing, another
 * type, it has fewer). */
saf_status saf_checkpoint_get_some(const saf_checkpoint *c, const char *name, saf_dtype dtype,
                                   int64_t at, int64_t count, void *data);
void saf_checkpoint_free(saf_checkpoint **c);

/* "results/g.h5" of "results/g.h5.ckpt-12" (saf_free); *out stays NULL for any other name. */
saf_status saf_checkpoint_output(const char *path, char **out);
/* Whether a process is writing this results file, or a checkpoint of it, right now. */
saf_status saf_store_is_written(const char *output, bool *written);

/* All checkpoints of this results file, good or not, are removed, and leftovers; what is no regular
 * file stays. Errors: CANNOT_CREATE (another process is writing one), IO. */
saf_status saf_checkpoints_remove(const char *output);

#endif
