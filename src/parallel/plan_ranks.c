/* Layouts of ranks that stand already, as those of a run do: every grid of exactly so many, cut as
 * the run would cut it, each rank with its own part of its own host. */
#include <math.h>

#include "parallel/plan_search.h"

typedef struct {
    saf__plan_search search;
    const saf_plan_ranks *ranks;
    int32_t *here;         /* [n_hosts] ranks of each host */
    double *share[2];      /* [ranks] by speed, by memory */
    bool unlike[2];        /* NULL does as well where they are all alike */
    saf_plan_host *places; /* [ranks] each one's part of its host */
    double *bytes;         /* [ranks] of the layout at hand */
    double *used;          /* [n_hosts] */
} standing;

/* ---- what each rank has ---- */

static void place_ranks(standing *s) {
    const saf_plan_ranks *r = s->ranks;
    for (int32_t i = 0; i < r->ranks; i++) s->here[r->host[i]]++;
    for (int32_t i = 0; i < r->ranks; i++) {
        double part = 1.0 / s->here[r->host[i]];
        saf_plan_host *p = &s->places[i];
        *p = r->hosts[r->host[i]];
        p->cores = (int32_t)saf_i64_max(1, p->cores / s->here[r->host[i]]);
        p->count = p->ranks = 1;
        p->memory_bytes *= part;
        p->reserve_bytes *= part;
        p->read_bytes_s *= part;
        p->machine_read_bytes_s *= part;
        p->int8_ops_s *= part;
        p->f32_ops_s *= part;
    }
}

static void find_shares(const standing *s, bool by_memory, double *share, bool *unlike) {
    const saf_plan_ranks *r = s->ranks;
    double most = 0;
    for (int32_t i = 0; i < r->ranks; i++) {
        const saf_plan_host *p = &s->places[i];
        share[i] = r->share    ? r->share[i]
                   : by_memory ? fmax(0, p->memory_bytes - p->reserve_bytes)
                               : saf__plan_speed_of(&s->search, p, 1);
        most = fmax(most, share[i]);
    }
    *unlike = false;
    for (int32_t i = 0; i < r->ranks; i++) {
        if (!r->share) share[i] = fmax(SAF_SHARE_MIN, most > 0 ? share[i] / most : 1);
        *unlike = *unlike || share[i] != share[0]; /* NOLINT: the very same */
    }
}

static void end(standing *s) {
    saf__plan_end(&s->search);
    saf_free(&s->here);
    saf_free(&s->share[0]);
    saf_free(&s->share[1]);
    saf_free(&s->places);
    saf_free(&s->bytes);
    saf_free(&s->used);
}

static saf_status begin(standing *s, const saf_plan_model *m, const saf_plan_ranks *r,
                        const saf_plan_work *work) {
    saf_status st = SAF_OK;
    *s = (standing){.search = {.m = m, .work = work, .placed = r, .ranks = r->ranks}, .ranks = r};
    if (r->ranks < 1 || r->n_hosts < 1 || r->n_hosts > r->ranks)
        return saf_fail(SAF_USAGE, "%d ranks on %d hosts cannot be planned", r->ranks, r->n_hosts);
    for (int32_t i = 0; i < r->n_hosts; i++) SAF_TRY(saf__plan_check_host(&r->hosts[i]));
    SAF_TRY(saf__plan_begin(&s->search, r->n_hosts));
    SAF_TRY(saf_alloc((size_t)r->n_hosts, sizeof *s->here, &s->here));
    SAF_TRY(saf_alloc((size_t)r->n_hosts, sizeof *s->used, &s->used));
    SAF_TRY(saf_alloc((size_t)r->ranks, sizeof *s->places, &s->places));
    SAF_TRY(saf_alloc((size_t)r->ranks, sizeof *s->bytes, &s->bytes));
    place_ranks(s);
    for (int i = 0; i < 2; i++) {
        SAF_TRY(saf_alloc((size_t)r->ranks, sizeof *s->share[i], &s->share[i]));
        find_shares(s, i == 1, s->share[i], &s->unlike[i]);
    }
out:
    return st;
}

saf_status saf_plan_shares(const saf_plan_model *m, const saf_plan_ranks *ranks,
                           const saf_plan_work *work, bool by_memory, double *share, bool *unlike) {
    saf_status st = SAF_OK;
    standing s;
    SAF_TRY(begin(&s, m, ranks, work));
    memcpy(share, s.share[by_memory], (size_t)ranks->ranks * sizeof *share);
    *unlike = s.unlike[by_memory];
out:
    end(&s);
    return st;
}

/* ---- one replica ---- */

typedef struct {
    saf__plan_replica r;
    saf__plan_split whole;   /* of the largest part, for what all parts have in common */
    saf__plan_split *splits; /* [stages * parts] */
    saf_plan_host *host;     /* [stages] */
    int32_t *first;          /* [stages + 1] */
    bool *inside;            /* [stages] */
    double *alone;           /* [stages * parts] */
    int32_t rank0;
} replica;

static void free_replica(replica *k) {
    saf_free(&k->splits);
    saf_free(&k->host);
    saf_free(&k->first);
    saf_free(&k->inside);
    saf_free(&k->alone);
}

/* Of ranks [begin, end) those on a host. */
static int32_t ranks_on(const standing *s, int32_t host, int32_t begin, int32_t end) {
    int32_t n = 0;
    for (int32_t i = begin; i < end; i++) n += s->ranks->host[i] == host;
    return n;
}

static void find_alone(const standing *s, int32_t rank0, int32_t stages, int32_t tensor,
                       int32_t hosts, double *alone) {
    const saf_plan_ranks *r = s->ranks;
    for (int32_t i = 0; i < stages * tensor; i++) {
        int32_t host = r->host[rank0 + i], first = rank0 + i / tensor * tensor;
        bool own = ranks_on(s, host, rank0, rank0 + stages * tensor) == s->here[host];
        int32_t at_work = ranks_on(s, host, first, first + tensor);
        alone[i] = own ? saf__plan_read_bytes_s(&r->hosts[host], hosts) / at_work : 0;
    }
}

/* How many hosts a stage's ranks are on; the least of their links is the stage's. */
static int32_t hosts_of(const standing *s, int32_t rank, int32_t tensor, saf_plan_host *out) {
    const saf_plan_ranks *r = s->ranks;
    int32_t hosts = 0;
    *out = s->places[rank];
    for (int32_t i = 0; i < tensor; i++) {
        bool known = false;
        for (int32_t j = 0; j < i && !known; j++) known = r->host[rank + j] == r->host[rank + i];
        hosts += !known;
        out->link = saf_plan_slower_link(&out->link, &s->places[rank + i].link);
    }
    return hosts;
}

/* The cut, as the run would make it, and what each rank has of its stage. USAGE: there is none. */
static saf_status fill_replica(const standing *s, int32_t rank0, int32_t stages, int32_t tensor,
                               bool by_memory, replica *k) {
    saf_status st = SAF_OK;
    const saf_plan_ranks *r = s->ranks;
    const saf_plan_model *m = s->search.m;
    saf_layout layout = {0};
    const double *share = s->unlike[by_memory] ? s->share[by_memory] + rank0 : NULL;
    saf_layout_wish wish = {.ranks = stages * tensor,
                            .replicas = 1,
                            .stages = stages,
                            .tensor = tensor,
                            .layers = s->search.work->layers,
                            .n_layers = s->search.work->layers ? stages : 0,
                            .share = share,
                            .mix = s->search.mix};
    k->rank0 = rank0;
    SAF_TRY(saf_layout_choose(m->gguf, m->params, &wish, &layout));
    SAF_TRY(saf_alloc((size_t)stages * (size_t)tensor, sizeof *k->splits, &k->splits));
    SAF_TRY(saf_alloc((size_t)stages, sizeof *k->host, &k->host));
    SAF_TRY(saf_alloc((size_t)stages, sizeof *k->inside, &k->inside));
    SAF_TRY(saf_alloc((size_t)stages + 1, sizeof *k->first, &k->first));
    SAF_TRY(saf_alloc((size_t)stages * (size_t)tensor, sizeof *k->alone, &k->alone));
    k->r = (saf__plan_replica){.stages = stages,
                               .hosts_per_stage = 1,
                               .ranks_per_host = 1,
                               .split = &k->whole,
                               .host = k->host,
                               .first = k->first,
                               .splits = k->splits,
                               .places = s->places + rank0,
                               .alone = k->alone,
                               .inside = k->inside,
                               .hosts = r->n_hosts};
    k->whole.parts = tensor;
    for (int32_t i = 0; i < stages; i++) {
        int32_t rank = rank0 + i * tensor, next = rank0 + (i + 1) % stages * tensor;
        int32_t hosts = hosts_of(s, rank, tensor, &k->host[i]);
        if (hosts > k->r.hosts_per_stage) k->r.hosts_per_stage = hosts;
        k->inside[i] = r->host[rank] == r->host[next];
        k->first[i + 1] = (int32_t)layout.ranges[i * tensor].layer1;
    }
    int64_t replicas = r->ranks / (stages * tensor);
    k->r.hosts_alone = (int32_t)saf_i64_min(r->n_hosts, replicas * k->r.hosts_per_stage);
    find_alone(s, rank0, stages, tensor, k->r.hosts_alone, k->alone);
    for (int32_t i = 0; i < stages * tensor; i++)
        SAF_TRY(saf__plan_split_of(m, tensor, layout.ranges[i], &k->splits[i]));
out:
    saf_layout_free(&layout);
    return st;
}

/* Whether two replicas stand alike: then one cut does for both. */
static bool same_place(const standing *s, int32_t a, int32_t b, int32_t n, bool by_memory) {
    const saf_plan_ranks *r = s->ranks;
    for (int32_t i = 0; i < n; i++) {
        const saf_plan_host *x = &s->places[a + i], *y = &s->places[b + i];
        bool same = x->cores == y->cores && x->tiles == y->tiles &&
                    fabs(x->memory_bytes - y->memory_bytes) < 1 &&
                    fabs(x->read_bytes_s - y->read_bytes_s) < 1 &&
                    fabs(x->int8_ops_s - y->int8_ops_s) < 1 &&
                    fabs(x->f32_ops_s - y->f32_ops_s) < 1 &&
                    fabs(x->core_read_bytes_s - y->core_read_bytes_s) < 1 &&
                    fabs(x->machine_read_bytes_s - y->machine_read_bytes_s) < 1 &&
                    x->machine_hosts == y->machine_hosts &&
                    fabs(x->product_share - y->product_share) < 1e-6 &&
                    fabs(x->hidden_share - y->hidden_share) < 1e-6 &&
                    fabs(x->link.bytes_s - y->link.bytes_s) < 1 &&
                    fabs(x->link.latency_s - y->link.latency_s) < 1e-9 &&
                    fabs(x->link.short_s - y->link.short_s) < 1e-9 &&
                    fabs(s->share[by_memory][a + i] - s->share[by_memory][b + i]) < 1e-12;
        int32_t x_host = r->host[a + i], y_host = r->host[b + i];
        same = same && s->here[x_host] == s->here[y_host] &&
               ranks_on(s, x_host, a, a + n) == ranks_on(s, y_host, b, b + n);
        if (i > 0)
            same = same &&
                   (r->host[a + i] == r->host[a + i - 1]) == (r->host[b + i] == r->host[b + i - 1]);
        if (!same) return false;
    }
    return true;
}

/* ---- a layout ---- */

typedef struct {
    int32_t n;
    replica *kinds;   /* [n] */
    int32_t *count;   /* [n] */
    int32_t *kind_of; /* [replicas] */
} replicas;

static void free_replicas(replicas *all) {
    for (int32_t i = 0; i < all->n; i++) free_replica(&all->kinds[i]);
    saf_free(&all->kinds);
    saf_free(&all->count);
    saf_free(&all->kind_of);
}

static saf_status fill_replicas(const standing *s, const saf_plan_choice *c, replicas *all) {
    saf_status st = SAF_OK;
    int32_t ranks = c->stages * c->tensor;
    SAF_TRY(saf_alloc((size_t)c->replicas, sizeof *all->kinds, &all->kinds));
    SAF_TRY(saf_alloc((size_t)c->replicas, sizeof *all->count, &all->count));
    SAF_TRY(saf_alloc((size_t)c->replicas, sizeof *all->kind_of, &all->kind_of));
    for (int32_t i = 0; i < c->replicas; i++) {
        int32_t k = 0;
        while (k < all->n && !same_place(s, all->kinds[k].rank0, i * ranks, ranks, c->by_memory))
            k++;
        if (k == all->n) {
            all->n++;
            SAF_TRY(fill_replica(s, i * ranks, c->stages, c->tensor, c->by_memory, &all->kinds[k]));
        }
        all->count[k]++;
        all->kind_of[i] = k;
    }
out:
    return st;
}

/* The fewest sequences of any: the run has one number for all. */
static void choose_schedule(const standing *s, const replicas *all, saf_plan_choice *c) {
    saf__plan_memory memory;
    for (int32_t k = 0; k < all->n; k++) {
        saf__plan_replica *r = &all->kinds[k].r;
        saf__plan_memory_of(s->search.m, s->search.work, c->replicas, r, &memory);
        saf__plan_add_memory(&memory, k == 0, c);
        if (k == 0 || r->schedule.sequences < c->schedule.sequences) c->schedule = r->schedule;
    }
    for (int32_t k = 0; k < all->n; k++) all->kinds[k].r.schedule = c->schedule;
}

/* Of each rank, and of the fullest host: its ranks need not hold as much as each other. */
static void add_up_hosts(standing *s, const replicas *all, saf_plan_choice *c) {
    const saf_plan_ranks *r = s->ranks;
    int32_t ranks = c->stages * c->tensor;
    memset(s->used, 0, (size_t)r->n_hosts * sizeof *s->used);
    c->short_bytes = -INFINITY;
    for (int32_t i = 0; i < r->ranks; i++) {
        const saf__plan_replica *k = &all->kinds[all->kind_of[i / ranks]].r;
        int32_t in = i % ranks;
        saf__plan_bytes b =
            saf__plan_bytes_of(s->search.m, s->search.work, k, in / c->tensor, in % c->tensor);
        s->bytes[i] = b.weights + b.cache + b.buffers;
        s->used[r->host[i]] += s->bytes[i];
    }
    for (int32_t h = 0; h < r->n_hosts; h++) {
        double room = fmax(0, r->hosts[h].memory_bytes - r->hosts[h].reserve_bytes);
        if (s->used[h] - room <= c->short_bytes) continue;
        c->short_bytes = s->used[h] - room;
        c->host_bytes = s->used[h];
        c->room_bytes = room;
    }
    c->fits = c->short_bytes <= 0;
    if (c->fits) c->short_bytes = 0;
}

/* All figures of a grid with this cut. *there false: it cannot be cut. */
static saf_status weigh(standing *s, saf_plan_choice *c, int32_t **first, bool *there) {
    saf_status st = SAF_OK;
    replicas all = {0};
    saf__plan_replica *of = NULL;
    c->hosts = s->ranks->n_hosts;
    c->ranks_per_host = (int32_t)saf_ceil_div(s->ranks->ranks, s->ranks->n_hosts);
    c->fits = true;
    *there = false;
    st = fill_replicas(s, c, &all);
    if (st == SAF_USAGE) {
        st = SAF_OK;
        goto out;
    }
    SAF_TRY(st);
    SAF_TRY(saf_alloc((size_t)all.n, sizeof *of, &of));
    choose_schedule(s, &all, c);
    add_up_hosts(s, &all, c);
    for (int32_t k = 0; k < all.n; k++) of[k] = all.kinds[k].r;
    saf__plan_add_times(&s->search, of, all.count, all.n, c);
    *first = all.kinds[0].first;
    all.kinds[0].first = NULL;
    *there = true;
out:
    saf_free(&of);
    free_replicas(&all);
    return st;
}

/* By speed; where that does not fit, by memory. */
static saf_status look(standing *s, int32_t replicas_n, int32_t stages, int32_t tensor) {
    saf_status st = SAF_OK;
    int32_t *first = NULL;
    bool there = false;
    for (int by_memory = 0; by_memory < 2; by_memory++) {
        saf_plan_choice c = {.replicas = replicas_n,
                             .stages = stages,
                             .tensor = tensor,
                             .by_memory = by_memory != 0};
        SAF_TRY(weigh(s, &c, &first, &there));
        if (there) SAF_TRY(saf__plan_keep(&s->search, &c, first));
        saf_free(&first);
        if (c.fits && there) break;
    }
out:
    saf_free(&first);
    return st;
}

/* Every way to make the number of ranks a product of three. */
static saf_status look_at_all(standing *s) {
    saf_status st = SAF_OK;
    const saf_plan_work *w = s->search.work;
    int32_t n = s->ranks->ranks;
    for (int32_t t = 1; t <= n; t++) {
        if (n % t != 0 || (w->tensor > 0 && w->tensor != t)) continue;
        for (int32_t stages = 1; stages <= n / t; stages++) {
            int32_t replicas_n = n / t / stages;
            if (n / t % stages != 0 || stages > s->search.m->params->layers ||
                (w->stages > 0 && w->stages != stages) ||
                (w->replicas > 0 ? w->replicas != replicas_n
                                 : replicas_n > 1 && replicas_n > w->requests))
                continue;
            SAF_TRY(look(s, replicas_n, stages, t));
        }
    }
out:
    return st;
}

saf_status saf_plan_of_ranks(const saf_plan_model *m, const saf_plan_ranks *ranks,
                             const saf_plan_work *work, int32_t keep, saf_plan *out,
                             double *memory) {
    saf_status st = SAF_OK;
    standing s;
    int32_t *first = NULL;
    bool there;
    *out = (saf_plan){0};
    SAF_TRY(begin(&s, m, ranks, work));
    SAF_TRY(look_at_all(&s));
    if (s.search.looked_at == 0) {
        st = saf_fail(SAF_USAGE,
                      "no layout of replicas %d x pipeline %d x tensor %d (0: any) can be made of "
                      "%d ranks and %lld layers",
                      work->replicas, work->stages, work->tensor, ranks->ranks,
                      (long long)m->params->layers);
        goto out;
    }
    out->looked_at = s.search.looked_at;
    SAF_TRY(saf__plan_take_best(&s.search, keep, out));
    const saf_plan_cluster hosts = {ranks->n_hosts, ranks->hosts, 0};
    saf__plan_explain(m, &hosts, out, s.search.short_of, ranks->n_hosts);
    if (memory) {
        saf_plan_choice best = out->choices[0];
        best.job_s = best.first_token_s = best.token_s = 0;
        best.prefill_tokens_s = best.decode_tokens_s = 0;
        SAF_TRY(weigh(&s, &best, &first, &there));
        memcpy(memory, s.bytes, (size_t)ranks->ranks * sizeof *memory);
    }
out:
    saf_free(&first);
    end(&s);
    if (st != SAF_OK) saf_plan_free(out);
    return st;
}
