/* The tables of a profile. */
#include "store/profile.h"

#define COLUMN(type, member, k, units, text) \
    { #member, units, text, SAF__COLUMN_##k, offsetof(type, member), sizeof((type *)0)->member }
#define TABLE(path, type, text, columns) \
    { path, text, sizeof(type), (int)(sizeof columns / sizeof columns[0]), columns }

/* clang-format off */
#define HOST(member, k, units, text) COLUMN(saf_profile_host, member, k, units, text)
static const saf__column host_columns[] = {
    HOST(host, CHARS, "text", "name of the host"),
    HOST(ranks, I32, "ranks", "ranks that ran on it"),
    HOST(processor, CHARS, "text", "model of its processor"),
    HOST(sockets, I32, "1", "processors"),
    HOST(cores, I32, "cores", "physical cores"),
    HOST(efficiency_cores, I32, "cores", "of these, of slower kinds; 0: all alike, or not known"),
    HOST(threads, I32, "threads", "hardware threads"),
    HOST(usable_cores, I32, "cores", "cores that its ranks may use together, by binding and control groups"),
    HOST(usable_cpus, CHARS, "text", "the processing units of these"),
    HOST(cpu_limit, F64, "processors", "that control groups let it have at a time; NaN: no limit"),
    HOST(nodes, I32, "1", "NUMA nodes with memory"),
    HOST(memory_bytes, I64, "bytes", "memory of the host"),
    HOST(available_bytes, I64, "bytes", "of this, what could be had without swapping; 0: not known"),
    HOST(memory_limit_bytes, I64, "bytes", "that control groups let it have; -1: no limit"),
    HOST(instructions, CHARS, "text", "instruction sets that it has and saf has code for, as the kernel names them"),
    HOST(kernels, CHARS, "text", "the arithmetic that saf chooses on it"),
    HOST(loops, CHARS, "text", "instructions that int8_ops_s and f32_ops_s are of"),
    HOST(power, CHARS, "text", "mains, battery or not known"),
    HOST(accelerators, CHARS, "text", "those that were seen; saf uses none"),
    HOST(read_bytes_s, F64, "bytes/s", "memory read by all usable cores"),
    HOST(copy_bytes_s, F64, "bytes/s", "memory copied by all usable cores, counted once"),
    HOST(int8_ops_s, F64, "operations/s", "products of bytes, two each, by all usable cores"),
    HOST(product_share, F64, "1", "of int8_ops_s, what saf's products of Q8_0 weights by few rows reach"),
    HOST(hidden_share, F64, "1", "of the shorter of reading weights and computing, what eight rows hide behind the longer"),
    HOST(tile_ops_s, F64, "operations/s", "as int8_ops_s, by tile units; NaN: none"),
    HOST(f32_ops_s, F64, "operations/s", "fma of f32, two each, by all usable cores"),
    HOST(f64_ops_s, F64, "operations/s", "fma of f64, two each, by all usable cores"),
    HOST(machine, I32, "1", "number of its machine: hosts with the same one (containers of one kernel) share its memory"),
    HOST(together_read_bytes_s, F64, "bytes/s", "as read_bytes_s, while the other hosts of its machine read as well, which rest otherwise"),
    HOST(folder, CHARS, "text", "the folder whose disk was read"),
    HOST(disk_how, CHARS, "text", "what was read, and past which cache; or why nothing was"),
    HOST(disk_bytes, I64, "bytes", "read"),
    HOST(disk_bytes_s, F64, "bytes/s", "of that disk, all hosts at the same time; NaN: not measured"),
};

#define CACHE(member, k, units, text) COLUMN(saf_profile_cache, member, k, units, text)
static const saf__column cache_columns[] = {
    CACHE(host, CHARS, "text", "the host"),
    CACHE(level, I32, "1", "1: nearest to a core"),
    CACHE(kind, CHARS, "text", "data or unified (for instructions too)"),
    CACHE(count, I32, "1", "so many of these"),
    CACHE(threads, I32, "threads", "hardware threads that share one"),
    CACHE(bytes, I64, "bytes", "size of one"),
};

#define NODE(member, k, units, text) COLUMN(saf_profile_node, member, k, units, text)
static const saf__column node_columns[] = {
    NODE(host, CHARS, "text", "the host"),
    NODE(node, I32, "1", "number of the NUMA node"),
    NODE(memory_bytes, I64, "bytes", "memory on it"),
    NODE(cpus, CHARS, "text", "processing units that it is nearest to"),
};

#define DEVICE(member, k, units, text) COLUMN(saf_profile_device, member, k, units, text)
static const saf__column device_columns[] = {
    DEVICE(host, CHARS, "text", "the host"),
    DEVICE(kind, CHARS, "text", "display, 3D, accelerator or coprocessor"),
    DEVICE(name, CHARS, "text", "maker and model, or their numbers"),
    DEVICE(bus, CHARS, "text", "its place on the bus"),
};

#define RATE(member, k, units, text) COLUMN(saf_profile_rate, member, k, units, text)
static const saf__column rate_columns[] = {
    RATE(host, CHARS, "text", "the host"),
    RATE(threads, I32, "threads", "how many worked together, a core each"),
    RATE(samples, I32, "1", "how often memory was measured, at least; the median of these is given"),
    RATE(read_bytes_s, F64, "bytes/s", "memory read"),
    RATE(copy_bytes_s, F64, "bytes/s", "memory copied, counted once"),
    RATE(int8_ops_s, F64, "operations/s", "products of bytes, two each"),
    RATE(f32_ops_s, F64, "operations/s", "fma of f32, two each"),
    RATE(f64_ops_s, F64, "operations/s", "fma of f64, two each"),
};

#define LINK(member, k, units, text) COLUMN(saf_profile_link, member, k, units, text)
static const saf__column link_columns[] = {
    LINK(host_a, CHARS, "text", "one host"),
    LINK(host_b, CHARS, "text", "the other"),
    LINK(round, I32, "1", "pairs of the same round were measured side by side; no host is in two of one"),
    LINK(latency_s, F64, "s", "of a byte, one way"),
    LINK(short_s, F64, "s", "of 2048 bytes, one way; 0: not measured"),
    LINK(bytes, I64, "bytes", "of a message that the rates are of"),
    LINK(bytes_s_to_b, F64, "bytes/s", "from the one to the other"),
    LINK(bytes_s_to_a, F64, "bytes/s", "the other way"),
};
/* clang-format on */

static const saf__table hosts_table =
    TABLE("/hosts", saf_profile_host, "one row per host", host_columns);
static const saf__table caches_table = TABLE(
    "/caches", saf_profile_cache, "caches of each host, those alike in one row", cache_columns);
static const saf__table nodes_table =
    TABLE("/nodes", saf_profile_node, "NUMA nodes of each host", node_columns);
static const saf__table devices_table =
    TABLE("/devices", saf_profile_device, "accelerators of each host", device_columns);
static const saf__table rates_table =
    TABLE("/rates", saf_profile_rate, "what 1, 2, 4, ... and all usable cores reach together",
          rate_columns);
static const saf__table links_table =
    TABLE("/links", saf_profile_link, "messages between every two hosts", link_columns);

const saf__table *const saf__profile_tables[SAF_PROFILE_TABLES] = {
    [SAF_PROFILE_HOSTS] = &hosts_table, [SAF_PROFILE_CACHES] = &caches_table,
    [SAF_PROFILE_NODES] = &nodes_table, [SAF_PROFILE_DEVICES] = &devices_table,
    [SAF_PROFILE_RATES] = &rates_table, [SAF_PROFILE_LINKS] = &links_table,
};
