/* What a profile of hosts holds, for a person and as JSON. */
#ifndef SAF_CLI_DETECT_PRINT_H
#define SAF_CLI_DETECT_PRINT_H

#include <stdio.h>

#include "saf/store_profile.h"

/* Errors: NO_MEMORY, IO. */
saf_status saf__profile_print(FILE *out, const saf_hosts_profile *p);
saf_status saf__profile_json(FILE *out, const saf_hosts_profile *p);

#endif
