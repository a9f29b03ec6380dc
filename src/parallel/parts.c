/* The rows and heads that each part of a stage holds. */
#include <stdio.h>

#include "parallel/layout.h"

/* Attention's work beside the rows of q, k and v: of every key head and every query head of a part
 * as much as reading so many positions of a cache of 16-bit numbers. While tokens are decoded, time
 * goes with the key heads, whose cache is read; while prompts go through, with the query heads. */
enum { ATTENTION_POSITIONS = 256 };

/* ---- heads ---- */

typedef struct {
    const saf_model_params *p;
    int64_t step;  /* heads between two places where a cut can be */
    int64_t q, kv; /* cost of a query head, and of a key head with its value head */
} heads;

static const saf_gguf_tensor *tensor_of(const saf_gguf *g, int64_t layer, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "blk.%lld.%s.weight", (long long)layer, name);
    return saf_gguf_tensor_find(g, full);
}

static int64_t bytes_of(const saf_gguf *g, int64_t layer, const char *name) {
    const saf_gguf_tensor *t = tensor_of(g, layer, name);
    return t ? (int64_t)t->bytes : 0;
}

/* Columns of attention's output are cut where its blocks may begin. */
static int64_t head_step(const saf_model_params *p) {
    int64_t step = 1;
    while (step * p->head_width % SAF_QUANT_BLOCK != 0) step++;
    return step;
}

/* The last one takes the heads that are left. */
static int64_t steps_of(const saf_model_params *p, int64_t step) {
    return saf_i64_max(1, p->heads / step);
}

static saf_span heads_between(const heads *h, int64_t begin, int64_t end) {
    int64_t last = steps_of(h->p, h->step);
    return (saf_span){begin == last ? h->p->heads : begin * h->step,
                      end == last ? h->p->heads : end * h->step};
}

static int64_t heads_cost(const void *ctx, int32_t begin, int32_t end) {
    const heads *h = ctx;
    saf_slice_range range = {.heads = heads_between(h, begin, end)};
    if (begin == end) return 0;
    saf_span kv = saf_slice_kv_heads(h->p, range);
    return (range.heads.end - range.heads.begin) * h->q + (kv.end - kv.begin) * h->kv;
}

static saf_status cut_heads(const saf_gguf *g, const saf_model_params *p, const double *share,
                            int32_t n, saf_slice_range *ranges) {
    saf_status st = SAF_OK;
    int32_t *at = NULL;
    int64_t attention = (int64_t)ATTENTION_POSITIONS * 2 * p->head_width * 2;
    heads h = {.p = p, .step = head_step(p)};
    SAF_TRY(saf_alloc((size_t)n + 1, sizeof *at, &at));
    for (int64_t i = ranges[0].layer0; i < ranges[0].layer1; i++) {
        h.q += bytes_of(g, i, "attn_q") / p->heads + attention;
        h.kv += (bytes_of(g, i, "attn_k") + bytes_of(g, i, "attn_v")) / p->kv_heads + attention;
    }
    saf__cut c = {.items = (int32_t)steps_of(p, h.step),
                  .parts = n,
                  .share = share,
                  .cost = heads_cost,
                  .ctx = &h};
    SAF_TRY(saf__cut_choose(&c, at));
    for (int32_t i = 0; i < n; i++) ranges[i].heads = heads_between(&h, at[i], at[i + 1]);
out:
    saf_free(&at);
    return st;
}

int64_t saf__parts_with_heads(const saf_model_params *p) {
    return steps_of(p, head_step(p));
}

/* ---- rows ---- */

/* Whole units; the last one ends with the rows. */
static saf_status cut_rows(int64_t rows, int64_t unit, const double *share, int32_t n,
                           saf_slice_range *ranges, size_t member) {
    saf_status st = SAF_OK;
    int64_t *at = NULL;
    SAF_TRY(saf_alloc((size_t)n + 1, sizeof *at, &at));
    saf__cut_alike(saf_ceil_div(rows, unit), share, n, at);
    for (int32_t i = 0; i < n; i++) {
        saf_span span = {saf_i64_min(at[i] * unit, rows), saf_i64_min(at[i + 1] * unit, rows)};
        memcpy((char *)&ranges[i] + member, &span, sizeof span);
    }
out:
    saf_free(&at);
    return st;
}

saf_status saf__parts_cut(const saf_gguf *g, const saf_model_params *p, const double *share,
                          int32_t n, saf_slice_range *ranges) {
    saf_status st = SAF_OK;
    if (n == 1) return SAF_OK;
    SAF_TRY(cut_heads(g, p, share, n, ranges));
    /* A tile that is only begun takes as long as a whole one. */
    SAF_TRY(cut_rows(p->width, SAF_TILE_ROWS, share, n, ranges, offsetof(saf_slice_range, width)));
    SAF_TRY(cut_rows(p->ff_width, SAF_TILE_ROWS, share, n, ranges, offsetof(saf_slice_range, ff)));
    SAF_TRY(
        cut_rows(p->vocab, SAF_LOGIT_SEGMENT, share, n, ranges, offsetof(saf_slice_range, vocab)));
out:
    return st;
}
