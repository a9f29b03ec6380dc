/* Hosts as a plan wants them, from what was measured of them. */
#ifndef SAF_JOB_PLAN_HOSTS_H
#define SAF_JOB_PLAN_HOSTS_H

#include "saf/job_plan.h"
#include "saf/store_profile.h"

/* Rules of thumb, where nobody says (doc/plan.md): the part of a host's memory that is left alone,
 * links between hosts, and what is usual of a core. */
#define SAF__RESERVE_PART 0.1
#define SAF__LINK_GBIT 1.0
#define SAF__LINK_BYTES_S (SAF__LINK_GBIT * 1e9 / 8)
#define SAF__LATENCY_US 50.0
#define SAF__LATENCY_S (SAF__LATENCY_US * 1e-6)
#define SAF__CORE_F32_OPS_S 60e9
#define SAF__INT8_TIMES 4 /* as many operations as of f32 */
#define SAF__CORE_READ_BYTES_S 8e9
#define SAF__READING_CORES 12 /* more of a host read no faster */

/* Each host of a profile by itself, out[hosts]: count 1, as many ranks as ran there; of its links
 * the median. Errors: NO_MEMORY. */
saf_status saf__profile_hosts(const saf_hosts_profile *p, saf_plan_host *out);
/* Gives hosts that are alike (cores, ranks and tile units the same, memory within a twentieth,
 * rates within a tenth, links, what hides and what one core reads within a quarter) the same
 * figures, and class_of[n] their class's number; where these would be more than
 * SAF_PLAN_CLASSES_MAX, with wider bounds. Returns the number of classes. */
int32_t saf__hosts_alike(saf_plan_host *hosts, int32_t n, int32_t *class_of);
/* The host of a profile that a hostfile means by a name: the same, or up to the first dot, whatever
 * the case; "user@" is left out. -1: none. */
int64_t saf__profile_find(const saf_hosts_profile *p, const char *name);

/* Reads a profile and makes the classes of its hosts, or of those that a hostfile names, with its
 * slots; fills the plan's classes[SAF_PLAN_CLASSES_MAX], their number, and class_of. Warns if it is
 * stale. Errors: those of reading both; BAD_INPUT (a host of the hostfile is not in the profile).
 */
saf_status saf__plan_profile(const saf_job_plan_options *o, saf_job_plan *plan);

#endif
