/* The end of a tile of C. Of the ranks along k one is its home, where the sums of all come
 * together; homes are spread over these ranks. */
#include "matrix/product.h"

static int32_t home_place(const saf_product *p, const saf__ctile *t) {
    int32_t k = p->plan->grid_k, place = p->pool.place;
    return place - place % k + saf__turn(t->i, t->j, k);
}

/* ---- sums that travel -------------------------------------------------------------------------*/

typedef struct {
    saf_comm_request **requests;
    int64_t n;
    int64_t (*heads)[SAF__SUM_WORDS]; /* [tiles] */
} outbox;

static saf_status send_sums(saf_product *p, const saf__ctile *t, int64_t *head, outbox *box) {
    saf_status st = SAF_OK;
    int dest = p->plan->rank[home_place(p, t)];
    head[0] = t->n;
    for (int64_t x = 0; x < t->n; x++) {
        head[1 + 2 * x] = t->sums[x].segment;
        head[2 + 2 * x] = t->sums[x].segments;
    }
    saf_tensor h = saf_tensor_1d(SAF_DTYPE_I64, head, SAF__SUM_WORDS);
    SAF_TRY(saf_comm_isend(p->comm, dest, SAF_TAG_SUM, &h, &box->requests[box->n]));
    box->n++;
    p->count.bytes_sent += SAF__SUM_BYTES;
    for (int64_t x = 0; x < t->n; x++) {
        saf_tensor d = saf_tensor_1d(p->plan->shape.dtype, t->sums[x].data, t->elements);
        SAF_TRY(saf_comm_isend(p->comm, dest, SAF_TAG_SUM, &d, &box->requests[box->n]));
        box->n++;
        p->count.bytes_sent += t->elements * (int64_t)saf__element_bytes(p->plan);
    }
out:
    return st;
}

static saf_status send_all(saf_product *p, int64_t begin, int64_t end, outbox *box) {
    saf_status st = SAF_OK;
    size_t sums = 0;
    for (int64_t x = begin; x < end; x++) sums += (size_t)p->tiles[x].n + 1;
    SAF_TRY(saf_alloc(sums, sizeof *box->requests, &box->requests));
    SAF_TRY(saf_alloc((size_t)(end - begin), sizeof *box->heads, &box->heads));
    for (int64_t x = begin; x < end; x++) {
        const saf__ctile *t = &p->tiles[x];
        if (!t->written && home_place(p, t) != p->pool.place)
            SAF_TRY(send_sums(p, t, box->heads[x - begin], box));
    }
out:
    return st;
}

static saf_status wrong_head(const saf__ctile *t, int source) {
    return saf_fail(SAF_COMM, "rank %d sends sums of tile (%lld, %lld) that cannot be", source,
                    (long long)t->i, (long long)t->j);
}

static saf_status receive_sums(saf_product *p, saf__ctile *t, int source) {
    saf_status st = SAF_OK;
    int64_t head[SAF__SUM_WORDS], segments = p->plan->tiles.segments;
    size_t bytes = (size_t)t->elements * saf__element_bytes(p->plan);
    saf_tensor h = saf_tensor_1d(SAF_DTYPE_I64, head, SAF__SUM_WORDS);
    SAF_TRY(saf_comm_recv(p->comm, source, SAF_TAG_SUM, sizeof head, &h));
    p->count.bytes_received += SAF__SUM_BYTES;
    if (h.shape[0] != SAF__SUM_WORDS || head[0] < 0 || head[0] > segments - t->n)
        return wrong_head(t, source);
    for (int64_t x = 0; x < head[0]; x++) {
        saf__sum *sum = NULL;
        int64_t first = head[1 + 2 * x], n = head[2 + 2 * x];
        if (n < 1 || first < 0 || n > segments || first > segments - n)
            return wrong_head(t, source);
        SAF_TRY(saf__sum_begin(t, first, &p->buffers, &sum));
        sum->segments = n;
        sum->panels = saf_product_segment(&p->plan->tiles, first + n - 1).end -
                      saf_product_segment(&p->plan->tiles, first).begin;
        saf_tensor d = saf_tensor_1d(p->plan->shape.dtype, sum->data, t->elements);
        SAF_TRY(saf_comm_recv(p->comm, source, SAF_TAG_SUM, bytes, &d));
        p->count.bytes_received += (int64_t)bytes;
        saf__sums_join(t, p->plan, &p->buffers);
    }
out:
    return st;
}

/* ---- writing ----------------------------------------------------------------------------------*/

static saf_status write_tile(saf_product *p, saf__ctile *t) {
    saf_status st = SAF_OK;
    const saf_product_plan *plan = p->plan;
    int64_t row0 = t->i * plan->tiles.tile_m, col0 = t->j * plan->tiles.tile_n,
            rows = saf__tile_rows(plan, t->i), cols = saf__tile_cols(plan, t->j);
    bool whole = t->n == 1 && t->sums[0].segment == 0 &&
                 t->sums[0].segments == plan->tiles.segments &&
                 saf__sum_is_whole(plan, &t->sums[0]);
    if (saf__multiplies(p) && !whole)
        return saf_fail(SAF_DEFECT, "tile (%lld, %lld) is written from %lld sums", (long long)t->i,
                        (long long)t->j, (long long)t->n);
    char *acc = whole ? t->sums[0].data : NULL, *c = acc && p->beta == 0 ? acc : p->scratch;
    double start = saf_clock_s();
    if (p->beta != 0) SAF_TRY(p->io.read_c(p->io.ctx, row0, rows, col0, cols, c, cols));
    if (c != acc || p->alpha != 1)
        saf__call_end(plan->shape.dtype, t->elements, p->alpha, p->beta, acc, c);
    SAF_TRY(p->io.write_c(p->io.ctx, row0, rows, col0, cols, c, cols));
    saf__sums_drop(t, &p->buffers);
    saf_comm_progress();
out:
    p->count.io_s += saf_clock_s() - start;
    return st;
}

/* A rank that cannot write goes on with what the others wait for. */
saf_status saf__write_tiles(saf_product *p, int64_t begin, int64_t end) {
    saf_status st = SAF_OK, written = SAF_OK;
    outbox box = {.n = 0};
    int32_t k = p->plan->grid_k, first = p->pool.place - p->pool.place % k;
    end = saf_i64_min(end, p->n_tiles);
    if (p->pool.place < 0 || begin >= end) return SAF_OK;
    for (int64_t x = begin; x < end && p->past.of && written == SAF_OK; x++)
        written = saf__round_fetch(p, &p->tiles[x], p->pool.share.segments.end);
    if (k > 1 && saf__multiplies(p)) SAF_TRY(send_all(p, begin, end, &box));
    for (int64_t x = begin; x < end; x++) {
        saf__ctile *t = &p->tiles[x];
        if (t->written || home_place(p, t) != p->pool.place) continue;
        for (int32_t c = 0; c < k && saf__multiplies(p); c++)
            if (first + c != p->pool.place) SAF_TRY(receive_sums(p, t, p->plan->rank[first + c]));
        if (written == SAF_OK) written = write_tile(p, t);
    }
    for (int64_t x = 0; x < box.n; x++) SAF_TRY(saf_comm_wait(&box.requests[x]));
    for (int64_t x = begin; x < end; x++) {
        saf__sums_drop(&p->tiles[x], &p->buffers);
        p->tiles[x].written = true;
    }
    st = written;
out:
    for (int64_t x = 0; x < box.n; x++) saf_comm_cancel(&box.requests[x]);
    saf_free(&box.requests);
    saf_free(&box.heads);
    return st;
}
