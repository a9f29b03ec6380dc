/* A checkpoint's state becomes the session's: requests that are done keep what came of them, the
 * others go on after the tokens that they have. */
#include "job/state_columns.h"

typedef struct {
    int64_t n;
    saf__kept *kept; /* [n] */
    int32_t *live;   /* [n] which of the session's */
    int32_t *tokens;
    uint8_t *text;
    float *logprobs;
    int32_t *top_ids;
    float *top_logprobs;
} reader;

static saf_status misfit(const saf_checkpoint *c, const char *what) {
    return saf_fail(SAF_BAD_INPUT, "%s: %s; --fresh starts over", saf_checkpoint_path(c), what);
}

/* ---- reading ---- */

static saf_status read_columns(const saf__session *s, const saf_checkpoint *c, reader *r) {
    saf_status st = SAF_OK;
    char *values = NULL;
    for (int i = 0; i < SAF__N_COLUMNS; i++) {
        const saf__column *column = &saf__columns[i];
        size_t each = (size_t)saf_dtype_block_bytes(column->dtype);
        int64_t n;
        SAF_TRY(saf_checkpoint_get(c, column->name, column->dtype, s->n_live, &n, &values));
        if (i == 0) {
            r->n = n;
            SAF_TRY(saf_alloc((size_t)n, sizeof *r->kept, &r->kept));
        }
        if (n != r->n) SAF_TRY(misfit(c, "its columns differ in length"));
        for (int64_t k = 0; k < n; k++)
            memcpy((char *)&r->kept[k] + column->offset, values + (size_t)k * each, each);
        saf_free(&values);
    }
out:
    saf_free(&values);
    return st;
}

/* What one request can have. */
static bool is_possible(const saf__session *s, const saf__kept *k, const saf_request *q) {
    bool done = k->end != SAF__ENDED_NOT, score = s->work.score;
    int64_t logprobs = score ? q->n_prompt : k->tokens;
    int64_t rows = !s->work.logits ? 0 : score ? q->n_prompt : k->tokens;
    return k->end >= SAF__ENDED_NOT && k->end <= SAF__ENDED_ERROR && k->tokens >= 0 &&
           k->tokens <= q->max_tokens && (done || (k->tokens > 0 && k->tokens < q->max_tokens)) &&
           (done || !score) && k->logprobs == logprobs && k->text_bytes >= 0 &&
           k->logits_rows >= 0 && k->logits_rows <= rows && k->given >= 0 && k->given <= k->tokens;
}

/* Each of another request of the session. */
static saf_status find_live(const saf__session *s, const saf_checkpoint *c, reader *r) {
    saf_status st = SAF_OK;
    int32_t *of_row = NULL;
    SAF_TRY(saf_alloc((size_t)s->n_prompts, sizeof *of_row, &of_row));
    SAF_TRY(saf_alloc((size_t)r->n, sizeof *r->live, &r->live));
    for (int32_t i = 0; i < s->n_live; i++) of_row[s->live[i].row] = i + 1;
    for (int64_t k = 0; k < r->n; k++) {
        int64_t row = r->kept[k].row;
        int32_t i = row >= 0 && row < s->n_prompts ? of_row[row] - 1 : -1;
        if (i < 0 || !is_possible(s, &r->kept[k], &s->work.requests[i]))
            SAF_TRY(misfit(c, "it does not fit the requests"));
        of_row[row] = 0;
        r->live[k] = i;
    }
out:
    saf_free(&of_row);
    return st;
}

static saf_status read_array(const saf_checkpoint *c, const char *name, saf_dtype dtype, int64_t n,
                             void *out) {
    int64_t got;
    saf_status st = saf_checkpoint_get(c, name, dtype, n, &got, out);
    if (st != SAF_OK || got == n) return st;
    return misfit(c, "an array is shorter than its columns say");
}

static bool are_tokens(const saf__session *s, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->params.vocab) return false;
    return true;
}

static saf_status read_arrays(const saf__session *s, const saf_checkpoint *c, reader *r) {
    saf_status st = SAF_OK;
    int64_t tokens = 0, text = 0, logprobs = 0, top;
    for (int64_t k = 0; k < r->n; k++) {
        tokens += r->kept[k].tokens;
        logprobs += r->kept[k].logprobs;
        if (__builtin_add_overflow(text, r->kept[k].text_bytes, &text))
            return misfit(c, "more text than can be");
    }
    top = tokens * s->work.n_top;
    SAF_TRY(read_array(c, "tokens", SAF_DTYPE_I32, tokens, &r->tokens));
    SAF_TRY(read_array(c, "text", SAF_DTYPE_U8, text, &r->text));
    SAF_TRY(read_array(c, "logprobs", SAF_DTYPE_F32, logprobs, &r->logprobs));
    SAF_TRY(read_array(c, "top_ids", SAF_DTYPE_I32, top, &r->top_ids));
    SAF_TRY(read_array(c, "top_logprobs", SAF_DTYPE_F32, top, &r->top_logprobs));
    if (!are_tokens(s, r->tokens, tokens) || !are_tokens(s, r->top_ids, top))
        st = misfit(c, "a token that the model has not");
out:
    return st;
}

/* ---- taking up ---- */

/* What came of a request, or has so far; the pointers move on. */
static saf_status fill_live(saf__session *s, const saf__kept *k, saf__live *l, reader *at) {
    saf_status st = SAF_OK;
    size_t n = (size_t)k->tokens, top = n * (size_t)s->work.n_top;
    l->done = k->end != SAF__ENDED_NOT;
    if (l->done)
        l->course = (saf__course){(saf__end)k->end, k->fault_layer, k->fault_position, k->replica,
                                  k->admitted_s,    k->first_s,     k->last_s};
    l->given = l->done ? k->given : (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        SAF_TRY(saf_ids_append(&l->completion, at->tokens[i]));
        if (!l->done)
            SAF_TRY(saf_tokenizer_piece(s->tokenizer, at->tokens[i], false, false, &l->bytes));
    }
    SAF_TRY(saf_buf_append(&l->bytes, at->text, (size_t)k->text_bytes));
    SAF_TRY(saf_buf_append(&l->logprobs, at->logprobs, (size_t)k->logprobs * sizeof(float)));
    SAF_TRY(saf_buf_append(&l->top_ids, at->top_ids, top * sizeof(int32_t)));
    SAF_TRY(saf_buf_append(&l->top_logprobs, at->top_logprobs, top * sizeof(float)));
    at->tokens += n;
    at->text += k->text_bytes;
    at->logprobs += k->logprobs;
    at->top_ids += top;
    at->top_logprobs += top;
out:
    return st;
}

/* To the model they are known tokens; the random numbers go by positions, and penalties look at the
 * whole sequence. */
static saf_status extend_prompt(saf_request *q, const saf__live *l) {
    int32_t *prompt = NULL, n = q->n_prompt + l->given;
    if (l->given == 0) return SAF_OK;
    saf_status st = saf_alloc((size_t)n, sizeof *prompt, &prompt);
    if (st != SAF_OK) return st;
    memcpy(prompt, q->prompt, (size_t)q->n_prompt * sizeof *prompt);
    memcpy(prompt + q->n_prompt, l->completion.data, (size_t)l->given * sizeof *prompt);
    saf_free(&q->prompt);
    q->prompt = prompt;
    q->n_prompt = n;
    q->max_tokens -= l->given;
    return SAF_OK;
}

/* Those that are done go behind the others; both keep their order. */
static saf_status part_requests(saf__session *s) {
    saf_status st = SAF_OK;
    saf__live *live = NULL;
    int32_t n = 0, done = 0;
    SAF_TRY(saf_alloc((size_t)s->n_live, sizeof *live, &live));
    for (int32_t i = 0; i < s->n_live; i++) done += s->live[i].done;
    for (int32_t i = 0, behind = s->n_live - done; i < s->n_live; i++) {
        if (s->live[i].done) {
            saf_free(&s->work.requests[i].prompt);
            live[behind++] = s->live[i];
            continue;
        }
        saf_request q = s->work.requests[i];
        s->work.requests[i].prompt = NULL;
        live[n] = s->live[i];
        s->work.requests[n++] = q;
    }
    s->work.n_requests = n;
    s->finished = done;
    memcpy(s->live, live, (size_t)s->n_live * sizeof *live);
out:
    saf_free(&live);
    return st;
}

saf_status saf__kept_restore(saf__session *s, const saf_checkpoint *c) {
    saf_status st = SAF_OK;
    reader r = {0};
    SAF_TRY(read_columns(s, c, &r));
    SAF_TRY(find_live(s, c, &r));
    SAF_TRY(read_arrays(s, c, &r));
    reader at = r;
    for (int64_t k = 0; k < r.n; k++) SAF_TRY(fill_live(s, &r.kept[k], &s->live[r.live[k]], &at));
    for (int32_t i = 0; i < s->n_live; i++)
        if (!s->live[i].done) SAF_TRY(extend_prompt(&s->work.requests[i], &s->live[i]));
    SAF_TRY(part_requests(s));
out:
    saf_free(&r.kept);
    saf_free(&r.live);
    saf_free(&r.tokens);
    saf_free(&r.text);
    saf_free(&r.logprobs);
    saf_free(&r.top_ids);
    saf_free(&r.top_logprobs);
    return st;
}

/* ---- logits ---- */

/* Rows [at, at + rows) of the checkpoint: those of a request that is done go to the results file,
 * where its place is; those of others to memory. */
static saf_status restore_rows(saf__session *s, const saf_checkpoint *c, saf__live *l, int64_t at,
                               int64_t rows, float *piece) {
    saf_status st = SAF_OK;
    int64_t V = s->params.vocab, most = saf__logits_piece_rows(V);
    if (l->done && !s->work.score) {
        l->logits_row0 = s->logits_rows;
        s->logits_rows += rows;
    }
    for (int64_t i = 0; i < rows; i += most) {
        int64_t n = saf_i64_min(most, rows - i);
        SAF_TRY(saf_checkpoint_get_some(c, SAF__LOGITS, SAF_DTYPE_F32, (at + i) * V, n * V, piece));
        if (l->done)
            SAF_TRY(saf_results_logits(s->writer, V, l->logits_row0 + i, n, piece));
        else
            SAF_TRY(saf_buf_append(&l->logits, piece, (size_t)(n * V) * sizeof *piece));
        saf_alive();
    }
    if (l->done) l->logits_rows = rows;
out:
    return st;
}

saf_status saf__kept_restore_logits(saf__session *s, const saf_checkpoint *c) {
    saf_status st = SAF_OK;
    reader r = {0};
    int32_t *of_row = NULL;
    float *piece = NULL;
    int64_t at = 0;
    if (!s->work.logits) return SAF_OK;
    SAF_TRY(read_columns(s, c, &r));
    SAF_TRY(saf_alloc((size_t)s->n_prompts, sizeof *of_row, &of_row));
    SAF_TRY(saf_alloc((size_t)(saf__logits_piece_rows(s->params.vocab) * s->params.vocab),
                      sizeof *piece, &piece));
    for (int32_t i = 0; i < s->n_live; i++) of_row[s->live[i].row] = i;
    for (int64_t k = 0; k < r.n; k++) { /* saf__kept_restore has checked the rows */
        int64_t rows = r.kept[k].logits_rows;
        if (rows == 0) continue;
        SAF_TRY(restore_rows(s, c, &s->live[of_row[r.kept[k].row]], at, rows, piece));
        at += rows;
    }
out:
    saf_free(&r.kept);
    saf_free(&of_row);
    saf_free(&piece);
    return st;
}
