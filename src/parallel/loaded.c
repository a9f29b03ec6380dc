/* How much of all slices is there: every rank tells rank 0 now and then, if somebody watches. */
#include "parallel/load.h"

static const double NEWS_S = 0.2;

static saf_status hear(saf__loaded *l, int r) {
    l->tensors[r] = saf_tensor_1d(SAF_DTYPE_I64, &l->news[r], 2);
    return saf_comm_irecv(l->comm, r, SAF_TAG_LOADED, sizeof l->news[r], &l->tensors[r],
                          &l->requests[r]);
}

saf_status saf__loaded_new(saf_comm *comm, const saf_load_events *events, size_t total,
                           saf__loaded *out) {
    saf_status st = SAF_OK;
    bool root = saf_comm_rank(comm) == 0;
    size_t ranks = root ? (size_t)saf_comm_size(comm) : 1;
    uint8_t wanted = events->loaded != NULL;
    *out = (saf__loaded){.comm = comm, .events = events, .total = total, .said_s = saf_clock_s()};
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &wanted, 1);
    st = saf_comm_bcast(comm, 0, &t);
    out->apart = st != SAF_OK;
    if (out->apart) goto out;
    if (wanted) st = saf_alloc(ranks, sizeof *out->news, &out->news);
    if (wanted && st == SAF_OK) st = saf_alloc(ranks, sizeof *out->tensors, &out->tensors);
    if (wanted && st == SAF_OK) st = saf_alloc(ranks, sizeof(void *), &out->requests);
    for (size_t r = 1; wanted && st == SAF_OK && r < ranks; r++) st = hear(out, (int)r);
    SAF_TRY(saf_comm_agree(comm, st));
    out->wanted = wanted;
out:
    return st;
}

void saf__loaded_free(saf__loaded *l) {
    int ranks = saf_comm_rank(l->comm) == 0 ? saf_comm_size(l->comm) : 1;
    for (int r = 0; l->requests && r < ranks; r++) saf_comm_cancel(&l->requests[r]);
    if (l->request) (void)saf_comm_wait(&l->request);
    saf_free(&l->news);
    saf_free(&l->tensors);
    saf_free(&l->requests);
}

static void tell(const saf__loaded *l) {
    size_t sum = 0;
    for (int r = 0; r < saf_comm_size(l->comm); r++) sum += (size_t)l->news[r].bytes;
    l->events->loaded(l->events->ctx, sum < l->total ? sum : l->total, l->total);
}

/* Rank 0: what has come by now. */
static saf_status listen(saf__loaded *l) {
    saf_status st = SAF_OK;
    for (int r = 1; r < saf_comm_size(l->comm); r++) {
        bool done = false;
        while (l->requests[r]) {
            SAF_TRY(saf_comm_test(&l->requests[r], &done));
            if (!done) break;
            if (!l->news[r].over) SAF_TRY(hear(l, r));
        }
    }
    tell(l);
out:
    return st;
}

static saf_status send_news(saf__loaded *l) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &l->mine, 2);
    return saf_comm_isend(l->comm, 0, SAF_TAG_LOADED, &t, &l->request);
}

saf_status saf__loaded_say(saf__loaded *l, size_t bytes) {
    saf_status st = SAF_OK;
    bool done = true;
    double now = saf_clock_s();
    if (!l->wanted || now - l->said_s < NEWS_S) return SAF_OK;
    l->said_s = now;
    if (saf_comm_rank(l->comm) == 0) {
        l->news[0].bytes = (int64_t)bytes;
        st = listen(l);
    } else {
        SAF_TRY(saf_comm_test(&l->request, &done));
        if (!done) goto out; /* the next time */
        l->mine.bytes = (int64_t)bytes;
        st = send_news(l);
    }
out:
    if (st != SAF_OK) l->apart = true;
    return st;
}

static saf_status end_of_others(saf__loaded *l) {
    saf_status st = SAF_OK;
    for (;;) {
        int r;
        tell(l);
        SAF_TRY(saf_comm_wait_any(l->requests, saf_comm_size(l->comm), &r));
        if (r < 0) break;
        if (!l->news[r].over) SAF_TRY(hear(l, r));
    }
out:
    return st;
}

saf_status saf__loaded_end(saf__loaded *l, size_t bytes) {
    saf_status st = SAF_OK;
    if (!l->wanted) return SAF_OK;
    if (saf_comm_rank(l->comm) == 0) {
        l->news[0].bytes = (int64_t)bytes;
        st = end_of_others(l);
    } else {
        SAF_TRY(saf_comm_wait(&l->request)); /* of the news before, which it reads from */
        l->mine = (saf__news){(int64_t)bytes, true};
        SAF_TRY(send_news(l));
        st = saf_comm_wait(&l->request);
    }
out:
    if (st != SAF_OK) l->apart = true;
    return st;
}
