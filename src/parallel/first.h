/* Stage 0 of a replica, by its head: which sequences there are and what runs next (slots.c), what
 * comes back (home.c), and the loop over all of it (first.c). */
#ifndef SAF_PARALLEL_FIRST_H
#define SAF_PARALLEL_FIRST_H

#include "parallel/flight.h"

typedef struct {
    int32_t request; /* -1: free */
    int32_t fed;     /* positions that have left */
    int32_t next_id; /* the token sampled last, to be fed when the prompt is done */
    int32_t flights; /* how many under way hold a run of it */
    bool over;       /* finished or failed: what still comes back is dropped */
    bool again;      /* it was begun again without its cached positions */
    bool drop;       /* it will be, when nothing of it is under way; what comes back is dropped */
} saf__slot;

typedef struct {
    const saf__engine *e;
    const saf_engine_events *events;
    saf__queue *queue; /* the group's */
    saf__slot *slots;  /* [sequences] */
    int32_t n_free;
    int32_t *ready; /* ring of slots, [sequences] */
    int32_t ready_head, n_ready;
    saf__flight *flights; /* ring, [n_flights] */
    int32_t flight_head, under_way;
    saf__tail *tail; /* when there is one stage only */
    int32_t *words;  /* results as received */
    float *logits;   /* rows as received */
    saf_sampled *top;
    saf_tensor words_tensor;
    saf_comm_request *words_request;
} saf__first;

static inline const saf_request *saf__request_of(const saf__first *s, int32_t slot) {
    return &s->e->work->requests[s->slots[slot].request];
}
static inline saf__flight *saf__flight_at(const saf__first *s, int32_t i) {
    return &s->flights[(s->flight_head + i) % s->e->group->n_flights];
}

saf_status saf__slots_new(saf__first *s);
void saf__slots_free(saf__first *s);
/* What the queue has for free slots, or will have. */
saf_status saf__slots_admit(saf__first *s);
/* The slot has rows to feed. */
void saf__slots_enqueue(saf__first *s, int32_t slot);
/* Whether another flight may leave now, and that flight. */
bool saf__slots_may_leave(const saf__first *s);
saf__flight *saf__slots_form(saf__first *s);
/* The request is over; its slot is free when nothing of it is under way any more. */
void saf__slots_finish(saf__first *s, saf__slot *slot);
void saf__slots_release(saf__first *s);
/* Whether some request is not over. */
bool saf__slots_undone(const saf__first *s);
/* Which slots hold something of those, as events. */
saf_status saf__slots_held(const saf__first *s);

/* The oldest flight, with what came of it; an event's error is the queue's. */
void saf__flight_home(saf__first *s, const int32_t *words, const float *logits);

#endif
