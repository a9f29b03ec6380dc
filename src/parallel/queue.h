/* The requests that no replica has taken yet, and what the others report to the first one.
 *
 *      another replica's head                     the first replica's head, which owns the queue
 *           ------ asks for as many as it has room for ----->
 *           <----- gives the next ones; none: nothing is left ------
 *           ------ report: so many bytes; the bytes -------->
 *           ------ end ------------------------------------->
 *           <----- stop: all have ended; or sooner: something failed ------
 *           ------ no more of me --------------------------->
 *
 * A halt is a stop in order: a head that is told from outside tells the owner in place of asking,
 * and the owner tells every other head, by the way of what it gives. Then nothing new is begun,
 * what is under way comes home, and reports are taken until all have ended.
 *
 * Nobody waits for an answer while it has something to compute, and the owner answers between its
 * flights and between two layers of one. It takes the bytes of one report at a time; a head has one
 * under way and gathers the next ones meanwhile, so that only large ones (rows of logits) ever make
 * it wait. */
#ifndef SAF_PARALLEL_QUEUE_H
#define SAF_PARALLEL_QUEUE_H

#include "saf/comm.h"

/* Of what a head gathers while its last report is under way, unless a single one is larger. */
enum { SAF__QUEUE_GATHERED_BYTES = 4 << 20 };

typedef struct {
    void *ctx;
    /* At the owner: what a replica reported, in its order. `bytes` are aligned to 8. A status other
     * than SAF_OK ends the run. */
    saf_status (*report)(void *ctx, int32_t replica, const void *bytes, size_t len);
    /* Whether to halt: asked in each step, and some twenty times a second in a wait, until somebody
     * has said yes. NULL: never. */
    bool (*stop)(void *ctx);
} saf__queue_events;

typedef struct saf__queue saf__queue;

/* comm: rank r is the head of replica r; NULL where there is one replica. Local, but all of its
 * ranks make one. */
saf_status saf__queue_new(saf_comm *comm, int32_t n_requests, saf__queue_events events,
                          saf__queue **out);
void saf__queue_free(saf__queue **queue);

/* Requests [*first, *first + *count) are this replica's now, at most `room` > 0 of them and after
 * the first time at most an equal share of those left. The owner has them at once; another replica
 * asks, goes on with what it has, and gets them by a later call
 * (*count is 0 until then), whose room is at least that of the one that asked. */
saf_status saf__queue_draw(saf__queue *q, int32_t room, int32_t *first, int32_t *count);
/* No more requests come. */
bool saf__queue_is_over(const saf__queue *q);
/* An event failed, here or elsewhere: nothing new is begun, and what is under way comes home. */
bool saf__queue_is_stopped(const saf__queue *q);
/* Some head was told to: the same, but it is no failure. */
bool saf__queue_is_halted(const saf__queue *q);
static inline bool saf__queue_begins_nothing(const saf__queue *q) {
    return saf__queue_is_stopped(q) || saf__queue_is_halted(q);
}
/* It was one of this rank's. The first status counts. */
void saf__queue_fail(saf__queue *q, saf_status st);
saf_status saf__queue_failed(const saf__queue *q); /* SAF_OK: no event of this rank has */
/* A report of two pieces, one after the other; not at the owner. Waits only when too much is
 * gathered already. */
saf_status saf__queue_report(saf__queue *q, const void *head, size_t head_len, const void *body,
                             size_t body_len);

/* Does what can be done without waiting. `tick` does so in the middle of something, and does not
 * ask whether to halt; its error is the next step's. */
saf_status saf__queue_step(saf__queue *q);
void saf__queue_tick(saf__queue *q);
/* Waits until something comes, there is a halt, or *other completes, which is then NULL. */
saf_status saf__queue_wait(saf__queue *q, saf_comm_request **other);
/* This replica is done, or has nothing under way any more. undone: it leaves requests that it drew.
 * Returns when all have ended and the owner has all reports, or sooner after a failure. */
saf_status saf__queue_end(saf__queue *q, bool undone);
/* After the end: some replica left requests undone or nobody drew them, and nothing failed. Same
 * value everywhere. */
bool saf__queue_left_undone(const saf__queue *q);

#endif
