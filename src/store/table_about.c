/* What is shown of a table. */
#include "store/table.h"

saf_suite_table_about saf__table_about(const saf__table *t) {
    return (saf_suite_table_about){t->path, t->description, t->row_bytes, t->n_columns};
}

saf_suite_column saf__table_column(const saf__table *table, int column) {
    const saf__column *c = &table->columns[column];
    saf_cell_kind kind = c->kind == SAF__COLUMN_I32   ? SAF_CELL_I32
                         : c->kind == SAF__COLUMN_I64 ? SAF_CELL_I64
                         : c->kind == SAF__COLUMN_F64 ? SAF_CELL_F64
                                                      : SAF_CELL_TEXT;
    return (saf_suite_column){c->name, c->units, c->description, kind, c->offset};
}
