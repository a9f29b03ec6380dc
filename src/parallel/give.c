/* Giving slices to ranks that have no file. Blocks are read in the order of the receiver's slice
 * into a few buffers and sent from there; the receivers take turns, so that the server's link is
 * full where theirs are slower. A receiver asks for nothing: both sides know the blocks. An empty
 * tensor says that no more will come. */
#include <assert.h>

#include "parallel/load.h"

saf_status saf__giving_new(saf_comm *comm, const saf_gguf *g, const saf_model_params *p,
                           const saf_layout *layout, const int32_t *giver, saf__giving *out) {
    saf_status st = SAF_OK;
    int32_t rank = saf_comm_rank(comm), ranks = saf_comm_size(comm);
    size_t largest = 0;
    *out = (saf__giving){.comm = comm};
    SAF_TRY(saf_alloc((size_t)ranks, sizeof *out->receivers, &out->receivers));
    for (int32_t r = 0; r < ranks; r++) {
        if (r == rank || giver[r] != rank) continue;
        saf__receiver *to = &out->receivers[out->n];
        SAF_TRY(saf_blocks_new(g, p, saf_layout_range(layout, r), &to->blocks));
        to->rank = r;
        out->n++;
        if (saf_blocks_largest(to->blocks) > largest) largest = saf_blocks_largest(to->blocks);
    }
    for (int i = 0; out->n > 0 && i < SAF_GIVEN_BLOCKS; i++)
        SAF_TRY(saf_alloc(largest, 1, &out->slots[i].bytes));
out:
    return st;
}

void saf__giving_free(saf__giving *giving) {
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) {
        if (giving->slots[i].request) (void)saf_comm_wait(&giving->slots[i].request);
        saf_free(&giving->slots[i].bytes);
    }
    for (int32_t i = 0; i < giving->n; i++) saf_blocks_free(&giving->receivers[i].blocks);
    saf_free(&giving->receivers);
}

static bool has_more(const saf__receiver *to) {
    return to->next < saf_blocks_count(to->blocks);
}

/* Whose turn it is: the one with the fewest blocks under way, the first among equals. */
static saf__receiver *next_receiver(const saf__giving *giving) {
    saf__receiver *best = NULL;
    for (int32_t i = 0; i < giving->n; i++) {
        saf__receiver *to = &giving->receivers[i];
        if (has_more(to) && (!best || to->under_way < best->under_way)) best = to;
    }
    return best;
}

/* Takes back the buffers whose blocks have left. */
static saf_status take_back(saf__giving *giving) {
    saf_status st = SAF_OK;
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) {
        saf__given_block *slot = &giving->slots[i];
        bool done = true;
        if (!slot->to) continue;
        SAF_TRY(saf_comm_test(&slot->request, &done));
        if (!done) continue;
        slot->to->under_way--;
        slot->to = NULL;
    }
out:
    if (st != SAF_OK) giving->apart = true;
    return st;
}

/* Reads into the free buffers, several at a time where this is not a thread among others. */
static int fill(saf__giving *giving, saf__given_block *filled[SAF_GIVEN_BLOCKS]) {
    int n = 0;
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) {
        saf__given_block *slot = &giving->slots[i];
        saf__receiver *to = slot->to ? NULL : next_receiver(giving);
        if (!to) continue;
        slot->to = to;
        slot->block = to->next++;
        to->under_way++;
        filled[n++] = slot;
    }
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
    for (int i = 0; i < n; i++)
        filled[i]->read =
            saf_blocks_read(filled[i]->to->blocks, filled[i]->block, filled[i]->bytes);
    return n;
}

saf_status saf__give_some(saf__giving *giving) {
    saf_status st = SAF_OK;
    saf__given_block *filled[SAF_GIVEN_BLOCKS];
    if (giving->n == 0) return SAF_OK;
    SAF_TRY(take_back(giving));
    int n = fill(giving, filled);
    for (int i = 0; i < n; i++) {
        saf__given_block *slot = filled[i];
        if (st == SAF_OK) st = slot->read;
        if (st != SAF_OK) { /* the receiver hears of it from saf__give_up */
            slot->to->next = saf_i64_min(slot->to->next, slot->block);
            slot->to = NULL;
            continue;
        }
        size_t bytes = saf_blocks_bytes(slot->to->blocks, slot->block);
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, slot->bytes, (int64_t)bytes);
        st = saf_comm_isend(giving->comm, slot->to->rank, SAF_TAG_WEIGHTS, &t, &slot->request);
        if (st != SAF_OK) giving->apart = true;
    }
out:
    return st;
}

saf_status saf__give_more(saf__giving *giving, bool *all) {
    saf_status st = SAF_OK;
    saf_comm_request *requests[SAF_GIVEN_BLOCKS];
    int index;
    *all = false;
    SAF_TRY(saf__give_some(giving));
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) requests[i] = giving->slots[i].request;
    st = saf_comm_wait_any(requests, SAF_GIVEN_BLOCKS, &index);
    if (index >= 0) giving->slots[index].request = requests[index];
    *all = index < 0;
    if (st != SAF_OK) giving->apart = true;
out:
    return st;
}

void saf__give_up(saf__giving *giving) {
    saf_tensor nothing = saf_tensor_1d(SAF_DTYPE_U8, NULL, 0);
    for (int32_t i = 0; i < giving->n && !giving->apart; i++) {
        saf__receiver *to = &giving->receivers[i];
        if (!has_more(to)) continue;
        to->next = saf_blocks_count(to->blocks);
        if (saf_comm_send(giving->comm, to->rank, SAF_TAG_WEIGHTS, &nothing) != SAF_OK)
            giving->apart = true;
    }
}
