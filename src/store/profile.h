/* The schema of a profile, for its writer and reader. */
#ifndef SAF_STORE_PROFILE_H
#define SAF_STORE_PROFILE_H

#include "saf/store_profile.h"
#include "store/table.h"

extern const saf__table *const saf__profile_tables[SAF_PROFILE_TABLES];

#endif
