/* loops.h: the loops behind the yardsticks, one table for the best that the processor has. Each
 * does nothing but what it measures, and returns what it summed up, so that a test can count the
 * operations and no compiler can leave them out. */
#ifndef SAF_HW_LOOPS_H
#define SAF_HW_LOOPS_H

#include "saf/core.h"

/* Registers of sums: enough chains to cover the latency of two units, few enough to stay in
 * sixteen registers together with both operands. A plain addition needs fewer. */
enum { SAF__LOOP_SUMS = 12, SAF__ADD_SUMS = 4 };

typedef struct {
    const char *name; /* "avx512-vnni", "avx512", "avx2", "neon-dotprod", "neon", "portable" */
    /* A part of a buffer, once: `bytes` is a multiple of SAF__READ_UNIT. */
    uint64_t (*read)(const void *p, size_t bytes);
    /* Products of bytes into sums of 32 bits: every one is 1 x 1. Returns the sum of all sums. */
    int64_t (*int8)(int64_t rounds);
    int64_t int8_ops; /* of a round: 2 for each product and its addition */
    /* The same by tile units; NULL where there are none. */
    int64_t (*tiles)(int64_t rounds);
    int64_t tile_ops;
    /* fma of f32, every one adding 1 x 1. Returns the sum of all sums. */
    double (*f32)(int64_t rounds);
    int64_t f32_ops; /* of a round: 2 for each fma */
    /* The same of f64. */
    double (*f64)(int64_t rounds);
    int64_t f64_ops;
} saf__hw_loops;

enum { SAF__READ_STREAMS = 4, SAF__READ_LINE = 64, SAF__READ_UNIT = 4096 };

void saf__hw_loops_base(saf__hw_loops *loops);
/* On x86 with AVX-512 (F, BW); the second with VNNI as well. They override what they do better. */
void saf__hw_loops_avx512(saf__hw_loops *loops);
void saf__hw_loops_vnni(saf__hw_loops *loops);
/* On x86 with AMX, where the system lets this process use it. */
void saf__hw_loops_amx(saf__hw_loops *loops);
/* On aarch64 with the dot product instructions. */
void saf__hw_loops_dotprod(saf__hw_loops *loops);
/* The best that this processor has. */
saf__hw_loops saf__hw_loops_choose(void);

#endif
