/* saf/job_detect.h: what the hosts of this run have and can do, measured, and where that is kept.
 */
#ifndef SAF_PUBLIC_JOB_DETECT_H
#define SAF_PUBLIC_JOB_DETECT_H

#include "saf/comm.h"
#include "saf/store_profile.h"

typedef struct {
    const char *folder; /* whose disk is read */
    const char *command_line;
    bool quiet;
} saf_detect_options;

/* One rank of each host measures for all of it, with all cores that the host's ranks may use; links
 * are measured between these ranks. `out` is filled on rank 0. Rank 0's options count. Collective.
 * Errors: NO_INPUT (no such folder on rank 0's host), FAILED, NO_MEMORY, COMM. */
saf_status saf_detect_run(saf_comm *world, const saf_detect_options *options,
                          saf_hosts_profile *out);

/* The key of the set of hosts of this run, out[SAF_PROFILE_KEY_CHARS], on all ranks. Collective. */
saf_status saf_detect_key(saf_comm *world, char *out);

/* The file where the profile of a set of hosts is kept when nobody says another: in SAF_PROFILES,
 * else in XDG_CACHE_HOME/saf, else in HOME/.cache/saf; NULL where none of these is set. `make`: the
 * folder is made if it is missing. Errors: CANNOT_CREATE, NO_MEMORY. */
saf_status saf_profile_place(const char *key, bool make, char **out);

/* Why a profile should be measured anew; "" if it need not be: older than SAF_PROFILE_DAYS, of
 * another saf, or it says of this host what is not so any more. */
enum { SAF_PROFILE_DAYS = 30 };
void saf_profile_stale(const saf_hosts_profile *p, char *why, size_t size);

#endif
