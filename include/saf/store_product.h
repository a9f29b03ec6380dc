/* saf/store_product.h: what a results file holds of a matrix product, and the product itself as its
 * dataset /C.
 *
 * Ranks: everything is local; rank 0 writes.
 */
#ifndef SAF_PUBLIC_STORE_PRODUCT_H
#define SAF_PUBLIC_STORE_PRODUCT_H

#include "saf/store_matrix.h"

/* What one rank had to do with it: a row of /product/ranks. */
typedef struct {
    int32_t rank;
    int32_t row, col, segment;              /* its place in the grid; -1: idle */
    int64_t rows, cols;                     /* of C that it computes, */
    int64_t depth;                          /* over so many of k */
    int64_t bytes_modelled, bytes_received; /* by messages of the product between ranks */
    int64_t read_modelled, bytes_read;      /* of A and B */
    int64_t memory_modelled;                /* of its matrices */
    double compute_s, wait_s, io_s, operations;
} saf_result_share;

/* Root attributes, product_m and so on, but for the rows. */
typedef struct {
    bool there; /* a job that multiplied */
    int64_t m, n, k;
    char *dtype;     /* "float32" */
    char *a, *b, *c; /* where they came from; "" where there was none */
    char *stored;    /* where C is; "" where it is not */
    double alpha, beta;
    int64_t transpose_a, transpose_b, transpose_c;
    char *grid; /* "2 x 1 x 1": rows, columns, segments */
    int64_t tile_m, tile_n, tile_k, segments;
    char *core;                             /* of OpenBLAS: whose bits these are */
    char *sha256;                           /* of the SHA-256 of each tile, tile rows first */
    int64_t memory_cap_bytes;               /* of each rank; 0: none */
    int64_t bytes_modelled, bytes_received; /* of all ranks */
    double flops_per_s;                     /* 2 m n k by run_s */
    double check_ratio; /* the largest residual of a row by its bound: at most 1 */
    double check_sees;  /* a change this large of any one element is noticed */
    int64_t check_rows; /* that could be checked: others hold what is not finite */
    double check_s;     /* that took */
    int64_t n_shares;
    saf_result_share *shares; /* [n_shares] a rank each */
} saf_result_product;

typedef struct saf_results_writer saf_results_writer;

/* Begins /C. Errors: IO, DEFECT (twice). */
saf_status saf_results_product(saf_results_writer *w, const saf_matrix_shape *shape);
/* A region of it; each element once. Errors: IO, DEFECT. */
saf_status saf_results_product_put(saf_results_writer *w, int64_t row0, int64_t rows, int64_t col0,
                                   int64_t cols, const void *in, int64_t ld);
/* One that was put is read back. Errors: IO, DEFECT. */
saf_status saf_results_product_back(saf_results_writer *w, int64_t row0, int64_t rows, int64_t col0,
                                    int64_t cols, void *out, int64_t ld);

#endif
