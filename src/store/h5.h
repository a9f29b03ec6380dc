/* HDF5 with every return checked: what the schema code of this room is written in.
 *
 * A handle starts as H5I_INVALID_HID. In a file being written, closing a dataset is where a full
 * disk shows (writing it may succeed), so writers close with saf__h5_check around saf__h5_close;
 * the `out:` path closes unchecked what is still open.
 */
#ifndef SAF_STORE_H5_H
#define SAF_STORE_H5_H

#include <hdf5.h>

#include "saf/core.h"

/* A file of HDF5, and what its errors say about it. */
typedef struct {
    hid_t id;
    const char *path;     /* borrowed */
    bool writing;         /* an error is IO, not BAD_INPUT */
    int64_t needed_bytes; /* writing: the least size of the whole file */
} saf__h5;

#define SAF__H5_EMPTY \
    { H5I_INVALID_HID, NULL, false, 0 }

/* Dataset path or attribute name with what a reader of the file is told about it. */
typedef struct {
    const char *path, *units, *description;
} saf__h5_label;

/* HDF5 is for one thread at a time: whoever calls it does so between these two. Public functions
 * of the room that call it may call each other, but none stays inside over hundreds of megabytes
 * or a wait for the disk, so that a checkpoint can be written beside a results file.
 *
 * Entering also sets what HDF5 does on errors: it prints its own error stack unless told not to,
 * and at the process's exit closes its files once more, where it crashes (1.10.8) if one could not
 * be written because the disk was full. */
void saf__h5_enter(void);
void saf__h5_leave(void);
/* HDF5 also crashes where it gets no memory: asked before files and datasets are created or opened.
 * Errors: NO_MEMORY. */
saf_status saf__h5_room(void);
/* rc < 0: fails with `what` was being done, HDF5's innermost message and, when writing, the bytes
 * needed and free. Errors: IO (writing, or the disk could not be read), BAD_INPUT (reading),
 * NO_MEMORY. */
saf_status saf__h5_check(const saf__h5 *f, int64_t rc, const char *what);
/* The same for a call that returns a handle; *out is set on success. */
saf_status saf__h5_take(const saf__h5 *f, hid_t id, const char *what, hid_t *out);
/* Closes a handle of any kind and makes it invalid; an invalid one is fine. */
herr_t saf__h5_close(hid_t *id);

/* Replaces what is at `path`; the first `user_block` bytes (0, 512, ...) are not HDF5's. Locks are
 * the caller's affair. */
saf_status saf__h5_create_file(const char *path, int user_block, saf__h5 *out);
/* Errors: NO_INPUT, BAD_INPUT (no HDF5 file, truncated). `path` is borrowed. */
saf_status saf__h5_open_file(const char *path, saf__h5 *out);

saf_status saf__h5_make_group(const saf__h5 *f, const char *path);

/* Links and layouts of HDF5 can lead to other files, whose content nothing vouches for: that `path`
 * is in `group`, and both in this file; that a dataset is stored in it; and in one piece.
 * Errors: BAD_INPUT. */
saf_status saf__h5_check_inside(const saf__h5 *f, const char *group, const char *path);
saf_status saf__h5_check_own(const saf__h5 *f, const char *path, hid_t dataset);
saf_status saf__h5_check_contiguous(const saf__h5 *f, const char *path, hid_t dataset);

/* `size` is H5T_VARIABLE (h5py's str) or a number of bytes, with a closing zero. */
saf_status saf__h5_string_type(const saf__h5 *f, size_t size, H5T_cset_t cset, hid_t *out);

/* `text` if it is valid UTF-8; else *owned is a copy with every invalid byte replaced. */
saf_status saf__h5_clean(const char *text, char **owned, const char **out);

/* ---- attributes of a file, group or dataset ---- */

saf_status saf__h5_put_text(const saf__h5 *f, hid_t object, const char *name, const char *text);
saf_status saf__h5_put_texts(const saf__h5 *f, hid_t object, const char *name, int n,
                             const char *const *texts);
saf_status saf__h5_put_i64(const saf__h5 *f, hid_t object, const char *name, int64_t value);
saf_status saf__h5_put_f64(const saf__h5 *f, hid_t object, const char *name, double value);
/* *out stays NULL when there is no such attribute. Errors: BAD_INPUT (it is no text). */
saf_status saf__h5_get_text(const saf__h5 *f, hid_t object, const char *name, char **out);
/* Errors: BAD_INPUT (missing, no whole number / no number). */
saf_status saf__h5_get_i64(const saf__h5 *f, hid_t object, const char *name, int64_t *out);
saf_status saf__h5_get_f64(const saf__h5 *f, hid_t object, const char *name, double *out);

/* ---- datasets: chunked, extendible in the first dimension, with fletcher32 ---- */

/* cols 0 makes it one-dimensional. `fill`: what a place that is never written reads as; NULL: 0. */
saf_status saf__h5_create(const saf__h5 *f, const saf__h5_label *label, hid_t file_type,
                          const float *fill, int64_t rows, int64_t cols, hid_t *out);
/* Rows of one chunk of such a dataset. */
int64_t saf__h5_chunk_rows(int64_t rows, size_t row_bytes);
/* Creates, writes and closes. */
saf_status saf__h5_put_array(const saf__h5 *f, const saf__h5_label *label, hid_t file_type,
                             hid_t memory_type, int64_t rows, int64_t cols, const void *data);
saf_status saf__h5_put_strings(const saf__h5 *f, const saf__h5_label *label, int64_t n,
                               const char *const *texts);

/* Whether there is such a dataset. Errors: IO, BAD_INPUT, NO_MEMORY, if that could not be found
 * out. */
saf_status saf__h5_has(const saf__h5 *f, const char *path, bool *out);
/* Opens a dataset of ndim dimensions (1 or 2) and this class whose values are all really stored,
 * so that its shape may be trusted with memory. */
saf_status saf__h5_open(const saf__h5 *f, const char *path, H5T_class_t type_class, int ndim,
                        hid_t *out, int64_t shape[2]);
/* Numbers as memory_type of `size` bytes: *out has shape[0] x shape[1] of them (shape[1] is 1 for
 * ndim 1). */
saf_status saf__h5_get_array(const saf__h5 *f, const char *path, H5T_class_t type_class, int ndim,
                             hid_t memory_type, size_t size, void *out, int64_t shape[2]);
/* Strings of either kind; each and the array are to be freed. */
saf_status saf__h5_get_strings(const saf__h5 *f, const char *path, char ***out, int64_t *n);
/* Selects rows [row0, row0 + rows) of an open dataset. */
saf_status saf__h5_select_rows(const saf__h5 *f, hid_t dataset, int64_t row0, int64_t rows,
                               hid_t *file_space, hid_t *memory_space);

#endif
