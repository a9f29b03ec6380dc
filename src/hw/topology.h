/* topology.h: what the files that ask hwloc share. */
#ifndef SAF_HW_TOPOLOGY_H
#define SAF_HW_TOPOLOGY_H

#include <hwloc.h>

#include "saf/core.h"

/* This machine's; `devices`: those on its buses too. To be destroyed. Errors: FAILED. */
saf_status saf__hw_topology(bool devices, hwloc_topology_t *out);
/* Physical cores with a processing unit in the set; these units where the system shows no cores. */
int32_t saf__hw_cores_within(hwloc_topology_t topology, hwloc_const_bitmap_t set);

/* Memory of the machine, in bytes. */
int64_t saf__hw_memory_total(hwloc_topology_t topology);

#endif
