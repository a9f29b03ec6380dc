/* saf_comm over SMPI, as far as src/parallel and src/matrix use it: a header with what is small,
 * and the rest behind it, as src/comm/message.c sends it. What SMPI carries means nothing and is a
 * SIM_UNIT-th of its length, for links that are as much slower: so that nothing large is copied.
 * The contents lie meanwhile in a list of the receiver's; MPI keeps messages of one sender and tag
 * in order. Rows, tiles and sums are nobody's contents. */
#include <assert.h>
#include <smpi/smpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

enum {
    HEADER_BYTES = 64,
    SHORT_HEADER_BYTES = 16, /* as src/comm/message.h has them */
    INLINE_BYTES = 2048 - HEADER_BYTES,
    REST_TAGS = 1024, /* of what follows a header */
    MEET_TAG = 512,
    HOLLOW_UNITS = 4 << 20
};

/* A message on its way. */
typedef struct letter letter;
struct letter {
    letter *next;
    int source, tag;
    saf_tensor t; /* data NULL: nobody's contents */
    size_t bytes;
};

typedef struct {
    letter *oldest, **end;
} inbox;

struct saf_comm {
    MPI_Comm mpi;
    int rank, size;
    int *places;    /* [size] in the world */
    inbox *inboxes; /* [size], the same for all of its ranks */
};

struct saf_comm_request {
    saf_comm *comm;
    int peer, tag;
    bool receive, rest; /* rest: the header is there, and what follows is on its way */
    saf_tensor *t;
    size_t capacity;
    MPI_Request op;
    letter *letter; /* of a receive whose header is there */
};

static char hollow[HOLLOW_UNITS];

static int units(size_t bytes) {
    size_t n = (bytes + SIM_UNIT - 1) / SIM_UNIT;
    assert(n <= HOLLOW_UNITS);
    return n > 0 ? (int)n : 1;
}

/* ---- communicators --------------------------------------------------------------------------- */

static saf_comm *adopt(MPI_Comm mpi) {
    saf_comm *c = calloc(1, sizeof *c);
    MPI_Group all, some;
    assert(c);
    c->mpi = mpi;
    MPI_Comm_rank(mpi, &c->rank);
    MPI_Comm_size(mpi, &c->size);
    c->places = calloc((size_t)c->size, sizeof *c->places);
    int *ranks = calloc((size_t)c->size, sizeof *ranks);
    assert(c->places && ranks);
    for (int r = 0; r < c->size; r++) ranks[r] = r;
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Comm_group(mpi, &some);
    MPI_Group_translate_ranks(some, c->size, ranks, all, c->places);
    free(ranks);
    if (c->rank == 0) {
        c->inboxes = calloc((size_t)c->size, sizeof *c->inboxes);
        assert(c->inboxes);
        for (int r = 0; r < c->size; r++) c->inboxes[r].end = &c->inboxes[r].oldest;
    }
    c->inboxes = sim_share_pointer(c, c->inboxes); /* they end with the program */
    return c;
}

saf_status saf_comm_start(int *argc, char ***argv, saf_comm **world) {
    MPI_Init(argc, argv);
    *world = adopt(MPI_COMM_WORLD);
    return SAF_OK;
}

void saf_comm_stop(saf_comm **world) {
    free((*world)->places);
    free(*world);
    *world = NULL;
    MPI_Finalize();
}

saf_status saf_comm_split(saf_comm *comm, int color, int key, saf_comm **out) {
    MPI_Comm made = MPI_COMM_NULL;
    MPI_Comm_split(comm->mpi, color < 0 ? MPI_UNDEFINED : color, key, &made);
    *out = made == MPI_COMM_NULL ? NULL : adopt(made);
    return SAF_OK;
}

saf_status saf_comm_dup(saf_comm *comm, saf_comm **out) {
    return saf_comm_split(comm, 0, comm->rank, out);
}

void saf_comm_free(saf_comm **comm) {
    if (!*comm) return;
    MPI_Comm_free(&(*comm)->mpi);
    free((*comm)->places);
    free(*comm);
    *comm = NULL;
}

int saf_comm_rank(const saf_comm *comm) {
    return comm->rank;
}
int saf_comm_size(const saf_comm *comm) {
    return comm->size;
}
const char *saf_comm_host(const saf_comm *comm) {
    (void)comm;
    return "simulated";
}
int32_t sim_world_rank(const saf_comm *comm, int rank) {
    return comm->places[rank];
}

/* ---- messages -------------------------------------------------------------------------------- */

/* Contents that decide nothing: rows, tiles, sums, logits. */
static bool is_hollow(saf_tag tag, saf_dtype dtype) {
    return tag == SAF_TAG_ACTIVATIONS || tag == SAF_TAG_LOGITS || tag == SAF_TAG_PANEL ||
           (tag == SAF_TAG_SUM && dtype != SAF_DTYPE_I64);
}

static saf_comm_request *make(saf_comm *comm, int peer, saf_tag tag) {
    saf_comm_request *r = calloc(1, sizeof *r);
    assert(r);
    r->comm = comm;
    r->peer = peer;
    r->tag = (int)tag;
    r->op = MPI_REQUEST_NULL;
    return r;
}

static void post(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t, size_t bytes) {
    letter *l = calloc(1, sizeof *l);
    inbox *to = &comm->inboxes[dest];
    assert(l);
    *l = (letter){.source = comm->rank, .tag = (int)tag, .t = *t, .bytes = bytes};
    l->t.data = NULL;
    if (bytes > 0 && !is_hollow(tag, t->dtype)) {
        l->t.data = malloc(bytes);
        assert(l->t.data);
        memcpy(l->t.data, t->data, bytes);
    }
    *to->end = l;
    to->end = &l->next;
}

static letter *take(const saf_comm *comm, int source, int tag) {
    inbox *from = &comm->inboxes[comm->rank];
    letter **at = &from->oldest;
    while (*at && ((*at)->source != source || (*at)->tag != tag)) at = &(*at)->next;
    letter *l = *at;
    assert(l);
    *at = l->next;
    if (!*at) from->end = at;
    return l;
}

/* Of contents that travel in it a header is short where the shape fits. */
static size_t header_bytes(const saf_tensor *t, size_t bytes) {
    bool fits = bytes <= INLINE_BYTES;
    for (int i = 0; i < t->ndim; i++) fits = fits && t->shape[i] <= UINT16_MAX;
    return fits ? SHORT_HEADER_BYTES : HEADER_BYTES;
}

/* They leave at once, whether or not anybody waits for them (see sim_run). */
saf_status saf_comm_isend(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t,
                          saf_comm_request **out) {
    saf_comm_request *r = make(comm, dest, tag);
    size_t bytes;
    sim_check(saf_tensor_bytes(t, &bytes));
    size_t small = bytes <= INLINE_BYTES ? bytes : 0;
    post(comm, dest, tag, t, bytes);
    MPI_Isend(hollow, units(header_bytes(t, bytes) + small), MPI_BYTE, dest, r->tag, comm->mpi,
              &r->op);
    MPI_Wait(&r->op, MPI_STATUS_IGNORE);
    if (bytes > small)
        MPI_Isend(hollow, units(bytes), MPI_BYTE, dest, REST_TAGS + r->tag, comm->mpi, &r->op);
    *out = r;
    return SAF_OK;
}

saf_status saf_comm_irecv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                          saf_tensor *t, saf_comm_request **out) {
    saf_comm_request *r = make(comm, source, tag);
    r->receive = true;
    r->t = t;
    r->capacity = capacity_bytes;
    MPI_Irecv(hollow, units(HEADER_BYTES + INLINE_BYTES), MPI_BYTE, source, r->tag, comm->mpi,
              &r->op);
    *out = r;
    return SAF_OK;
}

/* Its operation is over: false when another one has begun. */
static bool is_over(saf_comm_request *r) {
    if (!r->receive || r->rest) return true;
    r->letter = take(r->comm, r->peer, r->tag);
    assert(r->letter->bytes <= r->capacity);
    if (r->letter->bytes <= INLINE_BYTES) return true;
    r->rest = true;
    MPI_Irecv(hollow, units(r->letter->bytes), MPI_BYTE, r->peer, REST_TAGS + r->tag, r->comm->mpi,
              &r->op);
    return false;
}

static void end(saf_comm_request **request) {
    saf_comm_request *r = *request;
    letter *l = r->letter;
    if (l) {
        r->t->ndim = l->t.ndim;
        memcpy(r->t->shape, l->t.shape, sizeof l->t.shape);
        if (l->t.data) memcpy(r->t->data, l->t.data, l->bytes);
        free(l->t.data);
        free(l);
    }
    free(r);
    *request = NULL;
}

saf_status saf_comm_wait(saf_comm_request **request) {
    if (!*request) return SAF_OK;
    do MPI_Wait(&(*request)->op, MPI_STATUS_IGNORE);
    while (!is_over(*request));
    end(request);
    return SAF_OK;
}

saf_status saf_comm_test(saf_comm_request **request, bool *done) {
    *done = true;
    if (!*request) return SAF_OK;
    do {
        int flag = 0;
        MPI_Test(&(*request)->op, &flag, MPI_STATUS_IGNORE);
        if (!flag) {
            *done = false;
            return SAF_OK;
        }
    } while (!is_over(*request));
    end(request);
    return SAF_OK;
}

saf_status saf_comm_test_any(saf_comm_request **requests, int n, int *index) {
    *index = -1;
    for (int i = 0; i < n && *index < 0; i++) {
        bool done = false;
        if (!requests[i]) continue;
        (void)saf_comm_test(&requests[i], &done);
        if (done) *index = i;
    }
    return SAF_OK;
}

saf_status saf_comm_wait_any(saf_comm_request **requests, int n, int *index) {
    MPI_Request *ops = calloc((size_t)n + 1, sizeof(MPI_Request));
    int at;
    assert(ops);
    *index = -1;
    for (;;) {
        int some = 0;
        for (int i = 0; i < n; i++) {
            ops[i] = requests[i] ? requests[i]->op : MPI_REQUEST_NULL;
            some += requests[i] != NULL;
        }
        if (some == 0) break;
        MPI_Waitany(n, ops, &at, MPI_STATUS_IGNORE);
        for (int i = 0; i < n; i++)
            if (requests[i]) requests[i]->op = ops[i];
        /* A send that left at once is nobody's operation any more. */
        for (int i = 0; at == MPI_UNDEFINED && i < n; i++)
            if (requests[i]) at = i;
        if (!is_over(requests[at])) continue;
        end(&requests[at]);
        *index = at;
        break;
    }
    free(ops);
    return SAF_OK;
}

/* Nobody asks a simulated run to stop. */
saf_status saf_comm_wait_any_or(saf_comm_request **requests, int n, bool (*enough)(void *ctx),
                                void *ctx, int *index) {
    (void)enough;
    (void)ctx;
    return saf_comm_wait_any(requests, n, index);
}

saf_status saf_comm_send(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t) {
    saf_comm_request *r = NULL;
    (void)saf_comm_isend(comm, dest, tag, t, &r);
    return saf_comm_wait(&r);
}

saf_status saf_comm_recv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                         saf_tensor *t) {
    saf_comm_request *r = NULL;
    (void)saf_comm_irecv(comm, source, tag, capacity_bytes, t, &r);
    return saf_comm_wait(&r);
}

void saf_comm_progress(void) {}

void saf_comm_cancel(saf_comm_request **request) {
    if (!*request) return;
    if ((*request)->receive && (*request)->op != MPI_REQUEST_NULL) MPI_Cancel(&(*request)->op);
    free(*request);
    *request = NULL;
}

void sim_exchange(saf_comm *leaders, int me, int hosts, const size_t *bytes) {
    MPI_Request *ops = calloc(2 * (size_t)hosts, sizeof(MPI_Request));
    int n = 0;
    assert(ops);
    for (int turn = 1; turn < hosts; turn++) {
        int h = (me + turn) % hosts;
        MPI_Irecv(hollow, units(bytes[h]), MPI_BYTE, h, MEET_TAG, leaders->mpi, &ops[n++]);
    }
    for (int turn = 1; turn < hosts; turn++)
        MPI_Isend(hollow, units(bytes[me]), MPI_BYTE, (me + turn) % hosts, MEET_TAG, leaders->mpi,
                  &ops[n++]);
    MPI_Waitall(n, ops, MPI_STATUSES_IGNORE);
    free(ops);
}

/* ---- collectives ----------------------------------------------------------------------------- */

saf_status saf_comm_agree(saf_comm *comm, saf_status mine) {
    (void)comm;
    sim_check(mine);
    return SAF_OK;
}

saf_status saf_comm_allreduce(saf_comm *comm, saf_op op, const saf_tensor *t) {
    MPI_Datatype type = t->dtype == SAF_DTYPE_I64 ? MPI_INT64_T : MPI_UINT8_T;
    assert(t->dtype == SAF_DTYPE_I64 || t->dtype == SAF_DTYPE_U8);
    MPI_Allreduce(MPI_IN_PLACE, t->data, (int)saf_tensor_elements(t), type,
                  op == SAF_OP_SUM   ? MPI_SUM
                  : op == SAF_OP_MIN ? MPI_MIN
                                     : MPI_MAX,
                  comm->mpi);
    return SAF_OK;
}

void sim_barrier(saf_comm *comm) {
    MPI_Barrier(comm->mpi);
}

double sim_max(saf_comm *comm, double value) {
    double out = 0;
    MPI_Allreduce(&value, &out, 1, MPI_DOUBLE, MPI_MAX, comm->mpi);
    return out;
}

void *sim_share_pointer(saf_comm *comm, void *pointer) {
    MPI_Bcast(&pointer, (int)sizeof pointer, MPI_BYTE, 0, comm->mpi);
    return pointer;
}
