/* Taking a slice from a rank that gives it. A few receives are always posted. What came is passed
 * on to the next rank of this host that holds the same, another replica, so that it crosses the
 * network once; its buffer takes the block after next. */
#include "parallel/load.h"

saf_status saf__taking_new(saf_comm *comm, const int32_t *giver, size_t largest, saf__taking *out) {
    saf_status st = SAF_OK;
    int32_t rank = saf_comm_rank(comm);
    *out = (saf__taking){.comm = comm, .giver = giver[rank], .twin = -1};
    for (int32_t r = rank + 1; r < saf_comm_size(comm) && out->twin < 0; r++)
        if (giver[r] == rank) out->twin = r;
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) SAF_TRY(saf_alloc(largest, 1, &out->slots[i].bytes));
out:
    return st;
}

void saf__taking_free(saf__taking *taking) {
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) {
        saf__taken_block *slot = &taking->slots[i];
        saf_comm_cancel(&slot->request);
        if (slot->onward) (void)saf_comm_wait(&slot->onward);
        saf_free(&slot->bytes);
    }
}

static saf__taken_block *slot_of(saf__taking *taking, int64_t block) {
    return &taking->slots[block % SAF_GIVEN_BLOCKS];
}

/* Its buffer's block before has been passed on by then. */
static saf_status expect(saf__taking *taking, const saf_blocks *blocks, int64_t block) {
    saf_status st = SAF_OK;
    saf__taken_block *slot = slot_of(taking, block);
    if (block >= saf_blocks_count(blocks)) return SAF_OK;
    SAF_TRY(saf_comm_wait(&slot->onward));
    slot->t = saf_tensor_1d(SAF_DTYPE_U8, slot->bytes, 0);
    st = saf_comm_irecv(taking->comm, taking->giver, SAF_TAG_WEIGHTS,
                        saf_blocks_bytes(blocks, block), &slot->t, &slot->request);
out:
    return st;
}

static saf_status arrive(saf__taking *taking, const saf_blocks *blocks, int64_t block) {
    saf_status st = SAF_OK;
    saf__taken_block *slot = slot_of(taking, block);
    int64_t expected = (int64_t)saf_blocks_bytes(blocks, block);
    SAF_TRY(saf_comm_wait(&slot->request));
    if (slot->t.ndim != 1 || (slot->t.shape[0] != expected && slot->t.shape[0] != 0))
        st = saf_fail(SAF_COMM, "block %lld of the slice from rank %d: %lld bytes, expected %lld",
                      (long long)block, taking->giver, (long long)slot->t.shape[0],
                      (long long)expected);
    if (st == SAF_OK && taking->twin >= 0)
        st = saf_comm_isend(taking->comm, taking->twin, SAF_TAG_WEIGHTS, &slot->t, &slot->onward);
out:
    return st;
}

saf_status saf__take_more(saf__taking *taking, saf_slice *slice, const saf_blocks *blocks,
                          bool *all) {
    saf_status st = SAF_OK;
    int64_t block = taking->next, ahead = SAF_GIVEN_BLOCKS - 1, count = saf_blocks_count(blocks);
    *all = block == count;
    for (int64_t i = 0; block == 0 && i < ahead; i++) SAF_TRY(expect(taking, blocks, i));
    if (!*all) {
        saf__taken_block *slot = slot_of(taking, block);
        SAF_TRY(expect(taking, blocks, block + ahead));
        SAF_TRY(arrive(taking, blocks, block));
        *all = slot->t.shape[0] == 0; /* the giver has failed, which it tells everybody later */
        if (!*all) {
            saf_slice_put(slice, blocks, block, slot->bytes);
            taking->there += saf_blocks_bytes(blocks, block);
            taking->next++;
        }
    }
    if (!*all) return SAF_OK;
    for (int i = 0; i < SAF_GIVEN_BLOCKS; i++) {
        saf_comm_cancel(&taking->slots[i].request);
        SAF_TRY(saf_comm_wait(&taking->slots[i].onward));
    }
out:
    if (st != SAF_OK) taking->apart = true;
    return st;
}
