/* Suite compute: the peaks of arithmetic, by all ranks at once, and the ridges that follow from
 * them and from reading memory at the same time. */
#include <stdio.h>

#include "job/bench/bench.h"
#include "job/bench/suites.h"

typedef enum { F32, F64, INT8, TILES, READ, KINDS } peak_kind;
static const char *const names[] = {"f32", "f64", "int8", "int8 tiles"};

typedef struct {
    saf__suites *w;
    saf_hw_yardstick *yardstick;
    double *samples; /* [KINDS, repeats] */
    saf_buf rows;
} compute;

static saf_status measure(compute *c) {
    saf_status st = SAF_OK;
    int32_t repeats = c->w->repeats;
    for (int32_t r = 0; r < repeats; r++) {
        saf_hw_rates rates;
        SAF_TRY(saf_comm_barrier(c->w->s->world));
        saf_hw_yardstick_sample(c->yardstick, &rates);
        c->samples[F32 * repeats + r] = rates.f32_ops_s;
        c->samples[F64 * repeats + r] = saf_hw_yardstick_f64(c->yardstick);
        c->samples[INT8 * repeats + r] = rates.int8_ops_s;
        c->samples[TILES * repeats + r] = rates.tile_ops_s;
        c->samples[READ * repeats + r] = rates.read_bytes_s;
    }
out:
    return st;
}

static saf_status add_rows(compute *c) {
    saf_status st = SAF_OK;
    const saf__suites *w = c->w;
    double read;
    SAF_TRY(saf__median(c->samples + READ * w->repeats, w->repeats, &read));
    for (int k = 0; k < READ; k++) {
        saf_suite_peak row = {
            .rank = w->s->rank, .threads = w->s->settings.threads, .repeats = w->repeats};
        SAF_TRY(saf__spread(c->samples + k * w->repeats, w->repeats, &row.ops_per_s,
                            &row.ops_per_s_min, &row.ops_per_s_max));
        if (!(row.ops_per_s > 0)) continue; /* no tile units */
        row.ridge = row.ops_per_s / read;
        memcpy(row.host, w->hosts[row.rank], sizeof row.host);
        snprintf(row.kind, sizeof row.kind, "%s", names[k]);
        snprintf(row.instructions, sizeof row.instructions, "%s",
                 k == TILES ? "amx" : saf_hw_yardstick_name(c->yardstick));
        SAF_TRY(saf_buf_append(&c->rows, &row, sizeof row));
    }
out:
    return st;
}

saf_status saf__suite_compute(saf__suites *w) {
    saf_status st = SAF_OK;
    compute c = {.w = w};
    size_t mib = (size_t)w->s->job->bench.read_mib;
    st = saf_alloc((size_t)KINDS * (size_t)w->repeats, sizeof *c.samples, &c.samples);
    if (st == SAF_OK) st = saf_hw_yardstick_new(mib << 20, &c.yardstick);
    SAF_TRY(saf_comm_agree(w->s->world, st));
    SAF_TRY(measure(&c));
    SAF_TRY(saf_comm_agree(w->s->world, add_rows(&c)));
    SAF_TRY(saf__suite_gather(w, SAF_SUITE_PEAKS, &c.rows));
out:
    saf_hw_yardstick_free(&c.yardstick);
    saf_free(&c.samples);
    saf_buf_free(&c.rows);
    return st;
}
