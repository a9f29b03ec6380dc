/* The layout of a run follows a plan: rank 0 reckons what every grid of these ranks would take,
 * from a profile of these hosts where there is one, else by rules of thumb, and tells the others.
 * Bits do not depend on it. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "job/plan/plan_hosts.h"
#include "job/session.h"
#include "saf/job_detect.h"

/* By rules of thumb a plan must promise much more than the usual layout, with a profile a little;
 * and what takes less than a second is not worth it. */
#define RULES_GAIN 0.25
#define PROFILE_GAIN 0.03
#define WORTH_S 1.0

/* Of each rank, as rank 0 must know it. */
typedef struct {
    char host[SAF_SUITE_HOST_BYTES];
    int32_t threads, cores, tiles;
    double memory_bytes; /* that its host, or its control group, has */
} place;

typedef struct {
    saf__session *s;
    place *places; /* [ranks] */
    int32_t n_hosts;
    saf_plan_host *hosts; /* [n_hosts] */
    double *share;        /* [ranks] */
    double *memory;       /* [ranks] */
    saf_buf source;       /* where the rates are from */
    bool profiled;
} following;

/* ---- the hosts ---- */

static saf_status gather_places(following *f) {
    saf_status st = SAF_OK;
    const saf__session *s = f->s;
    size_t n = (size_t)s->ranks;
    saf_buf mine = {0}, *all = NULL;
    place own = {.threads = s->settings.threads,
                 .cores = s->binding.cores,
                 .tiles = saf_kernels_have_tiles(),
                 .memory_bytes = (double)s->binding.memory_bytes};
    snprintf(own.host, sizeof own.host, "%s", saf_comm_host(s->world));
    st = saf_buf_append(&mine, &own, sizeof own);
    if (st == SAF_OK) st = saf_alloc(n, sizeof *all, &all);
    if (st == SAF_OK) st = saf_alloc(n, sizeof *f->places, &f->places);
    SAF_TRY(saf_comm_agree(s->world, st));
    assert(all && f->places); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(s->world, 0, &mine, all));
    for (size_t i = 0; s->rank == 0 && i < n; i++) memcpy(&f->places[i], all[i].data, sizeof own);
out:
    for (size_t i = 0; all && i < n; i++) saf_buf_free(&all[i]);
    saf_free(&all);
    saf_buf_free(&mine);
    return st;
}

/* Every host by rules of thumb: what its ranks' threads do together. */
static saf_status guess_hosts(following *f) {
    saf_status st = SAF_OK;
    const saf__session *s = f->s;
    for (int32_t i = 0; i < s->ranks; i++)
        f->n_hosts = s->host[i] >= f->n_hosts ? s->host[i] + 1 : f->n_hosts;
    SAF_TRY(saf_alloc((size_t)f->n_hosts, sizeof *f->hosts, &f->hosts));
    for (int32_t i = 0; i < s->ranks; i++) {
        const place *p = &f->places[i];
        saf_plan_host *h = &f->hosts[s->host[i]];
        if (h->count == 0) {
            h->count = h->ranks = 1;
            h->memory_bytes = p->memory_bytes;
            h->tiles = p->tiles != 0;
            h->link = (saf_plan_link){SAF__LINK_BYTES_S, SAF__LATENCY_S, 0};
            memcpy(h->name, p->host, sizeof h->name);
        }
        h->cores += p->threads;
        h->memory_bytes = fmin(h->memory_bytes, p->memory_bytes);
        h->tiles = h->tiles && p->tiles != 0;
    }
    for (int32_t i = 0; i < f->n_hosts; i++) {
        saf_plan_host *h = &f->hosts[i];
        h->reserve_bytes = SAF__RESERVE_PART * h->memory_bytes;
        h->f32_ops_s = h->cores * SAF__CORE_F32_OPS_S;
        h->int8_ops_s = SAF__INT8_TIMES * h->f32_ops_s;
        h->read_bytes_s = SAF__CORE_READ_BYTES_S * fmin(h->cores, SAF__READING_CORES);
    }
    SAF_TRY(saf_buf_printf(&f->source, "rules of thumb"));
out:
    return st;
}

/* What a host can do with so many of its cores at work. */
static void take_measured(const saf_plan_host *measured, saf_plan_host *h) {
    double part = fmin(1, (double)h->cores / measured->cores);
    h->read_bytes_s = fmin(measured->read_bytes_s, h->cores * measured->core_read_bytes_s);
    h->read_bytes_s = fmax(h->read_bytes_s, measured->read_bytes_s * part);
    h->int8_ops_s = measured->int8_ops_s * part;
    h->f32_ops_s = measured->f32_ops_s * part;
    h->core_read_bytes_s = measured->core_read_bytes_s;
    h->machine_read_bytes_s = measured->machine_read_bytes_s;
    h->machine_hosts = measured->machine_hosts;
    h->product_share = measured->product_share;
    h->hidden_share = measured->hidden_share;
    h->tiles = measured->tiles && h->tiles;
    h->link = measured->link;
    h->memory_bytes = fmin(h->memory_bytes, measured->memory_bytes);
    h->reserve_bytes = SAF__RESERVE_PART * h->memory_bytes;
}

/* *there: it is of these hosts, and of all of them. */
static saf_status take_profile(following *f, const saf_hosts_profile *p, bool *there) {
    saf_status st = SAF_OK;
    saf_plan_host *measured = NULL;
    int32_t *class_of = NULL;
    int64_t n;
    (void)saf_profile_hosts(p, &n);
    *there = false;
    if (n != f->n_hosts) return SAF_OK;
    for (int32_t i = 0; i < f->n_hosts; i++)
        if (saf__profile_find(p, f->hosts[i].name) < 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)n, sizeof *measured, &measured));
    SAF_TRY(saf_alloc((size_t)n, sizeof *class_of, &class_of));
    SAF_TRY(saf__profile_hosts(p, measured));
    (void)saf__hosts_alike(measured, (int32_t)n, class_of);
    for (int32_t i = 0; i < f->n_hosts; i++)
        take_measured(&measured[saf__profile_find(p, f->hosts[i].name)], &f->hosts[i]);
    *there = true;
out:
    saf_free(&measured);
    saf_free(&class_of);
    return st;
}

/* Of the profile in its usual place, which need not be there. */
static void say_unused(const char *path, const char *why) {
    saf_log(SAF_LOG_WARNING,
            "the profile %s is not used: %s; `saf detect` on these hosts measures anew", path, why);
}

/* The profile that the job names must be one of these hosts; the one in its usual place is taken
 * where it is good. */
static saf_status find_profile(following *f) {
    saf_status st = SAF_OK;
    saf_hosts_profile p = {0};
    const char *asked = f->s->job->run.profile;
    bool own = asked && *asked, there = false;
    char *path = NULL, why[256] = "";
    const char **names = NULL;
    char key[SAF_PROFILE_KEY_CHARS];
    if (own && strcmp(asked, "none") == 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)f->n_hosts, sizeof *names, (void *)&names));
    for (int32_t i = 0; i < f->n_hosts; i++) names[i] = f->hosts[i].name;
    SAF_TRY(saf_profile_key(names, f->n_hosts, key));
    SAF_TRY(own ? saf_strdup(asked, &path) : saf_profile_place(key, false, &path));
    if (!path || (!own && access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR)))
        goto out; /* none, as a rule */
    st = saf_profile_read(path, &p);
    if (st != SAF_OK && !own && st != SAF_NO_MEMORY) {
        say_unused(path, saf_error_text());
        st = SAF_OK;
        goto out;
    }
    SAF_TRY(st);
    saf_profile_stale(&p, why, sizeof why);
    if (why[0] && own)
        saf_log(SAF_LOG_WARNING, "the profile %s is stale: %s; `saf detect` measures anew", path,
                why);
    else if (why[0])
        say_unused(path, why);
    if (own || !why[0]) SAF_TRY(take_profile(f, &p, &there));
    if (own && !there) {
        st = saf_fail(SAF_BAD_INPUT,
                      "run.profile: %s is of other hosts than this run's; `saf detect --output %s` "
                      "under the same launcher measures these",
                      path, path);
        goto out;
    }
    if (!there && !why[0]) say_unused(path, "it is of other hosts");
    f->profiled = there;
    if (there) {
        saf_buf_clear(&f->source);
        SAF_TRY(saf_buf_printf(&f->source, "profile %s of %s", path, p.time));
    }
out:
    saf_profile_free(&p);
    saf_free((void *)&names);
    saf_free(&path);
    return st;
}

/* ---- the plan ---- */

static void describe_work(const saf__session *s, saf_plan_work *w) {
    double prompts = 0, sampled = 0;
    bool whole_rows = false;
    saf_schedule_wish wish = saf__schedule_wish(s);
    for (int32_t i = 0; i < s->work.n_requests; i++) {
        const saf_request *r = &s->work.requests[i];
        prompts += r->n_prompt;
        sampled += r->max_tokens;
        whole_rows = whole_rows || saf_work_whole_rows(&s->work, r);
    }
    double n = s->work.n_requests;
    *w = (saf_plan_work){
        .requests = s->work.n_requests,
        .prompt_tokens = prompts / n,
        .completion_tokens = sampled / n,
        .longest = wish.longest,
        .whole_rows = whole_rows,
        .candidates = saf_work_candidates(&s->work),
        .kv_type = (saf_kv_type)s->settings.kv_type,
        .sequences = wish.sequences,
        .micro_batch = wish.micro_batch,
        .chunk = wish.chunk,
        .replicas = s->settings.replicas,
        .stages = s->settings.n_stages > 0 ? s->settings.n_stages : s->settings.pipeline,
        .tensor = s->settings.tensor,
        .layers = s->settings.n_stages > 0 ? s->given_stages : NULL};
}

/* What the results say of it. A run that goes on does only what is left. */
static saf_status keep_plan(following *f, const saf_plan_choice *c, const saf_plan_work *w) {
    saf_status st = SAF_OK;
    saf__session *s = f->s;
    saf_result_plan *out = &s->results.plan;
    double tokens = (double)w->requests * (w->prompt_tokens + w->completion_tokens);
    if (s->restored || s->settings.dry_run) return SAF_OK;
    SAF_TRY(saf_strdup(f->source.data, &out->rates));
    out->first_token_s = c->first_token_s;
    out->token_s = c->token_s;
    out->run_s = c->job_s;
    out->tokens_per_s = tokens / c->job_s;
    out->network_share = c->network_share;
    SAF_TRY(saf_alloc((size_t)s->ranks, sizeof *out->ranks, &out->ranks));
    out->n_ranks = s->ranks;
    for (int32_t i = 0; i < s->ranks; i++) {
        out->ranks[i] = (saf_result_plan_rank){.rank = i, .memory_bytes = (int64_t)f->memory[i]};
        out->memory_bytes = saf_i64_max(out->memory_bytes, out->ranks[i].memory_bytes);
    }
out:
    return st;
}

static saf_status choose(following *f, const saf_layout *usual, const saf_plan_model *m) {
    saf_status st = SAF_OK;
    saf__session *s = f->s;
    saf_plan plan = {0};
    saf_plan_work work;
    saf_plan_ranks ranks = {.ranks = s->ranks,
                            .n_hosts = f->n_hosts,
                            .host = s->host,
                            .hosts = f->hosts,
                            .share = s->share,
                            .usual = {usual->replicas, usual->stages, usual->tensor},
                            .usual_gain = f->profiled ? PROFILE_GAIN : RULES_GAIN};
    describe_work(s, &work);
    SAF_TRY(saf_plan_of_ranks(m, &ranks, &work, 1, &plan, f->memory));
    if (plan.choices[0].fits && plan.choices[0].job_s < WORTH_S) {
        saf_plan_free(&plan);
        ranks.usual_gain = 1;
        SAF_TRY(saf_plan_of_ranks(m, &ranks, &work, 1, &plan, f->memory));
    }
    const saf_plan_choice *c = &plan.choices[0];
    bool unlike = false;
    if (!s->share) SAF_TRY(saf_plan_shares(m, &ranks, &work, c->by_memory, f->share, &unlike));
    s->planned = (saf__planned){.replicas = c->replicas,
                                .pipeline = c->stages,
                                .tensor = c->tensor,
                                .sequences = c->schedule.sequences,
                                .shares = unlike};
    SAF_TRY(keep_plan(f, c, &work));
    if (!c->fits)
        saf_log(SAF_LOG_WARNING,
                "no layout of these ranks fits: the fullest host would hold %.3g GB of the %.3g "
                "that it has without its reserve",
                c->host_bytes * 1e-9, c->room_bytes * 1e-9);
out:
    saf_plan_free(&plan);
    return st;
}

/* Rank 0. What cannot be laid out at all is left to saf_layout_choose, whose error says why. */
static saf_status plan_layout(following *f) {
    saf_status st = SAF_OK;
    saf__session *s = f->s;
    saf_plan_model m = {0};
    saf_layout usual = {0};
    saf_layout_wish wish = saf__layout_wish(s);
    size_t n = (size_t)s->ranks;
    if (s->work.n_requests == 0) return SAF_OK;
    st = saf_layout_choose(s->gguf, &s->params, &wish, &usual);
    if (st == SAF_USAGE) return SAF_OK;
    SAF_TRY(st);
    SAF_TRY(guess_hosts(f));
    SAF_TRY(find_profile(f));
    SAF_TRY(saf_alloc(n, sizeof *f->share, &f->share));
    SAF_TRY(saf_alloc(n, sizeof *f->memory, &f->memory));
    SAF_TRY(saf_plan_model_new(s->gguf, &s->params, (saf_kv_type)s->settings.kv_type, &m));
    st = choose(f, &usual, &m);
out:
    saf_plan_model_free(&m);
    saf_layout_free(&usual);
    return st;
}

saf_status saf__follow_plan(saf__session *s) {
    saf_status st = SAF_OK;
    following f = {.s = s};
    SAF_TRY(gather_places(&f));
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? plan_layout(&f) : SAF_OK));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &s->planned, sizeof s->planned);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    if (!s->planned.shares) goto out;
    SAF_TRY(saf_comm_agree(s->world, saf_alloc((size_t)s->ranks, sizeof *s->share, &s->share)));
    t = saf_tensor_1d(SAF_DTYPE_F64, s->share, s->ranks);
    if (s->rank == 0 && f.share) memcpy(s->share, f.share, (size_t)s->ranks * sizeof *s->share);
    st = saf_comm_bcast(s->world, 0, &t);
out:
    saf_free(&f.places);
    saf_free(&f.hosts);
    saf_free(&f.share);
    saf_free(&f.memory);
    saf_buf_free(&f.source);
    return st;
}
