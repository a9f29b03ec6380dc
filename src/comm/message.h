/* comm/message.h: a message under way, shared by its wire format (message.c) and by those who wait
 * for it (request.c). */
#ifndef SAF_COMM_MESSAGE_H
#define SAF_COMM_MESSAGE_H

#include "comm/transport.h"

enum {
    SAF__WIRE_MAGIC = 0x31464153, /* another byte order or another program reads differently */
    SAF__SHORT_MAGIC = 0x32464153,
    SAF__MESSAGE_BYTES = 2048,                   /* of the first message: always an eager one */
    SAF__INLINE_BYTES = SAF__MESSAGE_BYTES - 64, /* of contents that travel inside it */
    SAF__WINDOW = 16                             /* pieces under way at a time */
};

/* What the first message says: at its beginning for a long tensor, or else with the contents behind
 * it, as a saf__short_header where the shape fits into one. Neither is longer than what a line of
 * the caches takes along (ring.c). */
typedef struct {
    uint32_t magic;
    uint8_t dtype, ndim;
    uint16_t piece_tag;
    uint64_t piece_bytes;
    int64_t shape[SAF_MAX_DIMS];
} saf__header;

/* With a few bytes of contents one line as well. */
typedef struct {
    uint32_t magic;
    uint8_t dtype, ndim;
    uint16_t pad;
    uint16_t shape[SAF_MAX_DIMS];
} saf__short_header;

_Static_assert(sizeof(saf__header) == 48 && sizeof(saf__short_header) == 16, "no padding");

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
    int64_t n_pieces, posted, moved; /* pieces: of all, those asked for, and those that are there */
    saf_status failed;               /* its end, with the text of the error */
    char *error;
    const char *from; /* send: the tensor's data */
    /* receive */
    saf__fault fault;
    bool drop; /* cancelled: use up what comes */
    saf_tensor *t;
    size_t capacity;
    char *scratch; /* where a tensor goes that is not wanted */
    saf__header header;
    size_t bytes; /* of the tensor that the header tells of */
    /* From here on nothing is cleared for a new message. */
    char wire[SAF__MESSAGE_BYTES] __attribute__((aligned(16)));
    saf__op pieces[SAF__WINDOW]; /* piece i, of moved to posted, is in pieces[i % SAF__WINDOW] */
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
