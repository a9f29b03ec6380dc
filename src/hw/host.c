/* What hwloc tells of this host. */
#include "saf/hw_host.h"

#include <hwloc.h>
#include <stdio.h>

#include "hw/topology.h"
#include "saf/kernel.h"

saf_status saf__hw_topology(bool devices, hwloc_topology_t *out) {
    hwloc_topology_t t = NULL;
    *out = NULL;
    if (hwloc_topology_init(&t) == 0 &&
        (!devices ||
         hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) == 0) &&
        hwloc_topology_load(t) == 0) {
        *out = t;
        return SAF_OK;
    }
    if (t) hwloc_topology_destroy(t);
    return saf_fail(SAF_FAILED, "hwloc cannot read this machine's topology");
}

int32_t saf__hw_cores_within(hwloc_topology_t topology, hwloc_const_bitmap_t set) {
    int32_t cores = 0;
    int n = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    for (int i = 0; i < n; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, (unsigned)i);
        if (hwloc_bitmap_intersects(core->cpuset, set)) cores++;
    }
    /* Some virtual machines show no cores, only processing units. */
    return cores > 0 ? cores : (int32_t)saf_i64_max(1, hwloc_bitmap_weight(set));
}

/* ---- processors ---- */

static void read_model(hwloc_topology_t t, saf_hw_host *out) {
    hwloc_obj_t package = hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, 0);
    const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!model) model = hwloc_obj_get_info_by_name(hwloc_get_root_obj(t), "CPUModel");
    snprintf(out->processor, sizeof out->processor, "%s", model ? model : "");
}

/* Kinds are sorted by what they can do, the most able last, where the system says so. */
static void count_kinds(hwloc_topology_t t, saf_hw_host *out) {
    int n = hwloc_cpukinds_get_nr(t, 0);
    hwloc_bitmap_t set = n > 1 ? hwloc_bitmap_alloc() : NULL;
    for (int i = 0; set && i < n - 1; i++) {
        int able = -1;
        if (hwloc_cpukinds_get_info(t, (unsigned)i, set, &able, NULL, NULL, 0) == 0 && able >= 0)
            out->efficiency_cores += saf__hw_cores_within(t, set);
    }
    hwloc_bitmap_free(set);
}

static void add_word(char *text, size_t size, const char *word) {
    size_t len = strlen(text);
    snprintf(text + len, size - len, "%s%s", len ? " " : "", word);
}

/* The names are the kernel's. */
static void list_instructions(saf_hw_host *out) {
    char *text = out->instructions;
    size_t size = sizeof out->instructions;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) add_word(text, size, "avx2");
    if (__builtin_cpu_supports("fma")) add_word(text, size, "fma");
    if (__builtin_cpu_supports("avx512f")) add_word(text, size, "avx512f");
    if (__builtin_cpu_supports("avx512bw")) add_word(text, size, "avx512bw");
    if (__builtin_cpu_supports("avx512vl")) add_word(text, size, "avx512vl");
    if (__builtin_cpu_supports("avx512dq")) add_word(text, size, "avx512dq");
    if (__builtin_cpu_supports("avx512vnni")) add_word(text, size, "avx512_vnni");
    if (saf_kernels_have_tiles()) add_word(text, size, "amx_int8");
#elif defined(__aarch64__)
    add_word(text, size, "asimd");
    if (strstr(saf_kernels_name(), "dotprod")) add_word(text, size, "asimddp");
#else
    add_word(text, size, "none");
#endif
    snprintf(out->kernels, sizeof out->kernels, "%s", saf_kernels_name());
}

/* ---- memory ---- */

static void add_cache(hwloc_obj_t cache, saf_hw_host *out) {
    bool data = cache->attr->cache.type == HWLOC_OBJ_CACHE_DATA;
    saf_hw_cache c = {.level = (int32_t)cache->attr->cache.depth,
                      .bytes = (int64_t)cache->attr->cache.size,
                      .threads = hwloc_bitmap_weight(cache->cpuset)};
    snprintf(c.kind, sizeof c.kind, "%s", data ? "data" : "unified");
    for (int32_t i = 0; i < out->n_caches; i++) {
        saf_hw_cache *k = &out->caches[i];
        if (k->level != c.level || k->bytes != c.bytes || k->threads != c.threads ||
            strcmp(k->kind, c.kind) != 0)
            continue;
        k->count++;
        return;
    }
    if (out->n_caches == SAF_HW_CACHES_MAX) return;
    c.count = 1;
    out->caches[out->n_caches++] = c;
}

static void read_caches(hwloc_topology_t t, saf_hw_host *out) {
    static const hwloc_obj_type_t types[] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
                                             HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE,
                                             HWLOC_OBJ_L5CACHE};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        int n = hwloc_get_nbobjs_by_type(t, types[i]);
        for (int j = 0; j < n; j++) add_cache(hwloc_get_obj_by_type(t, types[i], (unsigned)j), out);
    }
}

static void read_nodes(hwloc_topology_t t, saf_hw_host *out) {
    int n = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
    for (int i = 0; i < n && out->n_nodes < SAF_HW_NODES_MAX; i++) {
        hwloc_obj_t node = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, (unsigned)i);
        saf_hw_node *to = &out->nodes[out->n_nodes++];
        *to = (saf_hw_node){.node = (int32_t)node->os_index,
                            .memory_bytes = (int64_t)node->attr->numanode.local_memory};
        hwloc_bitmap_list_snprintf(to->cpus, sizeof to->cpus, node->cpuset);
    }
}

/* ---- accelerators ---- */

/* NULL: none. Of the PCI's classes 0x03 are displays, 0x12 accelerators; both words of a class. */
static const char *pci_kind(unsigned class_id) {
    if (class_id >> 8 == 0x12) return "accelerator";
    if (class_id == 0x0302) return "3D";
    return class_id >> 8 == 0x03 ? "display" : NULL;
}

static void name_device(hwloc_obj_t device, saf_hw_device *out) {
    const char *maker = hwloc_obj_get_info_by_name(device, "PCIVendor");
    const char *model = hwloc_obj_get_info_by_name(device, "PCIDevice");
    const struct hwloc_pcidev_attr_s *pci = &device->attr->pcidev;
    if (maker && model)
        snprintf(out->name, sizeof out->name, "%s %s", maker, model);
    else
        snprintf(out->name, sizeof out->name, "%04x:%04x", pci->vendor_id, pci->device_id);
    snprintf(out->bus, sizeof out->bus, "%04x:%02x:%02x.%x", (unsigned)pci->domain, pci->bus,
             pci->dev, pci->func);
}

static void read_devices(hwloc_topology_t t, saf_hw_host *out) {
    for (hwloc_obj_t o = hwloc_get_next_pcidev(t, NULL); o; o = hwloc_get_next_pcidev(t, o)) {
        const char *kind = pci_kind(o->attr->pcidev.class_id);
        if (!kind || out->n_devices == SAF_HW_DEVICES_MAX) continue;
        saf_hw_device *to = &out->devices[out->n_devices++];
        *to = (saf_hw_device){0};
        snprintf(to->kind, sizeof to->kind, "%s", kind);
        name_device(o, to);
    }
    for (hwloc_obj_t o = hwloc_get_next_osdev(t, NULL); o; o = hwloc_get_next_osdev(t, o)) {
        bool on_pci = o->parent && o->parent->type == HWLOC_OBJ_PCI_DEVICE &&
                      pci_kind(o->parent->attr->pcidev.class_id);
        if (o->attr->osdev.type != HWLOC_OBJ_OSDEV_COPROC || on_pci ||
            out->n_devices == SAF_HW_DEVICES_MAX)
            continue;
        saf_hw_device *to = &out->devices[out->n_devices++];
        *to = (saf_hw_device){.kind = "coprocessor"};
        snprintf(to->name, sizeof to->name, "%s", o->name ? o->name : "");
    }
}

static void read_machine(hwloc_topology_t t, saf_hw_host *out) {
    *out = (saf_hw_host){0};
    read_model(t, out);
    out->cores = saf__hw_cores_within(t, hwloc_get_root_obj(t)->cpuset);
    out->memory_bytes = saf__hw_memory_total(t);
}

saf_status saf_hw_host_glance(saf_hw_host *out) {
    hwloc_topology_t t;
    saf_status st = saf__hw_topology(false, &t);
    if (st != SAF_OK) return st;
    read_machine(t, out);
    hwloc_topology_destroy(t);
    return st;
}

saf_status saf_hw_host_read(saf_hw_host *out) {
    hwloc_topology_t t;
    saf_status st = saf__hw_topology(true, &t);
    if (st != SAF_OK) return st;
    read_machine(t, out);
    out->sockets = (int32_t)saf_i64_max(1, hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PACKAGE));
    out->threads = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    count_kinds(t, out);
    read_caches(t, out);
    read_nodes(t, out);
    read_devices(t, out);
    hwloc_topology_destroy(t);
    st = saf_kernels_init(NULL);
    if (st == SAF_OK) list_instructions(out);
    return st;
}

/* ---- processing units ---- */

/* A set of processing units, and what the system has of them; both the caller's to free. */
static saf_status new_set(hwloc_topology_t *t, hwloc_bitmap_t *set) {
    saf_status st = saf__hw_topology(false, t);
    if (st != SAF_OK) return st;
    *set = hwloc_bitmap_alloc();
    return *set ? SAF_OK : saf_fail(SAF_NO_MEMORY, "cannot allocate a set of processors");
}

saf_status saf_hw_cpus_read(uint8_t *cpus) {
    saf_status st = SAF_OK;
    hwloc_topology_t t = NULL;
    hwloc_bitmap_t set = NULL;
    SAF_TRY(new_set(&t, &set));
    if (hwloc_get_cpubind(t, set, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(t));
    for (unsigned i = 0; i < SAF_HW_CPUS_MAX; i++) cpus[i] = hwloc_bitmap_isset(set, i) != 0;
out:
    hwloc_bitmap_free(set);
    if (t) hwloc_topology_destroy(t);
    return st;
}

saf_status saf_hw_cpus_bind(const uint8_t *cpus, int32_t *cores, char *list) {
    saf_status st = SAF_OK;
    hwloc_topology_t t = NULL;
    hwloc_bitmap_t set = NULL;
    SAF_TRY(new_set(&t, &set));
    for (unsigned i = 0; i < SAF_HW_CPUS_MAX; i++)
        if (cpus[i] && hwloc_bitmap_set(set, i) != 0) {
            st = saf_fail(SAF_NO_MEMORY, "cannot allocate a set of processors");
            goto out;
        }
    /* A system that cannot bind leaves the process where it is: no worse than before. */
    (void)hwloc_set_cpubind(t, set, HWLOC_CPUBIND_PROCESS);
    *cores = saf__hw_cores_within(t, set);
    hwloc_bitmap_list_snprintf(list, 256, set);
out:
    hwloc_bitmap_free(set);
    if (t) hwloc_topology_destroy(t);
    return st;
}
