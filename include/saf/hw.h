/* saf/hw.h: what this host is. (How fast it is comes with `saf detect`.) Local, one thread. */
#ifndef SAF_HW_H
#define SAF_HW_H

#include "saf/core.h"

typedef struct {
    int32_t cores;  /* physical cores this process may run on */
    char cpus[256]; /* the processing units it may run on, as a list "0-3,8" (cut if longer) */
    int64_t memory_bytes; /* of the host */
} saf_hw_binding;

/* Where this process is bound to run (hwloc; without a binding, the whole host).
 * Errors: FAILED (hwloc cannot read the machine). */
saf_status saf_hw_binding_read(saf_hw_binding *out);

#endif
