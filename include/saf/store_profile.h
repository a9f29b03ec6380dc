/* saf/store_profile.h: what some hosts have and can do, as `saf detect` measured it, in a file
 * (HDF5; doc/detect.md has the schema). Tables of the structs below, whose columns say what they
 * hold; a figure that is not known is NaN. Local.
 */
#ifndef SAF_PUBLIC_STORE_PROFILE_H
#define SAF_PUBLIC_STORE_PROFILE_H

#include "saf/store_suites.h"

enum { SAF_PROFILE_SCHEMA = 1, SAF_PROFILE_KEY_CHARS = 65 };

/* Rates are those of all cores that the host's ranks may use together. Hosts that are one machine
 * (containers of it) share its memory: read_bytes_s is what this one reads while the others rest,
 * together_read_bytes_s while they read as well. The other rates are of all hosts at the same time.
 */
typedef struct {
    char host[SAF_SUITE_HOST_BYTES];
    int32_t ranks; /* that ran there */
    char processor[128];
    int32_t sockets, cores, efficiency_cores, threads;
    int32_t usable_cores;
    char usable_cpus[256];
    double cpu_limit; /* processors, of control groups; NaN: none */
    int32_t nodes;
    int64_t memory_bytes, available_bytes, memory_limit_bytes; /* -1: no limit */
    char instructions[160], kernels[32], loops[16], power[16], accelerators[256];
    double read_bytes_s, copy_bytes_s, int8_ops_s, product_share, hidden_share, tile_ops_s,
        f32_ops_s, f64_ops_s;
    int32_t machine; /* number: hosts that have the same one are one machine */
    double together_read_bytes_s;
    char folder[256], disk_how[256];
    int64_t disk_bytes;
    double disk_bytes_s;
} saf_profile_host;

typedef struct {
    char host[SAF_SUITE_HOST_BYTES];
    int32_t level;
    char kind[16];
    int32_t count, threads;
    int64_t bytes;
} saf_profile_cache;

typedef struct {
    char host[SAF_SUITE_HOST_BYTES];
    int32_t node;
    int64_t memory_bytes;
    char cpus[256];
} saf_profile_node;

typedef struct {
    char host[SAF_SUITE_HOST_BYTES], kind[24], name[128], bus[32];
} saf_profile_device;

/* What so many threads of a host reach together. */
typedef struct {
    char host[SAF_SUITE_HOST_BYTES];
    int32_t threads, samples;
    double read_bytes_s, copy_bytes_s, int8_ops_s, f32_ops_s, f64_ops_s;
} saf_profile_rate;

enum { SAF_PROFILE_SHORT_BYTES = 2048 };

/* Between two hosts: one way, and so many bytes a second to and fro. */
typedef struct {
    char host_a[SAF_SUITE_HOST_BYTES], host_b[SAF_SUITE_HOST_BYTES];
    int32_t round;             /* pairs of one round were measured side by side */
    double latency_s, short_s; /* of a byte; of SAF_PROFILE_SHORT_BYTES, 0: not measured */
    int64_t bytes;             /* of a message */
    double bytes_s_to_b, bytes_s_to_a;
} saf_profile_link;

typedef enum {
    SAF_PROFILE_HOSTS,
    SAF_PROFILE_CACHES,
    SAF_PROFILE_NODES,
    SAF_PROFILE_DEVICES,
    SAF_PROFILE_RATES,
    SAF_PROFILE_LINKS,
    SAF_PROFILE_TABLES
} saf_profile_table;

typedef struct {
    char *version, *time, *command_line; /* time: when measuring ended, ISO 8601, UTC */
    char *key;                           /* of the set of hosts, see saf_profile_key */
    double seconds;                      /* that measuring took */
    saf_buf tables[SAF_PROFILE_TABLES];  /* rows, one after the other */
} saf_hosts_profile;

void saf_profile_free(saf_hosts_profile *p); /* the members; leaves {0} */
/* Rows of a table, and how many; valid while nothing is added to it. */
const saf_profile_host *saf_profile_hosts(const saf_hosts_profile *p, int64_t *n);
const saf_profile_rate *saf_profile_rates(const saf_hosts_profile *p, int64_t *n);
const saf_profile_link *saf_profile_links(const saf_hosts_profile *p, int64_t *n);
int64_t saf_profile_rows(saf_profile_table table, const saf_buf *rows);
saf_suite_table_about saf_profile_table_info(saf_profile_table table);
saf_suite_column saf_profile_column_info(saf_profile_table table, int column);

/* The same for the same hosts, in any order, any of them named more than once: SHA-256, as hex, of
 * their names sorted byte by byte, each with its zero. Errors: NO_MEMORY. */
saf_status saf_profile_key(const char *const *hosts, int64_t n, char out[SAF_PROFILE_KEY_CHARS]);

/* Writes PATH.part, makes it durable, reads it back and gives it its name. Errors: CANNOT_CREATE,
 * IO. */
saf_status saf_profile_write(const char *path, const saf_hosts_profile *p);
/* Errors: NO_INPUT, BAD_INPUT (no profile, a newer schema, hosts that are in no table of hosts,
 * figures that no host has), IO. */
saf_status saf_profile_read(const char *path, saf_hosts_profile *out);
/* Whether a file is a profile; what cannot be read is none. */
bool saf_profile_is(const char *path);

#endif
