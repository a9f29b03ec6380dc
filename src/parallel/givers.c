/* Who gives the slices to ranks that have no model file. */
#include <assert.h>

#include "saf/parallel.h"

/* The rank that gives to r, on its host if `near`; -1 when none of these has the file. */
static int32_t least_busy(const saf_buf *places, int32_t ranks, int32_t r, bool near,
                          const int64_t *given) {
    int32_t best = -1;
    for (int32_t i = 0; i < ranks; i++) {
        bool same_host = strcmp(places[i].data + 1, places[r].data + 1) == 0;
        if (places[i].data[0] != 'y' || (near && !same_host)) continue;
        if (best < 0 || given[i] < given[best]) best = i;
    }
    return best;
}

static bool same_span(saf_span a, saf_span b) {
    return a.begin == b.begin && a.end == b.end;
}

static bool same_range(saf_slice_range a, saf_slice_range b) {
    return a.layer0 == b.layer0 && a.layer1 == b.layer1 && a.embedding == b.embedding &&
           a.head == b.head && same_span(a.heads, b.heads) && same_span(a.width, b.width) &&
           same_span(a.ff, b.ff) && same_span(a.vocab, b.vocab);
}

/* The last rank before r on its host that has no file either and is given the same slice; -1. */
static int32_t twin_before(const saf_buf *places, const saf_layout *layout, int32_t r) {
    for (int32_t i = r - 1; i >= 0; i--)
        if (strcmp(places[i].data, places[r].data) == 0 &&
            same_range(saf_layout_range(layout, i), saf_layout_range(layout, r)))
            return i;
    return -1;
}

/* places[ranks]: 'y' where there is a file, else 'n', and the host's name. */
static void choose(const saf_buf *places, const saf_layout *layout, const int64_t *bytes,
                   int32_t ranks, int64_t *given, int32_t *giver) {
    for (int32_t r = 0; r < ranks; r++) {
        giver[r] = r;
        if (places[r].data[0] == 'y') continue;
        int32_t from = least_busy(places, ranks, r, true, given);
        if (from < 0) from = twin_before(places, layout, r);
        if (from < 0) from = least_busy(places, ranks, r, false, given);
        assert(from >= 0); /* rank 0 at least */
        given[from] += bytes[r];
        giver[r] = from;
    }
}

saf_status saf_givers_choose(saf_comm *comm, const saf_gguf *g, const saf_model_params *p,
                             const saf_layout *layout, bool has_file, int32_t *giver) {
    saf_status st = SAF_OK;
    int32_t ranks = saf_comm_size(comm);
    saf_buf mine = {0}, *places = NULL;
    int64_t *bytes = NULL, *given = NULL;
    size_t replicated;
    st = saf_buf_printf(&mine, "%c%s", has_file ? 'y' : 'n', saf_comm_host(comm));
    if (st == SAF_OK) st = saf_alloc((size_t)ranks, sizeof *places, &places);
    if (st == SAF_OK) st = saf_alloc((size_t)ranks, sizeof *bytes, &bytes);
    if (st == SAF_OK) st = saf_alloc((size_t)ranks, sizeof *given, &given);
    SAF_TRY(saf_comm_agree(comm, st));
    assert(places && bytes && given); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(comm, 0, &mine, places));
    if (saf_comm_rank(comm) == 0) {
        for (int32_t r = 0; r < ranks; r++)
            bytes[r] =
                (int64_t)saf_slice_file_bytes(g, p, saf_layout_range(layout, r), &replicated);
        choose(places, layout, bytes, ranks, given, giver);
    }
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, giver, ranks);
    SAF_TRY(saf_comm_bcast(comm, 0, &t));
out:
    for (int32_t r = 0; places && r < ranks; r++) saf_buf_free(&places[r]);
    saf_free(&places);
    saf_free(&bytes);
    saf_free(&given);
    saf_buf_free(&mine);
    return st;
}
