/* saf_shared over SMPI, as src/comm/shared.c and exchange.c do it: the ranks of a host meet, the
 * first of each host sends what its host wrote to those of all others, and gives leave. There is
 * one block for all, for they are one process; in a host a meeting takes what the plan has for it.
 */
#include <assert.h>
#include <simgrid/barrier.h>
#include <stdlib.h>

#include "sim.h"

typedef struct {
    char *block;
    int hosts;
    int32_t *host_of;       /* [ranks of the communicator] */
    int *here;              /* [hosts] ranks */
    sg_bar_t *come, *leave; /* [hosts] */
} common;

struct saf_shared {
    saf_comm *comm, *leaders;
    common *all;
    int host;
    size_t *bytes; /* [hosts] */
};

static common *make_common(const saf_comm *comm, size_t bytes) {
    int size = saf_comm_size(comm);
    common *a = calloc(1, sizeof *a);
    assert(a);
    a->block = aligned_alloc(4096, (bytes + 8191) / 4096 * 4096);
    a->host_of = calloc((size_t)size, sizeof *a->host_of);
    a->here = calloc((size_t)size, sizeof *a->here);
    a->come = calloc((size_t)size, sizeof(sg_bar_t));
    a->leave = calloc((size_t)size, sizeof(sg_bar_t));
    assert(a->block && a->host_of && a->here && a->come && a->leave);
    for (int r = 0; r < size; r++) {
        int32_t host = sim_host_of(sim_world_rank(comm, r));
        int q = 0;
        while (q < r && sim_host_of(sim_world_rank(comm, q)) != host) q++;
        a->host_of[r] = q < r ? a->host_of[q] : a->hosts++;
        a->here[a->host_of[r]]++;
    }
    for (int h = 0; h < a->hosts; h++) {
        a->come[h] = sg_barrier_init((unsigned)a->here[h]);
        a->leave[h] = sg_barrier_init((unsigned)a->here[h]);
    }
    return a;
}

saf_status saf_shared_new(saf_comm *comm, size_t bytes, saf_shared **out) {
    saf_status st = SAF_OK;
    saf_shared *s = calloc(1, sizeof *s);
    int rank = saf_comm_rank(comm), first = 0;
    assert(s);
    s->comm = comm;
    s->all = sim_share_pointer(comm, rank == 0 ? make_common(comm, bytes) : NULL);
    s->host = s->all->host_of[rank];
    s->bytes = calloc((size_t)s->all->hosts, sizeof *s->bytes);
    assert(s->bytes);
    while (s->all->host_of[first] != s->host) first++;
    st = saf_comm_split(comm, first == rank ? 0 : -1, rank, &s->leaders);
    *out = s;
    return st;
}

void saf_shared_free(saf_shared **shared) {
    saf_shared *s = *shared;
    if (!s) return;
    saf_comm_free(&s->leaders);
    free(s->bytes);
    free(s); /* what they have in common ends with the program */
    *shared = NULL;
}

void *saf_shared_data(const saf_shared *shared) {
    return shared->all->block;
}
bool saf_shared_one_host(const saf_shared *shared) {
    return shared->all->hosts == 1;
}

saf_status saf_shared_meet(saf_shared *s, const saf_part *parts, int64_t n) {
    common *a = s->all;
    double sum = 0;
    for (int h = 0; h < a->hosts; h++) s->bytes[h] = 0;
    for (int64_t i = 0; i < n; i++) {
        s->bytes[a->host_of[parts[i].owner]] += (size_t)parts[i].rows * parts[i].bytes;
        sum += (double)parts[i].rows * (double)parts[i].bytes;
    }
    int here = a->here[s->host];
    if (here > 1) {
        sg_barrier_wait(a->come[s->host]);
        sim_compute(saf_plan_meeting_s(&sim.classes[0], here, 1, sum, sum));
    }
    if (a->hosts > 1 && s->leaders) sim_exchange(s->leaders, s->host, a->hosts, s->bytes);
    if (here > 1) sg_barrier_wait(a->leave[s->host]);
    return SAF_OK;
}
