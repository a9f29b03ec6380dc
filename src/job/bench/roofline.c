/* Suite model: what bounds each phase on each rank, in words. A phase's operations for each byte
 * that it must read stand against the ridge of the rank: its peak by its reading of memory, both
 * measured while all ranks measure. */
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "job/bench/bench.h"
#include "job/bench/suites.h"

typedef struct {
    double read, int8, f32; /* a rank's */
} rates;

/* Medians. */
static saf_status measure(const saf__suites *w, rates *mine) {
    saf_status st = SAF_OK;
    saf_hw_yardstick *y = NULL;
    double *values = NULL;
    size_t bytes = (size_t)w->s->job->bench.read_mib << 20, n = (size_t)w->repeats;
    st = saf_hw_yardstick_new(bytes, &y);
    if (st == SAF_OK) st = saf_alloc(3 * n, sizeof *values, &values);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    assert(values); /* or all would have failed */
    for (size_t i = 0; i < n; i++) {
        saf_hw_rates r;
        SAF_TRY(saf_comm_barrier(w->s->world));
        saf_hw_yardstick_sample(y, &r);
        values[i] = r.read_bytes_s;
        values[n + i] = fmax(r.int8_ops_s, r.tile_ops_s);
        values[2 * n + i] = r.f32_ops_s;
    }
    st = saf__median(values, w->repeats, &mine->read);
    if (st == SAF_OK) st = saf__median(values + n, w->repeats, &mine->int8);
    if (st == SAF_OK) st = saf__median(values + 2 * n, w->repeats, &mine->f32);
    SAF_TRY(saf_comm_agree(w->s->world, st));
out:
    saf_hw_yardstick_free(&y);
    saf_free(&values);
    return st;
}

/* A phase of a mixture of operations has the peak at which these would take their times added. */
static saf_status add_phase(const saf_result_phase *p, const rates *r, saf_buf *text) {
    double bytes = (double)p->weight_bytes + (double)p->kv_bytes;
    double ops = (double)p->int8_ops + (double)p->float_ops;
    if (!(ops > 0) || !(bytes > 0)) return SAF_OK; /* loading */
    double peak_s = (double)p->int8_ops / r->int8 + (double)p->float_ops / r->f32;
    double intensity = ops / bytes, ridge = ops / peak_s / r->read;
    return saf_buf_printf(text, "; %s is bound by %s: %.1f operations a byte, the ridge is at %.1f",
                          p->phase, intensity < ridge ? "memory" : "arithmetic", intensity, ridge);
}

static saf_status add_row(const saf__suites *w, int32_t rank, const rates *r) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    saf_suite_roofline row = {.rank = rank};
    const saf_result_bench *b = &w->s->results.bench;
    SAF_TRY(saf_buf_printf(&text, "reads %.1f GB/s, computes %.0f Gop/s of int8 and %.0f of f32",
                           r->read * 1e-9, r->int8 * 1e-9, r->f32 * 1e-9));
    for (int64_t i = 0; i < b->n_phases; i++) SAF_TRY(add_phase(&b->phases[i], r, &text));
    memcpy(row.host, w->hosts[rank], sizeof row.host);
    snprintf(row.words, sizeof row.words, "%s", text.data);
    SAF_TRY(saf__suite_row(w, SAF_SUITE_ROOFLINE, &row));
out:
    saf_buf_free(&text);
    return st;
}

saf_status saf__suite_roofline(saf__suites *w) {
    saf_status st = SAF_OK;
    rates mine = {0};
    saf_buf own = {0}, *all = NULL;
    size_t ranks = (size_t)w->s->ranks;
    SAF_TRY(measure(w, &mine));
    st = saf_buf_append(&own, &mine, sizeof mine);
    if (st == SAF_OK) st = saf_alloc(ranks, sizeof *all, &all);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    assert(all);
    SAF_TRY(saf_comm_gather_buf(w->s->world, 0, &own, all));
    for (size_t r = 0; st == SAF_OK && w->s->rank == 0 && r < ranks; r++) {
        memcpy(&mine, all[r].data, sizeof mine);
        st = add_row(w, (int32_t)r, &mine);
    }
    st = saf_comm_agree(w->s->world, st);
out:
    for (size_t r = 0; all && r < ranks; r++) saf_buf_free(&all[r]);
    saf_free(&all);
    saf_buf_free(&own);
    return st;
}
