/* The rows of a training, as they come. Rank 0. */
#include "job/train/train.h"

static saf_status grow(void *rows, int64_t n, int64_t *room, size_t row_bytes) {
    saf_status st = SAF_OK;
    char *old, *wider = NULL;
    memcpy(&old, rows, sizeof old);
    if (n < *room) return SAF_OK;
    int64_t cap = *room ? 2 * *room : 1024;
    SAF_TRY(saf_alloc((size_t)cap, row_bytes, &wider));
    if (n > 0) memcpy(wider, old, (size_t)n * row_bytes);
    saf_free(&old);
    memcpy(rows, &wider, sizeof wider);
    *room = cap;
out:
    return st;
}

saf_status saf__curve_add(saf__training *x, const saf_result_train_step *row) {
    saf_result_training *t = &x->results.training;
    saf_status st = grow(&t->curve, t->n_curve, &x->curve_room, sizeof *t->curve);
    if (st == SAF_OK) t->curve[t->n_curve++] = *row;
    return st;
}

saf_status saf__evaluations_add(saf__training *x, const saf_result_evaluation *row) {
    saf_result_training *t = &x->results.training;
    saf_status st =
        grow(&t->evaluations, t->n_evaluations, &x->evaluations_room, sizeof *t->evaluations);
    if (st == SAF_OK) t->evaluations[t->n_evaluations++] = *row;
    return st;
}
