/* The choice of kernels: the best that the processor has, or what the user names. */
#include <fenv.h>
#include <stdlib.h>
#include <strings.h>

#if defined __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined __aarch64__
#include <sys/auxv.h>
#endif

#include "kernel/kernels.h"

static saf__kernels chosen;
static bool is_chosen;

/* What this build has, each level filled in over the ones before it. Two of one name are the same
 * choice: the better one is taken where the processor has it. */
static const struct {
    const char *name;
    void (*fill)(saf__kernels *k);
} levels[] = {
    {"scalar", saf__kernels_scalar},
#if defined __x86_64__
    {"avx2", saf__kernels_avx2},          {"avx512", saf__kernels_avx512},
    {"avx512", saf__kernels_avx512_vnni}, {"amx", saf__kernels_amx},
#elif defined __aarch64__
    {"neon", saf__kernels_neon},
    {"neon", saf__kernels_neon_dotprod},
#endif
};

/* AMX, which the processor has by CPUID and the system grants a process that asks.
 * Source   Intel Architecture Instruction Set Extensions, leaf 7; Linux, arch/x86/xstate */
bool saf_kernels_have_tiles(void) {
#if defined __x86_64__
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_INT8))
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#else
    return false;
#endif
}

/* The highest level that the processor can run. */
static int processor_level(void) {
#if defined __x86_64__
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) return 0;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return 1;
    if (!__builtin_cpu_supports("avx512vnni")) return 2;
    return saf_kernels_have_tiles() ? 4 : 3;
#elif defined __aarch64__
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? 2 : 1;
#else
    return 0;
#endif
}

bool saf_kernels_on_amd(void) {
#if defined __x86_64__
    __builtin_cpu_init();
    return __builtin_cpu_is("amd");
#else
    return false;
#endif
}

/* Measured on Zen 4, where 2048 bytes halve the rate, and Zen 5, where 512 reach four fifths of it
 * and 2048 two to five parts of a hundred less. */
static int stream_ahead(void) {
    unsigned family = 0;
#if defined __x86_64__
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) family = ((a >> 8) & 0xF) + ((a >> 20) & 0xFF);
#endif
    return saf_kernels_on_amd() && family >= 0x1A ? 4096 : 512;
}

static void choose(int best) {
    for (int i = 0; i <= best; i++) levels[i].fill(&chosen);
    chosen.in_order = saf_kernels_on_amd(); /* measured on Zen 4 and Zen 5 */
    chosen.stream_ahead = stream_ahead();
    is_chosen = true;
}

saf_status saf_kernels_init(const char *name) {
    static const char *const known[] = {"scalar", "avx2", "avx512", "amx", "neon"};
    int have = processor_level();
    if (!name) name = getenv("SAF_KERNELS");
    if (!name || !name[0] || strcasecmp(name, "auto") == 0) {
        choose(have);
        return SAF_OK;
    }
    for (int i = have; i >= 0; i--)
        if (strcmp(name, levels[i].name) == 0) {
            choose(i);
            return SAF_OK;
        }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i]) == 0)
            return saf_fail(SAF_USAGE, "this processor cannot run the %s kernels", name);
    return saf_fail(SAF_USAGE,
                    "unknown kernels \"%s\": expected scalar, avx2, avx512, amx, neon or auto",
                    name);
}

const saf__kernels *saf__kernels_get(void) {
    return &chosen;
}

void saf__kernels_read_in_order(bool yes) {
    chosen.in_order = yes;
}

const char *saf_kernels_name(void) {
    return is_chosen ? chosen.name : "none";
}

bool saf_kernels_by_token(void) {
    return chosen.by_token != NULL;
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
