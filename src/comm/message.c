/* Tensors from rank to rank.
 *
 * A tensor travels as a header on the caller's tag, and small contents go inside it. Larger ones
 * follow in pieces on a tag of their own, which the header names, a few of them under way at a
 * time. The receiver posts the header's receive at once and the pieces' when the header has told it
 * their exact lengths; they are on their way by then, so this costs no round trip.
 *
 *   sender    header(tag)   piece 0(own tag)   piece 1(own tag) ...
 *   receiver  posted        `-- posted when the header is there
 *
 * Two reasons for this. No receive is ever shorter than its message: what MPI does then is not to
 * be relied on (Open MPI 4.1 writes past the end of the buffer on its shared-memory path). And a
 * tensor that is refused can be used up without meeting the receives of the next one. */
#include "comm/message.h"

static const char *tag_name(saf_tag tag) {
    static const char *const names[SAF_TAG_COUNT] = {
        [SAF_TAG_TEST] = "test",
        [SAF_TAG_FLIGHT] = "flight",
        [SAF_TAG_ACTIVATIONS] = "activations",
        [SAF_TAG_SAMPLED] = "sampled",
        [SAF_TAG_LOGITS] = "logits",
        [SAF_TAG_WEIGHTS] = "weights",
        [SAF_TAG_LOADED] = "loaded",
    };
    return names[tag] ? names[tag] : "unnamed";
}

/* Sent whether or not the receiver is ready, they travel while both sides compute. */
static size_t message_piece(void) {
    return saf__eager_piece_bytes();
}

/* Bytes that travel in pieces. */
static size_t in_pieces(const saf_comm_request *r) {
    return r->bytes > SAF__INLINE_BYTES ? r->bytes : 0;
}

void saf__message_give_up(saf_comm_request *r) {
    size_t got;
    for (; r->moved < r->posted; r->moved++)
        (void)r->comm->transport->cancel(r->comm, &r->pieces[r->moved % SAF__WINDOW], &got);
    (void)r->comm->transport->cancel(r->comm, &r->header_op, &got);
}

/* ---- sending --------------------------------------------------------------------------------- */

static size_t piece_length(const saf_comm_request *r, int64_t i) {
    size_t left = in_pieces(r) - (size_t)i * message_piece();
    return left < message_piece() ? left : message_piece();
}

/* Keeps the window full. What is not wanted is received aside, each piece over the one before. */
static saf_status post_pieces(saf_comm_request *r) {
    saf_status st = SAF_OK;
    const saf__transport *x = r->comm->transport;
    int64_t window = r->scratch ? 1 : SAF__WINDOW;
    for (; r->posted < r->n_pieces && r->posted < r->moved + window; r->posted++) {
        saf__op *op = &r->pieces[r->posted % SAF__WINDOW];
        size_t at = (size_t)r->posted * message_piece(), len = piece_length(r, r->posted);
        char *to = r->scratch ? r->scratch : r->receive ? (char *)r->t->data + at : NULL;
        int tag = r->header.piece_tag;
        SAF_TRY(r->receive ? x->irecv(r->comm, r->peer, tag, to, len, op)
                           : x->isend(r->comm, r->peer, tag, r->from + at, len, op));
    }
out:
    return st;
}

static void set_pieces(saf_comm_request *r) {
    r->n_pieces = saf_ceil_div((int64_t)in_pieces(r), (int64_t)message_piece());
}

/* The header, and how long it is. */
static size_t put_header(saf_comm_request *r) {
    const saf__header *h = &r->header;
    saf__short_header brief = {.magic = SAF__SHORT_MAGIC, .dtype = h->dtype, .ndim = h->ndim};
    bool fits = r->bytes <= SAF__INLINE_BYTES;
    for (int i = 0; i < h->ndim; i++) {
        fits = fits && h->shape[i] <= UINT16_MAX;
        brief.shape[i] = (uint16_t)h->shape[i];
    }
    if (!fits) memcpy(r->wire, h, sizeof *h);
    if (fits) memcpy(r->wire, &brief, sizeof brief);
    return fits ? sizeof brief : sizeof *h;
}

saf_status saf__message_send(saf_comm_request *r, const saf_tensor *t, size_t bytes) {
    saf_status st = SAF_OK;
    saf_comm *comm = r->comm;
    saf__header *h = &r->header;
    const unsigned tags = SAF__TAG_PIECES_END - SAF__TAG_PIECES;
    h->magic = SAF__WIRE_MAGIC;
    h->dtype = (uint8_t)t->dtype;
    h->ndim = (uint8_t)t->ndim;
    r->bytes = bytes;
    h->piece_bytes = message_piece();
    h->piece_tag = (uint16_t)(SAF__TAG_PIECES + comm->sequence++ % tags);
    for (int i = 0; i < t->ndim; i++) h->shape[i] = t->shape[i];
    size_t length = put_header(r), small = bytes - in_pieces(r);
    if (small > 0) memcpy(r->wire + length, t->data, small);
    r->from = t->data;
    SAF_TRY(
        comm->transport->isend(comm, r->peer, (int)r->tag, r->wire, length + small, &r->header_op));
    set_pieces(r);
    SAF_TRY(post_pieces(r));
out:
    return st;
}

/* ---- receiving ------------------------------------------------------------------------------- */

saf_status saf__message_recv(saf_comm_request *r) {
    return r->comm->transport->irecv(r->comm, r->peer, (int)r->tag, r->wire, sizeof r->wire,
                                     &r->header_op);
}

/* The header of `got` bytes, and how long it is; 0: there is none. */
static size_t take_header(saf_comm_request *r, size_t got) {
    saf__header *h = &r->header;
    saf__short_header brief;
    uint32_t magic = 0;
    if (got >= sizeof brief) memcpy(&magic, r->wire, sizeof magic);
    if (magic == SAF__SHORT_MAGIC) {
        memcpy(&brief, r->wire, sizeof brief);
        *h = (saf__header){.dtype = brief.dtype, .ndim = brief.ndim};
        for (int i = 0; i < SAF_MAX_DIMS; i++) h->shape[i] = brief.shape[i];
        return sizeof brief;
    }
    if (magic != SAF__WIRE_MAGIC || got < sizeof *h) return 0;
    memcpy(h, r->wire, sizeof *h);
    bool right = h->piece_bytes == message_piece() && h->piece_tag >= SAF__TAG_PIECES &&
                 h->piece_tag < SAF__TAG_PIECES_END;
    return right ? sizeof *h : 0;
}

/* What another rank says is checked like a file. Sets how long the tensor is. */
static saf__fault judge(saf_comm_request *r, size_t got, size_t length) {
    const saf__header *h = &r->header;
    saf_tensor t = {.dtype = (saf_dtype)h->dtype, .ndim = h->ndim};
    if (length == 0 || got > sizeof r->wire) return SAF__FAULT_FOREIGN;
    if (h->dtype >= SAF_DTYPE_COUNT || h->ndim > SAF_MAX_DIMS) return SAF__FAULT_FOREIGN;
    memcpy(t.shape, h->shape, sizeof t.shape);
    if (saf_tensor_bytes(&t, &r->bytes) != SAF_OK) return SAF__FAULT_FOREIGN;
    if (in_pieces(r) > 0 && length != sizeof *h) return SAF__FAULT_FOREIGN; /* on no tag */
    if (got - length != r->bytes - in_pieces(r)) return SAF__FAULT_FOREIGN;
    if (t.dtype != r->t->dtype) return SAF__FAULT_DTYPE;
    return r->bytes > r->capacity ? SAF__FAULT_TOO_LARGE : SAF__FAULT_NONE;
}

/* The header is there: take what it brings and ask for the rest. A tensor that is not wanted is
 * received all the same, aside, so that its sender gets on. */
saf_status saf__message_take_header(saf_comm_request *r, size_t got) {
    saf_status st = SAF_OK;
    size_t length = take_header(r, got);
    r->fault = judge(r, got, length);
    if (r->fault == SAF__FAULT_FOREIGN) {
        r->bytes = 0;
        goto out;
    }
    bool wanted = r->fault == SAF__FAULT_NONE && !r->drop;
    if (in_pieces(r) == 0) {
        if (wanted && r->bytes > 0) memcpy(r->t->data, r->wire + length, r->bytes);
        goto out;
    }
    set_pieces(r);
    if (!wanted) SAF_TRY(saf_alloc(piece_length(r, 0), 1, &r->scratch));
    SAF_TRY(post_pieces(r));
out:
    return st;
}

/* Moves a request on as far as it goes without waiting. */
saf_status saf__message_step(saf_comm_request *r, uint64_t *events, bool *done) {
    saf_status st = SAF_OK;
    const saf__transport *x = r->comm->transport;
    size_t got;
    bool one = false;
    *done = false;
    if (!r->header_done) {
        SAF_TRY(x->test(r->comm, &r->header_op, &one, &got));
        if (!one) goto out;
        r->header_done = true;
        (*events)++;
        if (r->receive) SAF_TRY(saf__message_take_header(r, got));
    }
    while (r->moved < r->n_pieces) {
        SAF_TRY(x->test(r->comm, &r->pieces[r->moved % SAF__WINDOW], &one, &got));
        if (!one) goto out;
        if (r->receive && got != piece_length(r, r->moved)) r->fault = SAF__FAULT_LENGTH;
        r->moved++;
        (*events)++;
        SAF_TRY(post_pieces(r));
    }
    *done = true;
out:
    return st;
}

/* ---- verdict --------------------------------------------------------------------------------- */

static void describe(saf_buf *out, saf_dtype dtype, int ndim, const int64_t *shape) {
    (void)saf_buf_printf(out, "%s [", saf_dtype_name(dtype));
    for (int i = 0; i < ndim; i++)
        (void)saf_buf_printf(out, i > 0 ? ", %lld" : "%lld", (long long)shape[i]);
    (void)saf_buf_printf(out, "]");
}

saf_status saf__message_verdict(const saf_comm_request *r) {
    const saf__header *h = &r->header;
    saf_buf what = {0};
    saf_status st = SAF_OK;
    if (!r->receive || r->fault == SAF__FAULT_NONE) return SAF_OK;
    if (r->fault == SAF__FAULT_FOREIGN) {
        st = saf__comm_fail(r->comm, SAF_COMM,
                            "received from rank %d, tag %d (%s): no tensor of this version of saf",
                            r->peer, (int)r->tag, tag_name(r->tag));
    } else if (r->fault == SAF__FAULT_LENGTH) {
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
                            (unsigned long long)r->bytes);
    }
    saf_buf_free(&what);
    return st;
}
