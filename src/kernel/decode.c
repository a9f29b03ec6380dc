/* One block of 32 columns of every quantised GGUF type, from the file's bytes.
 * Source: the GGUF type definitions. A "super" here is the file's own block: 32 or 256 columns. */
#include "kernel/pack.h"

static uint16_t read_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static uint32_t read_u32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static void set_scales(saf__block *out, int scale0, int scale1, int min0, int min1) {
    out->scale[0] = (int16_t)scale0, out->scale[1] = (int16_t)scale1;
    out->min[0] = (int16_t)min0, out->min[1] = (int16_t)min1;
}

/* 34 bytes: d, 32 signed bytes. */
static void decode_q8_0(const uint8_t *raw, saf__block *out) {
    out->d = read_u16(raw);
    for (int k = 0; k < 32; k++) out->code[k] = raw[2 + k] ^ 0x80;
}

/* Sixteen bytes: columns 0..15 in the low halves, 16..31 in the high ones. */
static void decode_nibbles(const uint8_t *bytes, saf__block *out) {
    for (int k = 0; k < 16; k++) {
        out->code[k] = bytes[k] & 15;
        out->code[16 + k] = bytes[k] >> 4;
    }
}
/* A 32-bit word whose bit k is the fifth bit of column k. */
static void add_fifth_bits(uint32_t bits, saf__block *out) {
    for (int k = 0; k < 32; k++) out->code[k] |= (uint8_t)((bits >> k & 1) << 4);
}

/* Two bits of 32 columns: the file keeps column k of block b of half a super at bits 2 b. */
static void decode_two_bits(const uint8_t *bytes, int shift, saf__block *out) {
    for (int k = 0; k < 32; k++) out->code[k] = bytes[k] >> shift & 3;
}

/* 84 bytes: 16 of scale and minimum, 64 of two-bit codes, d, dmin. */
static void decode_q2_k(const uint8_t *raw, int b, saf__block *out) {
    const uint8_t *s = raw + 2 * b;
    decode_two_bits(raw + 16 + 32 * (b / 4), 2 * (b % 4), out);
    out->d = read_u16(raw + 80);
    out->m = read_u16(raw + 82) ^ 0x8000;
    set_scales(out, s[0] & 15, s[1] & 15, s[0] >> 4, s[1] >> 4);
}

/* Scale j of 16, six bits: four low ones in bytes 0..7, two high ones in bytes 8..11. */
static int q3_k_scale(const uint8_t *s, int j) {
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}
/* 110 bytes: 32 with the third bits (bit b for block b), 64 of two-bit codes, 12 of scales, d. */
static void decode_q3_k(const uint8_t *raw, int b, saf__block *out) {
    decode_two_bits(raw + 32 + 32 * (b / 4), 2 * (b % 4), out);
    for (int k = 0; k < 32; k++) out->code[k] |= (uint8_t)((raw[k] >> b & 1) << 2);
    out->d = read_u16(raw + 108);
    set_scales(out, q3_k_scale(raw + 96, 2 * b), q3_k_scale(raw + 96, 2 * b + 1), 0, 0);
}

/* Scale and minimum j of 8, six bits each, in twelve bytes. */
static void k_scale_min(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}
/* Both begin with d, dmin and twelve bytes of scales. Blocks 2i and 2i + 1 share 32 bytes. */
static void decode_q45_k(const uint8_t *raw, const uint8_t *nibbles, int b, saf__block *out) {
    int scale, min;
    const uint8_t *bytes = nibbles + 32 * (b / 2);
    for (int k = 0; k < 32; k++) out->code[k] = b % 2 ? bytes[k] >> 4 : bytes[k] & 15;
    out->d = read_u16(raw);
    out->m = read_u16(raw + 2) ^ 0x8000;
    k_scale_min(raw + 4, b, &scale, &min);
    set_scales(out, scale, scale, min, min);
}
/* 176 bytes: after the scales 32 with the fifth bits (bit b for block b), then 128 of codes. */
static void decode_q5_k(const uint8_t *raw, int b, saf__block *out) {
    decode_q45_k(raw, raw + 48, b, out);
    for (int k = 0; k < 32; k++) out->code[k] |= (uint8_t)((raw[16 + k] >> b & 1) << 4);
}

/* 210 bytes: 128 with four low bits, 64 with two high ones, 16 signed scales, d. Half a super
 * (four blocks) takes 64 of the first and 32 of the second. */
static void decode_q6_k(const uint8_t *raw, int b, saf__block *out) {
    int half = b / 4, q = b % 4;
    const uint8_t *low = raw + 64 * half + 32 * (q % 2), *high = raw + 128 + 32 * half;
    for (int k = 0; k < 32; k++) {
        int nibble = q < 2 ? low[k] & 15 : low[k] >> 4;
        out->code[k] = (uint8_t)(nibble | (high[k] >> 2 * q & 3) << 4);
    }
    const int8_t *scale = (const int8_t *)(raw + 192 + 2 * b);
    out->d = read_u16(raw + 208);
    set_scales(out, scale[0], scale[1], 0, 0);
}

void saf__block_decode(saf_dtype dtype, const uint8_t *raw, int b, saf__block *out) {
    set_scales(out, 1, 1, 1, 1);
    out->m = 0;
    switch ((int)dtype) {
        case SAF_DTYPE_Q8_0:
            decode_q8_0(raw, out);
            break;
        case SAF_DTYPE_Q4_0:
            out->d = read_u16(raw);
            decode_nibbles(raw + 2, out);
            break;
        case SAF_DTYPE_Q4_1:
            out->d = read_u16(raw), out->m = read_u16(raw + 2);
            decode_nibbles(raw + 4, out);
            break;
        case SAF_DTYPE_Q5_0:
            out->d = read_u16(raw);
            decode_nibbles(raw + 6, out);
            add_fifth_bits(read_u32(raw + 2), out);
            break;
        case SAF_DTYPE_Q5_1:
            out->d = read_u16(raw), out->m = read_u16(raw + 2);
            decode_nibbles(raw + 8, out);
            add_fifth_bits(read_u32(raw + 4), out);
            break;
        case SAF_DTYPE_Q2_K:
            decode_q2_k(raw, b, out);
            break;
        case SAF_DTYPE_Q3_K:
            decode_q3_k(raw, b, out);
            break;
        case SAF_DTYPE_Q4_K:
            decode_q45_k(raw, raw + 16, b, out);
            break;
        case SAF_DTYPE_Q5_K:
            decode_q5_k(raw, b, out);
            break;
        case SAF_DTYPE_Q6_K:
            decode_q6_k(raw, b, out);
            break;
    }
}
