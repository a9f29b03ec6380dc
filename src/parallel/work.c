/* The requests as every rank knows them, and their broadcast. */
#include "saf/parallel.h"

/* What travels for one request, beside its prompt. Sent as bytes: the ranks of a job run the same
 * program. */
typedef struct {
    uint64_t key;
    saf_sampling sampling;
    int32_t n_prompt, max_tokens, cached;
} request_wire;

typedef struct {
    int32_t score, logits, n_top, n_requests;
} work_wire;

static saf_status pack(const saf_work *work, saf_buf *out) {
    saf_status st = SAF_OK;
    work_wire head = {work->score, work->logits, work->n_top, work->n_requests};
    SAF_TRY(saf_buf_append(out, &head, sizeof head));
    for (int32_t i = 0; i < work->n_requests; i++) {
        const saf_request *r = &work->requests[i];
        request_wire wire;
        memset(&wire, 0, sizeof wire);
        wire.key = r->key;
        wire.sampling = r->sampling;
        wire.n_prompt = r->n_prompt;
        wire.max_tokens = r->max_tokens;
        wire.cached = r->cached;
        SAF_TRY(saf_buf_append(out, &wire, sizeof wire));
        SAF_TRY(saf_buf_append(out, r->prompt, (size_t)r->n_prompt * sizeof *r->prompt));
    }
out:
    return st;
}

static saf_status take(const saf_buf *buf, size_t *at, void *out, size_t len) {
    if (len > buf->len - *at)
        return saf_fail(SAF_DEFECT, "the broadcast work ends early, at byte %zu", *at);
    memcpy(out, buf->data + *at, len);
    *at += len;
    return SAF_OK;
}

static saf_status unpack(const saf_buf *buf, saf_work *work) {
    saf_status st = SAF_OK;
    size_t at = 0;
    work_wire head;
    SAF_TRY(take(buf, &at, &head, sizeof head));
    *work = (saf_work){.score = head.score, .logits = head.logits, .n_top = head.n_top};
    SAF_TRY(saf_alloc((size_t)head.n_requests, sizeof *work->requests, &work->requests));
    work->n_requests = head.n_requests;
    for (int32_t i = 0; i < head.n_requests; i++) {
        saf_request *r = &work->requests[i];
        request_wire wire;
        SAF_TRY(take(buf, &at, &wire, sizeof wire));
        r->key = wire.key;
        r->sampling = wire.sampling;
        r->n_prompt = wire.n_prompt;
        r->max_tokens = wire.max_tokens;
        r->cached = wire.cached;
        SAF_TRY(saf_alloc((size_t)r->n_prompt, sizeof *r->prompt, &r->prompt));
        SAF_TRY(take(buf, &at, r->prompt, (size_t)r->n_prompt * sizeof *r->prompt));
    }
out:
    if (st != SAF_OK) saf_work_free(work);
    return st;
}

saf_status saf_work_bcast(saf_comm *comm, int root, saf_work *work) {
    saf_status st = SAF_OK;
    saf_buf wire = {0};
    bool mine = saf_comm_rank(comm) == root;
    SAF_TRY(saf_comm_agree(comm, mine ? pack(work, &wire) : SAF_OK));
    SAF_TRY(saf_comm_bcast_buf(comm, root, &wire));
    st = saf_comm_agree(comm, mine ? SAF_OK : unpack(&wire, work));
out:
    saf_buf_free(&wire);
    return st;
}

void saf_work_free(saf_work *work) {
    for (int32_t i = 0; work->requests && i < work->n_requests; i++)
        saf_free(&work->requests[i].prompt);
    saf_free(&work->requests);
    *work = (saf_work){0};
}
