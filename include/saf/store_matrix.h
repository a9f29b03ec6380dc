/* saf/store_matrix.h: dense matrices in HDF5 files: regions of them read and written, so that none
 * need fit into memory.
 *
 * A matrix is a dataset of two dimensions, or of one, which counts as a column; its values are
 * float32 or float64 of either byte order. Any chunking and HDF5's own filters are fine. What leads
 * to other files is refused, for nothing vouches for what is read there: links of any kind,
 * virtual and external storage; and so are filters that HDF5 would load as a plugin.
 *
 * Ranks: everything is local. Threads: as the rest of the room; one reader or writer is for one
 * thread at a time.
 */
#ifndef SAF_PUBLIC_STORE_MATRIX_H
#define SAF_PUBLIC_STORE_MATRIX_H

#include "saf/core.h"

typedef struct {
    int64_t rows, cols;
    saf_dtype dtype; /* F32 or F64 */
} saf_matrix_shape;

/* ---- reading ---- */

typedef struct saf_matrix saf_matrix;

/* `name` is FILE.h5:/DATASET. Errors: NO_INPUT (no such file), BAD_INPUT (no HDF5 file, no such
 * dataset, no matrix, leads elsewhere), IO, NO_MEMORY. */
saf_status saf_matrix_open(const char *name, saf_matrix **out);
/* Whether a text has the form FILE.h5:/DATASET. */
bool saf_matrix_is_name(const char *name);
/* "FILE.h5" and "/DATASET" of it (saf_free); the last ":/" parts them. Errors: USAGE (another
 * form), NO_MEMORY. */
saf_status saf_matrix_name_split(const char *name, char **file, char **dataset);
saf_matrix_shape saf_matrix_shape_of(const saf_matrix *m);
/* "x.h5:/A (300 x 400, float32)", for messages; the matrix's own. */
const char *saf_matrix_label(const saf_matrix *m);

/* Rows [row0, row0 + rows) x columns [col0, col0 + cols) of the matrix, or of its transpose, as
 * row-major values of its own type, ld >= cols elements from row to row; what lies between is left
 * alone. A transposed region goes through memory of 4 MiB.
 * Errors: DEFECT (beyond the matrix), BAD_INPUT (damaged), IO, NO_MEMORY. */
saf_status saf_matrix_read(saf_matrix *m, bool transposed, int64_t row0, int64_t rows, int64_t col0,
                           int64_t cols, void *out, int64_t ld);
/* XXH3-128 of shape, type and all values, in an order that follows from shape and chunks: reads
 * everything once, some MiB at a time. Errors: as reading. */
saf_status saf_matrix_fingerprint(saf_matrix *m, char hex[33]);
/* The same of 16 pieces of rows: tells one matrix from another without reading all of it. */
saf_status saf_matrix_sample(saf_matrix *m, char hex[33]);
/* The most memory that reading it takes: HDF5's cache of chunks, and of a transpose some more. */
int64_t saf_matrix_memory_bytes(const saf_matrix *m, bool transposed);
void saf_matrix_close(saf_matrix **m);

/* ---- writing ---- */

typedef struct saf_matrix_writer saf_matrix_writer;

/* Creates FILE.part for `name` FILE.h5:/DATASET, whose dataset is chunked and has fletcher32
 * checksums; `description` becomes an attribute of it. Errors: CANNOT_CREATE, IO, DEFECT. */
saf_status saf_matrix_create(const char *name, const saf_matrix_shape *shape,
                             const char *description, saf_matrix_writer **out);
/* A region, each element once over all calls, in any order. After an error only
 * saf_matrix_writer_free is of use. Errors: IO (disk full included, with the bytes needed), DEFECT
 * (beyond the matrix). */
saf_status saf_matrix_put(saf_matrix_writer *w, int64_t row0, int64_t rows, int64_t col0,
                          int64_t cols, const void *in, int64_t ld);
/* A region that was put is read back. Errors: IO, DEFECT. */
saf_status saf_matrix_back(saf_matrix_writer *w, int64_t row0, int64_t rows, int64_t col0,
                           int64_t cols, void *out, int64_t ld);
/* Durable under its name when this returns. Errors: IO, CANNOT_CREATE, DEFECT (some elements were
 * never put). */
saf_status saf_matrix_commit(saf_matrix_writer *w);
void saf_matrix_writer_free(saf_matrix_writer **w); /* removes an unfinished .part */
/* The most memory that writing one of this shape takes, into a file of its own or the results. */
int64_t saf_matrix_writer_bytes(const saf_matrix_shape *shape);

#endif
