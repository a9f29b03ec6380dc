/* Not a test: writes a results file, or a checkpoint of one, through the library for tests in other
 * languages.
 *   make_results FILE.h5 generate|score REQUESTS ROWS_OF_LOGITS_EACH
 *   make_results FILE.h5 checkpoint NUMBER SCALE */
#include "checkpoint_fixture.h"

static void turn_into_score(saf_results *r) {
    saf_free(&r->kind);
    fixture_text(&r->kind, "score");
    r->completion_tokens = 0;
    for (int64_t i = 0; i < r->n_requests; i++) {
        saf_result_request *q = &r->requests[i];
        saf_free(&q->completion);
        saf_free(&q->completion_ids);
        saf_free(&q->logprobs);
        saf_free(&q->top_ids);
        saf_free(&q->top_logprobs);
        q->n_top = 0;
        q->completion_tokens = 0;
        if (q->error) continue;
        strcpy(q->finish_reason, "scored");
        fixture_ok(saf_alloc((size_t)q->prompt_tokens, sizeof(float), &q->logprobs));
        q->logprobs[0] = NAN;
        q->log_likelihood = 0;
        for (int64_t k = 1; k < q->prompt_tokens; k++) {
            q->logprobs[k] = -0.25f * (float)k;
            q->log_likelihood += (double)q->logprobs[k];
        }
        q->perplexity = exp(-q->log_likelihood / (double)(q->prompt_tokens - 1));
    }
}

int main(int argc, char **argv) {
    saf_results r;
    if (argc != 5) return 2;
    if (strcmp(argv[2], "checkpoint") == 0) {
        if (checkpoint_write(argv[1], atoll(argv[3]), atoll(argv[4]), NULL) == SAF_OK) return 0;
        fprintf(stderr, "%s\n", saf_error_text());
        return 1;
    }
    fixture_make(&r, 2, atoll(argv[3]));
    if (strcmp(argv[2], "score") == 0) turn_into_score(&r);
    saf_status st = fixture_write(argv[1], &r, atoll(argv[4]));
    if (st != SAF_OK) fprintf(stderr, "%s\n", saf_error_text());
    saf_results_free(&r);
    return saf_status_exit_code(st);
}
