/* Matrices as datasets: what their reader, their writer and the results share. */
#ifndef SAF_STORE_MATRIX_H
#define SAF_STORE_MATRIX_H

#include "saf/store_matrix.h"
#include "store/h5.h"

/* A dataset being filled, in a file of somebody else's. */
typedef struct {
    hid_t dataset; /* invalid: none, or closed */
    saf_matrix_shape shape;
    int64_t put; /* elements so far */
} saf__matrix_out;

/* Values as they are in memory; as they are written. */
hid_t saf__matrix_memory_type(saf_dtype dtype);
/* A selection of a dataset's region and the memory that it comes from or goes to. A dataset of one
 * dimension is a column. */
saf_status saf__matrix_select(const saf__h5 *f, hid_t dataset, int64_t row0, int64_t rows,
                              int64_t col0, int64_t cols, int64_t ld, hid_t *file_space,
                              hid_t *memory_space);

saf_status saf__matrix_out_create(saf__h5 *f, const char *path, const saf_matrix_shape *shape,
                                  const char *description, saf__matrix_out *out);
saf_status saf__matrix_out_put(const saf__h5 *f, saf__matrix_out *out, int64_t row0, int64_t rows,
                               int64_t col0, int64_t cols, const void *in, int64_t ld);
/* What was put is read back. Errors: IO. */
saf_status saf__matrix_out_back(const saf__h5 *f, const saf__matrix_out *out, int64_t row0,
                                int64_t rows, int64_t col0, int64_t cols, void *to, int64_t ld);
/* Closes it. Errors: IO, DEFECT (some elements are missing). */
saf_status saf__matrix_out_end(const saf__h5 *f, saf__matrix_out *out);
/* That the file at `path`, closed, holds all of it. Errors: IO. */
saf_status saf__matrix_out_verify(const char *path, const char *dataset,
                                  const saf_matrix_shape *shape);

enum { SAF__MATRIX_SCRATCH_BYTES = 4 << 20 }; /* that a transpose goes through */

#endif
