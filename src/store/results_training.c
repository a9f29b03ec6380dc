/* The tables of a training: written, read and freed. */
#include "store/schema.h"

saf_status saf__training_write(const saf__h5 *f, const saf_result_training *t) {
    saf_status st = SAF_OK;
    if (!t->there) return SAF_OK;
    SAF_TRY(saf__table_write(f, &saf__curve_table, t->curve, t->n_curve));
    st = saf__table_write(f, &saf__evaluations_table, t->evaluations, t->n_evaluations);
out:
    return st;
}

saf_status saf__training_read(const saf__h5 *f, saf_result_training *t) {
    saf_status st = SAF_OK;
    bool there = false;
    SAF_TRY(saf__h5_has(f, saf__curve_table.path, &there));
    if (there) SAF_TRY(saf__table_read(f, &saf__curve_table, &t->curve, &t->n_curve));
    SAF_TRY(saf__h5_has(f, saf__evaluations_table.path, &there));
    if (there)
        SAF_TRY(saf__table_read(f, &saf__evaluations_table, &t->evaluations, &t->n_evaluations));
    t->there = t->weights_sha256 != NULL;
out:
    return st;
}

int64_t saf__training_bytes(const saf_result_training *t) {
    return t->n_curve * (int64_t)sizeof *t->curve +
           t->n_evaluations * (int64_t)sizeof *t->evaluations;
}

bool saf__training_alike(const saf_result_training *a, const saf_result_training *b) {
    return a->there == b->there && a->n_curve == b->n_curve && a->n_evaluations == b->n_evaluations;
}
