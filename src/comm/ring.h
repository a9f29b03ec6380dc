/* comm/ring.h: messages from one process to one other, through memory that they share. One fills
 * the ring, one empties it, neither ever waits for the other or for a lock. */
#ifndef SAF_COMM_RING_H
#define SAF_COMM_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SAF__RING_SLOTS = 128 }; /* messages that it holds, at most */

typedef struct saf__ring saf__ring; /* in shared memory; zeroed it is empty */

/* One end of a ring; zeroed but for the first two. Each process keeps its own. */
typedef struct {
    saf__ring *ring;
    size_t data_bytes;           /* for the contents that do not fit into slots */
    uint64_t messages, bytes;    /* that have gone through this end */
    uint64_t taken, bytes_taken; /* those of the other end, as last looked up by one that fills */
} saf__ring_end;

typedef struct {
    uint32_t comm; /* whose tag it is */
    uint16_t tag, len;
    const char *bytes; /* [len] */
} saf__ring_message;

/* What a ring with so many bytes of data takes; both are multiples of SAF__WINDOW_ALIGN, and a ring
 * lies at such an address. */
size_t saf__ring_bytes(size_t data_bytes);

/* False: there is no room now. There always is in an empty ring if len is at most half of the
 * data. */
bool saf__ring_put(saf__ring_end *end, const saf__ring_message *m);
/* The oldest message, whose bytes stay in the ring until it is taken; false: there is none. */
bool saf__ring_look(const saf__ring_end *end, saf__ring_message *out);
void saf__ring_take(saf__ring_end *end);

#endif
