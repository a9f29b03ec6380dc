/* Jobs that go in steps, all ranks together (matmul/, train/): when a checkpoint is written, when
 * to stop, and what an earlier run left. */
#ifndef SAF_JOB_STEPS_H
#define SAF_JOB_STEPS_H

#include "job/session.h"
#include "saf/store.h"

typedef struct {
    saf_comm *world;
    const saf_job *job; /* everybody's own copy of rank 0's */
    const saf_run_options *options;
    saf_results *results; /* rank 0: with the identity once saf__steps_again is called */
    int rank;
    double start_s, run_start_s;
    /* of the kind */
    void *ctx;
    const char *unit;                                    /* "steps", for people */
    saf_status (*write)(void *ctx, saf_status *written); /* saf__steps_keep */
    saf_status (*place)(const void *ctx, saf_buf *out);  /* "after step 3 of 9" */
    bool (*is_there)(const void *ctx);                   /* what the job writes beside results */
    bool replaces;                                       /* results of another job */
    double guess_s;                                      /* what a first checkpoint may take */
    /* what an earlier run left, known everywhere */
    bool over, goes_on;
    /* rank 0 */
    saf_checkpoint *restored; /* the kind's to free when it has taken what it wants, or _end's */
    double before_s;          /* that earlier runs took */
    saf__stop stop;
    int64_t written; /* checkpoints */
    double stalled_s;
    double next_s;             /* the next one is due; 0: never */
    double took_s;             /* the last one */
    double asked_s, longest_s; /* when all were last asked; the longest time between two times */
    double log_after_s;
} saf__steps;

/* Whether there are results of this job, and of what it writes beside them (over), or a checkpoint
 * to go on from. Collective. Errors: BAD_INPUT (of another job). */
saf_status saf__steps_again(saf__steps *s);

/* The steps begin; from now on signals stop the job. */
void saf__steps_begin(saf__steps *s);
/* Between steps that took each_s each: writes a checkpoint where one is due, and stops where it is
 * time. *steps, 1 at first: how many go by until the next time. Collective. Errors: STOPPED; those
 * of a checkpoint but for those of writing, which are no reason to end. */
saf_status saf__steps_between(saf__steps *s, double each_s, int32_t *steps);
/* Writes a checkpoint. Collective. Errors: those of a checkpoint. */
saf_status saf__steps_keep(saf__steps *s);
/* Writes a checkpoint and stops. Collective. Errors: STOPPED; those of a checkpoint. */
saf_status saf__steps_stop(saf__steps *s, bool asked);
/* Whether people have waited long enough to be told how far it is: each time twice as long. */
bool saf__steps_speak(saf__steps *s);
/* Also without a beginning. */
void saf__steps_end(saf__steps *s);

/* Rank 0, within `write`: a checkpoint of this state. *written is what rank 0 could not write,
 * which it keeps to itself until all have given what they have. */
saf_status saf__steps_create(const saf__steps *s, int64_t done, int64_t total, int64_t tokens,
                             saf_checkpoint_writer **out);
/* Seconds of this run and those before it. */
double saf__steps_run_s(const saf__steps *s);
/* Rank 0: what checkpoints took, for the results; for people, after run_s of this run. */
void saf__steps_fill(const saf__steps *s);
void saf__steps_say(const saf__steps *s);

#endif
