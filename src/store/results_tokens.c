/* /tokens and /logprobs: arrays of all requests, one after the other, with offsets. */
#include <math.h>

#include "store/writer.h"

typedef struct {
    const void *data;
    int64_t rows;
} piece;

/* Writes pieces of `cols` values of `size` bytes a row (cols 0: one value), and unless NULL the
 * offsets. */
static saf_status write_pieces(const saf__h5 *f, const saf__h5_label *values,
                               const saf__h5_label *offsets, hid_t file_type, hid_t memory_type,
                               size_t row_bytes, int64_t cols, const piece *pieces, int64_t n) {
    saf_status st = SAF_OK;
    int64_t *starts = NULL;
    char *all = NULL;
    SAF_TRY(saf_alloc((size_t)n + 1, sizeof *starts, &starts));
    for (int64_t i = 0; i < n; i++) starts[i + 1] = starts[i] + pieces[i].rows;
    SAF_TRY(saf_alloc((size_t)starts[n], row_bytes, &all));
    for (int64_t i = 0; i < n; i++)
        if (pieces[i].rows > 0)
            memcpy(all + (size_t)starts[i] * row_bytes, pieces[i].data,
                   (size_t)pieces[i].rows * row_bytes);
    SAF_TRY(saf__h5_put_array(f, values, file_type, memory_type, starts[n], cols, all));
    if (offsets)
        SAF_TRY(saf__h5_put_array(f, offsets, H5T_STD_I64LE, H5T_NATIVE_INT64, n + 1, 0, starts));
out:
    saf_free(&all);
    saf_free(&starts);
    return st;
}

saf_status saf__results_write_tokens(const saf__h5 *f, const saf_results *r) {
    saf_status st = SAF_OK;
    piece *p = NULL;
    int64_t n = r->n_requests;
    SAF_TRY(saf_alloc((size_t)n, sizeof *p, &p));
    for (int64_t i = 0; i < n; i++) {
        const saf_result_request *q = &r->requests[i];
        p[i] = (piece){q->prompt_ids, q->prompt_ids ? q->prompt_tokens : 0};
    }
    SAF_TRY(write_pieces(f, &saf__tokens_prompt, &saf__tokens_prompt_offsets, H5T_STD_I32LE,
                         H5T_NATIVE_INT32, sizeof(int32_t), 0, p, n));
    for (int64_t i = 0; i < n; i++) {
        const saf_result_request *q = &r->requests[i];
        p[i] = (piece){q->completion_ids, q->completion_ids ? q->completion_tokens : 0};
    }
    SAF_TRY(write_pieces(f, &saf__tokens_completion, &saf__tokens_completion_offsets, H5T_STD_I32LE,
                         H5T_NATIVE_INT32, sizeof(int32_t), 0, p, n));
out:
    saf_free(&p);
    return st;
}

/* Every request has the same number of alternatives or none: those get rows of -1 and NaN, so
 * that the rows keep to the offsets of the values. */
static saf_status write_top(const saf__h5 *f, const saf_results *r, int64_t n_top, int64_t most) {
    saf_status st = SAF_OK;
    piece *p = NULL;
    int32_t *no_ids = NULL;
    float *no_values = NULL;
    int64_t n = r->n_requests;
    size_t cells;
    if (!saf_size_mul((size_t)most, (size_t)n_top, &cells))
        return saf_fail(SAF_DEFECT, "%lld alternatives per token", (long long)n_top);
    SAF_TRY(saf_alloc((size_t)n, sizeof *p, &p));
    SAF_TRY(saf_alloc(cells, sizeof *no_ids, &no_ids));
    SAF_TRY(saf_alloc(cells, sizeof *no_values, &no_values));
    for (size_t i = 0; i < cells; i++) no_ids[i] = -1, no_values[i] = NAN;
    for (int64_t i = 0; i < n; i++) {
        const saf_result_request *q = &r->requests[i];
        p[i] = (piece){q->top_ids ? q->top_ids : no_ids, saf__logprob_count(r, q)};
    }
    SAF_TRY(write_pieces(f, &saf__logprobs_top_ids, NULL, H5T_STD_I32LE, H5T_NATIVE_INT32,
                         (size_t)n_top * sizeof(int32_t), n_top, p, n));
    for (int64_t i = 0; i < n; i++) {
        const saf_result_request *q = &r->requests[i];
        p[i].data = q->top_ids ? q->top_logprobs : no_values;
    }
    SAF_TRY(write_pieces(f, &saf__logprobs_top_values, NULL, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT,
                         (size_t)n_top * sizeof(float), n_top, p, n));
out:
    saf_free(&no_values);
    saf_free(&no_ids);
    saf_free(&p);
    return st;
}

saf_status saf__results_write_logprobs(const saf__h5 *f, const saf_results *r) {
    saf_status st = SAF_OK;
    piece *p = NULL;
    int64_t n_top = 0, most = 0, n = r->n_requests;
    bool any = false;
    SAF_TRY(saf_alloc((size_t)n, sizeof *p, &p));
    for (int64_t i = 0; i < n; i++) {
        const saf_result_request *q = &r->requests[i];
        p[i] = (piece){q->logprobs, saf__logprob_count(r, q)};
        any = any || q->logprobs;
        most = saf_i64_max(most, p[i].rows);
        if (!q->top_ids || q->n_top == 0) continue;
        if (!q->logprobs || !q->top_logprobs || (n_top > 0 && q->n_top != n_top)) {
            st =
                saf_fail(SAF_DEFECT, "request %lld: %d alternatives per token where others have %d",
                         (long long)i, (int)q->n_top, (int)n_top);
            goto out;
        }
        n_top = q->n_top;
    }
    if (!any) goto out;
    SAF_TRY(write_pieces(f, &saf__logprobs_values, &saf__logprobs_offsets, H5T_IEEE_F32LE,
                         H5T_NATIVE_FLOAT, sizeof(float), 0, p, n));
    if (n_top > 0) SAF_TRY(write_top(f, r, n_top, most));
out:
    saf_free(&p);
    return st;
}
