/* score: log-likelihood and perplexity of given texts, and their logits where asked. */
#include <math.h>

#include "job/session.h"

static saf_status on_scores(void *ctx, int32_t request, int32_t pos0, int32_t n,
                            const float *logprobs) {
    saf__session *s = ctx;
    saf__live *l = &s->live[request];
    if (s->status != SAF_OK) return s->status;
    memcpy(l->logprobs + pos0, logprobs, (size_t)n * sizeof *logprobs);
    s->sampled_tokens += n;
    saf__progress_draw(s, false);
    return SAF_OK;
}

/* Row r of a request goes to its fixed place: rows of /logits are the tokens in input order. */
static saf_status on_logits(void *ctx, int32_t request, int32_t pos0, int32_t n,
                            const float *rows) {
    saf__session *s = ctx;
    saf_result_request *row = saf__row_of(s, &s->live[request]);
    row->logits_rows += n;
    return saf_results_logits(s->writer, s->params.vocab, row->logits_row0 + pos0, n, rows);
}

saf_status saf__score_prepare(saf__session *s) {
    saf_status st = SAF_OK;
    int64_t row0 = 0;
    for (int32_t i = 0; i < s->work.n_requests; i++) {
        saf__live *l = &s->live[i];
        int32_t n = s->work.requests[i].n_prompt;
        SAF_TRY(saf_alloc((size_t)n, sizeof *l->logprobs, &l->logprobs));
        l->logprobs[0] = NAN; /* nothing predicts the first token */
        if (!s->work.logits) continue;
        saf__row_of(s, l)->logits_row0 = row0;
        row0 += n;
    }
out:
    return st;
}

static void on_done(void *ctx, int32_t request) {
    saf__session *s = ctx;
    saf_result_request *row = saf__row_of(s, &s->live[request]);
    s->live[request].last_s = saf_clock_s();
    if (row->state[0])
        row->logits_rows = 0; /* failed: how many came before depends on the pieces it was cut in */
    else
        saf__set_reason(row, "scored");
    saf__event_done(ctx, request);
}

saf_engine_events saf__score_events(saf__session *s) {
    return (saf_engine_events){.ctx = s,
                               .admitted = saf__event_admitted,
                               .scores = on_scores,
                               .logits = on_logits,
                               .fault = saf__event_fault,
                               .done = on_done};
}

/* Summed in double, first token to last, so that it is the same on any layout. */
saf_status saf__score_rows(saf__session *s) {
    for (int32_t i = 0; i < s->work.n_requests; i++) {
        saf__live *l = &s->live[i];
        saf_result_request *row = saf__row_of(s, l);
        if (strcmp(row->state, "done") != 0) continue;
        double sum = 0;
        for (int64_t k = 1; k < row->prompt_tokens; k++) sum += (double)l->logprobs[k];
        row->log_likelihood = sum;
        if (row->prompt_tokens > 1)
            row->perplexity = saf_math_exp(-sum / (double)(row->prompt_tokens - 1));
        row->logprobs = l->logprobs;
        l->logprobs = NULL;
        row->seconds_per_token = (l->last_s - l->admitted_s) / (double)row->prompt_tokens;
    }
    return SAF_OK;
}
