/* The MPI transport: MPI 3.1 calls only, every error returned. Memory that ranks share is in
 * mpi_window.c. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm/mpi_comm.h"

/* MPI_Request is a pointer in one library and an int in another. */
typedef union {
    MPI_Request request;
    uintptr_t handle;
} request_bits;

saf_status saf__mpi_check(const saf_comm *comm, const char *call, int code) {
    if (code == MPI_SUCCESS) return SAF_OK;
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int len = 0;
    if (MPI_Error_string(code, text, &len) != MPI_SUCCESS) len = 0;
    text[len] = 0;
    return saf__comm_fail(comm, SAF_COMM, "%s: %s", call, len > 0 ? text : "unknown MPI error");
}

/* Turns a started request, or the failure to start it, into an operation. */
static saf_status started(const saf_comm *comm, const char *call, int code, MPI_Request request,
                          bool receive, saf__op *out) {
    *out = (saf__op){0};
    if (code != MPI_SUCCESS) return saf__mpi_check(comm, call, code);
    out->pending = request != MPI_REQUEST_NULL;
    out->receive = receive;
    request_bits bits = {.handle = 0};
    bits.request = request;
    out->handle = bits.handle;
    return SAF_OK;
}

static MPI_Request request_of(const saf__op *op) {
    return (request_bits){.handle = op->handle}.request;
}

static saf_status mpi_isend(saf_comm *comm, int dest, int tag, const void *bytes, size_t len,
                            saf__op *out) {
    MPI_Request request = MPI_REQUEST_NULL;
    int code = MPI_Isend(bytes, (int)len, MPI_BYTE, dest, tag, saf__mpi_comm(comm), &request);
    return started(comm, "MPI_Isend", code, request, false, out);
}

static saf_status mpi_irecv(saf_comm *comm, int source, int tag, void *bytes, size_t len,
                            saf__op *out) {
    MPI_Request request = MPI_REQUEST_NULL;
    int code = MPI_Irecv(bytes, (int)len, MPI_BYTE, source, tag, saf__mpi_comm(comm), &request);
    return started(comm, "MPI_Irecv", code, request, true, out);
}

static saf_status count_of(const saf_comm *comm, const MPI_Status *status, size_t *got) {
    int count = 0;
    saf_status st = saf__mpi_check(comm, "MPI_Get_count", MPI_Get_count(status, MPI_BYTE, &count));
    *got = (size_t)count;
    return st;
}

static saf_status mpi_test(saf_comm *comm, saf__op *op, bool *done, size_t *got) {
    *got = SAF__GOT_NONE;
    *done = true;
    if (!op->pending) return SAF_OK;
    MPI_Request request = request_of(op);
    MPI_Status status;
    int flag = 0;
    int code = MPI_Test(&request, &flag, &status);
    if (code == MPI_SUCCESS && !flag) {
        *done = false;
        return SAF_OK;
    }
    bool receive = op->receive;
    *op = (saf__op){0};
    if (code != MPI_SUCCESS) return saf__mpi_check(comm, "MPI_Test", code);
    return receive ? count_of(comm, &status, got) : SAF_OK;
}

/* Any call that looks for messages moves all of MPI on. */
static void mpi_progress(void) {
    int there = 0;
    (void)MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
}

static bool mpi_cancel(saf_comm *comm, saf__op *op, size_t *got) {
    *got = SAF__GOT_NONE;
    if (!op->pending) return false;
    MPI_Request request = request_of(op);
    bool receive = op->receive;
    *op = (saf__op){0};
    if (!receive) { /* only after a failure that leaves it without an end */
        (void)MPI_Request_free(&request);
        return true;
    }
    MPI_Status status;
    int cancelled = 0;
    if (MPI_Cancel(&request) != MPI_SUCCESS) return false;
    /* A cancelled receive completes at once; one that had been matched is about to. */
    if (MPI_Wait(&request, &status) != MPI_SUCCESS) return false;
    if (MPI_Test_cancelled(&status, &cancelled) == MPI_SUCCESS && cancelled) return true;
    (void)count_of(comm, &status, got);
    return false;
}

static saf_status mpi_ibcast(saf_comm *comm, int root, void *bytes, size_t len, saf__op *out) {
    MPI_Request request = MPI_REQUEST_NULL;
    int code = MPI_Ibcast(bytes, (int)len, MPI_BYTE, root, saf__mpi_comm(comm), &request);
    return started(comm, "MPI_Ibcast", code, request, false, out);
}

/* Where its ranks are in the world. */
static saf_status find_places(saf_comm *comm, MPI_Comm made) {
    saf_status st = SAF_OK;
    MPI_Group all = MPI_GROUP_NULL, some = MPI_GROUP_NULL;
    int *ranks = NULL;
    SAF_TRY(saf_alloc((size_t)comm->size, sizeof *ranks, &ranks));
    SAF_TRY(saf_alloc((size_t)comm->size, sizeof *comm->places, &comm->places));
    for (int r = 0; r < comm->size; r++) ranks[r] = r;
    SAF_TRY(saf__mpi_check(comm, "MPI_Comm_group", MPI_Comm_group(MPI_COMM_WORLD, &all)));
    SAF_TRY(saf__mpi_check(comm, "MPI_Comm_group", MPI_Comm_group(made, &some)));
    SAF_TRY(saf__mpi_check(comm, "MPI_Group_translate_ranks",
                           MPI_Group_translate_ranks(some, comm->size, ranks, all, comm->places)));
out:
    if (all != MPI_GROUP_NULL) (void)MPI_Group_free(&all);
    if (some != MPI_GROUP_NULL) (void)MPI_Group_free(&some);
    saf_free(&ranks);
    return st;
}

/* Takes over `made`, a fresh communicator. */
static saf_status adopt(saf_comm *out, MPI_Comm made, bool finalize) {
    saf_status st = SAF_OK;
    saf__mpi_state *state = NULL;
    SAF_TRY(saf__mpi_check(out, "MPI_Comm_set_errhandler",
                           MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN)));
    SAF_TRY(saf__mpi_check(out, "MPI_Comm_rank", MPI_Comm_rank(made, &out->rank)));
    SAF_TRY(saf__mpi_check(out, "MPI_Comm_size", MPI_Comm_size(made, &out->size)));
    SAF_TRY(find_places(out, made));
    SAF_TRY(saf_alloc(1, sizeof *state, &state));
    state->comm = made;
    state->finalize = finalize;
    out->state = state;
    made = MPI_COMM_NULL;
out:
    if (made != MPI_COMM_NULL) (void)MPI_Comm_free(&made);
    return st;
}

static saf_status mpi_split(saf_comm *comm, int color, int key, saf_comm *out, bool *member) {
    MPI_Comm made = MPI_COMM_NULL;
    int c = color < 0 ? MPI_UNDEFINED : color;
    saf_status st =
        saf__mpi_check(comm, "MPI_Comm_split", MPI_Comm_split(saf__mpi_comm(comm), c, key, &made));
    *member = made != MPI_COMM_NULL;
    return st != SAF_OK || !*member ? st : adopt(out, made, false);
}

static saf_status mpi_dup(saf_comm *comm, saf_comm *out) {
    MPI_Comm made = MPI_COMM_NULL;
    saf_status st = saf__mpi_check(comm, "MPI_Comm_dup", MPI_Comm_dup(saf__mpi_comm(comm), &made));
    return st != SAF_OK ? st : adopt(out, made, false);
}

static void mpi_free(saf_comm *comm) {
    saf__mpi_state *state = comm->state;
    if (state) (void)MPI_Comm_free(&state->comm);
    saf_free(&comm->state);
}

static void mpi_stop(saf_comm *world) {
    const saf__mpi_state *state = world->state;
    bool finalize = state && state->finalize;
    mpi_free(world);
    if (finalize) (void)MPI_Finalize();
}

static void mpi_abort(int exit_code) __attribute__((noreturn));
static void mpi_abort(int exit_code) {
    fflush(NULL);
    (void)MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
}

static const saf__transport mpi_transport = {
    .alone = false,
    .isend = mpi_isend,
    .irecv = mpi_irecv,
    .test = mpi_test,
    .progress = mpi_progress,
    .cancel = mpi_cancel,
    .ibcast = mpi_ibcast,
    .split = mpi_split,
    .dup = mpi_dup,
    .free = mpi_free,
    .find_host = saf__mpi_find_host,
    .share = saf__mpi_share,
    .unshare = saf__mpi_unshare,
    .stop = mpi_stop,
    .abort = mpi_abort,
};

/* Whether another rank of this host may run on this rank's cores. */
static saf_status find_crowded(saf_comm *world) {
    saf_status st = SAF_OK;
    MPI_Comm node = MPI_COMM_NULL;
    cpu_set_t mine, common, *all = NULL;
    int ranks = 0, me = 0;
    CPU_ZERO(&mine);
    /* A mask that does not fit stays empty: this rank then yields, which costs little. */
    bool known = sched_getaffinity(0, sizeof mine, &mine) == 0;
    SAF_TRY(saf__mpi_check(
        world, "MPI_Comm_split_type",
        MPI_Comm_split_type(saf__mpi_comm(world), MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node)));
    SAF_TRY(saf__mpi_check(world, "MPI_Comm_size", MPI_Comm_size(node, &ranks)));
    SAF_TRY(saf__mpi_check(world, "MPI_Comm_rank", MPI_Comm_rank(node, &me)));
    SAF_TRY(saf_alloc((size_t)ranks, sizeof *all, &all));
    SAF_TRY(saf__mpi_check(
        world, "MPI_Allgather",
        MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, all, (int)sizeof mine, MPI_BYTE, node)));
    world->crowded = !known && ranks > 1;
    for (int r = 0; r < ranks; r++) {
        CPU_AND(&common, &mine, &all[r]);
        if (r != me && CPU_COUNT(&common) > 0) world->crowded = true;
    }
out:
    if (node != MPI_COMM_NULL) (void)MPI_Comm_free(&node);
    saf_free(&all);
    return st;
}

/* Open MPI over TCP asks the receiver before it sends more than 64 KiB, and hears the answer only
 * in a call of MPI: a rank that computes after a send would keep the next one waiting until it is
 * done (30 ms instead of 0.2 in a measurement). Inside a host it asks from 4 KiB on, and 4 to 16
 * KiB take three times as long as without. A limit of the user's own stays. */
static void allow_eager_pieces(void) {
    char text[32];
    snprintf(text, sizeof text, "%zu", SAF__EAGER_BYTES + 4096);
    (void)setenv("OMPI_MCA_btl_tcp_eager_limit", text, 0);
    (void)setenv("OMPI_MCA_btl_vader_eager_limit", "16384", 0);
    (void)setenv("OMPI_MCA_btl_sm_eager_limit", "16384", 0); /* its name from Open MPI 5 on */
}

saf_status saf__mpi_start(int *argc, char ***argv, saf_comm *world) {
    saf_status st = SAF_OK;
    int running = 0, over = 0, level = 0;
    MPI_Comm made = MPI_COMM_NULL;
    world->transport = &mpi_transport;
    SAF_TRY(saf__mpi_check(world, "MPI_Finalized", MPI_Finalized(&over)));
    if (over) {
        st = saf__comm_fail(world, SAF_DEFECT, "MPI was ended before, it cannot start again");
        goto out;
    }
    /* A program that uses MPI itself may have begun; then it also ends. */
    SAF_TRY(saf__mpi_check(world, "MPI_Initialized", MPI_Initialized(&running)));
    if (!running) {
        allow_eager_pieces();
        SAF_TRY(saf__mpi_check(world, "MPI_Init_thread",
                               MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level)));
        SAF_TRY(saf__mpi_check(world, "MPI_Comm_set_errhandler",
                               MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN)));
    } else {
        SAF_TRY(saf__mpi_check(world, "MPI_Query_thread", MPI_Query_thread(&level)));
    }
    if (level < MPI_THREAD_FUNNELED) {
        st = saf__comm_fail(world, SAF_COMM, "this MPI library does not allow threads");
        goto out;
    }
    SAF_TRY(saf__mpi_check(world, "MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &made)));
    SAF_TRY(adopt(world, made, !running));
    SAF_TRY(find_crowded(world));
out:
    return st;
}
