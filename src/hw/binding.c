#include <hwloc.h>

#include "saf/hw.h"

static int32_t cores_within(hwloc_topology_t topology, hwloc_const_bitmap_t set) {
    int32_t cores = 0;
    int n = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int i = 0; i < n; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)i);
        if (hwloc_bitmap_intersects(core->cpuset, set)) cores++;
    }
    /* Some virtual machines show no cores, only processing units. */
    return cores > 0 ? cores : (int32_t)saf_i64_max(1, hwloc_bitmap_weight(set));
}

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
    if (hwloc_topology_init(&topology) != 0 || hwloc_topology_load(topology) != 0) {
        st = saf_fail(SAF_FAILED, "hwloc cannot read this machine's topology");
        goto out;
    }
    set = hwloc_bitmap_alloc();
    if (!set) {
        st = saf_fail(SAF_NO_MEMORY, "cannot allocate a set of processors");
        goto out;
    }
    if (hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(topology));
    *out = (saf_hw_binding){0};
    out->cores = cores_within(topology, set);
    hwloc_bitmap_list_snprintf(out->cpus, sizeof out->cpus, set);
    hwloc_obj_t root = hwloc_get_root_obj(topology);
    out->memory_bytes = (int64_t)root->total_memory;
    out->cache_bytes = largest_caches(topology);
out:
    hwloc_bitmap_free(set);
    if (topology) hwloc_topology_destroy(topology);
    return st;
}
