/* bench: what a model does on one rank, each figure beside what the rank's threads could do at
 * best.
 *
 * In every repetition the phases follow each other, with the yardsticks before and after each, so
 * that whatever else the machine does meets all of them alike; ratios are taken within a
 * repetition, and medians of the ratios. */
#include "job/bench.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { PHASES_MAX = 4 };

/* Everything that a job measures. */
typedef struct {
    saf__session *s;
    int32_t repeats, n_phases;
    saf_hw_yardstick *yardstick;
    saf__bench_phase phases[PHASES_MAX];
    saf_hw_rates last;          /* the newest sample */
    double *load_s, *copies_s;  /* [repeats], [repeats + 1] */
    saf_result_sample *samples; /* [repeats, n_phases] */
} bench;

/* ---- what there is to do ------------------------------------------------------------------- */

static int32_t shapes_of(const saf_job *job, saf__bench_shape *out) {
    int32_t n = 0, context = job->bench.context, many = job->bench.sequences;
    out[n++] = (saf__bench_shape){"prefill", 1, job->bench.prompt_tokens, 1, 0};
    out[n++] = (saf__bench_shape){"decode", 1, 1, job->bench.decode_tokens, 0};
    if (context > 0)
        out[n++] =
            (saf__bench_shape){"decode, long context", 1, 1, job->bench.decode_tokens, context};
    if (many > 0)
        out[n++] = (saf__bench_shape){"decode, batched", many, 1, job->bench.decode_tokens, 0};
    return n;
}

saf_status saf__bench_check(const saf__session *s) {
    saf__bench_shape shapes[PHASES_MAX];
    int32_t n = shapes_of(s->job, shapes);
    for (int32_t i = 0; i < n; i++) {
        const saf__bench_shape *h = &shapes[i];
        int64_t longest = (int64_t)h->context + (int64_t)h->tokens * h->passes;
        if (longest > s->params.context)
            return saf_fail(SAF_USAGE, "%s: %s takes %lld positions, the model has %lld",
                            s->job->path, h->name, (long long)longest,
                            (long long)s->params.context);
    }
    return SAF_OK;
}

void saf__bench_plan(const saf__session *s) {
    saf__bench_shape shapes[PHASES_MAX];
    int32_t n = shapes_of(s->job, shapes);
    for (int32_t i = 0; i < n; i++)
        printf("%s: %d x %d tokens of %d sequence%s after %d, %d times\n", shapes[i].name,
               shapes[i].passes, shapes[i].tokens, shapes[i].sequences,
               shapes[i].sequences == 1 ? "" : "s", shapes[i].context, s->job->bench.repeats);
}

/* ---- a model for this job only --------------------------------------------------------------- */

static int64_t longest_sequence(const saf_job *job) {
    return saf_i64_max(job->bench.prompt_tokens,
                       (int64_t)job->bench.context + job->bench.decode_tokens);
}

saf_status saf__bench_make_model(saf__session *s) {
    saf_status st = SAF_OK;
    const saf_job *job = s->job;
    saf_buf path = {0};
    saf_model_make_options o = {.arch = saf_arch_name(job->model.arch),
                                .context = saf_i64_max(4096, longest_sequence(job)),
                                .vocab_size = job->model.vocab,
                                .dtype = saf_job_made_type(job),
                                .tied = job->model.tied,
                                .seed = 1};
    if (!saf_model_shape_read(job->model.shape, &o))
        return saf_fail(SAF_DEFECT, "a shape that was checked is wrong: %s", job->model.shape);
    SAF_TRY(saf_buf_printf(&path, "%s.model-%ld", job->output.file, (long)getpid()));
    SAF_TRY(saf_model_make(path.data, &o));
    st = saf_strdup(path.data, &s->made_path);
    if (st != SAF_OK) (void)unlink(path.data);
out:
    saf_buf_free(&path);
    return st;
}

void saf__bench_unlink_model(saf__session *s) {
    if (s->made_path) (void)unlink(s->made_path);
    saf_free(&s->made_path);
}

/* ---- measuring ------------------------------------------------------------------------------- */

static bool multiplies_floats(const saf__bench_phase *p) {
    for (int i = 0; i < SAF_STEP_COUNT; i++)
        if (i != SAF_STEP_ATTENTION && p->cost[i].float_ops > 0) return true;
    return false;
}

/* OpenBLAS beside a prefill with float weights, of the shape of its largest products. */
static saf_status sample_sgemm(const bench *b, const saf__bench_phase *p, double *ops_s) {
    *ops_s = (double)NAN;
    if (p->shape.tokens == 1 || !multiplies_floats(p)) return SAF_OK;
    const saf_model_params *m = &b->s->params;
    saf_status st =
        saf_hw_sgemm_sample(b->s->settings.threads, p->shape.tokens, m->ff_width, m->width, ops_s);
    if (*ops_s == 0) *ops_s = (double)NAN;
    return st;
}

static saf_status measure_phase(bench *b, int32_t repeat, int32_t i) {
    saf_status st = SAF_OK;
    saf__bench_phase *p = &b->phases[i];
    saf_result_sample *row = &b->samples[repeat * b->n_phases + i];
    *row = (saf_result_sample){.repetition = repeat + 1, .copy_s = (double)NAN};
    snprintf(row->phase, sizeof row->phase, "%s", p->shape.name);
    SAF_TRY(sample_sgemm(b, p, &row->sgemm_ops_per_s));
    if (i == 0) saf_hw_yardstick_sample(b->yardstick, &b->last);
    row->read_before = b->last.read_bytes_s;
    row->int8_before = b->last.int8_ops_s;
    row->f32_before = b->last.f32_ops_s;
    SAF_TRY(saf__bench_phase_run(p, repeat, &row->seconds));
    saf_hw_yardstick_sample(b->yardstick, &b->last);
    row->read_after = b->last.read_bytes_s;
    row->int8_after = b->last.int8_ops_s;
    row->f32_after = b->last.f32_ops_s;
    b->s->times.compute_s += row->seconds;
out:
    return st;
}

static saf_status measure(bench *b) {
    saf_status st = SAF_OK;
    saf__bench_shape shapes[PHASES_MAX];
    saf__session *s = b->s;
    size_t repeats = (size_t)b->repeats;
    SAF_TRY(saf_alloc(repeats, sizeof *b->load_s, &b->load_s));
    SAF_TRY(saf_alloc(repeats + 1, sizeof *b->copies_s, &b->copies_s));
    saf_log(SAF_LOG_INFO, "loading %d times", b->repeats + 1);
    SAF_TRY(saf__bench_load(s, b->repeats, b->load_s, b->copies_s));
    SAF_TRY(saf__median(b->load_s, b->repeats, &s->results.load_s));
    b->n_phases = shapes_of(s->job, shapes);
    SAF_TRY(saf_alloc(repeats * (size_t)b->n_phases, sizeof *b->samples, &b->samples));
    SAF_TRY(saf_hw_yardstick_new((size_t)s->job->bench.read_mib << 20, &b->yardstick));
    for (int32_t i = 0; i < b->n_phases; i++)
        SAF_TRY(saf__bench_phase_new(s, &shapes[i], b->repeats, &b->phases[i]));
    for (int32_t repeat = 0; repeat < b->repeats; repeat++) {
        saf_log(SAF_LOG_INFO, "repetition %d of %d", repeat + 1, b->repeats);
        for (int32_t i = 0; i < b->n_phases; i++) SAF_TRY(measure_phase(b, repeat, i));
    }
    s->results.run_s = saf_clock_s() - s->run_start_s;
out:
    return st;
}

/* ---- rows of the results ------------------------------------------------------------------------
 */

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
static double of_peak(const saf_result_sample *m, const saf_result_phase *row) {
    double limit =
        (double)row->int8_ops / int8_rate(m, row) + (double)row->float_ops / f32_rate(m, row);
    return limit / m->seconds;
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

static saf_status phase_row(const bench *b, int32_t i, saf_result_phase *row) {
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
static saf_status load_rows(const bench *b, saf_result_phase *row, saf_result_sample *samples) {
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
                                         .sgemm_ops_per_s = none,
                                         .copy_s = (b->copies_s[i] + b->copies_s[i + 1]) / 2};
    saf_status st = fill_figures(samples, b->repeats, 1, row);
    row->tokens_per_s = row->tokens_per_s_min = row->tokens_per_s_max = none;
    return st;
}

/* The steps of a phase; what its seconds hold beyond them is sampling. */
static saf_status step_rows(const bench *b, int32_t i, const saf_result_phase *phase,
                            saf_result_step *rows, int64_t *n) {
    saf_status st = SAF_OK;
    const saf__bench_phase *p = &b->phases[i];
    double *values = NULL, sum = 0;
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
        row->limit_s = fmax((double)(cost.weight_bytes + cost.kv_bytes) / phase->read_bytes_per_s,
                            (double)cost.int8_ops / phase->int8_ops_per_s +
                                (double)cost.float_ops / phase->f32_ops_per_s);
        sum += row->seconds;
    }
    for (int64_t k = first; k < *n; k++) rows[k].share = sum > 0 ? rows[k].seconds / sum : 0;
out:
    saf_free(&values);
    return st;
}

static saf_status fill_results(const bench *b, saf_result_bench *out) {
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

saf_status saf__bench_run(saf__session *s) {
    saf_status st = SAF_OK;
    bench b = {.s = s, .repeats = s->job->bench.repeats};
    s->run_start_s = saf_clock_s();
    SAF_TRY(measure(&b));
    SAF_TRY(fill_results(&b, &s->results.bench));
out:
    for (int32_t i = 0; i < PHASES_MAX; i++) saf__bench_phase_free(&b.phases[i]);
    saf_hw_yardstick_free(&b.yardstick);
    saf_free(&b.load_s);
    saf_free(&b.copies_s);
    saf_free(&b.samples);
    return st;
}
