/* Quantised products with AVX2: eight rows a register, four columns of each.
 *
 * maddubs adds two products of an unsigned and a signed byte in 16 bits and saturates at 32767.
 * Codes of six bits and less are far from it, so that 2, 4 or 8 groups add up in 16 bits before
 * one madd widens them, multiplying by the integer scale on the way. Codes of eight bits are made
 * signed: |w| times q with the sign of w is at most 2 * 128 * 127.
 */
#include "kernel/frame/quant.h"
#include "kernel/avx2/avx2.h"

enum { QUARTER = 8 /* rows of a register */, QUARTERS = SAF_TILE_ROWS / QUARTER };

/* What one kernel is compiled for. */
typedef struct {
    int bits;   /* of the planes that it reads: 8 for unpacked codes */
    int code;   /* bits of the codes themselves */
    int blocks; /* of a super */
    saf__meta meta;
    bool has_min;
} variant;

/* ---- codes --------------------------------------------------------------------------------- */

/* Bit `from` and up of every byte moved to bit `to`; bits of neighbours come along. */
SAF__INLINE __m256i shifted(__m256i x, const int from, const int to) {
    if (from > to) return _mm256_srli_epi16(x, from > to ? from - to : 0);
    if (from < to) return _mm256_slli_epi16(x, from < to ? to - from : 0);
    return x;
}
SAF__INLINE __m256i masked(__m256i x, const int mask) {
    return _mm256_and_si256(x, _mm256_set1_epi8((char)mask));
}
/* Quarter r of one plane's 128 bytes. */
SAF__INLINE __m256i plane_load(const uint8_t *plane, int part, int r) {
    return _mm256_loadu_si256((const __m256i *)(plane + part * SAF__GROUP_BYTES + r * 32));
}
/* The codes of group g. */
SAF__INLINE __m256i codes(const int bits, const uint8_t *block, const int g, int r) {
    if (bits == 8) return plane_load(block, g, r);
    __m256i high;
    if (bits >= 4) {
        __m256i low = masked(shifted(plane_load(block, g % 4, r), g < 4 ? 0 : 4, 0), 0x0F);
        if (bits == 4) return low;
        if (bits == 5)
            high = masked(shifted(plane_load(block + 512, 0, r), g, 4), 0x10);
        else
            high = masked(shifted(plane_load(block + 512, g / 4, r), g % 4 * 2, 4), 0x30);
        return _mm256_or_si256(low, high);
    }
    __m256i low = masked(shifted(plane_load(block, g / 4, r), g % 4 * 2, 0), 0x03);
    if (bits == 2) return low;
    high = masked(shifted(plane_load(block + 256, 0, r), g, 2), 0x04);
    return _mm256_or_si256(low, high);
}

SAF__INLINE __m256i broadcast4(const void *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm256_set1_epi32(word);
}
SAF__INLINE __m256 halfs(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
SAF__INLINE __m256i unsigned_bytes(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
SAF__INLINE __m256i signed_bytes(const uint8_t *p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
/* Two int16 a lane. */
SAF__INLINE __m256i pairs(__m256i low, __m256i high) {
    return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(0xFFFF)),
                           _mm256_slli_epi32(high, 16));
}

/* ---- one block ----------------------------------------------------------------------------- */

/* Of one quarter of a block, as pairs of int16. */
typedef struct {
    __m256i scale[2];   /* of each half of the columns, twice */
    __m256i correction; /* -offset * scale: of the first half, of the second */
    __m256 d;           /* times the scale of the block, where there is one */
    __m256 m[2];        /* times the minimum of the block, or of each half */
} block_meta;

SAF__INLINE __m256 times(__m256 x, __m256i n) {
    return _mm256_mul_ps(x, _mm256_cvtepi32_ps(n));
}

/* `header` is where the super's d begin. */
SAF__INLINE block_meta meta_load(const variant V, const uint8_t *header, const uint8_t *meta, int r,
                                 int offset) {
    __m256i one = _mm256_set1_epi16(1), s0, s1;
    block_meta m = {.scale = {one, one}, .correction = _mm256_set1_epi16((int16_t)-offset)};
    m.d = halfs(header + 16 * r);
    m.m[0] = m.m[1] = V.has_min ? halfs(header + 64 + 16 * r) : m.d;
    meta += QUARTER * r;
    if (V.meta == SAF__META_NONE) return m;
    if (V.meta == SAF__META_BLOCK) { /* these have no offset */
        m.d = times(m.d, unsigned_bytes(meta));
        m.m[0] = times(m.m[0], unsigned_bytes(meta + 32));
        return m;
    }
    if (V.meta == SAF__META_HALVES) {
        s0 = signed_bytes(meta), s1 = signed_bytes(meta + 32);
    } else {
        __m256i a = unsigned_bytes(meta), b = unsigned_bytes(meta + 32), low;
        low = _mm256_set1_epi32(15);
        s0 = _mm256_and_si256(a, low), s1 = _mm256_and_si256(b, low);
        m.m[0] = times(m.m[0], _mm256_srli_epi32(a, 4));
        m.m[1] = times(m.m[1], _mm256_srli_epi32(b, 4));
    }
    m.scale[0] = pairs(s0, s0);
    m.scale[1] = pairs(s1, s1);
    m.correction = _mm256_mullo_epi16(pairs(s0, s1), m.correction);
    return m;
}

/* s of the header's rule for N tokens and R quarters from quarter r0: sum[t * R + r]. */
SAF__INLINE void dot_block(const int N, const int R, const variant V, const uint8_t *block,
                           const panel *p, int r0, const block_meta *m, __m256i *sum) {
    /* Groups whose products fit into 16 bits together: 2 * 127 * largest code * groups. */
    const int together = V.code == 8 ? 1 : V.code == 6 ? 2 : V.code == 5 ? 4 : 8;
    const int by_half = V.meta == SAF__META_HALVES || V.meta == SAF__META_NIBBLES ? 4 : 8;
    const int step = together < by_half ? together : by_half;
    SAF__UNROLL for (int t = 0; t < N; t++) {
        SAF__UNROLL for (int r = 0; r < R; r++) sum[t * R + r] =
            V.code == 8 ? _mm256_setzero_si256()
                        : _mm256_madd_epi16(broadcast4(p->sums + t), m[r].correction);
    }
    SAF__UNROLL for (int g0 = 0; g0 < SAF__GROUPS; g0 += step) {
        __m256i part[SAF__ACT_TOKENS * QUARTERS];
        SAF__UNROLL for (int g = g0; g < g0 + step; g++) {
            SAF__UNROLL for (int r = 0; r < R; r++) {
                __m256i w = codes(V.bits, block, g, r0 + r), size = w;
                if (V.code == 8) { /* the offset of 128 taken off */
                    w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
                    size = _mm256_abs_epi8(w);
                }
                SAF__UNROLL for (int t = 0; t < N; t++) {
                    __m256i q = broadcast4(p->q + (g * N + t) * 4), *at = &part[t * R + r];
                    if (V.code == 8) q = _mm256_sign_epi8(q, w);
                    __m256i products = _mm256_maddubs_epi16(size, q);
                    *at = g == g0 ? products : _mm256_add_epi16(*at, products);
                }
            }
        }
        SAF__UNROLL for (int i = 0; i < N * R; i++) sum[i] = _mm256_add_epi32(
            sum[i], _mm256_madd_epi16(part[i], m[i % R].scale[g0 / (SAF__GROUPS / 2)]));
    }
}

/* acc + the minimum's part, for one token. */
SAF__INLINE __m256 add_minimum(const variant V, const block_meta *meta, const panel *p, int t,
                               __m256 acc) {
    if (V.meta != SAF__META_NIBBLES)
        return _mm256_fmadd_ps(meta->m[0], _mm256_set1_ps(p->u[t]), acc);
    for (int h = 0; h < 2; h++)
        acc = _mm256_fmadd_ps(meta->m[h], _mm256_set1_ps(half_sum(p, t, h)), acc);
    return acc;
}

/* ---- a panel ------------------------------------------------------------------------------- */

/* N tokens and R quarters of the rows, from quarter r0, over all blocks of a panel. */
SAF__INLINE void dot_quarters(const int N, const int R, const variant V, panel p, int r0, int rows,
                              float *y, int64_t ldy) {
    const int plane = V.bits == 8 ? WIDE_PLANE : V.bits * 128;
    __m256 acc[SAF__ACT_TOKENS * QUARTERS];
    SAF__UNROLL for (int i = 0; i < N * R; i++) {
        int row = (r0 + i % R) * QUARTER;
        acc[i] = p.first ? _mm256_setzero_ps()
                         : _mm256_maskload_ps(y + i / R * ldy + row, saf__live_lanes(rows - row));
    }
    for (; p.supers > 0; p.supers--) {
        const uint8_t *header = p.super;
        p.super += V.has_min ? 128 : 64;
        for (int b = 0; b < V.blocks; b++) {
            __m256i sum[SAF__ACT_TOKENS * QUARTERS];
            block_meta meta[QUARTERS];
            if (N == 1)
                prefetch_ahead(p.super, plane + (V.meta == SAF__META_NONE ? 0 : META_BYTES));
            else if (r0 == 0)
                prefetch_next(&p);
            SAF__UNROLL for (int r = 0; r < R; r++) meta[r] =
                meta_load(V, header, p.super + plane, r0 + r, p.offset);
            dot_block(N, R, V, p.super, &p, r0, meta, sum);
            SAF__UNROLL for (int i = 0; i < N * R; i++) {
                const int t = i / R, r = i % R;
                __m256 dx = _mm256_set1_ps(p.dx[t]), s = _mm256_cvtepi32_ps(sum[i]);
                acc[i] = _mm256_fmadd_ps(_mm256_mul_ps(meta[r].d, dx), s, acc[i]);
                if (V.has_min) acc[i] = add_minimum(V, &meta[r], &p, t, acc[i]);
            }
            p.super += plane + (V.meta == SAF__META_NONE ? 0 : META_BYTES);
            p.q += N * SAF_QUANT_BLOCK;
            p.dx += N;
            p.sums += N;
            p.u += N;
        }
    }
    SAF__UNROLL for (int i = 0; i < N * R; i++) {
        int row = (r0 + i % R) * QUARTER;
        _mm256_maskstore_ps(y + i / R * ldy + row, saf__live_lanes(rows - row), acc[i]);
    }
}

/* One token takes the four quarters at once, so that the weights are read in order. */
#define KERNEL(name, tokens, ...)                                       \
    static void name(const panel *p, int rows, float *y, int64_t ldy) { \
        const variant v = {__VA_ARGS__};                                \
        if ((tokens) == 1)                                              \
            dot_quarters((tokens), QUARTERS, v, *p, 0, rows, y, ldy);   \
        else                                                            \
            for (int r = 0; r * QUARTER < rows; r++)                    \
                dot_quarters((tokens), 1, v, *p, r, rows, y, ldy);      \
    }
SAF__TOKEN_KERNELS(KERNEL, wide_q8_0, 8, 8, 1, SAF__META_NONE, false)
SAF__TOKEN_KERNELS(KERNEL, wide_q4_0, 8, 4, 1, SAF__META_NONE, false)
SAF__TOKEN_KERNELS(KERNEL, wide_q4_1, 8, 4, 1, SAF__META_NONE, true)
SAF__TOKEN_KERNELS(KERNEL, wide_q5_0, 8, 5, 1, SAF__META_NONE, false)
SAF__TOKEN_KERNELS(KERNEL, wide_q5_1, 8, 5, 1, SAF__META_NONE, true)
SAF__TOKEN_KERNELS(KERNEL, wide_q2_k, 8, 2, 8, SAF__META_NIBBLES, true)
SAF__TOKEN_KERNELS(KERNEL, wide_q3_k, 8, 3, 8, SAF__META_HALVES, false)
SAF__TOKEN_KERNELS(KERNEL, wide_q4_k, 8, 4, 8, SAF__META_BLOCK, true)
SAF__TOKEN_KERNELS(KERNEL, wide_q5_k, 8, 5, 8, SAF__META_BLOCK, true)
SAF__TOKEN_KERNELS(KERNEL, wide_q6_k, 8, 6, 8, SAF__META_HALVES, false)

KERNEL(one_q4_0, 1, 4, 4, 1, SAF__META_NONE, false)
KERNEL(one_q4_1, 1, 4, 4, 1, SAF__META_NONE, true)
KERNEL(one_q5_0, 1, 5, 5, 1, SAF__META_NONE, false)
KERNEL(one_q5_1, 1, 5, 5, 1, SAF__META_NONE, true)
KERNEL(one_q2_k, 1, 2, 2, 8, SAF__META_NIBBLES, true)
KERNEL(one_q3_k, 1, 3, 3, 8, SAF__META_HALVES, false)
KERNEL(one_q4_k, 1, 4, 4, 8, SAF__META_BLOCK, true)
KERNEL(one_q5_k, 1, 5, 5, 8, SAF__META_BLOCK, true)
KERNEL(one_q6_k, 1, 6, 6, 8, SAF__META_HALVES, false)

/* ---- unpacking ----------------------------------------------------------------------------- */

SAF__INLINE void unpack(const int BITS, const uint8_t *block, uint8_t *wide) {
    prefetch_ahead(block, BITS * 128 + META_BYTES);
    SAF__UNROLL for (int g = 0; g < SAF__GROUPS; g++) {
        SAF__UNROLL for (int r = 0; r < QUARTERS; r++) _mm256_storeu_si256(
            (__m256i *)(wide + g * SAF__GROUP_BYTES + r * 32), codes(BITS, block, g, r));
    }
}
SAF__UNPACK(unpack_2, 2)
SAF__UNPACK(unpack_3, 3)
SAF__UNPACK(unpack_4, 4)
SAF__UNPACK(unpack_5, 5)
SAF__UNPACK(unpack_6, 6)

static const quant_type types[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = {wide_q8_0_1, wide_q8_0, NULL, 128, NULL},
    [SAF_DTYPE_Q4_0] = {one_q4_0, wide_q4_0, NULL, 8, unpack_4},
    [SAF_DTYPE_Q4_1] = {one_q4_1, wide_q4_1, NULL, 0, unpack_4},
    [SAF_DTYPE_Q5_0] = {one_q5_0, wide_q5_0, NULL, 16, unpack_5},
    [SAF_DTYPE_Q5_1] = {one_q5_1, wide_q5_1, NULL, 0, unpack_5},
    [SAF_DTYPE_Q2_K] = {one_q2_k, wide_q2_k, NULL, 0, unpack_2},
    [SAF_DTYPE_Q3_K] = {one_q3_k, wide_q3_k, NULL, 4, unpack_3},
    [SAF_DTYPE_Q4_K] = {one_q4_k, wide_q4_k, NULL, 0, unpack_4},
    [SAF_DTYPE_Q5_K] = {one_q5_k, wide_q5_k, NULL, 0, unpack_5},
    [SAF_DTYPE_Q6_K] = {one_q6_k, wide_q6_k, NULL, 32, unpack_6},
};

static void avx2_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                           float *y, int64_t ldy) {
    frame_dot_quant(&types[dtype], saf__form_of(dtype), tile, a, rows, y, ldy);
}

void saf__avx2_quant(saf__kernels *k) {
    k->dot_quant = avx2_dot_quant;
}
