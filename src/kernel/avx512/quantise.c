/* Activations quantised with AVX-512: the blocks of up to sixteen tokens, or sixteen blocks of one
 * token, side by side, a lane for each, so that what is one number of a block - its largest value,
 * two divisions, the sums of its halves - is one instruction for all of them. */
#include <immintrin.h>
#include <math.h>

#include "kernel/avx512/avx512.h"
#include "kernel/frame/inline.h"

enum { LANES = SAF__ACT_TOKENS_BY_TOKEN };

/* One block of every token: 32 columns as integers, of which `n` are there. */
typedef struct {
    const float *x;
    int64_t ldx;
    int tokens;
    __mmask16 live[2]; /* columns */
} block;

/* lane t = the lanes of v[t] together, by an operation of two operands. `v` is used up. */
#define FOLD_ALL(name, op)                                                                         \
    SAF__INLINE __m512i name(__m512i *v) {                                                         \
        SAF__UNROLL for (int i = 0; i < LANES; i += 2) v[i / 2] =                                  \
            op(_mm512_unpacklo_epi32(v[i], v[i + 1]), _mm512_unpackhi_epi32(v[i], v[i + 1]));      \
        SAF__UNROLL for (int i = 0; i < LANES / 2; i += 2) v[i / 2] =                              \
            op(_mm512_unpacklo_epi64(v[i], v[i + 1]), _mm512_unpackhi_epi64(v[i], v[i + 1]));      \
        SAF__UNROLL for (int i = 0; i < LANES / 4; i += 2) v[i / 2] =                              \
            op(_mm512_shuffle_i32x4(v[i], v[i + 1], 0x44),                                         \
               _mm512_shuffle_i32x4(v[i], v[i + 1], 0xEE));                                        \
        return op(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xDD)); \
    }
FOLD_ALL(fold_max, _mm512_max_epu32)
FOLD_ALL(fold_pairs, _mm512_add_epi16)

SAF__INLINE __m512 half_load(const block *b, int t, const int half) {
    return _mm512_maskz_loadu_ps(b->live[half], b->x + t * b->ldx + 16 * half);
}

/* The bits of the largest magnitude of each token. As integers: infinity and NaN are the largest,
 * so the maximum tells of them. */
SAF__INLINE __m512i largest(const block *b) {
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i m[LANES];
    SAF__UNROLL for (int t = 0; t < LANES; t++) {
        m[t] = _mm512_setzero_si512();
        if (t >= b->tokens) continue;
        __m512i x0 = _mm512_castps_si512(half_load(b, t, 0));
        __m512i x1 = _mm512_castps_si512(half_load(b, t, 1));
        m[t] = _mm512_max_epu32(_mm512_and_si512(x0, magnitude), _mm512_and_si512(x1, magnitude));
    }
    return fold_max(m);
}

/* q of token t, by token or each group of four columns beside those of the other tokens. */
SAF__INLINE void store(const bool BY_TOKEN, __m512i q0, __m512i q1, int8_t *to, int tokens, int t) {
    int8_t q[SAF_QUANT_BLOCK], *at = BY_TOKEN ? to + t * SAF_QUANT_BLOCK : q;
    _mm_storeu_si128((__m128i *)at, _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(at + 16), _mm512_cvtepi32_epi8(q1));
    if (BY_TOKEN) return;
    SAF__UNROLL for (int g = 0; g < SAF__GROUPS; g++)
        memcpy(to + (g * tokens + t) * 4, q + 4 * g, 4);
}

/* The block that begins at column k of the tile's tokens, its results at `at`. */
SAF__INLINE void quantise_block(const bool BY_TOKEN, const saf__acts_view *a, const block *b,
                                int64_t at) {
    const __mmask16 all = (__mmask16)((1u << b->tokens) - 1);
    __m512i bits = largest(b), sums[LANES];
    __m512 amax = _mm512_castsi512_ps(bits), full = _mm512_set1_ps(127.0f);
    __mmask16 broken = _mm512_cmpge_epu32_mask(bits, _mm512_set1_epi32(0x7F800000));
    __mmask16 some =
        (__mmask16)(_mm512_cmp_ps_mask(amax, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ) & ~broken);
    float inverse[LANES] __attribute__((aligned(64)));
    __m512 dx = _mm512_maskz_div_ps(some, amax, full);
    dx = _mm512_mask_mov_ps(dx, broken, _mm512_set1_ps(NAN));
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, full, amax));
    SAF__UNROLL for (int t = 0; t < LANES; t++) {
        sums[t] = _mm512_setzero_si512();
        if (t >= b->tokens) continue;
        const __mmask16 kept = (__mmask16)(0 - (some >> t & 1));
        __m512 scale = _mm512_set1_ps(inverse[t]);
        __m512i q0 = _mm512_maskz_cvtps_epi32(kept, _mm512_mul_ps(half_load(b, t, 0), scale));
        __m512i q1 = _mm512_maskz_cvtps_epi32(kept, _mm512_mul_ps(half_load(b, t, 1), scale));
        /* two sums in one lane of two words */
        sums[t] = _mm512_mask_blend_epi16(0xAAAAAAAA, q0, _mm512_slli_epi32(q1, 16));
        store(BY_TOKEN, q0, q1, a->q + at * SAF_QUANT_BLOCK, b->tokens, t);
    }
    __m512i sum = fold_pairs(sums);
    __m512i both = _mm512_add_epi32(_mm512_srai_epi32(_mm512_slli_epi32(sum, 16), 16),
                                    _mm512_srai_epi32(sum, 16));
    _mm512_mask_storeu_ps(a->dx + at, all, dx);
    _mm512_mask_storeu_epi32(a->sums + at, all, sum);
    _mm512_mask_storeu_ps(a->u + at, all, _mm512_mul_ps(dx, _mm512_cvtepi32_ps(both)));
}

/* Whole blocks [b0, b1) of a token that has a tile for itself. They lie one after another, as those
 * of several tokens do by token: sixteen of them side by side. */
static void quantise_row(const saf__acts_view *a, int64_t t0, int64_t b0, int64_t b1) {
    block b = {.ldx = SAF_QUANT_BLOCK, .live = {0xFFFF, 0xFFFF}};
    for (int64_t i = b0; i < b1; i += b.tokens) {
        b.x = a->x + t0 * a->ldx + (i * SAF_QUANT_BLOCK - a->x_col);
        b.tokens = (int)saf_i64_min(LANES, b1 - i);
        quantise_block(true, a, &b, t0 * a->blocks + i);
    }
}

static void quantise(const saf__acts_view *a, int64_t t0, int64_t b0, int64_t b1) {
    block b = {.ldx = a->ldx, .tokens = (int)saf__act_tile_tokens(a, t0)};
    if (b.tokens == 1) {
        int64_t whole = saf_i64_max(b0, saf_i64_min(b1, a->cols / SAF_QUANT_BLOCK));
        quantise_row(a, t0, b0, whole);
        b0 = whole;
    }
    for (int64_t i = b0; i < b1; i++) {
        int64_t k = i * SAF_QUANT_BLOCK, at = t0 * a->blocks + i * b.tokens;
        int64_t n = saf_i64_min(SAF_QUANT_BLOCK, a->cols - k);
        __mmask32 live = (__mmask32)(((uint64_t)1 << n) - 1);
        b.x = a->x + t0 * a->ldx + (k - a->x_col);
        b.live[0] = (__mmask16)live;
        b.live[1] = (__mmask16)(live >> 16);
        if (a->by_token)
            quantise_block(true, a, &b, at);
        else
            quantise_block(false, a, &b, at);
    }
}

void saf__avx512_quantise(saf__kernels *k) {
    k->quantise = quantise;
}
