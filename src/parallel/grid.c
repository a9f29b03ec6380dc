/* How many replicas, stages and parts of a stage the ranks make. */
#include "parallel/layout.h"

typedef struct {
    const saf_layout_wish *wish;
    saf__grid_limits limits;
    int32_t replicas, stages, tensor; /* 0: open */
} grid;

/* Whether the ranks of every group of t neighbours are on one host. */
static bool on_one_host(const saf_layout_wish *w, int32_t t) {
    for (int32_t i = 0; w->host && i < w->ranks; i++)
        if (w->host[i] != w->host[i - i % t]) return false;
    return true;
}

/* Replicas of n groups in a row, as few as the layers allow; 0: the groups do not come out even. */
static int32_t fewest_replicas(const grid *g, int64_t n) {
    int64_t r = saf_ceil_div(n, g->limits.layers);
    return n % r == 0 ? (int32_t)r : 0;
}

/* With groups of t ranks; false where that cannot be. */
static bool fill(const grid *g, int64_t ranks, int32_t t, saf_layout *out) {
    if (ranks % t != 0) return false;
    int64_t n = ranks / t;
    int32_t r = g->replicas;
    if (r == 0) r = g->stages > 0 ? (int32_t)(n / g->stages) : fewest_replicas(g, n);
    if (r == 0 || n % r != 0) return false;
    int64_t s = n / r;
    if (s > g->limits.layers || (g->stages > 0 && s != g->stages)) return false;
    *out = (saf_layout){.replicas = r, .stages = (int32_t)s, .tensor = t};
    return true;
}

static bool choose(const grid *g, int64_t ranks, saf_layout *out) {
    int32_t rest = g->replicas * g->stages;
    if (g->tensor > 0) return fill(g, ranks, g->tensor, out);
    if (rest > 0) return ranks % rest == 0 && fill(g, ranks, (int32_t)(ranks / rest), out);
    int32_t most = (int32_t)saf_i64_min(ranks, g->limits.parts);
    for (int32_t t = most; t > 1; t--)
        if (fill(g, ranks, t, out) && on_one_host(g->wish, t)) return true;
    return fill(g, ranks, 1, out);
}

/* ---- errors ---- */

/* "layout.replicas 2 x layout.pipeline 3" */
static saf_status name_given(const grid *g, saf_buf *out) {
    saf_status st = saf_buf_append(out, "", 0);
    const saf_layout_wish *w = g->wish;
    const struct {
        const char *key;
        int32_t n;
    } given[] = {{"layout.replicas", w->replicas},
                 {w->layers ? "layout.stages" : "layout.pipeline", g->stages},
                 {"layout.tensor", w->tensor}};
    for (int i = 0; st == SAF_OK && i < 3; i++)
        if (given[i].n > 0)
            SAF_TRY(
                saf_buf_printf(out, "%s%s %d", out->len ? " x " : "", given[i].key, given[i].n));
out:
    return st;
}

/* The numbers of ranks nearest to those there are that would do: "; start 6 or 12 ranks". Not
 * `exactly`: so do all below. */
static saf_status name_ranks(const grid *g, bool exactly, saf_buf *out) {
    enum { FAR = 1 << 16 };
    saf_status st = SAF_OK;
    saf_layout layout;
    int64_t below = g->wish->ranks - 1, above = g->wish->ranks + 1;
    while (below > 0 && !choose(g, below, &layout)) below--;
    while (above < FAR && !choose(g, above, &layout)) above++;
    SAF_TRY(saf_buf_append(out, "", 0));
    if (below > 0 && above < FAR)
        SAF_TRY(
            saf_buf_printf(out, "; start %lld or %lld ranks", (long long)below, (long long)above));
    else if (below > 0)
        SAF_TRY(saf_buf_printf(out, "; start %s%lld ranks", exactly ? "" : "at most ",
                               (long long)below));
    else if (above < FAR)
        SAF_TRY(saf_buf_printf(out, "; start %lld ranks", (long long)above));
out:
    return st;
}

static saf_status refuse(const grid *g) {
    saf_status st = SAF_OK;
    saf_buf given = {0}, ranks = {0};
    long long layers = (long long)g->limits.layers;
    SAF_TRY(name_given(g, &given));
    SAF_TRY(name_ranks(g, given.len > 0, &ranks));
    if (g->stages > layers)
        st = saf_fail(SAF_USAGE,
                      "%s, but the model has %lld layers: each stage of the pipeline needs at "
                      "least one",
                      given.data, layers);
    else if (given.len > 0)
        st = saf_fail(SAF_USAGE, "%s, but there %s %d rank%s%s", given.data,
                      g->wish->ranks == 1 ? "is" : "are", g->wish->ranks,
                      g->wish->ranks == 1 ? "" : "s", ranks.data);
    else
        st = saf_fail(SAF_USAGE,
                      "%d ranks, but the model has %lld layers: each stage of the pipeline needs "
                      "at least one%s",
                      g->wish->ranks, layers, ranks.data);
out:
    saf_buf_free(&given);
    saf_buf_free(&ranks);
    return st;
}

saf_status saf__grid_choose(const saf_layout_wish *wish, saf__grid_limits limits, saf_layout *out) {
    grid g = {wish, limits, wish->replicas, wish->stages, wish->tensor};
    if (wish->layers && g.stages == 0) g.stages = wish->n_layers;
    if (g.stages != wish->n_layers && wish->layers)
        return saf_fail(SAF_USAGE, "layout.stages names %d stages, but layout.pipeline is %d",
                        wish->n_layers, wish->stages);
    return choose(&g, wish->ranks, out) ? SAF_OK : refuse(&g);
}
