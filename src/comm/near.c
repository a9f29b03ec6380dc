/* Short messages between ranks of a host, beside MPI: through memory that they share (ring.c), in
 * half of the time that they take through MPI and less. Everything else, and all that goes to other
 * hosts, is MPI's as before: this is a transport on top of its transport.
 *
 * Who asks for a message takes from its sender's ring what has come, in its order: to those that
 * wait for it, or aside, until somebody asks. A sender that finds no room keeps the message in a
 * queue and tries again whenever it looks for messages. No sender depends on what its receiver
 * waits for: whoever waits or polls empties all of its rings now and then, and lets MPI go on,
 * which it does inside its calls only. (MPI's own waiting, which knows nothing of queues, always
 * comes after an agreement: by then nobody has anything else to wait for.)
 *
 * Which messages go this way is told by the room of their receives, which is the length of what is
 * sent or that of a first message (message.h): so both sides know without asking. */
#include "comm/message.h"
#include "comm/ring.h"

enum {
    /* Beyond, one copy by the kernel, as MPI makes it, may be faster than two from core to core. */
    SHORT_MOST = 8192,
    DATA_PART = 4, /* of a ring's data for a message, at most */
    DATA_MOST = 16 * SHORT_MOST,
    RINGS_BYTES = 8 << 20, /* all of a host together */
    RING_OFTEN = 8         /* messages taken at once after which a sender may wait for room */
};

_Static_assert((int)SHORT_MOST <= UINT16_MAX && (int)SAF__TAG_PIECES_END <= UINT16_MAX,
               "lengths and tags fit into a slot");

/* A receive that waits, a message that nobody has asked for yet, or a send that found no room. */
typedef struct letter letter;
typedef struct {
    letter *first, **end;
} letters;

/* Another rank of this host. */
typedef struct {
    int rank; /* on this host */
    saf__ring_end in, out;
    letters receives, unexpected, unsent;
} mate;

struct letter {
    letter *next;
    mate *mate;
    uint32_t comm;
    uint16_t tag;
    bool done;
    char *bytes;
    const char *out; /* of a send, in place of bytes */
    size_t len, got; /* len: of a receive its room */
};

static struct {
    const saf__transport *under; /* MPI; NULL: not begun */
    saf__transport table;        /* this one */
    saf_comm *host;
    saf__window window;
    size_t data_bytes, short_bytes; /* of a ring; the longest message that goes this way */
    mate *mates;                    /* [n_mates], by rank on this host; its own has no rings */
    int32_t *mate_of;               /* [world->size], -1: no such */
    int n_mates;
    int64_t names; /* communicators named so far */
    letter *spare;
} near;

/* ---- letters --------------------------------------------------------------------------------- */

static saf_status letter_new(mate *m, uint32_t comm, int tag, letter **out) {
    saf_status st = SAF_OK;
    letter *l = near.spare;
    if (l)
        near.spare = l->next;
    else
        st = saf_alloc(1, sizeof *l, &l);
    if (st == SAF_OK) *l = (letter){.mate = m, .comm = comm, .tag = (uint16_t)tag};
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

static void fill(letter *l, const char *bytes, size_t len) {
    size_t n = len < l->len ? len : l->len;
    if (n > 0) memcpy(l->bytes, bytes, n);
    l->got = len;
    l->done = true;
}

/* ---- taking what has come, sending what waits ------------------------------------------------ */

/* To the receive that waits for it, or aside. */
static saf_status deliver(mate *m, const saf__ring_message *in) {
    saf_status st = SAF_OK;
    letter **at = find(&m->receives, in->comm, in->tag), *l = *at;
    if (l) {
        unlink_at(&m->receives, at);
        fill(l, in->bytes, in->len);
        return SAF_OK;
    }
    SAF_TRY(letter_new(m, in->comm, in->tag, &l));
    st = saf_alloc(in->len + (size_t)1, 1, &l->bytes);
    if (st != SAF_OK) {
        letter_free(l);
        goto out;
    }
    l->len = in->len;
    fill(l, in->bytes, in->len);
    append(&m->unexpected, l);
out:
    return st;
}

/* Until `wanted` has come (NULL: all), or what a ring holds. */
static saf_status take(mate *m, const letter *wanted) {
    saf_status st = SAF_OK;
    saf__ring_message in;
    int n = 0;
    for (; n < SAF__RING_SLOTS && !(wanted && wanted->done) && saf__ring_look(&m->in, &in); n++) {
        SAF_TRY(deliver(m, &in));
        saf__ring_take(&m->in);
    }
out:
    if (n >= RING_OFTEN) saf__bell_ring(near.host, m->rank);
    return st;
}

static bool put(mate *m, uint32_t comm, int tag, const char *bytes, size_t len) {
    saf__ring_message out = {
        .comm = comm, .tag = (uint16_t)tag, .len = (uint16_t)len, .bytes = bytes};
    return saf__ring_put(&m->out, &out);
}

static void send_queued(mate *m) {
    letter *l = m->unsent.first;
    if (!l) return;
    for (; l && put(m, l->comm, l->tag, l->out, l->len); l = m->unsent.first) {
        unlink_at(&m->unsent, &m->unsent.first);
        l->done = true;
    }
    saf__bell_ring(near.host, m->rank);
}

void saf__near_progress(void) {
    for (int i = 0; i < near.n_mates; i++) {
        mate *m = &near.mates[i];
        if (!m->in.ring) continue;
        (void)take(m, NULL); /* without memory the next time */
        send_queued(m);
    }
    if (near.under) near.under->progress();
}

/* ---- the transport --------------------------------------------------------------------------- */

/* NULL: by MPI. */
static mate *mate_for(const saf_comm *comm, int rank, size_t len) {
    if (len > near.short_bytes) return NULL;
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
    SAF_TRY(letter_new(m, comm->name, tag, &l));
    l->out = bytes;
    l->len = len;
    append(&m->unsent, l);
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
        char *aside = l->bytes;
        size_t got = l->got;
        l->bytes = bytes;
        l->len = len;
        fill(l, aside, got);
        saf_free(&aside);
    } else {
        SAF_TRY(letter_new(m, comm->name, tag, &l));
        append(&m->receives, l);
    }
    l->bytes = bytes;
    l->len = len;
    *out = op_of(l, true);
out:
    return st;
}

static saf_status near_test(saf_comm *comm, saf__op *op, bool *done, size_t *got) {
    saf_status st = SAF_OK;
    if (!op->near) return near.under->test(comm, op, done, got);
    letter *l = letter_of(op);
    *got = SAF__GOT_NONE;
    if (op->receive) st = take(l->mate, l);
    if (!op->receive) send_queued(l->mate);
    *done = l->done;
    if (st != SAF_OK && !l->done) { /* what failed is over: nobody waits for it any more */
        (void)drop(&l->mate->receives, l);
    } else if (!l->done) {
        return SAF_OK;
    }
    if (op->receive) *got = l->got;
    if (l->done) st = SAF_OK; /* whatever became of others */
    if (op->receive && l->got > l->len)
        st = saf__comm_fail(comm, SAF_COMM, "%zu bytes came with tag %d where %zu were awaited",
                            l->got, l->tag, l->len);
    letter_free(l);
    *op = (saf__op){0};
    return st;
}

static bool near_cancel(saf_comm *comm, saf__op *op, size_t *got) {
    if (!op->near) return near.under->cancel(comm, op, got);
    letter *l = letter_of(op);
    bool receive = op->receive;
    *got = SAF__GOT_NONE;
    if (receive) (void)take(l->mate, l);
    bool came = receive && l->done;
    if (came) *got = l->got;
    if (receive && !came) (void)drop(&l->mate->receives, l);
    if (!receive) (void)drop(&l->mate->unsent, l);
    letter_free(l);
    *op = (saf__op){0};
    return !came;
}

/* ---- communicators --------------------------------------------------------------------------- */

/* A number that no other communicator has of which two of its ranks are members. */
static saf_status name(saf_comm *comm) {
    int64_t n = near.names + 1;
    comm->transport = near.under;
    saf_status st = saf__allreduce(comm, SAF_OP_MAX, SAF_DTYPE_I64, &n, sizeof n);
    comm->transport = &near.table;
    near.names = n;
    comm->name = (uint32_t)n;
    if (st != SAF_OK) near.under->free(comm);
    return st;
}

static saf_status near_split(saf_comm *comm, int color, int key, saf_comm *out, bool *member) {
    saf_status st = near.under->split(comm, color, key, out, member);
    return st == SAF_OK && *member ? name(out) : st;
}

static saf_status near_dup(saf_comm *comm, saf_comm *out) {
    saf_status st = near.under->dup(comm, out);
    return st == SAF_OK ? name(out) : st;
}

/* What was sent on a communicator (NULL: on any) and never asked for. */
static void forget(const saf_comm *comm) {
    for (int i = 0; i < near.n_mates; i++) {
        letters *list = &near.mates[i].unexpected;
        for (letter **at = &list->first; *at;) {
            letter *l = *at;
            if (comm && l->comm != comm->name) {
                at = &l->next;
                continue;
            }
            unlink_at(list, at);
            saf_free(&l->bytes);
            letter_free(l);
        }
    }
}

/* Of operations that nobody ended. */
static void free_all(letters *list) {
    while (list->first) {
        letter *l = list->first;
        unlink_at(list, &list->first);
        letter_free(l);
    }
}

static void near_free(saf_comm *comm) {
    forget(comm);
    near.under->free(comm);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* As much as memory for all rings allows; false: not even a first message. */
static bool set_lengths(size_t ranks) {
    size_t ring = RINGS_BYTES / (ranks * ranks), head = saf__ring_bytes(0);
    size_t data = ring > head ? (ring - head) / SAF__WINDOW_ALIGN * SAF__WINDOW_ALIGN : 0;
    near.data_bytes = data < DATA_MOST ? data : DATA_MOST;
    near.short_bytes = near.data_bytes / DATA_PART;
    if (near.short_bytes > SHORT_MOST) near.short_bytes = SHORT_MOST;
    return near.short_bytes >= SAF__MESSAGE_BYTES;
}

/* Whom this rank shares memory with; nobody where there is none to be had. */
static saf_status take_memory(saf_comm *host) {
    saf_status st = SAF_OK;
    size_t n = (size_t)host->size, me = (size_t)host->rank;
    size_t step = saf__ring_bytes(near.data_bytes);
    SAF_TRY(saf__agree(host, saf_alloc(n, sizeof *near.mates, &near.mates)));
    saf__watch_inside("MPI_Win_allocate_shared");
    st = near.under->share(host, n * n * step, &near.window);
    saf__watch_inside(NULL);
    if (st == SAF_NO_MEMORY) return SAF_OK; /* for all of this host */
    SAF_TRY(st);
    for (size_t i = 0; i < n; i++) {
        if (i == me) continue;
        char *in = near.window.base + (me * n + i) * step;
        char *out = near.window.base + (i * n + me) * step;
        near.mates[i].in = (saf__ring_end){.ring = (void *)in, .data_bytes = near.data_bytes};
        near.mates[i].out = (saf__ring_end){.ring = (void *)out, .data_bytes = near.data_bytes};
        near.mates[i].rank = (int)i;
        near.mate_of[host->places[i]] = (int32_t)i;
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
    if (near.host->size > 1 && set_lengths((size_t)near.host->size)) st = take_memory(near.host);
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
    world->name = 0; /* and no other has that */
    world->transport = &near.table;
out:
    if (st != SAF_OK) saf__near_stop(world);
    return st;
}

void saf__near_stop(saf_comm *world) {
    if (!near.under) return;
    forget(NULL);
    for (int i = 0; i < near.n_mates; i++) {
        free_all(&near.mates[i].receives);
        free_all(&near.mates[i].unsent);
    }
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
