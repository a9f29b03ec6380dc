/* Loading the slices of all ranks.
 *
 *   with the file      reads and repacks its own blocks with all threads; between two of them its
 *                      first thread sends blocks to those that it gives to (give.c)
 *   without            receives block after block, a few ahead, passes each on to a rank of its
 * host that holds the same, and repacks it with all threads (take.c)
 *
 * Slices and the buffers of blocks that travel are taken, and agreed on, before anything is sent.
 * From then on a reader can still fail, in reading or for want of its threads' buffers: a giver
 * tells its receivers so with an empty block, and all agree at the end. A message that cannot be
 * started or received, be it for want of memory, leaves the ranks apart. */
#include "parallel/load.h"

typedef struct {
    saf_comm *comm;
    int32_t giver;
    saf_slice *slice;
    saf_blocks *blocks;
    saf__giving giving; /* with the file */
    saf__taking taking; /* without it */
    saf__loaded loaded;
    size_t there; /* bytes of the slice */
    double start_s, slice_s;
    bool apart;
} loader;

static saf_status receive_slice(loader *l) {
    saf_status st = SAF_OK;
    for (bool all = false; !all;) {
        SAF_TRY(saf__take_more(&l->taking, l->slice, l->blocks, &all));
        l->there = l->taking.there;
        if (!all) SAF_TRY(saf__loaded_say(&l->loaded, l->there));
    }
    l->slice_s = saf_clock_s() - l->start_s;
out:
    return st;
}

static saf_status between_blocks(void *ctx, size_t bytes) {
    saf_status st = SAF_OK;
    loader *l = ctx;
    l->there = bytes;
    saf_comm_progress();
    SAF_TRY(saf__give_some(&l->giving));
    st = saf__loaded_say(&l->loaded, bytes);
out:
    return st;
}

static saf_status read_slice(loader *l) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_slice_read(l->slice, l->blocks, between_blocks, l));
    l->there = saf_blocks_total(l->blocks);
    l->slice_s = saf_clock_s() - l->start_s;
    for (bool all = false; !all;) {
        SAF_TRY(saf__give_more(&l->giving, &all));
        SAF_TRY(saf__loaded_say(&l->loaded, l->there));
    }
out:
    if (st != SAF_OK) saf__give_up(&l->giving);
    return st;
}

static saf_status prepare(loader *l, const saf_gguf *g, const saf_model_params *p,
                          const saf_layout *layout, const int32_t *giver) {
    saf_status st = SAF_OK;
    int32_t rank = saf_comm_rank(l->comm);
    saf_slice_range range = saf_layout_range(layout, rank);
    l->giver = giver[rank];
    SAF_TRY(saf_blocks_new(g, p, range, &l->blocks));
    SAF_TRY(saf_slice_new(g, p, range, &l->slice));
    if (l->giver == rank)
        SAF_TRY(saf__giving_new(l->comm, g, p, layout, giver, &l->giving));
    else
        SAF_TRY(saf__taking_new(l->comm, giver, saf_blocks_largest(l->blocks), &l->taking));
out:
    return st;
}

static saf_status total_bytes(loader *l, size_t *out) {
    int64_t sum = (int64_t)saf_blocks_total(l->blocks);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &sum, 1);
    saf_status st = saf_comm_allreduce(l->comm, SAF_OP_SUM, &t);
    if (st != SAF_OK) l->apart = true;
    *out = (size_t)sum;
    return st;
}

static bool apart(const loader *l) {
    return l->apart || l->giving.apart || l->taking.apart || l->loaded.apart;
}

saf_status saf_load_slices(saf_comm *comm, const saf_gguf *g, const saf_model_params *p,
                           const saf_layout *layout, const int32_t *giver,
                           const saf_load_events *events, saf_load_times *times, saf_slice **out) {
    saf_status st = SAF_OK;
    loader l = {.comm = comm, .start_s = saf_clock_s()};
    size_t total;
    *times = (saf_load_times){0};
    l.giving.comm = l.loaded.comm = comm;
    SAF_TRY(saf_comm_agree(comm, prepare(&l, g, p, layout, giver)));
    SAF_TRY(total_bytes(&l, &total));
    SAF_TRY(saf__loaded_new(comm, events, total, &l.loaded));
    st = l.giver == saf_comm_rank(comm) ? read_slice(&l) : receive_slice(&l);
    if (!apart(&l)) {
        saf_status told = saf__loaded_end(&l.loaded, l.there);
        if (st == SAF_OK) st = told;
    }
    times->slice_s = l.slice_s;
    if (apart(&l)) goto out;
    SAF_TRY(saf_comm_agree(comm, st));
    *out = l.slice;
    l.slice = NULL;
out:
    times->apart = apart(&l);
    if (times->apart) return st; /* messages under way still use the buffers; the job ends */
    saf__loaded_free(&l.loaded);
    saf__giving_free(&l.giving);
    saf__taking_free(&l.taking);
    saf_blocks_free(&l.blocks);
    saf_slice_free(&l.slice);
    return st;
}
