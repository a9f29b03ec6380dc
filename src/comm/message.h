/* comm/message.h: a message under way, shared by its wire format (message.c) and by those who wait
 * for it (request.c). */
#ifndef SAF_COMM_MESSAGE_H
#define SAF_COMM_MESSAGE_H

#include "comm/transport.h"

enum {
    SAF__WIRE_MAGIC = 0x31464153, /* another byte order or another program reads differently */
    SAF__HEADER_BYTES = 64,
    SAF__INLINE_BYTES = 2048 - SAF__HEADER_BYTES, /* together one eager message */
    SAF__WINDOW = 16                              /* pieces under way at a time */
};

typedef struct {
    uint32_t magic;
    int32_t dtype, ndim, piece_tag;
    int64_t shape[SAF_MAX_DIMS];
    uint64_t bytes, piece_bytes;
    char contents[SAF__INLINE_BYTES]; /* all of them, when they fit */
} saf__header;

_Static_assert(offsetof(saf__header, contents) == SAF__HEADER_BYTES, "the header has no padding");

typedef enum {
    SAF__FAULT_NONE,
    SAF__FAULT_FOREIGN,
    SAF__FAULT_DTYPE,
    SAF__FAULT_TOO_LARGE,
    SAF__FAULT_LENGTH
} saf__fault;

struct saf_comm_request {
    saf_comm *comm;
    saf_tag tag;
    int peer;
    bool receive, header_done, complete;
    saf_comm_request *next, *before; /* of all that nobody has finished yet */
    saf__op header_op;
    saf__op pieces[SAF__WINDOW]; /* piece i is in pieces[i % SAF__WINDOW] */
    int64_t n_pieces, posted, moved;
    saf_status failed; /* its end, with the text of the error */
    char *error;
    const char *from; /* send: the tensor's data */
    /* receive */
    saf__fault fault;
    bool drop; /* cancelled: use up what comes */
    saf_tensor *t;
    size_t capacity;
    char *scratch; /* where a tensor goes that is not wanted */
    saf__header header;
};

/* Starts a message that has its communicator, tag and peer. After an error give it up. */
saf_status saf__message_send(saf_comm_request *r, const saf_tensor *t, size_t bytes);
saf_status saf__message_recv(saf_comm_request *r);
/* Moves it on as far as it goes without waiting; `events` grows with what moved. */
saf_status saf__message_step(saf_comm_request *r, uint64_t *events, bool *done);
/* The header of a receive is there, `got` bytes of it. */
saf_status saf__message_take_header(saf_comm_request *r, size_t got);
/* Whether what came was what was expected; of a receive that is done. */
saf_status saf__message_verdict(const saf_comm_request *r);
void saf__message_give_up(saf_comm_request *r);

#endif
