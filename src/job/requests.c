/* Prompts become token ids: the work that the ranks share, and the rows of the results. */
#include <math.h>
#include <stdio.h>

#include "job/session.h"

/* Ids of one prompt: given, rendered from messages, or a text. */
static saf_status prompt_ids(saf__session *s, const saf_prompt *prompt, saf_chat_family family,
                             saf_ids *ids, saf_buf *shown) {
    saf_status st = SAF_OK;
    bool special = s->job->input.special;
    if (prompt->ids) {
        for (int64_t i = 0; i < prompt->n_ids; i++) {
            if (prompt->ids[i] < 0 || prompt->ids[i] >= s->params.vocab)
                return saf_fail(SAF_BAD_INPUT,
                                "%s: request %s: token id %d at place %lld, expected 0 to %lld",
                                s->job->input.tokens, prompt->id, prompt->ids[i], (long long)i,
                                (long long)s->params.vocab - 1);
            SAF_TRY(saf_ids_append(ids, prompt->ids[i]));
        }
        SAF_TRY(saf_tokenizer_decode(s->tokenizer, ids->data, ids->len, true, shown));
    } else if (prompt->messages) {
        SAF_TRY(saf_chat_render(family, prompt->messages, prompt->n_messages, shown));
        SAF_TRY(saf_tokenizer_encode(s->tokenizer, shown->data, shown->len, true, true, ids));
    } else {
        size_t len = strlen(prompt->text);
        SAF_TRY(saf_buf_append(shown, prompt->text, len));
        SAF_TRY(saf_tokenizer_encode(s->tokenizer, prompt->text, len, true, special, ids));
    }
out:
    return st;
}

saf_status saf__text_append(saf_buf *out, const char *bytes, size_t len) {
    saf_status st = SAF_OK;
    while (len > 0) {
        const char *zero = memchr(bytes, 0, len);
        size_t part = zero ? (size_t)(zero - bytes) : len;
        SAF_TRY(saf_utf8_append_clean(out, bytes, part));
        if (zero) SAF_TRY(saf_buf_append(out, "\xEF\xBF\xBD", 3));
        bytes += part + (zero ? 1 : 0);
        len -= part + (zero ? 1 : 0);
    }
out:
    return st;
}

/* The row of the results that every request has, whether it will run or not. */
static saf_status begin_row(saf_result_request *row, const saf_prompt *prompt, const saf_ids *ids,
                            const saf_buf *shown) {
    saf_status st = SAF_OK;
    saf_buf clean = {0};
    SAF_TRY(saf_buf_append(&clean, "", 0));
    SAF_TRY(saf__text_append(&clean, shown->data, shown->len));
    SAF_TRY(saf_strdup(prompt->id, &row->id));
    SAF_TRY(saf_strdup(clean.data, &row->prompt));
    SAF_TRY(saf_strdup("", &row->completion));
    row->prompt_tokens = ids->len;
    row->seed = prompt->sampling.seed;
    row->log_likelihood = row->perplexity = (double)NAN;
    SAF_TRY(saf_alloc((size_t)ids->len, sizeof *row->prompt_ids, &row->prompt_ids));
    if (ids->len > 0)
        memcpy(row->prompt_ids, ids->data, (size_t)ids->len * sizeof *row->prompt_ids);
out:
    saf_buf_free(&clean);
    return st;
}

/* Why a request cannot run, as its row says; NULL when it can. */
static saf_status fail_row(saf__session *s, saf_result_request *row, const char *why) {
    memcpy(row->state, "failed", sizeof "failed");
    memcpy(row->finish_reason, "error", sizeof "error");
    row->replica = -1;
    s->results.failed_requests++;
    return saf_strdup(why, &row->error);
}

static int64_t context_limit(const saf__session *s) {
    int32_t asked = s->job->run.context;
    return asked > 0 ? saf_i64_min(asked, s->params.context) : s->params.context;
}

/* Adds the request to the work, unless it cannot fit: then its row says so. */
static saf_status add_request(saf__session *s, int64_t index, saf_result_request *row,
                              const saf_prompt *prompt) {
    saf_status st = SAF_OK;
    uint8_t digest[32];
    char why[160];
    bool score = s->job->kind == SAF_JOB_SCORE;
    int64_t limit = context_limit(s), n = row->prompt_tokens, room = limit - n;
    if (n == 0) return fail_row(s, row, "the prompt has no tokens");
    if (room < (score ? 0 : 1)) {
        snprintf(why, sizeof why, "the prompt has %lld tokens, the context %lld", (long long)n,
                 (long long)limit);
        return fail_row(s, row, why);
    }
    saf_request *r = &s->work.requests[s->work.n_requests];
    r->n_prompt = (int32_t)n;
    r->max_tokens = score ? 0 : (int32_t)saf_i64_min(prompt->max_tokens, room);
    r->sampling = prompt->sampling;
    SAF_TRY(saf_alloc((size_t)n, sizeof *r->prompt, &r->prompt));
    memcpy(r->prompt, row->prompt_ids, (size_t)n * sizeof *r->prompt);
    SAF_TRY(saf_sha256_of(prompt->id, strlen(prompt->id), digest));
    for (int i = 0; i < 8; i++) r->key |= (uint64_t)digest[i] << (8 * i);
    saf__live *l = &s->live[s->work.n_requests];
    l->row = index;
    if (score && s->work.logits) { /* rows of /logits are the tokens in input order */
        l->logits_row0 = s->logits_rows;
        s->logits_rows += n;
    }
    s->n_live = ++s->work.n_requests;
out:
    return st;
}

/* What the job file says of token ids can only be checked with the model at hand. */
static saf_status check_ids(const saf__session *s) {
    const saf_job *job = s->job;
    long long vocab = (long long)s->params.vocab;
    if (s->work.n_top > vocab)
        return saf_fail(SAF_USAGE, "%s: generate.logprobs is %d, but the model has %lld tokens",
                        job->path, s->work.n_top, vocab);
    for (int32_t i = 0; i < job->generate.n_stop_ids; i++)
        if (job->generate.stop_ids[i] >= vocab)
            return saf_fail(SAF_USAGE, "%s: generate.stop_ids has %d, expected 0 to %lld",
                            job->path, job->generate.stop_ids[i], vocab - 1);
    return SAF_OK;
}

saf_status saf__requests_make(saf__session *s) {
    saf_status st = SAF_OK;
    saf_chat_family family = SAF_CHAT_NONE;
    saf_ids ids = {0};
    saf_buf shown = {0};
    SAF_TRY(saf_prompts_read(s->job, &s->prompts, &s->n_prompts));
    SAF_TRY(saf_chat_family_of(s->gguf, &family));
    size_t n = (size_t)s->n_prompts;
    SAF_TRY(saf_alloc(n, sizeof *s->results.requests, &s->results.requests));
    SAF_TRY(saf_alloc(n, sizeof *s->work.requests, &s->work.requests));
    SAF_TRY(saf_alloc(n, sizeof *s->live, &s->live));
    s->results.n_requests = s->n_prompts;
    s->work.score = s->job->kind == SAF_JOB_SCORE;
    s->work.logits = s->work.score ? s->job->score.logits : s->job->generate.logits;
    s->work.n_top = s->work.score ? 0 : s->job->generate.logprobs;
    SAF_TRY(check_ids(s));
    for (int64_t i = 0; i < s->n_prompts; i++) {
        ids.len = 0;
        saf_buf_clear(&shown);
        saf_comm_progress();
        SAF_TRY(prompt_ids(s, &s->prompts[i], family, &ids, &shown));
        SAF_TRY(begin_row(&s->results.requests[i], &s->prompts[i], &ids, &shown));
        SAF_TRY(add_request(s, i, &s->results.requests[i], &s->prompts[i]));
    }
out:
    saf_ids_free(&ids);
    saf_buf_free(&shown);
    return st;
}
