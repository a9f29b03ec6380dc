/* The queue at its owner: it gives requests, and takes reports one at a time. */
#include "parallel/queue_sides.h"

/* Places of pending: of replica r what it asks for, and what it announces; then the bytes of a
 * report. */
static int asking(int32_t r) {
    return r;
}
static int announcing(const saf__queue *q, int32_t r) {
    return q->replicas + r;
}
static int taking(const saf__queue *q) {
    return 2 * q->replicas;
}

static saf_status await_ask(saf__queue *q, int32_t r) {
    saf__queue_peer *p = &q->peers[r];
    p->room_tensor = saf_tensor_1d(SAF_DTYPE_I64, &p->room, 1);
    return saf_comm_irecv(q->comm, r, SAF_TAG_QUEUE, sizeof p->room, &p->room_tensor,
                          &q->pending[asking(r)]);
}

static saf_status await_announcement(saf__queue *q, int32_t r) {
    saf__queue_peer *p = &q->peers[r];
    p->announced_tensor = saf_tensor_1d(SAF_DTYPE_I64, &p->announced, 1);
    return saf_comm_irecv(q->comm, r, SAF_TAG_REPORT, sizeof p->announced, &p->announced_tensor,
                          &q->pending[announcing(q, r)]);
}

saf_status saf__queue_owner_new(saf__queue *q) {
    saf_status st = SAF_OK;
    q->running = q->staying = q->replicas - 1;
    q->n_pending = taking(q) + 1;
    SAF_TRY(saf_alloc((size_t)q->n_pending, sizeof(saf_comm_request *), &q->pending));
    SAF_TRY(saf_alloc((size_t)q->replicas, sizeof *q->peers, &q->peers));
    for (int32_t r = 1; r < q->replicas; r++) {
        SAF_TRY(await_ask(q, r));
        SAF_TRY(await_announcement(q, r));
    }
out:
    return st;
}

void saf__queue_owner_free(saf__queue *q) {
    for (int32_t r = 1; q->peers && r < q->replicas; r++) {
        saf_comm_cancel(&q->peers[r].giving);
        saf_comm_cancel(&q->peers[r].halting);
        saf_comm_cancel(&q->peers[r].stopping);
    }
    saf_free(&q->peers);
    saf_free(&q->bytes);
}

/* ---- what heads are told ---- */

/* After its first ones a replica gets no more than an equal share of what is left, so that the last
 * requests are spread. */
int32_t saf__queue_owner_take(saf__queue *q, int32_t r, int64_t room) {
    int64_t left = saf__queue_begins_nothing(q) ? 0 : q->n_requests - q->next;
    int64_t most = q->peers[r].drew ? saf_ceil_div(left, q->replicas) : left;
    int32_t n = (int32_t)saf_i64_min(room, most);
    q->peers[r].drew = true;
    q->next += n;
    return n;
}

static saf_status tell(saf__queue *q, int32_t r, int64_t words[2], saf_comm_request **request) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, words, 2);
    return saf_comm_isend(q->comm, r, SAF_TAG_GIVEN, &t, request);
}

static saf_status give(saf__queue *q, int32_t r, int64_t room) {
    saf_status st = SAF_OK;
    saf__queue_peer *p = &q->peers[r];
    /* When two messages crossed no answer is expected any more. */
    if (p->told_halt || p->told_stop) return SAF_OK;
    SAF_TRY(saf_comm_wait(&p->giving)); /* has come, or it would not have asked again */
    p->given[0] = q->next;
    p->given[1] = saf__queue_owner_take(q, r, room);
    SAF_TRY(tell(q, r, p->given, &p->giving));
out:
    return st;
}

static saf_status halt(saf__queue *q, int32_t r) {
    saf__queue_peer *p = &q->peers[r];
    if (p->told_halt || p->told_stop) return SAF_OK;
    p->told_halt = true;
    p->halt[1] = SAF__QUEUE_HALT;
    return tell(q, r, p->halt, &p->halting);
}

static saf_status stop(saf__queue *q, int32_t r) {
    saf__queue_peer *p = &q->peers[r];
    if (p->told_stop) return SAF_OK;
    p->told_stop = true;
    p->stop[0] = q->left_undone;
    p->stop[1] = SAF__QUEUE_STOP;
    return tell(q, r, p->stop, &p->stopping);
}

/* ---- what they report ---- */

/* Begins to receive the next one, of all replicas in turn. */
static saf_status take_next(saf__queue *q) {
    saf_status st = SAF_OK;
    int32_t r = q->taken;
    if (q->pending[taking(q)]) return SAF_OK;
    do r = (r + 1) % q->replicas;
    while (r != q->taken && (q->peers[r].announced == 0 || q->pending[announcing(q, r)]));
    if (q->peers[r].announced == 0 || q->pending[announcing(q, r)]) return SAF_OK;
    size_t bytes = (size_t)q->peers[r].announced;
    if (bytes > q->capacity) {
        saf_free(&q->bytes);
        q->capacity = 0;
        SAF_TRY(saf_alloc(bytes, 1, &q->bytes));
        q->capacity = bytes;
    }
    q->bytes_tensor = saf_tensor_1d(SAF_DTYPE_U8, q->bytes, (int64_t)bytes);
    q->taken = r;
    SAF_TRY(saf_comm_irecv(q->comm, r, SAF_TAG_REPORT, bytes, &q->bytes_tensor,
                           &q->pending[taking(q)]));
out:
    return st;
}

static saf_status impossible(int32_t r) {
    return saf_fail(SAF_COMM, "the head of replica %d said what cannot be", r);
}

/* Each report lies behind its length, at multiples of 8 bytes. */
static saf_status hand_out(saf__queue *q) {
    int32_t r = q->taken;
    size_t at = 0, len = (size_t)q->peers[r].announced;
    if (q->bytes_tensor.shape[0] != (int64_t)len) return impossible(r);
    while (at < len) {
        uint64_t n;
        if (len - at < sizeof n) return impossible(r);
        memcpy(&n, q->bytes + at, sizeof n);
        at += sizeof n;
        if (n > len - at) return impossible(r);
        if (!q->stopped && q->events.report) {
            saf_status st = q->events.report(q->events.ctx, r, q->bytes + at, (size_t)n);
            if (st != SAF_OK) saf__queue_fail(q, st);
        }
        at += (size_t)n;
        at += -at & 7;
    }
    q->peers[r].announced = 0;
    return await_announcement(q, r);
}

static saf_status hear_ask(saf__queue *q, int32_t r) {
    saf_status st = SAF_OK;
    int64_t room = q->peers[r].room;
    if (q->peers[r].room_tensor.shape[0] != 1 || room == 0) return impossible(r);
    if (room == SAF__QUEUE_LEAVE) {
        q->staying--;
        return SAF_OK;
    }
    if (room > 0)
        SAF_TRY(give(q, r, room));
    else if (room == SAF__QUEUE_HALT)
        q->halted = true;
    else
        return impossible(r);
    SAF_TRY(await_ask(q, r));
out:
    return st;
}

static saf_status hear_announcement(saf__queue *q, int32_t r) {
    int64_t bytes = q->peers[r].announced;
    if (q->peers[r].announced_tensor.shape[0] != 1 || bytes == 0) return impossible(r);
    if (bytes > 0) return SAF_OK; /* take_next finds it */
    if (bytes == SAF__QUEUE_END_FAILED)
        q->stopped = true;
    else if (bytes == SAF__QUEUE_END_UNDONE)
        q->undone = true;
    else if (bytes != SAF__QUEUE_END)
        return impossible(r);
    q->peers[r].announced = 0;
    q->running--;
    return SAF_OK;
}

saf_status saf__queue_owner_completed(saf__queue *q, int place) {
    saf_status st = SAF_OK;
    if (place < q->replicas)
        SAF_TRY(hear_ask(q, place));
    else if (place < taking(q))
        SAF_TRY(hear_announcement(q, place - q->replicas));
    else
        SAF_TRY(hand_out(q));
    SAF_TRY(take_next(q));
out:
    return st;
}

saf_status saf__queue_owner_step(saf__queue *q) {
    saf_status st = SAF_OK;
    for (int32_t r = 1; q->stopped && r < q->replicas; r++) SAF_TRY(stop(q, r));
    for (int32_t r = 1; q->halted && r < q->replicas; r++) SAF_TRY(halt(q, r));
out:
    return st;
}

saf_status saf__queue_owner_end(saf__queue *q) {
    saf_status st = SAF_OK;
    while (q->running > 0) SAF_TRY(saf__queue_wait(q, NULL));
    q->left_undone = !q->stopped && (q->undone || q->next < q->n_requests);
    for (int32_t r = 1; r < q->replicas; r++) SAF_TRY(stop(q, r));
    while (q->staying > 0) SAF_TRY(saf__queue_wait(q, NULL));
    for (int32_t r = 1; r < q->replicas; r++) {
        SAF_TRY(saf_comm_wait(&q->peers[r].halting));
        SAF_TRY(saf_comm_wait(&q->peers[r].stopping));
    }
out:
    return st;
}
