/* kernel_util.h: for the tests of the kernel room. Random numbers, random weight files, and an
 * independent reading of every quantised GGUF type, written from the format's definition element
 * by element. */
#ifndef SAF_TESTS_KERNEL_UTIL_H
#define SAF_TESTS_KERNEL_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "kernel/kernels.h"
#include "saf/kernel.h"

#define UTIL static inline __attribute__((unused))

/* Those that this processor cannot run are passed over. */
static const char *const kernel_names[] = {"scalar", "avx2", "avx512", "amx", "neon"};
enum { KERNEL_NAMES = sizeof kernel_names / sizeof kernel_names[0] };

static const saf_dtype weight_types[] = {
    SAF_DTYPE_F32,  SAF_DTYPE_F16,  SAF_DTYPE_BF16, SAF_DTYPE_Q8_0, SAF_DTYPE_Q4_0,
    SAF_DTYPE_Q4_1, SAF_DTYPE_Q5_0, SAF_DTYPE_Q5_1, SAF_DTYPE_Q2_K, SAF_DTYPE_Q3_K,
    SAF_DTYPE_Q4_K, SAF_DTYPE_Q5_K, SAF_DTYPE_Q6_K,
};
enum { WEIGHT_TYPES = sizeof weight_types / sizeof weight_types[0] };

/* ---- random numbers ------------------------------------------------------------------------ */

static uint64_t util_seed = 1;
UTIL uint32_t util_u32(void) {
    uint32_t r[4];
    saf_philox(0x5AF, 0, util_seed++, r);
    return r[0];
}
UTIL int util_below(int n) {
    return (int)(util_u32() % (uint32_t)n);
}
/* About normal, standard deviation 1. */
UTIL float util_normal(void) {
    uint32_t r[4];
    double sum = 0;
    saf_philox(0x5AF, 1, util_seed++, r);
    for (int i = 0; i < 4; i++) sum += (double)(r[i] & 0xFFFF) + (double)(r[i] >> 16);
    return (float)((sum / 65536 - 4) * 1.2247448713915890);
}
UTIL void util_fill(float *x, int64_t n, float scale) {
    for (int64_t i = 0; i < n; i++) x[i] = util_normal() * scale;
}

/* Equal bits, or both NaN: which NaN an operation gives differs between processors. */
UTIL bool util_same(float a, float b) {
    return (isnan(a) && isnan(b)) || saf_f32_to_bits(a) == saf_f32_to_bits(b);
}
/* A value of any kind there is: everyday, huge, tiny, denormal, zero, and infinite or NaN where
 * `broken`. */
UTIL float util_hard(bool broken) {
    static const float special[] = {
        0.0f,      -0.0f,    0x1p-149f, -0x1p-149f, 0x1p-126f, 0x1.fffffcp-127f, 0x1.fffffep127f,
        -0x1p127f, INFINITY, -INFINITY, NAN};
    int kind = util_below(8);
    if (kind == 0) return special[util_below(broken ? 11 : 8)];
    return util_normal() * ldexpf(1, kind == 1 ? util_below(250) - 140 : util_below(12) - 6);
}

UTIL void *util_new(size_t bytes) {
    void *p = NULL;
    assert_int_equal(saf_alloc(bytes, 1, &p), SAF_OK);
    return p;
}

/* ---- weight files -------------------------------------------------------------------------- */

typedef enum {
    FILL_USUAL,
    FILL_LARGEST,  /* largest f16 scales, bytes 0xFF and 0x80 mixed */
    FILL_ALL_ONES, /* every byte 0xFF: the largest codes everywhere */
    FILL_ALL_LOW,  /* every byte 0x80: -128 in Q8_0, the lowest signed scales */
    FILL_SMALLEST,
    FILL_ZERO,
    FILL_BROKEN, /* some scales (float types: some weights) infinite or NaN */
    FILL_KINDS
} util_fill_kind;

/* Sets every f16 scale of a block, whose places differ by type. */
UTIL void util_set_scales(saf_dtype dtype, uint8_t *block, uint16_t d, uint16_t m) {
    int d_at = 0, m_at = -1;
    switch ((int)dtype) {
        case SAF_DTYPE_Q4_1:
        case SAF_DTYPE_Q5_1:
        case SAF_DTYPE_Q4_K:
        case SAF_DTYPE_Q5_K:
            m_at = 2;
            break;
        case SAF_DTYPE_Q2_K:
            d_at = 80, m_at = 82;
            break;
        case SAF_DTYPE_Q3_K:
            d_at = 108;
            break;
        case SAF_DTYPE_Q6_K:
            d_at = 208;
            break;
    }
    memcpy(block + d_at, &d, 2);
    if (m_at >= 0) memcpy(block + m_at, &m, 2);
}

/* rows x cols of a type: random codes with scales of everyday size, or an extreme. */
UTIL uint8_t *util_weights(saf_dtype dtype, int64_t rows, int64_t cols, util_fill_kind kind) {
    size_t bytes = 0;
    assert_true(saf_dtype_bytes(dtype, rows * cols, &bytes));
    uint8_t *raw = util_new(bytes);
    if (saf_dtype_block(dtype) == 1) {
        for (int64_t i = 0; i < rows * cols; i++) {
            float w = kind == FILL_ZERO ? 0 : util_normal() * 0.1f;
            if (kind == FILL_LARGEST) w *= 1e4f;
            if (kind == FILL_SMALLEST) w *= dtype == SAF_DTYPE_F16 ? 1e-5f : 1e-38f;
            if (kind == FILL_BROKEN && util_below(50) == 0) w = util_below(2) ? -INFINITY : NAN;
            uint16_t half = dtype == SAF_DTYPE_F16 ? saf_f16_from_f32(w) : saf_bf16_from_f32(w);
            if (dtype == SAF_DTYPE_F32)
                memcpy(raw + 4 * i, &w, 4);
            else
                memcpy(raw + 2 * i, &half, 2);
        }
        return raw;
    }
    size_t size = (size_t)saf_dtype_block_bytes(dtype);
    for (size_t at = 0; at < bytes; at += size) {
        for (size_t i = 0; i < size; i++) {
            raw[at + i] = (uint8_t)util_u32();
            if (kind == FILL_LARGEST) raw[at + i] = util_below(2) ? 0xFF : 0x80;
            if (kind == FILL_ALL_ONES) raw[at + i] = 0xFF;
            if (kind == FILL_ALL_LOW) raw[at + i] = 0x80;
            if (kind == FILL_ZERO) raw[at + i] = 0;
        }
        uint16_t d = saf_f16_from_f32(util_normal() * 0.01f);
        uint16_t m = saf_f16_from_f32(util_normal() * 0.01f);
        if (kind == FILL_LARGEST) d = 0x7BFF, m = 0xFBFF;  /* +-65504 */
        if (kind == FILL_SMALLEST) d = 0x0001, m = 0x8001; /* +-2^-24 */
        if (kind == FILL_ZERO) d = 0x8000, m = 0;
        if (kind == FILL_BROKEN && util_below(9) == 0) d = util_below(2) ? 0xFC00 : 0x7E00;
        if (kind == FILL_BROKEN && util_below(9) == 0) m = util_below(2) ? 0x7C00 : 0xFE00;
        util_set_scales(dtype, raw + at, d, m);
    }
    return raw;
}

UTIL saf_weight util_pack(saf_dtype dtype, int64_t rows, int64_t cols, const uint8_t *raw) {
    saf_weight w = {0};
    assert_int_equal(saf_weight_plan(dtype, rows, cols, &w), SAF_OK);
    w.data = util_new(w.bytes);
    memset(w.data, 0xA5, w.bytes);
    saf_weight_pack(&w, 0, rows, raw);
    return w;
}

/* ---- the types, element by element --------------------------------------------------------- */

/* value of element k = d * scale[k] * code[k] - dmin * min[k] */
typedef struct {
    float d, dmin;
    int scale[256], min[256], code[256];
} naive_block;

UTIL float naive_f16(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, 2);
    return saf_f32_from_f16(half);
}

UTIL void naive_legacy(saf_dtype dtype, const uint8_t *p, naive_block *o) {
    bool five = dtype == SAF_DTYPE_Q5_0 || dtype == SAF_DTYPE_Q5_1;
    bool with_min = dtype == SAF_DTYPE_Q4_1 || dtype == SAF_DTYPE_Q5_1;
    const uint8_t *high = p + (with_min ? 4 : 2), *codes = high + (five ? 4 : 0);
    o->d = naive_f16(p);
    o->dmin = with_min ? -naive_f16(p + 2) : 0;
    for (int j = 0; j < 32; j++) {
        o->scale[j] = 1;
        o->min[j] = with_min;
        if (dtype == SAF_DTYPE_Q8_0) {
            o->code[j] = (int8_t)p[2 + j];
            continue;
        }
        int code = j < 16 ? codes[j] % 16 : codes[j - 16] / 16;
        if (five && (high[j / 8] & 1 << j % 8)) code += 16;
        o->code[j] = with_min ? code : code - (five ? 16 : 8);
    }
}

UTIL void naive_q2_k(const uint8_t *p, naive_block *o) {
    o->d = naive_f16(p + 80);
    o->dmin = naive_f16(p + 82);
    for (int k = 0; k < 256; k++) {
        int half = k / 128, shift = k % 128 / 32;
        o->code[k] = p[16 + 32 * half + k % 32] >> 2 * shift & 3;
        o->scale[k] = p[k / 16] & 15;
        o->min[k] = p[k / 16] >> 4;
    }
}

UTIL void naive_q3_k(const uint8_t *p, naive_block *o) {
    const uint8_t *mask = p, *codes = p + 32, *packed = p + 96;
    int scales[16];
    for (int j = 0; j < 4; j++) { /* the format's own unpacking, a 32-bit word at a time */
        scales[j] = (packed[j] & 15) + ((packed[8 + j] & 3) << 4);
        scales[4 + j] = (packed[4 + j] & 15) + ((packed[8 + j] >> 2 & 3) << 4);
        scales[8 + j] = (packed[j] >> 4) + ((packed[8 + j] >> 4 & 3) << 4);
        scales[12 + j] = (packed[4 + j] >> 4) + ((packed[8 + j] >> 6 & 3) << 4);
    }
    o->d = naive_f16(p + 108);
    o->dmin = 0;
    for (int k = 0; k < 256; k++) {
        int code = codes[k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3;
        o->code[k] = mask[k % 32] & 1 << k / 32 ? code : code - 4;
        o->scale[k] = scales[k / 16] - 32;
        o->min[k] = 0;
    }
}

UTIL void naive_q45_k(bool five, const uint8_t *p, naive_block *o) {
    const uint8_t *s = p + 4, *high = p + 16, *codes = p + (five ? 48 : 16);
    o->d = naive_f16(p);
    o->dmin = naive_f16(p + 2);
    for (int k = 0; k < 256; k++) {
        int j = k / 32;
        o->scale[k] = j < 4 ? s[j] % 64 : s[j + 4] % 16 + s[j - 4] / 64 * 16;
        o->min[k] = j < 4 ? s[j + 4] % 64 : s[j + 4] / 16 + s[j] / 64 * 16;
        uint8_t byte = codes[k / 64 * 32 + k % 32];
        o->code[k] = k % 64 < 32 ? byte % 16 : byte / 16;
        if (five && (high[k % 32] & 1 << j)) o->code[k] += 16;
    }
}

UTIL void naive_q6_k(const uint8_t *p, naive_block *o) {
    o->d = naive_f16(p + 208);
    o->dmin = 0;
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = p + 64 * half, *high = p + 128 + 32 * half;
        for (int l = 0; l < 32; l++) {
            int *code = o->code + 128 * half + l;
            code[0] = (low[l] % 16 + high[l] % 4 * 16) - 32;
            code[32] = (low[l + 32] % 16 + high[l] / 4 % 4 * 16) - 32;
            code[64] = (low[l] / 16 + high[l] / 16 % 4 * 16) - 32;
            code[96] = (low[l + 32] / 16 + high[l] / 64 * 16) - 32;
        }
    }
    for (int k = 0; k < 256; k++) {
        o->scale[k] = (int8_t)p[192 + k / 16];
        o->min[k] = 0;
    }
}

UTIL void naive_decode(saf_dtype dtype, const uint8_t *p, naive_block *o) {
    switch ((int)dtype) {
        case SAF_DTYPE_Q2_K:
            naive_q2_k(p, o);
            break;
        case SAF_DTYPE_Q3_K:
            naive_q3_k(p, o);
            break;
        case SAF_DTYPE_Q4_K:
            naive_q45_k(false, p, o);
            break;
        case SAF_DTYPE_Q5_K:
            naive_q45_k(true, p, o);
            break;
        case SAF_DTYPE_Q6_K:
            naive_q6_k(p, o);
            break;
        default:
            naive_legacy(dtype, p, o);
            break;
    }
}

/* The row of `cols` values that begins at raw. */
UTIL void naive_row(saf_dtype dtype, const uint8_t *raw, int64_t cols, float *out) {
    int block = saf_dtype_block(dtype);
    naive_block n;
    for (int64_t k0 = 0; k0 < cols; k0 += block, raw += saf_dtype_block_bytes(dtype)) {
        if (block == 1) {
            uint16_t half;
            memcpy(&half, raw, 2);
            if (dtype == SAF_DTYPE_F32)
                memcpy(out + k0, raw, 4);
            else
                out[k0] = dtype == SAF_DTYPE_F16 ? saf_f32_from_f16(half) : saf_f32_from_bf16(half);
            continue;
        }
        naive_decode(dtype, raw, &n);
        for (int k = 0; k < block; k++) {
            float scaled = n.d * (float)n.scale[k], low = n.dmin * (float)n.min[k];
            out[k0 + k] = scaled * (float)n.code[k] - low;
        }
    }
}

#endif
