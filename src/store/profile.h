/* The schema of a profile, for its writer and reader. */
#ifndef SAF_STORE_PROFILE_H
#define SAF_STORE_PROFILE_H

#include "saf/store_profile.h"
#include "store/table.h"

extern const saf__table *const saf__profile_tables[SAF_PROFILE_TABLES];

/* What a table's rows are shown as. */
saf_suite_table_about saf__table_about(const saf__table *table);
saf_suite_column saf__table_column(const saf__table *table, int column);

#endif
