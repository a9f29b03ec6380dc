/* Rows of the results from what was measured: ratios are taken within a repetition, then the median
 * of the ratios. */
#include <math.h>
#include <stdio.h>

#include "job/bench/bench.h"

static saf_cost sum_cost(const saf__bench_phase *p) {
    saf_cost sum = {0};
    for (int i = 0; i < SAF_STEP_COUNT; i++) {
        sum.weight_bytes += p->cost[i].weight_bytes;
        sum.kv_bytes += p->cost[i].kv_bytes;
        sum.int8_ops += p->cost[i].int8_ops;
        sum.float_ops += p->cost[i].float_ops;
    }
    return sum;
}

/* What a figure is in one repetition. */
typedef double (*figure)(const saf_result_sample *sample, const saf_result_phase *row);

static double seconds(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return m->seconds;
}
static double tokens_per_s(const saf_result_sample *m, const saf_result_phase *row) {
    return (double)row->tokens / m->seconds;
}
static double read_rate(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return (m->read_before + m->read_after) / 2;
}
static double int8_rate(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return (m->int8_before + m->int8_after) / 2;
}
static double f32_rate(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return (m->f32_before + m->f32_after) / 2;
}
static double of_read(const saf_result_sample *m, const saf_result_phase *row) {
    return (double)(row->weight_bytes + row->kv_bytes) / m->seconds / read_rate(m, row);
}
static double tile_rate(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return (m->tiles_before + m->tiles_after) / 2;
}
static double of_peak(const saf_result_sample *m, const saf_result_phase *row) {
    double int8 = (double)row->int8_ops / int8_rate(m, row);
    return (int8 + (double)row->float_ops / f32_rate(m, row)) / m->seconds;
}
static double of_tiles(const saf_result_sample *m, const saf_result_phase *row) {
    double int8 = (double)row->int8_ops / tile_rate(m, row);
    return (int8 + (double)row->float_ops / f32_rate(m, row)) / m->seconds;
}
static double sgemm_rate(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return m->sgemm_ops_per_s;
}
static double of_sgemm(const saf_result_sample *m, const saf_result_phase *row) {
    return (double)(row->int8_ops + row->float_ops) / m->seconds / m->sgemm_ops_per_s;
}
static double copy_time(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return m->copy_s;
}
static double copies(const saf_result_sample *m, const saf_result_phase *row) {
    (void)row;
    return m->seconds / m->copy_s;
}

/* Median, least and most of a figure over n repetitions, `stride` samples apart. */
typedef struct {
    double median, least, most;
} spread;

static saf_status spread_of(figure f, const saf_result_sample *first, int32_t n, int32_t stride,
                            const saf_result_phase *row, spread *out) {
    double *values = NULL;
    saf_status st = saf_alloc((size_t)n, sizeof *values, &values);
    if (st != SAF_OK) return st;
    for (int32_t i = 0; i < n; i++) values[i] = f(&first[i * stride], row);
    *out = (spread){(double)NAN, (double)NAN, (double)NAN};
    if (isfinite(values[0])) st = saf__spread(values, n, &out->median, &out->least, &out->most);
    saf_free(&values);
    return st;
}

/* All figures of a row whose counts are there. */
static saf_status fill_figures(const saf_result_sample *first, int32_t n, int32_t stride,
                               saf_result_phase *row) {
    saf_status st = SAF_OK;
    const struct {
        figure f;
        double *median, *least, *most;
    } figures[] = {
        {seconds, &row->seconds, &row->seconds_min, &row->seconds_max},
        {tokens_per_s, &row->tokens_per_s, &row->tokens_per_s_min, &row->tokens_per_s_max},
        {read_rate, &row->read_bytes_per_s, NULL, NULL},
        {int8_rate, &row->int8_ops_per_s, NULL, NULL},
        {f32_rate, &row->f32_ops_per_s, NULL, NULL},
        {of_read, &row->of_read, &row->of_read_min, &row->of_read_max},
        {of_peak, &row->of_peak, &row->of_peak_min, &row->of_peak_max},
        {tile_rate, &row->tile_ops_per_s, NULL, NULL},
        {of_tiles, &row->of_tiles, &row->of_tiles_min, &row->of_tiles_max},
        {sgemm_rate, &row->sgemm_ops_per_s, NULL, NULL},
        {of_sgemm, &row->of_sgemm, NULL, NULL},
        {copy_time, &row->copy_s, NULL, NULL},
        {copies, &row->copies, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        spread v;
        SAF_TRY(spread_of(figures[i].f, first, n, stride, row, &v));
        *figures[i].median = v.median;
        if (figures[i].least) *figures[i].least = v.least;
        if (figures[i].most) *figures[i].most = v.most;
    }
    row->bytes_per_s = (double)(row->weight_bytes + row->kv_bytes) / row->seconds;
    row->ops_per_s = (double)(row->int8_ops + row->float_ops) / row->seconds;
out:
    return st;
}

static saf_status phase_row(const saf__bench *b, int32_t i, saf_result_phase *row) {
    const saf__bench_phase *p = &b->phases[i];
    saf_cost cost = sum_cost(p);
    *row = (saf_result_phase){
        .repeats = b->repeats,
        .sequences = p->shape.sequences,
        .passes = p->shape.passes,
        .context = p->shape.context,
        .tokens = (int64_t)p->shape.sequences * p->shape.tokens * p->shape.passes,
        .weight_bytes = cost.weight_bytes,
        .kv_bytes = cost.kv_bytes,
        .int8_ops = cost.int8_ops,
        .float_ops = cost.float_ops};
    snprintf(row->phase, sizeof row->phase, "%s", p->shape.name);
    snprintf(row->peaks, sizeof row->peaks, "%s", saf_hw_yardstick_name(b->yardstick));
    return fill_figures(&b->samples[i], b->repeats, b->n_phases, row);
}

/* Loading, whose yardstick is the copy: the samples come first in the results. */
static saf_status load_rows(const saf__bench *b, saf_result_phase *row,
                            saf_result_sample *samples) {
    double none = (double)NAN;
    size_t replicated;
    size_t bytes = saf_slice_file_bytes(b->s->gguf, &b->s->params, b->s->range, &replicated);
    *row =
        (saf_result_phase){.phase = "load", .repeats = b->repeats, .weight_bytes = (int64_t)bytes};
    for (int32_t i = 0; i < b->repeats; i++)
        samples[i] = (saf_result_sample){.phase = "load",
                                         .repetition = i + 1,
                                         .seconds = b->load_s[i],
                                         .read_before = none,
                                         .read_after = none,
                                         .int8_before = none,
                                         .int8_after = none,
                                         .f32_before = none,
                                         .f32_after = none,
                                         .tiles_before = none,
                                         .tiles_after = none,
                                         .sgemm_ops_per_s = none,
                                         .copy_s = (b->copies_s[i] + b->copies_s[i + 1]) / 2};
    saf_status st = fill_figures(samples, b->repeats, 1, row);
    row->tokens_per_s = row->tokens_per_s_min = row->tokens_per_s_max = none;
    return st;
}

/* The steps of a phase; what its seconds hold beyond them is sampling. */
static saf_status step_rows(const saf__bench *b, int32_t i, const saf_result_phase *phase,
                            saf_result_step *rows, int64_t *n) {
    saf_status st = SAF_OK;
    const saf__bench_phase *p = &b->phases[i];
    double *values = NULL, sum = 0;
    /* fmax passes over what is not there */
    double best_int8 = fmax(phase->int8_ops_per_s, phase->tile_ops_per_s);
    int64_t first = *n;
    SAF_TRY(saf_alloc((size_t)b->repeats, sizeof *values, &values));
    for (int step = 0; step <= SAF_STEP_COUNT; step++) {
        bool rest = step == SAF_STEP_COUNT;
        saf_cost cost = rest ? (saf_cost){0} : p->cost[step];
        for (int32_t r = 0; r < b->repeats; r++) {
            values[r] =
                rest ? b->samples[r * b->n_phases + i].seconds : p->profiles[r].seconds[step];
            for (int k = 0; rest && k < SAF_STEP_COUNT; k++) values[r] -= p->profiles[r].seconds[k];
        }
        saf_result_step *row = &rows[(*n)++];
        *row = (saf_result_step){.weight_bytes = cost.weight_bytes,
                                 .kv_bytes = cost.kv_bytes,
                                 .int8_ops = cost.int8_ops,
                                 .float_ops = cost.float_ops};
        memcpy(row->phase, phase->phase, sizeof row->phase);
        snprintf(row->step, sizeof row->step, "%s",
                 rest ? "sampling" : saf_step_name((saf_step)step));
        SAF_TRY(saf__median(values, b->repeats, &row->seconds));
        row->limit_s =
            fmax((double)(cost.weight_bytes + cost.kv_bytes) / phase->read_bytes_per_s,
                 (double)cost.int8_ops / best_int8 + (double)cost.float_ops / phase->f32_ops_per_s);
        sum += row->seconds;
    }
    for (int64_t k = first; k < *n; k++) rows[k].share = sum > 0 ? rows[k].seconds / sum : 0;
out:
    saf_free(&values);
    return st;
}

saf_status saf__bench_rows(const saf__bench *b, saf_result_bench *out) {
    saf_status st = SAF_OK;
    size_t phases = (size_t)b->n_phases, repeats = (size_t)b->repeats;
    SAF_TRY(saf_alloc(phases + 1, sizeof *out->phases, &out->phases));
    SAF_TRY(saf_alloc((phases + 1) * repeats, sizeof *out->samples, &out->samples));
    SAF_TRY(saf_alloc(phases * (SAF_STEP_COUNT + 1), sizeof *out->steps, &out->steps));
    SAF_TRY(load_rows(b, &out->phases[0], out->samples));
    memcpy(out->samples + repeats, b->samples, phases * repeats * sizeof *out->samples);
    for (int32_t i = 0; i < b->n_phases; i++) {
        SAF_TRY(phase_row(b, i, &out->phases[i + 1]));
        SAF_TRY(step_rows(b, i, &out->phases[i + 1], out->steps, &out->n_steps));
    }
    out->n_phases = (int64_t)phases + 1;
    out->n_samples = (int64_t)((phases + 1) * repeats);
out:
    return st;
}
