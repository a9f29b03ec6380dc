/* A results file being written, shared by the sources that write its parts. */
#ifndef SAF_STORE_WRITER_H
#define SAF_STORE_WRITER_H

#include "store/matrix.h"
#include "store/part.h"
#include "store/schema.h"

struct saf_results_writer {
    saf__part part;
    saf__h5 h5;
    hid_t logits;               /* invalid until the first rows */
    int64_t vocab, rows;        /* rows: the highest one written, plus 1 */
    int64_t chunk_rows, chunks; /* of /logits; how many of them were written to */
    saf_buf touched;            /* a byte per chunk: 1 when written to */
    bool product_begun;
    saf__matrix_out product; /* /C */
    /* Set while HDF5 writes, and for ever when that failed: it may have lost data and call the
     * next write a success, and closing the file may crash it (1.10.8). */
    bool broken;
};

/* The writer may be used: not finished, and no write failed before. Errors: DEFECT, IO. */
saf_status saf__results_check_usable(const saf_results_writer *w);
/* Rows of /logits, as many as saf__results_block_rows at a time. */
saf_status saf__results_read_rows(const saf_results_writer *w, int64_t row0, int64_t rows,
                                  float *logits);
int64_t saf__results_block_rows(const saf_results_writer *w);
/* Where the product is. */
extern const char saf__product_path[];
/* Requests come from other rooms: counts and rows that do not fit are a DEFECT of theirs. */
saf_status saf__results_check_requests(const saf_results_writer *w, const saf_results *r);
/* /tokens, and /logprobs where there are any. */
saf_status saf__results_write_tokens(const saf__h5 *f, const saf_results *r);
saf_status saf__results_write_logprobs(const saf__h5 *f, const saf_results *r);

#endif
