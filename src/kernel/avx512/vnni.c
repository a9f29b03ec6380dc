/* Quantised products with AVX-512 VNNI: 32 rows (two registers of sums) by up to six tokens.
 *
 * What is exact in integers is taken by whichever way is shorter:
 *   - the offset of the codes starts the sums, as -offset * sum(q);
 *   - scale * sum and the sum over two halves stay below 2^24, so f32 does them without rounding;
 *   - the small scales of Q2_K and Q3_K multiply the codes while these are unpacked.
 */
#include <immintrin.h>

#include "kernel/avx512/avx512.h"
#include "kernel/avx512/codes.h"
#include "kernel/frame/quant.h"

/* What one kernel is compiled for. */
typedef enum {
    PLAIN,      /* d; no scale, no minimum */
    PLAIN_MIN,  /* d, m; minimum's factor 1 */
    BLOCK_MIN,  /* scale and minimum for each block */
    HALVES,     /* a signed scale for each half block */
    SCALED,     /* as HALVES, the scale already in the codes */
    SCALED_MIN, /* as NIBBLES, the scale already in the codes */
    NIBBLES,    /* packed Q2_K: scale and minimum for each half block */
} shape;

/* ---- one block ----------------------------------------------------------------------------- */

/* The scales and minima of a block, for both halves of 16 rows. */
typedef struct {
    __m512 scale[2][2]; /* [half of columns][half of rows] */
    __m512i min[2];     /* pairs: factor of the first half of columns, of the second */
} block_meta;

SAF__INLINE void meta_load(const shape S, const uint8_t *meta, block_meta *m) {
    for (int r = 0; r < 2; r++) {
        if (S == BLOCK_MIN) {
            __m512i min = unsigned_bytes(meta + 32 + 16 * r);
            m->scale[0][r] = _mm512_cvtepi32_ps(unsigned_bytes(meta + 16 * r));
            m->min[r] = pairs(min, min);
        } else if (S == HALVES) {
            m->scale[0][r] = _mm512_cvtepi32_ps(signed_bytes(meta + 16 * r));
            m->scale[1][r] = _mm512_cvtepi32_ps(signed_bytes(meta + 32 + 16 * r));
        } else if (S == NIBBLES || S == SCALED_MIN) {
            __m512i a = unsigned_bytes(meta + 16 * r), b = unsigned_bytes(meta + 32 + 16 * r);
            __m512i low = _mm512_set1_epi32(15);
            m->scale[0][r] = _mm512_cvtepi32_ps(_mm512_and_si512(a, low));
            m->scale[1][r] = _mm512_cvtepi32_ps(_mm512_and_si512(b, low));
            m->min[r] = pairs(_mm512_srli_epi32(a, 4), _mm512_srli_epi32(b, 4));
        } else {
            m->min[r] = _mm512_set1_epi16(1);
        }
    }
}

/* sum += dot of groups [g0, g1) of N tokens. */
SAF__INLINE void dot_groups(const int N, const int BITS, const uint8_t *block, const int8_t *q,
                            const int g0, const int g1, __m512i *sum) {
    SAF__UNROLL for (int g = g0; g < g1; g++) {
        __m512i w0 = codes(BITS, block, g, 0), w1 = codes(BITS, block, g, 1);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m512i a = broadcast4(q + (g * N + t) * 4);
            sum[2 * t] = _mm512_dpbusd_epi32(sum[2 * t], w0, a);
            sum[2 * t + 1] = _mm512_dpbusd_epi32(sum[2 * t + 1], w1, a);
        }
    }
}

/* s of the header's rule as f32 (exact), for N tokens. `correction` holds -offset in both
 * halves. */
SAF__INLINE void dot_block(const int N, const int BITS, const shape S, const uint8_t *block,
                           const panel *p, __m512i correction, const block_meta *m, __m512 *s) {
    const bool by_halves = S == HALVES || S == NIBBLES;
    __m512i sum[2 * SAF__ACT_TOKENS];
    if (!by_halves) {
        SAF__UNROLL for (int t = 0; t < N; t++) sum[2 * t] = sum[2 * t + 1] =
            _mm512_madd_epi16(broadcast4(p->sums + t), correction);
        dot_groups(N, BITS, block, p->q, 0, SAF__GROUPS, sum);
        SAF__UNROLL for (int i = 0; i < 2 * N; i++) {
            s[i] = _mm512_cvtepi32_ps(sum[i]);
            if (S == BLOCK_MIN) s[i] = _mm512_mul_ps(s[i], m->scale[0][i % 2]);
        }
        return;
    }
    __m512i low = _mm512_set1_epi32(0xFFFF);
    SAF__UNROLL for (int t = 0; t < N; t++) sum[2 * t] = sum[2 * t + 1] =
        _mm512_madd_epi16(broadcast4(p->sums + t), _mm512_and_si512(correction, low));
    dot_groups(N, BITS, block, p->q, 0, SAF__GROUPS / 2, sum);
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) s[i] =
        _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i]), m->scale[0][i % 2]);
    SAF__UNROLL for (int t = 0; t < N; t++) sum[2 * t] = sum[2 * t + 1] =
        _mm512_madd_epi16(broadcast4(p->sums + t), _mm512_andnot_si512(low, correction));
    dot_groups(N, BITS, block, p->q, SAF__GROUPS / 2, SAF__GROUPS, sum);
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) s[i] =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i]), m->scale[1][i % 2], s[i]);
}

/* ---- a panel ------------------------------------------------------------------------------- */

/* N tokens and 32 rows over all blocks of a panel. */
SAF__INLINE void dot_panel(const int N, const int BITS, const shape S, const int BLOCKS,
                           const panel *in, int rows, float *y, int64_t ldy) {
    const bool has_min = S == PLAIN_MIN || S == BLOCK_MIN || S == NIBBLES || S == SCALED_MIN;
    const bool has_meta = BLOCKS > 1;
    const int plane = BITS == 8 ? WIDE_PLANE : BITS * 128;
    panel p = *in;
    __m512i correction = _mm512_set1_epi16((int16_t)-p.offset);
    __mmask16 live[2] = {(__mmask16)((1u << (rows < 16 ? rows : 16)) - 1),
                         (__mmask16)((1u << (rows < 16 ? 0 : rows - 16)) - 1)};
    __m512 acc[2 * SAF__ACT_TOKENS];
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) acc[i] =
        p.first ? _mm512_setzero_ps()
                : _mm512_maskz_loadu_ps(live[i % 2], y + i / 2 * ldy + i % 2 * 16);
    for (; p.supers > 0; p.supers--) {
        __m512 d[2] = {halfs(p.super), halfs(p.super + 32)}, m[2] = {d[0], d[1]};
        if (has_min) m[0] = halfs(p.super + 64), m[1] = halfs(p.super + 96);
        p.super += has_min ? 128 : 64;
        for (int b = 0; b < BLOCKS; b++) {
            __m512 s[2 * SAF__ACT_TOKENS];
            block_meta meta;
            if (BITS < 8 || BLOCKS * N == 1)
                prefetch_ahead(p.super, plane + (has_meta ? META_BYTES : 0));
            else
                prefetch_next(&p);
            meta_load(S, p.super + plane, &meta);
            dot_block(N, BITS, S, p.super, &p, correction, &meta, s);
            SAF__UNROLL for (int t = 0; t < N; t++) {
                __m512 dx = _mm512_set1_ps(p.dx[t]);
                __m512i q_sums = broadcast4(p.sums + t);
                SAF__UNROLL for (int r = 0; r < 2; r++) {
                    __m512 *a = &acc[2 * t + r];
                    *a = _mm512_fmadd_ps(_mm512_mul_ps(d[r], dx), s[2 * t + r], *a);
                    if (!has_min) continue;
                    __m512 u = _mm512_cvtepi32_ps(_mm512_madd_epi16(meta.min[r], q_sums));
                    *a = _mm512_fmadd_ps(_mm512_mul_ps(m[r], dx), u, *a);
                }
            }
            p.super += plane + (has_meta ? META_BYTES : 0);
            p.q += N * SAF_QUANT_BLOCK;
            p.dx += N;
            p.sums += N;
        }
    }
    SAF__UNROLL for (int i = 0; i < 2 * N; i++)
        _mm512_mask_storeu_ps(y + i / 2 * ldy + i % 2 * 16, live[i % 2], acc[i]);
}

#define KERNEL(name, tokens, bits, shape_, blocks)                        \
    static void name(const panel *p, int rows, float *y, int64_t ldy) {   \
        dot_panel((tokens), (bits), (shape_), (blocks), p, rows, y, ldy); \
    }
/* One token, straight from the packed planes. */
KERNEL(one_q8_0, 1, 8, PLAIN, 1)
KERNEL(one_q4_0, 1, 4, PLAIN, 1)
KERNEL(one_q4_1, 1, 4, PLAIN_MIN, 1)
KERNEL(one_q5_0, 1, 5, PLAIN, 1)
KERNEL(one_q5_1, 1, 5, PLAIN_MIN, 1)
KERNEL(one_q2_k, 1, 2, NIBBLES, 8)
KERNEL(one_q3_k, 1, 3, HALVES, 8)
KERNEL(one_q4_k, 1, 4, BLOCK_MIN, 8)
KERNEL(one_q5_k, 1, 5, BLOCK_MIN, 8)
KERNEL(one_q6_k, 1, 6, HALVES, 8)

/* One to six tokens, from wide supers. */
#define WIDE_KERNELS(shape_, blocks)                             \
    KERNEL(wide_##shape_##_1, 1, 8, shape_, blocks)              \
    KERNEL(wide_##shape_##_2, 2, 8, shape_, blocks)              \
    KERNEL(wide_##shape_##_3, 3, 8, shape_, blocks)              \
    KERNEL(wide_##shape_##_4, 4, 8, shape_, blocks)              \
    KERNEL(wide_##shape_##_5, 5, 8, shape_, blocks)              \
    KERNEL(wide_##shape_##_6, 6, 8, shape_, blocks)              \
    static const panel_kernel wide_##shape_[SAF__ACT_TOKENS] = { \
        wide_##shape_##_1, wide_##shape_##_2, wide_##shape_##_3, \
        wide_##shape_##_4, wide_##shape_##_5, wide_##shape_##_6};
WIDE_KERNELS(PLAIN, 1)
WIDE_KERNELS(PLAIN_MIN, 1)
WIDE_KERNELS(BLOCK_MIN, 8)
WIDE_KERNELS(HALVES, 8)
WIDE_KERNELS(SCALED, 8)
WIDE_KERNELS(SCALED_MIN, 8)

/* ---- unpacking ----------------------------------------------------------------------------- */

SAF__INLINE void unpack(const int BITS, const uint8_t *block, uint8_t *wide) {
    const bool is_scaled = BITS < 4;
    const uint8_t *scales = block + BITS * 128;
    prefetch_ahead(block, BITS * 128 + META_BYTES);
    SAF__UNROLL for (int g = 0; g < SAF__GROUPS; g++) {
        SAF__UNROLL for (int half = 0; half < 2; half++) {
            __m512i x = codes(BITS, block, g, half);
            if (is_scaled) x = scaled_codes(BITS, x, scales + g / 4 * 32 + half * 16);
            _mm512_storeu_si512(wide + g * SAF__GROUP_BYTES + half * 64, x);
        }
    }
}
static void unpack_2(const uint8_t *block, uint8_t *wide) {
    unpack(2, block, wide);
}
static void unpack_3(const uint8_t *block, uint8_t *wide) {
    unpack(3, block, wide);
}
static void unpack_4(const uint8_t *block, uint8_t *wide) {
    unpack(4, block, wide);
}
static void unpack_5(const uint8_t *block, uint8_t *wide) {
    unpack(5, block, wide);
}
static void unpack_6(const uint8_t *block, uint8_t *wide) {
    unpack(6, block, wide);
}

static const quant_type types[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = {one_q8_0, wide_PLAIN, NULL, 128},
    [SAF_DTYPE_Q4_0] = {one_q4_0, wide_PLAIN, unpack_4, 8},
    [SAF_DTYPE_Q4_1] = {one_q4_1, wide_PLAIN_MIN, unpack_4, 0},
    [SAF_DTYPE_Q5_0] = {one_q5_0, wide_PLAIN, unpack_5, 16},
    [SAF_DTYPE_Q5_1] = {one_q5_1, wide_PLAIN_MIN, unpack_5, 0},
    [SAF_DTYPE_Q2_K] = {one_q2_k, wide_SCALED_MIN, unpack_2, 0},
    [SAF_DTYPE_Q3_K] = {one_q3_k, wide_SCALED, unpack_3, Q3_K_WIDE_OFFSET},
    [SAF_DTYPE_Q4_K] = {one_q4_k, wide_BLOCK_MIN, unpack_4, 0},
    [SAF_DTYPE_Q5_K] = {one_q5_k, wide_BLOCK_MIN, unpack_5, 0},
    [SAF_DTYPE_Q6_K] = {one_q6_k, wide_HALVES, unpack_6, 32},
};

void saf__vnni_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                         float *y, int64_t ldy) {
    frame_dot_quant(&types[dtype], saf__form_of(dtype), tile, a, rows, y, ldy);
}

void saf__kernels_avx512_vnni(saf__kernels *k) {
    k->name = "avx512-vnni";
    k->dot_quant = saf__vnni_dot_quant;
}
