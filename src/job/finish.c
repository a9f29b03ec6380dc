/* The table of ranks, and the results file. */
#include <assert.h>
#include <stdio.h>

#include "job/saver.h"

#ifndef SAF_COMMIT
#define SAF_COMMIT "unknown"
#endif

_Static_assert((int)SAF_COUNT_KINDS <= (int)SAF_CALL_KINDS_MAX, "raise the limit");

void saf__calls_fill(saf_result_rank *r) {
    saf_comm_counter counters[SAF_COUNT_KINDS];
    saf_comm_counters(counters);
    r->n_calls = SAF_COUNT_KINDS;
    for (int k = 0; k < SAF_COUNT_KINDS; k++) {
        saf_result_call *c = &r->calls[k];
        snprintf(c->kind, sizeof c->kind, "%s", saf_count_kind_name((saf_count_kind)k));
        c->calls = counters[k].calls;
        c->bytes = counters[k].bytes;
        c->wait_s = counters[k].wait_s;
    }
    r->bytes_sent = counters[SAF_COUNT_SEND].bytes;
    r->bytes_received = counters[SAF_COUNT_RECV].bytes;
}

/* Whether this rank has a place in the layout: all have, but those that only measure. */
static bool is_placed(const saf__session *s) {
    return s->rank < saf_layout_ranks(&s->layout);
}

static saf_status fill_weights(const saf__session *s, saf_result_rank *r) {
    saf_status st = SAF_OK;
    if (!is_placed(s)) return SAF_OK;
    size_t replicated = 0;
    saf_buf names = {0};
    r->weight_bytes = (int64_t)saf_slice_file_bytes(s->gguf, &s->params, s->range, &replicated);
    r->replicated_bytes = (int64_t)replicated;
    SAF_TRY(saf_slice_replicated_names(s->gguf, &s->params, s->range, &names));
    snprintf(r->replicated, sizeof r->replicated, "%s", names.data);
    if (s->slice) r->memory_weights_bytes = (int64_t)saf_slice_memory_bytes(s->slice);
out:
    saf_buf_free(&names);
    return st;
}

static saf_status fill_rank(saf__session *s, double run_s, saf_result_rank *r) {
    saf_place place = {0, 0, 0};
    if (is_placed(s)) place = saf_layout_place(&s->layout, s->rank);
    *r = (saf_result_rank){.rank = s->rank,
                           .replica = place.replica,
                           .stage = place.stage,
                           .part = place.part,
                           .threads = s->settings.threads,
                           .cores = s->binding.cores,
                           .layer0 = (int32_t)s->range.layer0,
                           .layer1 = (int32_t)s->range.layer1,
                           .head0 = (int32_t)s->range.heads.begin,
                           .head1 = (int32_t)s->range.heads.end};
    snprintf(r->host, sizeof r->host, "%s", saf_comm_host(s->world));
    snprintf(r->kernels, sizeof r->kernels, "%s", saf_kernels_name());
    if (s->kv) r->memory_kv_bytes = (int64_t)saf_kv_cache_bytes(s->kv);
    r->peak_memory_bytes = (int64_t)saf_peak_memory_bytes();
    r->weights_from = is_placed(s) ? s->giver[s->rank] : s->rank;
    r->load_s = s->slice_s;
    r->compute_s = s->times.compute_s;
    r->wait_s = s->times.wait_s;
    r->busy = run_s > 0 ? s->times.compute_s / run_s : 0;
    saf__calls_fill(r);
    return fill_weights(s, r);
}

saf_status saf__ranks_gather(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf mine = {0}, *all = NULL;
    saf_result_rank row;
    double run_s = s->results.run_s - s->before_s; /* this run's */
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, &run_s, 1);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    st = fill_rank(s, run_s, &row);
    if (st == SAF_OK) st = saf_buf_append(&mine, &row, sizeof row);
    if (st == SAF_OK) st = saf_alloc((size_t)s->ranks, sizeof *all, &all);
    if (st == SAF_OK && s->rank == 0)
        st = saf_alloc((size_t)s->ranks, sizeof *s->results.ranks, &s->results.ranks);
    SAF_TRY(saf_comm_agree(s->world, st));
    assert(all); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(s->world, 0, &mine, all));
    if (s->rank == 0) {
        s->results.n_ranks = s->ranks;
        for (int r = 0; r < s->ranks; r++) memcpy(&s->results.ranks[r], all[r].data, sizeof row);
    }
out:
    for (int r = 0; all && r < s->ranks; r++) saf_buf_free(&all[r]);
    saf_free(&all);
    saf_buf_free(&mine);
    return st;
}

saf_status saf__header_fill(saf_results *r, const saf_job *job, const saf_run_options *options) {
    saf_status st = SAF_OK;
    char now[32];
    SAF_TRY(saf_strdup(SAF_VERSION, &r->version));
    SAF_TRY(saf_strdup(SAF_COMMIT, &r->commit));
    SAF_TRY(saf_strdup(saf_job_kind_name(job->kind), &r->kind));
    SAF_TRY(saf_strdup(job->text, &r->job_text));
    SAF_TRY(saf_strdup(options->command_line, &r->command_line));
    saf_clock_iso8601(now);
    SAF_TRY(saf_strdup(now, &r->end_time));
    st = saf_strdup("done", &r->exit_state);
out:
    return st;
}

/* The root attributes that do not come from the run itself. */
static saf_status fill_header(saf__session *s) {
    saf_status st = SAF_OK;
    saf_results *r = &s->results;
    saf_buf layout = {0};
    if (saf_layout_ranks(&s->layout) > 0)
        SAF_TRY(saf_layout_text(&s->layout, &layout));
    else
        SAF_TRY(saf_buf_printf(&layout, "%d rank%s", s->ranks, s->ranks == 1 ? "" : "s"));
    SAF_TRY(saf__header_fill(r, s->job, s->options));
    SAF_TRY(saf_strdup(layout.data, &r->layout));
    if (s->gguf) {
        if (!s->job->model.shape) SAF_TRY(saf_strdup(s->model_path, &r->model_path));
        SAF_TRY(saf_strdup(s->params.name, &r->model_name));
        SAF_TRY(saf_strdup(s->model_sha256, &r->model_sha256));
    }
    SAF_TRY(saf_strdup(saf_kernels_name(), &r->kernels));
    r->vocab = s->params.vocab;
    for (int64_t i = 0; i < r->n_requests; i++)
        if (strcmp(r->requests[i].state, "done") == 0)
            r->prompt_tokens += r->requests[i].prompt_tokens;
out:
    saf_buf_free(&layout);
    return st;
}

static saf_status write_file(saf__session *s) {
    saf_status st = SAF_OK;
    bool bench = s->job->kind == SAF_JOB_BENCH;
    if (!bench) SAF_TRY(s->work.score ? saf__score_rows(s) : saf__generate_rows(s));
    SAF_TRY(fill_header(s));
    if (!bench) SAF_TRY(saf_results_hash(s->writer, &s->results));
    SAF_TRY(saf_results_finish(s->writer, &s->results));
out:
    return st;
}

/* Nothing is lost if the results cannot be written. */
static void keep_state(saf__session *s) {
    char why[2048];
    snprintf(why, sizeof why, "%s", saf_error_text());
    if (s->work.logits || saf__saver_flush(s, false) != SAF_OK) return;
    (void)saf_fail(SAF_IO, "%s", why);
}

saf_status saf__results_write(saf__session *s) {
    saf_comm_watch_phase("writing");
    saf_status st = saf__ranks_gather(s);
    if (st == SAF_OK && s->rank == 0) {
        saf__saver_results(s);
        st = write_file(s);
        if (st == SAF_OK) {
            saf__saver_end(s);
            st = saf_checkpoints_remove(s->job->output.file);
        } else {
            keep_state(s);
        }
    }
    return saf_comm_agree(s->world, st);
}
