/* Float products and the quantisation of activations with NEON. */
#include <math.h>

#include "kernel/frame/inline.h"
#include "kernel/frame/quantise.h"
#include "kernel/neon/neon.h"

/* Accumulators of a pass: up to 24 of the 32 registers. */
enum { PASS_TOKENS = 6, PASS_QUADS = 4, PASS_ROWS = PASS_QUADS * QUAD };
#include "kernel/frame/floats.h"

SAF__INLINE float32x4_t weights_load(const saf_dtype D, const uint8_t *at) {
    if (D == SAF_DTYPE_F32) return vld1q_f32((const float *)(const void *)at);
    if (D == SAF_DTYPE_F16) return quad_halfs(at);
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(at)), 16));
}

static void widen(saf_dtype dtype, const uint8_t *at, int64_t n, float *out) {
    if (dtype == SAF_DTYPE_F16)
        for (int64_t i = 0; i < n; i += QUAD)
            vst1q_f32(out + i, weights_load(SAF_DTYPE_F16, at + 2 * i));
    else
        for (int64_t i = 0; i < n; i += QUAD)
            vst1q_f32(out + i, weights_load(SAF_DTYPE_BF16, at + 2 * i));
}

SAF__INLINE void pass_n(const int N, const float_pass *p) {
    const float *w = p->w, *x = p->x, *end = w + p->cols * SAF_TILE_ROWS;
    const uint8_t *ahead = p->ahead;
    int64_t by_turns = 0;
    float part[PASS_TOKENS * PASS_ROWS], *sums = p->y;
    int64_t ld = p->ldy;
    float32x4_t acc[PASS_TOKENS * PASS_QUADS];
    if (p->rows < PASS_ROWS) {
        if (p->more) edge_load(N, p->rows, PASS_ROWS, p->y, p->ldy, part);
        sums = part, ld = PASS_ROWS;
    }
    SAF__UNROLL for (int t = 0; t < N; t++) {
        SAF__UNROLL for (int r = 0; r < PASS_QUADS; r++) acc[t * PASS_QUADS + r] =
            p->more ? vld1q_f32(sums + t * ld + r * QUAD) : vdupq_n_f32(0);
    }
    for (; w < end; w += SAF_TILE_ROWS, x++, ahead += p->step) {
        __builtin_prefetch(ahead + by_turns);
        by_turns = p->quarter - by_turns;
        float32x4_t wk[PASS_QUADS];
        SAF__UNROLL for (int r = 0; r < PASS_QUADS; r++) wk[r] = vld1q_f32(w + r * QUAD);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            float32x4_t xt = vdupq_n_f32(x[t * p->ldx]);
            SAF__UNROLL for (int r = 0; r < PASS_QUADS; r++) acc[t * PASS_QUADS + r] =
                vfmaq_f32(acc[t * PASS_QUADS + r], xt, wk[r]);
        }
    }
    SAF__UNROLL for (int t = 0; t < N; t++) {
        SAF__UNROLL for (int r = 0; r < PASS_QUADS; r++)
            vst1q_f32(sums + t * ld + r * QUAD, acc[t * PASS_QUADS + r]);
    }
    if (p->rows < PASS_ROWS) edge_store(N, p->rows, PASS_ROWS, part, p->y, p->ldy);
}

static void pass_tokens(const float_pass *p, int tokens) {
    switch (tokens) { SAF__PASSES_1_TO_6(p) }
}

SAF__INLINE void one_token(const saf_dtype D, const saf__float_part *p) {
    const int width = D == SAF_DTYPE_F32 ? 4 : 2;
    const uint8_t *at = p->tile;
    float part[SAF_TILE_ROWS];
    float32x4_t acc[QUADS];
    if (p->more) edge_load(1, p->rows, SAF_TILE_ROWS, p->y, p->ldy, part);
    SAF__UNROLL for (int r = 0; r < QUADS; r++) acc[r] =
        p->more ? vld1q_f32(part + r * QUAD) : vdupq_n_f32(0);
    for (int64_t k = 0; k < p->cols; k++, at += SAF_TILE_ROWS * width) {
        float32x4_t xk = vdupq_n_f32(p->x[k]);
        SAF__UNROLL for (int r = 0; r < QUADS; r++) acc[r] =
            vfmaq_f32(acc[r], xk, weights_load(D, at + r * QUAD * width));
    }
    SAF__UNROLL for (int r = 0; r < QUADS; r++) vst1q_f32(part + r * QUAD, acc[r]);
    edge_store(1, p->rows, SAF_TILE_ROWS, part, p->y, p->ldy);
}

/* ---- activations --------------------------------------------------------------------------- */

static void quantise_block(const float *x, int64_t n, int8_t q[SAF_QUANT_BLOCK], float *dx,
                           int32_t *sums) {
    float padded[SAF_QUANT_BLOCK] = {0};
    float32x4_t v[8];
    int32x4_t w[8];
    uint32x4_t largest = vdupq_n_u32(0);
    if (n < SAF_QUANT_BLOCK) x = memcpy(padded, x, (size_t)n * sizeof *x);
    SAF__UNROLL for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(v[i])));
    }
    /* As integers: infinity and NaN are the largest, so the maximum tells of them. */
    uint32_t bits = vmaxvq_u32(largest);
    float amax = saf_f32_from_bits(bits);
    *sums = 0;
    if (bits >= 0x7F800000 || amax < 0x1p-100f) {
        *dx = bits >= 0x7F800000 ? NAN : 0.0f;
        memset(q, 0, SAF_QUANT_BLOCK);
        return;
    }
    *dx = amax / 127.0f;
    float32x4_t inverse = vdupq_n_f32(127.0f / amax);
    SAF__UNROLL for (int i = 0; i < 8; i++) w[i] = vcvtnq_s32_f32(vmulq_f32(v[i], inverse));
    int16x8_t half[4];
    SAF__UNROLL for (int i = 0; i < 4; i++) half[i] =
        vcombine_s16(vmovn_s32(w[2 * i]), vmovn_s32(w[2 * i + 1]));
    *sums = saf__pack_sums(vaddvq_s16(vaddq_s16(half[0], half[1])),
                           vaddvq_s16(vaddq_s16(half[2], half[3])));
    vst1q_s8(q, vcombine_s8(vmovn_s16(half[0]), vmovn_s16(half[1])));
    vst1q_s8(q + 16, vcombine_s8(vmovn_s16(half[2]), vmovn_s16(half[3])));
}

void saf__neon_float(saf__kernels *k) {
    k->dot_float = frame_dot_float;
    k->quantise = frame_quantise;
}
