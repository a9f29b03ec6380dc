/* What a train job did: the model, the texts, the curve. */
#include <math.h>

#include "cli/grid.h"
#include "cli/report.h"

enum { ROWS_SHOWN = 20 };

static saf_status print_text(FILE *out, const char *name, const char *text, const char *more) {
    saf_status st = SAF_OK;
    saf_buf shown = {0}, rest = {0};
    if (!text || !text[0]) return SAF_OK;
    SAF_TRY(saf__show_text(&shown, text, 300));
    SAF_TRY(saf__show_text(&rest, more ? more : "", 100));
    fprintf(out, "%-10s %s%s%s\n", name, shown.data, rest.len > 0 ? ", " : "",
            rest.len > 0 ? rest.data : "");
out:
    saf_buf_free(&shown);
    saf_buf_free(&rest);
    return st;
}

static const saf_result_train_step *step_of(const saf_result_training *t, int64_t step) {
    for (int64_t i = 0; i < t->n_curve; i++)
        if (t->curve[i].step == step) return &t->curve[i];
    return NULL;
}

static saf_status add_row(saf__grid *g, const saf_result_train_step *s,
                          const saf_result_evaluation *e) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__grid_cell(g, "%lld", (long long)(e ? e->step : s->step)));
    SAF_TRY(s ? saf__grid_cell(g, "%.4f", s->loss) : saf__grid_cell(g, "%s", "-"));
    SAF_TRY(e ? saf__grid_cell(g, "%.4f", e->loss) : saf__grid_cell(g, "%s", "-"));
    SAF_TRY(e ? saf__grid_cell(g, "%.4f", e->loss_per_byte) : saf__grid_cell(g, "%s", "-"));
    SAF_TRY(s ? saf__grid_cell(g, "%.3g", s->learning_rate) : saf__grid_cell(g, "%s", "-"));
    SAF_TRY(s ? saf__grid_cell(g, "%.3f", s->gradient_norm) : saf__grid_cell(g, "%s", "-"));
    st = s ? saf__grid_cell(g, "%.0f", s->seconds > 0 ? (double)s->tokens / s->seconds : 0)
           : saf__grid_cell(g, "%s", "-");
out:
    return st;
}

/* The evaluations, or, of a job without, the steps; of many some, the last one always. */
static saf_status print_curve(FILE *out, const saf_result_training *t) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    int64_t n = t->n_evaluations > 0 ? t->n_evaluations : t->n_curve;
    int64_t stride = saf_ceil_div(n, ROWS_SHOWN);
    if (n == 0) return SAF_OK;
    SAF_TRY(saf__grid_begin(&g, "step|loss|held out|nats/byte|rate|gradient|tokens/s"));
    for (int64_t i = (n - 1) % stride; i < n; i += stride) {
        const saf_result_evaluation *e = t->n_evaluations > 0 ? &t->evaluations[i] : NULL;
        SAF_TRY(add_row(&g, e ? step_of(t, e->step) : &t->curve[i], e));
    }
    SAF_TRY(saf__grid_print(&g, out));
    fputc('\n', out);
out:
    saf__grid_free(&g);
    return st;
}

saf_status saf__report_training(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    const saf_result_training *t = &r->training;
    char more[160];
    snprintf(more, sizeof more, "vocabulary %lld: %lld parameters", (long long)t->vocab,
             (long long)t->parameters);
    SAF_TRY(print_text(out, "shape", t->shape, more));
    SAF_TRY(print_text(out, "written", t->model, t->model_type));
    SAF_TRY(print_text(out, "weights", t->weights_sha256, NULL));
    SAF_TRY(print_text(out, "OpenBLAS", t->core, NULL));
    fprintf(out, "text       %lld tokens (%lld bytes), and %lld (%lld) held out\n",
            (long long)t->text_tokens, (long long)t->text_bytes, (long long)t->held_out_tokens,
            (long long)t->held_out_bytes);
    fprintf(out, "steps      %lld of %lld sequences of %lld tokens in %lld micro-batches\n",
            (long long)t->steps, (long long)t->batch, (long long)t->context,
            (long long)t->micro_batches);
    fprintf(out, "speed      %.0f tokens/s, %.1f GFLOP/s of matrix products\n", t->tokens_per_s,
            t->flops_per_s * 1e-9);
    if (isfinite(t->held_out_loss))
        fprintf(out, "held out   %.4f nats per token, %.4f nats per byte\n", t->held_out_loss,
                t->held_out_loss_per_byte);
    fputc('\n', out);
    st = print_curve(out, t);
out:
    return st;
}
