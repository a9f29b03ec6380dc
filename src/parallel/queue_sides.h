/* Inside of the queue: its owner's side (queue_owner.c) and that of the others (queue_head.c). */
#ifndef SAF_PARALLEL_QUEUE_SIDES_H
#define SAF_PARALLEL_QUEUE_SIDES_H

#include "parallel/queue.h"

/* A head asks by its room, and is told the first request and how many, or STOP in place of how
 * many. By another tag it says how many bytes of a report come next, or one of the two ENDs. */
enum { SAF__QUEUE_STOP = -1, SAF__QUEUE_END = -1, SAF__QUEUE_END_FAILED = -2 };

/* Of a replica, at the owner; of its own only whether it drew. */
typedef struct {
    int64_t room, given[2], stop[2], announced; /* bytes of a report that waits to be taken, or 0 */
    saf_tensor room_tensor, announced_tensor;
    saf_comm_request *giving, *stopping;
    bool drew, told; /* requests; to stop */
} saf__queue_peer;

struct saf__queue {
    saf_comm *comm;
    int32_t replicas, me, n_requests;
    saf__queue_events events;
    bool stopped;
    saf_status failed, broken; /* of an event; of a tick */
    /* The caller's while it waits, then those of the side, [n_pending] in all. */
    saf_comm_request **pending;
    int n_pending;

    /* the owner's */
    int32_t next;    /* the first request that nobody has */
    int32_t running; /* other replicas that have not ended */
    saf__queue_peer *peers;
    int32_t taken; /* the replica whose report is being or was last received */
    char *bytes;
    size_t capacity;
    saf_tensor bytes_tensor;

    /* another one's */
    int64_t told[2], room, announced;
    saf_tensor told_tensor;
    int32_t given[2];
    bool asked, has_given, nothing_left, told_stop;
    saf_buf gathered, leaving;
};

saf_status saf__queue_owner_new(saf__queue *q);
void saf__queue_owner_free(saf__queue *q);
/* How many are replica r's now, from `next` as it was. */
int32_t saf__queue_owner_take(saf__queue *q, int32_t r, int64_t room);
saf_status saf__queue_owner_completed(saf__queue *q, int index);
saf_status saf__queue_owner_step(saf__queue *q);
saf_status saf__queue_owner_end(saf__queue *q);

saf_status saf__queue_head_new(saf__queue *q);
void saf__queue_head_free(saf__queue *q);
saf_status saf__queue_head_completed(saf__queue *q, int index);
saf_status saf__queue_head_draw(saf__queue *q, int32_t room, int32_t *first, int32_t *count);
saf_status saf__queue_head_end(saf__queue *q);

#endif
