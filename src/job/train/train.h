/* A train job on its way: what the files of this folder share. The arithmetic, and who works out
 * what, is src/train's; here are texts, the order in which they are learnt, checkpoints and files.
 */
#ifndef SAF_JOB_TRAIN_H
#define SAF_JOB_TRAIN_H

#include "job/hosts.h"
#include "job/session.h"
#include "job/steps.h"
#include "saf/store.h"
#include "saf/train.h"

/* Texts as tokens, on every rank. Each text ends with the vocabulary's end, where it has one; the
 * texts to learn from are one after the other, and so are those held out. A sequence is a stretch
 * of tokens of either, `context` of them to learn from and one less to measure on, foretold from
 * what precedes them in it; before the first there is BOS where the vocabulary puts it before a
 * text, and otherwise one token more. */
typedef struct {
    saf_buf learn, held;       /* int32_t each */
    int64_t n_learn, n_held;   /* tokens */
    int64_t bytes, held_bytes; /* of the text; held_bytes: of what is foretold of it */
    int32_t bos;               /* -1: none */
    int64_t context;
    uint64_t seed;
} saf__texts;

typedef struct {
    saf_comm *world;
    const saf_job *job; /* everybody's own copy of rank 0's */
    saf_job given_job;
    const saf_run_options *options;
    int rank, ranks;
    double start_s;
    int32_t dry_run;
    saf__host_share host_share;
    int32_t *host; /* [ranks] */
    saf_train_shape shape;
    saf_train_settings settings;
    saf__texts texts;
    saf_train *train;
    saf__steps steps;
    /* rank 0 */
    char learn_sha256[65], held_sha256[65], vocab_sha256[65];
    uint8_t vocab_header[32]; /* SHA-256: of all that the model takes over */
    saf_results results;      /* its training's rows grow with the steps */
    int64_t curve_room, evaluations_room;
    saf_results_writer *writer;
    int64_t before_steps; /* of earlier runs */
    double operations;    /* of all ranks, at the end */
} saf__training;

/* keys.c, rank 0: that no output takes the place of what is read. Errors: USAGE. */
saf_status saf__train_check_outputs(const saf_job *job);
/* texts.c, rank 0: reads the vocabulary and the texts. Errors: NO_INPUT, BAD_INPUT, USAGE (an
 * output would replace them). */
saf_status saf__texts_read(saf__training *x);
/* Rank 0: that the vocabulary is still what was read. Errors: NO_INPUT, BAD_INPUT, IO. */
saf_status saf__vocab_check(const saf__training *x);
/* To all ranks. Collective. */
saf_status saf__texts_share(saf__training *x);
void saf__texts_free(saf__texts *t);
/* Sequences of a step; those of the held-out text, and how many there are. */
saf_status saf__texts_learn(void *texts, int64_t step, int64_t sequence, int32_t *ids,
                            int64_t *counted);
saf_status saf__texts_held(void *texts, int64_t step, int64_t sequence, int32_t *ids,
                           int64_t *counted);
int64_t saf__texts_held_sequences(const saf__texts *t);

/* open.c: the job, its shape, settings and texts on every rank. Collective. */
saf_status saf__train_open(saf__training *x);
/* plan.c: --dry-run. Rank 0. */
saf_status saf__train_print(const saf__training *x);
/* again.c, rank 0: what makes it another job; whether its model is there (of saf__training). */
saf_status saf__train_identity(saf__training *x);
bool saf__train_is_there(const void *x);
/* curve.c, rank 0: rows of the results. Errors: NO_MEMORY. */
saf_status saf__curve_add(saf__training *x, const saf_result_train_step *row);
saf_status saf__evaluations_add(saf__training *x, const saf_result_evaluation *row);
/* keep.c: a checkpoint (of saf__training; saf__steps), and going on from one. Collective. */
saf_status saf__train_keep(void *x, saf_status *written);
saf_status saf__train_restore(saf__training *x);
/* finish.c: the model, then the results; where these cannot be written, a checkpoint. Collective.
 */
saf_status saf__train_finish(saf__training *x);

/* The whole job. Collective; every rank gives the same kind. */
saf_status saf__train_run(saf_comm *world, const saf_job *job, const saf_run_options *options);

#endif
