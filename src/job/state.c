#include "job/state.h"

#include "job/state_columns.h"

static saf_status add(saf_buf *buf, const saf_buf *from, size_t bytes) {
    return saf_buf_append(buf, from->data ? from->data : "", bytes);
}

/* ---- taking ---- */

/* Tokens that count. One that ended a request which is not done yet was told a moment ago: it will
 * be sampled again. */
static int64_t tokens_of(const saf__live *l) {
    return l->completion.len - (!l->done && l->course.end != SAF__ENDED_NOT ? 1 : 0);
}

static int64_t rows_of(const saf__session *s, const saf__live *l, int64_t tokens) {
    if (!s->work.logits) return 0;
    if (!l->done)
        return saf_i64_min(tokens, (int64_t)(l->logits.len / sizeof(float)) / s->params.vocab);
    return s->work.score && l->course.end == SAF__ENDED_ERROR ? 0 : l->logits_rows;
}

static saf_status take_one(const saf__session *s, int32_t i, saf__state *out) {
    saf_status st = SAF_OK;
    const saf__live *l = &s->live[i];
    const saf__course *c = &l->course;
    int64_t n = tokens_of(l);
    if (!l->done && (s->work.score || n <= 0)) return SAF_OK; /* from the beginning again */
    saf__kept k = {.row = l->row,
                   .tokens = n,
                   .text_bytes = l->done ? (int64_t)l->bytes.len : 0,
                   .logprobs = s->work.score ? (int64_t)(l->logprobs.len / sizeof(float)) : n,
                   .logits_rows = rows_of(s, l, n),
                   .end = l->done ? (int32_t)c->end : (int32_t)SAF__ENDED_NOT,
                   .fault_layer = c->fault_layer,
                   .fault_position = c->fault_position,
                   .replica = c->replica,
                   .given = l->given,
                   .admitted_s = c->admitted_s,
                   .first_s = c->first_s,
                   .last_s = c->last_s,
                   .done = l->done,
                   .logits_row0 = l->logits_row0};
    size_t top = (size_t)(n * s->work.n_top);
    SAF_TRY(saf_buf_append(&out->kept, &k, sizeof k));
    SAF_TRY(saf_buf_append(&out->tokens, l->completion.data, (size_t)n * sizeof(int32_t)));
    SAF_TRY(add(&out->text, &l->bytes, (size_t)k.text_bytes));
    SAF_TRY(add(&out->logprobs, &l->logprobs, (size_t)k.logprobs * sizeof(float)));
    SAF_TRY(add(&out->top_ids, &l->top_ids, top * sizeof(int32_t)));
    SAF_TRY(add(&out->top_logprobs, &l->top_logprobs, top * sizeof(float)));
    if (!l->done)
        SAF_TRY(add(&out->logits, &l->logits,
                    (size_t)(k.logits_rows * s->params.vocab) * sizeof(float)));
    out->logits_rows += k.logits_rows;
    out->head.done += l->done;
    out->head.tokens += s->work.score ? k.logprobs : n;
out:
    return st;
}

saf_status saf__kept_take(const saf__session *s, saf__state *out) {
    saf_status st = SAF_OK;
    *out = (saf__state){0};
    out->head = (saf_checkpoint_head){.kind = (char *)saf_job_kind_name(s->job->kind),
                                      .version = (char *)SAF_VERSION,
                                      .start_time = s->results.start_time,
                                      .total = s->n_live,
                                      .seconds = s->before_s + saf__run_time_s(s),
                                      .resumes = (int32_t)s->results.resumes,
                                      .identity = s->results.identity};
    for (int32_t i = 0; i < s->n_live; i++) SAF_TRY(take_one(s, i, out));
out:
    if (st != SAF_OK) saf__kept_free(out);
    return st;
}

void saf__kept_free(saf__state *state) {
    saf_buf_free(&state->kept);
    saf_buf_free(&state->tokens);
    saf_buf_free(&state->text);
    saf_buf_free(&state->logprobs);
    saf_buf_free(&state->top_ids);
    saf_buf_free(&state->top_logprobs);
    saf_buf_free(&state->logits);
    *state = (saf__state){0};
}

/* ---- writing ---- */

static saf_status put_columns(saf_checkpoint_writer *w, const saf__state *state) {
    saf_status st = SAF_OK;
    int64_t n = (int64_t)(state->kept.len / sizeof(saf__kept));
    const saf__kept *kept = (const saf__kept *)(const void *)state->kept.data;
    char *values = NULL;
    SAF_TRY(saf_alloc((size_t)n, sizeof(int64_t), &values));
    for (int i = 0; i < SAF__N_COLUMNS; i++) {
        const saf__column *c = &saf__columns[i];
        size_t each = (size_t)saf_dtype_block_bytes(c->dtype);
        for (int64_t k = 0; k < n; k++)
            memcpy(values + (size_t)k * each, (const char *)&kept[k] + c->offset, each);
        SAF_TRY(saf_checkpoint_put(w, c->name, c->dtype, n, values));
    }
out:
    saf_free(&values);
    return st;
}

static saf_status put_buf(saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                          const saf_buf *buf) {
    int64_t n = (int64_t)(buf->len / (size_t)saf_dtype_block_bytes(dtype));
    return saf_checkpoint_put(w, name, dtype, n, buf->data ? buf->data : "");
}

/* Rows of one request, from the results file, in pieces. */
static saf_status copy_rows(const saf__session *s, saf_checkpoint_writer *w, int64_t row0,
                            int64_t rows, int64_t all, int64_t *at, float *piece) {
    saf_status st = SAF_OK;
    int64_t V = s->params.vocab, most = saf__logits_piece_rows(V);
    for (int64_t i = 0; i < rows; i += most) {
        int64_t n = saf_i64_min(most, rows - i);
        SAF_TRY(saf_results_logits_back(s->writer, row0 + i, n, piece));
        SAF_TRY(
            saf_checkpoint_put_some(w, SAF__LOGITS, SAF_DTYPE_F32, all * V, *at * V, n * V, piece));
        *at += n;
        saf_alive();
    }
out:
    return st;
}

static saf_status put_logits(const saf__session *s, const saf__state *state,
                             saf_checkpoint_writer *w) {
    saf_status st = SAF_OK;
    float *piece = NULL;
    int64_t V = s->params.vocab, at = 0, of_live = 0;
    size_t n = state->kept.len / sizeof(saf__kept);
    const saf__kept *kept = (const saf__kept *)(const void *)state->kept.data;
    if (!s->work.logits || state->logits_rows == 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)(saf__logits_piece_rows(V) * V), sizeof *piece, &piece));
    for (size_t i = 0; i < n; i++) {
        const saf__kept *k = &kept[i];
        if (k->logits_rows == 0) continue;
        if (k->done) {
            SAF_TRY(
                copy_rows(s, w, k->logits_row0, k->logits_rows, state->logits_rows, &at, piece));
            continue;
        }
        SAF_TRY(saf_checkpoint_put_some(
            w, SAF__LOGITS, SAF_DTYPE_F32, state->logits_rows * V, at * V, k->logits_rows * V,
            (const float *)(const void *)state->logits.data + of_live * V));
        at += k->logits_rows;
        of_live += k->logits_rows;
    }
out:
    saf_free(&piece);
    return st;
}

saf_status saf__kept_write(const saf__session *s, const saf__state *state) {
    saf_status st = SAF_OK;
    saf_checkpoint_writer *w = NULL;
    saf_checkpoint_head head = state->head;
    char now[32];
    saf_clock_iso8601(now);
    head.written = now;
    SAF_TRY(saf_checkpoint_create(s->job->output.file, &head, &w));
    SAF_TRY(put_columns(w, state));
    SAF_TRY(put_buf(w, "tokens", SAF_DTYPE_I32, &state->tokens));
    SAF_TRY(put_buf(w, "text", SAF_DTYPE_U8, &state->text));
    SAF_TRY(put_buf(w, "logprobs", SAF_DTYPE_F32, &state->logprobs));
    SAF_TRY(put_buf(w, "top_ids", SAF_DTYPE_I32, &state->top_ids));
    SAF_TRY(put_buf(w, "top_logprobs", SAF_DTYPE_F32, &state->top_logprobs));
    SAF_TRY(put_logits(s, state, w));
    SAF_TRY(saf_checkpoint_commit(w, NULL));
out:
    saf_checkpoint_writer_free(&w);
    return st;
}
