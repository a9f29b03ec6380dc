/* Inside of the queue: its owner's side (queue_owner.c) and that of the others (queue_head.c). */
#ifndef SAF_PARALLEL_QUEUE_SIDES_H
#define SAF_PARALLEL_QUEUE_SIDES_H

#include "parallel/queue.h"

/* A head asks by its room, in place of which it says HALT, and LEAVE last of all. It is told the
 * first request and how many, or in place of how many: HALT, or STOP, and then in place of the
 * first one whether anything is left undone. By another tag it says how many bytes of a report come
 * next, or one of the ENDs. */
enum { SAF__QUEUE_HALT = -1, SAF__QUEUE_LEAVE = -2, SAF__QUEUE_STOP = -3 };
enum { SAF__QUEUE_END = -1, SAF__QUEUE_END_UNDONE = -2, SAF__QUEUE_END_FAILED = -3 };

/* Of a replica, at the owner; of its own only whether it drew. */
typedef struct {
    int64_t room, given[2], halt[2], stop[2];
    int64_t announced; /* bytes of a report that waits to be taken, or 0 */
    saf_tensor room_tensor, announced_tensor;
    saf_comm_request *giving, *halting, *stopping;
    bool drew, told_halt, told_stop; /* requests; to halt, to stop */
} saf__queue_peer;

struct saf__queue {
    saf_comm *comm;
    int32_t replicas, me, n_requests;
    saf__queue_events events;
    bool stopped, halted;
    bool undone;               /* of this replica; at the owner, of any that has ended */
    bool left_undone;          /* what all agree on in the end */
    double ask_s;              /* when to ask next whether to halt */
    saf_status failed, broken; /* of an event; of a tick */
    /* The caller's while it waits, then those of the side, [n_pending] in all. */
    saf_comm_request **pending;
    int n_pending;

    /* the owner's */
    int32_t next;    /* the first request that nobody has */
    int32_t running; /* other replicas that have not ended */
    int32_t staying; /* that have not said their last word */
    saf__queue_peer *peers;
    int32_t taken; /* the replica whose report is being or was last received */
    char *bytes;
    size_t capacity;
    saf_tensor bytes_tensor;

    /* another one's */
    int64_t told[2], room, word, announced;
    saf_tensor told_tensor;
    int32_t given[2];
    bool asked, has_given, nothing_left, told_stop;
    bool halts; /* and has yet to tell the owner */
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
saf_status saf__queue_head_step(saf__queue *q);
saf_status saf__queue_head_draw(saf__queue *q, int32_t room, int32_t *first, int32_t *count);
saf_status saf__queue_head_end(saf__queue *q);

#endif
