/* generate: sampled tokens become text; stop strings, stop ids and lengths end a request. */
#include <stdio.h>

#include "job/caches.h"
#include "job/saver.h"

/* ---- text
 * ------------------------------------------------------------------------------------------- */

/* Where a stop string begins in the completion, or its length when there is none. Only the part
 * that the newest bytes can have completed is searched. */
static size_t find_stop(const saf_job *job, const saf_buf *bytes, size_t before) {
    size_t first = bytes->len;
    for (int32_t i = 0; i < job->generate.n_stop; i++) {
        size_t n = strlen(job->generate.stop[i]);
        size_t from = before >= n ? before - n + 1 : 0;
        const char *at = memmem(bytes->data + from, bytes->len - from, job->generate.stop[i], n);
        if (at && (size_t)(at - bytes->data) < first) first = (size_t)(at - bytes->data);
    }
    return first;
}

/* How much of the text may be shown: whole characters that cannot yet turn out to begin a stop
 * string. */
static size_t showable(const saf_job *job, const saf_buf *bytes) {
    size_t len = saf_utf8_whole_prefix(bytes->data, bytes->len);
    for (int32_t i = 0; i < job->generate.n_stop; i++) {
        const char *stop = job->generate.stop[i];
        size_t n = strlen(stop);
        for (size_t tail = n - 1 < bytes->len ? n - 1 : bytes->len; tail > 0; tail--) {
            if (memcmp(bytes->data + bytes->len - tail, stop, tail) != 0) continue;
            if (bytes->len - tail < len) len = bytes->len - tail;
            break;
        }
    }
    return len;
}

static saf_status show(saf__live *l, size_t until) {
    saf_status st = SAF_OK;
    saf_buf clean = {0};
    if (until <= l->shown) return SAF_OK;
    SAF_TRY(saf__text_append(&clean, l->bytes.data + l->shown, until - l->shown));
    if (fwrite(clean.data, 1, clean.len, stdout) != clean.len || fflush(stdout) != 0)
        st = saf_fail(SAF_IO, "cannot write to standard output");
    l->shown = until;
out:
    saf_buf_free(&clean);
    return st;
}

static bool is_stop_id(const saf_job *job, int32_t id) {
    for (int32_t i = 0; i < job->generate.n_stop_ids; i++)
        if (job->generate.stop_ids[i] == id) return true;
    return false;
}

/* ---- tokens
 * ------------------------------------------------------------------------------------------ */

static saf_status keep_token(saf__session *s, saf__live *l, saf_sampled token,
                             const saf_sampled *top) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_ids_append(&l->completion, token.id));
    SAF_TRY(saf_buf_append(&l->logprobs, &token.logprob, sizeof token.logprob));
    for (int32_t i = 0; i < s->work.n_top; i++) {
        SAF_TRY(saf_buf_append(&l->top_ids, &top[i].id, sizeof top[i].id));
        SAF_TRY(saf_buf_append(&l->top_logprobs, &top[i].logprob, sizeof top[i].logprob));
    }
out:
    return st;
}

/* A token of a request: what is known of it from now on, and whether it was the last. */
static saf_status take_token(saf__session *s, int32_t request, saf_sampled token,
                             const saf_sampled *top, bool *finished) {
    saf_status st = SAF_OK;
    saf__live *l = &s->live[request];
    const saf_job *job = s->job;
    l->course.last_s = saf__run_time_s(s);
    if (l->completion.len == l->given) l->course.first_s = l->course.last_s;
    SAF_TRY(keep_token(s, l, token, top));
    *finished = true;
    if (!job->generate.ignore_eos && saf_tokenizer_is_end(s->tokenizer, token.id)) {
        l->course.end = SAF__ENDED_EOS;
    } else if (is_stop_id(job, token.id)) {
        l->course.end = SAF__ENDED_STOP;
    } else {
        size_t before = l->bytes.len;
        SAF_TRY(saf_tokenizer_piece(s->tokenizer, token.id, false, false, &l->bytes));
        size_t stop = find_stop(job, &l->bytes, before);
        if (stop < l->bytes.len) {
            l->bytes.len = stop;
            l->bytes.data[stop] = 0;
            l->course.end = SAF__ENDED_STOP;
        } else if (l->completion.len - l->given >= s->work.requests[request].max_tokens) {
            l->course.end = SAF__ENDED_LENGTH;
        } else {
            *finished = false;
        }
    }
out:
    return st;
}

static saf_status on_token(void *ctx, int32_t request, saf_sampled token, const saf_sampled *top,
                           bool *finished) {
    saf_status st = SAF_OK;
    saf__session *s = ctx;
    saf__live *l = &s->live[request];
    if (s->status != SAF_OK) return s->status;
    s->sampled_tokens++;
    saf__progress_draw(s, false);
    saf__state_lock(s);
    st = take_token(s, request, token, top, finished);
    saf__state_unlock(s);
    if (st != SAF_OK) return st;
    if (s->stream && l->bytes.data)
        SAF_TRY(show(l, *finished ? l->bytes.len : showable(s->job, &l->bytes)));
    if (!*finished) SAF_TRY(saf__report_partial_now_and_then(s));
out:
    return st;
}

/* Tokens that earlier runs sampled are the end of the prompt; rank 0 has restored the rest of what
 * is known of them. */
static void on_admitted(void *ctx, int32_t request) {
    saf__session *s = ctx;
    saf__live *l = &s->live[request];
    const saf_request *r = &s->work.requests[request];
    saf_status st = SAF_OK;
    for (int32_t i = r->n_prompt - l->given; s->rank != 0 && i < r->n_prompt; i++) {
        SAF_TRY(saf_ids_append(&l->completion, r->prompt[i]));
        SAF_TRY(saf_tokenizer_piece(s->tokenizer, r->prompt[i], false, false, &l->bytes));
    }
out:
    l->told = l->given;
    if (st != SAF_OK && s->status == SAF_OK) s->status = st;
    saf__event_admitted(ctx, request);
}

/* Kept until the request is done, so that its rows of /logits lie together. */
static saf_status on_logits(void *ctx, int32_t request, int32_t pos0, int32_t n,
                            const float *rows) {
    saf__session *s = ctx;
    (void)pos0;
    saf__state_lock(s);
    saf_status st = saf_buf_append(&s->live[request].logits, rows,
                                   (size_t)n * (size_t)s->params.vocab * sizeof *rows);
    saf__state_unlock(s);
    return st;
}

/* The run ends early: what rank 0 does not have yet goes there. */
static saf_status on_stopped(void *ctx) {
    return saf__report_partial(ctx);
}

saf_engine_events saf__generate_events(saf__session *s) {
    return (saf_engine_events){.ctx = s,
                               .admitted = on_admitted,
                               .token = on_token,
                               .logits = on_logits,
                               .fault = saf__event_fault,
                               .done = saf__event_done,
                               .report = saf__report_taken,
                               .stop = saf__stop_wanted,
                               .stopped = on_stopped,
                               .held = saf__caches_held,
                               .restore = saf__caches_restore};
}

saf_status saf__generate_begin(saf__session *s) {
    saf__live *l = &s->live[0];
    if (!s->stream || !l->bytes.data) return SAF_OK;
    return show(l, l->done ? l->bytes.len : showable(s->job, &l->bytes));
}

static saf_status copy_array(const void *from, size_t bytes, void *out) {
    void *copy = NULL;
    saf_status st = saf_alloc(bytes, 1, &copy);
    if (st != SAF_OK) return st;
    if (bytes > 0) memcpy(copy, from, bytes);
    memcpy(out, &copy, sizeof copy);
    return SAF_OK;
}

saf_status saf__generate_rows(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf clean = {0};
    for (int32_t i = 0; i < s->n_live; i++) {
        saf__live *l = &s->live[i];
        saf_result_request *row = &s->results.requests[l->row];
        int64_t n = l->completion.len, sampled = n - l->given; /* in the run that ended it */
        SAF_TRY(saf__row_finish(s, l, row));
        row->completion_tokens = n;
        const saf__course *c = &l->course;
        if (sampled > 0) row->time_to_first_token_s = c->first_s - c->admitted_s;
        if (sampled > 1) row->seconds_per_token = (c->last_s - c->first_s) / (double)(sampled - 1);
        saf_buf_clear(&clean);
        SAF_TRY(saf_buf_append(&clean, "", 0));
        SAF_TRY(saf__text_append(&clean, l->bytes.data, l->bytes.len));
        saf_free(&row->completion);
        SAF_TRY(saf_strdup(clean.data, &row->completion));
        SAF_TRY(copy_array(l->completion.data, (size_t)n * sizeof(int32_t), &row->completion_ids));
        SAF_TRY(copy_array(l->logprobs.data, l->logprobs.len, &row->logprobs));
        row->n_top = s->work.n_top;
        SAF_TRY(copy_array(l->top_ids.data, l->top_ids.len, &row->top_ids));
        SAF_TRY(copy_array(l->top_logprobs.data, l->top_logprobs.len, &row->top_logprobs));
        s->results.completion_tokens += n;
    }
    if (s->stream) putchar('\n');
out:
    saf_buf_free(&clean);
    return st;
}
