/* Quantised products with AMX: sixteen tokens by sixteen rows, a block of columns at a time.
 *
 * A panel of blocks is unpacked first, into signed bytes, w itself, so that a product needs no
 * correction, and into scales as the lanes take them; it stays in the first-level cache while all
 * tokens pass, whose sums are kept between panels. The processor multiplies tiles: the tokens'
 * [16, 32] bytes by a block's [32, 16]. The sums in int32 go through memory to the lanes, which
 * scale and add them as the rule has it. The lanes are what takes the time: while tiles are in use
 * a core has one multiplier of 512 bits, not two (doc/performance.md).
 *
 * Source   Intel Architecture Instruction Set Extensions, "Intel AMX": TDPBSSD
 */
#include "kernel/amx/amx.h"

#include <immintrin.h>

#include "kernel/avx512/avx512.h"
#include "kernel/frame/inline.h"

/* What one kernel is compiled for. */
typedef struct {
    int planes;
    int mins; /* 0, 1 of a block, 2 of its halves */
} shape;

enum {
    TOKENS = SAF__ACT_TOKENS_BY_TOKEN,
    ROWS = SAF__AMX_ROWS,
    TOKEN_LINES = TOKENS * SAF_QUANT_BLOCK / 64, /* of a block of columns */
    GROUP = 32 /* tiles of tokens whose sums are kept between panels */
};

/* Blocks of a panel: with the tokens' they fill most of the first-level cache. */
SAF__INLINE int panel_blocks(int planes) {
    return planes == 2 ? SAF__AMX_PANEL / 2 : SAF__AMX_PANEL;
}

/* Blocks of 16 rows and a tile of tokens. */
typedef struct {
    const uint8_t *blocks;
    int64_t n_blocks;
    int tokens, rows;
    const int8_t *q;
    const float *dx, *u;
    const int32_t *q_sums;
    float *kept; /* the sums so far, [TOKENS][ROWS] */
    float *y;    /* where they go after the last panel; NULL: back */
    int64_t ldy;
    const char
        *next;      /* weights that come later, and how many lines of them to ask for with every */
    int next_lines; /* block */
    const int8_t *next_q; /* half of the next tokens' lines, every block as many */
} job;

/* ---- tiles --------------------------------------------------------------------------------- */

/* Operand of LDTILECFG. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) tile_config;

/* Sums in tiles 0 and 1, of second planes in 6 and 7; tokens in 2 and 3, codes in 4 and 5. */
enum { SUM_BYTES = 64, TOKEN_BYTES = SAF_QUANT_BLOCK, CODE_BYTES = 64 };
static const tile_config config = {
    .palette = 1,
    .row_bytes = {SUM_BYTES, SUM_BYTES, TOKEN_BYTES, TOKEN_BYTES, CODE_BYTES, CODE_BYTES, SUM_BYTES,
                  SUM_BYTES},
    .rows = {TOKENS, TOKENS, TOKENS, TOKENS, SAF__GROUPS, SAF__GROUPS, TOKENS, TOKENS}};

typedef int32_t block_sums[2][TOKENS * ROWS]; /* of each plane */

SAF__INLINE const saf__amx_block *block_at(const shape S, const job *j, int64_t b) {
    return (const saf__amx_block *)(j->blocks + (size_t)b * saf__amx_block_bytes(S.planes));
}

/* Block b's products into the tile Y, and those of the second plane into Z, by way of X and W. The
 * numbers of tiles are parts of instructions. */
#define MULTIPLY(S, j, b, Y, Z, X, W)                                              \
    do {                                                                           \
        const saf__amx_block *w_ = block_at(S, j, b);                              \
        _tile_zero(Y);                                                             \
        _tile_loadd(X, (j)->q + (b) * (j)->tokens * SAF_QUANT_BLOCK, TOKEN_BYTES); \
        _tile_loadd(W, w_->plane, CODE_BYTES);                                     \
        _tile_dpbssd(Y, X, W);                                                     \
        if ((S).planes == 2) {                                                     \
            _tile_zero(Z);                                                         \
            _tile_loadd(W, w_->plane + SAF__AMX_PLANE_BYTES, CODE_BYTES);          \
            _tile_dpbssd(Z, X, W);                                                 \
        }                                                                          \
    } while (0)
#define MULTIPLY_EVEN(S, j, b) MULTIPLY(S, j, b, 0, 6, 2, 4)
#define MULTIPLY_ODD(S, j, b) MULTIPLY(S, j, b, 1, 7, 3, 5)
#define STORE(S, Y, Z, to)                                        \
    do {                                                          \
        _tile_stored(Y, (to)[0], SUM_BYTES);                      \
        if ((S).planes == 2) _tile_stored(Z, (to)[1], SUM_BYTES); \
    } while (0)
#define STORE_EVEN(S, to) STORE(S, 0, 6, to)
#define STORE_ODD(S, to) STORE(S, 1, 7, to)

/* ---- lanes --------------------------------------------------------------------------------- */

/* dx times the sum of q over half h of the block's columns. */
SAF__INLINE float half_sum(const float *dx, const int32_t *q_sums, const int h) {
    return *dx * (float)(h == 0 ? (int16_t)*q_sums : *q_sums >> 16);
}

/* Sums as floats, times a power of two, in two ways. While tiles are in use a core converts,
 * multiplies and adds products with one unit only, and that is what takes the time; integers and
 * sums of floats go through another as well, which the tiles' sums pass on their way to memory. So
 * some tokens take the conversion, the others an addition of integers and a subtraction: a float of
 * 1.5 times 2^23 counts whole numbers in its last bits. Both are exact, for sums below 2^22. */
SAF__INLINE __m512 sums_convert(const block_sums sums, int plane, int t) {
    return _mm512_cvtepi32_ps(_mm512_load_si512(sums[plane] + t * ROWS));
}
SAF__INLINE __m512 sums_count(const block_sums sums, int plane, int t, const int power) {
    const __m512i from = _mm512_set1_epi32(0x4B400000 + (power << 23));
    __m512i s = _mm512_add_epi32(_mm512_load_si512(sums[plane] + t * ROWS), from);
    return _mm512_sub_ps(_mm512_castsi512_ps(s), _mm512_castsi512_ps(from));
}

SAF__INLINE __m512 sums_load(const shape S, const block_sums sums, int t) {
    const bool converted = t % 2 == 0; /* half of them: measured */
    if (S.planes == 1) return converted ? sums_convert(sums, 0, t) : sums_count(sums, 0, t, 0);
    __m512 low = sums_convert(sums, 0, t);
    if (!converted) return _mm512_add_ps(sums_count(sums, 1, t, 6), low);      /* exact */
    return _mm512_fmadd_ps(sums_convert(sums, 1, t), _mm512_set1_ps(64), low); /* likewise */
}

/* acc += the rule's steps for all tokens and rows of block b. */
SAF__INLINE void add_block(const shape S, const job *j, int64_t b, const block_sums sums,
                           __m512 *acc) {
    const saf__amx_block *w = block_at(S, j, b);
    const int64_t at = b * j->tokens;
    const __m512 d = _mm512_load_ps(w->d);
    const char *next = j->next + b * j->next_lines * 64;
    for (int i = 0; i < j->next_lines; i++, next += 64) __builtin_prefetch(next, 0, 2);
    SAF__UNROLL for (int i = 0; i < TOKEN_LINES / 2; i++)
        __builtin_prefetch(j->next_q + (b * TOKEN_LINES + i) * 64, 0, 3);
    SAF__UNROLL for (int t = 0; t < TOKENS; t++) acc[t] = _mm512_fmadd_ps(
        _mm512_mul_ps(d, _mm512_set1_ps(j->dx[at + t])), sums_load(S, sums, t), acc[t]);
    SAF__UNROLL for (int h = 0; h < S.mins; h++) {
        const __m512 m = _mm512_load_ps(w->m[h]);
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) {
            float u = S.mins == 2 ? half_sum(j->dx + at + t, j->q_sums + at + t, h) : j->u[at + t];
            acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(u), acc[t]);
        }
    }
}

/* Blocks b and b + 1 of a panel of n. Tiles are multiplied two blocks, and stored one, before the
 * lanes take them up. */
SAF__INLINE void dot_two(const shape S, const int64_t b, const int64_t n, const job *j,
                         block_sums *sums, __m512 *acc) {
    if (b + 2 < n) MULTIPLY_EVEN(S, j, b + 2);
    if (b + 1 < n) STORE_ODD(S, sums[1]);
    add_block(S, j, b, sums[0], acc);
    if (b + 3 < n) MULTIPLY_ODD(S, j, b + 3);
    if (b + 2 < n) STORE_EVEN(S, sums[0]);
    if (b + 1 < n) add_block(S, j, b + 1, sums[1], acc);
}

/* The lanes of tokens that are not there compute with what lies behind and are dropped. */
SAF__INLINE void dot_tile(const shape S, const job *j) {
    block_sums sums[2] __attribute__((aligned(64)));
    const int64_t n = j->n_blocks, panel = panel_blocks(S.planes);
    __m512 acc[TOKENS];
    SAF__UNROLL for (int t = 0; t < TOKENS; t++) acc[t] = _mm512_load_ps(j->kept + t * ROWS);
    MULTIPLY_EVEN(S, j, 0);
    if (n > 1) MULTIPLY_ODD(S, j, 1);
    STORE_EVEN(S, sums[0]);
    if (n == panel) /* at a loop's end the tiles would idle */
        SAF__UNROLL for (int64_t b = 0; b < panel; b += 2) dot_two(S, b, panel, j, sums, acc);
    else
        for (int64_t b = 0; b < n; b += 2) dot_two(S, b, n, j, sums, acc);
    if (!j->y) {
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) _mm512_store_ps(j->kept + t * ROWS, acc[t]);
    } else if (j->tokens == TOKENS && j->rows == ROWS) {
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) _mm512_storeu_ps(j->y + t * j->ldy, acc[t]);
    } else {
        const __mmask16 live = live_rows(j->rows, 0);
        SAF__UNROLL for (int t = 0; t < TOKENS; t++) if (t < j->tokens)
            _mm512_mask_storeu_ps(j->y + t * j->ldy, live, acc[t]);
    }
}

#define KERNEL(name, ...)              \
    static void name(const job *in) {  \
        const shape s = {__VA_ARGS__}; \
        dot_tile(s, in);               \
    }
KERNEL(dot_plain, 1, 0)
KERNEL(dot_min, 1, 1)
KERNEL(dot_half_mins, 1, 2)
KERNEL(dot_two_planes, 2, 0)

static void (*const dot[SAF_DTYPE_COUNT])(const job *) = {
    [SAF_DTYPE_Q8_0] = dot_plain, [SAF_DTYPE_Q4_0] = dot_plain,
    [SAF_DTYPE_Q4_1] = dot_min,   [SAF_DTYPE_Q5_0] = dot_plain,
    [SAF_DTYPE_Q5_1] = dot_min,   [SAF_DTYPE_Q2_K] = dot_half_mins,
    [SAF_DTYPE_Q3_K] = dot_plain, [SAF_DTYPE_Q4_K] = dot_min,
    [SAF_DTYPE_Q5_K] = dot_min,   [SAF_DTYPE_Q6_K] = dot_two_planes};

/* ---- a tile of weights --------------------------------------------------------------------- */

/* Tokens [begin, end) over a tile of weights. */
typedef struct {
    saf_dtype dtype;
    const saf__acts_view *a;
    int64_t begin, end;
    int rows;
    float *y;
    int64_t ldy;
    const char *next;                    /* the weights after the panel */
    uint8_t *panel[2];                   /* of each half of the rows */
    float (*kept)[GROUP][TOKENS * ROWS]; /* [2] likewise */
} group;

/* Where the results of the next tile of weights go: nobody else asks for that. */
static void ask_for_results(const group *g, int64_t t, int64_t tokens) {
    for (int64_t i = t; i < t + tokens; i++) {
        __builtin_prefetch(g->y + i * g->ldy + SAF_TILE_ROWS, 0, 2);
        __builtin_prefetch(g->y + i * g->ldy + SAF_TILE_ROWS + ROWS, 0, 2);
    }
}

/* All tokens of a group over the panel of n blocks from block b on; the `ahead` bytes of weights
 * after it come in meanwhile. */
static void dot_panel(const group *g, int64_t b, int64_t n, int64_t ahead) {
    const saf__acts_view *a = g->a;
    const bool last = b + n == a->blocks;
    int64_t lines = ahead / 64;
    job j = {.n_blocks = n, .next = g->next, .ldy = g->ldy};
    j.next_lines = (int)saf_ceil_div(lines, saf_ceil_div(g->end - g->begin, a->tile) * 2 * n);
    for (int64_t t = g->begin; t < g->end; t += a->tile) {
        int64_t tokens = saf__act_tile_tokens(a, t), at = t * a->blocks + b * tokens;
        j.tokens = (int)tokens;
        j.q = a->q + at * SAF_QUANT_BLOCK;
        j.dx = a->dx + at;
        j.u = a->u + at;
        j.q_sums = a->sums + at;
        const int8_t *next_q =
            t + a->tile < g->end ? j.q + a->blocks * tokens * SAF_QUANT_BLOCK : j.q;
        for (int half = 0; half < 2 && half * ROWS < g->rows; half++) {
            j.rows = (int)saf_i64_min(g->rows - half * ROWS, ROWS);
            j.blocks = g->panel[half];
            j.next_q = next_q + half * (TOKEN_LINES / 2) * 64;
            j.kept = g->kept[half][(t - g->begin) / a->tile];
            j.y = last ? g->y + t * g->ldy + half * ROWS : NULL;
            dot[g->dtype](&j);
            j.next += j.next_lines * n * 64;
            lines -= j.next_lines * n;
            if (lines <= 0) j.next_lines = 0;
        }
        if (last) ask_for_results(g, t, tokens);
    }
}

static void dot_group(group *g, const uint8_t *tile) {
    const saf__form *form = saf__form_of(g->dtype);
    const int64_t blocks = g->a->blocks, panel = panel_blocks(saf__amx_planes(g->dtype));
    int64_t tiles = saf_ceil_div(g->end - g->begin, g->a->tile);
    for (int half = 0; half < 2; half++)
        memset(g->kept[half], 0, (size_t)tiles * sizeof g->kept[half][0]);
    for (int64_t b = 0; b < blocks; b += panel) {
        int64_t n = saf_i64_min(panel, blocks - b);
        int64_t bytes = n / form->blocks * form->super_bytes;
        saf__amx_unpack(g->dtype, tile, n, g->panel[0], g->panel[1]);
        __asm__ volatile("" ::: "memory"); /* what the tiles load has been written */
        tile += bytes;
        g->next = (const char *)tile;
        dot_panel(g, b, n, bytes);
    }
}

static void amx_dot_quant(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                          float *y, int64_t ldy) {
    if (!a->by_token) {
        saf__vnni_dot_quant(dtype, tile, a, rows, y, ldy);
        return;
    }
    saf__amx_block panel[2][SAF__AMX_PANEL] __attribute__((aligned(64)));
    float kept[2][GROUP][TOKENS * ROWS] __attribute__((aligned(64)));
    group g = {.dtype = dtype,
               .a = a,
               .rows = rows,
               .y = y,
               .ldy = ldy,
               .panel = {(uint8_t *)panel[0], (uint8_t *)panel[1]},
               .kept = kept};
    _tile_loadconfig(&config);
    for (; g.begin < a->tokens; g.begin = g.end) {
        g.end = saf_i64_min(a->tokens, g.begin + GROUP * a->tile);
        dot_group(&g, tile);
    }
    _tile_release();
}

/* Unpacking and the way through memory cost little only beside enough tokens; the codes of two
 * planes are the dearest. Measured: make bench-matmul. */
static const int fewest_tokens[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = 16, [SAF_DTYPE_Q4_0] = 16, [SAF_DTYPE_Q4_1] = 16, [SAF_DTYPE_Q5_0] = 16,
    [SAF_DTYPE_Q5_1] = 16, [SAF_DTYPE_Q2_K] = 48, [SAF_DTYPE_Q3_K] = 48, [SAF_DTYPE_Q4_K] = 16,
    [SAF_DTYPE_Q5_K] = 48, [SAF_DTYPE_Q6_K] = 48};

void saf__kernels_amx(saf__kernels *k) {
    k->name = "amx";
    memcpy(k->by_token_from, fewest_tokens, sizeof fewest_tokens);
    k->dot_quant = amx_dot_quant;
}
