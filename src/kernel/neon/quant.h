/* quant.h: quantised products with NEON, four rows a register. Compiled with and without the dot
 * product instructions: the file that includes this one defines dot_word.
 *
 * A register of a plane holds four columns of four rows, so that one dot product of bytes adds a
 * group of columns to four sums. It multiplies signed bytes: the offset is taken off the codes
 * first, while unpacking where there are more tokens than one.
 */
#ifndef SAF_KERNEL_NEON_QUANT_H
#define SAF_KERNEL_NEON_QUANT_H

#include "kernel/frame/quant.h"
#include "kernel/neon/neon.h"

/* sum[row] += the four columns of each row of w times the four bytes of q at 4 * word; q has whole
 * sixteens of bytes. */
SAF__INLINE int32x4_t dot_word(int32x4_t sum, int8x16_t w, const int8_t *q, const int word);

/* What one kernel is compiled for. */
typedef struct {
    int bits;   /* of the planes that it reads: 8 for unpacked codes */
    int offset; /* that those still have */
    int blocks; /* of a super */
    saf__meta meta;
    bool has_min;
} variant;

/* ---- codes --------------------------------------------------------------------------------- */

/* Bit `from` and up of every byte moved to bit `to`, of which those in `mask` are kept. */
SAF__INLINE uint8x16_t moved(uint8x16_t x, const int from, const int to, const int mask) {
    x = from > to ? x >> (from > to ? from - to : 0) : x << (from < to ? to - from : 0);
    return vandq_u8(x, vdupq_n_u8((uint8_t)mask));
}
/* Quad r of one plane's 128 bytes. */
SAF__INLINE uint8x16_t plane_load(const uint8_t *plane, int part, int r) {
    return vld1q_u8(plane + part * SAF__GROUP_BYTES + r * 16);
}
/* The codes of group g. */
SAF__INLINE uint8x16_t codes(const int bits, const uint8_t *block, const int g, int r) {
    if (bits == 8) return plane_load(block, g, r);
    uint8x16_t low, high;
    if (bits >= 4) {
        low = moved(plane_load(block, g % 4, r), g < 4 ? 0 : 4, 0, 0x0F);
        if (bits == 4) return low;
        if (bits == 5)
            high = moved(plane_load(block + 512, 0, r), g, 4, 0x10);
        else
            high = moved(plane_load(block + 512, g / 4, r), g % 4 * 2, 4, 0x30);
        return vorrq_u8(low, high);
    }
    low = moved(plane_load(block, g / 4, r), g % 4 * 2, 0, 0x03);
    if (bits == 2) return low;
    high = moved(plane_load(block + 256, 0, r), g, 2, 0x04);
    return vorrq_u8(low, high);
}
SAF__INLINE int8x16_t signed_codes(const int bits, const int offset, const uint8_t *block,
                                   const int g, int r) {
    uint8x16_t c = codes(bits, block, g, r);
    if (offset) c = vsubq_u8(c, vdupq_n_u8((uint8_t)offset));
    return vreinterpretq_s8_u8(c);
}

/* ---- scales and minima --------------------------------------------------------------------- */

SAF__INLINE int32x4_t unsigned_bytes(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(word)))));
}
SAF__INLINE int32x4_t signed_bytes(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(word))));
}
/* Of quad r and half h of the columns of a block whose halves have scales of their own. */
SAF__INLINE int32x4_t scale_load(const saf__meta M, const uint8_t *meta, const int h, int r) {
    meta += QUAD * r;
    if (M == SAF__META_HALVES) return signed_bytes(meta + 32 * h);
    return vandq_s32(unsigned_bytes(meta + 32 * h), vdupq_n_s32(15));
}
/* d of quad r, times the scale of the block where there is one. */
SAF__INLINE float32x4_t block_d(const saf__meta M, const uint8_t *d, const uint8_t *meta, int r) {
    float32x4_t x = quad_halfs(d + 8 * r);
    return M == SAF__META_BLOCK ? x * vcvtq_f32_s32(unsigned_bytes(meta + QUAD * r)) : x;
}
/* m of quad r, times the minimum of the block, or of half h. */
SAF__INLINE float32x4_t block_m(const saf__meta M, const uint8_t *m, const uint8_t *meta, int r,
                                const int h) {
    float32x4_t x = quad_halfs(m + 8 * r);
    meta += QUAD * r;
    if (M == SAF__META_NONE) return x;
    if (M == SAF__META_BLOCK) return x * vcvtq_f32_s32(unsigned_bytes(meta + 32));
    return x * vcvtq_f32_s32(vshrq_n_s32(unsigned_bytes(meta + 32 * h), 4));
}

/* ---- one block ----------------------------------------------------------------------------- */

/* sum[t * R + r] += groups [g0, g1) of N tokens and R quads from quad r0. */
SAF__INLINE void dot_groups(const int N, const int R, const variant V, const uint8_t *block,
                            const int8_t *q, int r0, const int g0, const int g1, int32x4_t *sum) {
    SAF__UNROLL for (int g = g0; g < g1; g++) {
        SAF__UNROLL for (int r = 0; r < R; r++) {
            int8x16_t w = signed_codes(V.bits, V.offset, block, g, r0 + r);
            SAF__UNROLL for (int t = 0; t < N; t++) sum[t * R + r] =
                dot_word(sum[t * R + r], w, q, g * N + t);
        }
    }
}

/* s of the header's rule. */
SAF__INLINE void dot_block(const int N, const int R, const variant V, const uint8_t *block,
                           const uint8_t *meta, const int8_t *q, int r0, int32x4_t *s) {
    const bool by_halves = V.meta == SAF__META_HALVES || V.meta == SAF__META_NIBBLES;
    const int half = SAF__GROUPS / 2;
    SAF__UNROLL for (int i = 0; i < N * R; i++) s[i] = vdupq_n_s32(0);
    dot_groups(N, R, V, block, q, r0, 0, by_halves ? half : SAF__GROUPS, s);
    if (!by_halves) return;
    SAF__UNROLL for (int r = 0; r < R; r++) {
        int32x4_t scale = scale_load(V.meta, meta, 0, r0 + r);
        SAF__UNROLL for (int t = 0; t < N; t++) s[t * R + r] = vmulq_s32(s[t * R + r], scale);
    }
    int32x4_t sum[SAF__ACT_TOKENS * QUADS];
    SAF__UNROLL for (int i = 0; i < N * R; i++) sum[i] = vdupq_n_s32(0);
    dot_groups(N, R, V, block, q, r0, half, SAF__GROUPS, sum);
    SAF__UNROLL for (int r = 0; r < R; r++) {
        int32x4_t scale = scale_load(V.meta, meta, 1, r0 + r);
        SAF__UNROLL for (int t = 0; t < N; t++) s[t * R + r] =
            vmlaq_s32(s[t * R + r], sum[t * R + r], scale);
    }
}

/* ---- a panel ------------------------------------------------------------------------------- */

/* N tokens and R quads of the rows, from quad r0, over all blocks of a panel. */
SAF__INLINE void dot_quads(const int N, const int R, const variant V, panel p, int r0, int rows,
                           float *y, int64_t ldy) {
    const int plane = V.bits == 8 ? WIDE_PLANE : V.bits * 128;
    const int block_bytes = plane + (V.meta == SAF__META_NONE ? 0 : META_BYTES);
    const int width = R * QUAD, live = rows - r0 * QUAD;
    float32x4_t acc[SAF__ACT_TOKENS * QUADS];
    float part[SAF__ACT_TOKENS * SAF_TILE_ROWS], *sums = y + r0 * QUAD;
    int64_t ld = ldy;
    if (live < width) {
        if (!p.first) edge_load(N, live, width, sums, ldy, part);
        sums = part, ld = width;
    }
    SAF__UNROLL for (int i = 0; i < N * R; i++) acc[i] =
        p.first ? vdupq_n_f32(0) : vld1q_f32(sums + i / R * ld + i % R * QUAD);
    for (; p.supers > 0; p.supers--) {
        const uint8_t *header = p.super;
        p.super += V.has_min ? 128 : 64;
        for (int b = 0; b < V.blocks; b++) {
            int32x4_t s[SAF__ACT_TOKENS * QUADS];
            const uint8_t *meta = p.super + plane;
            if (N == 1) prefetch_ahead(p.super, block_bytes);
            dot_block(N, R, V, p.super, meta, p.q, r0, s);
            SAF__UNROLL for (int r = 0; r < R; r++) {
                float32x4_t d = block_d(V.meta, header, meta, r0 + r);
                SAF__UNROLL for (int t = 0; t < N; t++) {
                    float32x4_t *a = &acc[t * R + r];
                    *a = vfmaq_f32(*a, vmulq_n_f32(d, p.dx[t]), vcvtq_f32_s32(s[t * R + r]));
                }
                if (!V.has_min) continue;
                const bool halves = V.meta == SAF__META_NIBBLES;
                SAF__UNROLL for (int h = 0; h <= halves; h++) {
                    float32x4_t m = block_m(V.meta, header + 64, meta, r0 + r, h);
                    SAF__UNROLL for (int t = 0; t < N; t++) acc[t * R + r] =
                        vfmaq_n_f32(acc[t * R + r], m, halves ? half_sum(&p, t, h) : p.u[t]);
                }
            }
            p.super += block_bytes;
            p.q += N * SAF_QUANT_BLOCK;
            p.dx += N;
            p.sums += N;
            p.u += N;
        }
    }
    SAF__UNROLL for (int i = 0; i < N * R; i++) vst1q_f32(sums + i / R * ld + i % R * QUAD, acc[i]);
    if (live < width) edge_store(N, live, width, part, y + r0 * QUAD, ldy);
}

/* One token takes the eight quads at once, so that the weights are read in order; more take what
 * the registers hold: sums, the sums of the second half where there are such, and y. */
#define KERNEL(name, tokens, ...)                                                         \
    static void name(const panel *p, int rows, float *y, int64_t ldy) {                   \
        const variant v = {__VA_ARGS__};                                                  \
        const bool by_halves = v.meta == SAF__META_HALVES || v.meta == SAF__META_NIBBLES; \
        const int together = (tokens) == 1 ? QUADS : by_halves && (tokens) > 4 ? 1 : 2;   \
        for (int r = 0; r * QUAD < rows; r += together)                                   \
            dot_quads((tokens), together, v, *p, r, rows, y, ldy);                        \
    }
SAF__TOKEN_KERNELS(KERNEL, wide_q8_0, 8, 128, 1, SAF__META_NONE, false)
SAF__TOKEN_KERNELS(KERNEL, wide_plain, 8, 0, 1, SAF__META_NONE, false)
SAF__TOKEN_KERNELS(KERNEL, wide_plain_min, 8, 0, 1, SAF__META_NONE, true)
SAF__TOKEN_KERNELS(KERNEL, wide_nibbles, 8, 0, 8, SAF__META_NIBBLES, true)
SAF__TOKEN_KERNELS(KERNEL, wide_halves, 8, 0, 8, SAF__META_HALVES, false)
SAF__TOKEN_KERNELS(KERNEL, wide_block, 8, 0, 8, SAF__META_BLOCK, true)

KERNEL(one_q4_0, 1, 4, 8, 1, SAF__META_NONE, false)
KERNEL(one_q4_1, 1, 4, 0, 1, SAF__META_NONE, true)
KERNEL(one_q5_0, 1, 5, 16, 1, SAF__META_NONE, false)
KERNEL(one_q5_1, 1, 5, 0, 1, SAF__META_NONE, true)
KERNEL(one_q2_k, 1, 2, 0, 8, SAF__META_NIBBLES, true)
KERNEL(one_q3_k, 1, 3, 4, 8, SAF__META_HALVES, false)
KERNEL(one_q4_k, 1, 4, 0, 8, SAF__META_BLOCK, true)
KERNEL(one_q5_k, 1, 5, 0, 8, SAF__META_BLOCK, true)
KERNEL(one_q6_k, 1, 6, 32, 8, SAF__META_HALVES, false)

/* ---- unpacking ----------------------------------------------------------------------------- */

SAF__INLINE void unpack(const int BITS, const int offset, const uint8_t *block, uint8_t *wide) {
    prefetch_ahead(block, BITS * 128 + META_BYTES);
    SAF__UNROLL for (int g = 0; g < SAF__GROUPS; g++) {
        SAF__UNROLL for (int r = 0; r < QUADS; r++)
            vst1q_u8(wide + g * SAF__GROUP_BYTES + r * 16,
                     vreinterpretq_u8_s8(signed_codes(BITS, offset, block, g, r)));
    }
}
SAF__UNPACK(unpack_2, 2, 0)
SAF__UNPACK(unpack_3_signed, 3, 4)
SAF__UNPACK(unpack_4, 4, 0)
SAF__UNPACK(unpack_4_signed, 4, 8)
SAF__UNPACK(unpack_5, 5, 0)
SAF__UNPACK(unpack_5_signed, 5, 16)
SAF__UNPACK(unpack_6_signed, 6, 32)

static const quant_type types[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = {wide_q8_0_1, wide_q8_0, NULL, 128, NULL},
    [SAF_DTYPE_Q4_0] = {one_q4_0, wide_plain, NULL, 0, unpack_4_signed},
    [SAF_DTYPE_Q4_1] = {one_q4_1, wide_plain_min, NULL, 0, unpack_4},
    [SAF_DTYPE_Q5_0] = {one_q5_0, wide_plain, NULL, 0, unpack_5_signed},
    [SAF_DTYPE_Q5_1] = {one_q5_1, wide_plain_min, NULL, 0, unpack_5},
    [SAF_DTYPE_Q2_K] = {one_q2_k, wide_nibbles, NULL, 0, unpack_2},
    [SAF_DTYPE_Q3_K] = {one_q3_k, wide_halves, NULL, 0, unpack_3_signed},
    [SAF_DTYPE_Q4_K] = {one_q4_k, wide_block, NULL, 0, unpack_4},
    [SAF_DTYPE_Q5_K] = {one_q5_k, wide_block, NULL, 0, unpack_5},
    [SAF_DTYPE_Q6_K] = {one_q6_k, wide_halves, NULL, 0, unpack_6_signed},
};

static void neon_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                           float *y, int64_t ldy) {
    frame_dot_quant(&types[dtype], saf__form_of(dtype), tile, a, rows, y, ldy);
}

#endif
