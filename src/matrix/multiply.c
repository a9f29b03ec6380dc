/* A slice of a batch: each thread has tiles of C of its own, and takes them through the panels. */
#include <omp.h>

#include "matrix/product.h"

typedef struct {
    saf_product *p;
    const saf__batch *batch;
    int64_t first, end; /* panels of the batch */
    double operations;
} slice;

static saf_status multiply_panel(const slice *s, saf__ctile *t, int64_t x, double *operations) {
    saf_status st = SAF_OK;
    saf_product *p = s->p;
    const saf_product_plan *plan = p->plan;
    int64_t panel = s->batch->panels[x], segment = saf__segment_of(&plan->tiles, panel);
    saf_span all = saf_product_segment(&plan->tiles, segment);
    if (panel - all.begin < saf__past_panels(p, t->i, t->j, segment)) return SAF_OK;
    saf__sum *sum = saf__sum_of(t, segment);
    if (!sum) SAF_TRY(saf__sum_begin(t, segment, &p->buffers, &sum));
    saf__call_multiply(p->blas, plan, t->i, t->j, panel, saf__pool_tile(s->batch, SAF__A, t->i, x),
                       saf__pool_tile(s->batch, SAF__B, t->j, x), panel == all.begin, sum->data);
    sum->panels++;
    *operations += 2.0 * (double)t->elements * (double)saf__tile_depth(plan, panel);
    if (panel == all.end - 1) saf__sums_join(t, plan, &p->buffers);
out:
    return st;
}

static saf_status multiply_tile(const slice *s, saf__ctile *t, bool first_thread,
                                double *operations) {
    saf_status st = SAF_OK;
    for (int64_t x = s->first; x < s->end && !t->written; x++) {
        SAF_TRY(multiply_panel(s, t, x, operations));
        if (first_thread) saf_comm_progress();
    }
out:
    return st;
}

/* Before the threads begin: one of them at a time may read. */
static saf_status fetch(saf_product *p, const slice *s, int64_t begin, int64_t end) {
    saf_status st = SAF_OK;
    int64_t last = saf__segment_of(&p->plan->tiles, s->batch->panels[s->end - 1]);
    for (int64_t x = begin; x < end && p->past.of; x++)
        SAF_TRY(saf__round_fetch(p, &p->tiles[x], last + 1));
out:
    return st;
}

saf_status saf__multiply_slice(saf_product *p, int64_t number) {
    saf_status st = SAF_OK;
    int64_t blocks = saf_ceil_div(saf_i64_max(1, p->plan->batch), p->slices.panels);
    slice s = {.p = p, .batch = &p->pool.batch[p->at.number % 2]};
    s.first = saf_i64_min(number % blocks * p->slices.panels, s.batch->n);
    s.end = saf_i64_min(s.first + p->slices.panels, s.batch->n);
    int64_t begin = saf_i64_min(number / blocks * p->slices.tiles, p->n_tiles),
            end = saf_i64_min(begin + p->slices.tiles, p->n_tiles);
    double start = saf_clock_s(), operations = 0;
    if (s.first == s.end || begin == end) return SAF_OK;
    st = fetch(p, &s, begin, end);
    if (st != SAF_OK) return st;
#pragma omp parallel num_threads(p->threads) reduction(+ : operations)
    {
        double mine = 0;
#pragma omp for schedule(static, 1)
        for (int64_t x = begin; x < end; x++) {
            saf_status one = multiply_tile(&s, &p->tiles[x], omp_get_thread_num() == 0, &mine);
            if (one != SAF_OK) {
#pragma omp critical(saf_matrix_failed)
                st = one;
            }
        }
        operations += mine;
    }
    p->count.compute_s += saf_clock_s() - start;
    p->count.operations += operations;
    return st;
}
