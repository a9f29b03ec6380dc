/* Quantised products with AMX: sixteen tokens by sixteen rows, a block of columns at a time.
 *
 * The processor multiplies tiles: the tokens' [16, 32] bytes by a block's [32, 16] codes. A panel
 * of blocks is unpacked first, into signed bytes, w itself, so that a product needs no correction,
 * and into scales as the lanes take them; it stays in the first-level cache while all tokens pass.
 * The sums in int32 go through memory to the lanes, which scale and add them as the rule has it.
 * The tiles are a block ahead of the lanes.
 *
 * Source   Intel Architecture Instruction Set Extensions, "Intel AMX": TDPBSSD, TDPBSUD
 */
#include "kernel/avx512/avx512.h"
#include "kernel/avx512/codes.h"

/* What one kernel is compiled for. */
typedef enum {
    PLAIN,     /* d; no scale, no minimum; also where the codes hold the scale */
    OFFSET,    /* as PLAIN, codes unsigned, w = code - offset */
    PLAIN_MIN, /* d, m; minimum's factor 1 for the block, or one for each half */
    BLOCK_MIN, /* scale and minimum for each block */
    HALVES,    /* a signed scale for each half block */
} shape;

enum {
    TOKENS = SAF__ACT_TOKENS_BY_TOKEN,
    ROWS = 16,  /* of a product: half a tile of weights */
    PANEL = 32, /* blocks */
    /* What unpacking and the way through memory cost is little only beside many tokens. */
    FEWEST_TOKENS = 48
};

/* Sixteen rows of a block, unpacked. Only what the shape has is filled. */
typedef struct {
    int8_t codes[SAF__GROUPS][ROWS][4];
    float d[ROWS], m[ROWS], scale[2][ROWS]; /* scale of each half of the columns */
    int32_t min[ROWS];                      /* pairs: factor of the first half, of the second */
} wide_block;

/* Blocks of 16 rows and a tile of tokens. */
typedef struct {
    const wide_block *blocks;
    int64_t n_blocks;
    int tokens;
    const int8_t *q;
    const float *dx;
    const int32_t *sums;
    bool first;       /* the sums begin at 0, not at y */
    const char *next; /* the weights after the panel, and how many lines of them to ask for with */
    int next_lines;   /* every block: they come in while this panel is computed */
} job;

/* ---- tiles --------------------------------------------------------------------------------- */

/* Operand of LDTILECFG. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) tile_config;

/* Sums in tiles 0 and 1, tokens in 2 and 3, codes in 4 and 5; k columns at once. */
#define TILE_CONFIG(k)                                                   \
    {                                                                    \
        .palette = 1, .row_bytes = {64, 64, (k), (k), 64, 64}, .rows = { \
            TOKENS,                                                      \
            TOKENS,                                                      \
            TOKENS,                                                      \
            TOKENS,                                                      \
            (k) / 4,                                                     \
            (k) / 4                                                      \
        }                                                                \
    }
static const tile_config whole_blocks = TILE_CONFIG(32), half_blocks = TILE_CONFIG(16);

/* sums[half of the columns, where these have scales of their own][token][row]. Two of these are no
 * more than 4096 bytes: a load that differs from a store under way by that would wait for it. */
typedef int32_t block_sums[2][TOKENS * ROWS];

SAF__INLINE void multiply(const shape S, const wide_block *w, const int8_t *q, block_sums sums) {
    _tile_zero(0);
    _tile_loadd(2, q, SAF_QUANT_BLOCK);
    _tile_loadd(4, w->codes[0], sizeof w->codes[0]);
    if (S == OFFSET)
        _tile_dpbsud(0, 2, 4);
    else
        _tile_dpbssd(0, 2, 4);
    _tile_stored(0, sums[0], sizeof(int32_t[ROWS]));
    if (S != HALVES) return;
    _tile_zero(1);
    _tile_loadd(3, q + SAF_QUANT_BLOCK / 2, SAF_QUANT_BLOCK);
    _tile_loadd(5, w->codes[SAF__GROUPS / 2], sizeof w->codes[0]);
    _tile_dpbssd(1, 3, 5);
    _tile_stored(1, sums[1], sizeof(int32_t[ROWS]));
}

/* ---- lanes --------------------------------------------------------------------------------- */

SAF__INLINE __m512 sums_load(const int32_t *sums, int token) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums + token * ROWS));
}

/* acc = the rule's two steps for one token and 16 rows. */
SAF__INLINE __m512 add_block(const shape S, const wide_block *w, block_sums sums, const float *dx,
                             const int32_t *q_sums, int token, __m512 acc) {
    const bool has_min = S == PLAIN_MIN || S == BLOCK_MIN;
    __m512 dxs = _mm512_set1_ps(dx[token]), s;
    if (S == OFFSET) {
        __m512i minus = _mm512_set1_epi16(-Q3_K_WIDE_OFFSET);
        s = _mm512_cvtepi32_ps(
            _mm512_add_epi32(_mm512_load_si512(sums[0] + token * ROWS),
                             _mm512_madd_epi16(broadcast4(q_sums + token), minus)));
    } else {
        s = sums_load(sums[0], token);
    }
    if (S == BLOCK_MIN || S == HALVES) s = _mm512_mul_ps(s, _mm512_load_ps(w->scale[0]));
    if (S == HALVES) s = _mm512_fmadd_ps(sums_load(sums[1], token), _mm512_load_ps(w->scale[1]), s);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(w->d), dxs), s, acc);
    if (!has_min) return acc;
    __m512 u = _mm512_cvtepi32_ps(
        _mm512_madd_epi16(_mm512_load_si512(w->min), broadcast4(q_sums + token)));
    return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(w->m), dxs), u, acc);
}

/* Up to N tokens and 16 rows over a panel's blocks. The lanes of tokens that are not there compute
 * with what lies behind and are dropped. */
SAF__INLINE void dot_tile(const int N, const shape S, const job *in, int rows, float *y,
                          int64_t ldy) {
    block_sums sums[2] __attribute__((aligned(64)));
    const job j = *in;
    const wide_block *w = j.blocks;
    const int8_t *q = j.q;
    const float *dx = j.dx;
    const int32_t *q_sums = j.sums;
    const char *next = j.next;
    __mmask16 live = (__mmask16)((1u << rows) - 1);
    __m512 acc[TOKENS];
    SAF__UNROLL for (int t = 0; t < N; t++) acc[t] =
        j.first || t >= j.tokens ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(live, y + t * ldy);
    if (j.first) /* the lines that are written in the end, which nobody else asks for */
        for (int t = 0; t < j.tokens; t++) __builtin_prefetch(y + t * ldy, 1, 3);
    __asm__ volatile("" ::: "memory"); /* what the tiles load has been written */
    multiply(S, w, q, sums[0]);
    for (int64_t b = 0; b < j.n_blocks; b++, w++) {
        q += j.tokens * SAF_QUANT_BLOCK;
        if (b + 1 < j.n_blocks) multiply(S, w + 1, q, sums[(b + 1) % 2]);
        for (int i = 0; i < j.next_lines; i++, next += 64) __builtin_prefetch(next, 0, 2);
        SAF__UNROLL for (int t = 0; t < N; t++) acc[t] =
            add_block(S, w, sums[b % 2], dx, q_sums, t, acc[t]);
        dx += j.tokens;
        q_sums += j.tokens;
    }
    SAF__UNROLL for (int t = 0; t < N; t++) if (t < j.tokens)
        _mm512_mask_storeu_ps(y + t * ldy, live, acc[t]);
}

typedef void (*tile_kernel)(const job *in, int rows, float *y, int64_t ldy);
#define KERNEL(name, tokens, shape_)                                   \
    static void name(const job *in, int rows, float *y, int64_t ldy) { \
        dot_tile((tokens), (shape_), in, rows, y, ldy);                \
    }
/* [(tokens - 1) / 4] */
#define KERNELS(shape_)                                                            \
    KERNEL(dot_##shape_##_4, 4, shape_)                                            \
    KERNEL(dot_##shape_##_8, 8, shape_)                                            \
    KERNEL(dot_##shape_##_12, 12, shape_)                                          \
    KERNEL(dot_##shape_##_16, 16, shape_)                                          \
    static const tile_kernel dot_##shape_[] = {dot_##shape_##_4, dot_##shape_##_8, \
                                               dot_##shape_##_12, dot_##shape_##_16};
KERNELS(PLAIN)
KERNELS(OFFSET)
KERNELS(PLAIN_MIN)
KERNELS(BLOCK_MIN)
KERNELS(HALVES)

/* ---- unpacking ----------------------------------------------------------------------------- */

/* Sixteen rows, the first or the second half, of a packed block of `bits` a code, of which the
 * offset is taken away, or which are multiplied by their scales. */
SAF__INLINE void unpack_half(const int BITS, const shape S, const int offset, const saf__form *form,
                             const uint8_t *super, const uint8_t *block, const int half,
                             wide_block *w) {
    const uint8_t *meta = block + form->plane_bytes + 16 * half;
    SAF__UNROLL for (int g = 0; g < SAF__GROUPS; g++) {
        __m512i x = codes(BITS, block, g, half);
        if (BITS < 4)
            x = scaled_codes(BITS, x, meta + g / 4 * 32);
        else
            x = _mm512_sub_epi8(x, _mm512_set1_epi8((char)offset));
        _mm512_store_si512(w->codes[g], x);
    }
    _mm512_store_ps(w->d, halfs(super + 32 * half));
    if (S == PLAIN_MIN || S == BLOCK_MIN) _mm512_store_ps(w->m, halfs(super + 64 + 32 * half));
    if (S == BLOCK_MIN) {
        __m512i min = unsigned_bytes(meta + 32);
        _mm512_store_ps(w->scale[0], _mm512_cvtepi32_ps(unsigned_bytes(meta)));
        _mm512_store_si512(w->min, pairs(min, min));
    } else if (S == HALVES) {
        _mm512_store_ps(w->scale[0], _mm512_cvtepi32_ps(signed_bytes(meta)));
        _mm512_store_ps(w->scale[1], _mm512_cvtepi32_ps(signed_bytes(meta + 32)));
    } else if (BITS == 2) {
        _mm512_store_si512(w->min, pairs(_mm512_srli_epi32(unsigned_bytes(meta), 4),
                                         _mm512_srli_epi32(unsigned_bytes(meta + 32), 4)));
    } else if (S == PLAIN_MIN) {
        _mm512_store_si512(w->min, _mm512_set1_epi16(1));
    }
}

/* Block b of a super into w[0] (rows 0 to 15) and w[PANEL] (rows 16 to 31). */
typedef void (*unpack_function)(const saf__form *form, const uint8_t *super, int b, wide_block *w);
#define UNPACK(name, bits, shape_, offset)                                                \
    static void name(const saf__form *form, const uint8_t *super, int b, wide_block *w) { \
        const uint8_t *block = super + form->header_bytes + b * form->block_bytes;        \
        unpack_half((bits), (shape_), (offset), form, super, block, 0, w);                \
        unpack_half((bits), (shape_), (offset), form, super, block, 1, w + PANEL);        \
    }
UNPACK(unpack_q8_0, 8, PLAIN, 128)
UNPACK(unpack_q4_0, 4, PLAIN, 8)
UNPACK(unpack_q4_1, 4, PLAIN_MIN, 0)
UNPACK(unpack_q5_0, 5, PLAIN, 16)
UNPACK(unpack_q5_1, 5, PLAIN_MIN, 0)
UNPACK(unpack_q2_k, 2, PLAIN_MIN, 0)
UNPACK(unpack_q3_k, 3, OFFSET, 0)
UNPACK(unpack_q4_k, 4, BLOCK_MIN, 0)
UNPACK(unpack_q5_k, 5, BLOCK_MIN, 0)
UNPACK(unpack_q6_k, 6, HALVES, 32)

static const struct {
    unpack_function unpack;
    const tile_kernel *dot;
} types[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = {unpack_q8_0, dot_PLAIN},
    [SAF_DTYPE_Q4_0] = {unpack_q4_0, dot_PLAIN},
    [SAF_DTYPE_Q4_1] = {unpack_q4_1, dot_PLAIN_MIN},
    [SAF_DTYPE_Q5_0] = {unpack_q5_0, dot_PLAIN},
    [SAF_DTYPE_Q5_1] = {unpack_q5_1, dot_PLAIN_MIN},
    [SAF_DTYPE_Q2_K] = {unpack_q2_k, dot_PLAIN_MIN},
    [SAF_DTYPE_Q3_K] = {unpack_q3_k, dot_OFFSET},
    [SAF_DTYPE_Q4_K] = {unpack_q4_k, dot_BLOCK_MIN},
    [SAF_DTYPE_Q5_K] = {unpack_q5_k, dot_BLOCK_MIN},
    [SAF_DTYPE_Q6_K] = {unpack_q6_k, dot_HALVES},
};

/* ---- a tile of weights --------------------------------------------------------------------- */

/* All tokens over the panel of n blocks that begins at block b0, one half of the rows. */
static void dot_half(saf_dtype dtype, job *j, const saf__acts_view *a, int64_t b0, int64_t lines,
                     int rows, float *y, int64_t ldy) {
    j->next_lines = (int)saf_ceil_div(lines, saf_ceil_div(a->tokens, a->tile) * j->n_blocks);
    for (int64_t t = 0; t < a->tokens; t += a->tile) {
        int64_t n = saf__act_tile_tokens(a, t), at = t * a->blocks + b0 * n;
        j->tokens = (int)n;
        j->q = a->q + at * SAF_QUANT_BLOCK;
        j->dx = a->dx + at;
        j->sums = a->sums + at;
        types[dtype].dot[(n - 1) / 4](j, rows, y + t * ldy, ldy);
        j->next += j->next_lines * j->n_blocks * 64;
        lines -= j->next_lines * j->n_blocks;
        if (lines <= 0) j->next_lines = 0;
    }
}

static void dot_panels(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                       float *y, int64_t ldy) {
    const saf__form *form = saf__form_of(dtype);
    wide_block wide[2][PANEL] __attribute__((aligned(64)));
    const uint8_t *super = tile;
    for (int64_t b0 = 0; b0 < a->blocks; b0 += PANEL) {
        int64_t n = saf_i64_min(PANEL, a->blocks - b0),
                lines = n / form->blocks * form->super_bytes / 64;
        for (int64_t b = 0; b < n; b += form->blocks, super += form->super_bytes)
            for (int i = 0; i < form->blocks; i++)
                types[dtype].unpack(form, super, i, &wide[0][b + i]);
        job j = {.blocks = wide[0], .n_blocks = n, .first = b0 == 0, .next = (const char *)super};
        dot_half(dtype, &j, a, b0, lines / 2, rows < ROWS ? rows : ROWS, y, ldy);
        j.blocks = wide[1];
        if (rows > ROWS) dot_half(dtype, &j, a, b0, lines / 2, rows - ROWS, y + ROWS, ldy);
    }
}

static void amx_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                          float *y, int64_t ldy) {
    if (!a->by_token) {
        saf__vnni_dot_quant(dtype, tile, a, rows, y, ldy);
        return;
    }
    _tile_loadconfig(dtype == SAF_DTYPE_Q6_K ? &half_blocks : &whole_blocks);
    dot_panels(dtype, tile, a, rows, y, ldy);
    _tile_release();
}

void saf__kernels_amx(saf__kernels *k) {
    k->name = "amx";
    k->by_token_from = FEWEST_TOKENS;
    k->dot_quant = amx_dot_quant;
}
