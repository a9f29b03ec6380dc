/* Quantised products with AVX-512 VNNI: 32 rows (two registers of sums) by up to five tokens. Of
 * six, sums and what they add up to take as many registers as there are, and on a Zen 5 each token
 * takes 2 to 4 % longer.
 *
 * What is exact in integers is taken by whichever way is shorter:
 *   - the offset of the codes starts the sums, as -offset * sum(q);
 *   - the sum over two halves times their scales stays below 2^24: f32 forms it without rounding;
 *   - the small scales of Q2_K and Q3_K multiply the codes while these are unpacked.
 *
 * Of many tokens the first ones take the codes from the packed planes and leave them unpacked for
 * the others: the units that shift and mask have nothing else to do while those that multiply are
 * busy.
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

/* Where a kernel has its weights and their neighbours from. */
typedef enum {
    IN_ORDER, /* a whole tile's packed planes, in the order of memory, asked for ahead */
    UNPACK,   /* a panel's packed planes, which are left in their wide form */
    WIDE,     /* a panel's wide form, while what comes next is asked for */
} source;

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

/* S: READY_MIN of a wide block only. */
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

/* -offset * sum(q) of token t, over half h of a block or over all of it; codes of types with a
 * minimum have no offset. It is left to the integer units: what bounds products is the vector units
 * that multiply. */
SAF__INLINE __m512i sum_start(const shape S, const panel *p, int t, const int h) {
    if (shape_has_min(S)) return _mm512_setzero_si512();
    int32_t halves = p->sums[t], first = (int16_t)halves, second = halves >> 16;
    int32_t sum = !shape_by_halves(S) ? first + second : h == 0 ? first : second;
    return _mm512_set1_epi32(-p->offset * sum);
}

/* A block's planes, its scales behind them, and where its wide form goes. */
typedef struct {
    const uint8_t *planes, *scales;
    uint8_t *wide;
} block_at;

/* The codes of group g as the products take them. */
SAF__INLINE __m512i codes_of(const source FROM, const int BITS, const shape S, const block_at *at,
                             const int g, const int half) {
    __m512i x = codes(BITS, at->planes, g, half);
    if (FROM != UNPACK) return x;
    if (S == SCALED || S == SCALED_MIN)
        x = scaled_codes(BITS, x, at->scales + g / 4 * 32 + half * 16);
    _mm512_storeu_si512(at->wide + g * SAF__GROUP_BYTES + half * 64, x);
    return x;
}

/* sum[token][half of rows] += dot of groups [g0, g1) of N tokens of TILE; q: of the first. */
SAF__INLINE void dot_groups(const source FROM, const int N, const int TILE, const int BITS,
                            const shape S, const block_at *at, const int8_t *q, const int g0,
                            const int g1, __m512i *sum) {
    SAF__UNROLL for (int g = g0; g < g1; g++) {
        __m512i w0 = codes_of(FROM, BITS, S, at, g, 0), w1 = codes_of(FROM, BITS, S, at, g, 1);
        SAF__UNROLL for (int t = 0; t < N; t++) {
            __m512i a = broadcast4(q + (g * TILE + t) * 4);
            sum[2 * t] = _mm512_dpbusd_epi32(sum[2 * t], w0, a);
            sum[2 * t + 1] = _mm512_dpbusd_epi32(sum[2 * t + 1], w1, a);
        }
    }
}

/* s of the header's rule as f32 (exact), for N tokens of TILE from t0 on. */
SAF__INLINE void dot_block(const source FROM, const int N, const int TILE, const int t0,
                           const int BITS, const shape S, const block_at *at, const panel *p,
                           const block_meta *m, __m512 *s) {
    const int PARTS = shape_by_halves(S) ? 2 : 1, GROUPS = SAF__GROUPS / PARTS;
    SAF__UNROLL for (int h = 0; h < PARTS; h++) {
        __m512i sum[2 * SAF__ACT_TOKENS];
        SAF__UNROLL for (int t = 0; t < N; t++) sum[2 * t] = sum[2 * t + 1] =
            sum_start(S, p, t0 + t, h);
        dot_groups(FROM, N, TILE, BITS, S, at, p->q + 4 * t0, h * GROUPS, (h + 1) * GROUPS, sum);
        SAF__UNROLL for (int i = 0; i < 2 * N; i++) {
            __m512 x = _mm512_cvtepi32_ps(sum[i]);
            if (PARTS == 1)
                s[i] = x;
            else
                s[i] = h == 0 ? _mm512_mul_ps(x, m->scale[0][i % 2])
                              : _mm512_fmadd_ps(x, m->scale[1][i % 2], s[i]);
        }
    }
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

/* What a wide block has behind its codes; returns the place after it. */
SAF__INLINE uint8_t *meta_keep(const shape S, const bool has_meta, const uint8_t *scales,
                               const block_meta *meta, uint8_t *wide) {
    if (S != READY_MIN) {
        if (!has_meta) return wide;
        memcpy(wide, scales, META_BYTES);
        return wide + META_BYTES;
    }
    SAF__UNROLL for (int r = 0; r < 2; r++, wide += 128) {
        _mm512_storeu_ps((float *)wide, meta->d[r]);
        _mm512_storeu_ps((float *)wide + 16, meta->m[0][r]);
    }
    return wide;
}

/* acc += a block's part of N tokens, as many of them at a time as there are registers for. */
SAF__INLINE void block_add(const source FROM, const int N, const int BITS, const shape S,
                           block_at at, const panel *p, const block_meta *meta, __m512 *acc) {
    const int SOME = shape_by_halves(S) && N > BY_HALVES ? BY_HALVES : N;
    SAF__UNROLL for (int t0 = 0; t0 < N; t0 += SOME) {
        const int n = N - t0 < SOME ? N - t0 : SOME;
        const bool is_wide = FROM == UNPACK && t0 > 0; /* the first ones made it so */
        __m512 s[2 * SAF__ACT_TOKENS];
        if (t0 > 0) __asm__ volatile("" ::: "memory"); /* codes are loaded again */
        if (is_wide) at.planes = at.wide;
        dot_block(is_wide ? WIDE : FROM, n, N, t0, is_wide ? 8 : BITS, S, &at, p, meta, s);
        SAF__UNROLL for (int t = 0; t < n; t++)
            add_block(S, meta, p, t0 + t, s + 2 * t, acc + 2 * (t0 + t));
    }
}

/* N tokens and 32 rows over all blocks of a panel. S: of the wide form where there is one. */
SAF__INLINE void dot_panel(const source FROM, const int N, const int BITS, const shape S,
                           const int BLOCKS, const panel *in, int rows, float *y, int64_t ldy) {
    const bool has_min = shape_has_min(S), is_ready = S == READY_MIN && FROM == WIDE;
    const shape READ = S == READY_MIN && FROM != WIDE ? BLOCK_MIN : S;
    const int header = has_min ? 2 * HEADER_BYTES : HEADER_BYTES;
    const int meta_bytes = is_ready ? READY_BYTES : BLOCKS > 1 ? META_BYTES : 0;
    const int block_bytes = BITS * 128 + meta_bytes;
    panel p = *in;
    __mmask16 live[2] = {live_rows(rows, 0), live_rows(rows, 1)};
    __m512 acc[2 * SAF__ACT_TOKENS];
    SAF__UNROLL for (int i = 0; i < 2 * N; i++) acc[i] =
        FROM == IN_ORDER || p.first
            ? _mm512_setzero_ps()
            : _mm512_maskz_loadu_ps(live[i % 2], y + i / 2 * ldy + i % 2 * 16);
    for (; p.supers > 0; p.supers--) {
        __m512 d[2], m[2];
        if (!is_ready) {
            scales_load(has_min, p.super, d, m);
            if (FROM == UNPACK && S != READY_MIN) {
                memcpy(p.wide, p.super, (size_t)header);
                p.wide += header;
            }
            p.super += header;
        }
        for (int b = 0; b < BLOCKS; b++) {
            __m512i lines[MAX_LINES];
            block_meta meta;
            block_at at = {p.super, p.super + BITS * 128, p.wide};
            if (FROM == IN_ORDER)
                prefetch_lines(p.super + p.ahead, block_bytes);
            else
                prefetch_next(&p);
            if (FROM == IN_ORDER && BITS < 8) {
                lines_load(2 * BITS, p.super, lines);
                at.planes = (const uint8_t *)lines;
            }
            meta_load(READ, d, m, at.scales, &meta);
            block_add(FROM, N, BITS, S, at, &p, &meta, acc);
            if (FROM == UNPACK)
                p.wide = meta_keep(S, BLOCKS > 1, at.scales, &meta, p.wide + WIDE_PLANE);
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
                block_at block = {at[i], at[i] + BITS * 128, NULL};
                prefetch_ahead(at[i], block_bytes);
                meta_load(S, d + 2 * i, m + 2 * i, block.scales, &meta);
                dot_block(IN_ORDER, 1, 1, 0, BITS, S, &block, &p, &meta, s);
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
#define PANEL(from, name, tokens, bits, shape_, blocks)                           \
    static void name(const panel *p, int rows, float *y, int64_t ldy) {           \
        dot_panel((from), (tokens), (bits), (shape_), (blocks), p, rows, y, ldy); \
    }
#define FEW(name, tokens, ...) PANEL(IN_ORDER, name, tokens, __VA_ARGS__)
#define STREAMS(type, ...)                                                                     \
    static void streams_##type(const panel *p, const uint8_t *const *tiles, float *const *y) { \
        dot_streams(__VA_ARGS__, p, tiles, y);                                                 \
    }
/* More than these are better off by panels, the next of which is asked for at the pace of the
 * products: one product of four tokens on a Zen 5 takes 62 microseconds in order and 57 by panels
 * (Q4_0), 111 and 93 (Q6_K). Q8_0, which has nothing to unpack, is read in order by up to five. */
enum { FEW_PACKED = 3 };
#define FEW_TOKENS(type, ...)                                                           \
    FEW(few_##type##_1, 1, __VA_ARGS__)                                                 \
    FEW(few_##type##_2, 2, __VA_ARGS__)                                                 \
    FEW(few_##type##_3, 3, __VA_ARGS__)                                                 \
    STREAMS(type, __VA_ARGS__)                                                          \
    static const panel_kernel few_##type[FEW_PACKED] = {few_##type##_1, few_##type##_2, \
                                                        few_##type##_3};
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

/* One to five tokens, from wide supers. */
#define KERNEL(name, tokens, shape_, blocks) PANEL(WIDE, name, tokens, 8, shape_, blocks)
SAF__TOKEN_KERNELS(KERNEL, wide_PLAIN, PLAIN, 1)
SAF__TOKEN_KERNELS(KERNEL, wide_PLAIN_MIN, PLAIN_MIN, 1)
SAF__TOKEN_KERNELS(KERNEL, wide_READY_MIN, READY_MIN, 8)
SAF__TOKEN_KERNELS(KERNEL, wide_HALVES, HALVES, 8)
SAF__TOKEN_KERNELS(KERNEL, wide_SCALED, SCALED, 8)
SAF__TOKEN_KERNELS(KERNEL, wide_SCALED_MIN, SCALED_MIN, 8)

/* Two to five, from packed supers, which they leave wide: one token by itself takes them as they
 * are. */
#define FIRST_TOKENS(name, ...)                                                            \
    PANEL(UNPACK, name##_2, 2, __VA_ARGS__)                                                \
    PANEL(UNPACK, name##_3, 3, __VA_ARGS__)                                                \
    PANEL(UNPACK, name##_4, 4, __VA_ARGS__)                                                \
    PANEL(UNPACK, name##_5, 5, __VA_ARGS__)                                                \
    static const panel_kernel name[SAF__ACT_TOKENS] = {NULL, name##_2, name##_3, name##_4, \
                                                       name##_5};
FIRST_TOKENS(first_q4_0, 4, PLAIN, 1)
FIRST_TOKENS(first_q4_1, 4, PLAIN_MIN, 1)
FIRST_TOKENS(first_q5_0, 5, PLAIN, 1)
FIRST_TOKENS(first_q5_1, 5, PLAIN_MIN, 1)
FIRST_TOKENS(first_q2_k, 2, SCALED_MIN, 8)
FIRST_TOKENS(first_q3_k, 3, SCALED, 8)
FIRST_TOKENS(first_q4_k, 4, READY_MIN, 8)
FIRST_TOKENS(first_q5_k, 5, READY_MIN, 8)
FIRST_TOKENS(first_q6_k, 6, HALVES, 8)

static const quant_type types[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = {few_q8_0_1, wide_PLAIN, NULL, 128, NULL},
    [SAF_DTYPE_Q4_0] = {few_q4_0_1, wide_PLAIN, first_q4_0, 8, NULL},
    [SAF_DTYPE_Q4_1] = {few_q4_1_1, wide_PLAIN_MIN, first_q4_1, 0, NULL},
    [SAF_DTYPE_Q5_0] = {few_q5_0_1, wide_PLAIN, first_q5_0, 16, NULL},
    [SAF_DTYPE_Q5_1] = {few_q5_1_1, wide_PLAIN_MIN, first_q5_1, 0, NULL},
    [SAF_DTYPE_Q2_K] = {few_q2_k_1, wide_SCALED_MIN, first_q2_k, 0, NULL},
    [SAF_DTYPE_Q3_K] = {few_q3_k_1, wide_SCALED, first_q3_k, Q3_K_WIDE_OFFSET, NULL},
    [SAF_DTYPE_Q4_K] = {few_q4_k_1, wide_READY_MIN, first_q4_k, 0, NULL},
    [SAF_DTYPE_Q5_K] = {few_q5_k_1, wide_READY_MIN, first_q5_k, 0, NULL},
    [SAF_DTYPE_Q6_K] = {few_q6_k_1, wide_HALVES, first_q6_k, 32, NULL},
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
    if (types[dtype].first && a->tokens > FEW_PACKED) {
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
