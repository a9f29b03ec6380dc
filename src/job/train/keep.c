/* Checkpoints of a training, between two steps: /state holds
 *
 *   parameters[n], moment1[n], moment2[n]   as src/train has them
 *   core                                    of OpenBLAS, whose bits these are
 *   curve[s, 5]                             the rows of /steps but for their numbers, as f64
 *   evaluations[e, 6]                       the rows of /evaluations, as f64
 *
 * It says nothing of the ranks; who holds which part of the moments is src/train's affair. */
#include <math.h>

#include "job/share.h"
#include "job/train/train.h"

enum { PIECE = 1 << 20, CURVE_WORDS = 5, EVALUATION_WORDS = 6, CORE_MAX = 256 };

static const struct {
    saf_train_state which;
    const char *name;
} arrays[] = {{SAF_TRAIN_PARAMETERS, "parameters"},
              {SAF_TRAIN_MOMENT1, "moment1"},
              {SAF_TRAIN_MOMENT2, "moment2"}};
enum { ARRAYS = sizeof arrays / sizeof arrays[0] };

/* ---- writing ---- */

static saf_status put_rows(const saf__training *x, saf_checkpoint_writer *w) {
    saf_status st = SAF_OK;
    const saf_result_training *t = &x->results.training;
    double *words = NULL;
    int64_t n = CURVE_WORDS * t->n_curve, m = EVALUATION_WORDS * t->n_evaluations;
    const char *core = saf_train_core();
    SAF_TRY(saf_alloc((size_t)saf_i64_max(n, m), sizeof *words, &words));
    for (int64_t i = 0; i < t->n_curve; i++) {
        const saf_result_train_step *s = &t->curve[i];
        const double row[] = {s->loss, s->learning_rate, s->gradient_norm, (double)s->tokens,
                              s->seconds};
        memcpy(words + CURVE_WORDS * i, row, sizeof row);
    }
    SAF_TRY(saf_checkpoint_put(w, "curve", SAF_DTYPE_F64, n, words));
    for (int64_t i = 0; i < t->n_evaluations; i++) {
        const saf_result_evaluation *e = &t->evaluations[i];
        const double row[] = {(double)e->step,   e->loss,          e->loss_per_byte,
                              (double)e->tokens, (double)e->bytes, e->seconds};
        memcpy(words + EVALUATION_WORDS * i, row, sizeof row);
    }
    SAF_TRY(saf_checkpoint_put(w, "evaluations", SAF_DTYPE_F64, m, words));
    st = saf_checkpoint_put(w, "core", SAF_DTYPE_U8, (int64_t)strlen(core), core);
out:
    saf_free(&words);
    return st;
}

static saf_status begin(const saf__training *x, saf_checkpoint_writer **w) {
    const saf_result_training *t = &x->results.training;
    int64_t tokens = 0;
    for (int64_t i = 0; i < t->n_curve; i++) tokens += t->curve[i].tokens;
    return saf__steps_create(&x->steps, saf_train_steps(x->train), x->settings.steps, tokens, w);
}

/* The arrays, a piece at a time; an error of writing is kept until all have come. */
static saf_status put_arrays(saf__training *x, saf_checkpoint_writer *w, float *piece,
                             saf_status *write) {
    saf_status st = SAF_OK;
    int64_t all = saf_train_parameters(&x->shape);
    for (int a = 0; a < ARRAYS; a++)
        for (int64_t at = 0; at < all; at += PIECE) {
            saf_span span = {at, saf_i64_min(all, at + PIECE)};
            SAF_TRY(saf_train_state_get(x->train, arrays[a].which, span, piece));
            if (x->rank == 0 && *write == SAF_OK)
                *write = saf_checkpoint_put_some(w, arrays[a].name, SAF_DTYPE_F32, all, at,
                                                 span.end - at, piece);
            saf_alive();
        }
out:
    return st;
}

saf_status saf__train_keep(void *training, saf_status *written) {
    saf_status st = SAF_OK;
    saf__training *x = training;
    saf_checkpoint_writer *w = NULL;
    float *piece = NULL;
    SAF_TRY(
        saf_comm_agree(x->world, x->rank == 0 ? saf_alloc(PIECE, sizeof *piece, &piece) : SAF_OK));
    if (x->rank == 0) *written = begin(x, &w);
    SAF_TRY(saf__job_alone(x->world, put_arrays(x, w, piece, written)));
    if (x->rank == 0 && *written == SAF_OK) *written = put_rows(x, w);
    if (x->rank == 0 && *written == SAF_OK) *written = saf_checkpoint_commit(w, NULL);
out:
    saf_checkpoint_writer_free(&w);
    saf_free(&piece);
    return st;
}

/* ---- going on ---- */

static saf_status bad(const saf__training *x, const char *what) {
    return saf_fail(SAF_BAD_INPUT, "%s: %s", saf_checkpoint_path(x->steps.restored), what);
}

static saf_status get_core(const saf__training *x) {
    saf_status st = SAF_OK;
    char *core = NULL;
    int64_t n = 0;
    const char *mine = saf_train_core();
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "core", SAF_DTYPE_U8, CORE_MAX, &n, &core));
    if ((size_t)n != strlen(mine) || memcmp(core, mine, (size_t)n) != 0)
        saf_log(
            SAF_LOG_WARNING,
            "the checkpoint was computed by OpenBLAS's kernels for %.*s, and goes on with those "
            "for %s: the model will be as good, but to the last bit that of neither",
            (int)n, core, mine);
out:
    saf_free(&core);
    return st;
}

static bool is_count(double v) {
    return v >= 0 && v < 0x1p53 && v == floor(v);
}

static saf_status get_curve(saf__training *x, int64_t steps) {
    saf_status st = SAF_OK;
    double *words = NULL;
    int64_t n = 0;
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "curve", SAF_DTYPE_F64,
                               CURVE_WORDS * x->settings.steps, &n, &words));
    if (n != CURVE_WORDS * steps) SAF_TRY(bad(x, "there is not one row for each step"));
    for (int64_t i = 0; i < steps; i++) {
        const double *v = words + CURVE_WORDS * i;
        if (!is_count(v[3])) SAF_TRY(bad(x, "a step of no number of tokens"));
        if (!isfinite(v[0]) || !isfinite(v[1]) || !isfinite(v[2]) || !isfinite(v[4]))
            SAF_TRY(bad(x, "a step whose numbers are not finite"));
        saf_result_train_step row = {i + 1, v[0], v[1], v[2], (int64_t)v[3], v[4]};
        SAF_TRY(saf__curve_add(x, &row));
    }
out:
    saf_free(&words);
    return st;
}

static saf_status get_evaluations(saf__training *x, int64_t steps) {
    saf_status st = SAF_OK;
    double *words = NULL, last = 0;
    int64_t n = 0;
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "evaluations", SAF_DTYPE_F64,
                               EVALUATION_WORDS * (x->settings.steps + 1), &n, &words));
    if (n % EVALUATION_WORDS != 0) SAF_TRY(bad(x, "a part of an evaluation"));
    for (int64_t i = 0; i < n / EVALUATION_WORDS; i++) {
        const double *v = words + EVALUATION_WORDS * i;
        if (!is_count(v[0]) || v[0] <= last || v[0] > (double)steps)
            SAF_TRY(bad(x, "evaluations that are not of one step after the other"));
        if (!is_count(v[3]) || !is_count(v[4]))
            SAF_TRY(bad(x, "an evaluation of no number of tokens or bytes"));
        /* Of held-out text without a byte there is no loss per byte. */
        if (!isfinite(v[1]) || isinf(v[2]) || !isfinite(v[5]))
            SAF_TRY(bad(x, "an evaluation whose numbers are not finite"));
        last = v[0];
        saf_result_evaluation row = {(int64_t)v[0], v[1], v[2], (int64_t)v[3], (int64_t)v[4], v[5]};
        SAF_TRY(saf__evaluations_add(x, &row));
    }
out:
    saf_free(&words);
    return st;
}

static saf_status get_rows(saf__training *x) {
    int64_t steps = saf_checkpoint_head_of(x->steps.restored)->done;
    saf_status st = get_curve(x, steps);
    return st == SAF_OK ? get_evaluations(x, steps) : st;
}

static saf_status check_arrays(const saf__training *x) {
    saf_status st = SAF_OK;
    int64_t all = saf_train_parameters(&x->shape), n = 0;
    const saf_checkpoint_head *head = saf_checkpoint_head_of(x->steps.restored);
    if (head->done < 0 || head->done > x->settings.steps || head->total != x->settings.steps)
        return bad(x, "another number of steps");
    for (int a = 0; a < ARRAYS; a++) {
        SAF_TRY(saf_checkpoint_count(x->steps.restored, arrays[a].name, SAF_DTYPE_F32, &n));
        if (n != all) SAF_TRY(bad(x, "another number of parameters"));
    }
out:
    return st;
}

static saf_status put_back(saf__training *x, float *piece) {
    saf_status st = SAF_OK;
    int64_t all = saf_train_parameters(&x->shape);
    for (int a = 0; a < ARRAYS; a++)
        for (int64_t at = 0; at < all; at += PIECE) {
            saf_span span = {at, saf_i64_min(all, at + PIECE)};
            st = x->rank == 0 ? saf_checkpoint_get_some(x->steps.restored, arrays[a].name,
                                                        SAF_DTYPE_F32, at, span.end - at, piece)
                              : SAF_OK;
            SAF_TRY(saf_comm_agree(x->world, st));
            SAF_TRY(saf__job_alone(x->world,
                                   saf_train_state_put(x->train, arrays[a].which, span, piece)));
        }
out:
    return st;
}

saf_status saf__train_restore(saf__training *x) {
    saf_status st = SAF_OK;
    float *piece = NULL;
    int64_t steps = 0;
    if (x->rank == 0) {
        st = check_arrays(x);
        if (st == SAF_OK) st = get_core(x);
        if (st == SAF_OK) st = get_rows(x);
        if (st == SAF_OK) st = saf_alloc(PIECE, sizeof *piece, &piece);
        steps = x->before_steps = saf_checkpoint_head_of(x->steps.restored)->done;
    }
    SAF_TRY(saf_comm_agree(x->world, st));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &steps, 1);
    SAF_TRY(saf__job_alone(x->world, saf_comm_bcast(x->world, 0, &t)));
    SAF_TRY(put_back(x, piece));
    st = saf_train_resume(x->train, steps);
    saf_checkpoint_free(&x->steps.restored);
out:
    saf_free(&piece);
    return st;
}
