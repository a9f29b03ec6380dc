/* A batch of activations: made, normed or gated on the way, and quantised. */
#include <omp.h>

#include "kernel/acts.h"

struct saf_acts {
    saf__acts_view view;
    int8_t *q;
    float *dx;
    int32_t *sums;
    float *u;
};

const saf__acts_view *saf__acts_view_of(const saf_acts *acts) {
    return &acts->view;
}

static bool acts_sizes(int64_t max_tokens, int64_t max_cols, size_t *blocks, size_t *values) {
    if (max_tokens < 0 || max_cols < 0) return false;
    return saf_size_mul((size_t)max_tokens, (size_t)saf_ceil_div(max_cols, SAF_QUANT_BLOCK),
                        blocks) &&
           saf_size_add(*blocks, SAF__ACT_TOKENS_BY_TOKEN, blocks) && /* read past a last tile */
           saf_size_mul(*blocks, SAF_QUANT_BLOCK, values);
}

saf_status saf_acts_new(int64_t max_tokens, int64_t max_cols, saf_acts **out) {
    saf_status st = SAF_OK;
    size_t blocks = 0, values = 0;
    saf_acts *acts = NULL;
    if (!acts_sizes(max_tokens, max_cols, &blocks, &values))
        return saf_fail(SAF_NO_MEMORY, "activations of %lld rows and %lld columns are too large",
                        (long long)max_tokens, (long long)max_cols);
    SAF_TRY(saf_alloc(1, sizeof *acts, &acts));
    SAF_TRY(saf_alloc(values, sizeof *acts->q, &acts->q));
    SAF_TRY(saf_alloc(blocks, sizeof *acts->dx, &acts->dx));
    SAF_TRY(saf_alloc(blocks, sizeof *acts->sums, &acts->sums));
    SAF_TRY(saf_alloc(blocks, sizeof *acts->u, &acts->u));
    *out = acts;
    acts = NULL;
out:
    saf_acts_free(&acts);
    return st;
}

void saf_acts_free(saf_acts **acts) {
    if (!*acts) return;
    saf_free(&(*acts)->q);
    saf_free(&(*acts)->dx);
    saf_free(&(*acts)->sums);
    saf_free(&(*acts)->u);
    saf_free(acts);
}

size_t saf_acts_bytes(int64_t max_tokens, int64_t max_cols) {
    size_t blocks = 0, values = 0;
    if (!acts_sizes(max_tokens, max_cols, &blocks, &values)) return SIZE_MAX;
    return sizeof(struct saf_acts) + values + blocks * (2 * sizeof(float) + sizeof(int32_t));
}

/* As few tiles as can be, about as wide as each other. */
static int64_t tile_tokens(int64_t tokens, int64_t most) {
    int64_t tiles = saf_i64_max(1, saf_ceil_div(tokens, most));
    return saf_i64_max(1, saf_ceil_div(tokens, tiles));
}

/* Where the values of a batch come from: a step that goes column by column, done by the thread that
 * then quantises what comes out. */
typedef struct {
    const float *norm_weight; /* NULL: no norm */
    float eps;
    bool *finite;    /* of a norm; may be NULL */
    const float *up; /* NULL: no gate */
    const float *in; /* of a norm, or the gate */
    int64_t ld;      /* of in and up */
    float *out;      /* view->x */
} source;

/* Columns [c0, c1) of row t. A norm's scale is worked out by each thread that has a part of a row.
 */
static void make_part(const source *s, const saf__acts_view *a, int64_t t, int64_t c0, int64_t c1) {
    const saf__kernels *kernels = saf__kernels_get();
    const float *in = s->in + t * s->ld;
    float *out = s->out + t * a->ldx;
    if (s->up) {
        kernels->silu_mul(in + c0, s->up + t * s->ld + c0, c1 - c0, out + c0);
        return;
    }
    float scale = kernels->rms_scale(in, s->eps, a->cols);
    /* above zero, it comes from a finite sum of squares */
    if (s->finite && c0 == 0 && !(scale > 0) && !kernels->finite(in, a->cols)) s->finite[t] = false;
    kernels->scale_mul(in + c0, scale, s->norm_weight + c0, c1 - c0, out + c0);
}

/* The line of all blocks, tile by tile of tokens, is cut into equal parts. */
static void set(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                bool quantise, const source *s) {
    /* Blocks of a piece: few enough to share one row, more than one in a cache line of dx. */
    enum { PIECE = 8 };
    const saf__kernels *kernels = saf__kernels_get();
    bool by_token = kernels->by_token_from > 0 && tokens >= kernels->by_token_from;
    const saf__acts_view a = {
        .x = x,
        .ldx = ldx,
        .tokens = tokens,
        .cols = cols,
        .blocks = saf_ceil_div(cols, SAF_QUANT_BLOCK),
        .by_token = by_token,
        .tile = tile_tokens(tokens, by_token ? SAF__ACT_TOKENS_BY_TOKEN : SAF__ACT_TOKENS),
        .q = acts->q,
        .dx = acts->dx,
        .sums = acts->sums,
        .u = acts->u};
    int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
    int64_t pieces = saf_ceil_div(a.blocks, PIECE), total = saf_ceil_div(tokens, a.tile) * pieces;
    int64_t at = saf__share(total, me, team), end = saf__share(total, me + 1, team);
    if (me == 0) acts->view = a; /* read after the barrier */
    while (at < end) {
        int64_t t0 = at / pieces * a.tile, first = at % pieces;
        int64_t last = saf_i64_min(pieces, first + end - at);
        int64_t b0 = first * PIECE, b1 = saf_i64_min(last * PIECE, a.blocks);
        int64_t c1 = saf_i64_min(b1 * SAF_QUANT_BLOCK, cols);
        for (int64_t t = t0; s && t < t0 + saf__act_tile_tokens(&a, t0); t++)
            make_part(s, &a, t, b0 * SAF_QUANT_BLOCK, c1);
        if (quantise) kernels->quantise(&a, t0, b0, b1);
        at += last - first;
    }
#pragma omp barrier
}

void saf_acts_set(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                  bool quantise) {
    set(acts, x, ldx, tokens, cols, quantise, NULL);
}

void saf_acts_set_norm(saf_acts *acts, const float *x, int64_t ldx, const float *weight, float eps,
                       int64_t tokens, int64_t cols, bool quantise, bool *finite, float *y,
                       int64_t ldy) {
    const source s = {
        .norm_weight = weight, .eps = eps, .finite = finite, .in = x, .ld = ldx, .out = y};
    set(acts, y, ldy, tokens, cols, quantise, &s);
}

void saf_acts_set_silu(saf_acts *acts, const float *gate, const float *up, int64_t ld,
                       int64_t tokens, int64_t cols, bool quantise, float *y, int64_t ldy) {
    const source s = {.up = up, .in = gate, .ld = ld, .out = y};
    set(acts, y, ldy, tokens, cols, quantise, &s);
}
