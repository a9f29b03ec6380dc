#include "job/hosts.h"

#include <assert.h>
#include <omp.h>

/* What a rank shares with others. */
typedef struct {
    int32_t host;             /* number of its host, in the order of the hosts' first ranks */
    int32_t on_host, on_cpus; /* ranks on its host, and on the very same processors of it */
} neighbours;

/* places[ranks]: "HOST CPUS" */
static void find_places(const saf_buf *places, int ranks, neighbours *out) {
    int32_t hosts = 0;
    for (int i = 0; i < ranks; i++) {
        size_t host = strcspn(places[i].data, " ") + 1;
        int first = i;
        for (int j = ranks - 1; j >= 0; j--) {
            bool same = strncmp(places[i].data, places[j].data, host) == 0;
            if (same) first = j;
            out[i].on_host += same;
            out[i].on_cpus += strcmp(places[i].data, places[j].data) == 0;
        }
        out[i].host = first < i ? out[first].host : hosts++;
    }
}

/* Everybody learns where everybody is. */
static saf_status find_neighbours(saf_comm *world, saf_hw_binding *binding, neighbours *out,
                                  int32_t **host) {
    saf_status st = SAF_OK;
    saf_buf mine = {0}, *places = NULL;
    neighbours *all = NULL;
    int rank = saf_comm_rank(world);
    size_t ranks = (size_t)saf_comm_size(world);
    st = saf_hw_binding_read(binding);
    if (st == SAF_OK) st = saf_buf_printf(&mine, "%s %s", saf_comm_host(world), binding->cpus);
    if (st == SAF_OK) st = saf_alloc(ranks, sizeof *places, &places);
    if (st == SAF_OK) st = saf_alloc(ranks, sizeof *all, &all);
    if (st == SAF_OK) st = saf_alloc(ranks, sizeof **host, host);
    SAF_TRY(saf_comm_agree(world, st));
    assert(places && all && *host); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(world, 0, &mine, places));
    if (rank == 0) find_places(places, (int)ranks, all);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, all, (int64_t)(ranks * sizeof *all));
    SAF_TRY(saf_comm_bcast(world, 0, &t));
    for (size_t i = 0; i < ranks; i++) (*host)[i] = all[i].host;
    *out = all[rank];
out:
    for (size_t i = 0; places && i < ranks; i++) saf_buf_free(&places[i]);
    saf_free(&places);
    saf_free(&all);
    saf_buf_free(&mine);
    return st;
}

saf_status saf__hosts_share(saf_comm *world, int32_t threads, saf__host_share *out,
                            int32_t **host) {
    saf_status st = SAF_OK;
    neighbours on = {0, 1, 1};
    SAF_TRY(find_neighbours(world, &out->binding, &on, host));
    out->threads = threads;
    if (threads == 0)
        out->threads = (int32_t)saf_i64_max(1, out->binding.cores / saf_i64_max(1, on.on_cpus));
    omp_set_num_threads(out->threads);
    out->memory_bytes = out->binding.memory_bytes / saf_i64_max(1, on.on_host);
out:
    return st;
}
