/* Which layouts are looked at. Hosts stand in a row, equal ones side by side; replicas take their
 * hosts from it one after the other, so that only as many different replicas are reckoned with as
 * there are kinds of hosts. Of the numbers of stages, parts and replicas not all are tried: all
 * small ones, then those that cut the layers in another way, and ever larger steps. */
#include <math.h>

#include "parallel/plan_search.h"

enum { ALL_STAGES = 32 /* up to here every number of stages is tried */ };

/* ---- which numbers are tried ---- */

static bool wanted(int32_t asked, int32_t n) {
    return asked == 0 || asked == n;
}

/* Beyond the small ones only those that give a stage fewer layers than the one before. */
static bool try_stages(const saf__plan_search *s, int32_t stages) {
    int64_t L = s->m->params->layers;
    if (s->work->stages > 0) return stages == s->work->stages;
    return stages <= ALL_STAGES || saf_ceil_div(L, stages) < saf_ceil_div(L, stages - 1);
}

/* 1, 2, 3, 4, 6, 8, 12, 16, ... */
static bool is_step(int32_t n) {
    while (n > 3 && n % 2 == 0) n /= 2;
    return n <= 3;
}

static saf_status look_at_replicas(saf__plan_search *s, saf__plan_grid *g) {
    saf_status st = SAF_OK;
    int64_t most = 0;
    for (int32_t i = 0; i < g->n_kinds; i++) most += g->kinds[i].count;
    most = saf_i64_min(most, s->work->requests);
    if (s->cluster->max_ranks > 0)
        most = saf_i64_min(most, s->cluster->max_ranks / (g->stages * g->tensor));
    for (int32_t r = 1; r <= most; r++)
        if (s->work->replicas > 0 ? r == s->work->replicas : is_step(r) || r == most)
            SAF_TRY(saf__plan_look(s, g, r));
out:
    return st;
}

static saf_status look_at_stages(saf__plan_search *s, saf__plan_grid *g) {
    saf_status st = SAF_OK;
    int64_t ranks = (int64_t)s->row_hosts * g->ranks_per_host;
    if (s->cluster->max_ranks > 0) ranks = saf_i64_min(ranks, s->cluster->max_ranks);
    int64_t most = saf_i64_min(s->m->params->layers, ranks / g->tensor);
    for (int32_t stages = 1; stages <= most; stages++) {
        int32_t n = stages * g->tensor;
        bool whole = n % g->ranks_per_host == 0 || g->ranks_per_host % n == 0;
        if (!whole || !try_stages(s, stages)) continue;
        g->stages = stages;
        for (int mixed = 0; mixed <= (s->n_row > 1); mixed++) {
            st = saf__plan_kinds_list(s, g, mixed);
            if (st == SAF_OK) st = look_at_replicas(s, g);
            saf__plan_kinds_free(g);
            if (st != SAF_OK) return st;
        }
    }
    return st;
}

static saf_status find_split(saf__plan_search *s, int32_t parts, saf__plan_split *out) {
    saf_status st = SAF_OK;
    for (int32_t i = 0; i < s->n_splits; i++)
        if (s->splits[i].parts == parts) {
            *out = s->splits[i];
            return SAF_OK;
        }
    SAF_TRY(saf__plan_split_make(s->m, parts, out));
    if (s->n_splits < SAF_PLAN_CLASSES_MAX) s->splits[s->n_splits++] = *out;
out:
    return st;
}

/* With so many ranks on each host: parts that divide them, or whole hosts. */
static saf_status look_at_parts(saf__plan_search *s, int32_t ranks_per_host) {
    saf_status st = SAF_OK;
    int64_t limit = saf_i64_min(
        saf__parts_with_heads(s->m->params),
        saf_ceil_div(saf_i64_min(s->m->params->width, s->m->params->ff_width), SAF_TILE_ROWS));
    int64_t most = saf_i64_min(limit, (int64_t)s->row_hosts * ranks_per_host);
    saf__plan_grid *g = NULL;
    SAF_TRY(saf_alloc(1, sizeof *g, &g));
    g->ranks_per_host = ranks_per_host;
    for (int32_t t = 1; t <= most; t++) {
        bool within = t < ranks_per_host && ranks_per_host % t == 0;
        bool over =
            t % ranks_per_host == 0 && (is_step(t / ranks_per_host) || t == s->work->tensor);
        if (!wanted(s->work->tensor, t) || (!within && !over)) continue;
        g->tensor = t;
        SAF_TRY(find_split(s, t, &g->split));
        SAF_TRY(look_at_stages(s, g));
    }
out:
    saf_free(&g);
    return st;
}

static saf_status look_at_row(saf__plan_search *s) {
    saf_status st = SAF_OK;
    int32_t ranks = SAF_PLAN_RANKS_MAX;
    s->row_hosts = 0;
    for (int32_t i = 0; i < s->n_row; i++) {
        const saf_plan_host *c = &s->cluster->classes[s->row[i]];
        s->row_hosts += c->count;
        ranks = c->ranks < ranks ? c->ranks : ranks;
    }
    for (int32_t n = 1; n <= ranks; n++)
        if (ranks % n == 0) SAF_TRY(look_at_parts(s, n));
out:
    return st;
}

/* ---- rows of hosts ---- */

static double worth(const saf__plan_search *s, int32_t class, bool memory) {
    const saf_plan_host *c = &s->cluster->classes[class];
    return memory ? c->memory_bytes : saf__plan_speed_of(s, c, 1);
}

static void sort_row(saf__plan_search *s, bool memory) {
    s->n_row = s->cluster->n;
    for (int32_t i = 0; i < s->n_row; i++) {
        int32_t at = i;
        for (; at > 0 && worth(s, s->row[at - 1], memory) < worth(s, i, memory); at--)
            s->row[at] = s->row[at - 1];
        s->row[at] = i;
    }
}

static saf_status look_at_all(saf__plan_search *s) {
    saf_status st = SAF_OK;
    int32_t by_speed[SAF_PLAN_CLASSES_MAX];
    sort_row(s, false);
    SAF_TRY(look_at_row(s));
    if (s->cluster->n == 1) return SAF_OK;
    memcpy(by_speed, s->row, sizeof by_speed);
    s->order = 1;
    sort_row(s, true);
    if (memcmp(by_speed, s->row, (size_t)s->n_row * sizeof *s->row) != 0) SAF_TRY(look_at_row(s));
    for (int32_t i = 0; i < s->cluster->n; i++) {
        s->order = 2 + i;
        s->n_row = 1;
        s->row[0] = i;
        SAF_TRY(look_at_row(s));
    }
out:
    return st;
}

/* ---- the whole ---- */

saf_status saf__plan_check_host(const saf_plan_host *c) {
    const double least[] = {c->memory_bytes, c->read_bytes_s, c->int8_ops_s, c->f32_ops_s,
                            c->link.bytes_s};
    for (size_t i = 0; i < sizeof least / sizeof least[0]; i++)
        if (!(least[i] > 0 && least[i] < 1e30))
            return saf_fail(SAF_USAGE, "host %s: memory, rates and link must be above 0", c->name);
    if (c->count < 1 || c->count > SAF_PLAN_HOSTS_MAX || c->cores < 1 || c->ranks < 1 ||
        c->ranks > SAF_PLAN_RANKS_MAX || !(c->link.latency_s >= 0) || !(c->reserve_bytes >= 0))
        return saf_fail(SAF_USAGE, "host %s: count, cores, ranks, reserve or latency out of range",
                        c->name);
    if (!(c->core_read_bytes_s >= 0) || !(c->machine_read_bytes_s >= 0) || c->machine_hosts < 0 ||
        !(c->link.short_s >= 0 && c->link.short_s < 1e30) ||
        !(c->product_share >= 0 && c->product_share <= 1) ||
        !(c->hidden_share >= 0 && c->hidden_share <= 1))
        return saf_fail(SAF_USAGE,
                        "host %s: what a core reads, a share or a short message out of range",
                        c->name);
    return SAF_OK;
}

static saf_status check_layers(const saf__plan_search *s) {
    int64_t sum = 0, L = s->m->params->layers;
    const int32_t *layers = s->work->layers;
    for (int32_t i = 0; layers && i < s->work->stages; i++) {
        if (layers[i] < 1) return saf_fail(SAF_USAGE, "layout.stages: stage %d has no layer", i);
        sum += layers[i];
    }
    if (layers && sum != L)
        return saf_fail(SAF_USAGE,
                        "layout.stages: the stages add up to %lld layers, the model has %lld",
                        (long long)sum, (long long)L);
    return SAF_OK;
}

saf_status saf__plan_begin(saf__plan_search *s, int32_t hosts) {
    saf_status st = SAF_OK;
    SAF_TRY(check_layers(s));
    if (s->work->requests < 1 || s->work->longest < 1 || s->work->longest > INT32_MAX)
        return saf_fail(SAF_USAGE, "a plan needs at least one request, of at least one token");
    saf_schedule_wish wish = {.requests = s->work->requests,
                              .micro_batch = s->work->micro_batch,
                              .chunk = s->work->chunk};
    double requests = (double)s->work->requests;
    s->hosts = hosts;
    s->mix =
        saf_schedule_mix(&wish, requests * s->work->prompt_tokens,
                         requests * s->work->completion_tokens, s->work->completion_tokens < 1);
    SAF_TRY(saf__layout_costs(s->m->gguf, s->m->params, &s->mix, &s->cost));
    SAF_TRY(saf__plan_memory_sums(s));
    size_t L = (size_t)s->m->params->layers;
    SAF_TRY(saf_alloc(SAF_PLAN_CLASSES_MAX, sizeof *s->splits, &s->splits));
    SAF_TRY(saf_alloc(L + 1, sizeof **s->cuts, &s->cuts[0]));
    SAF_TRY(saf_alloc(L + 1, sizeof **s->cuts, &s->cuts[1]));
    SAF_TRY(saf_alloc((size_t)hosts + 1, sizeof *s->short_of, &s->short_of));
    for (int32_t i = 0; i <= hosts; i++) s->short_of[i] = (double)INFINITY;
out:
    return st;
}

static saf_status begin_cluster(saf__plan_search *s) {
    saf_status st = SAF_OK;
    int64_t hosts = 0, ranks = 0;
    if (s->cluster->n < 1 || s->cluster->n > SAF_PLAN_CLASSES_MAX)
        return saf_fail(SAF_USAGE, "%d kinds of hosts, expected 1 to %d", s->cluster->n,
                        SAF_PLAN_CLASSES_MAX);
    for (int32_t i = 0; i < s->cluster->n; i++) {
        SAF_TRY(saf__plan_check_host(&s->cluster->classes[i]));
        hosts += s->cluster->classes[i].count;
        ranks += (int64_t)s->cluster->classes[i].count * s->cluster->classes[i].ranks;
    }
    if (hosts > SAF_PLAN_HOSTS_MAX)
        return saf_fail(SAF_USAGE, "%lld hosts, expected at most %d", (long long)hosts,
                        SAF_PLAN_HOSTS_MAX);
    s->ranks = (int32_t)saf_i64_min(ranks, INT32_MAX);
    st = saf__plan_begin(s, (int32_t)hosts);
out:
    return st;
}

void saf__plan_end(saf__plan_search *s) {
    for (int i = 0; i < 2; i++) {
        for (int64_t j = 0; s->cuts[i] && j <= s->m->params->layers; j++) saf_free(&s->cuts[i][j]);
        saf_free(&s->cuts[i]);
    }
    for (int i = 0; i < SAF__PLAN_SIGNATURES; i++) saf_free(&s->best[i].first);
    saf_free(&s->one_host.first);
    saf_free(&s->cost);
    saf_free(&s->memory);
    saf_free(&s->splits);
    saf_free(&s->short_of);
}

/* The best of each kind, sorted; the best of one host is among them, or takes the last place. */
saf_status saf__plan_take_best(saf__plan_search *s, int32_t most, saf_plan *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_alloc(SAF__PLAN_SIGNATURES, sizeof *out->choices, &out->choices));
    for (int i = 0; i < SAF__PLAN_SIGNATURES; i++) {
        int32_t at = out->n;
        if (s->best[i].ranks_per_host == 0) continue;
        for (; at > 0 && saf__plan_better(s, &s->best[i], &out->choices[at - 1]); at--)
            out->choices[at] = out->choices[at - 1];
        out->choices[at] = s->best[i];
        s->best[i].first = NULL;
        out->n++;
    }
    int32_t one = -1;
    for (int32_t i = 0; i < out->n && one < 0; i++)
        if (out->choices[i].hosts == 1) one = i;
    if (most < 1) most = 1;
    if (one >= most && most > 1) {
        saf_plan_choice swap = out->choices[most - 1];
        out->choices[most - 1] = out->choices[one];
        out->choices[one] = swap;
        one = most - 1;
    }
    for (; out->n > most; out->n--) saf_free(&out->choices[out->n - 1].first);
    if (one >= 0 && one < out->n) out->one_host = &out->choices[one];
out:
    return st;
}

saf_status saf_plan_make(const saf_plan_model *m, const saf_plan_cluster *cluster,
                         const saf_plan_work *work, int32_t keep_n, saf_plan *out) {
    saf_status st = SAF_OK;
    saf__plan_search s = {.m = m, .cluster = cluster, .work = work};
    *out = (saf_plan){0};
    SAF_TRY(begin_cluster(&s));
    SAF_TRY(look_at_all(&s));
    if (s.looked_at == 0) {
        st = saf_fail(SAF_USAGE,
                      "no layout of replicas %d x pipeline %d x tensor %d (0: any) can be made of "
                      "%d ranks on %d hosts, %lld layers and %lld requests",
                      work->replicas, work->stages, work->tensor,
                      cluster->max_ranks > 0 ? cluster->max_ranks : s.ranks, s.hosts,
                      (long long)m->params->layers, (long long)work->requests);
        goto out;
    }
    out->looked_at = s.looked_at;
    SAF_TRY(saf__plan_take_best(&s, keep_n, out));
    saf__plan_explain(m, cluster, out, s.short_of, s.hosts);
out:
    saf__plan_end(&s);
    if (st != SAF_OK) saf_plan_free(out);
    return st;
}

void saf_plan_free(saf_plan *plan) {
    for (int32_t i = 0; i < plan->n; i++) saf_free(&plan->choices[i].first);
    saf_free(&plan->choices);
    *plan = (saf_plan){0};
}
