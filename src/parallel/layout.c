/* Cuts the layers of a model into pipeline stages. */
#include "saf/parallel.h"

/* What a layer's share of a decode step costs, in quarters of a byte read: its own bytes in full,
 * the output head's at three quarters. The head is one large product; a layer has seven smaller
 * ones with attention and norms between them, and takes that much longer for its bytes (measured:
 * the head of qwen3 0.6B, as large as 9.9 layers, takes as long as 7.3; doc/performance.md). */
static void layer_costs(const saf_gguf *g, const saf_model_params *p, int64_t *cost) {
    size_t replicated;
    for (int64_t i = 0; i < p->layers; i++) {
        saf_slice_range layer = saf_slice_range_whole(p, i, i + 1, false, false);
        cost[i] = 4 * (int64_t)saf_slice_file_bytes(g, p, layer, &replicated);
    }
    saf_slice_range none = saf_slice_range_whole(p, 0, 0, false, false);
    saf_slice_range head = saf_slice_range_whole(p, 0, 0, false, true);
    int64_t head_bytes = (int64_t)(saf_slice_file_bytes(g, p, head, &replicated) -
                                   saf_slice_file_bytes(g, p, none, &replicated));
    cost[p->layers - 1] += 3 * head_bytes;
}

/* Largest stage cost of the best cut of the first n layers into s stages:
 *   best[s][n] = min over m of max(best[s-1][m], cost of layers [m, n)) */
static saf_status cut_evenly(const int64_t *cost, int32_t layers, int32_t stages, int32_t *first) {
    saf_status st = SAF_OK;
    int64_t *prefix = NULL, *best = NULL;
    int32_t *from = NULL;
    size_t row = (size_t)layers + 1;
    SAF_TRY(saf_alloc(row, sizeof *prefix, &prefix));
    SAF_TRY(saf_alloc(row * ((size_t)stages + 1), sizeof *best, &best));
    SAF_TRY(saf_alloc(row * ((size_t)stages + 1), sizeof *from, &from));
    for (int32_t i = 0; i < layers; i++) prefix[i + 1] = prefix[i] + cost[i];
    for (size_t i = 0; i < row * ((size_t)stages + 1); i++) best[i] = INT64_MAX;
    best[0] = 0;
    for (int32_t s = 1; s <= stages; s++) {
        for (int32_t n = s; n <= layers; n++) {
            for (int32_t m = s - 1; m < n; m++) {
                int64_t before = best[(size_t)(s - 1) * row + (size_t)m];
                int64_t worst = saf_i64_max(before, prefix[n] - prefix[m]);
                if (before == INT64_MAX || worst >= best[(size_t)s * row + (size_t)n]) continue;
                best[(size_t)s * row + (size_t)n] = worst;
                from[(size_t)s * row + (size_t)n] = m;
            }
        }
    }
    first[stages] = layers;
    for (int32_t s = stages; s > 0; s--) first[s - 1] = from[(size_t)s * row + (size_t)first[s]];
out:
    saf_free(&prefix);
    saf_free(&best);
    saf_free(&from);
    return st;
}

static saf_status cut_as_given(const int32_t *given, int32_t stages, int64_t layers,
                               int32_t *first) {
    int64_t sum = 0;
    for (int32_t s = 0; s < stages; s++) {
        if (given[s] < 1)
            return saf_fail(SAF_USAGE, "layout.stages: stage %d has %d layers, expected at least 1",
                            s, given[s]);
        sum += given[s];
        if (sum > layers) break;
        first[s + 1] = (int32_t)sum;
    }
    if (sum != layers)
        return saf_fail(SAF_USAGE,
                        "layout.stages: the stages add up to %lld layers%s, the model has %lld",
                        (long long)sum, sum > layers ? " or more" : "", (long long)layers);
    return SAF_OK;
}

static saf_status cut_stages(const saf_gguf *g, const saf_model_params *p,
                             const saf_layout_wish *wish, int32_t stages, int32_t *first) {
    saf_status st = SAF_OK;
    int64_t *cost = NULL;
    if (stages > p->layers)
        return saf_fail(SAF_USAGE,
                        "%d ranks, but the model has %lld layers: each stage of the pipeline needs "
                        "at least one; start at most %lld ranks",
                        stages, (long long)p->layers, (long long)p->layers);
    if (wish->layers && wish->n_layers != stages)
        return saf_fail(SAF_USAGE, "layout.stages names %d stages, but there are %d ranks",
                        wish->n_layers, stages);
    if (wish->layers) return cut_as_given(wish->layers, stages, p->layers, first);
    SAF_TRY(saf_alloc((size_t)p->layers, sizeof *cost, &cost));
    layer_costs(g, p, cost);
    SAF_TRY(cut_evenly(cost, (int32_t)p->layers, stages, first));
out:
    saf_free(&cost);
    return st;
}

saf_status saf_layout_choose(const saf_gguf *g, const saf_model_params *p,
                             const saf_layout_wish *wish, saf_layout *out) {
    saf_status st = SAF_OK;
    int32_t stages = wish->ranks;
    int32_t *first = NULL;
    saf_slice_range *ranges = NULL;
    SAF_TRY(saf_alloc((size_t)stages + 1, sizeof *first, &first));
    SAF_TRY(saf_alloc((size_t)stages, sizeof *ranges, &ranges));
    SAF_TRY(cut_stages(g, p, wish, stages, first));
    for (int32_t s = 0; s < stages; s++)
        ranges[s] = saf_slice_range_whole(p, first[s], first[s + 1], s == 0, s == stages - 1);
    *out = (saf_layout){1, stages, 1, ranges};
    ranges = NULL;
out:
    saf_free(&first);
    saf_free(&ranges);
    return st;
}

void saf_layout_free(saf_layout *layout) {
    saf_free(&layout->ranges);
    *layout = (saf_layout){0};
}

int32_t saf_layout_ranks(const saf_layout *layout) {
    return layout->replicas * layout->stages * layout->tensor;
}

saf_place saf_layout_place(const saf_layout *layout, int32_t rank) {
    int32_t stage = rank / layout->tensor;
    return (saf_place){stage / layout->stages, stage % layout->stages, rank % layout->tensor};
}

int32_t saf_layout_rank(const saf_layout *layout, saf_place place) {
    return (place.replica * layout->stages + place.stage) * layout->tensor + place.part;
}

saf_slice_range saf_layout_range(const saf_layout *layout, int32_t rank) {
    return layout->ranges[rank];
}

saf_status saf_layout_text(const saf_layout *layout, saf_buf *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_buf_printf(out, "pipeline %d: layers ", layout->stages));
    for (int32_t s = 0; s < layout->stages; s++) {
        saf_slice_range range = layout->ranges[saf_layout_rank(layout, (saf_place){0, s, 0})];
        long long a = range.layer0, b = range.layer1 - 1;
        if (s > 0) SAF_TRY(saf_buf_append(out, " | ", 3));
        SAF_TRY(a == b ? saf_buf_printf(out, "%lld", a) : saf_buf_printf(out, "%lld-%lld", a, b));
    }
    SAF_TRY(saf_buf_printf(out, " + head"));
out:
    return st;
}
