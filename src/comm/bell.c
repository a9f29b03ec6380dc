/* Waking ranks that sleep. A rank that has waited for long sleeps between two looks at what it
 * waits for (wait.c), and would find out late. So every rank has a bell in memory that the ranks of
 * a host share: one that has something for a rank of its host looks whether it sleeps, and then
 * rings. MPI knows nothing of this. It only shortens sleeps, which end by themselves too: nobody
 * depends on being rung for, and ranks of other hosts are not.
 *
 *   the one that sleeps            the one that has something
 *   says that it listens           sends, or counts up what is waited for
 *   (fence)                        (fence)
 *   looks for what it waits for    looks whether anybody listens, and rings
 *   sleeps until rung
 *
 * Whichever fence comes first, either the look finds it or the bell rings. */
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "comm/transport.h"

typedef struct {
    _Atomic uint32_t rings;
    _Atomic uint32_t listens;
    char pad[SAF__WINDOW_ALIGN - 2 * sizeof(uint32_t)];
} bell;

_Static_assert(sizeof(bell) == SAF__WINDOW_ALIGN, "a bell is a unit of the caches");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "locks are of one process, bells of several");

/* By rank of the world. Those of other hosts lie still: each host has bells of its own. */
static saf_shared *shared;
static bell *bells, *mine;

saf_status saf__bells_hang(saf_comm *world) {
    saf_status st = SAF_OK;
    if (world->size == 1) return SAF_OK;
    st = saf_shared_new(world, (size_t)world->size * sizeof(bell), &shared);
    if (st == SAF_NO_MEMORY) return SAF_OK; /* on all ranks alike; sleeps end by themselves */
    if (st != SAF_OK) return st;
    bells = saf_shared_data(shared);
    mine = &bells[world->rank];
    return SAF_OK;
}

void saf__bells_take_down(void) {
    bells = mine = NULL;
    saf_shared_free(&shared);
}

static void ring(bell *b) {
    if (atomic_load_explicit(&b->listens, memory_order_relaxed) == 0) return;
    if (atomic_exchange(&b->listens, 0) == 0) return; /* somebody else does */
    atomic_fetch_add(&b->rings, 1);
    (void)syscall(SYS_futex, &b->rings, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static bell *bell_of(const saf_comm *comm, int rank) {
    return &bells[comm->places ? comm->places[rank] : rank];
}

void saf__bell_ring(const saf_comm *comm, int rank) {
    if (!bells) return;
    atomic_thread_fence(memory_order_seq_cst);
    ring(bell_of(comm, rank));
}

void saf__bell_ring_all(const saf_comm *comm) {
    if (!bells) return;
    atomic_thread_fence(memory_order_seq_cst);
    saf__bell_nudge_all(comm);
}

void saf__bell_nudge_all(const saf_comm *comm) {
    if (!bells) return;
    for (int r = 0; r < comm->size; r++)
        if (r != comm->rank) ring(bell_of(comm, r));
}

uint32_t saf__bell_listen(void) {
    if (!bells) return 0;
    uint32_t heard = atomic_load(&mine->rings);
    atomic_store(&mine->listens, 1);
    atomic_thread_fence(memory_order_seq_cst);
    return heard;
}

bool saf__bell_sleep(uint32_t heard, double seconds) {
    struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    if (!bells) {
        nanosleep(&t, NULL); /* a signal may cut it short */
        return false;
    }
    (void)syscall(SYS_futex, &mine->rings, FUTEX_WAIT, heard, &t, NULL, 0);
    return atomic_load(&mine->rings) != heard;
}

void saf__bell_ignore(void) {
    if (bells) atomic_store_explicit(&mine->listens, 0, memory_order_relaxed);
}
