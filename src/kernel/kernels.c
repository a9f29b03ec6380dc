/* The choice of kernels: the best that the processor has, or what the user names. */
#include <fenv.h>
#include <stdlib.h>
#include <strings.h>

#include "kernel/kernels.h"

static saf__kernels chosen;
static bool is_chosen;

typedef enum { LEVEL_SCALAR, LEVEL_AVX2, LEVEL_AVX512, LEVEL_VNNI } level;

static level processor_level(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return __builtin_cpu_supports("avx2") ? LEVEL_AVX2 : LEVEL_SCALAR;
    return __builtin_cpu_supports("avx512vnni") ? LEVEL_VNNI : LEVEL_AVX512;
}

static void choose(level best) {
    saf__kernels_scalar(&chosen);
    if (best >= LEVEL_AVX2) saf__kernels_avx2(&chosen);
    if (best >= LEVEL_AVX512) saf__kernels_avx512(&chosen);
    if (best >= LEVEL_VNNI) saf__kernels_avx512_vnni(&chosen);
    is_chosen = true;
}

saf_status saf_kernels_init(const char *name) {
    level have = processor_level();
    if (!name) name = getenv("SAF_KERNELS");
    if (!name || !name[0] || strcasecmp(name, "auto") == 0) {
        choose(have);
        return SAF_OK;
    }
    level wanted;
    if (strcmp(name, "scalar") == 0)
        wanted = LEVEL_SCALAR;
    else if (strcmp(name, "avx2") == 0)
        wanted = LEVEL_AVX2;
    else if (strcmp(name, "avx512") == 0)
        wanted = have == LEVEL_VNNI ? LEVEL_VNNI : LEVEL_AVX512;
    else
        return saf_fail(SAF_USAGE, "unknown kernels \"%s\": expected scalar, avx2, avx512 or auto",
                        name);
    if (wanted > have) return saf_fail(SAF_USAGE, "this processor cannot run the %s kernels", name);
    choose(wanted);
    return SAF_OK;
}

const saf__kernels *saf__kernels_get(void) {
    return &chosen;
}

const char *saf_kernels_name(void) {
    return is_chosen ? chosen.name : "none";
}

/* Operands that the compiler cannot fold: 1 + 2^-24 and 1 + 3 2^-24 tell the four roundings apart,
 * and half of the smallest normal number is kept only where denormals are. */
static bool float_state_is_default(void) {
    volatile float one = 1.0f, half_ulp = 0x1p-24f, tiny = 0x1p-126f, half = 0.5f;
    volatile double tiny_double = 0x1p-1022;
    bool nearest = fegetround() == FE_TONEAREST && one + half_ulp == one &&
                   one + 3 * half_ulp == 0x1.000004p0f && -one - half_ulp == -one;
    volatile float denormal = tiny * half, back = denormal + denormal;
    volatile double denormal_double = tiny_double * (double)half;
    return nearest && denormal != 0 && back == tiny && denormal_double != 0;
}

saf_status saf_kernels_check_float_state(void) {
    int bad = 0;
#pragma omp parallel reduction(+ : bad)
    bad += !float_state_is_default();
    if (bad > 0)
        return saf_fail(SAF_FAILED,
                        "floating point of %d threads does not round to nearest or drops "
                        "denormals: was a library built with -ffast-math loaded?",
                        bad);
    return SAF_OK;
}
