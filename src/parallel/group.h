/* Inside of a group, for the engine: which rank of its stage this is, and how a flight gets from
 * the lead to the others. */
#ifndef SAF_PARALLEL_GROUP_H
#define SAF_PARALLEL_GROUP_H

#include "parallel/queue.h"
#include "saf/parallel.h"

/* Where things lie in the memory that the ranks of a stage share, behind what the stage itself
 * needs. */
typedef struct {
    size_t x, x_bytes; /* the rows of the flights, [n_flights] of so many bytes: f32 [chunk, D] */
    size_t words;      /* a flight as the lead tells it */
    int64_t words_max;
    size_t logits;  /* last stage: f32 [block, V] */
    size_t sampled; /* last stage: saf_sampled [micro_batch, 1 + n_top] */
    size_t scores;  /* last stage: f32 [rows] */
    size_t end;
} saf__group_places;

struct saf_group {
    const saf_model_params *p;
    const saf_work *work;
    const saf_schedule *schedule;
    saf_place place;
    int32_t stages, ranks; /* of the pipeline; of the group */
    int32_t n_flights;     /* of this stage */
    int64_t logits_block;  /* rows of logits at a time */
    saf_comm *pipe;        /* the leads of the stages, rank = stage; NULL but on a lead */
    saf_comm *heads;       /* the leads of the first stages, rank = replica; NULL elsewhere, and
                              where there is one replica */
    saf__queue *queue;     /* of a head, while the engine runs */
    saf_comm *comm;        /* the ranks of this stage; NULL where there is one */
    saf_shared *shared;    /* likewise */
    char *memory;          /* shared, or this rank's own */
    saf__group_places at;
    saf_stage_group stage; /* what the stage sees */
    double wait_s;         /* spent in meetings so far */
    saf_trace *trace;      /* or NULL */
};

static inline bool saf__group_leads(const saf_group *g) {
    return g->place.part == 0;
}
static inline bool saf__group_is_head(const saf_group *g) {
    return g->place.stage == 0 && g->place.part == 0;
}
static inline bool saf__group_is_last(const saf_group *g) {
    return g->place.stage == g->stages - 1;
}
/* The ranks of the group meet, see saf_shared_meet; nothing where there is one. `kind`: what that
 * is to this rank, for its timeline. */
saf_status saf__group_meet(saf_group *g, saf_trace_kind kind, const saf_part *parts, int64_t n);

#endif
