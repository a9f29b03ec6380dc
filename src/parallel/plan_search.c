/* Which layouts are looked at. Hosts stand in a row, equal ones side by side; replicas take their
 * hosts from it one after the other, so that only as many different replicas are reckoned with as
 * there are kinds of hosts. Of the numbers of stages, parts and replicas not all are tried: all
 * small ones, then those that cut the layers in another way, and ever larger steps. */
#include <math.h>

#include "parallel/plan.h"

enum {
    ALL_STAGES = 32, /* up to here every number of stages is tried */
    KINDS = 2 * SAF_PLAN_CLASSES_MAX + 2,
    SIGNATURES = 16 /* of layouts: several hosts, replicas, stages, parts or not */
};
/* Steps of cutting stages on unlike hosts, after which only replicas of like hosts are tried. */
#define MIXED_STEPS 2e8
/* An idle host is worth a little: of layouts as fast as each other the one on fewer is best. */
#define RANKS_COUNT 0.01

/* The hosts of a replica, and how many of these there are one after the other. */
typedef struct {
    int32_t count;
    saf_plan_host *host;           /* [stages] */
    int32_t *by_speed, *by_memory; /* [stages + 1] */
} kind;

typedef struct {
    const saf_plan_model *m;
    const saf_plan_cluster *cluster;
    const saf_plan_work *work;
    int64_t *cost, *memory; /* [L + 1], of the layers before, in the words of a cut */
    saf_flight_mix mix;
    saf__plan_split *splits;
    int32_t n_splits;
    int32_t **cuts[2]; /* [2][L + 1] of equal hosts: by cost, by memory */
    double mixed_steps;
    double *short_of; /* [hosts + 1] least shortage on so many hosts; INFINITY: not looked at */
    int32_t hosts, ranks;
    saf_plan_choice best[SIGNATURES];
    saf_plan_choice one_host;
    int64_t looked_at;
    /* the row of hosts at hand */
    int32_t order;
    int32_t row[SAF_PLAN_CLASSES_MAX], n_row, row_hosts;
} search;

/* The grid at hand. */
typedef struct {
    int32_t ranks_per_host, tensor, stages;
    saf__plan_split split;
    kind kinds[KINDS];
    int32_t n_kinds;
} grid;

/* ---- cutting stages ---- */

static int64_t cost_of_run(const void *ctx, int32_t begin, int32_t end) {
    const int64_t *sum = ctx;
    return sum[end] - sum[begin];
}

/* What a stage must hold, layer by layer, with a cache for as many sequences as there may be. */
static saf_status memory_sums(search *s) {
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

static saf_status cut(search *s, const int64_t *sum, const double *share, int32_t stages,
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
static double speed_of(const search *s, const saf_plan_host *host, int32_t ranks_per_host) {
    const saf_plan_model *m = s->m;
    const saf_plan_part *all = &m->sums[m->params->layers];
    saf_plan_rates rates = saf__plan_rates_of(m, s->work, host, ranks_per_host);
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

static bool all_alike(const kind *k, int32_t stages) {
    for (int32_t i = 1; i < stages; i++)
        if (memcmp(&k->host[i], &k->host[0], sizeof *k->host) != 0) return false;
    return true;
}

static saf_status copy_cut(const int32_t *from, int32_t stages, int32_t **out) {
    saf_status st = saf_alloc((size_t)stages + 1, sizeof **out, out);
    if (st == SAF_OK) memcpy(*out, from, ((size_t)stages + 1) * sizeof **out);
    return st;
}

static saf_status cut_alike(search *s, kind *k, int32_t stages) {
    saf_status st = SAF_OK;
    const int64_t *const sums[2] = {s->cost, s->memory};
    int32_t **to[2] = {&k->by_speed, &k->by_memory};
    double *share = NULL;
    SAF_TRY(saf_alloc((size_t)stages, sizeof *share, &share));
    for (int32_t i = 0; i < stages; i++) share[i] = 1;
    for (int i = 0; i < 2; i++) {
        int32_t **kept = &s->cuts[i][stages];
        if (!*kept) SAF_TRY(cut(s, sums[i], share, stages, kept));
        SAF_TRY(copy_cut(*kept, stages, to[i]));
    }
out:
    saf_free(&share);
    return st;
}

static saf_status cut_kind(search *s, const grid *g, kind *k) {
    saf_status st = SAF_OK;
    double *share = NULL, L = (double)s->m->params->layers;
    if (all_alike(k, g->stages)) return cut_alike(s, k, g->stages);
    s->mixed_steps += 2 * g->stages * L * L;
    SAF_TRY(saf_alloc((size_t)g->stages, sizeof *share, &share));
    for (int32_t i = 0; i < g->stages; i++) share[i] = speed_of(s, &k->host[i], g->ranks_per_host);
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

static void kinds_free(grid *g) {
    for (int32_t i = 0; i < g->n_kinds; i++) {
        saf_free(&g->kinds[i].host);
        saf_free(&g->kinds[i].by_speed);
        saf_free(&g->kinds[i].by_memory);
    }
    g->n_kinds = 0;
}

static const saf_plan_host *class_at(const search *s, int32_t host, int32_t *left) {
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
    a.tiles = a.tiles && b->tiles;
    a.link_bytes_s = fmin(a.link_bytes_s, b->link_bytes_s);
    a.latency_s = fmax(a.latency_s, b->latency_s);
    return a;
}

static saf_status add_kind(search *s, grid *g, int32_t host0, int32_t count) {
    saf_status st = SAF_OK;
    int32_t left;
    kind *k = &g->kinds[g->n_kinds++];
    *k = (kind){.count = count};
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
static saf_status list_kinds(search *s, grid *g, bool mixed) {
    saf_status st = SAF_OK;
    int32_t ranks = g->stages * g->tensor;
    int32_t hosts = (int32_t)saf_ceil_div(ranks, g->ranks_per_host);
    int32_t on_one = ranks < g->ranks_per_host ? g->ranks_per_host / ranks : 1, left;
    for (int32_t at = 0; at + hosts <= s->row_hosts && g->n_kinds < KINDS;) {
        (void)class_at(s, at, &left);
        int32_t count = left / hosts;
        if (count > 0) {
            SAF_TRY(add_kind(s, g, at, count * on_one));
            at += count * hosts;
        } else if (mixed && s->mixed_steps < MIXED_STEPS) {
            SAF_TRY(add_kind(s, g, at, 1));
            at += hosts;
        } else {
            at += left;
        }
    }
out:
    return st;
}

/* ---- a layout's figures ---- */

static saf__plan_replica replica_of(const grid *g, const kind *k, const int32_t *first) {
    return (saf__plan_replica){
        .stages = g->stages,
        .hosts_per_stage = (int32_t)saf_i64_max(1, g->tensor / g->ranks_per_host),
        .ranks_per_host = g->ranks_per_host,
        .split = &g->split,
        .host = k->host,
        .first = first};
}

static void add_memory(const saf__plan_memory *memory, bool first, saf_plan_choice *c) {
    c->fits = c->fits && memory->fits;
    if (first || memory->short_bytes > c->short_bytes ||
        (memory->fits && memory->memory_bytes > c->memory_bytes)) {
        c->short_bytes = fmax(c->short_bytes, memory->short_bytes);
        c->memory_bytes = memory->memory_bytes;
        c->weight_bytes = memory->weight_bytes;
        c->cache_bytes = memory->cache_bytes;
        c->buffer_bytes = memory->buffer_bytes;
        c->host_bytes = memory->host_bytes;
        c->room_bytes = memory->room_bytes;
    }
}

/* Times of all replicas, which draw their requests from one queue: a faster one gets more. Returns
 * the time of the job as if links cost nothing. */
static double add_times(const search *s, const saf__plan_replica *replica, const int32_t *count,
                        int32_t n, saf_plan_choice *c) {
    double rate = 0, requests = (double)s->work->requests, free_job_s = 0, free_token_s = 0;
    double each = n == 1 ? ceil(requests / c->replicas) : requests / c->replicas;
    saf__plan_times t;
    for (int32_t i = 0; i < n; i++) {
        saf__plan_replica r = replica[i];
        r.requests = fmax(1, each);
        saf__plan_times_of(s->m, s->work, &r, true, &t);
        rate += count[i] * r.requests / t.job_s;
    }
    for (int32_t i = 0; i < n; i++) {
        saf__plan_replica r = replica[i];
        r.requests = fmax(1, each);
        saf__plan_times_of(s->m, s->work, &r, true, &t);
        r.requests = fmax(1, n == 1 ? each : requests * (r.requests / t.job_s) / rate);
        saf__plan_times_of(s->m, s->work, &r, true, &t);
        c->job_s = fmax(c->job_s, t.job_s);
        c->first_token_s = fmax(c->first_token_s, t.first_token_s);
        c->token_s = fmax(c->token_s, t.token_s);
        c->prefill_tokens_s += count[i] * t.prefill_tokens_s;
        c->decode_tokens_s += count[i] * t.decode_tokens_s;
        saf__plan_times_of(s->m, s->work, &r, false, &t);
        free_job_s = fmax(free_job_s, t.job_s);
        free_token_s = fmax(free_token_s, t.token_s);
    }
    c->token_network_share = c->token_s > 0 ? fmax(0, 1 - free_token_s / c->token_s) : 0;
    return free_job_s;
}

static double score_of(const search *s, const saf_plan_choice *c) {
    return c->job_s * (1 + RANKS_COUNT * c->replicas * c->stages * c->tensor / s->ranks);
}

static bool better(const search *s, const saf_plan_choice *a, const saf_plan_choice *b) {
    if (b->ranks_per_host == 0) return true; /* there is none */
    if (a->fits != b->fits) return a->fits;
    if (!a->fits && a->short_bytes != b->short_bytes) return a->short_bytes < b->short_bytes;
    return score_of(s, a) < score_of(s, b);
}

static saf_status keep(search *s, const saf_plan_choice *c, const int32_t *first,
                       saf_plan_choice *at) {
    if (!better(s, c, at)) return SAF_OK;
    saf_free(&at->first);
    *at = *c;
    return copy_cut(first, c->stages, &at->first);
}

static int signature(const saf_plan_choice *c) {
    return (c->hosts > 1) | (c->replicas > 1) << 1 | (c->stages > 1) << 2 | (c->tensor > 1) << 3;
}

/* The first `replicas` of the grid's; of each the cut by speed, or where that does not fit the one
 * by memory. */
static saf_status look(search *s, const grid *g, int32_t replicas) {
    saf_status st = SAF_OK;
    saf__plan_replica of[KINDS];
    int32_t count[KINDS], n = 0, left = replicas;
    saf_plan_choice c = {.replicas = replicas,
                         .stages = g->stages,
                         .tensor = g->tensor,
                         .ranks_per_host = g->ranks_per_host,
                         .order = s->order,
                         .fits = true};
    c.hosts = (int32_t)saf_ceil_div((int64_t)replicas * g->stages * g->tensor, g->ranks_per_host);
    for (int32_t i = 0; i < g->n_kinds && left > 0; i++, n++) {
        const kind *k = &g->kinds[i];
        saf__plan_memory memory;
        of[n] = replica_of(g, k, k->by_speed);
        saf__plan_memory_of(s->m, s->work, replicas, &of[n], &memory);
        if (!memory.fits) {
            of[n] = replica_of(g, k, k->by_memory);
            saf__plan_memory_of(s->m, s->work, replicas, &of[n], &memory);
            c.by_memory = true;
        }
        count[n] = k->count < left ? k->count : left;
        left -= count[n];
        add_memory(&memory, i == 0, &c);
    }
    if (left > 0) return SAF_OK; /* not so many */
    c.schedule = of[0].schedule;
    double free_job_s = add_times(s, of, count, n, &c);
    c.network_share = fmax(0, 1 - free_job_s / c.job_s);
    s->looked_at++;
    s->short_of[c.hosts] = fmin(s->short_of[c.hosts], c.short_bytes);
    SAF_TRY(keep(s, &c, of[0].first, &s->best[signature(&c)]));
    if (c.hosts == 1) SAF_TRY(keep(s, &c, of[0].first, &s->one_host));
out:
    return st;
}

/* ---- which numbers are tried ---- */

static bool wanted(int32_t asked, int32_t n) {
    return asked == 0 || asked == n;
}

/* Beyond the small ones only those that give a stage fewer layers than the one before. */
static bool try_stages(const search *s, int32_t stages) {
    int64_t L = s->m->params->layers;
    if (s->work->stages > 0) return stages == s->work->stages;
    return stages <= ALL_STAGES || saf_ceil_div(L, stages) < saf_ceil_div(L, stages - 1);
}

/* 1, 2, 3, 4, 6, 8, 12, 16, ... */
static bool is_step(int32_t n) {
    while (n > 3 && n % 2 == 0) n /= 2;
    return n <= 3;
}

static saf_status look_at_replicas(search *s, grid *g) {
    saf_status st = SAF_OK;
    int64_t most = 0;
    for (int32_t i = 0; i < g->n_kinds; i++) most += g->kinds[i].count;
    most = saf_i64_min(most, s->work->requests);
    if (s->cluster->max_ranks > 0)
        most = saf_i64_min(most, s->cluster->max_ranks / (g->stages * g->tensor));
    for (int32_t r = 1; r <= most; r++)
        if (s->work->replicas > 0 ? r == s->work->replicas : is_step(r) || r == most)
            SAF_TRY(look(s, g, r));
out:
    return st;
}

static saf_status look_at_stages(search *s, grid *g) {
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
            st = list_kinds(s, g, mixed);
            if (st == SAF_OK) st = look_at_replicas(s, g);
            kinds_free(g);
            if (st != SAF_OK) return st;
        }
    }
    return st;
}

static saf_status find_split(search *s, int32_t parts, saf__plan_split *out) {
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
static saf_status look_at_parts(search *s, int32_t ranks_per_host) {
    saf_status st = SAF_OK;
    int64_t limit = saf_i64_min(
        saf__parts_with_heads(s->m->params),
        saf_ceil_div(saf_i64_min(s->m->params->width, s->m->params->ff_width), SAF_TILE_ROWS));
    int64_t most = saf_i64_min(limit, (int64_t)s->row_hosts * ranks_per_host);
    grid *g = NULL;
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

static saf_status look_at_row(search *s) {
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

static double worth(const search *s, int32_t class, bool memory) {
    const saf_plan_host *c = &s->cluster->classes[class];
    return memory ? c->memory_bytes : speed_of(s, c, 1);
}

static void sort_row(search *s, bool memory) {
    s->n_row = s->cluster->n;
    for (int32_t i = 0; i < s->n_row; i++) {
        int32_t at = i;
        for (; at > 0 && worth(s, s->row[at - 1], memory) < worth(s, i, memory); at--)
            s->row[at] = s->row[at - 1];
        s->row[at] = i;
    }
}

static saf_status look_at_all(search *s) {
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

static saf_status check_host(const saf_plan_host *c) {
    const double least[] = {c->memory_bytes, c->read_bytes_s, c->int8_ops_s, c->f32_ops_s,
                            c->link_bytes_s};
    for (size_t i = 0; i < sizeof least / sizeof least[0]; i++)
        if (!(least[i] > 0 && least[i] < 1e30))
            return saf_fail(SAF_USAGE, "host %s: memory, rates and link must be above 0", c->name);
    if (c->count < 1 || c->count > SAF_PLAN_HOSTS_MAX || c->cores < 1 || c->ranks < 1 ||
        c->ranks > SAF_PLAN_RANKS_MAX || !(c->latency_s >= 0) || !(c->reserve_bytes >= 0))
        return saf_fail(SAF_USAGE, "host %s: count, cores, ranks, reserve or latency out of range",
                        c->name);
    return SAF_OK;
}

static saf_status begin(search *s) {
    saf_status st = SAF_OK;
    int64_t hosts = 0, ranks = 0;
    if (s->cluster->n < 1 || s->cluster->n > SAF_PLAN_CLASSES_MAX)
        return saf_fail(SAF_USAGE, "%d kinds of hosts, expected 1 to %d", s->cluster->n,
                        SAF_PLAN_CLASSES_MAX);
    if (s->work->requests < 1 || s->work->longest < 1 || s->work->longest > INT32_MAX)
        return saf_fail(SAF_USAGE, "a plan needs at least one request, of at least one token");
    for (int32_t i = 0; i < s->cluster->n; i++) {
        SAF_TRY(check_host(&s->cluster->classes[i]));
        hosts += s->cluster->classes[i].count;
        ranks += (int64_t)s->cluster->classes[i].count * s->cluster->classes[i].ranks;
    }
    if (hosts > SAF_PLAN_HOSTS_MAX)
        return saf_fail(SAF_USAGE, "%lld hosts, expected at most %d", (long long)hosts,
                        SAF_PLAN_HOSTS_MAX);
    s->hosts = (int32_t)hosts;
    s->ranks = (int32_t)saf_i64_min(ranks, INT32_MAX);
    saf_schedule_wish wish = {.requests = s->work->requests,
                              .micro_batch = s->work->micro_batch,
                              .chunk = s->work->chunk};
    double requests = (double)s->work->requests;
    s->mix =
        saf_schedule_mix(&wish, requests * s->work->prompt_tokens,
                         requests * s->work->completion_tokens, s->work->completion_tokens < 1);
    SAF_TRY(saf__layout_costs(s->m->gguf, s->m->params, &s->mix, &s->cost));
    SAF_TRY(memory_sums(s));
    size_t L = (size_t)s->m->params->layers;
    SAF_TRY(saf_alloc(SAF_PLAN_CLASSES_MAX, sizeof *s->splits, &s->splits));
    SAF_TRY(saf_alloc(L + 1, sizeof **s->cuts, &s->cuts[0]));
    SAF_TRY(saf_alloc(L + 1, sizeof **s->cuts, &s->cuts[1]));
    SAF_TRY(saf_alloc((size_t)hosts + 1, sizeof *s->short_of, &s->short_of));
    for (int64_t i = 0; i <= hosts; i++) s->short_of[i] = (double)INFINITY;
out:
    return st;
}

static void end(search *s) {
    for (int i = 0; i < 2; i++) {
        for (int64_t j = 0; s->cuts[i] && j <= s->m->params->layers; j++) saf_free(&s->cuts[i][j]);
        saf_free(&s->cuts[i]);
    }
    for (int i = 0; i < SIGNATURES; i++) saf_free(&s->best[i].first);
    saf_free(&s->one_host.first);
    saf_free(&s->cost);
    saf_free(&s->memory);
    saf_free(&s->splits);
    saf_free(&s->short_of);
}

/* The best of each kind, sorted; the best of one host is among them, or takes the last place. */
static saf_status take_best(search *s, int32_t most, saf_plan *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_alloc(SIGNATURES, sizeof *out->choices, &out->choices));
    for (int i = 0; i < SIGNATURES; i++) {
        int32_t at = out->n;
        if (s->best[i].ranks_per_host == 0) continue;
        for (; at > 0 && better(s, &s->best[i], &out->choices[at - 1]); at--)
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
    search s = {.m = m, .cluster = cluster, .work = work};
    *out = (saf_plan){0};
    SAF_TRY(begin(&s));
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
    SAF_TRY(take_best(&s, keep_n, out));
    saf__plan_explain(m, cluster, out, s.short_of, s.hosts);
out:
    end(&s);
    if (st != SAF_OK) saf_plan_free(out);
    return st;
}

void saf_plan_free(saf_plan *plan) {
    for (int32_t i = 0; i < plan->n; i++) saf_free(&plan->choices[i].first);
    saf_free(&plan->choices);
    *plan = (saf_plan){0};
}
