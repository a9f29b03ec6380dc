/* Synthetic values straight in the bytes of each type. Blocks are random where the type keeps
 * quants, and their scales are chosen so that the values have mean zero and the wanted deviation.
 * Scales differ from block to block, so that a kernel that mixed them up would show. */
#include "model/make.h"

enum {
    FLOAT_BLOCK = 32, /* values made together for the float types */
    CALLS_MAX = 14,   /* Philox calls for the largest block, four words each */
    BATCH_BLOCKS = 64 /* blocks per call of the generator */
};

/* f16 scale with a random factor of 0.75 to 1.25. */
static uint16_t scale_f16(double d, uint32_t word, float *rounded) {
    float v = (float)(d * (0.75 + 0.5 * (double)(word >> 8) * 0x1p-24));
    uint16_t h = saf_f16_from_f32(v);
    *rounded = saf_f32_from_f16(h);
    return h;
}

/* Adds the bytes of a word: nearly normal, mean 510, variance 4 (256^2 - 1) / 12. */
static float near_normal(uint32_t word) {
    uint32_t pairs = (word & 0x00FF00FF) + (word >> 8 & 0x00FF00FF);
    return (float)((int32_t)((pairs & 0xFFFF) + (pairs >> 16)) - 510);
}

static void fill_f32(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    float a = (float)(s->std / 147.8005), mean = (float)s->mean;
    float v[FLOAT_BLOCK];
    for (int i = 0; i < FLOAT_BLOCK; i++) v[i] = mean + a * near_normal(r[i]);
    memcpy(out, v, (size_t)n * sizeof *v);
}

static void fill_f16(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    float a = (float)(s->std / 147.8005), mean = (float)s->mean;
    uint16_t v[FLOAT_BLOCK];
    for (int i = 0; i < FLOAT_BLOCK; i++) v[i] = saf_f16_from_f32(mean + a * near_normal(r[i]));
    memcpy(out, v, (size_t)n * sizeof *v);
}

static void fill_bf16(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    float a = (float)(s->std / 147.8005), mean = (float)s->mean;
    uint16_t v[FLOAT_BLOCK];
    for (int i = 0; i < FLOAT_BLOCK; i++) v[i] = saf_bf16_from_f32(mean + a * near_normal(r[i]));
    memcpy(out, v, (size_t)n * sizeof *v);
}

/* The quantised types: first word for the scale, then the payload. `rms` of the integers that the
 * scale multiplies, 1.01036 of the scales' own spread. */
static double scale_for(const saf__synthetic *s, double rms) {
    return s->std / (rms * 1.01036);
}

static void fill_q8_0(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    float d;
    uint16_t h = scale_f16(scale_for(s, 73.6116), r[0], &d);
    memcpy(out, &h, 2);
    memcpy(out + 2, r + 1, 32);
    for (int i = 2; i < 34; i++) out[i] = out[i] == 0x80 ? 0 : out[i]; /* no -128 in this type */
}

/* Q4_0 and Q5_0: the quants' mean is -1/2, so the scale's sign is random. */
static void fill_signed(const uint32_t *r, double d, size_t payload, uint8_t *out) {
    float v;
    uint16_t h = scale_f16(d, r[0], &v) | (uint16_t)((r[0] & 1) << 15);
    memcpy(out, &h, 2);
    memcpy(out + 2, r + 1, payload);
}

static void fill_q4_0(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    fill_signed(r, scale_for(s, 4.6368), 16, out);
}

static void fill_q5_0(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    fill_signed(r, scale_for(s, 9.2466), 20, out);
}

/* Q4_1 and Q5_1: the minimum takes the quants' mean away. */
static void fill_offset(const uint32_t *r, double d, float mean, size_t payload, uint8_t *out) {
    float v;
    uint16_t h = scale_f16(d, r[0], &v), m = saf_f16_from_f32(-mean * v);
    memcpy(out, &h, 2);
    memcpy(out + 2, &m, 2);
    memcpy(out + 4, r + 1, payload);
}

static void fill_q4_1(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    fill_offset(r, scale_for(s, 4.6098), 7.5f, 16, out);
}

static void fill_q5_1(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    fill_offset(r, scale_for(s, 9.2331), 15.5f, 20, out);
}

static unsigned char_at(const uint32_t *r, int i) {
    return r[i / 4] >> 8 * (i % 4) & 0xFF;
}

/* -1, 0, 0 or 1 from two bits: how a block's minimum differs from its scale. */
static int step(unsigned bits) {
    return (int)(bits & 1) - (int)(bits >> 1 & 1);
}

/* Layout: scales[16] (scale low, minimum high nibble), quants[64], d, dmin. */
static void fill_q2_k(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    float d;
    uint16_t h = scale_f16(scale_for(s, 12.0629), r[0], &d), m = saf_f16_from_f32(1.5f * d);
    for (int j = 0; j < 16; j++) {
        unsigned bits = char_at(r + 1, j), scale = 7 + (bits & 7);
        out[j] = (uint8_t)(scale | (scale + (unsigned)step(bits >> 3)) << 4);
    }
    memcpy(out + 16, r + 5, 64);
    memcpy(out + 80, &h, 2);
    memcpy(out + 82, &m, 2);
}

/* Layout: high bits[32], quants[64], scales[12], d. A scale is 6 bits minus 32; its sign is random
 * because the quants' mean is -1/2. */
static void fill_q3_k(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    float d;
    uint16_t h = scale_f16(scale_for(s, 56.1634), r[0], &d);
    memcpy(out, r + 1, 96);
    memset(out + 96, 0, 12);
    for (int j = 0; j < 16; j++) {
        unsigned bits = char_at(r + 25, j), size = 16 + (bits & 15);
        unsigned scale = bits & 16 ? 32 + size : 32 - size;
        out[96 + j % 8] |= (uint8_t)((scale & 15) << (j < 8 ? 0 : 4));
        out[104 + j % 4] |= (uint8_t)(scale >> 4 << 2 * (j / 4));
    }
    memcpy(out + 108, &h, 2);
}

/* Layout of Q4_K and Q5_K: d, dmin, scales[12] with eight 6-bit scales and minima, payload. */
static void fill_k(const uint32_t *r, double dd, float mean, size_t payload, uint8_t *out) {
    float d;
    unsigned scale[8], min[8];
    uint16_t h = scale_f16(dd, r[0], &d), m = saf_f16_from_f32(mean * d);
    memcpy(out, &h, 2);
    memcpy(out + 2, &m, 2);
    for (int j = 0; j < 8; j++) {
        unsigned bits = char_at(r + 1, j);
        scale[j] = 31 + (bits & 31);
        min[j] = scale[j] + (unsigned)step(bits >> 5);
    }
    for (int j = 0; j < 4; j++) {
        out[4 + j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        out[8 + j] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        out[12 + j] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
    memcpy(out + 16, r + 3, payload);
}

static void fill_q4_k(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    fill_k(r, scale_for(s, 218.602), 7.5f, 128, out);
}

static void fill_q5_k(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    fill_k(r, scale_for(s, 437.855), 15.5f, 160, out);
}

/* Layout: low bits[128], high bits[64], int8 scales[16], d. Signs as in Q3_K. */
static void fill_q6_k(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out) {
    (void)n;
    float d;
    uint16_t h = scale_f16(scale_for(s, 1797.55), r[0], &d);
    memcpy(out, r + 1, 192);
    for (int j = 0; j < 16; j++) {
        unsigned bits = char_at(r + 49, j), size = 64 + (bits & 63);
        out[192 + j] = (uint8_t)(bits & 64 ? size : 256 - size);
    }
    memcpy(out + 208, &h, 2);
}

typedef void (*filler)(const uint32_t *r, const saf__synthetic *s, int64_t n, uint8_t *out);

static const struct {
    filler fill;
    int words; /* random words per block */
} fillers[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_F32] = {fill_f32, 32},   [SAF_DTYPE_F16] = {fill_f16, 32},
    [SAF_DTYPE_BF16] = {fill_bf16, 32}, [SAF_DTYPE_Q8_0] = {fill_q8_0, 9},
    [SAF_DTYPE_Q4_0] = {fill_q4_0, 5},  [SAF_DTYPE_Q4_1] = {fill_q4_1, 5},
    [SAF_DTYPE_Q5_0] = {fill_q5_0, 6},  [SAF_DTYPE_Q5_1] = {fill_q5_1, 6},
    [SAF_DTYPE_Q2_K] = {fill_q2_k, 21}, [SAF_DTYPE_Q3_K] = {fill_q3_k, 29},
    [SAF_DTYPE_Q4_K] = {fill_q4_k, 35}, [SAF_DTYPE_Q5_K] = {fill_q5_k, 43},
    [SAF_DTYPE_Q6_K] = {fill_q6_k, 53},
};

bool saf__synthetic_supports(saf_dtype dtype) {
    return (unsigned)dtype < SAF_DTYPE_COUNT && fillers[dtype].fill != NULL;
}

void saf__synthetic_fill(const saf__synthetic *s, int64_t first, int64_t n, void *out) {
    bool floats = !saf_dtype_is_quantised(s->dtype);
    int64_t block = floats ? FLOAT_BLOCK : saf_dtype_block(s->dtype);
    size_t bytes = floats ? (size_t)block * (size_t)saf_dtype_block_bytes(s->dtype)
                          : (size_t)saf_dtype_block_bytes(s->dtype);
    int64_t blocks = saf_ceil_div(n, block), first_block = first / block;
    int calls = (fillers[s->dtype].words + 3) / 4;
    filler fill = fillers[s->dtype].fill;
    uint8_t *to = out;
#pragma omp parallel for schedule(static)
    for (int64_t b0 = 0; b0 < blocks; b0 += BATCH_BLOCKS) {
        uint32_t random[BATCH_BLOCKS * CALLS_MAX * 4];
        int64_t count = saf_i64_min(BATCH_BLOCKS, blocks - b0);
        saf_philox_fill(s->seed, s->tensor, (uint64_t)(first_block + b0) * (uint64_t)calls,
                        (size_t)count * (size_t)calls, random);
        for (int64_t b = b0; b < b0 + count; b++)
            fill(random + (b - b0) * calls * 4, s, saf_i64_min(block, n - b * block),
                 to + (size_t)b * bytes);
    }
}
