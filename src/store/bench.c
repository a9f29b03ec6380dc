/* What a bench job measured, to a file and back. */
#include "store/schema.h"

saf_suite_table_about saf_suite_table_info(saf_suite_table table) {
    return saf__table_about(saf__suite_tables[table]);
}

saf_suite_column saf_suite_column_info(saf_suite_table table, int column) {
    return saf__table_column(saf__suite_tables[table], column);
}

int64_t saf_suite_rows(saf_suite_table table, const saf_buf *rows) {
    return (int64_t)(rows->len / saf__suite_tables[table]->row_bytes);
}

saf_status saf__bench_write(const saf__h5 *f, const saf_result_bench *b) {
    saf_status st = SAF_OK;
    if (b->n_phases > 0) {
        SAF_TRY(saf__table_write(f, &saf__phases_table, b->phases, b->n_phases));
        SAF_TRY(saf__table_write(f, &saf__samples_table, b->samples, b->n_samples));
        SAF_TRY(saf__table_write(f, &saf__steps_table, b->steps, b->n_steps));
    }
    for (int i = 0; i < SAF_SUITE_TABLES; i++) {
        int64_t n = saf_suite_rows((saf_suite_table)i, &b->tables[i]);
        if (n > 0) SAF_TRY(saf__table_write(f, saf__suite_tables[i], b->tables[i].data, n));
    }
out:
    return st;
}

saf_status saf__bench_read(const saf__h5 *f, saf_result_bench *b) {
    bool there = false;
    char *rows = NULL;
    saf_status st = SAF_OK;
    SAF_TRY(saf__h5_has(f, saf__phases_table.path, &there));
    if (there) {
        SAF_TRY(saf__table_read(f, &saf__phases_table, &b->phases, &b->n_phases));
        SAF_TRY(saf__table_read(f, &saf__samples_table, &b->samples, &b->n_samples));
        SAF_TRY(saf__table_read(f, &saf__steps_table, &b->steps, &b->n_steps));
    }
    for (int i = 0; i < SAF_SUITE_TABLES; i++) {
        const saf__table *t = saf__suite_tables[i];
        int64_t n = 0;
        SAF_TRY(saf__h5_has(f, t->path, &there));
        if (!there) continue;
        SAF_TRY(saf__table_read(f, t, &rows, &n));
        SAF_TRY(saf_buf_append(&b->tables[i], rows, (size_t)n * t->row_bytes));
        saf_free(&rows);
    }
out:
    saf_free(&rows);
    return st;
}

void saf__bench_free(saf_result_bench *b) {
    saf_free(&b->phases);
    saf_free(&b->samples);
    saf_free(&b->steps);
    for (int i = 0; i < SAF_SUITE_TABLES; i++) saf_buf_free(&b->tables[i]);
}

int64_t saf__bench_bytes(const saf_result_bench *b) {
    int64_t n = b->n_phases * (int64_t)sizeof(saf_result_phase);
    n += b->n_samples * (int64_t)sizeof(saf_result_sample);
    n += b->n_steps * (int64_t)sizeof(saf_result_step);
    for (int i = 0; i < SAF_SUITE_TABLES; i++) n += (int64_t)b->tables[i].len;
    return n;
}

bool saf__bench_alike(const saf_result_bench *a, const saf_result_bench *b) {
    bool same =
        a->n_phases == b->n_phases && a->n_samples == b->n_samples && a->n_steps == b->n_steps;
    for (int i = 0; i < SAF_SUITE_TABLES; i++) same = same && a->tables[i].len == b->tables[i].len;
    return same;
}
