/* A matmul job on every rank: rank 0's job, where the ranks are, the matrices and who has them, the
 * plan. */
#include <assert.h>

#include "job/matmul/matmul.h"
#include "job/share.h"
#include "saf/core_blas.h"

/* ---- the job ---- */

static saf_status share_job(saf__matmul *x) {
    x->dry_run = x->options->dry_run;
    saf_status st = saf__job_share(x->world, x->job, &x->given_job, &x->dry_run);
    if (x->rank != 0) x->job = &x->given_job;
    return st;
}

/* Kernels for other processors give other last bits: nobody could say which ones a run has. */
static saf_status check_cores(saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_blas *blas = NULL;
    saf_buf mine = {0}, text = {0}, *all = NULL;
    bool same = true;
    st = saf_blas_load(&blas);
    if (st == SAF_OK) st = saf_buf_printf(&mine, "%s on %s", blas->core, saf_comm_host(x->world));
    if (st == SAF_OK) st = saf_buf_append(&mine, "", 1);
    if (st == SAF_OK) st = saf_alloc((size_t)x->ranks, sizeof *all, &all);
    SAF_TRY(saf_comm_agree(x->world, st));
    assert(all);
    SAF_TRY(saf_comm_gather_buf(x->world, 0, &mine, all));
    for (int r = 0; x->rank == 0 && st == SAF_OK && r < x->ranks; r++) {
        size_t core = strlen(blas->core) + 1; /* and the space: no name begins another */
        bool said = false;
        same = same && strncmp(all[r].data, mine.data, core) == 0;
        for (int q = 0; q < r && !said; q++) said = strcmp(all[q].data, all[r].data) == 0;
        if (!said && text.len < 1500)
            st = saf_buf_printf(&text, "%s%s", r > 0 ? ", " : "", all[r].data);
    }
    if (st == SAF_OK && !same)
        st =
            saf_fail(SAF_USAGE,
                     "OpenBLAS multiplies with other kernels on other ranks, which give other last "
                     "bits: %s; set OPENBLAS_CORETYPE to one that all of them can run (mpirun -x "
                     "OPENBLAS_CORETYPE=Haswell)",
                     text.data);
    st = saf_comm_agree(x->world, st);
out:
    for (int r = 0; all && r < x->ranks; r++) saf_buf_free(&all[r]);
    saf_free(&all);
    saf_buf_free(&text);
    saf_buf_free(&mine);
    return st;
}

/* Half of what there is, and more of little: or a small product would not fit beside the program.
 */
static int64_t usual_bytes(int64_t there) {
    static const int64_t LITTLE = (int64_t)256 << 20;
    return saf_i64_max(there / 2, saf_i64_min(LITTLE, there / 8 * 7));
}

static saf_status share_hosts(saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_job *job = x->job;
    SAF_TRY(saf__hosts_share(x->world, job->layout.threads, &x->host_share, &x->host));
    x->memory_bytes = job->run.memory_mib ? (int64_t)job->run.memory_mib << 20
                                          : usual_bytes(x->host_share.memory_bytes);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &x->memory_bytes, 1);
    SAF_TRY(saf_comm_allreduce(x->world, SAF_OP_MIN, &t));
    if (job->layout.n_share > 0) {
        st = saf_alloc((size_t)x->ranks, sizeof *x->share, &x->share);
        if (st == SAF_OK)
            st = saf__shares_spread(job->layout.share, job->layout.n_share, x->host, x->ranks,
                                    x->share);
        for (int r = 0; st == SAF_OK && r < x->ranks; r++) x->share[r] *= 50e9;
    }
    SAF_TRY(saf_comm_agree(x->world, st));
out:
    return st;
}

/* ---- the matrices ---- */

static const char *name_of(const saf_job *job, int32_t what) {
    const char *const names[] = {job->matmul.a, job->matmul.b, job->matmul.c};
    return names[what];
}

/* Rank 0: m, n and k of files, which must fit together. */
static saf_status shape_of_files(saf__matmul *x) {
    const saf__operand *o = x->operands;
    saf_matrix_shape s[SAF__OPERANDS] = {{0}};
    if (!o[0].file) { /* C alone */
        s[2] = saf_matrix_shape_of(o[2].file);
        x->shape = (saf_product_shape){o[2].transposed ? s[2].cols : s[2].rows,
                                       o[2].transposed ? s[2].rows : s[2].cols, 0, s[2].dtype};
        return SAF_OK;
    }
    for (int w = 0; w < SAF__OPERANDS; w++) {
        if (!o[w].file) continue;
        s[w] = saf_matrix_shape_of(o[w].file);
        if (s[w].dtype != s[0].dtype)
            return saf_fail(SAF_BAD_INPUT, "%s and %s: expected matrices of one type",
                            saf_matrix_label(o[0].file), saf_matrix_label(o[w].file));
    }
    x->shape = (saf_product_shape){.m = o[0].transposed ? s[0].cols : s[0].rows,
                                   .k = o[0].transposed ? s[0].rows : s[0].cols,
                                   .n = o[1].transposed ? s[1].rows : s[1].cols,
                                   .dtype = s[0].dtype};
    if (x->shape.k != (o[1].transposed ? s[1].cols : s[1].rows))
        return saf_fail(SAF_BAD_INPUT, "%s%s times %s%s: %lld columns do not fit %lld rows",
                        saf_matrix_label(o[0].file), o[0].transposed ? " transposed" : "",
                        saf_matrix_label(o[1].file), o[1].transposed ? " transposed" : "",
                        (long long)x->shape.k,
                        (long long)(o[1].transposed ? s[1].cols : s[1].rows));
    return SAF_OK;
}

saf_status saf__matmul_check_c(const saf__matmul *x) {
    const saf__operand *o = &x->operands[SAF__MATRIX_C];
    if (!o->file) return SAF_OK;
    saf_matrix_shape s = saf_matrix_shape_of(o->file);
    int64_t rows = o->transposed ? x->shape.n : x->shape.m,
            cols = o->transposed ? x->shape.m : x->shape.n;
    if (s.rows == rows && s.cols == cols && s.dtype == x->shape.dtype) return SAF_OK;
    return saf_fail(SAF_BAD_INPUT, "%s: expected %lld x %lld, float%d, as the product is",
                    saf_matrix_label(o->file), (long long)rows, (long long)cols,
                    x->shape.dtype == SAF_DTYPE_F64 ? 64 : 32);
}

/* Whether FILE.h5:/DATASET `name` is in the file of `to`: a file, or likewise a dataset. */
static saf_status is_same_file(const char *name, const char *to, bool dataset, bool *same) {
    saf_status st = SAF_OK;
    char *from = NULL, *file = NULL, *path = NULL;
    SAF_TRY(saf_matrix_name_split(name, &from, &path));
    saf_free(&path);
    st = dataset ? saf_matrix_name_split(to, &file, &path) : saf_strdup(to, &file);
    if (st != SAF_OK) goto out;
    *same = saf_file_is_same(from, file);
out:
    saf_free(&from);
    saf_free(&file);
    saf_free(&path);
    return st;
}

saf_status saf__matmul_check_output(const saf_job *job, const char *name) {
    saf_status st = SAF_OK;
    for (int k = 0; name && k < 2; k++) {
        const char *to = k ? job->output.product : job->output.file;
        bool same = false;
        if (to) SAF_TRY(is_same_file(name, to, k == 1, &same));
        if (same)
            return saf_fail(SAF_USAGE,
                            "%s would be replaced by what is made of it: choose "
                            "another %s",
                            name, k ? "output.product" : "output.file");
    }
out:
    return st;
}

/* The product takes the place of its file at the end: of none that is read. */
static saf_status check_output(const saf__matmul *x) {
    saf_status st = SAF_OK;
    for (int w = 0; w < SAF__OPERANDS && st == SAF_OK; w++)
        st = saf__matmul_check_output(x->job, name_of(x->job, w));
    return st;
}

static saf_status open_files(saf__matmul *x) {
    saf_status st = SAF_OK;
    for (int w = 0; w < SAF__OPERANDS; w++) {
        saf__operand *o = &x->operands[w];
        const char *name = name_of(x->job, w);
        if (!o->wanted || !name) continue;
        st = saf_matrix_open(name, &o->file);
        if (st == SAF_NO_INPUT && x->rank != 0) st = SAF_OK; /* rank 0 has it */
        if (st != SAF_OK) goto out;
    }
out:
    return st;
}

/* What a rank opens must be what rank 0 has. */
static saf_status check_same(saf__matmul *x) {
    saf_status st = SAF_OK;
    struct {
        int64_t rows, cols, dtype;
        char sample[40];
    } of[SAF__OPERANDS], mine[SAF__OPERANDS];
    memset(mine, 0, sizeof mine);
    for (int w = 0; w < SAF__OPERANDS && st == SAF_OK; w++) {
        saf_matrix *m = x->operands[w].file;
        if (!m) continue;
        saf_matrix_shape s = saf_matrix_shape_of(m);
        mine[w].rows = s.rows;
        mine[w].cols = s.cols;
        mine[w].dtype = s.dtype;
        st = saf_matrix_sample(m, mine[w].sample);
    }
    SAF_TRY(saf_comm_agree(x->world, st));
    memcpy(of, mine, sizeof of);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, of, (int64_t)sizeof of);
    SAF_TRY(saf_comm_bcast(x->world, 0, &t));
    for (int w = 0; w < SAF__OPERANDS && st == SAF_OK; w++)
        if (x->operands[w].file && memcmp(&of[w], &mine[w], sizeof of[w]) != 0)
            st = saf_fail(SAF_BAD_INPUT, "%s: another matrix than rank 0's",
                          saf_matrix_label(x->operands[w].file));
    SAF_TRY(saf_comm_agree(x->world, st));
out:
    return st;
}

static saf_status open_matrices(saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_job *job = x->job;
    bool alone = saf__matmul_c_alone(job), made = !job->matmul.a && !alone;
    saf__operand *o = x->operands;
    o[0].transposed = job->matmul.transpose_a;
    o[1].transposed = job->matmul.transpose_b;
    o[2].transposed = job->matmul.transpose_c;
    o[0].wanted = o[1].wanted = !alone;
    o[2].wanted = job->matmul.beta != 0;
    st = open_files(x);
    if (st == SAF_OK && x->rank == 0) {
        x->shape = (saf_product_shape){job->matmul.m, job->matmul.n, job->matmul.k,
                                       job->matmul.type ? SAF_DTYPE_F64 : SAF_DTYPE_F32};
        if (!made) st = shape_of_files(x);
        if (st == SAF_OK) st = saf__matmul_check_c(x);
        if (st == SAF_OK) st = check_output(x);
    }
    SAF_TRY(saf_comm_agree(x->world, st));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, &x->shape, (int64_t)sizeof x->shape);
    SAF_TRY(saf_comm_bcast(x->world, 0, &t));
    SAF_TRY(check_same(x));
    const int64_t sides[SAF__OPERANDS][2] = {
        {x->shape.m, x->shape.k}, {x->shape.k, x->shape.n}, {x->shape.m, x->shape.n}};
    for (int w = 0; w < SAF__OPERANDS; w++) {
        o[w].rows = sides[w][0];
        o[w].cols = sides[w][1];
        o[w].here = o[w].wanted && (o[w].file || !name_of(job, w));
    }
out:
    return st;
}

/* ---- the plan ---- */

static saf_status make_plan(saf__matmul *x) {
    saf_status st = SAF_OK;
    int64_t *other = NULL;
    SAF_TRY(saf__matmul_other_bytes(x, &other));
    saf_product_ranks ranks = {.ranks = x->ranks,
                               .host = x->host,
                               .speed = x->share,
                               .memory_bytes = x->memory_bytes,
                               .other_bytes = other};
    SAF_TRY(saf_comm_agree(x->world, saf_product_plan_new(&x->shape, &ranks, &x->plan)));
out:
    saf_free(&other);
    return st;
}

saf_status saf__matmul_open(saf__matmul *x) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("opening");
    SAF_TRY(share_job(x));
    SAF_TRY(saf_comm_watch(x->world, x->job->run.watchdog_seconds));
    SAF_TRY(check_cores(x));
    SAF_TRY(share_hosts(x));
    SAF_TRY(open_matrices(x));
    SAF_TRY(make_plan(x));
    SAF_TRY(saf__regions_new(x->world, x->shape.dtype, saf__matmul_region, saf__matmul_store, x,
                             &x->regions));
out:
    return st;
}
