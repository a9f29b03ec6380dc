/* The serial twin: one rank, no MPI. Messages to itself are matched by tag, in order. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/transport.h"

/* A message that nobody asked for yet, or a receive that nobody served yet. */
typedef struct envelope {
    struct envelope *next;
    int tag;
    char *bytes; /* message: its copy, right behind; receive: the caller's */
    size_t len, got;
    bool done;
} envelope;

typedef struct {
    envelope *messages, *receives; /* oldest first */
} queues;

static envelope *take(envelope **list, int tag) {
    for (envelope **p = list; *p; p = &(*p)->next) {
        if ((*p)->tag != tag) continue;
        envelope *e = *p;
        *p = e->next;
        e->next = NULL;
        return e;
    }
    return NULL;
}

static void append(envelope **list, envelope *e) {
    while (*list) list = &(*list)->next;
    *list = e;
}

static void deliver(envelope *receive, const void *bytes, size_t len) {
    receive->got = len;
    if (len > 0 && len <= receive->len) memcpy(receive->bytes, bytes, len);
    receive->done = true;
}

static saf_status serial_isend(saf_comm *comm, int dest, int tag, const void *bytes, size_t len,
                               saf__op *out) {
    (void)dest;
    queues *q = comm->state;
    *out = (saf__op){0};
    envelope *receive = take(&q->receives, tag);
    if (receive) {
        deliver(receive, bytes, len);
        return SAF_OK;
    }
    envelope *message = NULL;
    saf_status st = saf_alloc(1, sizeof *message + len, &message);
    if (st != SAF_OK) return st;
    message->tag = tag;
    message->bytes = (char *)(message + 1);
    message->len = len;
    if (len > 0) memcpy(message->bytes, bytes, len);
    append(&q->messages, message);
    return SAF_OK;
}

static saf_status serial_irecv(saf_comm *comm, int source, int tag, void *bytes, size_t len,
                               saf__op *out) {
    (void)source;
    queues *q = comm->state;
    envelope *receive = NULL;
    saf_status st = saf_alloc(1, sizeof *receive, &receive);
    if (st != SAF_OK) return st;
    receive->tag = tag;
    receive->bytes = bytes;
    receive->len = len;
    envelope *message = take(&q->messages, tag);
    if (message)
        deliver(receive, message->bytes, message->len);
    else
        append(&q->receives, receive);
    saf_free(&message);
    *out = (saf__op){.pending = true, .receive = true, .handle = (uintptr_t)receive};
    return SAF_OK;
}

static saf_status serial_test(saf_comm *comm, saf__op *op, bool *done, size_t *got) {
    *got = SAF__GOT_NONE;
    *done = true;
    if (!op->pending) return SAF_OK;
    envelope *receive = (envelope *)op->handle;  // NOLINT(performance-no-int-to-ptr)
    if (!receive->done) {
        *done = false;
        return SAF_OK;
    }
    size_t room = receive->len;
    *got = receive->got;
    saf_free(&receive);
    *op = (saf__op){0};
    if (*got > room)
        return saf__comm_fail(comm, SAF_COMM, "a message of %zu bytes to a receive of %zu", *got,
                              room);
    return SAF_OK;
}

static bool serial_cancel(saf_comm *comm, saf__op *op, size_t *got) {
    *got = SAF__GOT_NONE;
    if (!op->pending) return false;
    queues *q = comm->state;
    envelope *receive = (envelope *)op->handle;  // NOLINT(performance-no-int-to-ptr)
    bool done = receive->done;
    if (done) *got = receive->got;
    for (envelope **p = &q->receives; *p; p = &(*p)->next) {
        if (*p != receive) continue;
        *p = receive->next;
        break;
    }
    saf_free(&receive);
    *op = (saf__op){0};
    return !done;
}

static saf_status serial_ibcast(saf_comm *comm, int root, void *bytes, size_t len, saf__op *out) {
    (void)comm, (void)root, (void)bytes, (void)len;
    *out = (saf__op){0};
    return SAF_OK;
}

static saf_status serial_dup(saf_comm *comm, saf_comm *out) {
    (void)comm;
    queues *q = NULL;
    saf_status st = saf_alloc(1, sizeof *q, &q);
    if (st != SAF_OK) return st;
    out->state = q;
    out->rank = 0;
    out->size = 1;
    return SAF_OK;
}

static saf_status serial_split(saf_comm *comm, int color, int key, saf_comm *out, bool *member) {
    (void)key;
    *member = color >= 0;
    return *member ? serial_dup(comm, out) : SAF_OK;
}

/* Drops what was never asked for. */
static void serial_free(saf_comm *comm) {
    queues *q = comm->state;
    while (q && q->messages) {
        envelope *e = q->messages;
        q->messages = e->next;
        saf_free(&e);
    }
    saf_free(&comm->state);
}

static void serial_abort(int exit_code) __attribute__((noreturn));
static void serial_abort(int exit_code) {
    fflush(NULL);
    _exit(exit_code);
}

static const saf__transport serial_transport = {
    .alone = true,
    .isend = serial_isend,
    .irecv = serial_irecv,
    .test = serial_test,
    .cancel = serial_cancel,
    .ibcast = serial_ibcast,
    .split = serial_split,
    .dup = serial_dup,
    .free = serial_free,
    .stop = serial_free,
    .abort = serial_abort,
};

saf_status saf__serial_start(saf_comm *world) {
    world->transport = &serial_transport;
    return serial_dup(world, world);
}
