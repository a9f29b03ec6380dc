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
#include "kernel/amx/tiles.h"

enum { GROUP = 32 }; /* tiles of tokens whose sums are kept between panels */

/* Blocks of a panel: with the tokens' they fill most of the first-level cache. */
SAF__INLINE int panel_blocks(int planes) {
    return planes == 2 ? SAF__AMX_PANEL / 2 : SAF__AMX_PANEL;
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
    acc_store(S, j, acc);
}

#define KERNEL(name, ...)                            \
    static void name(const job *in) {                \
        const shape s = {__VA_ARGS__, false, false}; \
        dot_tile(s, in);                             \
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
    if (a->tokens <= TOKENS) {
        _tile_loadconfig(&config);
        saf__amx_dot_few(dtype, tile, a, rows, y, ldy);
        _tile_release();
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

/* Half-empty tiles take as long as full ones, and VNNI takes the time of the tokens there are: so
 * tiles have to be nearly full, or many; and always many where a weight costs two planes or
 * two minimums. Measured: make bench-matmul. */
static bool amx_by_token(saf_dtype dtype, int64_t tokens) {
    enum { MANY = 48, NEARLY_FULL = 13 };
    if (tokens >= MANY) return true;
    if (dtype == SAF_DTYPE_Q6_K || dtype == SAF_DTYPE_Q2_K) return false;
    return tokens > 0 && tokens >= NEARLY_FULL * saf_ceil_div(tokens, TOKENS);
}

void saf__kernels_amx(saf__kernels *k) {
    k->name = "amx";
    k->by_token = amx_by_token;
    k->dot_quant = amx_dot_quant;
}
