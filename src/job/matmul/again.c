/* A product that was begun before: it is there already, or goes on from its newest checkpoint,
 * unless what is there is of another job. Rank 0. */
#include <unistd.h>

#include "job/fields.h"
#include "job/matmul/matmul.h"
#include "job/saver.h"
#include "saf/core_signals.h"

/* The shape, the settings that change values, and of files what is in them. */
saf_status saf__matmul_identity(saf__matmul *x) {
    saf_identity *id = &x->results.identity;
    static const char *const names[] = {"matmul.a", "matmul.b", "matmul.c"};
    saf_status st = SAF_OK;
    saf_buf text = {0};
    char hex[33];
    SAF_TRY(saf_identity_add(id, "job", saf_job_kind_name(x->job->kind)));
    SAF_TRY(saf_buf_printf(&text, "m %lld, n %lld, k %lld, %s", (long long)x->shape.m,
                           (long long)x->shape.n, (long long)x->shape.k,
                           saf_dtype_name(x->shape.dtype)));
    SAF_TRY(saf_identity_add(id, "shape", text.data));
    SAF_TRY(saf__identity_settings(x->job, id));
    for (int i = 0; x->chain && i < x->chain->n; i++) {
        saf_buf_clear(&text);
        SAF_TRY(saf_buf_printf(&text, "matmul.chain[%d]", i));
        SAF_TRY(saf_identity_add(id, text.data, x->chain->fingerprint[i]));
    }
    for (int w = x->chain ? SAF__MATRIX_C : SAF__MATRIX_A; w < SAF__OPERANDS; w++) {
        const saf__operand *o = &x->operands[w];
        if (!o->wanted) continue;
        if (o->file) SAF_TRY(saf_matrix_fingerprint(o->file, hex));
        SAF_TRY(saf_identity_add(id, names[w], o->file ? hex : "made"));
    }
out:
    saf_buf_free(&text);
    return st;
}

static saf_status go_on(saf__matmul *x, saf_checkpoint **c) {
    saf_status st = SAF_OK;
    const saf_checkpoint_head *head = saf_checkpoint_head_of(*c);
    SAF_TRY(saf_strdup(head->start_time, &x->results.start_time));
    x->before_s = head->seconds;
    x->results.resumes = head->resumes + 1;
    saf_signals_exit_code(saf_status_exit_code(SAF_STOPPED));
    if (!x->options->quiet)
        saf_log(SAF_LOG_INFO, "goes on from %s: %lld of %lld tile products done",
                saf_checkpoint_path(*c), (long long)head->done, (long long)head->total);
    x->restored = *c;
    x->goes_on = true;
    *c = NULL;
out:
    return st;
}

static bool is_there(const char *name) {
    saf_matrix *m = NULL;
    bool there = saf_matrix_open(name, &m) == SAF_OK;
    saf_matrix_close(&m);
    return there;
}

saf_status saf__matmul_is_over(const saf__matmul *x, bool *over) {
    saf_status st = SAF_OK;
    const char *file = x->job->output.file, *own = x->job->output.product;
    saf_results r = {0};
    *over = false;
    if (x->options->fresh || access(file, F_OK) != 0) goto out;
    SAF_TRY(saf__results_read(file, &r));
    SAF_TRY(saf__results_check(&x->results.identity, &r, file));
    *over = !own || is_there(own);
out:
    saf_results_free(&r);
    return st;
}

bool saf__matmul_is_begun(const saf__matmul *x, const char *since) {
    const char *file = x->job->output.file;
    saf_results r = {0};
    saf_checkpoint *c = NULL;
    bool begun = access(file, F_OK) == 0 && saf__results_read(file, &r) == SAF_OK &&
                 saf__results_check(&x->results.identity, &r, file) == SAF_OK && r.end_time &&
                 strcmp(r.end_time, since) > 0;
    if (!begun && saf_checkpoint_open_newest(file, &c) == SAF_OK && c)
        begun = saf_identity_check(&x->results.identity, &saf_checkpoint_head_of(c)->identity,
                                   saf_checkpoint_path(c)) == SAF_OK &&
                strcmp(saf_checkpoint_head_of(c)->written, since) > 0;
    saf_checkpoint_free(&c);
    saf_results_free(&r);
    return begun;
}

saf_status saf__matmul_again(saf__matmul *x) {
    saf_status st = SAF_OK;
    const char *file = x->job->output.file, *own = x->job->output.product;
    saf_results r = {0};
    saf_checkpoint *c = NULL;
    SAF_TRY(saf__matmul_identity(x));
    if (x->options->fresh) return SAF_OK;
    bool exists = access(file, F_OK) == 0;
    if (exists) SAF_TRY(saf__results_read(file, &r));
    if (exists && saf__results_check(&x->results.identity, &r, file) == SAF_OK) {
        /* A product whose file is gone is made again. */
        x->over = !own || is_there(own);
        if (x->over)
            saf_log(SAF_LOG_INFO,
                    "%s has the results of this job: nothing to compute (--fresh starts over)",
                    file);
        if (x->over) goto out;
    }
    SAF_TRY(saf_checkpoint_open_newest(file, &c));
    /* A checkpoint of this job beside results of another: those were to be replaced. */
    if (c) {
        st = saf_identity_check(&x->results.identity, &saf_checkpoint_head_of(c)->identity,
                                saf_checkpoint_path(c));
        if (st == SAF_OK) st = go_on(x, &c);
        if (st != SAF_BAD_INPUT || !exists) goto out;
    }
    st = SAF_OK;
    if (exists && !(x->chain && x->chain->replaces))
        st = saf__results_check(&x->results.identity, &r, file);
out:
    saf_checkpoint_free(&c);
    saf_results_free(&r);
    return st;
}
