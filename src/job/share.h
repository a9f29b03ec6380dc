/* What jobs without requests have in common: matmul/, train/. */
#ifndef SAF_JOB_SHARE_H
#define SAF_JOB_SHARE_H

#include "job/session.h"

/* Rank 0's job, at the others as *given (saf_job_free), and its *dry_run. Collective. */
saf_status saf__job_share(saf_comm *world, const saf_job *job, saf_job *given, int32_t *dry_run);
/* An error of this rank alone, which cannot be agreed on, ends all ranks: others may be waiting for
 * it. SAF_OK, and any status of one rank, comes back. */
saf_status saf__job_alone(saf_comm *world, saf_status st);

/* saf_file_is_same, also of files that are not there yet: one name in one folder. */
bool saf__is_same_place(const char *a, const char *b);

#endif
