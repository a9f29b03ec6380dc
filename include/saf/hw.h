/* saf/hw.h: what this host is, and how fast: yardsticks measured by the threads that compute.
 * Local. */
#ifndef SAF_HW_H
#define SAF_HW_H

#include "saf/core.h"

typedef struct {
    int32_t cores;  /* physical cores this process may run on */
    char cpus[256]; /* the processing units it may run on, as a list "0-3,8" (cut if longer) */
    int64_t memory_bytes; /* of the host */
    int64_t cache_bytes;  /* of the host: its largest caches, added up; 0: not known */
} saf_hw_binding;

/* Where this process is bound to run (hwloc; without a binding, the whole host).
 * Errors: FAILED (hwloc cannot read the machine). */
saf_status saf_hw_binding_read(saf_hw_binding *out);

/* ---- yardsticks --------------------------------------------------------------------------------
 *
 * What this rank's OpenMP team could do at best, each by a loop that does nothing else. Rates drift
 * with the clock and with neighbours: sample before and after what is compared with them.
 */

typedef struct {
    double read_bytes_s; /* memory read once, in order, each thread its own part */
    double int8_ops_s;   /* products of bytes summed in 32 bits, from registers: 2 a product */
    double tile_ops_s;   /* the same by tile units (AMX); 0 where there are none */
    double f32_ops_s;    /* fma of f32, from registers: 2 each */
} saf_hw_rates;

typedef struct saf_hw_yardstick saf_hw_yardstick;

/* Takes `read_bytes` of memory (rounded up to huge pages; 0: four times the host's caches, at least
 * 256 MiB, and at most an eighth of its memory), first touched by the threads that will read it.
 * The team is the one that a parallel region gets now. Errors: NO_MEMORY (more than half of what
 * the host has as well), FAILED (hwloc). */
saf_status saf_hw_yardstick_new(size_t read_bytes, saf_hw_yardstick **out);
void saf_hw_yardstick_free(saf_hw_yardstick **y);
/* Measures each once: some tens of milliseconds each. By the thread that made it. */
void saf_hw_yardstick_sample(saf_hw_yardstick *y, saf_hw_rates *out);
/* The instructions that int8_ops_s and f32_ops_s are of: "avx512-vnni", "avx512", "avx2",
 * "neon-dotprod", "neon". */
const char *saf_hw_yardstick_name(const saf_hw_yardstick *y);

/* Operations a second of one single-precision product C[m, n] = A[m, k] B[n, k] by OpenBLAS with
 * `threads` threads; 0 where there is no OpenBLAS: it is loaded on first use, as the threads that
 * it starts are of no use to anyone else. Errors: NO_MEMORY. */
saf_status saf_hw_sgemm_sample(int threads, int64_t m, int64_t n, int64_t k, double *ops_s);

#endif
