/* The keys of a matmul job against each other. */
#include "job/fields.h"
#include "job/matmul/matmul.h"
#include "saf/store_matrix.h"

bool saf__matmul_c_alone(const saf_job *job) {
    return job->matmul.c && !job->matmul.a && job->matmul.n_chain == 0 && job->matmul.m < 0 &&
           job->matmul.n < 0 && job->matmul.k < 0;
}

saf_status saf__matmul_keys_check(const saf_job *job, const saf__where *given,
                                  const saf__where *whole) {
    const struct {
        const char *key, *name;
    } names[] = {{"matmul.a", job->matmul.a},
                 {"matmul.b", job->matmul.b},
                 {"matmul.c", job->matmul.c},
                 {"output.product", job->output.product}};
    bool alone = saf__matmul_c_alone(job), chain = job->matmul.n_chain > 0;
    const struct {
        const char *key;
        int32_t length;
    } lengths[] = {
        {"matmul.m", job->matmul.m}, {"matmul.n", job->matmul.n}, {"matmul.k", job->matmul.k}};
    char quoted[SAF__QUOTE_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const saf__field *f = saf__field_find(job->kind, names[i].key);
        if (names[i].name && !saf_matrix_is_name(names[i].name))
            return saf__fail_at(&given[f - saf__fields], f->key,
                                "expected FILE.h5:/DATASET, got %s",
                                saf__quote(names[i].name, quoted));
    }
    const saf__field *list = saf__field_find(job->kind, "matmul.chain");
    for (int32_t i = 0; i < job->matmul.n_chain; i++)
        if (!saf_matrix_is_name(job->matmul.chain[i]))
            return saf__fail_at(&given[list - saf__fields], list->key,
                                "expected FILE.h5:/DATASET, got %s",
                                saf__quote(job->matmul.chain[i], quoted));
    if (chain && (job->matmul.n_chain < 2 || job->matmul.a || job->matmul.b ||
                  job->matmul.transpose_a || job->matmul.transpose_b))
        return saf__fail_at(&given[list - saf__fields], list->key,
                            "expected two matrices at least, as they are stored, and no matmul.a, "
                            "b, transpose_a or transpose_b");
    if (!job->matmul.a != !job->matmul.b)
        return saf__fail_at(whole, job->matmul.a ? "matmul.b" : "matmul.a",
                            "missing, expected FILE.h5:/DATASET as the other one has");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const saf__field *f = saf__field_find(job->kind, lengths[i].key);
        if ((job->matmul.a || chain) && lengths[i].length >= 0)
            return saf__fail_at(&given[f - saf__fields], f->key,
                                "the files say how long the matrices are");
        if (!job->matmul.a && !alone && !chain && lengths[i].length < 0)
            return saf__fail_at(whole, f->key,
                                "missing, expected the lengths m, n and k of matrices to make, or "
                                "files in matmul.a and matmul.b");
    }
    if (alone && job->matmul.beta == 0)
        return saf__fail_at(whole, "matmul.beta",
                            "0, which leaves nothing of C: expected another value, or A and B");
    if (job->output.product && !job->output.store) {
        const saf__field *f = saf__field_find(job->kind, "output.product");
        return saf__fail_at(&given[f - saf__fields], f->key,
                            "given as well as output.store = false");
    }
    return SAF_OK;
}
