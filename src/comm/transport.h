/* comm/transport.h: what a way of moving bytes between ranks has to offer. Three exist: MPI (mpi.c,
 * mpi_window.c: the only files that see mpi.h), near.c on top of it for short messages inside a
 * host, and serial.c for a process that no launcher started. Everything above (wire format,
 * waiting, collectives built from messages, meetings in shared memory, counters) is written once,
 * on this table. */
#ifndef SAF_COMM_TRANSPORT_H
#define SAF_COMM_TRANSPORT_H

#include "saf/comm.h"

/* One operation under way. Starts as {0}; complete when `pending` is false. */
typedef struct {
    bool pending, receive;
    bool near;        /* through memory of this host (near.c) */
    uintptr_t handle; /* the transport's own */
} saf__op;

/* `got` of an operation that is no receive. */
#define SAF__GOT_NONE SIZE_MAX

/* Tags that no caller uses: above them come the tags of the pieces of large tensors. */
enum {
    SAF__TAG_ALLGATHER = 101,
    SAF__TAG_GATHER,
    SAF__TAG_MEET,
    SAF__TAG_REDUCE,
    SAF__TAG_BARRIER,
    SAF__TAG_BCAST,
    SAF__TAG_WATCH,
    SAF__TAG_PIECES = 1024,
    SAF__TAG_PIECES_END = 16384
};

/* A transport sends up to this many bytes without waiting for the receiver, where it can. */
#define SAF__EAGER_BYTES ((size_t)1 << 20)

/* Memory that the ranks of a host share, aligned to SAF__WINDOW_ALIGN. */
enum { SAF__WINDOW_ALIGN = 128 };
typedef struct {
    char *base;       /* as this rank sees it */
    uintptr_t handle; /* the transport's own */
} saf__window;

/* Lengths are at most saf__piece_bytes(). A message has the length of its receive, or both have at
 * most 2048 bytes: by that both sides know its way. No call waits, except where it says so. A
 * completed operation is released by `test`. Errors: SAF_COMM. */
typedef struct {
    /* true: only this process exists, so what is not done at once will never be. */
    bool alone;
    saf_status (*isend)(saf_comm *comm, int dest, int tag, const void *bytes, size_t len,
                        saf__op *out);
    saf_status (*irecv)(saf_comm *comm, int source, int tag, void *bytes, size_t len, saf__op *out);
    /* `got`: bytes that a receive brought. A message longer than its receive is an error, and
     * callers see to it that there is none. */
    saf_status (*test)(saf_comm *comm, saf__op *op, bool *done, size_t *got);
    /* Gives up an operation; false when a receive had been matched (and is complete now). */
    bool (*cancel)(saf_comm *comm, saf__op *op, size_t *got);

    /* Collective on comm. */
    saf_status (*ibcast)(saf_comm *comm, int root, void *bytes, size_t len, saf__op *out);
    /* These may wait. `out` has its transport and host already; state, rank and size are set. */
    saf_status (*split)(saf_comm *comm, int color, int key, saf_comm *out, bool *member);
    saf_status (*dup)(saf_comm *comm, saf_comm *out);
    void (*free)(saf_comm *comm);

    /* NULL where no communicator has two ranks. Moves on what no operation of this rank waits for,
     * and others may: for whoever waits or polls without calling `test`, which does so too. */
    void (*progress)(void);

    /* Collective on comm, and may wait; NULL where no communicator has two ranks.
     * The lowest of the ranks that can share memory with this one, itself included. */
    saf_status (*find_host)(saf_comm *comm, int *lowest);
    /* Zeroed memory of all ranks of comm, which can share it; a failure is everybody's. */
    saf_status (*share)(saf_comm *comm, size_t bytes, saf__window *out);
    void (*unshare)(saf__window *window);

    void (*stop)(saf_comm *world);
    void (*abort)(int exit_code) __attribute__((noreturn));
} saf__transport;

struct saf_comm {
    const saf__transport *transport;
    void *state; /* the transport's own */
    int rank, size;
    bool world;
    bool crowded;  /* other ranks run on this rank's cores */
    uint32_t name; /* the same on all of its ranks, if short messages go past MPI (near.c) */
    unsigned sequence;
    int *places; /* [size] ranks of the world; NULL: the same */
    char *room;  /* [room_bytes] of long reductions (reduce.c) */
    size_t room_bytes;
    char host[256];
};

saf_status saf__mpi_start(int *argc, char ***argv, saf_comm *world);
saf_status saf__serial_start(saf_comm *world);

/* Short messages inside a host go through shared memory, from here on (near.c). Collective on the
 * world, its end as well. */
saf_status saf__near_start(saf_comm *world);
void saf__near_stop(saf_comm *world);
/* `progress` of all of the ways together. */
void saf__near_progress(void);

/* The longest single transfer. Lower in tests only, and then the same on all ranks. */
size_t saf__piece_bytes(void);
void saf__comm_set_piece_bytes(size_t bytes);
/* That, or less: short enough to be sent whether or not the receiver is ready (see saf__mpi_start).
 */
size_t saf__eager_piece_bytes(void);

/* At most so many ranks of a host share memory, from the next saf_shared_new on; 0: all. In tests
 * only, which so have several hosts, and then the same on all ranks. */
void saf__comm_set_host_ranks(int ranks);

/* The one place where a rank waits. `poll` says whether `what` is done; an error ends the wait. */
typedef saf_status (*saf__poll)(void *what, bool *done);
saf_status saf__wait_until(const saf_comm *comm, saf__poll poll, void *what);
/* Moves every message under way on, as far as it goes without waiting. The value changes when
 * something has moved. */
uint64_t saf__progress(void);
/* Calls what saf_comm_serve set, unless it is that which calls. */
void saf__serve(void);
/* The requests of a communicator that ends: they fail instead of being waited for. */
void saf__drop_requests(const saf_comm *comm);
/* Waits for all of n operations; the first error is returned when none is left pending. */
saf_status saf__wait_ops(saf_comm *comm, saf__op *ops, int64_t n);

/* Sleeping and being woken (bell.c). Hanging up the bells is collective on the world, and so is
 * taking them down. Ring after sending or counting up. Who sleeps listens, looks once more, and
 * then sleeps: true when it was rung for. */
saf_status saf__bells_hang(saf_comm *world);
void saf__bells_take_down(void);
void saf__bell_ring(const saf_comm *comm, int rank);
void saf__bell_ring_all(const saf_comm *comm);
/* Without a fence, which waits for all stores to arrive: one who goes to sleep in that moment is
 * missed. For what somebody may wait for, but hardly does. */
void saf__bell_nudge_all(const saf_comm *comm);
uint32_t saf__bell_listen(void);
bool saf__bell_sleep(uint32_t heard, double seconds); /* less than a second */
void saf__bell_ignore(void);

/* The watchdog (watch.c), costs next to nothing where there is none. It is told that this rank gets
 * on, that it waits for others in a way that lets it answer, and that it is inside a call that does
 * not (NULL: no more); and asked to answer for this rank, now and then. */
void saf__watch_moved(void);
void saf__watch_waiting(bool is);
void saf__watch_inside(const char *call);
void saf__watch_answer(void);
/* The start, where saf_comm_watch_start has been called: from before MPI begins to the first beats,
 * which is collective on the world. */
saf_status saf__watch_launch(const char *host);
saf_status saf__watch_launched(saf_comm *world);
/* Beats end, which is collective on the world; the thread ends. */
void saf__watch_leave(void);
void saf__watch_stop(void);

void saf__count(saf_count_kind kind, int64_t calls, size_t bytes, double wait_s);
/* What a call takes that moves so many bytes: by the clock, or of one up to 32 KiB what it waits,
 * because looking at the clock on both sides takes up to a third as long as the message. */
typedef struct {
    bool by_clock;
    double start;
} saf__stopwatch;
saf__stopwatch saf__stopwatch_start(size_t bytes);
double saf__stopwatch_s(const saf__stopwatch *watch);
/* Seconds in saf__wait_until so far, after the first look that found nothing. */
double saf__waited_s(void);

/* An error of this rank: the text is prefixed with rank and host. */
saf_status saf__comm_fail(const saf_comm *comm, saf_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Without counting, what saf_comm_agree, _barrier, _allreduce, _reduce_scatter and _allgather do;
 * `bytes` are of whole elements: all of them, and one rank's part. */
saf_status saf__agree(saf_comm *comm, saf_status mine);
saf_status saf__barrier(saf_comm *comm);
saf_status saf__allreduce(saf_comm *comm, saf_op op, saf_dtype dtype, void *data, size_t bytes);
saf_status saf__reduce_scatter(saf_comm *comm, saf_op op, saf_dtype dtype, const void *all,
                               void *mine, size_t bytes);
saf_status saf__allgather(saf_comm *comm, const saf_tensor *mine, const saf_tensor *all,
                          size_t bytes);

#endif
