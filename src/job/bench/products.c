/* Suite matmul: products of square matrices of 1 to all ranks, and how much of so many times the
 * speed of one rank they reach. The matrices are made from their indices, so nothing is read but by
 * the first step, which is left out as is the writing: the time is that of the steps and the sums.
 */
#include <stdio.h>

#include "job/bench/multiply.h"
#include "job/bench/suites.h"

typedef struct {
    saf__suites *w;
    saf_comm *comm;
    int32_t ranks;
    double *samples; /* [repeats] */
    int64_t n;
    saf_dtype dtype;
} products;

static saf_status add_row(const products *p, const saf__multiply *m) {
    saf__figures f;
    int32_t repeats = p->w->repeats;
    double ops = 2 * (double)p->n * (double)p->n * (double)p->n;
    saf_status st = saf__suite_figures(p->samples, repeats, ops, &f);
    if (st != SAF_OK) return st;
    saf_suite_product row = {.n = p->n,
                             .ranks = p->ranks,
                             .grid_m = m->grid_m,
                             .grid_n = m->grid_n,
                             .grid_k = m->grid_k,
                             .repeats = repeats,
                             .seconds = f.seconds,
                             .seconds_min = f.seconds_min,
                             .seconds_max = f.seconds_max,
                             .ops_per_s = f.rate,
                             .ops_per_s_min = f.rate_min,
                             .ops_per_s_max = f.rate_max,
                             .efficiency = 1};
    snprintf(row.dtype, sizeof row.dtype, "%s", saf_dtype_name(p->dtype));
    const saf_buf *rows = &p->w->s->results.bench.tables[SAF_SUITE_PRODUCTS];
    for (int64_t i = 0; i < saf_suite_rows(SAF_SUITE_PRODUCTS, rows); i++) {
        saf_suite_product one;
        memcpy(&one, rows->data + (size_t)i * sizeof one, sizeof one);
        if (one.ranks == 1 && one.n == row.n && strcmp(one.dtype, row.dtype) == 0)
            row.efficiency = row.ops_per_s / one.ops_per_s / p->ranks;
    }
    return saf__suite_row(p->w, SAF_SUITE_PRODUCTS, &row);
}

static saf_status check(const products *p, const saf__multiply *m) {
    if (m->wrong == 0) return SAF_OK;
    return saf_fail(SAF_FAILED, "suite matmul: %lld elements of a product of %lld are wrong",
                    (long long)m->wrong, (long long)p->n);
}

static saf_status run_once(const products *p, saf__multiply *m, double *seconds) {
    saf_status st = saf__multiply_run(m, seconds);
    if (m->apart) saf__suite_end_apart(p->w, st);
    return st;
}

static saf_status measure(products *p) {
    saf_status st = SAF_OK;
    double ignored;
    saf__multiply m = {.comm = p->comm,
                       .host = p->w->s->host,
                       .threads = p->w->s->settings.threads,
                       .n = p->n,
                       .dtype = p->dtype};
    SAF_TRY(run_once(p, &m, &ignored));
    for (int32_t i = 0; i < p->w->repeats; i++) SAF_TRY(run_once(p, &m, &p->samples[i]));
    SAF_TRY(saf_comm_agree(p->comm, check(p, &m)));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, p->samples, p->w->repeats);
    SAF_TRY(saf_comm_allreduce(p->comm, SAF_OP_MAX, &t));
    SAF_TRY(saf_comm_agree(p->comm, p->w->s->rank == 0 ? add_row(p, &m) : SAF_OK));
out:
    return st;
}

/* The ranks meet first: a split waits inside of MPI. */
static saf_status run_on(products *p, int32_t ranks) {
    saf_status st = SAF_OK, mine = SAF_OK;
    const saf__session *s = p->w->s;
    p->ranks = ranks;
    SAF_TRY(saf_comm_barrier(s->world));
    SAF_TRY(saf_comm_split(s->world, s->rank < ranks ? 0 : -1, s->rank, &p->comm));
    if (p->comm) mine = measure(p);
    SAF_TRY(saf_comm_agree(s->world, mine));
out:
    saf_comm_free(&p->comm);
    return st;
}

saf_status saf__suite_matmul(saf__suites *w) {
    enum { EVERY_COUNT = 8 }; /* up to here; then doublings, and all ranks */
    static const saf_dtype types[] = {SAF_DTYPE_F32, SAF_DTYPE_F64};
    saf_status st = SAF_OK;
    products p = {.w = w};
    const saf_job *job = w->s->job;
    SAF_TRY(
        saf_comm_agree(w->s->world, saf_alloc((size_t)w->repeats, sizeof *p.samples, &p.samples)));
    for (int t = 0; t < 2; t++)
        for (int32_t i = 0; i < job->bench.n_products; i++) {
            p.dtype = types[t];
            p.n = job->bench.products[i];
            for (int32_t n = 1; n < w->s->ranks; n = n < EVERY_COUNT ? n + 1 : 2 * n)
                SAF_TRY(run_on(&p, n));
            SAF_TRY(run_on(&p, w->s->ranks));
        }
out:
    saf_free(&p.samples);
    return st;
}
