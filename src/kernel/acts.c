/* A batch of activations: made, normed or gated on the way, and quantised; or the part of it that
 * one of several ranks makes. */
#include <omp.h>

#include "kernel/acts.h"

struct saf_acts {
    saf__acts_view view;
    int8_t *q;
    float *dx;
    int32_t *sums;
    float *u;
    float *rows;   /* where ranks share it: the memory, that of q too, as values [T, K] */
    bool by_token; /* whether batches may be so */
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

/* Where dx, sums and u begin behind q, and how long all of it is. */
typedef struct {
    size_t dx, sums, u, bytes;
} places;

static size_t line_end(size_t bytes) {
    return (size_t)saf_round_up((int64_t)bytes, 64);
}

static bool find_places(int64_t max_tokens, int64_t max_cols, places *out) {
    size_t blocks = 0, values = 0;
    if (!acts_sizes(max_tokens, max_cols, &blocks, &values) || values > SIZE_MAX / 8) return false;
    blocks = line_end(blocks * sizeof(float));
    values = line_end(values);
    *out = (places){.dx = values,
                    .sums = values + blocks,
                    .u = values + 2 * blocks,
                    .bytes = values + 3 * blocks};
    return true;
}

static saf_status too_large(int64_t max_tokens, int64_t max_cols) {
    return saf_fail(SAF_NO_MEMORY, "activations of %lld rows and %lld columns are too large",
                    (long long)max_tokens, (long long)max_cols);
}

static void lay_out(saf_acts *acts, void *memory, const places *at) {
    acts->q = memory;
    acts->dx = (float *)((char *)memory + at->dx);
    acts->sums = (int32_t *)((char *)memory + at->sums);
    acts->u = (float *)((char *)memory + at->u);
}

saf_status saf_acts_new(int64_t max_tokens, int64_t max_cols, saf_acts **out) {
    saf_status st = SAF_OK;
    saf_acts *acts = NULL;
    char *memory = NULL;
    places at;
    if (!find_places(max_tokens, max_cols, &at)) return too_large(max_tokens, max_cols);
    SAF_TRY(saf_alloc(1, sizeof *acts, &acts));
    acts->by_token = true;
    SAF_TRY(saf_alloc_large(at.bytes, 1, &memory));
    lay_out(acts, memory, &at);
    *out = acts;
    acts = NULL;
out:
    saf_acts_free(&acts);
    return st;
}

void saf_acts_free(saf_acts **acts) {
    if (!*acts) return;
    if (!(*acts)->rows) saf_free(&(*acts)->q); /* and what lies behind it */
    saf_free(acts);
}

size_t saf_acts_bytes(int64_t max_tokens, int64_t max_cols) {
    places at;
    return find_places(max_tokens, max_cols, &at) ? sizeof(struct saf_acts) + at.bytes : SIZE_MAX;
}

/* The same memory holds values where products read those. */
size_t saf_acts_shared_bytes(int64_t max_tokens, int64_t max_cols) {
    places at;
    if (!find_places(max_tokens, max_cols, &at)) return SIZE_MAX;
    size_t floats = line_end((size_t)max_tokens * (size_t)max_cols * sizeof(float));
    return at.bytes > floats ? at.bytes : floats;
}

saf_status saf_acts_shared_new(void *memory, int64_t max_tokens, int64_t max_cols, bool by_token,
                               saf_acts **out) {
    saf_status st = SAF_OK;
    saf_acts *acts = NULL;
    places at;
    if (!find_places(max_tokens, max_cols, &at)) return too_large(max_tokens, max_cols);
    SAF_TRY(saf_alloc(1, sizeof *acts, &acts));
    lay_out(acts, memory, &at);
    acts->rows = memory;
    acts->by_token = by_token;
    *out = acts;
out:
    return st;
}

saf_acts_form saf_acts_form_of(const saf_acts *acts, const saf_row_product *products, int n,
                               int64_t tokens) {
    const saf_weight *widest = NULL;
    for (int i = 0; i < n; i++) {
        const saf_weight *w = products[i].w;
        if (saf_dtype_is_quantised(w->dtype) && (!widest || w->rows > widest->rows)) widest = w;
    }
    if (!widest) return SAF_ACTS_FLOATS;
    bool (*by_token)(saf_dtype, int64_t) = saf__kernels_get()->by_token;
    return acts->by_token && by_token && by_token(widest->dtype, tokens) ? SAF_ACTS_BY_TOKEN
                                                                         : SAF_ACTS_BY_GROUP;
}

/* As few tiles as can be, about as wide as each other. */
static int64_t tile_tokens(int64_t tokens, int64_t most) {
    int64_t tiles = saf_i64_max(1, saf_ceil_div(tokens, most));
    return saf_i64_max(1, saf_ceil_div(tokens, tiles));
}

/* Where everything of a batch lies, but for its values. */
static saf__acts_view view_of(const saf_acts *acts, int64_t tokens, int64_t cols,
                              saf_acts_form form) {
    const bool by_token = form == SAF_ACTS_BY_TOKEN;
    return (saf__acts_view){
        .tokens = tokens,
        .cols = cols,
        .blocks = saf_ceil_div(cols, SAF_QUANT_BLOCK),
        .by_token = by_token,
        .tile = tile_tokens(tokens, by_token ? SAF__ACT_TOKENS_BY_TOKEN : SAF__ACT_TOKENS),
        .q = acts->q,
        .dx = acts->dx,
        .sums = acts->sums,
        .u = acts->u};
}

/* Where the values of a batch come from: a step that goes column by column, done by the thread that
 * then quantises what comes out. Without a weight and a gate they are copied. */
typedef struct {
    const float *norm_weight; /* NULL: no norm */
    float eps;
    bool *finite;    /* of a norm; may be NULL */
    const float *up; /* NULL: no gate */
    const float *in; /* of a norm, the gate, or what is copied */
    int64_t ld;      /* of in and up */
    float *out;
    int64_t ldo;
    int64_t col; /* the batch's column that in, up and out begin with */
} source;

/* Columns [c0, c1) of row t. A norm's scale is worked out by each thread that has a part of a row.
 */
static void make_part(const source *s, int64_t cols, int64_t t, int64_t c0, int64_t c1) {
    const saf__kernels *kernels = saf__kernels_get();
    const float *row = s->in + t * s->ld, *in = row + (c0 - s->col);
    float *out = s->out + t * s->ldo + (c0 - s->col);
    if (s->up) {
        kernels->silu_mul(in, s->up + t * s->ld + (c0 - s->col), c1 - c0, out);
    } else if (s->norm_weight) {
        float scale = kernels->rms_scale(row, s->eps, cols);
        /* above zero, it comes from a finite sum of squares */
        if (s->finite && c0 == 0 && !(scale > 0) && !kernels->finite(row, cols))
            s->finite[t] = false;
        kernels->scale_mul(in, scale, s->norm_weight + c0, c1 - c0, out);
    } else {
        memcpy(out, in, (size_t)(c1 - c0) * sizeof *out);
    }
}

/* Columns [part) of a batch. The line of their blocks, tile by tile of tokens, is cut into equal
 * parts. */
static void set(saf_acts *acts, const saf__acts_view *a, saf_span part, saf_acts_form form,
                const source *s) {
    /* Blocks of a piece: few enough to share one row, more than one in a cache line of dx. */
    enum { PIECE = 8 };
    const saf__kernels *kernels = saf__kernels_get();
    int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
    int64_t first_block = part.begin / SAF_QUANT_BLOCK;
    int64_t end_block =
        part.begin < part.end ? saf_ceil_div(part.end, SAF_QUANT_BLOCK) : first_block;
    int64_t pieces = saf_ceil_div(end_block - first_block, PIECE);
    int64_t total = saf_ceil_div(a->tokens, a->tile) * pieces;
    int64_t at = saf__share(total, me, team), end = saf__share(total, me + 1, team);
    if (me == 0) acts->view = *a; /* read after the barrier */
    while (at < end) {
        int64_t t0 = at / pieces * a->tile, first = at % pieces;
        int64_t last = saf_i64_min(pieces, first + end - at);
        int64_t b0 = first_block + first * PIECE;
        int64_t b1 = saf_i64_min(first_block + last * PIECE, end_block);
        int64_t c1 = saf_i64_min(b1 * SAF_QUANT_BLOCK, a->cols);
        for (int64_t t = t0; s && t < t0 + saf__act_tile_tokens(a, t0); t++)
            make_part(s, a->cols, t, b0 * SAF_QUANT_BLOCK, c1);
        if (form != SAF_ACTS_FLOATS) kernels->quantise(a, t0, b0, b1);
        at += last - first;
    }
#pragma omp barrier
}

static void set_whole(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                      saf_acts_form form, const source *s) {
    saf__acts_view a = view_of(acts, tokens, cols, form);
    a.x = x;
    a.ldx = ldx;
    set(acts, &a, (saf_span){0, cols}, form, s);
}

void saf_acts_set(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                  saf_acts_form form) {
    set_whole(acts, x, ldx, tokens, cols, form, NULL);
}

void saf_acts_set_norm(saf_acts *acts, const float *x, int64_t ldx, const float *weight, float eps,
                       int64_t tokens, int64_t cols, saf_acts_form form, bool *finite, float *y,
                       int64_t ldy) {
    const source s = {.norm_weight = weight,
                      .eps = eps,
                      .finite = finite,
                      .in = x,
                      .ld = ldx,
                      .out = y,
                      .ldo = ldy};
    set_whole(acts, y, ldy, tokens, cols, form, &s);
}

void saf_acts_set_silu(saf_acts *acts, const float *gate, const float *up, int64_t ld,
                       int64_t tokens, int64_t cols, saf_acts_form form, float *y, int64_t ldy) {
    const source s = {.up = up, .in = gate, .ld = ld, .out = y, .ldo = ldy};
    set_whole(acts, y, ldy, tokens, cols, form, &s);
}

/* ---- parts: values that are not quantised go into the memory themselves ------------------------
 */

void saf_acts_set_part(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                       saf_span part, saf_acts_form form) {
    const source copy = {
        .in = x, .ld = ldx, .out = acts->rows + part.begin, .ldo = cols, .col = part.begin};
    const bool floats = form == SAF_ACTS_FLOATS;
    saf__acts_view a = view_of(acts, tokens, cols, form);
    a.x = floats ? acts->rows : x;
    a.ldx = floats ? cols : ldx;
    a.x_col = floats ? 0 : part.begin;
    set(acts, &a, part, form, floats ? &copy : NULL);
}

void saf_acts_set_silu_part(saf_acts *acts, float *gate, const float *up, int64_t ld,
                            int64_t tokens, int64_t cols, saf_span part, saf_acts_form form) {
    const bool floats = form == SAF_ACTS_FLOATS;
    const source s = {.up = up,
                      .in = gate,
                      .ld = ld,
                      .out = floats ? acts->rows + part.begin : gate,
                      .ldo = floats ? cols : ld,
                      .col = part.begin};
    saf__acts_view a = view_of(acts, tokens, cols, form);
    a.x = floats ? acts->rows : gate;
    a.ldx = floats ? cols : ld;
    a.x_col = floats ? 0 : part.begin;
    set(acts, &a, part, form, &s);
}

int saf_acts_parts(const saf_acts *acts, int32_t owner, int64_t tokens, int64_t cols, saf_span part,
                   saf_acts_form form, saf_part out[SAF_ACTS_PARTS]) {
    const saf__acts_view a = view_of(acts, tokens, cols, form);
    int64_t b0 = part.begin / SAF_QUANT_BLOCK, b1 = saf_ceil_div(part.end, SAF_QUANT_BLOCK);
    int n = 0;
    if (part.begin == part.end || tokens == 0) return 0;
    if (form == SAF_ACTS_FLOATS) {
        out[0] = (saf_part){owner, tokens, (size_t)part.begin * sizeof(float),
                            (size_t)(part.end - part.begin) * sizeof(float),
                            (size_t)cols * sizeof(float)};
        return 1;
    }
    /* Bytes of a block of one row in each array; the last tile of tokens may be a narrower one. */
    const struct {
        const void *data;
        int64_t size;
    } arrays[] = {
        {a.q, SAF_QUANT_BLOCK}, {a.dx, sizeof *a.dx}, {a.sums, sizeof *a.sums}, {a.u, sizeof *a.u}};
    int64_t tiles = tokens / a.tile, rest = tokens % a.tile;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        size_t base = (size_t)((const char *)arrays[i].data - (const char *)acts->rows);
        int64_t size = arrays[i].size, last = tiles * a.tile * a.blocks + b0 * rest;
        out[n++] =
            (saf_part){owner, tiles, base + (size_t)(b0 * a.tile * size),
                       (size_t)((b1 - b0) * a.tile * size), (size_t)(a.blocks * a.tile * size)};
        if (rest > 0)
            out[n++] =
                (saf_part){owner, 1, base + (size_t)(last * size),
                           (size_t)((b1 - b0) * rest * size), (size_t)((b1 - b0) * rest * size)};
    }
    return n;
}
