/* One distributed product for a bench job. */
#ifndef SAF_JOB_BENCH_MULTIPLY_H
#define SAF_JOB_BENCH_MULTIPLY_H

#include "saf/comm.h"

typedef struct {
    saf_comm *comm;
    const int32_t *host; /* [ranks of comm] numbers of hosts */
    int threads;
    int64_t n; /* of two matrices n x n */
    saf_dtype dtype;
    /* found out */
    int32_t grid_m, grid_n, grid_k;
    int64_t wrong; /* elements of all results so far that this rank has and that are wrong */
    bool apart;    /* an error left the ranks at different places */
} saf__multiply;

/* Collective over comm. Errors: NO_INPUT (no OpenBLAS), NO_MEMORY, USAGE, COMM; after one with
 * `apart` the caller ends the job with saf_comm_abort. */
saf_status saf__multiply_run(saf__multiply *m, double *seconds);

#endif
