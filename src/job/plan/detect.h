/* The parts of measuring hosts: detect_host.c (one host), detect_machine.c (those that are one
 * machine), detect_links.c (between two), detect.c
 * (everything, and everybody), profile.c (where it is kept, and what becomes of it). */
#ifndef SAF_JOB_DETECT_H
#define SAF_JOB_DETECT_H

#include "saf/job_detect.h"

/* What one rank measures for its host. */
typedef struct {
    const char *host, *folder;
    int32_t ranks;
    int32_t sharers;     /* hosts that are one machine with it, itself included */
    const uint8_t *cpus; /* [SAF_HW_CPUS_MAX] that the host's ranks may use together */
    int32_t machine;     /* its number */
    size_t block_bytes;  /* out: of each of the two blocks that were read and copied */
} saf__detect_host;

/* Adds the host's rows to all tables but the links'. Local; all hosts at the same time. Errors:
 * FAILED, NO_MEMORY, and where `strict` those of reading the folder. */
saf_status saf__detect_host_measure(saf__detect_host *h, bool strict,
                                    saf_buf tables[SAF_PROFILE_TABLES]);

/* What a host read while all of its machine did, in several moments: the cores of a virtual machine
 * may share a path to memory in one and not in the next, or be away. */
enum { SAF__TOGETHER_SAMPLES = 5, SAF__TOGETHER_MOMENTS = 3 };
typedef struct {
    int32_t n;
    double bytes_s[SAF__TOGETHER_SAMPLES * SAF__TOGETHER_MOMENTS];
} saf__together;
/* Hosts that are one machine read its memory all at once, then by turns, each past all of its
 * caches, and all at once again: replaces what their rows say of it. `machine`: a rank of each.
 * Collective over it. */
saf_status saf__detect_machine_measure(saf_comm *machine, const saf__detect_host *h,
                                       saf__together *samples, saf_buf tables[SAF_PROFILE_TABLES]);
/* All at once, for a moment more: of what was read in all of them the median counts. */
saf_status saf__detect_machine_together(saf_comm *machine, const saf__detect_host *h,
                                        saf__together *samples, saf_buf tables[SAF_PROFILE_TABLES]);
/* Bytes of a block for that, of a host that shares its machine with so many, itself included. */
saf_status saf__detect_choose_bytes(const saf_profile_host *row, int32_t sharers, size_t *out);

/* Bytes of each of the two blocks that a host's threads read and copy: past the caches, which hosts
 * of one machine share and all use at the same time; `memory_bytes` is there for it. Local. */
size_t saf__detect_block_bytes(int64_t cache_bytes, int64_t memory_bytes, int32_t sharers);

/* Whom rank i of n meets in this round, of saf__detect_rounds(n); -1: nobody. Every two ranks meet
 * in exactly one round. */
int32_t saf__detect_rounds(int32_t n);
int32_t saf__detect_partner(int32_t n, int32_t round, int32_t i);
/* Adds the rows that this rank measured. `names`: of the ranks' hosts. Collective over `firsts`, a
 * rank of each host. A failure between two ranks ends all of `world`. */
saf_status saf__detect_links_measure(saf_comm *world, saf_comm *firsts,
                                     char (*names)[SAF_SUITE_HOST_BYTES], saf_buf *rows);

#endif
