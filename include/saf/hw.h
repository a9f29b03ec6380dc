/* saf/hw.h: what this host is, and how fast: yardsticks measured by the threads that compute.
 * Local. */
#ifndef SAF_HW_H
#define SAF_HW_H

#include "saf/core.h"

typedef struct {
    int32_t cores;  /* physical cores this process may run on */
    char cpus[256]; /* the processing units it may run on, as a list "0-3,8" (cut if longer) */
    int64_t memory_bytes; /* of the host, or what control groups let this process have of it */
    int64_t cache_bytes;  /* of the host: its largest caches, added up; 0: not known */
} saf_hw_binding;

/* Where this process is bound to run (hwloc; without a binding, the whole host).
 * Errors: FAILED (hwloc cannot read the machine), NO_MEMORY. */
saf_status saf_hw_binding_read(saf_hw_binding *out);

/* ---- yardsticks --------------------------------------------------------------------------------
 *
 * What this rank's OpenMP team could do at best, each by a loop that does nothing else. Rates drift
 * with the clock and with neighbours: sample before and after what is compared with them.
 */

typedef struct {
    double read_bytes_s; /* memory read once, in order, each thread its own part */
    double int8_ops_s;   /* products of bytes summed in 32 bits, from registers: 2 a product */
    /* of them, what saf's own products of Q8_0 weights by a few rows reach, weights in the caches:
     * 0.01 to 1 (two moments are compared: on a disturbed machine more would come out) */
    double product_share;
    /* of the shorter of reading and computing, what such products by eight rows hide behind the
     * longer where their weights come from memory: 0.01 to 1 */
    double hidden_share;
    double tile_ops_s; /* as int8_ops_s, by tile units (AMX); 0 where there are none */
    double f32_ops_s;  /* fma of f32, from registers: 2 each */
} saf_hw_rates;

typedef struct saf_hw_yardstick saf_hw_yardstick;

/* Takes `read_bytes` of memory (rounded up to huge pages; 0: four times the host's caches, at least
 * 256 MiB, and at most an eighth of memory_bytes above), first touched by the threads that will
 * read it. The team is the one that a parallel region gets now. Errors: NO_MEMORY (more than half
 * of what the host has as well), FAILED (hwloc), USAGE (SAF_KERNELS, where no kernels were chosen
 * yet). */
saf_status saf_hw_yardstick_new(size_t read_bytes, saf_hw_yardstick **out);
void saf_hw_yardstick_free(saf_hw_yardstick **y);
/* Measures each once: some tens of milliseconds each. By the thread that made it. */
void saf_hw_yardstick_sample(saf_hw_yardstick *y, saf_hw_rates *out);
/* Bytes a second of one thread that reads memory while the others rest, measured now. */
double saf_hw_yardstick_read_one(saf_hw_yardstick *y);
/* Operations a second by fma of f64, from registers, measured now: 2 each. */
double saf_hw_yardstick_f64(saf_hw_yardstick *y);
/* The instructions that int8_ops_s and f32_ops_s are of: "avx512-vnni", "avx512", "avx2",
 * "neon-dotprod", "neon". */
const char *saf_hw_yardstick_name(const saf_hw_yardstick *y);

/* ---- memory ------------------------------------------------------------------------------------
 *
 * Payload is what a loop asks for; the bus carries more. A copy moves every byte twice. A plain
 * store to memory that is in no cache first reads the line that it will change (write-allocate) and
 * moves it once more, so that a write moves twice its bytes and a copy three times; streaming
 * stores write past the caches and move no more than they must. (Some processors turn long runs of
 * plain stores into streaming ones by themselves: then plain stores move less than is said here.)
 */

typedef enum {
    SAF_MEMORY_READ,
    SAF_MEMORY_WRITE,  /* plain stores */
    SAF_MEMORY_STREAM, /* streaming stores */
    SAF_MEMORY_COPY,   /* plain stores */
    SAF_MEMORY_COPY_STREAM,
    SAF_MEMORY_KINDS
} saf_memory_kind;
const char *saf_memory_kind_name(saf_memory_kind kind);
/* Whether this processor can; streaming stores are known for x86 alone. */
bool saf_memory_kind_there(saf_memory_kind kind);
/* Bytes on the bus for each byte of payload (of a copy, payload is what is copied). */
int saf_memory_kind_traffic(saf_memory_kind kind);

/* NUMA nodes of the host that have memory, 1 at least. Errors: FAILED (hwloc). */
saf_status saf_hw_memory_nodes(int32_t *out);
/* What could be had now without swapping, as the system estimates it, and no more than control
 * groups let this process have in all; 0: not known. */
int64_t saf_hw_memory_available(void);

typedef struct saf_hw_memory saf_hw_memory;
enum { SAF_HW_ANY_NODE = -1 };
/* Two blocks of `bytes` (rounded up to huge pages of each thread) on one NUMA node, or
 * SAF_HW_ANY_NODE: each thread's part on its own; first touched by the threads that will use them.
 * Errors: NO_MEMORY (more than half of what is available as
 * well), FAILED (hwloc, or memory cannot be put there). */
saf_status saf_hw_memory_new(size_t bytes, int threads, int32_t node, saf_hw_memory **out);
void saf_hw_memory_free(saf_hw_memory **m);
size_t saf_hw_memory_bytes(const saf_hw_memory *m); /* of one block */
/* Seconds of once through a block (or both) by all threads at once. */
double saf_hw_memory_sample(saf_hw_memory *m, saf_memory_kind kind);

/* Takes fresh memory, writes all of it by `threads` threads, and adds it up again. *right: the sum
 * is what was written. Errors: NO_MEMORY. */
saf_status saf_hw_memory_touch(size_t bytes, int threads, double *touch_s, double *sum_s,
                               bool *right);

/* Operations a second of one single-precision product C[m, n] = A[m, k] B[n, k] by OpenBLAS with
 * `threads` threads; 0 where there is no OpenBLAS: it is loaded on first use, as the threads that
 * it starts are of no use to anyone else. Errors: NO_MEMORY. */
saf_status saf_hw_sgemm_sample(int threads, int64_t m, int64_t n, int64_t k, double *ops_s);

#endif
