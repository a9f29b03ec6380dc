/* Requests: starting, moving on, waiting and ending of messages. */
#include <assert.h>

#include "comm/message.h"

/* All requests that nobody has finished, oldest first. MPI lets a posted receive proceed whatever
 * its owner waits for, and callers rely on it: every wait moves all of these on. */
static saf_comm_request *oldest, *newest;
static uint64_t events;

/* Requests that are over, to be used again: most of one is room for contents, which need not be
 * cleared for every message. */
enum { SPARE_MOST = 64 };
static saf_comm_request *spare;
static int n_spare;

static saf_status request_new(saf_comm_request **out) {
    saf_comm_request *r = spare;
    if (!r) return saf_alloc(1, sizeof *r, out);
    spare = r->next;
    n_spare--;
    memset(r, 0, offsetof(saf_comm_request, wire));
    *out = r;
    return SAF_OK;
}

static void free_spares(void) {
    while (spare) {
        saf_comm_request *r = spare;
        spare = r->next;
        saf_free(&r);
    }
    n_spare = 0;
}

static void enlist(saf_comm_request *r) {
    r->before = newest;
    *(newest ? &newest->next : &oldest) = r;
    newest = r;
}

static void request_free(saf_comm_request **request) {
    saf_comm_request *r = *request;
    if (r) {
        bool listed = r->before || oldest == r;
        if (listed) *(r->before ? &r->before->next : &oldest) = r->next;
        if (listed) *(r->next ? &r->next->before : &newest) = r->before;
        saf_free(&r->scratch);
        saf_free(&r->error);
    }
    if (r && n_spare < SPARE_MOST) {
        r->next = spare;
        spare = r;
        n_spare++;
        *request = NULL;
    }
    saf_free(request);
}

/* The end of a request with what was recorded last, to be told when somebody asks. */
static void set_failed(saf_comm_request *r, saf_status st) {
    char *text = NULL;
    saf__message_give_up(r);
    r->complete = true;
    r->failed = st;
    if (saf_strdup(saf_error_text(), &text) == SAF_OK) r->error = text;
}

static saf_status check_peer(const saf_comm *comm, int peer, saf_tag tag) {
    if (peer < 0 || peer >= comm->size)
        return saf__comm_fail(comm, SAF_DEFECT, "no rank %d in a communicator of %d", peer,
                              comm->size);
    if (tag < SAF_TAG_TEST || tag >= SAF_TAG_COUNT)
        return saf__comm_fail(comm, SAF_DEFECT, "tag %d is none of saf_tag", (int)tag);
    return SAF_OK;
}

static saf_status start_send(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t,
                             size_t bytes, saf_comm_request **out) {
    saf_status st = SAF_OK;
    saf_comm_request *r = NULL;
    SAF_TRY(check_peer(comm, dest, tag));
    if (bytes > 0 && !t->data) {
        st = saf__comm_fail(comm, SAF_DEFECT, "sends a tensor without data");
        goto out;
    }
    SAF_TRY(request_new(&r));
    r->comm = comm;
    r->tag = tag;
    r->peer = dest;
    st = saf__message_send(r, t, bytes);
    if (st == SAF_OK && r->n_pieces == 0) st = saf__message_step(r, &events, &r->complete);
    if (st != SAF_OK) {
        saf__message_give_up(r);
        goto out;
    }
    if (!r->complete) enlist(r);
    saf__bell_ring(comm, dest);
    saf__watch_moved();
    saf__watch_answer();
    saf__count(SAF_COUNT_SEND, 1, bytes, 0);
    *out = r;
    r = NULL;
out:
    request_free(&r);
    return st;
}

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
    SAF_TRY(request_new(&r));
    r->comm = comm;
    r->tag = tag;
    r->peer = source;
    r->receive = true;
    r->t = t;
    r->capacity = capacity_bytes;
    SAF_TRY(saf__message_recv(r));
    enlist(r);
    saf__count(SAF_COUNT_RECV, 1, 0, 0);
    *out = r;
    r = NULL;
out:
    request_free(&r);
    return st;
}

static void complete(saf_comm_request *r) {
    r->complete = true;
    if (!r->receive) return;
    if (r->fault != SAF__FAULT_FOREIGN) saf__count(SAF_COUNT_RECV, 0, r->bytes, 0);
    saf_status st = saf__message_verdict(r);
    if (st != SAF_OK) set_failed(r, st);
}

uint64_t saf__progress(void) {
    uint64_t start = events;
    saf__watch_answer();
    for (saf_comm_request *r = oldest; r; r = r->next) {
        bool done = false;
        uint64_t before = events;
        int64_t posted = r->posted;
        if (r->complete) continue;
        saf_status st = saf__message_step(r, &events, &done);
        /* The peer may go on with its part of a long one, or is done with it once all is received.
         */
        bool matters = r->receive || !done || r->posted != posted;
        if (events != before && r->n_pieces > 0 && matters) saf__bell_ring(r->comm, r->peer);
        if (st != SAF_OK)
            set_failed(r, st);
        else if (done)
            complete(r);
    }
    if (events != start) saf__watch_moved();
    return events;
}

/* ---- what is done for others while this rank waits ---- */

static void (*service)(void *ctx);
static void *service_ctx;

void saf_comm_serve(void (*what)(void *ctx), void *ctx) {
    service = what;
    service_ctx = ctx;
}

void saf__serve(void) {
    void (*what)(void *ctx) = service;
    if (!what) return;
    service = NULL; /* it may call what looks for messages */
    what(service_ctx);
    service = what;
}

void saf_comm_progress(void) {
    saf__watch_moved();
    saf__near_progress();
    (void)saf__progress();
    saf__serve();
}

void saf__drop_requests(const saf_comm *comm) {
    free_spares();
    for (saf_comm_request *r = oldest; r; r = r->next) {
        if (r->comm != comm || r->complete) continue;
        set_failed(r, saf__comm_fail(comm, SAF_DEFECT,
                                     "a message to or from rank %d was under way when its "
                                     "communicator was freed",
                                     r->peer));
    }
}

/* Waiting calls saf__progress before it asks. */
static saf_status is_complete(void *what, bool *done) {
    *done = ((const saf_comm_request *)what)->complete;
    return SAF_OK;
}

/* Of a request that is complete: its status, and the tensor that came. */
static saf_status finish(saf_comm_request **request) {
    saf_comm_request *r = *request;
    saf_status st = r->failed;
    if (st != SAF_OK) {
        st = saf_fail(st, "%s", r->error ? r->error : saf_status_text(st));
    } else if (r->receive) {
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
    size_t bytes;
    saf_status st = saf_tensor_bytes(t, &bytes);
    if (st != SAF_OK) return st;
    saf__stopwatch watch = saf__stopwatch_start(bytes);
    st = start_send(comm, dest, tag, t, bytes, out);
    saf__count(SAF_COUNT_SEND, 0, 0, saf__stopwatch_s(&watch));
    return st;
}

saf_status saf_comm_irecv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                          saf_tensor *t, saf_comm_request **out) {
    return start_recv(comm, source, tag, capacity_bytes, t, out);
}

/* Started and waited for under one stopwatch. */
static saf_status finish_started(saf_comm_request **request, const saf__stopwatch *watch) {
    saf_comm_request *r = *request;
    assert(r);
    saf_count_kind kind = kind_of(r);
    saf_status st = r->complete ? SAF_OK : saf__wait_until(r->comm, is_complete, r);
    if (st != SAF_OK) set_failed(r, st); /* it can never complete */
    st = finish(request);
    saf__count(kind, 0, 0, saf__stopwatch_s(watch));
    return st;
}

saf_status saf_comm_send(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t) {
    saf_comm_request *r = NULL;
    size_t bytes;
    saf_status st = saf_tensor_bytes(t, &bytes);
    if (st != SAF_OK) return st;
    saf__stopwatch watch = saf__stopwatch_start(bytes);
    st = start_send(comm, dest, tag, t, bytes, &r);
    return st != SAF_OK ? st : finish_started(&r, &watch);
}

saf_status saf_comm_recv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                         saf_tensor *t) {
    saf_comm_request *r = NULL;
    saf__stopwatch watch = saf__stopwatch_start(capacity_bytes);
    saf_status st = start_recv(comm, source, tag, capacity_bytes, t, &r);
    return st != SAF_OK ? st : finish_started(&r, &watch);
}

saf_status saf_comm_test(saf_comm_request **request, bool *done) {
    *done = true;
    if (!*request) return SAF_OK;
    saf__near_progress();
    saf__progress();
    *done = (*request)->complete;
    return *done ? finish(request) : SAF_OK;
}

saf_status saf_comm_wait(saf_comm_request **request) {
    if (!*request) return SAF_OK;
    const saf_comm_request *r = *request;
    saf__stopwatch watch = saf__stopwatch_start(r->receive ? r->capacity : r->bytes);
    return finish_started(request, &watch);
}

typedef struct {
    saf_comm_request **requests;
    int n, index;
    bool (*enough)(void *ctx); /* or NULL */
    void *ctx;
} any_of;

static saf_status poll_any(void *what, bool *done) {
    any_of *any = what;
    for (int i = 0; i < any->n && !*done; i++) {
        *done = any->requests[i] && any->requests[i]->complete;
        if (*done) any->index = i;
    }
    if (!*done && any->enough) *done = any->enough(any->ctx);
    return SAF_OK;
}

saf_status saf_comm_wait_any(saf_comm_request **requests, int n, int *index) {
    return saf_comm_wait_any_or(requests, n, NULL, NULL, index);
}

saf_status saf_comm_wait_any_or(saf_comm_request **requests, int n, bool (*enough)(void *ctx),
                                void *ctx, int *index) {
    any_of any = {.requests = requests, .n = n, .index = -1, .enough = enough, .ctx = ctx};
    *index = -1;
    int first = 0;
    bool done = false;
    while (first < n && !requests[first]) first++;
    if (first >= n) return SAF_OK;
    double t0 = saf_clock_s();
    saf_status st = poll_any(&any, &done);
    if (!done) st = saf__wait_until(requests[first]->comm, poll_any, &any);
    if (st != SAF_OK || any.index < 0) return st;
    saf_count_kind kind = kind_of(requests[any.index]);
    st = finish(&requests[any.index]);
    saf__count(kind, 0, 0, saf_clock_s() - t0);
    *index = any.index;
    return st;
}

saf_status saf_comm_test_any(saf_comm_request **requests, int n, int *index) {
    any_of any = {.requests = requests, .n = n, .index = -1};
    bool done = false;
    *index = -1;
    saf__near_progress();
    saf__progress();
    saf_status st = poll_any(&any, &done);
    if (!done) return st;
    *index = any.index;
    return finish(&requests[any.index]);
}

void saf_comm_cancel(saf_comm_request **request) {
    saf_comm_request *r = *request;
    size_t got = 0;
    if (!r) return;
    if (r->receive && !r->complete) {
        r->drop = true;
        if (!r->header_done) {
            if (r->comm->transport->cancel(r->comm, &r->header_op, &got)) {
                request_free(request);
                return;
            }
            /* It had come after all: use it up. */
            r->header_done = true;
            saf_status st = saf__message_take_header(r, got);
            if (st != SAF_OK) set_failed(r, st);
        }
    }
    (void)saf_comm_wait(request);
}
