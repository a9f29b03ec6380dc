/* Replicas along a row of hosts, and their stages' cuts. */
#include <math.h>

#include "parallel/plan_search.h"

/* Steps of cutting stages on unlike hosts, after which only replicas of like hosts are tried. */
#define MIXED_STEPS 2e8

/* ---- cutting stages ---- */

static int64_t cost_of_run(const void *ctx, int32_t begin, int32_t end) {
    const int64_t *sum = ctx;
    return sum[end] - sum[begin];
}

/* What a stage must hold, layer by layer, with a cache for as many sequences as there may be. */
saf_status saf__plan_memory_sums(saf__plan_search *s) {
    const saf_plan_model *m = s->m;
    int64_t L = m->params->layers;
    saf_status st = saf_alloc((size_t)L + 1, sizeof *s->memory, &s->memory);
    if (st != SAF_OK) return st;
    double sequences = s->work->sequences > 0 ? s->work->sequences : 1;
    double cache = m->kv_position_bytes / (double)L * (double)s->work->longest * sequences;
    for (int64_t i = 0; i < L; i++) {
        double bytes = m->sums[i + 1].packed_bytes - m->sums[i].packed_bytes + cache;
        if (i == 0) bytes += m->embedding_packed;
        if (i == L - 1) bytes += m->head.packed_bytes;
        s->memory[i + 1] = s->memory[i] + (int64_t)bytes;
    }
    return SAF_OK;
}

static saf_status cut(saf__plan_search *s, const int64_t *sum, const double *share, int32_t stages,
                      int32_t **first) {
    saf__cut c = {.items = (int32_t)s->m->params->layers,
                  .parts = stages,
                  .least = 1,
                  .share = share,
                  .cost = cost_of_run,
                  .ctx = sum};
    saf_status st = saf_alloc((size_t)stages + 1, sizeof **first, first);
    return st == SAF_OK ? saf__cut_choose(&c, *first) : st;
}

/* How fast a host takes the job's average flight through the whole model. */
double saf__plan_speed_of(const saf__plan_search *s, const saf_plan_host *host,
                          int32_t ranks_per_host) {
    const saf_plan_model *m = s->m;
    const saf_plan_part *all = &m->sums[m->params->layers];
    saf_plan_rates rates = saf__plan_rates_of(m, s->work, host, ranks_per_host, s->hosts);
    double rows = s->mix.rows > 0 ? s->mix.rows : 1;
    saf_plan_flight f = {.weight_bytes = all->bytes,
                         .int8_ops = all->int8_ops * rows,
                         .float_ops = all->float_ops * rows,
                         .rows = rows};
    return 1 / saf_plan_flight_s(&rates, &f);
}

/* Shares as a cut wants them: the largest is 1. */
static void scale(double *share, int32_t n) {
    double most = 0;
    for (int32_t i = 0; i < n; i++) most = fmax(most, share[i]);
    for (int32_t i = 0; i < n; i++) share[i] = fmax(SAF_SHARE_MIN, most > 0 ? share[i] / most : 1);
}

saf_status saf__plan_copy_cut(const int32_t *from, int32_t stages, int32_t **out) {
    saf_status st = saf_alloc((size_t)stages + 1, sizeof **out, out);
    if (st == SAF_OK) memcpy(*out, from, ((size_t)stages + 1) * sizeof **out);
    return st;
}

static saf_status cut_alike(saf__plan_search *s, saf__plan_kind *k, int32_t stages) {
    saf_status st = SAF_OK;
    const int64_t *const sums[2] = {s->cost, s->memory};
    int32_t **to[2] = {&k->by_speed, &k->by_memory};
    double *share = NULL;
    SAF_TRY(saf_alloc((size_t)stages, sizeof *share, &share));
    for (int32_t i = 0; i < stages; i++) share[i] = 1;
    for (int i = 0; i < 2; i++) {
        int32_t **kept = &s->cuts[i][stages];
        if (!*kept) SAF_TRY(cut(s, sums[i], share, stages, kept));
        SAF_TRY(saf__plan_copy_cut(*kept, stages, to[i]));
    }
out:
    saf_free(&share);
    return st;
}

/* By hand. */
static saf_status cut_as_given(const saf__plan_search *s, saf__plan_kind *k, int32_t stages) {
    saf_status st = SAF_OK;
    int32_t **to[2] = {&k->by_speed, &k->by_memory};
    for (int i = 0; i < 2; i++) {
        SAF_TRY(saf_alloc((size_t)stages + 1, sizeof **to[i], to[i]));
        for (int32_t j = 0; j < stages; j++) (*to[i])[j + 1] = (*to[i])[j] + s->work->layers[j];
    }
out:
    return st;
}

static saf_status cut_kind(saf__plan_search *s, const saf__plan_grid *g, saf__plan_kind *k) {
    saf_status st = SAF_OK;
    double *share = NULL, L = (double)s->m->params->layers;
    if (s->work->layers) return cut_as_given(s, k, g->stages);
    if (k->alike) return cut_alike(s, k, g->stages);
    s->mixed_steps += 2 * g->stages * L * L;
    SAF_TRY(saf_alloc((size_t)g->stages, sizeof *share, &share));
    for (int32_t i = 0; i < g->stages; i++)
        share[i] = saf__plan_speed_of(s, &k->host[i], g->ranks_per_host);
    scale(share, g->stages);
    SAF_TRY(cut(s, s->cost, share, g->stages, &k->by_speed));
    for (int32_t i = 0; i < g->stages; i++)
        share[i] = fmax(0, k->host[i].memory_bytes - k->host[i].reserve_bytes);
    scale(share, g->stages);
    SAF_TRY(cut(s, s->memory, share, g->stages, &k->by_memory));
out:
    saf_free(&share);
    return st;
}

/* ---- the replicas of a grid ---- */

void saf__plan_kinds_free(saf__plan_grid *g) {
    for (int32_t i = 0; i < g->n_kinds; i++) {
        saf_free(&g->kinds[i].host);
        saf_free(&g->kinds[i].by_speed);
        saf_free(&g->kinds[i].by_memory);
    }
    g->n_kinds = 0;
}

static const saf_plan_host *class_at(const saf__plan_search *s, int32_t host, int32_t *left) {
    int32_t i = 0;
    while (host >= s->cluster->classes[s->row[i]].count)
        host -= s->cluster->classes[s->row[i++]].count;
    const saf_plan_host *c = &s->cluster->classes[s->row[i]];
    *left = c->count - host;
    return c;
}

/* A stage over unlike hosts has the least of each of them. */
static saf_plan_host least_of(saf_plan_host a, const saf_plan_host *b) {
    a.cores = a.cores < b->cores ? a.cores : b->cores;
    a.memory_bytes = fmin(a.memory_bytes, b->memory_bytes);
    a.reserve_bytes = fmax(a.reserve_bytes, b->reserve_bytes);
    a.read_bytes_s = fmin(a.read_bytes_s, b->read_bytes_s);
    a.int8_ops_s = fmin(a.int8_ops_s, b->int8_ops_s);
    a.f32_ops_s = fmin(a.f32_ops_s, b->f32_ops_s);
    a.core_read_bytes_s = fmin(a.core_read_bytes_s, b->core_read_bytes_s);
    if (a.machine_read_bytes_s <= 0 ||
        (b->machine_read_bytes_s > 0 &&
         b->machine_read_bytes_s / b->machine_hosts < a.machine_read_bytes_s / a.machine_hosts)) {
        a.machine_read_bytes_s = b->machine_read_bytes_s;
        a.machine_hosts = b->machine_hosts;
    }
    a.product_share =
        a.product_share > 0 && b->product_share > 0 ? fmin(a.product_share, b->product_share) : 0;
    a.hidden_share = fmin(a.hidden_share, b->hidden_share); /* of one unknown: unknown */
    a.tiles = a.tiles && b->tiles;
    a.link = saf_plan_slower_link(&a.link, &b->link);
    return a;
}

static saf_status add_kind(saf__plan_search *s, saf__plan_grid *g, int32_t host0, int32_t count,
                           bool alike) {
    saf_status st = SAF_OK;
    int32_t left;
    saf__plan_kind *k = &g->kinds[g->n_kinds++];
    *k = (saf__plan_kind){.count = count, .alike = alike};
    SAF_TRY(saf_alloc((size_t)g->stages, sizeof *k->host, &k->host));
    for (int32_t i = 0; i < g->stages; i++) {
        int32_t from = host0 + i * g->tensor / g->ranks_per_host;
        int32_t to = host0 + ((i + 1) * g->tensor - 1) / g->ranks_per_host;
        k->host[i] = *class_at(s, from, &left);
        for (int32_t h = from + 1; h <= to; h++)
            k->host[i] = least_of(k->host[i], class_at(s, h, &left));
    }
    SAF_TRY(cut_kind(s, g, k));
out:
    return st;
}

/* Replicas of whole hosts, or several on one. */
saf_status saf__plan_kinds_list(saf__plan_search *s, saf__plan_grid *g, bool mixed) {
    saf_status st = SAF_OK;
    int32_t ranks = g->stages * g->tensor;
    int32_t hosts = (int32_t)saf_ceil_div(ranks, g->ranks_per_host);
    int32_t on_one = ranks < g->ranks_per_host ? g->ranks_per_host / ranks : 1, left;
    for (int32_t at = 0; at + hosts <= s->row_hosts && g->n_kinds < SAF__PLAN_KINDS;) {
        (void)class_at(s, at, &left);
        int32_t count = left / hosts;
        if (count > 0) {
            SAF_TRY(add_kind(s, g, at, count * on_one, true));
            at += count * hosts;
        } else if (mixed && s->mixed_steps < MIXED_STEPS) {
            SAF_TRY(add_kind(s, g, at, 1, false));
            at += hosts;
        } else {
            at += left;
        }
    }
out:
    return st;
}
