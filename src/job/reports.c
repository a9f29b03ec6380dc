/* From the head of a replica to rank 0: what became of the requests that ran there. */
#include "job/saver.h"

enum { LOGITS_BYTES = 2 << 20 }; /* of one report, if a row is not larger */

typedef enum { PROGRESS, LOGITS, PARTIAL, DONE } report_kind;

/* What every report begins with, a multiple of 8 bytes. */
typedef struct {
    int32_t kind, request;
    int64_t tokens; /* sampled or scored since the report before */
} report_head;

typedef struct {
    report_head head;
    int64_t at, n; /* rows; they follow */
} logits_head;

enum { N_ARRAYS = 5 };

/* What has come since the report before: of tokens, the whole text (only when done), logarithms,
 * and alternatives twice. */
typedef struct {
    report_head head;
    saf__course course;
    uint64_t lens[N_ARRAYS]; /* bytes of each; they follow */
} tokens_head;

/* ---- at the head that ran it ---- */

static report_head begin(saf__session *s, report_kind kind, int32_t request) {
    int64_t tokens = s->sampled_tokens - s->told_tokens;
    s->told_tokens = s->sampled_tokens;
    s->progress_s = saf_clock_s();
    return (report_head){(int32_t)kind, request, tokens};
}

saf_status saf__report_progress(saf__session *s) {
    report_head head = begin(s, PROGRESS, 0);
    return saf_group_report(s->group, &head, sizeof head, NULL, 0);
}

static saf_status tell_rows(saf__session *s, int32_t request, int64_t at, int64_t n,
                            const float *rows) {
    saf_status st = SAF_OK;
    int64_t V = s->params.vocab;
    int64_t most = saf_i64_max(1, LOGITS_BYTES / (V * (int64_t)sizeof *rows));
    for (int64_t i = 0; i < n; i += most) {
        int64_t some = saf_i64_min(most, n - i);
        logits_head head = {begin(s, LOGITS, request), at + i, some};
        SAF_TRY(saf_group_report(s->group, &head, sizeof head, rows + i * V,
                                 (size_t)(some * V) * sizeof *rows));
    }
out:
    return st;
}

/* Logits of tokens first: rank 0 never has tokens without them. */
static saf_status tell_kept_rows(saf__session *s, int32_t request) {
    saf__live *l = &s->live[request];
    int64_t n = (int64_t)(l->logits.len / sizeof(float)) / s->params.vocab;
    saf_status st = tell_rows(s, request, 0, n, (const float *)(const void *)l->logits.data);
    saf_buf_clear(&l->logits);
    return st;
}

static saf_status tell_tokens(saf__session *s, int32_t request, report_kind kind) {
    saf_status st = SAF_OK;
    saf__live *l = &s->live[request];
    saf_buf all = {0};
    tokens_head head = {.course = l->course};
    SAF_TRY(tell_kept_rows(s, request));
    head.head = begin(s, kind, request);
    const struct {
        const void *data;
        size_t len;
    } arrays[N_ARRAYS] = {
        {l->completion.data + l->told, (size_t)(l->completion.len - l->told) * sizeof(int32_t)},
        {l->bytes.data, kind == DONE ? l->bytes.len : 0},
        {l->logprobs.data, l->logprobs.len},
        {l->top_ids.data, l->top_ids.len},
        {l->top_logprobs.data, l->top_logprobs.len}};
    for (int i = 0; i < N_ARRAYS; i++) {
        head.lens[i] = arrays[i].len;
        if (arrays[i].len > 0) SAF_TRY(saf_buf_append(&all, arrays[i].data, arrays[i].len));
    }
    SAF_TRY(saf_group_report(s->group, &head, sizeof head, all.data, all.len));
    l->told = (int32_t)l->completion.len;
    saf_buf_clear(&l->logprobs);
    saf_buf_clear(&l->top_ids);
    saf_buf_clear(&l->top_logprobs);
out:
    saf_buf_free(&all);
    return st;
}

static saf_status tell_done(saf__session *s, int32_t request) {
    saf_status st = tell_tokens(s, request, DONE);
    saf__live_free(&s->live[request]);
    return st;
}

/* A score has no partial state: its pieces are computed again. */
saf_status saf__report_partial(saf__session *s) {
    saf_status st = SAF_OK;
    if (s->rank == 0 || s->work.score) return SAF_OK;
    s->partial_s = saf_clock_s();
    for (int32_t i = 0; i < s->n_live; i++) {
        const saf__live *l = &s->live[i];
        if (l->completion.len > l->told && l->course.end == SAF__ENDED_NOT)
            SAF_TRY(tell_tokens(s, i, PARTIAL));
    }
out:
    return st;
}

saf_status saf__report_partial_now_and_then(saf__session *s) {
    double every = s->settings.checkpoint_seconds;
    if (s->rank == 0 || !(every > 0)) return SAF_OK;
    if (s->partial_s <= 0) s->partial_s = s->run_start_s;
    return saf_clock_s() - s->partial_s < every ? SAF_OK : saf__report_partial(s);
}

/* ---- at rank 0 ---- */

static saf_status store_logits(saf__session *s, int32_t request, int64_t at, int64_t n,
                               const float *rows) {
    saf__live *l = &s->live[request];
    l->logits_rows += n;
    return saf_results_logits(s->writer, s->params.vocab, l->logits_row0 + at, n, rows);
}

/* Of a completion, whose rows lie together in the results: they were kept until now. */
static saf_status place_logits(saf__session *s, saf__live *l) {
    saf_status st = SAF_OK;
    int64_t rows = (int64_t)(l->logits.len / sizeof(float)) / s->params.vocab;
    if (rows == 0) return SAF_OK;
    SAF_TRY(saf_results_logits(s->writer, s->params.vocab, s->logits_rows, rows,
                               (const float *)(const void *)l->logits.data));
    saf__state_lock(s);
    l->logits_row0 = s->logits_rows;
    l->logits_rows = rows;
    s->logits_rows += rows;
    l->done = true; /* at once with its place: a checkpoint reads the rows from there */
    saf_buf_free(&l->logits);
    saf__state_unlock(s);
out:
    return st;
}

static saf_status count_done(saf__session *s, int32_t request) {
    saf_status st = SAF_OK;
    saf__live *l = &s->live[request];
    SAF_TRY(place_logits(s, l));
    saf__state_lock(s);
    l->done = true;
    saf__state_unlock(s);
    s->finished++;
    saf__progress_draw(s, false);
out:
    return st;
}

static saf_status impossible(int32_t replica) {
    return saf_fail(SAF_COMM, "replica %d reported what cannot be", replica);
}

/* Whether these are rows that a request can have, and values of as many tokens. */
static bool are_rows(const saf__session *s, const logits_head *h) {
    const saf_request *r = &s->work.requests[h->head.request];
    const saf__live *l = &s->live[h->head.request];
    int64_t here = (int64_t)(l->logits.len / sizeof(float)) / s->params.vocab;
    int64_t all = s->work.score ? r->n_prompt : l->given + (int64_t)r->max_tokens - here;
    return s->work.logits && !l->done && h->at >= 0 && h->n > 0 && h->n <= all &&
           h->at <= all - h->n;
}

static bool are_values(const saf__session *s, const tokens_head *h) {
    const saf_request *r = &s->work.requests[h->head.request];
    const saf__live *l = &s->live[h->head.request];
    uint64_t n = h->lens[0] / sizeof(int32_t), top = (uint64_t)s->work.n_top;
    uint64_t logprobs = s->work.score ? (uint64_t)r->n_prompt : n;
    uint64_t left = (uint64_t)(l->given + (int64_t)r->max_tokens - l->completion.len);
    return !l->done && h->lens[0] == n * sizeof(int32_t) && n <= left &&
           h->lens[2] == logprobs * sizeof(float) && h->lens[3] == n * top * sizeof(int32_t) &&
           h->lens[4] == n * top * sizeof(float) && h->course.end >= SAF__ENDED_NOT &&
           h->course.end <= SAF__ENDED_ERROR;
}

static saf_status take_logits(saf__session *s, int32_t replica, const char *bytes, size_t len) {
    logits_head head;
    int64_t rows_bytes;
    if (len < sizeof head) return impossible(replica);
    memcpy(&head, bytes, sizeof head);
    if (!are_rows(s, &head) ||
        !saf_i64_mul(head.n, s->params.vocab * (int64_t)sizeof(float), &rows_bytes) ||
        (size_t)rows_bytes != len - sizeof head)
        return impossible(replica);
    bytes += sizeof head;
    if (s->work.score)
        return store_logits(s, head.head.request, head.at, head.n,
                            (const float *)(const void *)bytes);
    saf__state_lock(s);
    saf_status st = saf_buf_append(&s->live[head.head.request].logits, bytes, (size_t)rows_bytes);
    saf__state_unlock(s);
    return st;
}

static saf_status append_tokens(saf__live *l, const tokens_head *head,
                                const char *const arrays[N_ARRAYS]) {
    saf_status st = SAF_OK;
    saf_buf *const buffers[] = {&l->bytes, &l->logprobs, &l->top_ids, &l->top_logprobs};
    l->course = head->course;
    for (size_t i = 0; i < head->lens[0]; i += sizeof(int32_t)) {
        int32_t id;
        memcpy(&id, arrays[0] + i, sizeof id);
        SAF_TRY(saf_ids_append(&l->completion, id));
    }
    if (head->lens[1] > 0) saf_buf_clear(&l->bytes); /* the head has the whole text */
    for (int i = 1; i < N_ARRAYS; i++)
        SAF_TRY(saf_buf_append(buffers[i - 1], arrays[i], (size_t)head->lens[i]));
out:
    return st;
}

static saf_status take_tokens(saf__session *s, int32_t replica, const char *bytes, size_t len) {
    saf_status st = SAF_OK;
    tokens_head head;
    if (len < sizeof head) return impossible(replica);
    memcpy(&head, bytes, sizeof head);
    const char *arrays[N_ARRAYS];
    size_t at = sizeof head;
    for (int i = 0; i < N_ARRAYS; i++) {
        if (head.lens[i] > len - at) return impossible(replica);
        arrays[i] = bytes + at;
        at += (size_t)head.lens[i];
    }
    if (at != len || !are_values(s, &head)) return impossible(replica);
    saf__state_lock(s);
    st = append_tokens(&s->live[head.head.request], &head, arrays);
    saf__state_unlock(s);
    if (st == SAF_OK && head.head.kind == DONE) st = count_done(s, head.head.request);
    return st;
}

saf_status saf__report_taken(void *ctx, int32_t replica, const void *bytes, size_t len) {
    saf__session *s = ctx;
    report_head head;
    if (s->status != SAF_OK) return s->status;
    if (len < sizeof head) return impossible(replica);
    memcpy(&head, bytes, sizeof head);
    if (head.request < 0 || head.request >= s->work.n_requests) return impossible(replica);
    s->sampled_tokens += head.tokens;
    switch (head.kind) {
        case PROGRESS:
            saf__progress_draw(s, false);
            return SAF_OK;
        case LOGITS:
            return take_logits(s, replica, bytes, len);
        case PARTIAL:
        case DONE:
            return take_tokens(s, replica, bytes, len);
        default:
            return impossible(replica);
    }
}

/* ---- either ---- */

saf_status saf__report_done(saf__session *s, int32_t request) {
    return s->rank != 0 ? tell_done(s, request) : count_done(s, request);
}

saf_status saf__report_logits(saf__session *s, int32_t request, int64_t at, int64_t n,
                              const float *rows) {
    return s->rank != 0 ? tell_rows(s, request, at, n, rows)
                        : store_logits(s, request, at, n, rows);
}
