/* What a bench job measured: the phases against the yardsticks, and where their time goes. */
#include <math.h>
#include <stdlib.h>

#include "cli/grid.h"
#include "cli/report.h"

/* A number with `digits` behind the point; "-" for one that does not exist. */
static saf_status number_cell(saf__grid *g, double v, int digits) {
    return isfinite(v) ? saf__grid_cell(g, "%.*f", digits, v) : saf__grid_cell(g, "-");
}

/* A counts row holds what it must: a file may say anything. */
static double passes_of(const saf_result_phase *p) {
    return p->passes > 0 ? p->passes : 1;
}

/* A name from a file, fit for a terminal and for the head of a grid. */
static saf_status show_name(const char *name, saf_buf *out) {
    saf_status st = SAF_OK;
    saf_buf_clear(out);
    SAF_TRY(saf__show_text(out, name, 32));
    for (size_t i = 0; i < out->len; i++)
        if (out->data[i] == '|') out->data[i] = '/';
out:
    return st;
}

static bool is_load(const saf_result_phase *p) {
    return isfinite(p->copy_s);
}

/* ---- yardsticks ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median, least and most of the two columns of all samples. */
static saf_status print_rate(FILE *out, const saf_result_bench *b, const char *name,
                             const char *unit, size_t before, size_t after) {
    double *v = NULL;
    int64_t n = 0;
    saf_status st = saf_alloc((size_t)b->n_samples * 2, sizeof *v, &v);
    if (st != SAF_OK) return st;
    for (int64_t i = 0; i < b->n_samples; i++) {
        const char *row = (const char *)&b->samples[i];
        memcpy(&v[n], row + before, sizeof *v);
        n += isfinite(v[n]) != 0;
        memcpy(&v[n], row + after, sizeof *v);
        n += isfinite(v[n]) != 0;
    }
    qsort(v, (size_t)n, sizeof *v, compare);
    if (n > 0)
        fprintf(out, "%-12s %.1f %s, from %.1f to %.1f\n", name,
                (v[(n - 1) / 2] + v[n / 2]) / 2 * 1e-9, unit, v[0] * 1e-9, v[n - 1] * 1e-9);
    saf_free(&v);
    return SAF_OK;
}

static saf_status print_yardsticks(FILE *out, const saf_result_bench *b) {
    saf_status st = SAF_OK;
    saf_buf name = {0};
    SAF_TRY(print_rate(out, b, "memory read", "GB/s", offsetof(saf_result_sample, read_before),
                       offsetof(saf_result_sample, read_after)));
    SAF_TRY(print_rate(out, b, "int8 peak", "Gop/s", offsetof(saf_result_sample, int8_before),
                       offsetof(saf_result_sample, int8_after)));
    SAF_TRY(print_rate(out, b, "int8 tiles", "Gop/s", offsetof(saf_result_sample, tiles_before),
                       offsetof(saf_result_sample, tiles_after)));
    SAF_TRY(print_rate(out, b, "f32 peak", "Gop/s", offsetof(saf_result_sample, f32_before),
                       offsetof(saf_result_sample, f32_after)));
    for (int64_t i = 0; i < b->n_phases; i++) {
        const saf_result_phase *p = &b->phases[i];
        SAF_TRY(show_name(p->phase, &name));
        if (isfinite(p->sgemm_ops_per_s))
            fprintf(out, "%-12s %.1f Gop/s by OpenBLAS, of which %s reaches %.1f %%\n", "sgemm",
                    p->sgemm_ops_per_s * 1e-9, name.data, 100 * p->of_sgemm);
        if (is_load(p))
            fprintf(out,
                    "%-12s %.1f MB in %.3f s, from %.3f to %.3f: %.2f times a plain copy of them\n",
                    name.data, (double)p->weight_bytes * 1e-6, p->seconds, p->seconds_min,
                    p->seconds_max, p->copies);
    }
out:
    saf_buf_free(&name);
    return st;
}

/* ---- phases ---- */

static saf_status phase_cells(saf__grid *g, const saf_result_phase *p) {
    saf_status st = SAF_OK;
    double passes = passes_of(p), bytes = (double)p->weight_bytes + (double)p->kv_bytes;
    SAF_TRY(saf__grid_cell(g, "%.31s", p->phase));
    SAF_TRY(saf__grid_cell(g, "%d", (int)p->sequences));
    SAF_TRY(saf__grid_cell(g, "%lld", (long long)p->context));
    SAF_TRY(number_cell(g, p->tokens_per_s, 1));
    SAF_TRY(number_cell(g, p->tokens_per_s_min, 1));
    SAF_TRY(number_cell(g, p->tokens_per_s_max, 1));
    SAF_TRY(number_cell(g, p->seconds / passes * 1e3, 2));
    SAF_TRY(number_cell(g, bytes / passes * 1e-6, 1));
    SAF_TRY(number_cell(g, p->bytes_per_s * 1e-9, 2));
    SAF_TRY(number_cell(g, 100 * p->of_read, 1));
    SAF_TRY(number_cell(g, 100 * p->of_read_min, 1));
    SAF_TRY(number_cell(g, 100 * p->of_read_max, 1));
    SAF_TRY(number_cell(g, p->ops_per_s * 1e-9, 1));
    SAF_TRY(number_cell(g, 100 * p->of_peak, 1));
    SAF_TRY(number_cell(g, 100 * p->of_peak_min, 1));
    SAF_TRY(number_cell(g, 100 * p->of_peak_max, 1));
    SAF_TRY(number_cell(g, 100 * p->of_tiles, 1));
out:
    return st;
}

static saf_status print_phases(FILE *out, const saf_result_bench *b) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    SAF_TRY(saf__grid_begin(&g,
                            "<phase|sequences|context|tokens/s|least|most|ms a pass|MB a pass|GB/s|"
                            "% of read|least|most|Gop/s|% of peak|least|most|% of tiles"));
    for (int64_t i = 0; i < b->n_phases; i++)
        if (!is_load(&b->phases[i])) SAF_TRY(phase_cells(&g, &b->phases[i]));
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf__grid_free(&g);
    return st;
}

/* ---- steps ---- */

/* A table for each phase: side by side they are wider than a screen. */
static saf_status print_steps(FILE *out, const saf_result_bench *b, const saf_result_phase *p) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    saf_buf head = {0}, name = {0};
    double passes = passes_of(p);
    int64_t rows = 0;
    SAF_TRY(show_name(p->phase, &name));
    SAF_TRY(saf_buf_printf(&head, "<%s|ms a pass|%% of time|GB/s|Gop/s|%% of limit", name.data));
    SAF_TRY(saf__grid_begin(&g, head.data));
    for (int64_t i = 0; i < b->n_steps; i++) {
        const saf_result_step *t = &b->steps[i];
        double bytes = (double)t->weight_bytes + (double)t->kv_bytes;
        double ops = (double)t->int8_ops + (double)t->float_ops;
        if (strcmp(t->phase, p->phase) != 0) continue;
        rows++;
        SAF_TRY(saf__grid_cell(&g, "%.15s", t->step));
        SAF_TRY(number_cell(&g, t->seconds / passes * 1e3, 3));
        SAF_TRY(number_cell(&g, 100 * t->share, 1));
        SAF_TRY(number_cell(&g, bytes > 0 ? bytes / t->seconds * 1e-9 : (double)NAN, 2));
        SAF_TRY(number_cell(&g, ops > 0 ? ops / t->seconds * 1e-9 : (double)NAN, 1));
        SAF_TRY(number_cell(&g, t->limit_s > 0 ? 100 * t->limit_s / t->seconds : (double)NAN, 1));
    }
    if (rows == 0) goto out;
    fputc('\n', out);
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf_buf_free(&head);
    saf_buf_free(&name);
    saf__grid_free(&g);
    return st;
}

saf_status saf__report_bench(FILE *out, const saf_result_bench *b) {
    saf_status st = SAF_OK;
    for (int i = 0; i < SAF_SUITE_TABLES; i++)
        if (b->tables[i].len > 0)
            SAF_TRY(saf__report_suite(out, (saf_suite_table)i, &b->tables[i]));
    if (b->n_phases == 0) return SAF_OK;
    SAF_TRY(print_yardsticks(out, b));
    fputc('\n', out);
    SAF_TRY(print_phases(out, b));
    for (int64_t i = 0; i < b->n_phases; i++) SAF_TRY(print_steps(out, b, &b->phases[i]));
out:
    return st;
}
