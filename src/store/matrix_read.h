/* An open matrix. */
#ifndef SAF_STORE_MATRIX_READ_H
#define SAF_STORE_MATRIX_READ_H

#include "store/matrix.h"

struct saf_matrix {
    char *file, *dataset, *label;
    saf__h5 h5; /* its path is `file` */
    hid_t id;
    int ndim;
    saf_matrix_shape shape;
    int64_t chunk_rows,
        chunk_cols; /* of one that is not chunked: a row; 1 at least, and never above the shape */
    int64_t chunk_bytes; /* 0: it is not chunked */
    char *scratch;       /* for transposing; NULL until then */
};

#endif
