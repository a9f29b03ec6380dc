/* Caches of keys and values over a stop (checkpoint.kv): what the slots hold of requests on their
 * way is kept in files beside the checkpoint, and a job that goes on begins behind it. They are
 * rows, position by position, of key heads of layers: any layout takes up what any other left. A
 * cache that cannot be kept or read is computed again from the tokens; that is never an error. */
#ifndef SAF_JOB_CACHES_H
#define SAF_JOB_CACHES_H

#include "job/session.h"

void saf__caches_free(saf__caches *c); /* the members; leaves {0} */
/* Positions whose rows are moved at a time. */
int64_t saf__caches_step(const saf__session *s);
/* Everybody gets rank 0's. Collective. */
saf_status saf__caches_bcast(saf_comm *world, saf__caches *c);

/* caches_save.c: `held` is an event of the engine; `gather` tells rank 0 of all heads, *any whether
 * there is anything; `save` writes them beside the newest checkpoint. Collective, the latter two.
 * Errors: COMM, NO_MEMORY. */
saf_status saf__caches_held(void *ctx, int32_t request, int32_t slot, int32_t positions);
saf_status saf__caches_gather(saf__session *s, bool *any);
saf_status saf__caches_save(saf__session *s);
/* Seconds that keeping them may take, at most. */
double saf__caches_take_s(const saf__session *s);

/* caches_restore.c: what is kept beside the checkpoint that rank 0 goes on from is opened and
 * checked by all ranks, or by none. Then `restore`, an event of the engine, takes from it. */
saf_status saf__caches_open(saf__session *s); /* collective. Errors: COMM, NO_MEMORY */
saf_status saf__caches_restore(void *ctx, int32_t request, int32_t slot);
void saf__caches_close(saf__session *s);

#endif
