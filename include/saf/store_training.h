/* saf/store_training.h: what a results file holds of a training: its curve, /steps and
 * /evaluations, and root attributes.
 *
 * Ranks: everything is local; rank 0 writes.
 */
#ifndef SAF_PUBLIC_STORE_TRAINING_H
#define SAF_PUBLIC_STORE_TRAINING_H

#include "saf/core.h"

/* A row of /steps. */
typedef struct {
    int64_t step; /* from 1 on */
    double loss;  /* nats per token, before the step's update */
    double learning_rate, gradient_norm;
    int64_t tokens; /* that were predicted */
    double seconds;
} saf_result_train_step;

/* A row of /evaluations: the model after so many steps on the held-out text. */
typedef struct {
    int64_t step;
    double loss, loss_per_byte; /* nats per token, per byte of text */
    int64_t tokens, bytes;      /* that were predicted */
    double seconds;
} saf_result_evaluation;

/* Root attributes train_* (but for the rows). */
typedef struct {
    bool there; /* a job that trained */
    char *arch, *shape, *vocabulary;
    char *model, *model_type; /* the file that was written, and the type of its matrices */
    char *weights_sha256;     /* of the parameters as f32, in the order of the file */
    char *core;               /* of OpenBLAS: whose bits these are */
    int64_t vocab, parameters;
    int64_t steps, batch, micro_batches, context;
    int64_t text_tokens, text_bytes, held_out_tokens, held_out_bytes;
    double held_out_loss, held_out_loss_per_byte; /* of the last evaluation; NaN: none */
    double tokens_per_s, flops_per_s;             /* of the last run, evaluations left out */
    int64_t n_curve, n_evaluations;
    saf_result_train_step *curve;
    saf_result_evaluation *evaluations;
} saf_result_training;

#endif
