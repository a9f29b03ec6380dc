/* Memory and times of a layout, and which of two is better. */
#include <math.h>

#include "parallel/plan_search.h"

/* An idle host is worth a little: of layouts as fast as each other the one on fewer is best. */
#define RANKS_COUNT 0.01

/* ---- a layout's figures ---- */

static saf__plan_replica replica_of(const saf__plan_grid *g, const saf__plan_kind *k, int32_t hosts,
                                    int32_t replicas, const int32_t *first) {
    int32_t stage = (int32_t)saf_i64_max(1, g->tensor / g->ranks_per_host);
    return (saf__plan_replica){
        .stages = g->stages,
        .hosts_per_stage = stage,
        .hosts = hosts,
        .hosts_alone = (int32_t)saf_i64_min(hosts, (int64_t)replicas * stage),
        .ranks_per_host = g->ranks_per_host,
        .split = &g->split,
        .host = k->host,
        .first = first};
}

void saf__plan_add_memory(const saf__plan_memory *memory, bool first, saf_plan_choice *c) {
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

/* Times of all replicas, which draw their requests from one queue: a faster one gets more. */
void saf__plan_add_times(const saf__plan_search *s, const saf__plan_replica *replica,
                         const int32_t *count, int32_t n, saf_plan_choice *c) {
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
    c->network_share = fmax(0, 1 - free_job_s / c->job_s);
}

static double score_of(const saf__plan_search *s, const saf_plan_choice *c) {
    const saf_plan_ranks *r = s->placed;
    bool usual =
        r && r->usual[0] == c->replicas && r->usual[1] == c->stages && r->usual[2] == c->tensor;
    return c->job_s * (usual ? 1 - r->usual_gain : 1) *
           (1 + RANKS_COUNT * c->replicas * c->stages * c->tensor / s->ranks);
}

bool saf__plan_better(const saf__plan_search *s, const saf_plan_choice *a,
                      const saf_plan_choice *b) {
    if (b->ranks_per_host == 0) return true; /* there is none */
    if (a->fits != b->fits) return a->fits;
    if (!a->fits && a->short_bytes != b->short_bytes) return a->short_bytes < b->short_bytes;
    return score_of(s, a) < score_of(s, b);
}

static saf_status keep(const saf__plan_search *s, const saf_plan_choice *c, const int32_t *first,
                       saf_plan_choice *at) {
    if (!saf__plan_better(s, c, at)) return SAF_OK;
    saf_free(&at->first);
    *at = *c;
    return saf__plan_copy_cut(first, c->stages, &at->first);
}

static int signature(const saf_plan_choice *c) {
    return (c->hosts > 1) | (c->replicas > 1) << 1 | (c->stages > 1) << 2 | (c->tensor > 1) << 3;
}

saf_status saf__plan_keep(saf__plan_search *s, const saf_plan_choice *c, const int32_t *first) {
    saf_status st = SAF_OK;
    s->looked_at++;
    s->short_of[c->hosts] = fmin(s->short_of[c->hosts], c->short_bytes);
    SAF_TRY(keep(s, c, first, &s->best[signature(c)]));
    if (c->hosts == 1) SAF_TRY(keep(s, c, first, &s->one_host));
out:
    return st;
}

/* The first `replicas` of the grid's; of each the cut by speed, or where that does not fit the one
 * by memory. */
saf_status saf__plan_look(saf__plan_search *s, const saf__plan_grid *g, int32_t replicas) {
    saf__plan_replica of[SAF__PLAN_KINDS];
    int32_t count[SAF__PLAN_KINDS], n = 0, left = replicas;
    saf_plan_choice c = {.replicas = replicas,
                         .stages = g->stages,
                         .tensor = g->tensor,
                         .ranks_per_host = g->ranks_per_host,
                         .order = s->order,
                         .fits = true};
    c.hosts = (int32_t)saf_ceil_div((int64_t)replicas * g->stages * g->tensor, g->ranks_per_host);
    for (int32_t i = 0; i < g->n_kinds && left > 0; i++, n++) {
        const saf__plan_kind *k = &g->kinds[i];
        saf__plan_memory memory;
        of[n] = replica_of(g, k, c.hosts, replicas, k->by_speed);
        saf__plan_memory_of(s->m, s->work, replicas, &of[n], &memory);
        if (!memory.fits) {
            of[n] = replica_of(g, k, c.hosts, replicas, k->by_memory);
            saf__plan_memory_of(s->m, s->work, replicas, &of[n], &memory);
            c.by_memory = true;
        }
        count[n] = k->count < left ? k->count : left;
        left -= count[n];
        saf__plan_add_memory(&memory, i == 0, &c);
    }
    if (left > 0 || n == 0) return SAF_OK; /* not so many */
    c.schedule = of[0].schedule;
    saf__plan_add_times(s, of, count, n, &c);
    return saf__plan_keep(s, &c, of[0].first);
}
