/* The queue as its callers see it; what its two sides have in common. */
#include "parallel/queue.h"

#include "parallel/queue_sides.h"

static const double ASK_S = 0.05; /* between two questions whether to halt */

static bool owns(const saf__queue *q) {
    return q->me == 0;
}

saf_status saf__queue_new(saf_comm *comm, int32_t n_requests, saf__queue_events events,
                          saf__queue **out) {
    saf_status st = SAF_OK;
    saf__queue *q = NULL;
    SAF_TRY(saf_alloc(1, sizeof *q, &q));
    q->comm = comm;
    q->replicas = comm ? saf_comm_size(comm) : 1;
    q->me = comm ? saf_comm_rank(comm) : 0;
    q->n_requests = n_requests;
    q->events = events;
    SAF_TRY(owns(q) ? saf__queue_owner_new(q) : saf__queue_head_new(q));
    *out = q;
    q = NULL;
out:
    saf__queue_free(&q);
    return st;
}

void saf__queue_free(saf__queue **queue) {
    saf__queue *q = *queue;
    if (!q) return;
    for (int i = 1; q->pending && i < q->n_pending; i++) saf_comm_cancel(&q->pending[i]);
    if (owns(q))
        saf__queue_owner_free(q);
    else
        saf__queue_head_free(q);
    saf_free(&q->pending);
    saf_free(queue);
}

bool saf__queue_is_over(const saf__queue *q) {
    return saf__queue_begins_nothing(q) || (owns(q) ? q->next == q->n_requests : q->nothing_left);
}

bool saf__queue_is_stopped(const saf__queue *q) {
    return q->stopped;
}

bool saf__queue_is_halted(const saf__queue *q) {
    return q->halted;
}

bool saf__queue_left_undone(const saf__queue *q) {
    return q->left_undone;
}

void saf__queue_fail(saf__queue *q, saf_status st) {
    if (q->failed == SAF_OK) q->failed = st;
    q->stopped = true;
}

saf_status saf__queue_failed(const saf__queue *q) {
    return q->failed;
}

saf_status saf__queue_draw(saf__queue *q, int32_t room, int32_t *first, int32_t *count) {
    *first = *count = 0;
    if (saf__queue_is_over(q)) return SAF_OK;
    if (!owns(q)) return saf__queue_head_draw(q, room, first, count);
    *first = q->next;
    *count = saf__queue_owner_take(q, 0, room);
    return SAF_OK;
}

static saf_status completed(saf__queue *q, int index) {
    return owns(q) ? saf__queue_owner_completed(q, index) : saf__queue_head_completed(q, index);
}

static void ask(saf__queue *q) {
    if (saf__queue_begins_nothing(q) || !q->events.stop) return;
    q->ask_s = saf_clock_s() + ASK_S;
    q->halted = q->events.stop(q->events.ctx);
    q->halts = q->halted && !owns(q);
}

static saf_status step(saf__queue *q, bool *moved) {
    saf_status st = q->broken;
    *moved = false;
    if (st != SAF_OK) return st;
    for (;;) {
        int index;
        SAF_TRY(owns(q) ? saf__queue_owner_step(q) : saf__queue_head_step(q));
        SAF_TRY(saf_comm_test_any(q->pending + 1, q->n_pending - 1, &index));
        if (index < 0) break;
        SAF_TRY(completed(q, index + 1));
        *moved = true;
    }
out:
    return st;
}

saf_status saf__queue_step(saf__queue *q) {
    bool moved;
    ask(q);
    return step(q, &moved);
}

void saf__queue_tick(saf__queue *q) {
    bool moved;
    q->broken = step(q, &moved);
}

/* Asked by a wait. */
static bool halts(void *ctx) {
    saf__queue *q = ctx;
    if (saf__queue_begins_nothing(q) || saf_clock_s() < q->ask_s) return false;
    ask(q);
    return q->halted;
}

/* What has come before may be what the caller waits for. */
saf_status saf__queue_wait(saf__queue *q, saf_comm_request **other) {
    saf_status st = SAF_OK;
    bool moved;
    int index;
    SAF_TRY(step(q, &moved));
    if (moved) return SAF_OK;
    q->pending[0] = other ? *other : NULL;
    st = saf_comm_wait_any_or(q->pending, q->n_pending, halts, q, &index);
    if (other) *other = q->pending[0];
    q->pending[0] = NULL;
    if (st == SAF_OK && index > 0) st = completed(q, index);
out:
    return st;
}

saf_status saf__queue_end(saf__queue *q, bool undone) {
    q->undone = q->undone || undone; /* the owner may have heard of others' already */
    return owns(q) ? saf__queue_owner_end(q) : saf__queue_head_end(q);
}
