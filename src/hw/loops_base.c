/* What every processor that saf runs on can do: AVX2 with fma on x86, NEON on ARM, plain C. */
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "hw/loops.h"
#include "saf/kernel.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
enum { REGISTER_BYTES = 32 };
#else
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif
enum { REGISTER_BYTES = 16 };
#endif

/* Four streams, each asked for a little ahead, into the cache of that level: one stream leaves some
 * of the bandwidth of a core unused where prefetchers stop at the end of a page. The sums are as
 * wide as a register, or they would go through memory. */
static inline __attribute__((always_inline)) uint64_t read_streams(const int LEVEL, const void *p,
                                                                   size_t bytes) {
    enum { AHEAD = 1024, WORDS = REGISTER_BYTES / sizeof(uint64_t) };
    typedef uint64_t words __attribute__((vector_size(REGISTER_BYTES)));
    size_t part = bytes / SAF__READ_STREAMS;
    words sums[SAF__READ_STREAMS] = {{0}};
    for (size_t at = 0; at < part; at += SAF__READ_LINE) {
#pragma GCC unroll 4
        for (size_t s = 0; s < SAF__READ_STREAMS; s++) {
            const char *from = (const char *)p + s * part + at;
            if (LEVEL == 1)
                __builtin_prefetch(from + AHEAD, 0, 3);
            else
                __builtin_prefetch(from + AHEAD, 0, 2);
#pragma GCC unroll 4
            for (int i = 0; i < SAF__READ_LINE; i += REGISTER_BYTES)
                sums[s] += *(const words *)(const void *)(from + i);
        }
    }
    uint64_t sum = 0;
    for (int s = 0; s < SAF__READ_STREAMS; s++)
        for (size_t i = 0; i < WORDS; i++) sum += sums[s][i];
    return sum;
}
static uint64_t read_to_level_1(const void *p, size_t bytes) {
    return read_streams(1, p, bytes);
}
static uint64_t read_to_level_2(const void *p, size_t bytes) {
    return read_streams(2, p, bytes);
}
#if defined(__AVX2__) && defined(__FMA__)

/* Products of 32 bytes take three instructions: pairs to 16 bits, pairs of those to 32, the sum.
 * The operand is made opaque each time, or the first two would leave the loop. */
static int64_t int8_maddubs(int64_t rounds) {
    __m256i sums[SAF__ADD_SUMS], ones = _mm256_set1_epi8(1), pair = _mm256_set1_epi16(1), a = ones;
    for (int i = 0; i < SAF__ADD_SUMS; i++) sums[i] = _mm256_setzero_si256();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) {
            __asm__ volatile("" : "+x"(a));
            __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(a, ones), pair);
            sums[i % SAF__ADD_SUMS] = _mm256_add_epi32(sums[i % SAF__ADD_SUMS], products);
        }
    }
    int64_t sum = 0;
    for (int i = 0; i < SAF__ADD_SUMS; i++) {
        int32_t lanes[8];
        _mm256_storeu_si256((__m256i *)lanes, sums[i]);
        for (int j = 0; j < 8; j++) sum += lanes[j];
    }
    return sum;
}

static double f32_fma(int64_t rounds) {
    __m256 sums[SAF__LOOP_SUMS], a = _mm256_set1_ps(1), b = a;
    __asm__ volatile("" : "+x"(a), "+x"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm256_setzero_ps();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
    }
    double sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) {
        float lanes[8];
        _mm256_storeu_ps(lanes, sums[i]);
        for (int j = 0; j < 8; j++) sum += (double)lanes[j];
    }
    return sum;
}

static double f64_fma(int64_t rounds) {
    __m256d sums[SAF__LOOP_SUMS], a = _mm256_set1_pd(1), b = a;
    __asm__ volatile("" : "+x"(a), "+x"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm256_setzero_pd();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = _mm256_fmadd_pd(a, b, sums[i]);
    }
    double sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) {
        double lanes[4];
        _mm256_storeu_pd(lanes, sums[i]);
        for (int j = 0; j < 4; j++) sum += lanes[j];
    }
    return sum;
}

#define LOOPS_NAME "avx2"
#define LOOPS_INT8 int8_maddubs
enum { INT8_PRODUCTS = 32, F32_PRODUCTS = 8 };

#elif defined(__ARM_NEON)

/* Products of 8 bytes take two instructions: to 16 bits, and pairs of those to the sums. */
static int64_t int8_mull(int64_t rounds) {
    int32x4_t sums[SAF__LOOP_SUMS];
    int8x8_t a = vdup_n_s8(1), b = a;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vdupq_n_s32(0);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) {
            __asm__ volatile("" : "+w"(a));
            sums[i] = vpadalq_s16(sums[i], vmull_s8(a, b));
        }
    }
    int64_t sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sum += vaddlvq_s32(sums[i]);
    return sum;
}

static double f32_fma(int64_t rounds) {
    float32x4_t sums[SAF__LOOP_SUMS], a = vdupq_n_f32(1), b = a;
    __asm__ volatile("" : "+w"(a), "+w"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vdupq_n_f32(0);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vfmaq_f32(sums[i], a, b);
    }
    double sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++)
        for (int j = 0; j < 4; j++) sum += (double)sums[i][j];
    return sum;
}

static double f64_fma(int64_t rounds) {
    float64x2_t sums[SAF__LOOP_SUMS], a = vdupq_n_f64(1), b = a;
    __asm__ volatile("" : "+w"(a), "+w"(b));
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vdupq_n_f64(0);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SAF__LOOP_SUMS; i++) sums[i] = vfmaq_f64(sums[i], a, b);
    }
    double sum = 0;
    for (int i = 0; i < SAF__LOOP_SUMS; i++) sum += sums[i][0] + sums[i][1];
    return sum;
}

#define LOOPS_NAME "neon"
#define LOOPS_INT8 int8_mull
enum { INT8_PRODUCTS = 8, F32_PRODUCTS = 4 };

#else

/* As good as the compiler makes it. */
enum { INT8_PRODUCTS = 16, F32_PRODUCTS = 4 };

static int64_t int8_plain(int64_t rounds) {
    int32_t sums[SAF__LOOP_SUMS * INT8_PRODUCTS] = {0}, n = SAF__LOOP_SUMS * INT8_PRODUCTS;
    int8_t a = 1, b = 1;
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+r"(a), "+r"(b));
        for (int i = 0; i < n; i++) sums[i] += (int32_t)a * b;
    }
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += sums[i];
    return sum;
}

static double f32_fma(int64_t rounds) {
    float sums[SAF__LOOP_SUMS * F32_PRODUCTS] = {0}, a = 1, b = 1;
    int n = SAF__LOOP_SUMS * F32_PRODUCTS;
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+r"(a), "+r"(b));
        for (int i = 0; i < n; i++) sums[i] = __builtin_fmaf(a, b, sums[i]);
    }
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)sums[i];
    return sum;
}

static double f64_fma(int64_t rounds) {
    double sums[SAF__LOOP_SUMS * F32_PRODUCTS / 2] = {0}, a = 1, b = 1, sum = 0;
    int n = SAF__LOOP_SUMS * F32_PRODUCTS / 2;
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+r"(a), "+r"(b));
        for (int i = 0; i < n; i++) sums[i] = __builtin_fma(a, b, sums[i]);
    }
    for (int i = 0; i < n; i++) sum += sums[i];
    return sum;
}

#define LOOPS_NAME "portable"
#define LOOPS_INT8 int8_plain

#endif

void saf__hw_loops_base(saf__hw_loops *loops) {
    /* Of an AMD core, asking the first level keeps the few places in which it waits for memory
     * taken: a fifth slower in one stream, 4 % in four (Zen 4). */
    const bool to_level_2 = saf_kernels_on_amd();
    *loops = (saf__hw_loops){.name = LOOPS_NAME,
                             .read = to_level_2 ? read_to_level_2 : read_to_level_1,
                             .int8 = LOOPS_INT8,
                             .int8_ops = 2 * SAF__LOOP_SUMS * INT8_PRODUCTS,
                             .f32 = f32_fma,
                             .f32_ops = 2 * SAF__LOOP_SUMS * F32_PRODUCTS,
                             .f64 = f64_fma,
                             .f64_ops = SAF__LOOP_SUMS * F32_PRODUCTS};
}

saf__hw_loops saf__hw_loops_choose(void) {
    saf__hw_loops loops;
    saf__hw_loops_base(&loops);
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    if (wide) saf__hw_loops_avx512(&loops);
    if (wide && __builtin_cpu_supports("avx512vnni")) saf__hw_loops_vnni(&loops);
    if (wide && saf_kernels_have_tiles()) saf__hw_loops_amx(&loops);
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) saf__hw_loops_dotprod(&loops);
#endif
    return loops;
}
