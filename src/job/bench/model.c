/* Suite model: what a model does on one rank, each figure beside what the rank's threads could do
 * at best.
 *
 * In every repetition the phases follow each other, with the yardsticks before and after each, so
 * that whatever else the machine does meets all of them alike. */
#include "job/bench/bench.h"
#include "job/bench/suites.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

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

saf_status saf__suite_model_check(const saf__session *s) {
    saf__bench_shape shapes[SAF__BENCH_PHASES_MAX];
    int32_t n = shapes_of(s->job, shapes);
    int64_t most = saf_i64_min(s->params.context, INT32_MAX);
    for (int32_t i = 0; i < s->job->bench.n_completions; i++)
        if (s->job->bench.completions[i] > most - SAF__SUITE_PROMPT)
            return saf_fail(
                SAF_USAGE,
                "%s: bench.completions: %d tokens after %d positions, the model has %lld",
                s->job->path, s->job->bench.completions[i], SAF__SUITE_PROMPT, (long long)most);
    for (int32_t i = 0; i < n; i++) {
        const saf__bench_shape *h = &shapes[i];
        int64_t longest = (int64_t)h->context + (int64_t)h->tokens * h->passes;
        if (longest > most)
            return saf_fail(SAF_USAGE, "%s: %s takes %lld positions, the model has %lld",
                            s->job->path, h->name, (long long)longest, (long long)most);
    }
    return SAF_OK;
}

void saf__suite_model_plan(const saf__session *s) {
    saf__bench_shape shapes[SAF__BENCH_PHASES_MAX];
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
static saf_status sample_sgemm(const saf__bench *b, const saf__bench_phase *p, double *ops_s) {
    *ops_s = (double)NAN;
    if (p->shape.tokens == 1 || !multiplies_floats(p)) return SAF_OK;
    const saf_model_params *m = &b->s->params;
    saf_status st =
        saf_hw_sgemm_sample(b->s->settings.threads, p->shape.tokens, m->ff_width, m->width, ops_s);
    if (*ops_s == 0) *ops_s = (double)NAN;
    return st;
}

static saf_status measure_phase(saf__bench *b, int32_t repeat, int32_t i) {
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
    row->tiles_before = b->last.tile_ops_s > 0 ? b->last.tile_ops_s : (double)NAN;
    SAF_TRY(saf__bench_phase_run(p, repeat, &row->seconds));
    saf_hw_yardstick_sample(b->yardstick, &b->last);
    row->read_after = b->last.read_bytes_s;
    row->int8_after = b->last.int8_ops_s;
    row->f32_after = b->last.f32_ops_s;
    row->tiles_after = b->last.tile_ops_s > 0 ? b->last.tile_ops_s : (double)NAN;
    b->s->times.compute_s += row->seconds;
out:
    return st;
}

static saf_status measure(saf__bench *b) {
    saf_status st = SAF_OK;
    saf__bench_shape shapes[SAF__BENCH_PHASES_MAX];
    saf__session *s = b->s;
    size_t repeats = (size_t)b->repeats;
    SAF_TRY(saf_alloc(repeats, sizeof *b->load_s, &b->load_s));
    SAF_TRY(saf_alloc(repeats + 1, sizeof *b->copies_s, &b->copies_s));
    saf_log(SAF_LOG_INFO, "loading %d times", b->repeats + 1);
    SAF_TRY(saf__bench_load(s, b->repeats, b->load_s, b->copies_s));
    SAF_TRY(saf__median(b->load_s, b->repeats, &s->results.load_s));
    s->slice_s = s->results.load_s;
    b->n_phases = shapes_of(s->job, shapes);
    SAF_TRY(saf_alloc(repeats * (size_t)b->n_phases, sizeof *b->samples, &b->samples));
    SAF_TRY(saf_hw_yardstick_new((size_t)s->job->bench.read_mib << 20, &b->yardstick));
    for (int32_t i = 0; i < b->n_phases; i++)
        SAF_TRY(saf__bench_phase_new(s, &shapes[i], b->repeats, &b->phases[i]));
    for (int32_t repeat = 0; repeat < b->repeats; repeat++) {
        saf_log(SAF_LOG_INFO, "repetition %d of %d", repeat + 1, b->repeats);
        for (int32_t i = 0; i < b->n_phases; i++) SAF_TRY(measure_phase(b, repeat, i));
    }
out:
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------ */

saf_status saf__suite_model(saf__suites *w) {
    saf_status st = SAF_OK;
    saf__session *s = w->s;
    saf__bench b = {.s = s, .repeats = w->repeats};
    if (s->rank != 0) goto out;
    SAF_TRY(measure(&b));
    SAF_TRY(saf__bench_rows(&b, &s->results.bench));
out:
    for (int32_t i = 0; i < SAF__BENCH_PHASES_MAX; i++) saf__bench_phase_free(&b.phases[i]);
    saf_hw_yardstick_free(&b.yardstick);
    saf_free(&b.load_s);
    saf_free(&b.copies_s);
    saf_free(&b.samples);
    st = saf_comm_agree(s->world, st);
    if (st == SAF_OK) st = saf__suite_roofline(w);
    return st == SAF_OK ? saf__suite_scale(w) : st;
}
