/* The queue at the head of another replica than the owner's. */
#include "parallel/queue_sides.h"

/* Places of pending. */
enum { TOLD = 1, ASKING, ANNOUNCING, SENDING, N_PENDING };

static saf_status listen_to_owner(saf__queue *q) {
    q->told_tensor = saf_tensor_1d(SAF_DTYPE_I64, q->told, 2);
    return saf_comm_irecv(q->comm, 0, SAF_TAG_GIVEN, sizeof q->told, &q->told_tensor,
                          &q->pending[TOLD]);
}

saf_status saf__queue_head_new(saf__queue *q) {
    saf_status st = SAF_OK;
    q->n_pending = N_PENDING;
    SAF_TRY(saf_alloc(N_PENDING, sizeof(saf_comm_request *), &q->pending));
    SAF_TRY(listen_to_owner(q));
out:
    return st;
}

void saf__queue_head_free(saf__queue *q) {
    saf_buf_free(&q->gathered);
    saf_buf_free(&q->leaving);
}

/* ---- drawing ---- */

saf_status saf__queue_head_draw(saf__queue *q, int32_t room, int32_t *first, int32_t *count) {
    if (q->has_given) {
        *first = q->given[0];
        *count = q->given[1];
        q->has_given = q->asked = false;
        return SAF_OK;
    }
    if (q->asked || q->pending[ASKING]) return SAF_OK;
    q->asked = true;
    q->room = room;
    const saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &q->room, 1);
    return saf_comm_isend(q->comm, 0, SAF_TAG_QUEUE, &t, &q->pending[ASKING]);
}

static saf_status hear(saf__queue *q) {
    int64_t first = q->told[0], count = q->told[1];
    if (q->told_tensor.shape[0] == 2 && count == SAF__QUEUE_STOP) {
        q->stopped = q->told_stop = true;
        q->left_undone = first != 0;
        return SAF_OK;
    }
    if (q->told_tensor.shape[0] == 2 && count == SAF__QUEUE_HALT) {
        q->halted = true;
        q->asked = false; /* no answer comes any more */
        return listen_to_owner(q);
    }
    if (q->told_tensor.shape[0] != 2 || !q->asked || q->has_given || first < 0 || count < 0 ||
        count > q->room || first > q->n_requests - count)
        return saf_fail(SAF_COMM, "the first replica gave requests that cannot be");
    q->given[0] = (int32_t)first;
    q->given[1] = (int32_t)count;
    q->has_given = count > 0;
    q->nothing_left = count == 0;
    return listen_to_owner(q);
}

/* By the way of what it asks, one word at a time. */
static saf_status say(saf__queue *q, int64_t word) {
    const saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &q->word, 1);
    q->word = word;
    return saf_comm_isend(q->comm, 0, SAF_TAG_QUEUE, &t, &q->pending[ASKING]);
}

saf_status saf__queue_head_step(saf__queue *q) {
    if (!q->halts || q->pending[ASKING]) return SAF_OK;
    q->halts = false;
    return say(q, SAF__QUEUE_HALT);
}

/* ---- reports ---- */

static bool is_sending(const saf__queue *q) {
    return q->pending[ANNOUNCING] || q->pending[SENDING];
}

static saf_status announce(saf__queue *q, int64_t bytes) {
    const saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &q->announced, 1);
    q->announced = bytes;
    return saf_comm_isend(q->comm, 0, SAF_TAG_REPORT, &t, &q->pending[ANNOUNCING]);
}

/* What was gathered leaves, if nothing else is on its way. */
static saf_status send_gathered(saf__queue *q) {
    saf_status st = SAF_OK;
    if (is_sending(q) || q->gathered.len == 0) return SAF_OK;
    saf_buf empty = q->leaving;
    q->leaving = q->gathered;
    q->gathered = empty;
    saf_buf_clear(&q->gathered);
    SAF_TRY(announce(q, (int64_t)q->leaving.len));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, q->leaving.data, (int64_t)q->leaving.len);
    SAF_TRY(saf_comm_isend(q->comm, 0, SAF_TAG_REPORT, &t, &q->pending[SENDING]));
out:
    return st;
}

saf_status saf__queue_head_completed(saf__queue *q, int index) {
    return index == TOLD ? hear(q) : send_gathered(q);
}

saf_status saf__queue_report(saf__queue *q, const void *head, size_t head_len, const void *body,
                             size_t body_len) {
    saf_status st = SAF_OK;
    static const char zeros[8];
    uint64_t len = head_len + body_len;
    if (q->me == 0) return saf_fail(SAF_DEFECT, "the first replica reports to itself");
    if (q->stopped) return SAF_OK;
    while (q->gathered.len > 0 && q->gathered.len + len > SAF__QUEUE_GATHERED_BYTES)
        SAF_TRY(saf__queue_wait(q, NULL));
    SAF_TRY(saf_buf_append(&q->gathered, &len, sizeof len));
    SAF_TRY(saf_buf_append(&q->gathered, head, head_len));
    SAF_TRY(saf_buf_append(&q->gathered, body, body_len));
    SAF_TRY(saf_buf_append(&q->gathered, zeros, (size_t)(-len & 7)));
    SAF_TRY(send_gathered(q));
out:
    return st;
}

/* ---- the end ---- */

saf_status saf__queue_head_end(saf__queue *q) {
    saf_status st = SAF_OK;
    while (is_sending(q)) SAF_TRY(saf__queue_wait(q, NULL));
    SAF_TRY(announce(q, q->failed != SAF_OK         ? SAF__QUEUE_END_FAILED
                        : q->undone || q->has_given ? SAF__QUEUE_END_UNDONE
                                                    : SAF__QUEUE_END));
    while (!q->told_stop || is_sending(q) || q->halts || q->pending[ASKING])
        SAF_TRY(saf__queue_wait(q, NULL));
    /* Whatever was asked meanwhile is taken in before this, which the owner waits for. */
    SAF_TRY(say(q, SAF__QUEUE_LEAVE));
    SAF_TRY(saf_comm_wait(&q->pending[ASKING]));
out:
    return st;
}
