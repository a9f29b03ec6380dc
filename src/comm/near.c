/* Short messages between ranks of a host, beside MPI: through memory that they share, where one
 * takes half of the time that it takes through MPI. The rest, and all that goes to other hosts, is
 * MPI's as before: this is a transport on top of its transport.
 *
 * Each rank has a ring of slots for every other one, which only these two use: one fills, one
 * takes. What a slot holds is told by the number of its message in the slot itself, so that a
 * message of a few bytes moves one line of the caches and nothing else; how far the receiver has
 * come is looked up only by a sender that has gone round. Source: Giacomoni, Moseley and
 * Vachharajani, FastForward for efficient pipeline parallelism (2008).
 *
 *   slot     number of its message, communicator, tag, length, and contents of up to 48 bytes
 *   data     a ring of bytes beside the slots, for longer contents: each in one piece
 *
 * Who is asked for a message takes from the ring what has come, in its order: to those that wait
 * for it, or aside, until somebody asks. A sender that finds no room keeps the message in a queue
 * and tries again whenever it looks for messages, and whoever waits empties all of its rings, so
 * that no sender depends on what its receiver waits for.
 *
 * Which messages are short is told by the room of their receives, which is the length of what is
 * sent or that of a first message (message.h): so both sides know without asking. */
#include <stdatomic.h>

#include "comm/message.h"

enum {
    SHORT_BYTES = SAF__MESSAGE_BYTES, /* the longest that goes this way */
    LINE_BYTES = 64,
    SLOTS = 32,
    SLOT_DATA_BYTES = 48,
    RING_DATA_BYTES = 3 * SHORT_BYTES - 128,
    HOST_RANKS_MOST = 64 /* with more, rings would take more than 32 MiB of a host */
};

/* The number of messages is what the receiver waits for: message n fills slot n % SLOTS, and says
 * n + 1. */
typedef struct {
    _Atomic uint64_t filled;
    uint32_t comm;
    uint16_t tag, bytes;
    char data[SLOT_DATA_BYTES];
} slot;

typedef struct {
    _Atomic uint64_t slots, bytes; /* taken out so far, written by the receiver */
    char pad[SAF__WINDOW_ALIGN - 2 * sizeof(uint64_t)];
    slot slot[SLOTS];
    char data[RING_DATA_BYTES];
} ring;

_Static_assert(sizeof(slot) == LINE_BYTES, "a slot is a line of the caches");
_Static_assert(sizeof(ring) == 8192, "rings begin with lines");
_Static_assert((int)SHORT_BYTES <= UINT16_MAX && (int)SAF__TAG_PIECES_END <= UINT16_MAX, "fits");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "locks are of one process, rings of two");

/* A receive that waits, a message that nobody has asked for yet, or a send that found no room. */
typedef struct letter letter;
typedef struct {
    letter *first, **end;
} letters;

/* Another rank of this host. */
typedef struct {
    ring *in, *out;
    uint64_t taken, taken_bytes;         /* of `in` */
    uint64_t sent, sent_bytes;           /* to `out` */
    uint64_t free_from, free_bytes_from; /* taken out of it, as last looked up */
    letters receives, unexpected, unsent;
} mate;

struct letter {
    letter *next;
    mate *mate;
    uint32_t comm;
    int tag;
    bool done;
    char *bytes;
    size_t len, got; /* len: of a receive its room */
};

static struct {
    const saf__transport *under; /* MPI; NULL: not begun */
    saf__transport table;        /* this one */
    saf_comm *host;
    saf__window window;
    mate *mates;      /* [n_mates], this rank as well */
    int32_t *mate_of; /* [world->size], -1: no such */
    int n_mates;
    int64_t unsent, names; /* messages that wait for room; communicators named so far */
    letter *spare;
} near;

/* ---- letters --------------------------------------------------------------------------------- */

static saf_status letter_new(mate *m, const saf_comm *comm, int tag, letter **out) {
    saf_status st = SAF_OK;
    letter *l = near.spare;
    if (l)
        near.spare = l->next;
    else
        st = saf_alloc(1, sizeof *l, &l);
    if (st == SAF_OK) *l = (letter){.mate = m, .comm = comm->name, .tag = tag};
    *out = l;
    return st;
}

static void letter_free(letter *l) {
    l->next = near.spare;
    near.spare = l;
}

static void append(letters *list, letter *l) {
    if (!list->first) list->end = &list->first;
    l->next = NULL;
    *list->end = l;
    list->end = &l->next;
}

static void unlink_at(letters *list, letter **at) {
    letter *l = *at;
    *at = l->next;
    if (!l->next) list->end = at;
}

static letter **find(letters *list, uint32_t comm, int tag) {
    letter **at = &list->first;
    while (*at && ((*at)->comm != comm || (*at)->tag != tag)) at = &(*at)->next;
    return at;
}

static bool drop(letters *list, const letter *l) {
    for (letter **at = &list->first; *at; at = &(*at)->next) {
        if (*at != l) continue;
        unlink_at(list, at);
        return true;
    }
    return false;
}

/* ---- rings ----------------------------------------------------------------------------------- */

/* Where contents lie that come after `bytes` others: in one piece, on lines of their own. Those of
 * a slot take none. */
static uint64_t place_data(uint64_t bytes, size_t len, uint64_t *after) {
    uint64_t at = bytes % RING_DATA_BYTES;
    if (len <= SLOT_DATA_BYTES) {
        *after = bytes;
        return 0;
    }
    if (at + len > RING_DATA_BYTES) {
        bytes += RING_DATA_BYTES - at;
        at = 0;
    }
    *after = bytes + (len + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    return at;
}

static bool has_room(const mate *m, uint64_t bytes_after) {
    return m->sent - m->free_from < SLOTS && bytes_after - m->free_bytes_from <= RING_DATA_BYTES;
}

static bool put(mate *m, uint32_t comm, int tag, const void *bytes, size_t len) {
    ring *r = m->out;
    uint64_t after, at = place_data(m->sent_bytes, len, &after);
    if (!has_room(m, after)) {
        m->free_from = atomic_load_explicit(&r->slots, memory_order_acquire);
        m->free_bytes_from = atomic_load_explicit(&r->bytes, memory_order_acquire);
        if (!has_room(m, after)) return false;
    }
    slot *s = &r->slot[m->sent % SLOTS];
    s->comm = comm;
    s->tag = (uint16_t)tag;
    s->bytes = (uint16_t)len;
    if (len > 0) memcpy(len <= SLOT_DATA_BYTES ? s->data : r->data + at, bytes, len);
    m->sent++;
    m->sent_bytes = after;
    atomic_store_explicit(&s->filled, m->sent, memory_order_release);
    return true;
}

/* To the receive that waits for it, or aside. */
static saf_status deliver(mate *m, const slot *s, const char *bytes) {
    saf_status st = SAF_OK;
    letter **at = find(&m->receives, s->comm, s->tag), *l = *at;
    if (l) {
        unlink_at(&m->receives, at);
        if (s->bytes > 0) memcpy(l->bytes, bytes, s->bytes < l->len ? s->bytes : l->len);
        l->got = s->bytes;
        l->done = true;
        return SAF_OK;
    }
    const saf_comm of = {.name = s->comm};
    SAF_TRY(letter_new(m, &of, s->tag, &l));
    if (s->bytes > 0) st = saf_alloc(s->bytes, 1, &l->bytes);
    if (st != SAF_OK) {
        letter_free(l);
        goto out;
    }
    if (s->bytes > 0) memcpy(l->bytes, bytes, s->bytes);
    l->len = s->bytes;
    append(&m->unexpected, l);
out:
    return st;
}

/* The next message of a ring; *one is false when there is none. */
static saf_status take(mate *m, bool *one) {
    saf_status st = SAF_OK;
    ring *r = m->in;
    const slot *s = &r->slot[m->taken % SLOTS];
    uint64_t after;
    *one = false;
    if (atomic_load_explicit(&s->filled, memory_order_acquire) != m->taken + 1) goto out;
    uint64_t at = place_data(m->taken_bytes, s->bytes, &after);
    SAF_TRY(deliver(m, s, s->bytes <= SLOT_DATA_BYTES ? s->data : r->data + at));
    m->taken++;
    m->taken_bytes = after;
    atomic_store_explicit(&r->bytes, after, memory_order_release);
    atomic_store_explicit(&r->slots, m->taken, memory_order_release);
    *one = true;
out:
    return st;
}

static void send_queued(mate *m) {
    letter *l = m->unsent.first;
    for (; l && put(m, l->comm, l->tag, l->bytes, l->len); l = m->unsent.first) {
        unlink_at(&m->unsent, &m->unsent.first);
        near.unsent--;
        l->done = true;
    }
}

void saf__near_absorb(void) {
    for (int i = 0; i < near.n_mates; i++) {
        mate *m = &near.mates[i];
        bool one = m->in;
        while (one && take(m, &one) == SAF_OK) {
        } /* without memory: the next time */
        if (m->unsent.first) send_queued(m);
    }
}

/* ---- the transport --------------------------------------------------------------------------- */

/* NULL: by MPI. */
static mate *mate_for(const saf_comm *comm, int rank, size_t len) {
    if (len > SHORT_BYTES) return NULL;
    int32_t i = near.mate_of[comm->places[rank]];
    return i < 0 ? NULL : &near.mates[i];
}

static saf__op op_of(letter *l, bool receive) {
    return (saf__op){.pending = true, .receive = receive, .near = true, .handle = (uintptr_t)l};
}

static letter *letter_of(const saf__op *op) {
    return (letter *)op->handle;  // NOLINT(performance-no-int-to-ptr)
}

static saf_status near_isend(saf_comm *comm, int dest, int tag, const void *bytes, size_t len,
                             saf__op *out) {
    saf_status st = SAF_OK;
    letter *l = NULL;
    mate *m = mate_for(comm, dest, len);
    if (!m) return near.under->isend(comm, dest, tag, bytes, len, out);
    *out = (saf__op){0};
    if (!m->unsent.first && put(m, comm->name, tag, bytes, len)) return SAF_OK;
    SAF_TRY(letter_new(m, comm, tag, &l));
    l->bytes = (char *)(uintptr_t)bytes; /* only read */
    l->len = len;
    append(&m->unsent, l);
    near.unsent++;
    *out = op_of(l, false);
out:
    return st;
}

static saf_status near_irecv(saf_comm *comm, int source, int tag, void *bytes, size_t len,
                             saf__op *out) {
    saf_status st = SAF_OK;
    letter *l = NULL;
    mate *m = mate_for(comm, source, len);
    if (!m) return near.under->irecv(comm, source, tag, bytes, len, out);
    *out = (saf__op){0};
    letter **at = find(&m->unexpected, comm->name, tag);
    if (*at) {
        l = *at;
        unlink_at(&m->unexpected, at);
        l->got = l->len;
        l->done = true;
        if (l->got > 0) memcpy(bytes, l->bytes, l->got < len ? l->got : len);
        saf_free(&l->bytes);
    } else {
        SAF_TRY(letter_new(m, comm, tag, &l));
        append(&m->receives, l);
    }
    l->bytes = bytes;
    l->len = len;
    *out = op_of(l, true);
out:
    return st;
}

static saf_status look_for(letter *l) {
    saf_status st = SAF_OK;
    for (bool one = true; st == SAF_OK && one && !l->done;) st = take(l->mate, &one);
    return st;
}

static saf_status near_test(saf_comm *comm, saf__op *op, bool *done, size_t *got) {
    saf_status st = SAF_OK;
    if (!op->near) return near.under->test(comm, op, done, got);
    letter *l = letter_of(op);
    *got = SAF__GOT_NONE;
    if (op->receive) {
        SAF_TRY(look_for(l));
    } else {
        send_queued(l->mate);
    }
    *done = l->done;
    if (!l->done) goto out;
    if (op->receive) *got = l->got;
    if (op->receive && l->got > l->len)
        st = saf__comm_fail(comm, SAF_COMM, "%zu bytes came with tag %d where %zu were awaited",
                            l->got, l->tag, l->len);
    letter_free(l);
    *op = (saf__op){0};
out:
    return st;
}

static bool near_cancel(saf_comm *comm, saf__op *op, size_t *got) {
    if (!op->near) return near.under->cancel(comm, op, got);
    letter *l = letter_of(op);
    bool receive = op->receive;
    *got = SAF__GOT_NONE;
    if (receive) (void)look_for(l);
    bool came = receive && l->done;
    if (came) *got = l->got;
    if (receive && !came) (void)drop(&l->mate->receives, l);
    if (!receive && drop(&l->mate->unsent, l)) near.unsent--;
    letter_free(l);
    *op = (saf__op){0};
    return !came;
}

/* ---- communicators --------------------------------------------------------------------------- */

static saf_status poll_sent(void *what, bool *done) {
    (void)what;
    saf__near_absorb();
    *done = near.unsent == 0;
    return SAF_OK;
}

/* Before this rank waits inside MPI, which does not know of the queues. */
static saf_status send_all(saf_comm *comm) {
    return near.unsent == 0 ? SAF_OK : saf__wait_until(comm, poll_sent, NULL);
}

/* A number that no other communicator has of which two of its ranks are members. */
static saf_status name(saf_comm *comm) {
    int64_t n = near.names + 1;
    comm->transport = near.under;
    saf_status st = saf__allreduce(comm, SAF_OP_MAX, SAF_DTYPE_I64, &n, sizeof n);
    comm->transport = &near.table;
    near.names = n;
    comm->name = (uint32_t)n;
    return st;
}

static saf_status near_split(saf_comm *comm, int color, int key, saf_comm *out, bool *member) {
    saf_status st = send_all(comm);
    if (st == SAF_OK) st = near.under->split(comm, color, key, out, member);
    return st == SAF_OK && *member ? name(out) : st;
}

static saf_status near_dup(saf_comm *comm, saf_comm *out) {
    saf_status st = send_all(comm);
    if (st == SAF_OK) st = near.under->dup(comm, out);
    return st == SAF_OK ? name(out) : st;
}

/* What was sent on a communicator and never asked for. */
static void forget(const saf_comm *comm) {
    for (int i = 0; i < near.n_mates; i++) {
        letters *list = &near.mates[i].unexpected;
        for (letter **at = &list->first; *at;) {
            letter *l = *at;
            if (l->comm != comm->name) {
                at = &l->next;
                continue;
            }
            unlink_at(list, at);
            saf_free(&l->bytes);
            letter_free(l);
        }
    }
}

static void near_free(saf_comm *comm) {
    forget(comm);
    near.under->free(comm);
}

static saf_status near_find_host(saf_comm *comm, int *lowest) {
    saf_status st = send_all(comm);
    return st == SAF_OK ? near.under->find_host(comm, lowest) : st;
}

static saf_status near_share(saf_comm *comm, size_t bytes, saf__window *out) {
    saf_status st = send_all(comm);
    return st == SAF_OK ? near.under->share(comm, bytes, out) : st;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* Whom this rank shares memory with; with nobody where there is none to be had. */
static saf_status take_memory(saf_comm *host) {
    saf_status st = SAF_OK;
    size_t n = (size_t)host->size;
    SAF_TRY(saf__agree(host, saf_alloc(n, sizeof *near.mates, &near.mates)));
    saf__watch_inside("MPI_Win_allocate_shared");
    st = near.under->share(host, n * n * sizeof(ring), &near.window);
    saf__watch_inside(NULL);
    if (st == SAF_NO_MEMORY) {
        st = SAF_OK;
        goto out;
    }
    SAF_TRY(st);
    ring *rings = (ring *)(void *)near.window.base; /* [to][from] */
    for (int i = 0; i < host->size; i++) {
        if (i == host->rank) continue;
        near.mates[i].in = &rings[(size_t)host->rank * n + (size_t)i];
        near.mates[i].out = &rings[(size_t)i * n + (size_t)host->rank];
        near.mate_of[host->places[i]] = i;
    }
    near.n_mates = host->size;
out:
    return st;
}

static saf_status find_mates(saf_comm *world) {
    saf_status st = SAF_OK;
    int lowest = 0;
    saf__watch_inside("MPI_Comm_split_type");
    st = near.under->find_host(world, &lowest);
    saf__watch_inside(NULL);
    SAF_TRY(saf__agree(world, st));
    SAF_TRY(saf__agree(world, saf_comm_split(world, lowest, world->rank, &near.host)));
    if (near.host->size > 1 && near.host->size <= HOST_RANKS_MOST) st = take_memory(near.host);
    SAF_TRY(saf__agree(world, st));
out:
    return st;
}

saf_status saf__near_start(saf_comm *world) {
    saf_status st = SAF_OK;
    if (world->size == 1) return SAF_OK;
    near.under = world->transport;
    st = saf_alloc((size_t)world->size, sizeof *near.mate_of, &near.mate_of);
    SAF_TRY(saf__agree(world, st));
    for (int r = 0; r < world->size; r++) near.mate_of[r] = -1;
    SAF_TRY(find_mates(world));
    near.table = *near.under;
    near.table.isend = near_isend;
    near.table.irecv = near_irecv;
    near.table.test = near_test;
    near.table.cancel = near_cancel;
    near.table.split = near_split;
    near.table.dup = near_dup;
    near.table.free = near_free;
    near.table.find_host = near_find_host;
    near.table.share = near_share;
    world->name = 0; /* and no other has that */
    world->transport = &near.table;
out:
    if (st != SAF_OK) saf__near_stop(world);
    return st;
}

void saf__near_stop(saf_comm *world) {
    if (!near.under) return;
    if (near.table.isend) forget(world);
    world->transport = near.under;
    near.n_mates = 0;
    if (near.window.base) {
        (void)saf__barrier(near.host); /* the end of a window spins */
        saf__watch_inside("MPI_Win_free");
        near.under->unshare(&near.window);
        saf__watch_inside(NULL);
    }
    saf_comm_free(&near.host);
    saf_free(&near.mates);
    saf_free(&near.mate_of);
    while (near.spare) {
        letter *l = near.spare;
        near.spare = l->next;
        saf_free(&l);
    }
    memset(&near, 0, sizeof near);
}
