#include "kernel/acts.h"

struct saf_acts {
    saf__acts_view view;
    int64_t max_tokens, max_cols;
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
    acts->max_tokens = max_tokens;
    acts->max_cols = max_cols;
    SAF_TRY(saf_alloc(values, sizeof *acts->view.q, &acts->view.q));
    SAF_TRY(saf_alloc(blocks, sizeof *acts->view.dx, &acts->view.dx));
    SAF_TRY(saf_alloc(blocks, sizeof *acts->view.sums, &acts->view.sums));
    *out = acts;
    acts = NULL;
out:
    saf_acts_free(&acts);
    return st;
}

void saf_acts_free(saf_acts **acts) {
    if (!*acts) return;
    saf_free(&(*acts)->view.q);
    saf_free(&(*acts)->view.dx);
    saf_free(&(*acts)->view.sums);
    saf_free(acts);
}

size_t saf_acts_bytes(int64_t max_tokens, int64_t max_cols) {
    size_t blocks = 0, values = 0;
    if (!acts_sizes(max_tokens, max_cols, &blocks, &values)) return SIZE_MAX;
    return sizeof(struct saf_acts) + values + blocks * (sizeof(float) + sizeof(int32_t));
}

/* As few tiles as can be, about as wide as each other. */
static int64_t tile_tokens(int64_t tokens, int64_t most) {
    int64_t tiles = saf_i64_max(1, saf_ceil_div(tokens, most));
    return saf_i64_max(1, saf_ceil_div(tokens, tiles));
}

void saf_acts_set(saf_acts *acts, const float *x, int64_t ldx, int64_t tokens, int64_t cols,
                  bool quantise) {
    /* Blocks of one item: enough work to be worth handing out, few enough to share one row. */
    enum { CHUNK = 16 };
    saf__acts_view *a = &acts->view;
    const saf__kernels *kernels = saf__kernels_get();
#pragma omp single
    {
        a->x = x;
        a->ldx = ldx;
        a->tokens = tokens;
        a->cols = cols;
        a->blocks = saf_ceil_div(cols, SAF_QUANT_BLOCK);
        a->by_token = kernels->by_token_from > 0 && tokens >= kernels->by_token_from;
        a->tile = tile_tokens(tokens, a->by_token ? SAF__ACT_TOKENS_BY_TOKEN : SAF__ACT_TOKENS);
    }
    if (!quantise) return;
    int64_t chunks = saf_ceil_div(a->blocks, CHUNK);
    int64_t items = saf_ceil_div(tokens, a->tile) * chunks;
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; item++) {
        int64_t b0 = item % chunks * CHUNK;
        kernels->quantise(a, item / chunks * a->tile, b0, saf_i64_min(b0 + CHUNK, a->blocks));
    }
}
