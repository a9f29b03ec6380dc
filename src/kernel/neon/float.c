/* Float products and the quantisation of activations with NEON. */
#include <math.h>

#include "kernel/frame/inline.h"
#include "kernel/frame/quantise.h"
#include "kernel/neon/neon.h"

/* Columns of one pass over all tokens: their weights stay in the first-level cache. Accumulators
 * of a pass: up to 24 of the 32 registers. */
enum { PANEL_COLS = 128, PASS_TOKENS = 6, PASS_QUADS = 4 };

SAF__INLINE float32x4_t weights_load(const saf_dtype D, const uint8_t *at) {
    if (D == SAF_DTYPE_F32) return vld1q_f32((const float *)(const void *)at);
    if (D == SAF_DTYPE_F16) return quad_halfs(at);
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(at)), 16));
}

typedef struct {
    const uint8_t *tile;
    const float *x;
    int64_t ldx, k0, k1;
    int rows;
    float *y;
    int64_t ldy;
} panel;

/* N tokens and R registers of rows from row r0 over columns [k0, k1). */
SAF__INLINE void dot_panel(const saf_dtype D, const int N, const int R, const panel *p, int r0) {
    const int width = D == SAF_DTYPE_F32 ? 4 : 2;
    const int columns = R * QUAD, live = p->rows - r0;
    float32x4_t acc[PASS_TOKENS * PASS_QUADS];
    float part[PASS_TOKENS * SAF_TILE_ROWS], *sums = p->y + r0;
    int64_t ld = p->ldy;
    if (live < columns) {
        if (p->k0 > 0) edge_load(N, live, columns, sums, ld, part);
        sums = part, ld = columns;
    }
    SAF__UNROLL for (int t = 0; t < N; t++) {
        SAF__UNROLL for (int r = 0; r < R; r++) acc[t * R + r] =
            p->k0 == 0 ? vdupq_n_f32(0) : vld1q_f32(sums + t * ld + r * QUAD);
    }
    for (int64_t k = p->k0; k < p->k1; k++) {
        const uint8_t *at = p->tile + (k * SAF_TILE_ROWS + r0) * width;
        float32x4_t w[QUADS];
        SAF__UNROLL for (int r = 0; r < R; r++) w[r] = weights_load(D, at + r * QUAD * width);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            float32x4_t xt = vdupq_n_f32(p->x[t * p->ldx + k]);
            SAF__UNROLL for (int r = 0; r < R; r++) acc[t * R + r] =
                vfmaq_f32(acc[t * R + r], xt, w[r]);
        }
    }
    SAF__UNROLL for (int t = 0; t < N; t++) {
        SAF__UNROLL for (int r = 0; r < R; r++) vst1q_f32(sums + t * ld + r * QUAD, acc[t * R + r]);
    }
    if (live < columns) edge_store(N, live, columns, part, p->y + r0, p->ldy);
}

/* One token: the whole tile at once; more: a half after the other. */
SAF__INLINE void dot_tokens(const saf_dtype D, int64_t n, const panel *p) {
    if (n == 1) {
        dot_panel(D, 1, QUADS, p, 0);
        return;
    }
    for (int r0 = 0; r0 < p->rows; r0 += PASS_QUADS * QUAD) {
        switch (n) {
            case 2:
                dot_panel(D, 2, PASS_QUADS, p, r0);
                break;
            case 3:
                dot_panel(D, 3, PASS_QUADS, p, r0);
                break;
            case 4:
                dot_panel(D, 4, PASS_QUADS, p, r0);
                break;
            case 5:
                dot_panel(D, 5, PASS_QUADS, p, r0);
                break;
            default:
                dot_panel(D, PASS_TOKENS, PASS_QUADS, p, r0);
                break;
        }
    }
}

SAF__INLINE void dot_type(const saf_dtype D, const uint8_t *tile, const saf__acts_view *a, int rows,
                          float *y, int64_t ldy) {
    int64_t cols = a->tokens > PASS_TOKENS ? PANEL_COLS : a->cols;
    for (int64_t k0 = 0; k0 < a->cols; k0 += cols) {
        for (int64_t t = 0; t < a->tokens; t += PASS_TOKENS) {
            panel p = {tile, a->x + t * a->ldx, a->ldx, k0, saf_i64_min(k0 + cols, a->cols),
                       rows, y + t * ldy,       ldy};
            dot_tokens(D, saf_i64_min(PASS_TOKENS, a->tokens - t), &p);
        }
    }
}

static void neon_dot_float(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                           float *y, int64_t ldy) {
    if (dtype == SAF_DTYPE_F32)
        dot_type(SAF_DTYPE_F32, tile, a, rows, y, ldy);
    else if (dtype == SAF_DTYPE_F16)
        dot_type(SAF_DTYPE_F16, tile, a, rows, y, ldy);
    else
        dot_type(SAF_DTYPE_BF16, tile, a, rows, y, ldy);
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
    k->dot_float = neon_dot_float;
    k->quantise = frame_quantise;
}
