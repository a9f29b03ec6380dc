/* A block of memory that the ranks of a host share, and their meetings.
 *
 *   window of a host   | line of rank 0 | line of rank 1 | ... | line of leave | block ...
 *
 * Each rank counts its meetings in a line of its own; it has met the others when all lines have
 * come as far. That is all where there is one host. Where there are several, the first rank of a
 * host waits for the others, exchanges with the first ranks of the other hosts, and then gives
 * leave by the last line, for which the others wait in place of one another's. */
#include <assert.h>
#include <stdatomic.h>

#include "comm/shared.h"

typedef struct {
    _Atomic uint64_t meetings;
    _Atomic int32_t failed; /* line of leave: what the exchange came to */
    char pad[SAF__WINDOW_ALIGN - sizeof(uint64_t) - sizeof(int32_t)];
} line;

_Static_assert(sizeof(line) == SAF__WINDOW_ALIGN, "a line is a unit of the caches");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "locks are of one process, lines of several");

enum { LOOKS = 64 }; /* some microseconds */

struct saf_shared {
    saf_comm *comm;           /* borrowed */
    saf_comm *host, *leaders; /* leaders: of several hosts, and only on the first ranks of each */
    int32_t *host_of;         /* [ranks] */
    int hosts;
    size_t bytes;
    saf__window window;
    line *alone; /* in place of a window where a rank is alone on its host */
    line *lines; /* [host->size + 1] */
    char *block;
    saf__exchange *exchange; /* leaders */
    uint64_t meetings;
    saf_status failed; /* how an exchange ended that left others waiting */
    int next, end;     /* lines that a wait still has to look at */
};

static int host_ranks;

void saf__comm_set_host_ranks(int ranks) {
    host_ranks = ranks;
}

/* ---- setting up ------------------------------------------------------------------------------ */

/* Whether all ask for as many bytes. */
static saf_status check_bytes(saf_shared *s) {
    saf_status st = SAF_OK;
    int64_t all[2] = {(int64_t)s->bytes, -(int64_t)s->bytes};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, all, 2);
    SAF_TRY(saf_comm_allreduce(s->comm, SAF_OP_MAX, &t));
    if (all[0] != -all[1])
        st = saf__comm_fail(s->comm, SAF_DEFECT, "shares %zu bytes, and others from %lld to %lld",
                            s->bytes, (long long)-all[1], (long long)all[0]);
out:
    return st;
}

/* Numbers the hosts by their first ranks. lowest[r] is the lowest rank beside rank r. */
static void number_hosts(int size, const int64_t *lowest, int32_t *host_of) {
    int32_t hosts = 0;
    for (int r = 0; r < size; r++) {
        int before = 0, last = 0;
        for (int q = 0; q < r; q++) {
            if (lowest[q] != lowest[r]) continue;
            before++;
            last = q;
        }
        bool fresh = before == 0 || (host_ranks > 0 && before % host_ranks == 0);
        host_of[r] = fresh ? hosts++ : host_of[last];
    }
}

saf_status saf_comm_hosts(saf_comm *comm, int32_t *out) {
    saf_status st = SAF_OK;
    int64_t *all = NULL;
    int lowest = comm->rank;
    SAF_TRY(saf__agree(comm, saf_alloc((size_t)comm->size, sizeof *all, &all)));
    if (comm->size > 1) {
        saf__watch_inside("MPI_Comm_split_type");
        st = comm->transport->find_host(comm, &lowest);
        saf__watch_inside(NULL);
        SAF_TRY(saf__agree(comm, st));
    }
    all[comm->rank] = lowest; /* the others' are 0 */
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, all, comm->size);
    SAF_TRY(saf_comm_allreduce(comm, SAF_OP_MAX, &t));
    number_hosts(comm->size, all, out);
out:
    saf_free(&all);
    return st;
}

static saf_status find_hosts(saf_shared *s) {
    saf_status st = SAF_OK;
    saf_comm *c = s->comm;
    SAF_TRY(saf__agree(c, saf_alloc((size_t)c->size, sizeof *s->host_of, &s->host_of)));
    SAF_TRY(check_bytes(s));
    SAF_TRY(saf_comm_hosts(c, s->host_of));
    for (int r = 0; r < c->size; r++)
        if (s->host_of[r] >= s->hosts) s->hosts = s->host_of[r] + 1;
    SAF_TRY(saf__agree(c, saf_comm_split(c, s->host_of[c->rank], c->rank, &s->host)));
    if (s->hosts == 1) goto out;
    int color = s->host->rank == 0 ? 0 : -1;
    SAF_TRY(saf__agree(c, saf_comm_split(c, color, c->rank, &s->leaders)));
out:
    return st;
}

static saf_status take_memory(saf_shared *s) {
    saf_status st = SAF_OK;
    saf_comm *host = s->host;
    size_t lines = ((size_t)host->size + 1) * sizeof(line), bytes = lines + s->bytes;
    if (host->size == 1) {
        SAF_TRY(saf_alloc_large(bytes, 1, &s->alone));
    } else {
        saf__watch_inside("MPI_Win_allocate_shared");
        st = host->transport->share(host, bytes, &s->window);
        saf__watch_inside(NULL);
        if (st != SAF_OK) goto out;
    }
    char *base = s->alone ? (char *)s->alone : s->window.base;
    s->lines = (line *)(void *)base;
    s->block = base + lines;
    if (!s->leaders) goto out;
    saf__exchange_of of = {.leaders = s->leaders, .host_of = s->host_of, .block = s->block};
    SAF_TRY(saf__exchange_new(&of, &s->exchange));
out:
    return st;
}

saf_status saf_shared_new(saf_comm *comm, size_t bytes, saf_shared **out) {
    saf_status st = SAF_OK;
    saf_shared *s = NULL;
    if (bytes > PTRDIFF_MAX / 2)
        st = saf__comm_fail(comm, SAF_NO_MEMORY, "no %zu bytes of shared memory", bytes);
    if (st == SAF_OK) st = saf_alloc(1, sizeof *s, &s);
    SAF_TRY(saf__agree(comm, st));
    assert(s); /* or all would have failed */
    s->comm = comm;
    s->bytes = bytes;
    SAF_TRY(find_hosts(s));
    SAF_TRY(saf__agree(comm, take_memory(s)));
    *out = s;
    s = NULL;
out:
    saf_shared_free(&s);
    return st;
}

void saf_shared_free(saf_shared **shared) {
    saf_shared *s = *shared;
    if (s) {
        saf__exchange_free(&s->exchange);
        if (s->window.base) {
            /* The end of a window waits for all ranks and spins: meet them politely first. */
            (void)saf__barrier(s->host);
            saf__watch_inside("MPI_Win_free");
            s->host->transport->unshare(&s->window);
            saf__watch_inside(NULL);
        }
        saf_free(&s->alone);
        saf_comm_free(&s->leaders);
        saf_comm_free(&s->host);
        saf_free(&s->host_of);
    }
    saf_free(shared);
}

void *saf_shared_data(const saf_shared *shared) {
    return shared->block;
}

bool saf_shared_one_host(const saf_shared *shared) {
    return shared->hosts == 1;
}

/* ---- meeting inside a host ------------------------------------------------------------------- */

/* Whether all lines from `next` to `end` have come as far as this rank. */
static bool look(saf_shared *s) {
    for (; s->next < s->end; s->next++)
        if (atomic_load_explicit(&s->lines[s->next].meetings, memory_order_acquire) < s->meetings)
            return false;
    return true;
}

/* Tells the processor that this is a loop that waits. */
static inline void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* Looks for some microseconds, unless another rank needs the core to come here at all. */
static saf_status poll_lines(void *what, bool *done) {
    saf_shared *s = what;
    int looks = s->host->crowded ? 1 : LOOKS;
    *done = look(s);
    for (int i = 1; i < looks && !*done; i++) {
        rest();
        *done = look(s);
    }
    return SAF_OK;
}

/* No call of MPI where the others come within microseconds. */
static saf_status wait_lines(saf_shared *s, int begin, int end) {
    bool done = false;
    s->next = begin;
    s->end = end;
    saf_status st = poll_lines(s, &done);
    return st != SAF_OK || done ? st : saf__wait_until(s->host, poll_lines, s);
}

static void arrive(line *l, uint64_t meetings) {
    atomic_store_explicit(&l->meetings, meetings, memory_order_release);
}

static saf_status meet_on_host(saf_shared *s) {
    s->meetings++;
    arrive(&s->lines[s->host->rank], s->meetings);
    saf__bell_ring_all(s->host);
    s->next = 0;
    s->end = s->host->size;
    if (look(s)) return SAF_OK; /* and no clock is read */
    double t0 = saf_clock_s();
    saf_status st = wait_lines(s, s->next, s->end);
    saf__count(SAF_COUNT_MEET, 0, 0, saf_clock_s() - t0);
    return st;
}

/* ---- meeting of several hosts ---------------------------------------------------------------- */

static bool part_is_right(const saf_shared *s, const saf_part *p) {
    size_t reach;
    if (p->owner < 0 || p->owner >= s->comm->size || p->rows < 0) return false;
    if (p->rows == 0 || p->bytes == 0) return true;
    if (p->rows > 1 && p->stride < p->bytes) return false;
    return saf_size_mul((size_t)p->rows - 1, p->stride, &reach) &&
           saf_size_add(reach, p->bytes, &reach) && saf_size_add(reach, p->offset, &reach) &&
           reach <= s->bytes;
}

static saf_status check_parts(const saf_shared *s, const saf_part *parts, int64_t n) {
    size_t sum = 0;
    if (n < 0 || (n > 0 && !parts))
        return saf__comm_fail(s->comm, SAF_DEFECT, "meets with %lld parts", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const saf_part *p = &parts[i];
        bool right = part_is_right(s, p);
        if (right) right = saf_size_add(sum, (size_t)p->rows * p->bytes, &sum) && sum < INT64_MAX;
        if (!right)
            return saf__comm_fail(s->comm, SAF_DEFECT,
                                  "part %lld of rank %d: %lld rows of %zu bytes, %zu apart, at %zu "
                                  "of a block of %zu that %d ranks share",
                                  (long long)i, (int)p->owner, (long long)p->rows, p->bytes,
                                  p->stride, p->offset, s->bytes, s->comm->size);
    }
    return SAF_OK;
}

static saf_status lead(saf_shared *s, const saf_part *parts, int64_t n) {
    saf_status st = SAF_OK;
    line *leave = &s->lines[s->host->size];
    SAF_TRY(saf__exchange_start(s->exchange, parts, n));
    SAF_TRY(wait_lines(s, 0, s->host->size));
    SAF_TRY(saf__exchange_finish(s->exchange));
out:
    atomic_store_explicit(&leave->failed, (int32_t)st, memory_order_relaxed);
    arrive(leave, s->meetings);
    saf__bell_ring_all(s->host);
    return st;
}

static saf_status follow(saf_shared *s) {
    int leave = s->host->size;
    saf_status st = wait_lines(s, leave, leave + 1);
    if (st != SAF_OK) return st;
    st = (saf_status)atomic_load_explicit(&s->lines[leave].failed, memory_order_relaxed);
    return st == SAF_OK ? st
                        : saf__comm_fail(s->comm, st,
                                         "the first rank of this host did not get its parts to the "
                                         "other hosts, or theirs");
}

static saf_status meet_hosts(saf_shared *s, const saf_part *parts, int64_t n) {
    saf_status st = SAF_OK;
    double t0 = saf_clock_s();
    if (s->failed != SAF_OK)
        return saf__comm_fail(s->comm, s->failed, "meets again after a meeting that failed");
    SAF_TRY(check_parts(s, parts, n));
    s->meetings++;
    arrive(&s->lines[s->host->rank], s->meetings);
    saf__bell_ring_all(s->host);
    st = s->failed = s->exchange ? lead(s, parts, n) : follow(s);
out:
    saf__count(SAF_COUNT_MEET, 0, 0, saf_clock_s() - t0);
    return st;
}

saf_status saf_shared_meet(saf_shared *shared, const saf_part *parts, int64_t n) {
    saf__count(SAF_COUNT_MEET, 1, 0, 0);
    saf__watch_moved();
    saf__watch_answer();
    return shared->hosts == 1 ? meet_on_host(shared) : meet_hosts(shared, parts, n);
}
