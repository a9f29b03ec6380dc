/* saf/hw_host.h: what this host has, as hwloc and the kernel tell it, and how fast its disk is
 * read. Local. */
#ifndef SAF_PUBLIC_HW_HOST_H
#define SAF_PUBLIC_HW_HOST_H

#include "saf/core.h"

enum { SAF_HW_CACHES_MAX = 16, SAF_HW_NODES_MAX = 64, SAF_HW_DEVICES_MAX = 32 };

/* Caches of data that are alike. */
typedef struct {
    int32_t level;
    char kind[16];   /* "data", "unified": for instructions too */
    int32_t count;   /* of the host */
    int64_t bytes;   /* of each */
    int32_t threads; /* that share one */
} saf_hw_cache;

typedef struct {
    int32_t node; /* the system's number */
    int64_t memory_bytes;
    char cpus[256]; /* a list "0-3,8" (cut if longer) */
} saf_hw_node;

/* A graphics card, coprocessor or other accelerator. saf computes on none of them. */
typedef struct {
    char kind[24];  /* "display", "3D", "accelerator", "coprocessor" */
    char name[128]; /* maker and model, or their numbers */
    char bus[32];   /* "0000:01:00.0"; "" where it is on none */
} saf_hw_device;

typedef struct {
    char processor[128]; /* model; "" if not known */
    int32_t sockets, cores, threads;
    int32_t efficiency_cores; /* of the cores, those of slower kinds; 0: all alike, or not known */
    int64_t memory_bytes;
    char instructions[160]; /* of those that saf has code for, the ones it may use here */
    char kernels[32];       /* the arithmetic that saf chooses */
    int32_t n_caches, n_nodes, n_devices;
    saf_hw_cache caches[SAF_HW_CACHES_MAX];
    saf_hw_node nodes[SAF_HW_NODES_MAX];
    saf_hw_device devices[SAF_HW_DEVICES_MAX];
} saf_hw_host;

/* The whole host, whatever this process is bound to. Errors: FAILED (hwloc). */
saf_status saf_hw_host_read(saf_hw_host *out);
/* Of these only processor, cores and memory_bytes, the rest {0}: buses are not searched, and
 * nothing is chosen. Errors: FAILED (hwloc). */
saf_status saf_hw_host_glance(saf_hw_host *out);

/* What the control groups of this process let it have; 0: no limit. `root` stands before the paths
 * of /proc and /sys: "", or a folder with such files. */
typedef struct {
    double cpus; /* seconds of processors in a second */
    int64_t memory_bytes;
} saf_hw_limits;
saf_status saf_hw_limits_read(const char *root, saf_hw_limits *out);
/* A text that all hosts have which are one machine (network namespaces, containers), and no other
 * host; "": not known. */
enum { SAF_HW_BOOT_BYTES = 64 };
void saf_hw_boot_read(const char *root, char out[SAF_HW_BOOT_BYTES]);
/* "mains", "battery", or "not known", as where there is no battery. */
const char *saf_hw_power(const char *root);

/* ---- processing units ---------------------------------------------------------------------------
 * Which ones a process may use, a byte for each, so that ranks of a host can add theirs up. */

enum { SAF_HW_CPUS_MAX = 8192 };
/* cpus[SAF_HW_CPUS_MAX]: 1 where this process may run. Errors: FAILED (hwloc), NO_MEMORY. */
saf_status saf_hw_cpus_read(uint8_t *cpus);
/* All threads of this process, those that come included, may run there and nowhere else. *cores:
 * physical cores among them; `list` (256 bytes) names them. Errors: FAILED, NO_MEMORY. */
saf_status saf_hw_cpus_bind(const uint8_t *cpus, int32_t *cores, char *list);

/* ---- disk ---- */

typedef struct {
    char how[96]; /* what was read, and past which cache */
    int64_t bytes;
    double seconds, bytes_s;
} saf_hw_disk;
/* Reads a file of `bytes` in `folder` by a few threads for `limit_s` at most, past the page cache
 * if that can be: one that is written for it and removed, or where the folder cannot be written,
 * the largest that it has. Errors: NO_INPUT (no such folder, or nothing to read in it), IO,
 * NO_MEMORY. */
saf_status saf_hw_disk_measure(const char *folder, size_t bytes, double limit_s, saf_hw_disk *out);

#endif
