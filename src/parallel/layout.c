/* Who holds what: the stages of every replica, and the parts of every stage. */
#include <math.h>

#include "parallel/layout.h"

/* To read a byte takes as long as about so many operations, with quantised weights and with
 * floats (doc/performance.md has the peaks). */
enum { INT8_OPS_PER_BYTE = 64, FLOAT_OPS_PER_BYTE = 12 };

/* The products of so many tokens, in bytes. */
static double ops_cost(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                       double tokens) {
    int64_t int8_ops, float_ops;
    saf_slice_ops(g, p, range, &int8_ops, &float_ops);
    return tokens * ((double)int8_ops / INT8_OPS_PER_BYTE + (double)float_ops / FLOAT_OPS_PER_BYTE);
}

/* What a layer's share of a flight costs, in quarters of a byte read: its own bytes in full, the
 * output head's at three quarters. The head is one large product; a layer has seven smaller ones
 * with attention and norms between them, and takes that much longer for its bytes (measured: the
 * head of qwen3 0.6B, as large as 9.9 layers, takes as long as 7.3; doc/performance.md). */
static void layer_costs(const saf_gguf *g, const saf_model_params *p, const saf_flight_mix *mix,
                        int64_t *cost) {
    size_t replicated;
    double sampled = mix->rows > 0 ? mix->sampled : 1;
    for (int64_t i = 0; i < p->layers; i++) {
        saf_slice_range layer = saf_slice_range_whole(p, i, i + 1, false, false);
        size_t bytes = saf_slice_file_bytes(g, p, layer, &replicated);
        cost[i] = (int64_t)(4 * ((double)bytes + ops_cost(g, p, layer, mix->rows)));
    }
    saf_slice_range none = saf_slice_range_whole(p, 0, 0, false, false);
    saf_slice_range head = saf_slice_range_whole(p, 0, 0, false, true);
    size_t bytes = saf_slice_file_bytes(g, p, head, &replicated) -
                   saf_slice_file_bytes(g, p, none, &replicated);
    cost[p->layers - 1] +=
        (int64_t)(3 * sampled * (double)bytes + 4 * ops_cost(g, p, head, mix->logits));
}

/* ---- stages ---- */

saf_status saf__layout_costs(const saf_gguf *g, const saf_model_params *p,
                             const saf_flight_mix *mix, int64_t **sum) {
    saf_status st = SAF_OK;
    int64_t *cost = NULL;
    SAF_TRY(saf_alloc((size_t)p->layers, sizeof *cost, &cost));
    SAF_TRY(saf_alloc((size_t)p->layers + 1, sizeof **sum, sum));
    layer_costs(g, p, mix, cost);
    for (int64_t i = 0; i < p->layers; i++) (*sum)[i + 1] = (*sum)[i] + cost[i];
out:
    saf_free(&cost);
    return st;
}

static int64_t cost_of_run(const void *ctx, int32_t begin, int32_t end) {
    const int64_t *sum = ctx;
    return sum[end] - sum[begin];
}

/* What the ranks of each stage of a replica can do together, 1 on average. */
static void stage_shares(const saf_layout *layout, const double *share, int32_t replica,
                         double *out) {
    double sum = 0;
    for (int32_t s = 0; s < layout->stages; s++) {
        int32_t first = saf_layout_rank(layout, (saf_place){replica, s, 0});
        out[s] = 0;
        for (int32_t i = 0; i < layout->tensor; i++) out[s] += share ? share[first + i] : 1;
        sum += out[s];
    }
    for (int32_t s = 0; s < layout->stages; s++) out[s] *= layout->stages / sum;
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

static saf_status cut_stages(const saf_model_params *p, const saf_layout_wish *wish,
                             const int64_t *sum, const double *share, int32_t stages,
                             int32_t *first) {
    if (wish->layers) return cut_as_given(wish->layers, stages, p->layers, first);
    saf__cut c = {.items = (int32_t)p->layers,
                  .parts = stages,
                  .least = 1,
                  .share = share,
                  .cost = cost_of_run,
                  .ctx = sum};
    return saf__cut_choose(&c, first);
}

/* ---- the whole grid ---- */

/* Shares that a cut can be reckoned with. */
static saf_status check_shares(const saf_layout_wish *wish) {
    for (int32_t i = 0; wish->share && i < wish->ranks; i++)
        if (!(wish->share[i] >= SAF_SHARE_MIN && wish->share[i] <= SAF_SHARE_MAX))
            return saf_fail(SAF_USAGE, "layout.share: rank %d has %g, expected %g to %g", i,
                            wish->share[i], SAF_SHARE_MIN, SAF_SHARE_MAX);
    return SAF_OK;
}

static saf_status cut_replica(const saf_gguf *g, const saf_model_params *p,
                              const saf_layout_wish *wish, const int64_t *sum, int32_t replica,
                              saf_layout *layout) {
    saf_status st = SAF_OK;
    int32_t *first = NULL, stages = layout->stages;
    double *share = NULL, *parts = NULL;
    SAF_TRY(saf_alloc((size_t)stages + 1, sizeof *first, &first));
    SAF_TRY(saf_alloc((size_t)stages, sizeof *share, &share));
    SAF_TRY(saf_alloc((size_t)layout->tensor, sizeof *parts, &parts));
    stage_shares(layout, wish->share, replica, share);
    SAF_TRY(cut_stages(p, wish, sum, share, stages, first));
    for (int32_t s = 0; s < stages; s++) {
        int32_t rank = saf_layout_rank(layout, (saf_place){replica, s, 0});
        for (int32_t i = 0; i < layout->tensor; i++) {
            layout->ranges[rank + i] =
                saf_slice_range_whole(p, first[s], first[s + 1], s == 0, s == stages - 1);
            parts[i] = wish->share ? wish->share[rank + i] : 1;
        }
        SAF_TRY(saf__parts_cut(g, p, parts, layout->tensor, layout->ranges + rank));
    }
out:
    saf_free(&first);
    saf_free(&share);
    saf_free(&parts);
    return st;
}

static bool holds_nothing(saf_slice_range r) {
    return r.heads.begin == r.heads.end && r.width.begin == r.width.end && r.ff.begin == r.ff.end &&
           !((r.embedding || r.head) && r.vocab.begin < r.vocab.end);
}

/* So many parts of a stage have rows of layers. */
static int64_t parts_with_rows(const saf_model_params *p) {
    return saf_ceil_div(saf_i64_max(p->width, p->ff_width), SAF_TILE_ROWS);
}

static saf_status check_useful(const saf_model_params *p, const saf_layout_wish *wish,
                               const saf_layout *layout) {
    int64_t most = parts_with_rows(p);
    if (layout->stages <= 2) most = saf_i64_max(most, saf_ceil_div(p->vocab, SAF_LOGIT_SEGMENT));
    for (int32_t r = 0; r < saf_layout_ranks(layout); r++) {
        if (!holds_nothing(layout->ranges[r])) continue;
        if (wish->share && layout->tensor <= most)
            return saf_fail(SAF_USAGE,
                            "layout.share: rank %d would hold nothing with %g beside the others of "
                            "its stage",
                            r, wish->share[r]);
        return saf_fail(SAF_USAGE,
                        "%d ranks for each stage, but rank %d would hold nothing: start fewer, "
                        "layout.tensor can be %lld",
                        layout->tensor, r, (long long)most);
    }
    return SAF_OK;
}

saf_status saf_layout_choose(const saf_gguf *g, const saf_model_params *p,
                             const saf_layout_wish *wish, saf_layout *out) {
    saf_status st = SAF_OK;
    saf_layout layout = {0};
    int64_t *sum = NULL;
    saf__grid_limits limits = {p->layers,
                               saf_i64_min(saf__parts_with_heads(p), parts_with_rows(p))};
    SAF_TRY(check_shares(wish));
    SAF_TRY(saf__grid_choose(wish, limits, &layout));
    SAF_TRY(saf_alloc((size_t)wish->ranks, sizeof *layout.ranges, &layout.ranges));
    SAF_TRY(saf__layout_costs(g, p, &wish->mix, &sum));
    for (int32_t i = 0; i < layout.replicas; i++) SAF_TRY(cut_replica(g, p, wish, sum, i, &layout));
    SAF_TRY(check_useful(p, wish, &layout));
    *out = layout;
    layout.ranges = NULL;
out:
    saf_free(&sum);
    saf_layout_free(&layout);
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

/* ---- what a cut gains ---- */

/* The largest cost of a stage for what it can do, in bytes. */
static double largest(const int64_t *sum, const int32_t *first, const double *share,
                      int32_t stages) {
    double worst = 0;
    for (int32_t s = 0; s < stages; s++) {
        double cost = (double)cost_of_run(sum, first[s], first[s + 1]) / 4 / share[s];
        if (cost > worst) worst = cost;
    }
    return worst;
}

/* first[stages + 1]: numbers of layers that differ by one at most, the larger ones first. */
static void equal_numbers(int64_t layers, int32_t stages, int32_t *first) {
    int32_t each = (int32_t)(layers / stages), more = (int32_t)(layers % stages);
    for (int32_t s = 0; s < stages; s++) first[s + 1] = first[s] + each + (s < more);
}

saf_status saf_layout_gain(const saf_gguf *g, const saf_model_params *p,
                           const saf_layout_wish *wish, const saf_layout *layout,
                           saf_layout_gains *out) {
    saf_status st = SAF_OK;
    saf_layout_wish free_cut = *wish;
    int32_t *first = NULL, stages = layout->stages;
    double *share = NULL;
    int64_t *sum = NULL;
    free_cut.layers = NULL;
    *out = (saf_layout_gains){0};
    SAF_TRY(saf_alloc((size_t)stages + 1, sizeof *first, &first));
    SAF_TRY(saf_alloc((size_t)stages, sizeof *share, &share));
    SAF_TRY(saf__layout_costs(g, p, &wish->mix, &sum));
    for (int32_t i = 0; i < layout->replicas; i++) {
        stage_shares(layout, wish->share, i, share);
        for (int32_t s = 0; s < stages; s++)
            first[s + 1] =
                (int32_t)layout->ranges[saf_layout_rank(layout, (saf_place){i, s, 0})].layer1;
        out->chosen = fmax(out->chosen, largest(sum, first, share, stages));
        equal_numbers(p->layers, stages, first);
        out->equal = fmax(out->equal, largest(sum, first, share, stages));
        SAF_TRY(cut_stages(p, &free_cut, sum, share, stages, first));
        out->best = fmax(out->best, largest(sum, first, share, stages));
    }
out:
    saf_free(&first);
    saf_free(&share);
    saf_free(&sum);
    return st;
}
