/* score: log-likelihood and perplexity of given texts, and their logits where asked. */
#include <math.h>

#include "job/saver.h"

static void on_admitted(void *ctx, int32_t request) {
    saf__session *s = ctx;
    const float nothing = NAN; /* predicts the first token */
    size_t n = (size_t)s->work.requests[request].n_prompt;
    saf_status st = saf_buf_resize(&s->live[request].logprobs, n * sizeof nothing);
    if (st == SAF_OK)
        memcpy(s->live[request].logprobs.data, &nothing, sizeof nothing);
    else if (s->status == SAF_OK)
        s->status = st;
    saf__event_admitted(ctx, request);
}

static saf_status on_scores(void *ctx, int32_t request, int32_t pos0, int32_t n,
                            const float *logprobs) {
    saf__session *s = ctx;
    if (s->status != SAF_OK) return s->status;
    memcpy(s->live[request].logprobs.data + (size_t)pos0 * sizeof *logprobs, logprobs,
           (size_t)n * sizeof *logprobs);
    s->sampled_tokens += n;
    saf__progress_draw(s, false);
    return SAF_OK;
}

/* Row r of a request goes to its fixed place: rows of /logits are the tokens in input order. */
static saf_status on_logits(void *ctx, int32_t request, int32_t pos0, int32_t n,
                            const float *rows) {
    return saf__report_logits(ctx, request, pos0, n, rows);
}

static void on_done(void *ctx, int32_t request) {
    saf__session *s = ctx;
    saf__course *c = &s->live[request].course;
    saf__state_lock(s);
    c->last_s = saf__run_time_s(s);
    if (c->end != SAF__ENDED_ERROR) c->end = SAF__ENDED_SCORED;
    saf__state_unlock(s);
    saf__event_done(ctx, request);
}

saf_engine_events saf__score_events(saf__session *s) {
    return (saf_engine_events){.ctx = s,
                               .admitted = on_admitted,
                               .scores = on_scores,
                               .logits = on_logits,
                               .fault = saf__event_fault,
                               .done = on_done,
                               .report = saf__report_taken,
                               .stop = saf__stop_wanted};
}

/* Summed in double, first token to last, so that it is the same on any layout. */
saf_status saf__score_rows(saf__session *s) {
    saf_status st = SAF_OK;
    for (int32_t i = 0; i < s->n_live; i++) {
        saf__live *l = &s->live[i];
        saf_result_request *row = &s->results.requests[l->row];
        SAF_TRY(saf__row_finish(s, l, row));
        if (l->course.end != SAF__ENDED_SCORED) {
            row->logits_rows = 0; /* how many came before depends on the pieces it was cut in */
            continue;
        }
        SAF_TRY(saf_alloc((size_t)row->prompt_tokens, sizeof *row->logprobs, &row->logprobs));
        memcpy(row->logprobs, l->logprobs.data, l->logprobs.len);
        double sum = 0;
        for (int64_t k = 1; k < row->prompt_tokens; k++) sum += (double)row->logprobs[k];
        row->log_likelihood = sum;
        if (row->prompt_tokens > 1)
            row->perplexity = saf_math_exp(-sum / (double)(row->prompt_tokens - 1));
        row->seconds_per_token =
            (l->course.last_s - l->course.admitted_s) / (double)row->prompt_tokens;
    }
out:
    return st;
}
