/* From the head of a replica to rank 0: what became of the requests that ran there. */
#include "job/session.h"

enum { LOGITS_BYTES = 2 << 20 }; /* of one report, if a row is not larger */

typedef enum { PROGRESS, LOGITS, DONE } report_kind;

/* What every report begins with, a multiple of 8 bytes. */
typedef struct {
    int32_t kind, request;
    int64_t tokens; /* sampled or scored since the report before */
} report_head;

typedef struct {
    report_head head;
    int64_t at, n, total; /* rows; they follow */
} logits_head;

enum { N_ARRAYS = 5 };

typedef struct {
    report_head head;
    saf__course course;
    uint64_t lens[N_ARRAYS]; /* bytes of each; they follow */
} done_head;

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

static saf_status tell_done(saf__session *s, int32_t request) {
    saf_status st = SAF_OK;
    saf__live *l = &s->live[request];
    saf_buf all = {0};
    done_head head = {.head = begin(s, DONE, request), .course = l->course};
    const struct {
        const void *data;
        size_t len;
    } arrays[N_ARRAYS] = {{l->completion.data, (size_t)l->completion.len * sizeof(int32_t)},
                          {l->bytes.data, l->bytes.len},
                          {l->logprobs.data, l->logprobs.len},
                          {l->top_ids.data, l->top_ids.len},
                          {l->top_logprobs.data, l->top_logprobs.len}};
    for (int i = 0; i < N_ARRAYS; i++) {
        head.lens[i] = arrays[i].len;
        SAF_TRY(saf_buf_append(&all, arrays[i].data, arrays[i].len));
    }
    SAF_TRY(saf_group_report(s->group, &head, sizeof head, all.data, all.len));
    saf__live_free(l);
out:
    saf_buf_free(&all);
    return st;
}

static saf_status tell_logits(saf__session *s, int32_t request, int64_t at, int64_t n,
                              int64_t total, const float *rows) {
    saf_status st = SAF_OK;
    int64_t V = s->params.vocab;
    int64_t most = saf_i64_max(1, LOGITS_BYTES / (V * (int64_t)sizeof *rows));
    for (int64_t i = 0; i < n; i += most) {
        int64_t some = saf_i64_min(most, n - i);
        logits_head head = {begin(s, LOGITS, request), at + i, some, total};
        SAF_TRY(saf_group_report(s->group, &head, sizeof head, rows + i * V,
                                 (size_t)(some * V) * sizeof *rows));
    }
out:
    return st;
}

/* ---- at rank 0 ---- */

static saf_status store_logits(saf__session *s, int32_t request, int64_t at, int64_t n,
                               int64_t total, const float *rows) {
    saf__live *l = &s->live[request];
    if (total > 0 && at == 0) {
        l->logits_row0 = s->logits_rows;
        s->logits_rows += total;
    }
    l->logits_rows += n;
    return saf_results_logits(s->writer, s->params.vocab, l->logits_row0 + at, n, rows);
}

static void count_done(saf__session *s) {
    s->finished++;
    saf__progress_draw(s, false);
}

static saf_status impossible(int32_t replica) {
    return saf_fail(SAF_COMM, "replica %d reported what cannot be", replica);
}

/* Whether these are rows that a request can have, and values of as many tokens. */
static bool are_rows(const saf__session *s, const logits_head *h) {
    int64_t all = s->work.score ? s->work.requests[h->head.request].n_prompt : h->total;
    return s->work.logits && h->at >= 0 && h->n > 0 && h->n <= all && h->at <= all - h->n;
}

static bool are_values(const saf__session *s, const done_head *h) {
    const saf_request *r = &s->work.requests[h->head.request];
    uint64_t n = h->lens[0] / sizeof(int32_t), top = (uint64_t)s->work.n_top;
    uint64_t logprobs = s->work.score ? (uint64_t)r->n_prompt : n;
    return h->lens[0] == n * sizeof(int32_t) && n <= (uint64_t)r->max_tokens &&
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
    return store_logits(s, head.head.request, head.at, head.n, head.total,
                        (const float *)(const void *)(bytes + sizeof head));
}

static saf_status take_done(saf__session *s, int32_t replica, const char *bytes, size_t len) {
    saf_status st = SAF_OK;
    done_head head;
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
    saf__live *l = &s->live[head.head.request];
    l->course = head.course;
    for (size_t i = 0; i < head.lens[0]; i += sizeof(int32_t)) {
        int32_t id;
        memcpy(&id, arrays[0] + i, sizeof id);
        SAF_TRY(saf_ids_append(&l->completion, id));
    }
    saf_buf *const buffers[] = {&l->bytes, &l->logprobs, &l->top_ids, &l->top_logprobs};
    for (int i = 1; i < N_ARRAYS; i++)
        SAF_TRY(saf_buf_append(buffers[i - 1], arrays[i], (size_t)head.lens[i]));
    count_done(s);
out:
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
        case DONE:
            return take_done(s, replica, bytes, len);
        default:
            return impossible(replica);
    }
}

/* ---- either ---- */

saf_status saf__report_done(saf__session *s, int32_t request) {
    if (s->rank != 0) return tell_done(s, request);
    count_done(s);
    return SAF_OK;
}

saf_status saf__report_logits(saf__session *s, int32_t request, int64_t at, int64_t n,
                              int64_t total, const float *rows) {
    return s->rank != 0 ? tell_logits(s, request, at, n, total, rows)
                        : store_logits(s, request, at, n, total, rows);
}
