/* From a job file to a loaded stage on every rank. */
#include <stdlib.h>

#include "job/caches.h"
#include "job/hosts.h"
#include "job/saver.h"

/* A list of rank 0's reaches everybody; the others have room for it. */
static saf_status share_list(saf__session *s, saf_dtype dtype, void *list, const void *given,
                             int32_t n, size_t each) {
    if (n == 0) return SAF_OK;
    saf_tensor t = saf_tensor_1d(dtype, list, n);
    if (s->rank == 0) memcpy(list, given, (size_t)n * each);
    return saf_comm_bcast(s->world, 0, &t);
}

static saf_status share_lists(saf__session *s) {
    saf_status st = SAF_OK;
    size_t n = (size_t)s->settings.n_stages, m = (size_t)s->settings.n_share;
    st = saf_alloc(n, sizeof *s->given_stages, &s->given_stages);
    if (st == SAF_OK) st = saf_alloc(m, sizeof *s->given_share, &s->given_share);
    SAF_TRY(saf_comm_agree(s->world, st));
    SAF_TRY(share_list(s, SAF_DTYPE_I32, s->given_stages, s->job->layout.stages,
                       s->settings.n_stages, sizeof *s->given_stages));
    SAF_TRY(share_list(s, SAF_DTYPE_F64, s->given_share, s->job->layout.share, s->settings.n_share,
                       sizeof *s->given_share));
out:
    return st;
}

/* Rank 0's settings, model path and lists reach everybody. */
static saf_status share_settings(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    const saf_job *job = s->job;
    if (s->rank == 0) {
        s->settings = (saf__settings){.kind = job->kind,
                                      .kv_type = job->model.kv_type,
                                      .threads = job->layout.threads,
                                      .replicas = job->layout.replicas,
                                      .pipeline = job->layout.pipeline,
                                      .tensor = job->layout.tensor,
                                      .n_stages = job->layout.n_stages,
                                      .n_share = job->layout.n_share,
                                      .dry_run = s->options->dry_run,
                                      .trace = job->run.trace,
                                      .kv = job->checkpoint.kv,
                                      .watchdog_seconds = job->run.watchdog_seconds,
                                      .checkpoint_seconds = job->checkpoint.every_seconds};
        const char *model = s->made_path ? s->made_path : job->model.path;
        st = saf_buf_append(&path, model ? model : "", model ? strlen(model) : 0);
    }
    SAF_TRY(saf_comm_agree(s->world, st));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &s->settings, sizeof s->settings);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    SAF_TRY(saf_comm_bcast_buf(s->world, 0, &path));
    SAF_TRY(saf_comm_agree(s->world, saf_strdup(path.len > 0 ? path.data : "", &s->model_path)));
    SAF_TRY(share_lists(s));
out:
    saf_buf_free(&path);
    return st;
}

/* What each rank may take of its host. Memory: the least that a rank has, for all have the same
 * number of sequences. */
static saf_status share_hosts(saf__session *s) {
    saf_status st = SAF_OK;
    saf__host_share mine;
    SAF_TRY(saf__hosts_share(s->world, s->settings.threads, &mine, &s->host));
    s->settings.threads = mine.threads;
    s->binding = mine.binding;
    s->memory_bytes = mine.memory_bytes;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &s->memory_bytes, 1);
    SAF_TRY(saf_comm_allreduce(s->world, SAF_OP_MIN, &t));
out:
    return st;
}

/* The other heads decide about what they run as rank 0 does; all ranks measure. */
static saf_status share_job(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    bool bench = s->settings.kind == SAF_JOB_BENCH;
    if (!bench && (s->layout.replicas == 1 || s->settings.kind != SAF_JOB_GENERATE)) return SAF_OK;
    if (s->rank == 0) st = saf_buf_append(&text, s->job->text, strlen(s->job->text));
    SAF_TRY(saf_comm_agree(s->world, st));
    SAF_TRY(saf_comm_bcast_buf(s->world, 0, &text));
    if ((s->head || bench) && s->rank != 0) {
        st = saf__job_of_text(text.data, "rank 0's job", &s->given_job);
        s->job = &s->given_job;
    }
    SAF_TRY(saf_comm_agree(s->world, st));
out:
    saf_buf_free(&text);
    return st;
}

/* Rank 0's requests. */
static saf_status make_requests(saf__session *s) {
    saf_status st = SAF_OK;
    if (s->rank != 0) return SAF_OK;
    SAF_TRY(saf_tokenizer_new(s->gguf, &s->tokenizer));
    SAF_TRY(saf__requests_make(s));
    if (!s->settings.dry_run) SAF_TRY(saf__again_look(s));
out:
    return st;
}

/* Whether there is anything to do. */
static saf_status share_over(saf__session *s) {
    int32_t over = s->over;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &over, 1);
    saf_status st = saf_comm_bcast(s->world, 0, &t);
    s->over = over != 0;
    return st;
}

/* Of a job that goes on: which tokens at the end of each prompt are of its completion. */
static saf_status share_given(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf given = {0};
    size_t n = (size_t)s->work.n_requests, each = sizeof s->live->given;
    for (size_t i = 0; st == SAF_OK && s->restored && i < n; i++)
        st = saf_buf_append(&given, &s->live[i].given, each);
    SAF_TRY(saf_comm_agree(s->world, st));
    SAF_TRY(saf_comm_bcast_buf(s->world, 0, &given));
    for (size_t i = 0; s->rank != 0 && s->head && given.len == n * each && i < n; i++)
        memcpy(&s->live[i].given, given.data + i * each, each);
out:
    saf_buf_free(&given);
    return st;
}

/* What a rank needs for its place in the layout. */
static saf_status take_place(saf__session *s) {
    saf_status st = SAF_OK;
    if (s->rank == 0) return saf__schedule_choose(s);
    if (s->head && s->settings.kind == SAF_JOB_GENERATE)
        SAF_TRY(saf_tokenizer_new(s->gguf, &s->tokenizer));
    else
        saf_gguf_drop_keys(s->gguf);
    if (!s->head) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)s->work.n_requests, sizeof *s->live, &s->live));
    s->n_live = s->work.n_requests;
out:
    return st;
}

saf_status saf__session_open(saf__session *s) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("opening");
    if (s->rank == 0 && s->job->model.shape) st = saf__bench_make_model(s);
    SAF_TRY(saf_comm_agree(s->world, st));
    SAF_TRY(share_settings(s));
    SAF_TRY(saf_comm_watch(s->world, s->settings.watchdog_seconds));
    SAF_TRY(share_hosts(s));
    if (s->settings.kind == SAF_JOB_BENCH) {
        SAF_TRY(share_job(s));
        return saf__bench_open(s);
    }
    SAF_TRY(saf__model_open(s));
    SAF_TRY(saf_comm_agree(s->world, make_requests(s)));
    SAF_TRY(share_over(s));
    if (s->over) return SAF_OK;
    SAF_TRY(saf_work_bcast(s->world, 0, &s->work));
    SAF_TRY(saf__layout_make(s));
    if (s->rank == 0) saf__plan_warn(s);
    saf_place place = saf_layout_place(&s->layout, s->rank);
    s->head = place.stage == 0 && place.part == 0;
    SAF_TRY(share_job(s));
    SAF_TRY(saf_comm_agree(s->world, take_place(s)));
    SAF_TRY(share_given(s));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &s->schedule, sizeof s->schedule);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
out:
    return st;
}

static saf_status load_slice(saf__session *s) {
    saf_load_times times;
    double start = saf_clock_s();
    saf_load_events events = {s, s->rank == 0 && s->watched ? saf__loading_draw : NULL};
    saf_status st = saf_load_slices(s->world, s->gguf, &s->params, &s->layout, s->giver, &events,
                                    &times, &s->slice);
    saf__loading_end(s);
    if (times.apart && s->ranks > 1) {
        saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
        saf_comm_abort(s->world, saf_status_exit_code(st));
    }
    s->slice_s = times.slice_s;
    s->slices_s = saf_clock_s() - start;
    return st;
}

/* What the caches take of memory while loading: the beginning of every sequence, which is needed in
 * any case, and all of it where that is little beside the weights. */
static void touch_caches(saf__session *s) {
    enum { WEIGHTS = 2 }; /* as large as so many caches, at least */
    bool all = WEIGHTS * saf_kv_cache_bytes(s->kv) <= saf_slice_memory_bytes(s->slice);
    saf_kv_cache_touch(s->kv, s->work.n_requests, all ? s->schedule.capacity : 1);
}

static saf_status make_stage(saf__session *s) {
    saf_status st = SAF_OK;
    const saf_schedule *c = &s->schedule;
    SAF_TRY(saf_kv_cache_new(&s->params, s->range, (saf_kv_type)s->settings.kv_type, c->sequences,
                             c->capacity, &s->kv));
    touch_caches(s);
    SAF_TRY(saf_stage_new(&s->params, s->slice, s->kv,
                          saf_schedule_room(c, &s->work, s->range.head), saf_group_stage(s->group),
                          &s->stage));
out:
    return st;
}

saf_status saf__session_load(saf__session *s) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("loading");
    SAF_TRY(load_slice(s));
    SAF_TRY(saf_group_new(s->world, &s->layout, &s->params, &s->work, &s->schedule, &s->group));
    SAF_TRY(saf_comm_agree(s->world, make_stage(s)));
    SAF_TRY(saf_comm_barrier(s->world));
out:
    return st;
}

void saf__live_free(saf__live *l) {
    saf_ids_free(&l->completion);
    saf_buf_free(&l->bytes);
    saf_buf_free(&l->logprobs);
    saf_buf_free(&l->top_ids);
    saf_buf_free(&l->top_logprobs);
    saf_buf_free(&l->logits);
}

void saf__session_close(saf__session *s) {
    saf__saver_end(s);
    saf_checkpoint_free(&s->restored);
    saf__caches_close(s);
    saf_buf_free(&s->held);
    for (int32_t i = 0; s->live && i < s->n_live; i++) saf__live_free(&s->live[i]);
    saf_free(&s->live);
    saf_prompts_free(&s->prompts, s->n_prompts);
    saf_results_writer_free(&s->writer);
    saf_results_free(&s->results);
    saf_tokenizer_free(&s->tokenizer);
    saf_trace_free(&s->trace);
    saf_stage_free(&s->stage);
    saf_group_free(&s->group);
    saf_kv_cache_free(&s->kv);
    saf_slice_free(&s->slice);
    saf_layout_free(&s->layout);
    saf_model_params_free(&s->params);
    saf_gguf_close(&s->gguf);
    saf_work_free(&s->work);
    saf__bench_unlink_model(s);
    saf_job_free(&s->given_job);
    saf_free(&s->model_path);
    saf_free(&s->model_sha256);
    saf_free(&s->giver);
    saf_free(&s->given_stages);
    saf_free(&s->given_share);
    saf_free(&s->host);
    saf_free(&s->share);
}
