/* comm/shared.h: between the block that the ranks of a host share (shared.c) and the exchange of
 * the parts of it with other hosts (exchange.c). */
#ifndef SAF_COMM_SHARED_H
#define SAF_COMM_SHARED_H

#include "comm/transport.h"

/* Who exchanges: the first ranks of all hosts, one of which this rank is. Both are borrowed. */
typedef struct {
    saf_comm *leaders;      /* in the order of the hosts */
    const int32_t *host_of; /* [ranks]: of each rank that shares the block */
    char *block;
} saf__exchange_of;

typedef struct saf__exchange saf__exchange;
saf_status saf__exchange_new(const saf__exchange_of *of, saf__exchange **out);
void saf__exchange_free(saf__exchange **exchange);
/* Receives what other hosts wrote, into memory of its own. The parts are right, and stay until the
 * end of the exchange. An error of either function leaves an exchange that can only be freed. */
saf_status saf__exchange_start(saf__exchange *x, const saf_part *parts, int64_t n);
/* Sends what this host wrote to the others and puts what they wrote into the block. */
saf_status saf__exchange_finish(saf__exchange *x);

#endif
