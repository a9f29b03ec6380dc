/* Tensors from rank to rank.
 *
 * A tensor travels as a header on the caller's tag, and small contents go inside it. Larger ones
 * follow in pieces on a tag of their own, which the header names. The receiver posts the header's
 * receive at once and the pieces' when the header has told it their exact lengths; they are on
 * their way by then, so this costs no round trip.
 *
 *   sender    header(tag)   piece 0(own tag)   piece 1(own tag) ...
 *   receiver  posted        `-- posted one after the other when the header is there
 *
 * Two reasons for this. No receive is ever shorter than its message: what MPI does then is not to
 * be relied on (Open MPI 4.1 writes past the end of the buffer on its shared-memory path). And a
 * tensor that is refused can be used up without meeting the receives of the next one. */
#include "comm/transport.h"

enum {
    WIRE_MAGIC = 0x31464153, /* another byte order or another program reads differently */
    HEADER_BYTES = 64,
    INLINE_BYTES = 2048 - HEADER_BYTES /* together one eager message */
};

typedef struct {
    uint32_t magic;
    int32_t dtype, ndim, piece_tag;
    int64_t shape[SAF_MAX_DIMS];
    uint64_t bytes, piece_bytes;
    char contents[INLINE_BYTES]; /* all of them, when they fit */
} wire_header;

_Static_assert(offsetof(wire_header, contents) == HEADER_BYTES, "the header has no padding");

typedef enum { FAULT_NONE, FAULT_FOREIGN, FAULT_DTYPE, FAULT_TOO_LARGE, FAULT_LENGTH } fault;

struct saf_comm_request {
    saf_comm *comm;
    saf_tag tag;
    int peer;
    bool receive, header_done, complete;
    saf_comm_request *next, *before; /* of those under way */
    saf__op header_op, piece_op;
    size_t moved;      /* bytes of the pieces that are done */
    size_t moving;     /* of the piece under way */
    saf_status failed; /* of the transport, or SAF_NO_MEMORY: its text is recorded */
    const char *from;  /* send: the tensor's data */
    /* receive */
    fault fault;
    bool drop; /* cancelled: use up what comes */
    saf_tensor *t;
    size_t capacity;
    char *scratch; /* where a tensor goes that is not wanted */
    wire_header header;
};

static const char *tag_name(saf_tag tag) {
    static const char *const names[SAF_TAG_COUNT] = {
        [SAF_TAG_TEST] = "test",
        [SAF_TAG_FLIGHT] = "flight",
        [SAF_TAG_ACTIVATIONS] = "activations",
        [SAF_TAG_SAMPLED] = "sampled",
        [SAF_TAG_LOGITS] = "logits",
        [SAF_TAG_WEIGHTS] = "weights",
    };
    return names[tag] ? names[tag] : "unnamed";
}

static saf_status check_peer(const saf_comm *comm, int peer, saf_tag tag) {
    if (peer < 0 || peer >= comm->size)
        return saf__comm_fail(comm, SAF_DEFECT, "no rank %d in a communicator of %d", peer,
                              comm->size);
    if (tag < SAF_TAG_TEST || tag >= SAF_TAG_COUNT)
        return saf__comm_fail(comm, SAF_DEFECT, "tag %d is none of saf_tag", (int)tag);
    return SAF_OK;
}

static size_t piece_of(size_t left) {
    return left < saf__piece_bytes() ? left : saf__piece_bytes();
}

/* Bytes that travel in pieces. */
static size_t in_pieces(const wire_header *h) {
    return h->bytes > INLINE_BYTES ? h->bytes : 0;
}

/* All requests that are not complete, oldest first. MPI lets a posted receive proceed whatever its
 * owner waits for, and callers rely on it: every wait moves all of these on. */
static saf_comm_request *oldest, *newest;
static uint64_t events; /* headers and pieces done so far */

static void enlist(saf_comm_request *r) {
    r->before = newest;
    *(newest ? &newest->next : &oldest) = r;
    newest = r;
}

static void set_complete(saf_comm_request *r) {
    if (r->complete) return;
    r->complete = true;
    *(r->before ? &r->before->next : &oldest) = r->next;
    *(r->next ? &r->next->before : &newest) = r->before;
    r->next = r->before = NULL;
}

static void give_up(saf_comm_request *r) {
    size_t got;
    (void)r->comm->transport->cancel(r->comm, &r->piece_op, &got);
    (void)r->comm->transport->cancel(r->comm, &r->header_op, &got);
}

static void request_free(saf_comm_request **r) {
    if (*r) saf_free(&(*r)->scratch);
    saf_free(r);
}

/* ---- sending --------------------------------------------------------------------------------- */

static saf_status post_piece(saf_comm_request *r) {
    const saf__transport *x = r->comm->transport;
    r->moving = piece_of(in_pieces(&r->header) - r->moved);
    if (!r->receive)
        return x->isend(r->comm, r->peer, r->header.piece_tag, r->from + r->moved, r->moving,
                        &r->piece_op);
    char *to = r->scratch ? r->scratch : (char *)r->t->data + r->moved;
    return x->irecv(r->comm, r->peer, r->header.piece_tag, to, r->moving, &r->piece_op);
}

static saf_status post_send(saf_comm_request *r, const saf_tensor *t, size_t bytes) {
    saf_status st = SAF_OK;
    saf_comm *comm = r->comm;
    wire_header *h = &r->header;
    const unsigned tags = SAF__TAG_PIECES_END - SAF__TAG_PIECES;
    h->magic = WIRE_MAGIC;
    h->dtype = (int32_t)t->dtype;
    h->ndim = t->ndim;
    h->bytes = bytes;
    h->piece_bytes = saf__piece_bytes();
    h->piece_tag = SAF__TAG_PIECES + (int)(comm->sequence++ % tags);
    for (int i = 0; i < t->ndim; i++) h->shape[i] = t->shape[i];
    size_t small = bytes <= INLINE_BYTES ? bytes : 0;
    if (small > 0) memcpy(h->contents, t->data, small);
    r->from = t->data;
    SAF_TRY(
        comm->transport->isend(comm, r->peer, (int)r->tag, h, HEADER_BYTES + small, &r->header_op));
    if (in_pieces(h) > 0) SAF_TRY(post_piece(r));
out:
    return st;
}

static saf_status start_send(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t,
                             saf_comm_request **out) {
    saf_status st = SAF_OK;
    saf_comm_request *r = NULL;
    size_t bytes;
    SAF_TRY(check_peer(comm, dest, tag));
    SAF_TRY(saf_tensor_bytes(t, &bytes));
    if (bytes > 0 && !t->data) {
        st = saf__comm_fail(comm, SAF_DEFECT, "sends a tensor without data");
        goto out;
    }
    SAF_TRY(saf_alloc(1, sizeof *r, &r));
    r->comm = comm;
    r->tag = tag;
    r->peer = dest;
    st = post_send(r, t, bytes);
    if (st != SAF_OK) {
        give_up(r);
        goto out;
    }
    enlist(r);
    saf__count(SAF_COUNT_SEND, 1, bytes, 0);
    *out = r;
    r = NULL;
out:
    request_free(&r);
    return st;
}

/* ---- receiving ------------------------------------------------------------------------------- */

static saf_status start_recv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                             saf_tensor *t, saf_comm_request **out) {
    saf_status st = SAF_OK;
    saf_comm_request *r = NULL;
    SAF_TRY(check_peer(comm, source, tag));
    if ((unsigned)t->dtype >= SAF_DTYPE_COUNT || (capacity_bytes > 0 && !t->data)) {
        st = saf__comm_fail(comm, SAF_DEFECT, "receives a tensor of type %d into %p, %zu bytes",
                            (int)t->dtype, t->data, capacity_bytes);
        goto out;
    }
    SAF_TRY(saf_alloc(1, sizeof *r, &r));
    r->comm = comm;
    r->tag = tag;
    r->peer = source;
    r->receive = true;
    r->t = t;
    r->capacity = capacity_bytes;
    SAF_TRY(comm->transport->irecv(comm, source, (int)tag, &r->header, sizeof r->header,
                                   &r->header_op));
    enlist(r);
    saf__count(SAF_COUNT_RECV, 1, 0, 0);
    *out = r;
    r = NULL;
out:
    request_free(&r);
    return st;
}

/* What another rank says is checked like a file. */
static fault judge(const saf_comm_request *r, size_t got) {
    const wire_header *h = &r->header;
    saf_tensor t = {.dtype = (saf_dtype)h->dtype, .ndim = h->ndim};
    size_t bytes;
    if (got < HEADER_BYTES || got > sizeof *h || h->magic != WIRE_MAGIC) return FAULT_FOREIGN;
    if (h->dtype < 0 || h->dtype >= SAF_DTYPE_COUNT || h->ndim < 0 || h->ndim > SAF_MAX_DIMS)
        return FAULT_FOREIGN;
    memcpy(t.shape, h->shape, sizeof t.shape);
    if (saf_tensor_bytes(&t, &bytes) != SAF_OK || bytes != h->bytes) return FAULT_FOREIGN;
    if (got - HEADER_BYTES != bytes - in_pieces(h) || h->piece_bytes != saf__piece_bytes() ||
        h->piece_tag < SAF__TAG_PIECES || h->piece_tag >= SAF__TAG_PIECES_END)
        return FAULT_FOREIGN;
    if (t.dtype != r->t->dtype) return FAULT_DTYPE;
    return bytes > r->capacity ? FAULT_TOO_LARGE : FAULT_NONE;
}

/* The header is there: take what it brings and ask for the rest. A tensor that is not wanted is
 * received all the same, aside, so that its sender gets on. */
static saf_status take_header(saf_comm_request *r, size_t got) {
    saf_status st = SAF_OK;
    const wire_header *h = &r->header;
    r->fault = judge(r, got);
    if (r->fault == FAULT_FOREIGN) {
        r->header.bytes = 0;
        goto out;
    }
    bool wanted = r->fault == FAULT_NONE && !r->drop;
    if (in_pieces(h) > 0) {
        if (!wanted) SAF_TRY(saf_alloc(piece_of(in_pieces(h)), 1, &r->scratch));
        SAF_TRY(post_piece(r));
    } else if (wanted && h->bytes > 0) {
        memcpy(r->t->data, h->contents, h->bytes);
    }
out:
    return st;
}

/* Moves a request on as far as it goes without waiting. */
static saf_status step(saf_comm_request *r, bool *done) {
    saf_status st = SAF_OK;
    const saf__transport *x = r->comm->transport;
    size_t got;
    bool one = false;
    *done = false;
    if (!r->header_done) {
        SAF_TRY(x->test(r->comm, &r->header_op, &one, &got));
        if (!one) goto out;
        r->header_done = true;
        events++;
        if (r->receive) SAF_TRY(take_header(r, got));
    }
    while (r->moved < in_pieces(&r->header)) {
        SAF_TRY(x->test(r->comm, &r->piece_op, &one, &got));
        if (!one) goto out;
        if (r->receive && got != r->moving) r->fault = FAULT_LENGTH;
        r->moved += r->moving;
        events++;
        if (r->moved < in_pieces(&r->header)) SAF_TRY(post_piece(r));
    }
    *done = true;
out:
    return st;
}

/* A request that failed is complete as well, and says so when it is finished. */
static void advance(saf_comm_request *r) {
    bool done = false;
    if (r->complete) return;
    if (r->failed == SAF_OK) r->failed = step(r, &done);
    if (r->failed != SAF_OK) give_up(r);
    if (r->failed != SAF_OK || done) set_complete(r);
}

uint64_t saf__progress(void) {
    for (saf_comm_request *r = oldest, *next; r; r = next) {
        next = r->next;
        advance(r);
    }
    return events;
}

void saf__drop_requests(const saf_comm *comm) {
    for (saf_comm_request *r = oldest, *next; r; r = next) {
        next = r->next;
        if (r->comm != comm) continue;
        r->failed = saf__comm_fail(comm, SAF_DEFECT,
                                   "a message to or from rank %d was under way "
                                   "when its communicator was freed",
                                   r->peer);
        give_up(r);
        set_complete(r);
    }
}

/* Waiting calls saf__progress before it asks. */
static saf_status is_complete(void *what, bool *done) {
    *done = ((const saf_comm_request *)what)->complete;
    return SAF_OK;
}

static void describe(saf_buf *out, saf_dtype dtype, int ndim, const int64_t *shape) {
    (void)saf_buf_printf(out, "%s [", saf_dtype_name(dtype));
    for (int i = 0; i < ndim; i++)
        (void)saf_buf_printf(out, i > 0 ? ", %lld" : "%lld", (long long)shape[i]);
    (void)saf_buf_printf(out, "]");
}

static saf_status fault_status(const saf_comm_request *r) {
    const wire_header *h = &r->header;
    saf_buf what = {0};
    saf_status st;
    if (r->fault == FAULT_FOREIGN) {
        st = saf__comm_fail(r->comm, SAF_COMM,
                            "received from rank %d, tag %d (%s): no tensor of this version of saf",
                            r->peer, (int)r->tag, tag_name(r->tag));
    } else if (r->fault == FAULT_LENGTH) {
        st = saf__comm_fail(r->comm, SAF_COMM,
                            "received from rank %d, tag %d (%s): a piece of another length than "
                            "its header says",
                            r->peer, (int)r->tag, tag_name(r->tag));
    } else {
        describe(&what, (saf_dtype)h->dtype, h->ndim, h->shape);
        st = saf__comm_fail(r->comm, SAF_COMM,
                            "received from rank %d, tag %d (%s): expected %s of at most %zu bytes, "
                            "got %s of %llu bytes",
                            r->peer, (int)r->tag, tag_name(r->tag), saf_dtype_name(r->t->dtype),
                            r->capacity, what.data ? what.data : "another",
                            (unsigned long long)h->bytes);
    }
    saf_buf_free(&what);
    return st;
}

/* A request that is done: its status, and the tensor that came. */
static saf_status finish(saf_comm_request **request) {
    saf_comm_request *r = *request;
    saf_status st = r->failed;
    if (st == SAF_OK && r->receive && r->fault != FAULT_FOREIGN)
        saf__count(SAF_COUNT_RECV, 0, r->header.bytes, 0);
    if (st == SAF_OK && r->fault != FAULT_NONE) st = fault_status(r);
    if (st == SAF_OK && r->receive) {
        r->t->ndim = r->header.ndim;
        memcpy(r->t->shape, r->header.shape, sizeof r->t->shape);
    }
    request_free(request);
    return st;
}

static saf_count_kind kind_of(const saf_comm_request *r) {
    return r->receive ? SAF_COUNT_RECV : SAF_COUNT_SEND;
}

/* ---- public ---------------------------------------------------------------------------------- */

saf_status saf_comm_isend(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t,
                          saf_comm_request **out) {
    double t0 = saf_clock_s();
    saf_status st = start_send(comm, dest, tag, t, out);
    saf__count(SAF_COUNT_SEND, 0, 0, saf_clock_s() - t0);
    return st;
}

saf_status saf_comm_irecv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                          saf_tensor *t, saf_comm_request **out) {
    double t0 = saf_clock_s();
    saf_status st = start_recv(comm, source, tag, capacity_bytes, t, out);
    saf__count(SAF_COUNT_RECV, 0, 0, saf_clock_s() - t0);
    return st;
}

saf_status saf_comm_send(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t) {
    saf_comm_request *r = NULL;
    saf_status st = saf_comm_isend(comm, dest, tag, t, &r);
    return st != SAF_OK ? st : saf_comm_wait(&r);
}

saf_status saf_comm_recv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                         saf_tensor *t) {
    saf_comm_request *r = NULL;
    saf_status st = saf_comm_irecv(comm, source, tag, capacity_bytes, t, &r);
    return st != SAF_OK ? st : saf_comm_wait(&r);
}

saf_status saf_comm_test(saf_comm_request **request, bool *done) {
    *done = true;
    if (!*request) return SAF_OK;
    saf__progress();
    *done = (*request)->complete;
    return *done ? finish(request) : SAF_OK;
}

saf_status saf_comm_wait(saf_comm_request **request) {
    saf_comm_request *r = *request;
    if (!r) return SAF_OK;
    saf_count_kind kind = kind_of(r);
    double t0 = saf_clock_s();
    saf_status st = r->complete ? SAF_OK : saf__wait_until(r->comm, is_complete, r);
    if (st != SAF_OK) { /* it can never complete */
        give_up(r);
        set_complete(r);
        r->failed = st;
    }
    st = finish(request);
    saf__count(kind, 0, 0, saf_clock_s() - t0);
    return st;
}

typedef struct {
    saf_comm_request **requests;
    int n, index;
} any_of;

static saf_status poll_any(void *what, bool *done) {
    any_of *any = what;
    for (int i = 0; i < any->n && !*done; i++) {
        *done = any->requests[i] && any->requests[i]->complete;
        if (*done) any->index = i;
    }
    return SAF_OK;
}

saf_status saf_comm_wait_any(saf_comm_request **requests, int n, int *index) {
    any_of any = {.requests = requests, .n = n, .index = -1};
    *index = -1;
    int first = 0;
    bool done = false;
    while (first < n && !requests[first]) first++;
    if (first >= n) return SAF_OK;
    double t0 = saf_clock_s();
    saf_status st = poll_any(&any, &done);
    if (!done) st = saf__wait_until(requests[first]->comm, poll_any, &any);
    if (st != SAF_OK) return st;
    saf_count_kind kind = kind_of(requests[any.index]);
    st = finish(&requests[any.index]);
    saf__count(kind, 0, 0, saf_clock_s() - t0);
    *index = any.index;
    return st;
}

void saf_comm_cancel(saf_comm_request **request) {
    saf_comm_request *r = *request;
    size_t got = 0;
    if (!r) return;
    if (r->receive && r->failed == SAF_OK) {
        r->drop = true;
        if (!r->header_done) {
            if (r->comm->transport->cancel(r->comm, &r->header_op, &got)) {
                set_complete(r);
                request_free(request);
                return;
            }
            /* It had come after all: use it up. */
            r->header_done = true;
            r->failed = take_header(r, got);
        }
    }
    (void)saf_comm_wait(request);
}
