/* Quantised products with AVX-512 VNNI: 32 rows (two registers of sums) by up to six tokens.
 *
 * What is exact in integers is taken by whichever way is shorter:
 *   - the offset of the codes starts the sums, as -offset * sum(q);
 *   - the sum over two halves times their scales stays below 2^24: f32 forms it without rounding;
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
    READY_MIN,  /* as BLOCK_MIN, unpacked: already times d and m */
    HALVES,     /* a signed scale for each half block */
    SCALED,     /* as HALVES, the scale already in the codes */
    SCALED_MIN, /* as NIBBLES, the scale already in the codes */
    NIBBLES,    /* packed Q2_K: scale and minimum for each half block */
} shape;

SAF__INLINE bool shape_has_min(const shape S) {
    return S == PLAIN_MIN || S == BLOCK_MIN || S == READY_MIN || S == NIBBLES || S == SCALED_MIN;
}

/* ---- one block ----------------------------------------------------------------------------- */

/* The scales and minima of a block, for both halves of 16 rows. */
typedef struct {
    __m512 d[2];        /* [half of rows] times the scale of the block, where there is one */
    __m512 m[2][2];     /* [half of columns][half of rows] times the minimum; [0]: of the block */
    __m512 scale[2][2]; /* [half of columns][half of rows] */
} block_meta;

SAF__INLINE __m512 times(__m512 x, __m512i n) {
    return _mm512_mul_ps(x, _mm512_cvtepi32_ps(n));
}

SAF__INLINE void meta_load(const shape S, const __m512 *d, const __m512 *m, const uint8_t *meta,
                           block_meta *to) {
    if (S == READY_MIN) {
        SAF__UNROLL for (int r = 0; r < 2; r++, meta += 128) {
            to->d[r] = _mm512_loadu_ps((const float *)meta);
            to->m[0][r] = _mm512_loadu_ps((const float *)meta + 16);
        }
        return;
    }
    SAF__UNROLL for (int r = 0; r < 2; r++, meta += 16) {
        to->d[r] = d[r];
        to->m[0][r] = to->m[1][r] = m[r];
        if (S == BLOCK_MIN) {
            to->d[r] = times(d[r], unsigned_bytes(meta));
            to->m[0][r] = times(m[r], unsigned_bytes(meta + 32));
        } else if (S == HALVES) {
            to->scale[0][r] = _mm512_cvtepi32_ps(signed_bytes(meta));
            to->scale[1][r] = _mm512_cvtepi32_ps(signed_bytes(meta + 32));
        } else if (S == NIBBLES || S == SCALED_MIN) {
            __m512i a = unsigned_bytes(meta), b = unsigned_bytes(meta + 32);
            __m512i low = _mm512_set1_epi32(15);
            to->scale[0][r] = _mm512_cvtepi32_ps(_mm512_and_si512(a, low));
            to->scale[1][r] = _mm512_cvtepi32_ps(_mm512_and_si512(b, low));
            to->m[0][r] = times(m[r], _mm512_srli_epi32(a, 4));
            to->m[1][r] = times(m[r], _mm512_srli_epi32(b, 4));
        }
    }
}

/* Tokens at a time: there are not registers for the sums of both halves of more. */
enum { BY_HALVES = 3 };
SAF__INLINE bool shape_by_halves(const shape S) {
    return S == HALVES || S == NIBBLES;
}

/* -offset * sum(q) of token t, over either half of a block or both; codes of types with a minimum
 * have no offset. It is left to the integer units: what bounds products is the vector units that
 * multiply. */
SAF__INLINE __m512i sum_start(const shape S, const panel *p, int t, const bool first,
                              const bool second) {
    if (shape_has_min(S)) return _mm512_setzero_si512();
    int32_t halves = p->sums[t];
    int32_t sum = (first ? (int16_t)halves : 0) + (second ? halves >> 16 : 0);
    return _mm512_set1_epi32(-p->offset * sum);
}

/* sum[token][half of rows] += dot of groups [g0, g1) of N tokens of TILE; q: of the first. */
SAF__INLINE void dot_groups(const int N, const int TILE, const int BITS, const uint8_t *block,
                            const int8_t *q, const int g0, const int g1, __m512i *sum) {
    SAF__UNROLL for (int g = g0; g < g1; g++) {
        __m512i w0 = codes(BITS, block, g, 0), w1 = codes(BITS, block, g, 1);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m512i a = broadcast4(q + (g * TILE + t) * 4);
            sum[2 * t] = _mm512_dpbusd_epi32(sum[2 * t], w0, a);
            sum[2 * t + 1] = _mm512_dpbusd_epi32(sum[2 * t + 1], w1, a);
        }
    }
}

/* s of the header's rule as f32 (exact), for N tokens of TILE from t0 on. */
SAF__INLINE void dot_block(const int N, const int TILE, const int t0, const int BITS, const shape S,
                           const uint8_t *block, const panel *p, const block_meta *m, __m512 *s) {
    const bool by_halves = shape_by_halves(S);
    const int GROUPS = by_halves ? SAF__GROUPS / 2 : SAF__GROUPS;
    const int8_t *q = p->q + 4 * t0;
    __m512i sum[2 * SAF__ACT_TOKENS];
    SAF__UNROLL for (int t = 0; t < N; t++) sum[2 * t] = sum[2 * t + 1] =
        sum_start(S, p, t0 + t, true, !by_halves);
    dot_groups(N, TILE, BITS, block, q, 0, GROUPS, sum);
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) s[i] = _mm512_cvtepi32_ps(sum[i]);
    if (!by_halves) return;
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) s[i] = _mm512_mul_ps(s[i], m->scale[0][i % 2]);
    SAF__UNROLL for (int t = 0; t < N; t++) sum[2 * t] = sum[2 * t + 1] =
        sum_start(S, p, t0 + t, false, true);
    dot_groups(N, TILE, BITS, block, q, GROUPS, SAF__GROUPS, sum);
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) s[i] =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i]), m->scale[1][i % 2], s[i]);
}

/* ---- a panel ------------------------------------------------------------------------------- */

/* acc = the rule's two steps for one token and 32 rows. */
SAF__INLINE void add_block(const shape S, const block_meta *meta, const panel *p, int t,
                           const __m512 *s, __m512 *acc) {
    const bool halves = S == NIBBLES || S == SCALED_MIN;
    __m512 dx = _mm512_set1_ps(p->dx[t]);
    SAF__UNROLL for (int r = 0; r < 2; r++) acc[r] =
        _mm512_fmadd_ps(_mm512_mul_ps(meta->d[r], dx), s[r], acc[r]);
    if (!shape_has_min(S)) return;
    SAF__UNROLL for (int h = 0; h <= halves; h++) {
        __m512 u = _mm512_set1_ps(halves ? half_sum(p, t, h) : p->u[t]);
        SAF__UNROLL for (int r = 0; r < 2; r++) acc[r] = _mm512_fmadd_ps(meta->m[h][r], u, acc[r]);
    }
}

SAF__INLINE void scales_load(const bool has_min, const uint8_t *super, __m512 *d, __m512 *m) {
    SAF__UNROLL for (int r = 0; r < 2; r++) {
        d[r] = halfs(super + 32 * r);
        m[r] = has_min ? halfs(super + 64 + 32 * r) : d[r];
    }
}

/* The lines of a block, in their order: prefetchers follow a run of lines best. */
enum { MAX_LINES = 2 * 7 }; /* of a block's planes; wide codes are read in order anyway */
SAF__INLINE void lines_load(const int N, const uint8_t *block, __m512i *lines) {
    SAF__UNROLL for (int i = 0; i < N; i++) {
        __m512i x = _mm512_loadu_si512(block + 64 * i);
        __asm__ volatile("" : "+v"(x)); /* no later, and in a register */
        lines[i] = x;
    }
}

/* N tokens and 32 rows over all blocks of a panel. PACKED: a whole tile of weights in their packed
 * planes, in the order of memory; otherwise codes of a byte, while what comes next is asked for. */
SAF__INLINE void dot_panel(const int N, const bool PACKED, const int BITS, const shape S,
                           const int BLOCKS, const panel *in, int rows, float *y, int64_t ldy) {
    const bool has_min = shape_has_min(S);
    const int meta_bytes = S == READY_MIN ? READY_BYTES : BLOCKS > 1 ? META_BYTES : 0;
    const int block_bytes = BITS * 128 + meta_bytes;
    const int SOME = shape_by_halves(S) && N > BY_HALVES ? BY_HALVES : N;
    panel p = *in;
    __mmask16 live[2] = {live_rows(rows, 0), live_rows(rows, 1)};
    __m512 acc[2 * SAF__ACT_TOKENS];
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) acc[i] =
        PACKED || p.first ? _mm512_setzero_ps()
                          : _mm512_maskz_loadu_ps(live[i % 2], y + i / 2 * ldy + i % 2 * 16);
    for (; p.supers > 0; p.supers--) {
        __m512 d[2], m[2];
        if (S != READY_MIN) {
            scales_load(has_min, p.super, d, m);
            p.super += has_min ? 128 : 64;
        }
        for (int b = 0; b < BLOCKS; b++) {
            __m512i lines[MAX_LINES];
            block_meta meta;
            const uint8_t *planes = p.super;
            if (PACKED)
                prefetch_lines(planes + p.ahead, block_bytes);
            else
                prefetch_next(&p);
            if (PACKED && BITS < 8) {
                lines_load(2 * BITS, planes, lines);
                planes = (const uint8_t *)lines;
            }
            meta_load(S, d, m, p.super + BITS * 128, &meta);
            SAF__UNROLL for (int t0 = 0; t0 < N; t0 += SOME) {
                const int n = N - t0 < SOME ? N - t0 : SOME;
                if (t0 > 0) __asm__ volatile("" ::: "memory"); /* codes are loaded again */
                __m512 s[2 * SAF__ACT_TOKENS];
                dot_block(n, N, t0, BITS, S, planes, &p, &meta, s);
                SAF__UNROLL for (int t = 0; t < n; t++)
                    add_block(S, &meta, &p, t0 + t, s + 2 * t, acc + 2 * (t0 + t));
            }
            p.super += block_bytes;
            p.q += N * SAF_QUANT_BLOCK;
            p.dx += N;
            p.sums += N;
            p.u += N;
        }
    }
    SAF__UNROLL for (int i = 0; i < 2 * N; i++)
        _mm512_mask_storeu_ps(y + i / 2 * ldy + i % 2 * 16, live[i % 2], acc[i]);
}

/* One token and SAF__STREAMS whole tiles side by side, straight from the packed planes. */
SAF__INLINE void dot_streams(const int BITS, const shape S, const int BLOCKS, const panel *in,
                             const uint8_t *const *tiles, float *const *y) {
    const bool has_min = shape_has_min(S);
    const int block_bytes = BITS * 128 + (BLOCKS > 1 ? META_BYTES : 0);
    panel p = *in;
    const uint8_t *at[SAF__STREAMS];
    __m512 acc[2 * SAF__STREAMS], d[2 * SAF__STREAMS], m[2 * SAF__STREAMS];
    SAF__UNROLL for (int i = 0; i < SAF__STREAMS; i++) {
        at[i] = tiles[i];
        acc[2 * i] = acc[2 * i + 1] = _mm512_setzero_ps();
    }
    for (; p.supers > 0; p.supers--) {
        SAF__UNROLL for (int i = 0; i < SAF__STREAMS; i++) {
            scales_load(has_min, at[i], d + 2 * i, m + 2 * i);
            at[i] += has_min ? 128 : 64;
        }
        for (int b = 0; b < BLOCKS; b++) {
            SAF__UNROLL for (int i = 0; i < SAF__STREAMS; i++) {
                __m512 s[2];
                block_meta meta;
                prefetch_ahead(at[i], block_bytes);
                meta_load(S, d + 2 * i, m + 2 * i, at[i] + BITS * 128, &meta);
                dot_block(1, 1, 0, BITS, S, at[i], &p, &meta, s);
                add_block(S, &meta, &p, 0, s, acc + 2 * i);
                at[i] += block_bytes;
            }
            p.q += SAF_QUANT_BLOCK;
            p.dx++;
            p.sums++;
            p.u++;
        }
    }
    SAF__UNROLL for (int i = 0; i < 2 * SAF__STREAMS; i++)
        _mm512_storeu_ps(y[i / 2] + i % 2 * 16, acc[i]);
}

typedef void (*streams_kernel)(const panel *p, const uint8_t *const *tiles, float *const *y);
#define FEW(name, tokens, bits, shape_, blocks)                                 \
    static void name(const panel *p, int rows, float *y, int64_t ldy) {         \
        dot_panel((tokens), true, (bits), (shape_), (blocks), p, rows, y, ldy); \
    }
#define STREAMS(type, ...)                                                                     \
    static void streams_##type(const panel *p, const uint8_t *const *tiles, float *const *y) { \
        dot_streams(__VA_ARGS__, p, tiles, y);                                                 \
    }
/* More than these are better off with a panel unpacked once, unless there is nothing to unpack. */
enum { FEW_PACKED = 4 };
#define FEW_TOKENS(type, ...)                                                           \
    FEW(few_##type##_1, 1, __VA_ARGS__)                                                 \
    FEW(few_##type##_2, 2, __VA_ARGS__)                                                 \
    FEW(few_##type##_3, 3, __VA_ARGS__)                                                 \
    FEW(few_##type##_4, 4, __VA_ARGS__)                                                 \
    STREAMS(type, __VA_ARGS__)                                                          \
    static const panel_kernel few_##type[FEW_PACKED] = {few_##type##_1, few_##type##_2, \
                                                        few_##type##_3, few_##type##_4};
SAF__TOKEN_KERNELS(FEW, few_q8_0, 8, PLAIN, 1)
STREAMS(q8_0, 8, PLAIN, 1)
FEW_TOKENS(q4_0, 4, PLAIN, 1)
FEW_TOKENS(q4_1, 4, PLAIN_MIN, 1)
FEW_TOKENS(q5_0, 5, PLAIN, 1)
FEW_TOKENS(q5_1, 5, PLAIN_MIN, 1)
FEW_TOKENS(q2_k, 2, NIBBLES, 8)
FEW_TOKENS(q3_k, 3, HALVES, 8)
FEW_TOKENS(q4_k, 4, BLOCK_MIN, 8)
FEW_TOKENS(q5_k, 5, BLOCK_MIN, 8)
FEW_TOKENS(q6_k, 6, HALVES, 8)

#define KERNEL(name, tokens, shape_, blocks)                                \
    static void name(const panel *p, int rows, float *y, int64_t ldy) {     \
        dot_panel((tokens), false, 8, (shape_), (blocks), p, rows, y, ldy); \
    }
/* One to six tokens, from wide supers. */
SAF__TOKEN_KERNELS(KERNEL, wide_PLAIN, PLAIN, 1)
SAF__TOKEN_KERNELS(KERNEL, wide_PLAIN_MIN, PLAIN_MIN, 1)
SAF__TOKEN_KERNELS(KERNEL, wide_READY_MIN, READY_MIN, 8)
SAF__TOKEN_KERNELS(KERNEL, wide_HALVES, HALVES, 8)
SAF__TOKEN_KERNELS(KERNEL, wide_SCALED, SCALED, 8)
SAF__TOKEN_KERNELS(KERNEL, wide_SCALED_MIN, SCALED_MIN, 8)

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
SAF__UNPACK(unpack_2, 2)
SAF__UNPACK(unpack_3, 3)
SAF__UNPACK(unpack_4, 4)
SAF__UNPACK(unpack_5, 5)
SAF__UNPACK(unpack_6, 6)

/* Scales and minimums times d and m, once for all tokens. */
SAF__INLINE uint8_t *unpack_ready(const int BITS, const saf__form *form, const uint8_t *super,
                                  uint8_t *wide) {
    __m512 d[2], m[2];
    scales_load(true, super, d, m);
    super += form->header_bytes;
    for (int b = 0; b < form->blocks; b++) {
        block_meta meta;
        unpack(BITS, super, wide);
        meta_load(BLOCK_MIN, d, m, super + BITS * 128, &meta);
        wide += WIDE_PLANE;
        SAF__UNROLL for (int r = 0; r < 2; r++, wide += 128) {
            _mm512_storeu_ps((float *)wide, meta.d[r]);
            _mm512_storeu_ps((float *)wide + 16, meta.m[0][r]);
        }
        super += form->block_bytes;
    }
    return wide;
}
static uint8_t *unpack_ready_4(const saf__form *form, const uint8_t *super, uint8_t *wide) {
    return unpack_ready(4, form, super, wide);
}
static uint8_t *unpack_ready_5(const saf__form *form, const uint8_t *super, uint8_t *wide) {
    return unpack_ready(5, form, super, wide);
}

static const quant_type types[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = {few_q8_0_1, wide_PLAIN, NULL, 128},
    [SAF_DTYPE_Q4_0] = {few_q4_0_1, wide_PLAIN, unpack_4, 8},
    [SAF_DTYPE_Q4_1] = {few_q4_1_1, wide_PLAIN_MIN, unpack_4, 0},
    [SAF_DTYPE_Q5_0] = {few_q5_0_1, wide_PLAIN, unpack_5, 16},
    [SAF_DTYPE_Q5_1] = {few_q5_1_1, wide_PLAIN_MIN, unpack_5, 0},
    [SAF_DTYPE_Q2_K] = {few_q2_k_1, wide_SCALED_MIN, unpack_2, 0},
    [SAF_DTYPE_Q3_K] = {few_q3_k_1, wide_SCALED, unpack_3, Q3_K_WIDE_OFFSET},
    [SAF_DTYPE_Q4_K] = {few_q4_k_1, wide_READY_MIN, unpack_ready_4, 0},
    [SAF_DTYPE_Q5_K] = {few_q5_k_1, wide_READY_MIN, unpack_ready_5, 0},
    [SAF_DTYPE_Q6_K] = {few_q6_k_1, wide_HALVES, unpack_6, 32},
};

static const streams_kernel streams[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = streams_q8_0, [SAF_DTYPE_Q4_0] = streams_q4_0,
    [SAF_DTYPE_Q4_1] = streams_q4_1, [SAF_DTYPE_Q5_0] = streams_q5_0,
    [SAF_DTYPE_Q5_1] = streams_q5_1, [SAF_DTYPE_Q2_K] = streams_q2_k,
    [SAF_DTYPE_Q3_K] = streams_q3_k, [SAF_DTYPE_Q4_K] = streams_q4_k,
    [SAF_DTYPE_Q5_K] = streams_q5_k, [SAF_DTYPE_Q6_K] = streams_q6_k,
};

static const panel_kernel *const few[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = few_q8_0, [SAF_DTYPE_Q4_0] = few_q4_0, [SAF_DTYPE_Q4_1] = few_q4_1,
    [SAF_DTYPE_Q5_0] = few_q5_0, [SAF_DTYPE_Q5_1] = few_q5_1, [SAF_DTYPE_Q2_K] = few_q2_k,
    [SAF_DTYPE_Q3_K] = few_q3_k, [SAF_DTYPE_Q4_K] = few_q4_k, [SAF_DTYPE_Q5_K] = few_q5_k,
    [SAF_DTYPE_Q6_K] = few_q6_k,
};

static void vnni_dot_streams(saf_dtype dtype, const uint8_t *const *tiles, const saf__acts_view *a,
                             float *const *y) {
    panel p = packed_panel(saf__form_of(dtype), tiles[0], a);
    streams[dtype](&p, tiles, y);
}

void saf__vnni_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                         float *y, int64_t ldy) {
    frame_dot_quant(&types[dtype], saf__form_of(dtype), tile, a, rows, y, ldy);
}

static void vnni_dot_few(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                         float *y, int64_t ldy) {
    if (types[dtype].unpack && a->tokens > FEW_PACKED) {
        saf__vnni_dot_quant(dtype, tile, a, rows, y, ldy);
        return;
    }
    panel p = packed_panel(saf__form_of(dtype), tile, a);
    few[dtype][a->tokens - 1](&p, rows, y, ldy);
}

void saf__kernels_avx512_vnni(saf__kernels *k) {
    k->name = "avx512-vnni";
    k->dot_quant = saf__vnni_dot_quant;
    k->dot_streams = vnni_dot_streams;
    k->dot_few = vnni_dot_few;
}
