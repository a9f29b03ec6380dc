/* A plan of a job: its model's header, its requests' lengths, and the hosts. */
#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "job/plan/plan_hosts.h"
#include "job/session.h"
#include "saf/job_hosts.h"
#include "saf/job_plan.h"

/* ---- the model ---- */

/* The header alone of the model that a bench job would make. */
static saf_status open_made(const saf_job *job, saf_gguf **out) {
    saf_status st = SAF_OK;
    saf_buf folder = {0}, path = {0};
    const char *in = getenv("TMPDIR");
    bool made = false;
    saf_model_make_options o = {.arch = saf_arch_name(job->model.arch),
                                .context = INT32_MAX,
                                .vocab_size = job->model.vocab,
                                .dtype = saf_job_made_type(job),
                                .tied = job->model.tied,
                                .header_only = true};
    if (!saf_model_shape_read(job->model.shape, &o))
        return saf_fail(SAF_DEFECT, "a shape that was checked is wrong: %s", job->model.shape);
    SAF_TRY(saf_buf_printf(&folder, "%s/saf-plan-XXXXXX", in && *in ? in : "/tmp"));
    if (!mkdtemp(folder.data)) {
        st = saf_fail(SAF_CANNOT_CREATE, "%s: %s", folder.data, strerror(errno));
        goto out;
    }
    made = true;
    SAF_TRY(saf_buf_printf(&path, "%s/model.gguf", folder.data));
    SAF_TRY(saf_model_make(path.data, &o));
    st = saf_gguf_open(path.data, out);
    (void)unlink(path.data);
out:
    if (made) (void)rmdir(folder.data);
    saf_buf_free(&folder);
    saf_buf_free(&path);
    return st;
}

/* ---- the requests ---- */

static void bench_work(const saf_job *job, saf_plan_work *work) {
    work->requests = job->bench.sequences;
    work->candidates = 1;
    work->prompt_tokens = job->bench.prompt_tokens;
    work->completion_tokens = job->bench.decode_tokens;
    work->longest = job->bench.prompt_tokens + job->bench.decode_tokens;
}

/* As the job itself would see them. */
static saf_status read_requests(const saf_job *job, saf__session *s, saf_plan_work *work) {
    saf_status st = SAF_OK;
    double prompts = 0, sampled = 0;
    SAF_TRY(saf_tokenizer_new(s->gguf, &s->tokenizer));
    SAF_TRY(saf__requests_make(s));
    for (int32_t i = 0; i < s->work.n_requests; i++) {
        const saf_request *r = &s->work.requests[i];
        prompts += r->n_prompt;
        sampled += r->max_tokens;
        work->longest = saf_i64_max(work->longest, r->n_prompt + r->max_tokens);
        work->whole_rows = work->whole_rows || saf_work_whole_rows(&s->work, r);
    }
    work->requests = s->work.n_requests;
    work->candidates = saf_work_candidates(&s->work);
    if (work->requests == 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: none of its requests can run", job->path);
        goto out;
    }
    work->prompt_tokens = prompts / (double)work->requests;
    work->completion_tokens = sampled / (double)work->requests;
out:
    return st;
}

static saf_status make_work(const saf_job *job, saf__session *s, saf_plan_work *work) {
    *work = (saf_plan_work){
        .kv_type = job->model.kv_type,
        .sequences = job->run.sequences,
        .micro_batch = job->run.micro_batch,
        .chunk = job->run.chunk,
        .threads = job->layout.threads,
        .replicas = job->layout.replicas,
        .stages = job->layout.n_stages > 0 ? job->layout.n_stages : job->layout.pipeline,
        .tensor = job->layout.tensor,
        .layers = job->layout.n_stages > 0 ? job->layout.stages : NULL};
    if (job->layout.n_stages > 0 && job->layout.pipeline > 0 &&
        job->layout.pipeline != job->layout.n_stages)
        return saf_fail(SAF_USAGE, "layout.stages names %d stages, but layout.pipeline is %d",
                        job->layout.n_stages, job->layout.pipeline);
    if (job->kind != SAF_JOB_BENCH) return read_requests(job, s, work);
    bench_work(job, work);
    return SAF_OK;
}

/* ---- the hosts ---- */

/* The yardsticks of this host, by all cores that this process may use. */
static saf_status measure_host(saf_plan_host *out) {
    enum { SAMPLES = 5 };
    saf_status st = SAF_OK;
    saf_hw_binding host;
    saf_hw_yardstick *y = NULL;
    saf_hw_rates rates;
    double read[SAMPLES], int8[SAMPLES], f32[SAMPLES], share[SAMPLES], hidden[SAMPLES];
    double core[SAMPLES];
    SAF_TRY(saf_hw_binding_read(&host));
    int threads = omp_get_max_threads();
    omp_set_num_threads(host.cores);
    st = saf_hw_yardstick_new(0, &y);
    for (int i = 0; st == SAF_OK && i < SAMPLES; i++) {
        saf_hw_yardstick_sample(y, &rates);
        read[i] = rates.read_bytes_s;
        int8[i] = rates.int8_ops_s;
        f32[i] = rates.f32_ops_s;
        share[i] = rates.product_share;
        hidden[i] = rates.hidden_share;
        core[i] = saf_hw_yardstick_read_one(y);
        out->tiles = rates.tile_ops_s > 0;
    }
    omp_set_num_threads(threads);
    SAF_TRY(st);
    snprintf(out->name, sizeof out->name, "this host");
    out->count = out->ranks = 1;
    out->cores = host.cores;
    out->memory_bytes = (double)host.memory_bytes;
    out->reserve_bytes = SAF__RESERVE_PART * out->memory_bytes;
    out->read_bytes_s = saf_median(read, SAMPLES);
    out->int8_ops_s = saf_median(int8, SAMPLES);
    out->f32_ops_s = saf_median(f32, SAMPLES);
    out->product_share = saf_median(share, SAMPLES);
    out->hidden_share = saf_median(hidden, SAMPLES);
    out->core_read_bytes_s = saf_median(core, SAMPLES);
out:
    saf_hw_yardstick_free(&y);
    return st;
}

/* Hosts of a hostfile are taken to be like this one; those with as many slots are one class. */
static saf_status add_hostfile(const char *path, saf_job_plan *p) {
    saf_status st = SAF_OK;
    saf_hostfile file = {0};
    int32_t *slots = NULL;
    const saf_plan_host like = p->classes[0];
    SAF_TRY(saf_hostfile_read(path, &file));
    SAF_TRY(saf_alloc((size_t)file.n_hosts, sizeof *slots, &slots));
    for (int32_t i = 0; i < file.n; i++)
        slots[file.lines[i].host] += file.lines[i].slots > 0 ? file.lines[i].slots : 1;
    SAF_TRY(saf_alloc((size_t)file.n_hosts, sizeof *p->class_of, &p->class_of));
    p->n_hosts = file.n_hosts;
    p->cluster.n = 0;
    for (int32_t i = 0; i < file.n_hosts; i++) {
        int32_t ranks = slots[i] < SAF_PLAN_RANKS_MAX ? slots[i] : SAF_PLAN_RANKS_MAX, at = 0;
        while (at < p->cluster.n && p->classes[at].ranks != ranks) at++;
        if (at == SAF_PLAN_CLASSES_MAX) {
            st = saf_fail(SAF_BAD_INPUT, "%s: more than %d different numbers of slots", path,
                          SAF_PLAN_CLASSES_MAX);
            goto out;
        }
        if (at == p->cluster.n) {
            p->classes[p->cluster.n++] = like;
            p->classes[at].count = 0;
            p->classes[at].ranks = ranks;
            snprintf(p->classes[at].name, sizeof p->classes[at].name, "hosts of %d slot%s", ranks,
                     ranks == 1 ? "" : "s");
        }
        p->classes[at].count++;
        p->class_of[i] = at;
    }
out:
    saf_free(&slots);
    saf_hostfile_free(&file);
    return st;
}

static saf_status find_hosts(const saf_job_plan_options *o, saf_job_plan *p) {
    saf_status st = SAF_OK;
    p->cluster.max_ranks = o->ranks;
    if (o->cluster) {
        st = saf_cluster_read(o->cluster, &p->classes, &p->cluster.n);
    } else if (o->profile) {
        SAF_TRY(saf_alloc(SAF_PLAN_CLASSES_MAX, sizeof *p->classes, &p->classes));
        SAF_TRY(saf__plan_profile(o, p));
        p->profiled = true;
    } else {
        SAF_TRY(saf_alloc(SAF_PLAN_CLASSES_MAX, sizeof *p->classes, &p->classes));
        SAF_TRY(measure_host(&p->classes[0]));
        p->measured = true;
        p->cluster.n = 1;
        p->classes[0].link = (saf_plan_link){o->link_gbit * 1e9 / 8, o->latency_us * 1e-6, 0};
        if (o->hosts)
            SAF_TRY(add_hostfile(o->hosts, p));
        else if (o->ranks > 0)
            p->classes[0].ranks = o->ranks;
    }
    p->cluster.classes = p->classes;
out:
    return st;
}

/* ---- shares by hand ---- */

/* n ranks on the hosts in the order given, as a launcher would place them. Returns how many hosts
 * they take. */
static int32_t place_ranks(const saf_job_plan *p, int32_t n, int32_t *host, saf_plan_host *each) {
    int32_t hosts = 0, at = 0, class = 0, of_class = 0;
    for (; at < n; hosts++) {
        each[hosts] = p->classes[p->class_of ? p->class_of[hosts] : class];
        for (int32_t r = 0; r < each[hosts].ranks && at < n; r++) host[at++] = hosts;
        if (++of_class < p->classes[class].count) continue;
        class ++;
        of_class = 0;
    }
    return hosts;
}

/* Of all ranks of the hosts. */
static saf_status plan_shares(const saf_job *job, const saf_job_plan_options *o, saf_job_plan *p) {
    enum { MOST = 4096 };
    saf_status st = SAF_OK;
    int64_t n = 0;
    int32_t *host = NULL;
    saf_plan_host *each = NULL;
    double *share = NULL;
    for (int32_t c = 0; c < p->cluster.n; c++)
        n += (int64_t)p->classes[c].count * p->classes[c].ranks;
    if (o->ranks > 0) n = saf_i64_min(n, o->ranks);
    if (n > MOST)
        return saf_fail(SAF_USAGE, "layout.share over %lld ranks, expected at most %d",
                        (long long)n, MOST);
    SAF_TRY(saf_alloc((size_t)n, sizeof *host, &host));
    SAF_TRY(saf_alloc((size_t)n, sizeof *each, &each));
    SAF_TRY(saf_alloc((size_t)n, sizeof *share, &share));
    SAF_TRY(saf__shares_spread(job->layout.share, job->layout.n_share, host, (int32_t)n, share));
    int32_t hosts = place_ranks(p, (int32_t)n, host, each);
    saf_plan_ranks ranks = {
        .ranks = (int32_t)n, .n_hosts = hosts, .host = host, .hosts = each, .share = share};
    st = saf_plan_of_ranks(&p->model, &ranks, &p->work, o->keep, &p->plan, NULL);
out:
    saf_free(&host);
    saf_free(&each);
    saf_free(&share);
    return st;
}

/* ---- the whole ---- */

saf_status saf_job_plan_make(const saf_job *job, const saf_job_plan_options *o, saf_job_plan *out) {
    saf_status st = SAF_OK;
    saf_run_options options = {.quiet = true, .command_line = ""};
    saf__session s = {.job = job, .options = &options, .ranks = 1};
    *out = (saf_job_plan){0};
    if (!job->model.shape && !job->model.path)
        return saf_fail(SAF_USAGE, "%s: a job without a model: there is no layout to plan",
                        job->path);
    if (job->model.shape)
        SAF_TRY(open_made(job, &s.gguf));
    else
        SAF_TRY(saf_gguf_open(job->model.path, &s.gguf));
    SAF_TRY(saf_kernels_init(NULL));
    SAF_TRY(saf_model_params_read(s.gguf, &s.params));
    SAF_TRY(make_work(job, &s, &out->work));
    SAF_TRY(find_hosts(o, out));
    out->gguf = s.gguf;
    out->params = s.params;
    s.gguf = NULL;
    s.params = (saf_model_params){0};
    double start = saf_clock_s();
    SAF_TRY(saf_plan_model_new(out->gguf, &out->params, job->model.kv_type, &out->model));
    if (job->layout.n_share > 0)
        SAF_TRY(plan_shares(job, o, out));
    else
        SAF_TRY(saf_plan_make(&out->model, &out->cluster, &out->work, o->keep, &out->plan));
    out->seconds = saf_clock_s() - start;
out:
    saf__session_close(&s);
    if (st != SAF_OK) saf_job_plan_free(out);
    return st;
}

void saf_job_plan_free(saf_job_plan *p) {
    saf_plan_free(&p->plan);
    saf_plan_model_free(&p->model);
    saf_model_params_free(&p->params);
    saf_gguf_close(&p->gguf);
    saf_free(&p->classes);
    saf_free(&p->class_of);
    *p = (saf_job_plan){0};
}
