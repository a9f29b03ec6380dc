/* Compound datasets: an array of C structs as a table with named columns. */
#ifndef SAF_STORE_TABLE_H
#define SAF_STORE_TABLE_H

#include "saf/store_suites.h"
#include "store/h5.h"

typedef enum {
    SAF__COLUMN_I32,
    SAF__COLUMN_I64,
    SAF__COLUMN_U64,
    SAF__COLUMN_F64,
    SAF__COLUMN_CHARS, /* char[size]: text of fixed length in the file */
    SAF__COLUMN_TEXT   /* char *: text of variable length; "" in the file for NULL, and back */
} saf__column_kind;

typedef struct {
    const char *name, *units, *description;
    saf__column_kind kind;
    size_t offset, size; /* in the struct */
} saf__column;

typedef struct {
    const char *path, *description;
    size_t row_bytes; /* of the struct */
    int n_columns;
    const saf__column *columns;
} saf__table;

enum { SAF__MAX_COLUMNS = 40 };

saf_status saf__table_write(const saf__h5 *f, const saf__table *table, const void *rows, int64_t n);
/* The columns' members of a new array of structs, the others zero. On success its TEXT members
 * and the array are the caller's to free. Columns that the table does not know are passed over.
 * Errors: BAD_INPUT (a column is missing or of another type). */
saf_status saf__table_read(const saf__h5 *f, const saf__table *table, void *rows, int64_t *n);

/* What a table's rows are shown as. */
saf_suite_table_about saf__table_about(const saf__table *table);
saf_suite_column saf__table_column(const saf__table *table, int column);

#endif
