/* floats.h: the loops of a product with float weights around an instruction set's way of
 * multiplying a few tokens (see lanes.h for what a frame is). The file that includes this one
 * defines PASS_TOKENS, PASS_ROWS, widen, pass_tokens and one_token. */
#ifndef SAF_KERNEL_FRAME_FLOATS_H
#define SAF_KERNEL_FRAME_FLOATS_H

#include "kernel/frame/inline.h"
#include "kernel/kernels.h"

/* Columns of one pass over all tokens of a part: their weights stay in the first-level cache. */
enum { PANEL_COLS = 256 };

/* PASS_ROWS rows of a tile by up to PASS_TOKENS tokens over the columns of a panel. */
typedef struct {
    const float *w; /* [cols, 32] from the first row of the pass on */
    const float *x;
    int64_t ldx, cols;
    int rows;  /* at most PASS_ROWS */
    bool more; /* y has the sums of the columns before these */
    float *y;
    int64_t ldy;
    /* What comes after this panel, fetched meanwhile, a quarter of it beside the others: memory is
     * faster to read in several places. Each column goes on by `step` bytes and fetches, for every
     * 16 rows of the pass, in one of two neighbouring quarters by turns. */
    const uint8_t *ahead;
    int64_t step, quarter;
} float_pass;

/* out[0, n), n a multiple of 32, of F16 or BF16 weights. */
static void widen(saf_dtype dtype, const uint8_t *at, int64_t n, float *out);
/* By pass_n(n, pass), as every number of tokens has its own registers: the cases of a switch. */
static void pass_tokens(const float_pass *pass, int tokens);
#define SAF__PASS(n, pass)   \
    case n:                  \
        pass_n((n), (pass)); \
        break;
#define SAF__PASSES_1_TO_6(pass) \
    SAF__PASS(1, pass)           \
    SAF__PASS(2, pass)           \
    SAF__PASS(3, pass) SAF__PASS(4, pass) SAF__PASS(5, pass) SAF__PASS(6, pass)
#define SAF__PASSES_7_TO_12(pass) \
    SAF__PASS(7, pass)            \
    SAF__PASS(8, pass)            \
    SAF__PASS(9, pass) SAF__PASS(10, pass) SAF__PASS(11, pass) SAF__PASS(12, pass)
/* A single token of a part. */
SAF__INLINE void one_token(const saf_dtype D, const saf__float_part *p);

/* All tokens over columns [k0, k0 + cols). */
static void panel_tokens(const saf__float_part *p, const float *w, int64_t k0, int64_t cols,
                         const uint8_t *next) {
    int64_t column_bytes = SAF_TILE_ROWS * (p->dtype == SAF_DTYPE_F32 ? 4 : 2);
    int64_t groups = saf_ceil_div(p->tokens, PASS_TOKENS);
    int64_t tokens = saf_ceil_div(p->tokens, groups);
    float_pass pass = {.ldx = p->ldx, .cols = cols, .more = p->more || k0 > 0, .ldy = p->ldy};
    pass.quarter = cols * column_bytes / 4;
    pass.step = saf_ceil_div(column_bytes / 4, groups);
    for (int64_t t = 0; t < p->tokens; t += tokens) {
        for (int r = 0; r < p->rows; r += PASS_ROWS) {
            pass.w = w + r;
            pass.x = p->x + t * p->ldx + k0;
            pass.ahead = next + r / 16 * 2 * pass.quarter + t / tokens * cols * pass.step;
            pass.rows = (int)saf_i64_min(PASS_ROWS, p->rows - r);
            pass.y = p->y + t * p->ldy + r;
            pass_tokens(&pass, (int)saf_i64_min(tokens, p->tokens - t));
        }
    }
}

static void many_tokens(const saf__float_part *p) {
    _Alignas(64) float wide[PANEL_COLS * SAF_TILE_ROWS];
    int64_t width = p->dtype == SAF_DTYPE_F32 ? 4 : 2;
    for (int64_t k0 = 0; k0 < p->cols; k0 += PANEL_COLS) {
        int64_t cols = saf_i64_min(PANEL_COLS, p->cols - k0);
        const uint8_t *at = p->tile + k0 * SAF_TILE_ROWS * width;
        const uint8_t *after = at + cols * SAF_TILE_ROWS * width;
        const float *w = wide;
        if (width == 4)
            w = (const float *)(const void *)at;
        else
            widen(p->dtype, at, cols * SAF_TILE_ROWS, wide);
        panel_tokens(p, w, k0, cols, k0 + cols < p->cols ? after : p->next);
    }
}

static void frame_dot_float(const saf__float_part *p) {
    if (p->tokens > 1)
        many_tokens(p);
    else if (p->dtype == SAF_DTYPE_F32)
        one_token(SAF_DTYPE_F32, p);
    else if (p->dtype == SAF_DTYPE_F16)
        one_token(SAF_DTYPE_F16, p);
    else
        one_token(SAF_DTYPE_BF16, p);
}

#endif
