/* Where the ranks are, and what each may take of its host. */
#ifndef SAF_JOB_HOST_SHARE_H
#define SAF_JOB_HOST_SHARE_H

#include "saf/comm.h"
#include "saf/hw.h"

typedef struct {
    saf_hw_binding binding;
    int32_t threads;      /* to compute with; the OpenMP team of this thread is set to it */
    int64_t memory_bytes; /* of its host, shared evenly with the other ranks there */
} saf__host_share;

/* Threads: `threads`, or where that is 0 the cores the rank may run on, shared fairly with the
 * ranks that may run on the very same ones (no binding, or more ranks than cores). (*host)[ranks]
 * (saf_free) is the number of each rank's host, in the order of the hosts' first ranks. Collective;
 * the same `threads` everywhere. */
saf_status saf__hosts_share(saf_comm *world, int32_t threads, saf__host_share *out, int32_t **host);

/* What each rank can do, from what the job says of hosts or ranks: share[ranks]. Errors: USAGE. */
saf_status saf__shares_spread(const double *given, int32_t n, const int32_t *host, int32_t ranks,
                              double *share);

#endif
