#include "hw/topology.h"
#include "saf/hw.h"
#include "saf/hw_host.h"

/* The caches of the highest level that there is, all of them added up. */
static int64_t largest_caches(hwloc_topology_t topology) {
    static const hwloc_obj_type_t levels[] = {HWLOC_OBJ_L5CACHE, HWLOC_OBJ_L4CACHE,
                                              HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        int64_t bytes = 0;
        int n = hwloc_get_nbobjs_by_type(topology, levels[i]);
        for (int j = 0; j < n; j++) {
            hwloc_obj_t cache = hwloc_get_obj_by_type(topology, levels[i], (unsigned)j);
            bytes += (int64_t)cache->attr->cache.size;
        }
        if (bytes > 0) return bytes;
    }
    return 0;
}

saf_status saf_hw_binding_read(saf_hw_binding *out) {
    saf_status st = SAF_OK;
    hwloc_topology_t topology = NULL;
    hwloc_bitmap_t set = NULL;
    saf_hw_limits limits;
    /* What cannot be read limits nothing. */
    bool limited = saf_hw_limits_read("", &limits) == SAF_OK && limits.memory_bytes > 0;
    SAF_TRY(saf__hw_topology(false, &topology));
    set = hwloc_bitmap_alloc();
    if (!set) {
        st = saf_fail(SAF_NO_MEMORY, "cannot allocate a set of processors");
        goto out;
    }
    if (hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(topology));
    *out = (saf_hw_binding){0};
    out->cores = saf__hw_cores_within(topology, set);
    hwloc_bitmap_list_snprintf(out->cpus, sizeof out->cpus, set);
    out->memory_bytes = saf__hw_memory_total(topology);
    if (limited) out->memory_bytes = saf_i64_min(out->memory_bytes, limits.memory_bytes);
    out->cache_bytes = largest_caches(topology);
out:
    hwloc_bitmap_free(set);
    if (topology) hwloc_topology_destroy(topology);
    return st;
}
