/* What happens in every kind of job when requests come, fail and go. */
#include <stdio.h>

#include "job/saver.h"

double saf__run_time_s(const saf__session *s) {
    return saf_clock_s() - s->run_start_s;
}

void saf__event_admitted(void *ctx, int32_t request) {
    saf__session *s = ctx;
    saf__course *c = &s->live[request].course;
    saf__state_lock(s);
    c->replica = saf_layout_place(&s->layout, s->rank).replica;
    c->admitted_s = saf__run_time_s(s);
    saf__state_unlock(s);
}

void saf__event_fault(void *ctx, int32_t request, int32_t layer, int32_t position) {
    saf__session *s = ctx;
    saf__course *c = &s->live[request].course;
    saf__state_lock(s);
    c->end = SAF__ENDED_ERROR;
    c->fault_layer = layer;
    c->fault_position = position;
    saf__state_unlock(s);
}

/* Where nobody watches a bar, lines for the log: after 5 seconds, then at twice the time of the one
 * before, at last every ten minutes. */
static void log_progress(saf__session *s, double now) {
    double seconds = now - s->run_start_s;
    if (seconds < s->log_after_s) return;
    s->log_after_s = seconds + (seconds < 600 ? seconds : 600);
    saf_log(SAF_LOG_INFO, "%lld of %d requests done, %lld tokens in %.0f s", (long long)s->finished,
            s->n_live, (long long)s->sampled_tokens, seconds);
}

/* Another head tells rank 0, which draws. */
static void tell_progress(saf__session *s, double now) {
    if (now - s->progress_s < 0.25) return;
    s->progress_s = now;
    saf_status st = saf__report_progress(s);
    if (st != SAF_OK && s->status == SAF_OK) s->status = st;
}

void saf__progress_draw(saf__session *s, bool last) {
    double now = saf_clock_s();
    if (s->rank != 0) {
        tell_progress(s, now);
        return;
    }
    if (!s->progress && !s->stream && !s->options->quiet && !last) log_progress(s, now);
    if (!s->progress || (!last && now - s->progress_s < 0.25)) return;
    s->progress_s = now;
    double seconds = now - s->run_start_s;
    int width = 30;
    int done = s->n_live ? (int)(s->finished * width / s->n_live) : width;
    fprintf(stderr, "\r[%.*s%*s] %lld/%d requests, %lld tokens, %.1f tokens/s%s", done,
            "==============================", width - done, "", (long long)s->finished, s->n_live,
            (long long)s->sampled_tokens, seconds > 0 ? (double)s->sampled_tokens / seconds : 0,
            last ? "\n" : "");
    fflush(stderr);
}

/* The first call is soon enough to see the start: from then on the rate is counted. */
void saf__loading_draw(void *ctx, size_t bytes, size_t total) {
    saf__session *s = ctx;
    double now = saf_clock_s();
    bool last = bytes == total;
    if (s->loading_s == 0) s->loading_s = now;
    if (s->loading_over || (!last && now - s->progress_s < 0.25)) return;
    s->progress_s = now;
    s->loading_over = last;
    double seconds = now - s->loading_s;
    fprintf(stderr, "\rloading: %.0f of %.0f MB, %.0f MB/s%s", (double)bytes / 1e6,
            (double)total / 1e6, seconds > 0 ? (double)bytes / 1e6 / seconds : 0,
            last ? "\n" : "  ");
    fflush(stderr);
}

void saf__loading_end(saf__session *s) {
    if (s->loading_s > 0 && !s->loading_over) fputs("\n", stderr);
    s->loading_over = true;
}

void saf__event_done(void *ctx, int32_t request) {
    saf__session *s = ctx;
    saf_status st = saf__report_done(s, request);
    if (st != SAF_OK && s->status == SAF_OK) s->status = st;
}

saf_status saf__row_finish(saf__session *s, const saf__live *l, saf_result_request *row) {
    static const char *const reasons[] = {
        [SAF__ENDED_NOT] = "",          [SAF__ENDED_EOS] = "eos",
        [SAF__ENDED_STOP] = "stop",     [SAF__ENDED_LENGTH] = "length",
        [SAF__ENDED_SCORED] = "scored", [SAF__ENDED_ERROR] = "error"};
    const saf__course *c = &l->course;
    bool failed = c->end == SAF__ENDED_ERROR;
    char where[32] = "the output head", why[128];
    snprintf(row->state, sizeof row->state, "%s", failed ? "failed" : "done");
    snprintf(row->finish_reason, sizeof row->finish_reason, "%s", reasons[c->end]);
    row->replica = c->replica;
    row->queue_s = c->admitted_s;
    row->logits_row0 = l->logits_row0;
    row->logits_rows = l->logits_rows;
    if (!failed) return SAF_OK;
    s->results.failed_requests++;
    if (c->fault_layer < s->params.layers)
        snprintf(where, sizeof where, "layer %d", c->fault_layer);
    snprintf(why, sizeof why, "a value that is not finite left %s at position %d", where,
             c->fault_position);
    saf_free(&row->error);
    return saf_strdup(why, &row->error);
}
