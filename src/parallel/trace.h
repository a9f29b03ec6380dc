/* Inside of a timeline, for its tests. */
#ifndef SAF_PARALLEL_TRACE_H
#define SAF_PARALLEL_TRACE_H

#include "saf/parallel.h"

/* How far this rank's clock was ahead of rank 0's when it showed at_s. */
typedef struct {
    double at_s, ahead_s;
} saf__clock_meeting;

struct saf_trace {
    int64_t capacity, count;  /* of `entries`; ever added: the newest are kept */
    saf_trace_entry *entries; /* a ring */
    saf__clock_meeting first, last;
    int32_t meetings;
};

/* A time of this rank's clock on rank 0's: by the meetings before and after, the clocks drifting
 * evenly in between. */
double saf__trace_on_rank0(const saf_trace *trace, double t);

#endif
