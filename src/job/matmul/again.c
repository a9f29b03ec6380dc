/* What makes a product another job, and whether there is anything of it already. Rank 0. */
#include <unistd.h>

#include "job/fields.h"
#include "job/matmul/matmul.h"
#include "job/saver.h"

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

static bool is_there(const char *name) {
    saf_matrix *m = NULL;
    bool there = saf_matrix_open(name, &m) == SAF_OK;
    saf_matrix_close(&m);
    return there;
}

bool saf__matmul_is_there(const void *matmul) {
    const saf__matmul *x = matmul;
    return !x->job->output.product || is_there(x->job->output.product);
}

saf_status saf__matmul_is_over(const saf__matmul *x, bool *over) {
    saf_status st = SAF_OK;
    const char *file = x->job->output.file;
    saf_results r = {0};
    *over = false;
    if (x->options->fresh || access(file, F_OK) != 0) goto out;
    SAF_TRY(saf__results_read(file, &r));
    SAF_TRY(saf__results_check(&x->results.identity, &r, file));
    *over = saf__matmul_is_there(x);
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
