/* saf/job_hosts.h: hostfiles, in Open MPI's syntax.
 *
 *   # a comment, to the end of the line; so is //, and C's comments may span lines
 *   node1 slots=4 max_slots=8      cpu and count mean slots; - is as good as _
 *   node2                          as many slots as the host has cores
 *   node3                          a host on several lines has the slots of all of them,
 *   node3                          one for a line that says none
 *   ann@node4 slots=1              or: node4 username=ann slots=1
 *
 * Left to mpirun, and refused here: excluded hosts (^node), hosts of an allocation by number (+n0),
 * rankfiles, sockets and cores.
 */
#ifndef SAF_JOB_HOSTS_H
#define SAF_JOB_HOSTS_H

#include "saf/core.h"

enum { SAF_HOST_LINES_MAX = 65536, SAF_HOST_NAME_MAX = 255, SAF_HOST_SLOTS_MAX = 65536 };

typedef struct {
    char *name;               /* "node" or "user@node": characters of names and addresses, none of
                                 which a shell or ssh would take for something else */
    int32_t slots, max_slots; /* 0: not given */
    int32_t host;             /* lines of the same name have the same number, from 0 on in the
                                 order of first lines */
    int32_t line;             /* of the file, from 1 on */
} saf_host_line;

typedef struct {
    int32_t n, n_hosts;
    saf_host_line *lines; /* [n] */
} saf_hostfile;

/* The lines of a hostfile; `path` is only for messages. A pure function of the text, which may be
 * anything. Errors: BAD_INPUT, naming path and line (no host at all included), NO_MEMORY; *out is
 * set only on success. */
saf_status saf_hostfile_parse(const char *text, size_t len, const char *path, saf_hostfile *out);
/* Errors: NO_INPUT, IO as well. */
saf_status saf_hostfile_read(const char *path, saf_hostfile *out);
void saf_hostfile_free(saf_hostfile *file); /* the members; leaves {0} */

/* Slots of the hosts with keep[host], or of all where keep is NULL; 0 where a host has as many as
 * it has cores, which is not known here. Errors: NO_MEMORY. */
saf_status saf_hostfile_slots(const saf_hostfile *file, const bool *keep, int64_t *slots);
/* Appends the lines of those hosts as a hostfile that is read back as they are. */
saf_status saf_hostfile_write(const saf_hostfile *file, const bool *keep, saf_buf *out);

#endif
