/* saf/comm.h: ranks, and what they send each other. The only room that includes mpi.h.
 *
 * A process that was not started by a launcher (mpirun, srun) is one rank and never initialises
 * MPI: every call below then works on a serial twin.
 *
 * Errors. MPI errors are returned as SAF_COMM with MPI's own text. A call marked "collective" is
 * made by all ranks of the communicator in the same order; a local failure must never skip one:
 * use saf_comm_agree first. A wrong argument (SAF_DEFECT) is found before anything is sent, so the
 * other ranks may be left waiting: end such a run with saf_comm_abort.
 *
 * Threads. Only the thread that called saf_comm_start may call what is here.
 */
#ifndef SAF_COMM_H
#define SAF_COMM_H

#include "saf/core.h"

typedef struct saf_comm saf_comm;

/* The world. Initialises MPI (funneled) if this process was launched by one. Once per process.
 * Signal handlers that must survive are to be set before. Collective. */
saf_status saf_comm_start(int *argc, char ***argv, saf_comm **world);
/* Ends MPI. Takes the world; every other communicator must be freed before. Collective. */
void saf_comm_stop(saf_comm **world);
/* Ends all ranks at once with this exit code (1..109, or the watchdog's), for a failure that cannot
 * be agreed on. */
void saf_comm_abort(saf_comm *comm, int exit_code) __attribute__((noreturn));

/* Ranks with the same color, ordered by key, then by rank; with a color below 0 a rank takes no
 * part and *out is NULL. Collective. */
saf_status saf_comm_split(saf_comm *comm, int color, int key, saf_comm **out);
/* The number of each rank's host, out[P]: hosts are numbered by their first ranks, and ranks of one
 * number can share memory. Collective. */
saf_status saf_comm_hosts(saf_comm *comm, int32_t *out);
/* Another context over the same ranks: its messages never match comm's. Collective. */
saf_status saf_comm_dup(saf_comm *comm, saf_comm **out);
void saf_comm_free(saf_comm **comm); /* collective */

/* Local. */
int saf_comm_rank(const saf_comm *comm);
int saf_comm_size(const saf_comm *comm);
const char *saf_comm_host(const saf_comm *comm); /* name of this rank's host */

/* ---- tensors --------------------------------------------------------------------------------- */

enum { SAF_MAX_DIMS = 4 };

/* Dense, row-major. For quantised types shape[ndim - 1] counts elements, a multiple of the block.
 * ndim 0 is a scalar; a dimension of 0 makes the tensor empty (data may then be NULL). */
typedef struct {
    saf_dtype dtype;
    int ndim;
    int64_t shape[SAF_MAX_DIMS];
    void *data; /* borrowed */
} saf_tensor;

saf_tensor saf_tensor_1d(saf_dtype dtype, void *data, int64_t n);
saf_tensor saf_tensor_2d(saf_dtype dtype, void *data, int64_t rows, int64_t cols);
int64_t saf_tensor_elements(const saf_tensor *t); /* of one that saf_tensor_bytes accepts */
/* Errors: SAF_DEFECT (negative dimension, overflow, ragged block). */
saf_status saf_tensor_bytes(const saf_tensor *t, size_t *out);

/* All tags of saf, so that no two meanings share one. */
typedef enum {
    SAF_TAG_TEST = 1,
    SAF_TAG_FLIGHT,      /* description of a micro-batch */
    SAF_TAG_ACTIVATIONS, /* its rows */
    SAF_TAG_SAMPLED,     /* token ids back to the first stage */
    SAF_TAG_LOGITS,      /* logits back to the first stage */
    SAF_TAG_WEIGHTS,     /* a block of a slice */
    SAF_TAG_LOADED,      /* how much of a slice is there */
    SAF_TAG_QUEUE,       /* what the head of a replica says to the queue */
    SAF_TAG_GIVEN,       /* requests that it is given */
    SAF_TAG_REPORT,      /* what became of them */
    SAF_TAG_CLOCK,       /* what time it is */
    SAF_TAG_PANEL,       /* a tile of a factor of a matrix product */
    SAF_TAG_SUM,         /* what a rank's segments of a tile of a product add up to */
    SAF_TAG_BENCH,       /* messages that are only measured */
    SAF_TAG_REGION,      /* what a rank wants of a matrix that another one has the file of */
    SAF_TAG_VALUES,      /* its values */
    SAF_TAG_GRADIENT,    /* a rank's part of a sum of gradients */
    SAF_TAG_STATE,       /* a piece of a training's state */
    SAF_TAG_COUNT
} saf_tag;

/* Blocking, local. A receive is given a tensor whose dtype must match and whose `data` has room for
 * capacity_bytes; shape and ndim are set from what came. Every bit arrives, NaN included.
 * Byte counts beyond INT_MAX are chunked. A send to oneself needs a receive posted before.
 * Errors: SAF_COMM. A tensor of another dtype or too large is used up, so that the sender and the
 * next receive go on: the receiver's error says what was expected and what came, and `t` keeps its
 * shape. */
saf_status saf_comm_send(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t);
saf_status saf_comm_recv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                         saf_tensor *t);

/* Non-blocking, local. The tensor's data (and for a receive the saf_tensor itself) stay untouched
 * until the request completes; of a send the saf_tensor is read at once. Requests start as NULL.
 * Every wait, of a collective too, moves all requests of the process on. */
typedef struct saf_comm_request saf_comm_request;
saf_status saf_comm_isend(saf_comm *comm, int dest, saf_tag tag, const saf_tensor *t,
                          saf_comm_request **out);
saf_status saf_comm_irecv(saf_comm *comm, int source, saf_tag tag, size_t capacity_bytes,
                          saf_tensor *t, saf_comm_request **out);
/* Local. Frees and nulls the request when it completes, with an error too; a NULL request is
 * complete. Waiting polls for about a millisecond and then sleeps in small steps, a hundredth of
 * the time waited so far or what keeps it below a twentieth of a core; ranks of its host wake it.
 * The time is counted as waiting. */
saf_status saf_comm_test(saf_comm_request **request, bool *done);
saf_status saf_comm_wait(saf_comm_request **request);
/* Waits until one of n completes (NULL entries are skipped); *index is its place, or -1 when all
 * are NULL. */
saf_status saf_comm_wait_any(saf_comm_request **requests, int n, int *index);
/* The same, and comes back with -1 as well once `enough` says so. It is asked whenever the wait
 * looks for what comes, at first all the time and at least every few milliseconds, so it is quick;
 * it calls nothing of this room. */
saf_status saf_comm_wait_any_or(saf_comm_request **requests, int n, bool (*enough)(void *ctx),
                                void *ctx, int *index);
/* The same without waiting: -1 as well when none is complete yet. */
saf_status saf_comm_test_any(saf_comm_request **requests, int n, int *index);
/* Local. Moves the messages under way on without waiting; nothing to do costs nothing. Data beyond
 * a few MiB, and any data on some networks, only leaves inside such calls: a rank that computes for
 * long while it sends calls this now and then, between two layers say. It also tells the watchdog
 * that this rank gets on. */
void saf_comm_progress(void);
/* Local. From now on this rank calls `what` whenever it waits for others, at every look, and in
 * saf_comm_progress: so it can answer requests of ranks that it does not know to wait for. `what`
 * is quick or does somebody's work, sends and receives without blocking (saf_comm_isend, irecv,
 * test, test_any), and waits for nothing. NULL: nothing is called, as at first. */
void saf_comm_serve(void (*what)(void *ctx), void *ctx);
/* Local. Gives up a receive that will never be matched; one that has been is used up. A send is
 * waited for. */
void saf_comm_cancel(saf_comm_request **request);

/* ---- collectives ----------------------------------------------------------------------------- */

/* All of these are collective. */
saf_status saf_comm_barrier(saf_comm *comm);
/* Shape and dtype are the same on every rank. */
saf_status saf_comm_bcast(saf_comm *comm, int root, const saf_tensor *t);
/* Bytes of any length from root; elsewhere *buf is replaced. A rank without memory for them is
 * everybody's failure. */
saf_status saf_comm_bcast_buf(saf_comm *comm, int root, saf_buf *buf);

typedef enum { SAF_OP_SUM, SAF_OP_MIN, SAF_OP_MAX } saf_op;
/* In place, element by element. dtypes F32, F64, I32, I64, U8. The order of a float sum depends
 * on how many ranks there are, and all have the same bits: use it for metrics, not for values that
 * must be the same on any layout. */
saf_status saf_comm_allreduce(saf_comm *comm, saf_op op, const saf_tensor *t);
/* The same element by element of all[P n] of every rank, of which rank r gets elements [r n, r n +
 * n) in mine[n]: n and dtype are the same on every rank. Errors: DEFECT (another dtype, lengths
 * that do not fit), NO_MEMORY: everybody's. */
saf_status saf_comm_reduce_scatter(saf_comm *comm, saf_op op, const saf_tensor *all,
                                   const saf_tensor *mine);
/* Rank r contributes `mine`; all[r] must have dtype, shape (lengths may differ from rank to rank)
 * and room, known to everyone beforehand. */
saf_status saf_comm_allgather(saf_comm *comm, const saf_tensor *mine, const saf_tensor *all);
/* Byte strings of any length to root: out[P], only touched there. No memory at the root is
 * everybody's failure. */
saf_status saf_comm_gather_buf(saf_comm *comm, int root, const saf_buf *mine, saf_buf *out);

/* Everybody's failure: all ranks return the status of the lowest rank that failed, and take over
 * its error text (prefixed with rank and host where there is more than one rank). SAF_OK when
 * nobody failed, at the cost of one small all-reduce. Collective. */
saf_status saf_comm_agree(saf_comm *comm, saf_status mine);

/* ---- shared memory -----------------------------------------------------------------------------
 * A block of bytes that all ranks of a communicator see: those of one host the very same memory (an
 * MPI-3 shared window), each host a copy of its own, brought up to date when the ranks meet. */
typedef struct saf_shared saf_shared;
/* Zeroed, 64-byte aligned. `bytes` is the same on all ranks. The communicator stays the caller's
 * and outlives the block. Collective; no memory is everybody's failure (a file system of shared
 * memory that is too small included: /dev/shm in most cases). */
saf_status saf_shared_new(saf_comm *comm, size_t bytes, saf_shared **out);
void saf_shared_free(saf_shared **shared); /* collective */
/* Local. */
void *saf_shared_data(const saf_shared *shared);
bool saf_shared_one_host(const saf_shared *shared); /* then parts are not looked at */
/* The ranks meet: what each has written before, all others read afterwards, and nobody leaves
 * before the last has come. parts[n]: what was written since they last met, and by whom, the same
 * on every rank; rows of a part do not overlap, nor parts of two owners. What is written and in no
 * part, the ranks of other hosts never see. Ranks of a host meet in a fraction of a microsecond and
 * copy nothing; between hosts, one rank of each sends what its host wrote to one of each other.
 * Waits as saf_comm_wait does. Collective. Errors: COMM, NO_MEMORY (of a rank that sends to other
 * hosts; then others may be left waiting, and the block can only be freed), DEFECT (a part beyond
 * the block or with rows that overlap: on every rank, before anything is sent, and the block stays
 * good). */
saf_status saf_shared_meet(saf_shared *shared, const saf_part *parts, int64_t n);

/* ---- watchdog ---------------------------------------------------------------------------------
 * MPI never notices a rank that is stopped or hangs: the others wait for ever. From saf_comm_watch
 * on, the job ends with exit code 124 and one message that names rank, host and phase when a rank
 *   - is stopped or cannot be reached: it has not answered the rank before it for a quarter more
 * than `seconds`. A rank answers whenever it waits, tests a message or calls saf_comm_progress;
 *   - hangs: it has waited for nobody and called none of these for `seconds`. So a rank that
 *     computes, reads or writes for long calls saf_comm_progress now and then;
 *   - or when all wait for each other, for some twice that time.
 * The time during which the whole job is suspended does not count. */

/* Before saf_comm_start, which it watches (for 20 seconds at least), and what comes before
 * saf_comm_watch; <= 0: nothing does. Inside MPI_Init ranks do not hear of each other: the message
 * names one that waits. Local. */
void saf_comm_watch_start(double seconds);
/* Takes the place of what held before; seconds <= 0: no watchdog, nor with one rank. It ends with
 * saf_comm_stop. Collective; same value everywhere. Errors: NO_MEMORY (no thread), COMM. */
saf_status saf_comm_watch(saf_comm *world, double seconds);
/* Local. What the ranks are doing now ("loading"), for messages; the text stays where it is. */
void saf_comm_watch_phase(const char *name);

/* ---- counters -------------------------------------------------------------------------------- */

typedef enum {
    SAF_COUNT_SEND,
    SAF_COUNT_RECV,
    SAF_COUNT_BCAST,
    SAF_COUNT_ALLREDUCE, /* and reduce-scatter */
    SAF_COUNT_ALLGATHER,
    SAF_COUNT_GATHER,
    SAF_COUNT_BARRIER,
    SAF_COUNT_MEET, /* its bytes between hosts are in send and recv */
    SAF_COUNT_KINDS
} saf_count_kind;

typedef struct {
    int64_t calls;
    int64_t
        bytes;     /* payload that left (send, gather: this rank's; bcast: at the root) or came in
                      (recv; bcast elsewhere); all-reduce and all-gather: this rank's contribution */
    double wait_s; /* spent inside the call or its wait; of short ones (32 KiB) only in the wait */
} saf_comm_counter;

const char *saf_count_kind_name(saf_count_kind kind);
/* Of this process, over all communicators, since the start or the last reset. */
void saf_comm_counters(saf_comm_counter out[SAF_COUNT_KINDS]);
void saf_comm_counters_reset(void);

#endif
