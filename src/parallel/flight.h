/* A micro-batch on its way through the stages, and what comes back from the last one. */
#ifndef SAF_PARALLEL_FLIGHT_H
#define SAF_PARALLEL_FLIGHT_H

#include "parallel/group.h"

/* What every part of the engine knows. */
typedef struct {
    saf_group *group;
    saf_comm *comm; /* the leads of the stages; NULL but on a lead */
    const saf_model_params *p;
    saf_stage *stage;
    const saf_work *work;
    const saf_schedule *schedule;
    const saf_engine_events *events;
    int32_t index, stages; /* which stage this is, of how many */
    saf_engine_times *times;
    saf_trace *trace; /* or NULL */
} saf__engine;

/* Words of a flight's description: FLIGHT_HEAD, then FLIGHT_RUN for each run. n_runs -1 says that
 * no more flights come. Within a group the lead tells the flight's place, the number of these
 * words, the words and, on the first stage, the ids. */
enum { SAF__FLIGHT_HEAD = 2, SAF__FLIGHT_RUN = 7 };

typedef struct {
    int32_t place;  /* in the group's memory */
    int64_t number; /* once it is computed: which flight it is */
    bool stop;
    int32_t n_runs, tokens;
    saf_run *runs;     /* [micro_batch] */
    int32_t *request;  /* [micro_batch] */
    saf_fault *faults; /* [micro_batch]; run < 0: none */
    int32_t *ids;      /* [chunk], stage 0 only */
    float *x;          /* [chunk, D], in the group's memory */
    int32_t *words;    /* the description as it travels */
    saf_tensor words_tensor, x_tensor;
    saf_comm_request *words_request, *x_request; /* of the transfer under way */
} saf__flight;

saf_status saf__flight_new(const saf__engine *e, int32_t place, saf__flight *f);
void saf__flight_free(saf__flight *f); /* the members */
/* Starts the transfer to the next stage; the flight stays untouched until saf__flight_wait. */
saf_status saf__flight_send(const saf__engine *e, saf__flight *f);
saf_status saf__flight_post_receive(const saf__engine *e, saf__flight *f);
/* `kind`, for the timeline: SEND until it has left, WAIT until it has come. */
saf_status saf__flight_wait(const saf__engine *e, saf__flight *f, saf_trace_kind kind);
/* After a receive: description to members. Errors: COMM (a description that cannot be). */
saf_status saf__flight_unpack(const saf__engine *e, saf__flight *f);
/* The lead tells the ranks of its group what comes next, and they hear it: nobody is busy with
 * the flight before any more. flights[n_flights]; *out is the one that was told. */
saf_status saf__flight_tell(const saf__engine *e, saf__flight *f);
saf_status saf__flight_hear(const saf__engine *e, saf__flight *flights, saf__flight **out);
/* Forward pass of this stage; notes faults, keeping what earlier stages noted of the same position
 * or an earlier one. */
saf_status saf__flight_compute(const saf__engine *e, saf__flight *f);

/* ---- the last stage: logits, samples, scores ---------------------------------------------------
 */

/* What goes back for one flight, as words of 32 bits: for each run fault layer (or -1), fault
 * position, number of values n, then
 *   generate: n = 1: token id, its log-probability, n_top pairs of id and log-probability
 *   score:    n log-probabilities
 * with floats as their bits. Rows of logits follow as one tensor [rows, V] where the work wants
 * them. */
typedef struct saf__tail saf__tail;
saf_status saf__tail_new(const saf__engine *e, saf__tail **out);
void saf__tail_free(saf__tail **t);
/* After saf__flight_compute on the last stage. Logits that are not finite are a fault of layer L.
 * words and logits are the tail's own, valid until the next call; *rows is 0 unless the work wants
 * logits. */
saf_status saf__tail_run(saf__tail *t, saf__flight *f, const int32_t **words, int64_t *n_words,
                         const float **logits, int64_t *rows);

int64_t saf__result_words_max(const saf__engine *e);
/* Rows of a run that want logits: all when scoring, else the last one when it completes the
 * prompt or continues it. */
int32_t saf__run_logits(const saf_work *work, int32_t request, int32_t pos0, int32_t tokens);

/* ---- the three kinds of rank ------------------------------------------------------------------
 */

/* As many as the group has places for; to be released one by one and by saf_free. */
saf_status saf__flights_new(const saf__engine *e, saf__flight **out);
void saf__flights_free(const saf__engine *e, saf__flight **flights);

/* An event's error ends the loop in order and comes out in *from_events. */
saf_status saf__engine_first(const saf__engine *e, const saf_engine_events *events,
                             saf_status *from_events);
saf_status saf__engine_later(const saf__engine *e);
/* Those that are no lead: they compute what their lead tells. */
saf_status saf__engine_follow(const saf__engine *e);

#endif
