/* What happens in every kind of job when requests come, fail and go. */
#include <stdio.h>

#include "job/session.h"

saf_result_request *saf__row_of(saf__session *s, const saf__live *l) {
    return &s->results.requests[l->row];
}

void saf__set_reason(saf_result_request *row, const char *reason) {
    snprintf(row->finish_reason, sizeof row->finish_reason, "%s", reason);
}

void saf__event_admitted(void *ctx, int32_t request) {
    saf__session *s = ctx;
    saf__live *l = &s->live[request];
    l->admitted_s = saf_clock_s();
    saf__row_of(s, l)->queue_s = l->admitted_s - s->run_start_s;
}

void saf__event_fault(void *ctx, int32_t request, int32_t layer, int32_t position) {
    saf__session *s = ctx;
    saf_result_request *row = saf__row_of(s, &s->live[request]);
    char where[32] = "the output head", why[128];
    if (layer < s->params.layers) snprintf(where, sizeof where, "layer %d", layer);
    snprintf(why, sizeof why, "a value that is not finite left %s at position %d", where, position);
    snprintf(row->state, sizeof row->state, "failed");
    saf__set_reason(row, "error");
    s->results.failed_requests++;
    if (saf_strdup(why, &row->error) != SAF_OK) row->error = NULL;
}

/* Where nobody watches a bar, lines for the log: after 5 seconds, then at twice the time of the one
 * before, at last every ten minutes. */
static void log_progress(saf__session *s, double now) {
    double seconds = now - s->run_start_s;
    if (seconds < s->log_after_s) return;
    s->log_after_s = seconds + (seconds < 600 ? seconds : 600);
    saf_log(SAF_LOG_INFO, "%lld of %d requests done, %lld tokens in %.0f s", (long long)s->finished,
            s->work.n_requests, (long long)s->sampled_tokens, seconds);
}

void saf__progress_draw(saf__session *s, bool last) {
    double now = saf_clock_s();
    if (!s->progress && !s->stream && !s->options->quiet && !last) log_progress(s, now);
    if (!s->progress || (!last && now - s->progress_s < 0.25)) return;
    s->progress_s = now;
    double seconds = now - s->run_start_s;
    int width = 30;
    int done = s->work.n_requests ? (int)(s->finished * width / s->work.n_requests) : width;
    fprintf(stderr, "\r[%.*s%*s] %lld/%d requests, %lld tokens, %.1f tokens/s%s", done,
            "==============================", width - done, "", (long long)s->finished,
            s->work.n_requests, (long long)s->sampled_tokens,
            seconds > 0 ? (double)s->sampled_tokens / seconds : 0, last ? "\n" : "");
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
    saf_result_request *row = saf__row_of(s, &s->live[request]);
    if (!row->state[0]) snprintf(row->state, sizeof row->state, "done");
    s->finished++;
    saf__progress_draw(s, false);
}
