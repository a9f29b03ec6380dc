/* The product of many matrices as products of two, one after another, each a job of its own beside
 * the results (OUT.chain-1.h5, ...): so it is stopped, goes on and is checked as any. Which two
 * comes first follows from the shapes alone: the fewest operations by dynamic programming (Godbole
 * 1973), and of equal ones the split nearest to the first matrix. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "job/fields.h"
#include "job/matmul/matmul.h"
#include "job/saver.h"

enum { MOST = SAF__CHAIN_MOST };

/* Rank 0. A step multiplies what two spans of matrices come to. */
typedef struct {
    int32_t first, split, last; /* [first, split] times [split + 1, last] */
} step;

typedef struct {
    const saf_job *job;
    int32_t n, n_steps;
    int64_t length[MOST + 1]; /* matrix i is length[i] x length[i + 1] */
    saf_dtype dtype;
    char fingerprint[MOST][33];
    double cost[MOST][MOST];
    int32_t split[MOST][MOST];
    step steps[MOST];
    saf_buf order;
} plan;

/* ---- the order ---- */

static saf_status look_at(plan *p, int32_t i) {
    saf_status st = SAF_OK;
    saf_matrix *m = NULL;
    SAF_TRY(saf__matmul_check_output(p->job, p->job->matmul.chain[i]));
    SAF_TRY(saf_matrix_open(p->job->matmul.chain[i], &m));
    saf_matrix_shape s = saf_matrix_shape_of(m);
    if (i > 0 && s.rows != p->length[i])
        st = saf_fail(SAF_BAD_INPUT, "matmul.chain: %lld columns do not fit %s",
                      (long long)p->length[i], saf_matrix_label(m));
    if (i > 0 && st == SAF_OK && s.dtype != p->dtype)
        st = saf_fail(SAF_BAD_INPUT, "matmul.chain: %s is of another type than the first one",
                      saf_matrix_label(m));
    if (st != SAF_OK) goto out;
    p->length[i] = s.rows;
    p->length[i + 1] = s.cols;
    p->dtype = s.dtype;
out:
    saf_matrix_close(&m);
    return st;
}

/* What the whole is as a product, and C of it, which x->operands then has open. */
static saf_status open_c(const plan *p, const saf_job *job, saf__matmul *x) {
    saf_status st = SAF_OK;
    saf__operand *c = &x->operands[SAF__MATRIX_C];
    x->shape = (saf_product_shape){.m = p->length[0], .n = p->length[p->n], .dtype = p->dtype};
    c->wanted = job->matmul.beta != 0;
    c->transposed = job->matmul.transpose_c;
    if (!c->wanted || !job->matmul.c) return SAF_OK;
    SAF_TRY(saf_matrix_open(job->matmul.c, &c->file));
    st = saf__matmul_check_c(x);
out:
    return st;
}

static saf_status look_at_c(const plan *p) {
    saf_status st = SAF_OK;
    saf__matmul x = {.job = p->job};
    SAF_TRY(open_c(p, p->job, &x));
    if (x.operands[SAF__MATRIX_C].file) st = saf__matmul_check_output(p->job, p->job->matmul.c);
out:
    saf_matrix_close(&x.operands[SAF__MATRIX_C].file);
    return st;
}

static saf_status read_fingerprints(plan *p) {
    saf_status st = SAF_OK;
    saf_matrix *m = NULL;
    for (int32_t i = 0; i < p->n; i++) {
        SAF_TRY(saf_matrix_open(p->job->matmul.chain[i], &m));
        SAF_TRY(saf_matrix_fingerprint(m, p->fingerprint[i]));
        saf_matrix_close(&m);
    }
out:
    saf_matrix_close(&m);
    return st;
}

static void weigh(plan *p) {
    for (int32_t span = 1; span < p->n; span++)
        for (int32_t i = 0; i + span < p->n; i++) {
            int32_t j = i + span;
            for (int32_t s = i; s < j; s++) {
                double cost = p->cost[i][s] + p->cost[s + 1][j] +
                              2.0 * (double)p->length[i] * (double)p->length[s + 1] *
                                  (double)p->length[j + 1];
                if (s > i && cost >= p->cost[i][j]) continue;
                p->cost[i][j] = cost;
                p->split[i][j] = s;
            }
        }
}

/* Steps in the order that they are done in, and the words for them. As deep as the list is long. */
static saf_status list_steps(  // NOLINT(misc-no-recursion)
    plan *p, int32_t i, int32_t j) {
    saf_status st = SAF_OK;
    if (i == j) return saf_buf_printf(&p->order, "%s", p->job->matmul.chain[i]);
    SAF_TRY(saf_buf_printf(&p->order, "("));
    SAF_TRY(list_steps(p, i, p->split[i][j]));
    SAF_TRY(saf_buf_printf(&p->order, " "));
    SAF_TRY(list_steps(p, p->split[i][j] + 1, j));
    SAF_TRY(saf_buf_printf(&p->order, ")"));
    p->steps[p->n_steps++] = (step){i, p->split[i][j], j};
out:
    return st;
}

static saf_status make_plan(plan *p) {
    saf_status st = SAF_OK;
    p->n = p->job->matmul.n_chain;
    for (int32_t i = 0; i < p->n; i++) SAF_TRY(look_at(p, i));
    SAF_TRY(look_at_c(p));
    weigh(p);
    st = list_steps(p, 0, p->n - 1);
out:
    return st;
}

/* ---- a step ---- */

static saf_status file_of(const plan *p, int32_t number, saf_buf *out) {
    saf_buf_clear(out);
    return saf_buf_printf(out, "%s.chain-%d.h5", p->job->output.file, number + 1);
}

/* What a span comes to: a matrix of the list, or the product of an earlier step. */
static saf_status name_of(const plan *p, int32_t first, int32_t last, char **out) {
    saf_status st = SAF_OK;
    saf_buf name = {0};
    int32_t s = 0;
    saf_free(out);
    if (first == last) return saf_strdup(p->job->matmul.chain[first], out);
    while (p->steps[s].first != first || p->steps[s].last != last) s++;
    SAF_TRY(file_of(p, s, &name));
    SAF_TRY(saf_buf_printf(&name, ":/C"));
    st = saf_strdup(name.data, out);
out:
    saf_buf_free(&name);
    return st;
}

static saf_status job_of(const plan *p, int32_t number, saf_job *job) {
    saf_status st = SAF_OK;
    const step *s = &p->steps[number];
    saf_buf file = {0};
    SAF_TRY(saf__job_of_text(p->job->text, p->job->path, job));
    for (int32_t i = 0; i < job->matmul.n_chain; i++) saf_free(&job->matmul.chain[i]);
    job->matmul.n_chain = 0;
    SAF_TRY(name_of(p, s->first, s->split, &job->matmul.a));
    SAF_TRY(name_of(p, s->split + 1, s->last, &job->matmul.b));
    if (number < p->n_steps - 1) {
        SAF_TRY(file_of(p, number, &file));
        saf_free(&job->output.file);
        saf_free(&job->output.product);
        SAF_TRY(saf_strdup(file.data, &job->output.file));
        saf_free(&job->matmul.c);
        job->matmul.transpose_c = false;
        job->matmul.alpha = 1;
        job->matmul.beta = 0;
        job->output.store = true;
    }
    st = saf__job_rewrite(job);
out:
    saf_buf_free(&file);
    return st;
}

/* For a dry run, which has no product of an earlier step: matrices of the same shapes that are
 * made. */
static saf_status print_step(const plan *p, int32_t number, saf_job *job) {
    const step *s = &p->steps[number];
    printf("\nproduct %d of %d: %s times %s\n", number + 1, p->n_steps, job->matmul.a,
           job->matmul.b);
    saf_free(&job->matmul.a);
    saf_free(&job->matmul.b);
    const int64_t sides[] = {p->length[s->first], p->length[s->last + 1], p->length[s->split + 1]};
    int32_t *const to[] = {&job->matmul.m, &job->matmul.n, &job->matmul.k};
    for (int i = 0; i < 3; i++) {
        if (sides[i] > INT32_MAX)
            return saf_fail(SAF_USAGE,
                            "--dry-run plans no product of a chain with a side longer than %d, and "
                            "this one has %lld",
                            INT32_MAX, (long long)sides[i]);
        *to[i] = (int32_t)sides[i];
    }
    job->matmul.type = p->dtype == SAF_DTYPE_F64;
    return saf__job_rewrite(job);
}

/* ---- all of them ---- */

/* Whether the first step was begun after the results that are there; it stays until all are done.
 * Older ones are what a run left that was killed at its end. */
static saf_status is_begun(const plan *p, const saf_run_options *options, bool *begun) {
    saf_status st = SAF_OK;
    const step *s = &p->steps[0];
    saf_job job = {0};
    saf__matmul x = {.job = &job, .options = options};
    saf_results there = {0};
    SAF_TRY(saf__results_read(p->job->output.file, &there));
    SAF_TRY(job_of(p, 0, &job));
    x.shape = (saf_product_shape){p->length[s->first], p->length[s->last + 1],
                                  p->length[s->split + 1], p->dtype};
    x.operands[SAF__MATRIX_A].wanted = x.operands[SAF__MATRIX_B].wanted = true;
    SAF_TRY(saf_matrix_open(job.matmul.a, &x.operands[SAF__MATRIX_A].file));
    SAF_TRY(saf_matrix_open(job.matmul.b, &x.operands[SAF__MATRIX_B].file));
    SAF_TRY(saf__matmul_identity(&x));
    *begun = saf__matmul_is_begun(&x, there.end_time ? there.end_time : "");
out:
    for (int w = 0; w < SAF__OPERANDS; w++) saf_matrix_close(&x.operands[w].file);
    saf_results_free(&there);
    saf_results_free(&x.results);
    saf_job_free(&job);
    return st;
}

/* Rank 0: whether the results of the whole are there. Those of another job are in the way, unless
 * this one was begun to replace them. */
static saf_status look_for_results(const plan *p, saf__chain *of, const saf_run_options *options,
                                   bool *over) {
    saf_status st = SAF_OK;
    const step *s = &p->steps[p->n_steps - 1];
    saf_job job = {0};
    saf__matmul x = {.job = &job, .options = options, .chain = of};
    SAF_TRY(job_of(p, p->n_steps - 1, &job));
    SAF_TRY(open_c(p, &job, &x));
    x.shape.k = p->length[s->split + 1];
    SAF_TRY(saf__matmul_identity(&x));
    st = saf__matmul_is_over(&x, over);
    if (st == SAF_BAD_INPUT) {
        of->replaces = saf__matmul_is_begun(&x, "");
        if (!of->replaces && p->n_steps > 1) SAF_TRY(is_begun(p, options, &of->replaces));
        /* Once more for its words, which the others took the place of. */
        st = of->replaces ? SAF_OK : saf__matmul_is_over(&x, over);
    }
    if (st == SAF_OK && *over)
        saf_log(SAF_LOG_INFO,
                "%s has the results of this job: nothing to compute (--fresh starts over)",
                job.output.file);
out:
    saf_matrix_close(&x.operands[SAF__MATRIX_C].file);
    saf_results_free(&x.results);
    saf_job_free(&job);
    return st;
}

/* Those that a killed run left behind as well, with their checkpoints. */
static saf_status remove_steps(const plan *p) {
    saf_status st = SAF_OK;
    saf_buf file = {0};
    for (int32_t s = 0; s < p->n_steps - 1; s++) {
        SAF_TRY(file_of(p, s, &file));
        if (unlink(file.data) != 0 && errno != ENOENT)
            saf_log(SAF_LOG_WARNING, "cannot remove %s", file.data);
        if (saf_checkpoints_remove(file.data) != SAF_OK)
            saf_log(SAF_LOG_WARNING, "%s", saf_error_text());
    }
out:
    saf_buf_free(&file);
    return st;
}

/* Rank 0: 0 steps where there is nothing to do. */
static saf_status begin(plan *p, saf__chain *of, const saf_run_options *options, int32_t *steps) {
    saf_status st = SAF_OK;
    bool over = false;
    SAF_TRY(make_plan(p));
    *of = (saf__chain){p->n, p->fingerprint, p->order.data, p->job, false};
    if (options->dry_run) {
        printf("%s: %.3g operations\n", p->order.data, p->cost[0][p->n - 1]);
    } else {
        SAF_TRY(read_fingerprints(p));
        SAF_TRY(look_for_results(p, of, options, &over));
        /* Of another job they would be in the way of a run that goes on. */
        if (options->fresh) SAF_TRY(remove_steps(p));
        if (!over && !options->quiet) saf_log(SAF_LOG_INFO, "multiplies %s", p->order.data);
    }
    *steps = over ? 0 : p->n_steps;
out:
    return st;
}

saf_status saf__matmul_chain(saf_comm *world, const saf_job *job, const saf_run_options *options) {
    saf_status st = SAF_OK;
    bool first = saf_comm_rank(world) == 0;
    plan *p = NULL;
    saf__chain of = {.n = 0};
    saf_job one = {0};
    int32_t steps = 0;
    st = saf_alloc(1, sizeof *p, &p);
    if (st == SAF_OK && first) {
        p->job = job;
        st = begin(p, &of, options, &steps);
    }
    SAF_TRY(saf_comm_agree(world, st));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &steps, 1);
    SAF_TRY(saf_comm_bcast(world, 0, &t));
    for (int32_t s = 0; s < steps; s++) {
        saf_job_free(&one);
        if (first) st = job_of(p, s, &one);
        if (first && st == SAF_OK && options->dry_run) st = print_step(p, s, &one);
        SAF_TRY(saf_comm_agree(world, st));
        SAF_TRY(saf__matmul_one(world, &one, options, first && s == steps - 1 ? &of : NULL));
    }
    if (first && !options->dry_run) st = remove_steps(p);
    st = saf_comm_agree(world, st);
out:
    if (p) saf_buf_free(&p->order);
    saf_free(&p);
    saf_job_free(&one);
    return st;
}
