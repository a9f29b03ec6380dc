/* Reading a results file back. HDF5 itself is trusted with the file; types, shapes, counts and
 * offsets are not. */
#include "store/schema.h"

/* ---- freeing ---- */

static void free_request(saf_result_request *q) {
    saf_free(&q->id);
    saf_free(&q->error);
    saf_free(&q->prompt);
    saf_free(&q->completion);
    saf_free(&q->prompt_ids);
    saf_free(&q->completion_ids);
    saf_free(&q->logprobs);
    saf_free(&q->top_ids);
    saf_free(&q->top_logprobs);
}

static void free_texts(saf_results *r, const saf__attribute *table, int n) {
    for (int i = 0; i < n; i++)
        if (table[i].kind == SAF__ATTRIBUTE_TEXT) saf_free((char *)r + table[i].offset);
}

void saf_results_free(saf_results *r) {
    free_texts(r, saf__result_attributes, saf__n_result_attributes);
    free_texts(r, saf__product_attributes, saf__n_product_attributes);
    free_texts(r, saf__training_attributes, saf__n_training_attributes);
    saf_free(&r->training.curve);
    saf_free(&r->training.evaluations);
    saf_free(&r->product.shares);
    saf_free(&r->plan.rates);
    saf_free(&r->plan.ranks);
    saf_identity_free(&r->identity);
    saf_free(&r->ranks);
    saf_free(&r->timeline);
    saf__bench_free(&r->bench);
    for (int64_t i = 0; r->requests && i < r->n_requests; i++) free_request(&r->requests[i]);
    saf_free(&r->requests);
    memset(r, 0, sizeof *r);
}

/* ---- attributes and tables ---- */

static saf_status check_schema(const saf__h5 *f) {
    int64_t version;
    htri_t there = H5Aexists(f->id, "schema_version");
    if (there > 0) there = H5Aexists(f->id, "saf_version");
    if (there <= 0) return saf_fail(SAF_BAD_INPUT, "%s is no results file of saf", f->path);
    saf_status st = saf__h5_get_i64(f, f->id, "schema_version", &version);
    if (st != SAF_OK) return st;
    if (version < 1 || version > SAF_RESULTS_SCHEMA)
        return saf_fail(SAF_BAD_INPUT, "%s has schema %lld, this saf knows 1 to %d", f->path,
                        (long long)version, SAF_RESULTS_SCHEMA);
    return SAF_OK;
}

static saf_status read_attributes(const saf__h5 *f, const saf__attribute *table, int n_attributes,
                                  saf_results *r) {
    saf_status st = SAF_OK;
    for (int i = 0; i < n_attributes; i++) {
        const saf__attribute *a = &table[i];
        void *member = (char *)r + a->offset;
        if (a->optional && H5Aexists(f->id, a->name) == 0) continue;
        switch (a->kind) {
            case SAF__ATTRIBUTE_TEXT:
                SAF_TRY(saf__h5_get_text(f, f->id, a->name, member));
                break;
            case SAF__ATTRIBUTE_I64:
                SAF_TRY(saf__h5_get_i64(f, f->id, a->name, member));
                break;
            case SAF__ATTRIBUTE_F64:
                SAF_TRY(saf__h5_get_f64(f, f->id, a->name, member));
                break;
        }
    }
out:
    return st;
}

static saf_status read_ranks(const saf__h5 *f, saf_results *r) {
    saf_status st = SAF_OK;
    int64_t claimed = r->n_ranks;
    r->n_ranks = 0;
    SAF_TRY(saf__table_read(f, &saf__ranks_table, &r->ranks, &r->n_ranks));
    if (r->n_ranks != claimed)
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld rows in /ranks, but %lld ranks", f->path,
                      (long long)r->n_ranks, (long long)claimed);
out:
    return st;
}

static saf_result_rank *find_rank(const saf_results *r, int32_t rank) {
    for (int64_t i = 0; i < r->n_ranks; i++)
        if (r->ranks[i].rank == rank) return &r->ranks[i];
    return NULL;
}

static saf_status read_calls(const saf__h5 *f, saf_results *r) {
    saf_status st = SAF_OK;
    saf__call_row *rows = NULL;
    int64_t n = 0;
    saf_result_rank *rank = NULL;
    SAF_TRY(saf__table_read(f, &saf__calls_table, &rows, &n));
    for (int64_t i = 0; i < n; i++) {
        if (!rank || rank->rank != rows[i].rank) rank = find_rank(r, rows[i].rank);
        if (!rank || rank->n_calls >= SAF_CALL_KINDS_MAX) {
            st = saf_fail(SAF_BAD_INPUT,
                          "%s: row %lld of /calls: rank %d is not in /ranks or has "
                          "more than %d kinds",
                          f->path, (long long)i, (int)rows[i].rank, SAF_CALL_KINDS_MAX);
            goto out;
        }
        rank->calls[rank->n_calls++] = rows[i].call;
    }
out:
    saf_free(&rows);
    return st;
}

static saf_status check_request_row(const saf__h5 *f, const saf_results *r, int64_t i) {
    const saf_result_request *q = &r->requests[i];
    if (q->prompt_tokens < 0 || q->completion_tokens < 0 || q->logits_row0 < 0 ||
        q->logits_rows < 0)
        return saf_fail(SAF_BAD_INPUT, "%s: row %lld of /requests has a count below zero", f->path,
                        (long long)i);
    return SAF_OK;
}

static saf_status read_texts(const saf__h5 *f, saf_results *r, const saf__h5_label *label,
                             size_t member) {
    saf_status st = SAF_OK;
    char **texts = NULL;
    int64_t n = 0;
    SAF_TRY(saf__h5_get_strings(f, label->path, &texts, &n));
    if (n != r->n_requests) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld texts in %s, but %lld requests", f->path,
                      (long long)n, label->path, (long long)r->n_requests);
        goto out;
    }
    for (int64_t i = 0; i < n; i++) {
        if (texts[i][0]) memcpy((char *)&r->requests[i] + member, &texts[i], sizeof texts[i]);
        if (texts[i][0]) texts[i] = NULL;
    }
out:
    for (int64_t i = 0; texts && i < n; i++) saf_free(&texts[i]);
    saf_free(&texts);
    return st;
}

/* ---- pieces of many requests, one after the other ---- */

typedef struct {
    const saf__h5 *f;
    const saf_results *r;
    const char *path; /* of the values */
    int64_t *offsets; /* [n_requests + 1], ascending from 0 */
} pieces;

static saf_status read_offsets(pieces *p, const char *path) {
    saf_status st = SAF_OK;
    int64_t shape[2], n = p->r->n_requests;
    SAF_TRY(saf__h5_get_array(p->f, path, H5T_INTEGER, 1, H5T_NATIVE_INT64, sizeof(int64_t),
                              &p->offsets, shape));
    bool good = shape[0] == n + 1 && p->offsets[0] == 0;
    for (int64_t i = 0; good && i < n; i++) good = p->offsets[i] <= p->offsets[i + 1];
    if (!good)
        st = saf_fail(SAF_BAD_INPUT, "%s: %s does not ascend from 0 in %lld steps", p->f->path,
                      path, (long long)n);
out:
    return st;
}

/* Cuts values [offsets[n], cols] of `size` bytes into the requests' own arrays; `lengths` tells
 * how many a request must have if it has any (NULL: whatever the offsets say). */
static saf_status cut_pieces(const pieces *p, H5T_class_t type_class, hid_t memory_type,
                             size_t size, int ndim, size_t member, int64_t *cols) {
    saf_status st = SAF_OK;
    char *all = NULL, *copy = NULL;
    int64_t shape[2] = {0, 1}, n = p->r->n_requests;
    SAF_TRY(saf__h5_get_array(p->f, p->path, type_class, ndim, memory_type, size, &all, shape));
    if (shape[0] != p->offsets[n]) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %s has %lld rows, its offsets end at %lld", p->f->path,
                      p->path, (long long)shape[0], (long long)p->offsets[n]);
        goto out;
    }
    size_t row_bytes = size * (size_t)shape[1];
    for (int64_t i = 0; i < n; i++) {
        size_t rows = (size_t)(p->offsets[i + 1] - p->offsets[i]);
        if (rows == 0 || row_bytes == 0) continue;
        SAF_TRY(saf_alloc(rows, row_bytes, &copy));
        memcpy(copy, all + (size_t)p->offsets[i] * row_bytes, rows * row_bytes);
        memcpy((char *)&p->r->requests[i] + member, &copy, sizeof copy);
    }
    if (cols) *cols = shape[1];
out:
    saf_free(&all);
    return st;
}

static saf_status check_lengths(const pieces *p, int64_t i, int64_t length) {
    int64_t have = p->offsets[i + 1] - p->offsets[i];
    if (have == 0 || have == length) return SAF_OK;
    return saf_fail(SAF_BAD_INPUT, "%s: request %lld has %lld values in %s, but %lld tokens",
                    p->f->path, (long long)i, (long long)have, p->path, (long long)length);
}

static saf_status read_tokens(const saf__h5 *f, saf_results *r) {
    pieces prompt = {f, r, saf__tokens_prompt.path, NULL};
    pieces completion = {f, r, saf__tokens_completion.path, NULL};
    saf_status st = SAF_OK;
    SAF_TRY(read_offsets(&prompt, saf__tokens_prompt_offsets.path));
    SAF_TRY(read_offsets(&completion, saf__tokens_completion_offsets.path));
    for (int64_t i = 0; i < r->n_requests; i++) {
        SAF_TRY(check_lengths(&prompt, i, r->requests[i].prompt_tokens));
        SAF_TRY(check_lengths(&completion, i, r->requests[i].completion_tokens));
    }
    SAF_TRY(cut_pieces(&prompt, H5T_INTEGER, H5T_NATIVE_INT32, sizeof(int32_t), 1,
                       offsetof(saf_result_request, prompt_ids), NULL));
    SAF_TRY(cut_pieces(&completion, H5T_INTEGER, H5T_NATIVE_INT32, sizeof(int32_t), 1,
                       offsetof(saf_result_request, completion_ids), NULL));
out:
    saf_free(&prompt.offsets);
    saf_free(&completion.offsets);
    return st;
}

/* Requests without alternatives among others that have them hold rows of -1. */
static saf_status read_top(pieces *p, saf_results *r) {
    saf_status st = SAF_OK;
    int64_t ids = 0, values = 0;
    p->path = saf__logprobs_top_ids.path;
    SAF_TRY(cut_pieces(p, H5T_INTEGER, H5T_NATIVE_INT32, sizeof(int32_t), 2,
                       offsetof(saf_result_request, top_ids), &ids));
    p->path = saf__logprobs_top_values.path;
    SAF_TRY(cut_pieces(p, H5T_FLOAT, H5T_NATIVE_FLOAT, sizeof(float), 2,
                       offsetof(saf_result_request, top_logprobs), &values));
    if (ids != values || ids < 1 || ids > INT32_MAX) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld ids, but %lld values per token in /logprobs",
                      p->f->path, (long long)ids, (long long)values);
        goto out;
    }
    for (int64_t i = 0; i < r->n_requests; i++) {
        saf_result_request *q = &r->requests[i];
        if (q->top_ids && q->top_ids[0] >= 0) {
            q->n_top = (int32_t)ids;
        } else {
            saf_free(&q->top_ids);
            saf_free(&q->top_logprobs);
        }
    }
out:
    return st;
}

static saf_status read_logprobs(const saf__h5 *f, saf_results *r) {
    pieces p = {f, r, saf__logprobs_values.path, NULL};
    bool there = false;
    saf_status st = SAF_OK;
    SAF_TRY(saf__h5_has(f, saf__logprobs_values.path, &there));
    if (!there) goto out;
    SAF_TRY(read_offsets(&p, saf__logprobs_offsets.path));
    SAF_TRY(cut_pieces(&p, H5T_FLOAT, H5T_NATIVE_FLOAT, sizeof(float), 1,
                       offsetof(saf_result_request, logprobs), NULL));
    for (int64_t i = 0; i < r->n_requests; i++)
        SAF_TRY(check_lengths(&p, i, saf__logprob_count(r, &r->requests[i])));
    SAF_TRY(saf__h5_has(f, saf__logprobs_top_ids.path, &there));
    if (there) SAF_TRY(read_top(&p, r));
out:
    saf_free(&p.offsets);
    return st;
}

static saf_status read_product(const saf__h5 *f, saf_results *r) {
    saf_status st = SAF_OK;
    bool there = false;
    SAF_TRY(read_attributes(f, saf__product_attributes, saf__n_product_attributes, r));
    r->product.there = r->product.core != NULL;
    SAF_TRY(saf__h5_has(f, saf__shares_table.path, &there));
    if (there)
        SAF_TRY(saf__table_read(f, &saf__shares_table, &r->product.shares, &r->product.n_shares));
out:
    return st;
}

static saf_status read_plan(const saf__h5 *f, saf_results *r) {
    saf_status st = SAF_OK;
    bool there = false;
    SAF_TRY(read_attributes(f, saf__plan_attributes, saf__n_plan_attributes, r));
    SAF_TRY(saf__h5_has(f, saf__plan_table.path, &there));
    if (there) SAF_TRY(saf__table_read(f, &saf__plan_table, &r->plan.ranks, &r->plan.n_ranks));
out:
    return st;
}

saf_status saf_results_read(const char *path, saf_results *out) {
    saf_results r = {0};
    saf__h5 f = SAF__H5_EMPTY;
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__h5_open_file(path, &f));
    SAF_TRY(check_schema(&f));
    SAF_TRY(read_attributes(&f, saf__result_attributes, saf__n_result_attributes, &r));
    SAF_TRY(read_product(&f, &r));
    SAF_TRY(read_attributes(&f, saf__training_attributes, saf__n_training_attributes, &r));
    SAF_TRY(saf__training_read(&f, &r.training));
    SAF_TRY(read_plan(&f, &r));
    SAF_TRY(saf__identity_read(&f, &r.identity));
    SAF_TRY(read_ranks(&f, &r));
    SAF_TRY(read_calls(&f, &r));
    SAF_TRY(saf__table_read(&f, &saf__requests_table, &r.requests, &r.n_requests));
    for (int64_t i = 0; i < r.n_requests; i++) SAF_TRY(check_request_row(&f, &r, i));
    SAF_TRY(read_texts(&f, &r, &saf__text_prompt, offsetof(saf_result_request, prompt)));
    SAF_TRY(read_texts(&f, &r, &saf__text_completion, offsetof(saf_result_request, completion)));
    SAF_TRY(read_tokens(&f, &r));
    SAF_TRY(read_logprobs(&f, &r));
    SAF_TRY(saf__timeline_read(&f, &r));
    SAF_TRY(saf__bench_read(&f, &r.bench));
    *out = r;
    memset(&r, 0, sizeof r);
out:
    saf_results_free(&r);
    saf__h5_close(&f.id);
    saf__h5_leave();
    return st;
}

saf_status saf_store_read_strings(const char *path, const char *dataset, char ***texts,
                                  int64_t *n) {
    saf__h5 f = SAF__H5_EMPTY;
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__h5_open_file(path, &f));
    SAF_TRY(saf__h5_get_strings(&f, dataset, texts, n));
out:
    saf__h5_close(&f.id);
    saf__h5_leave();
    return st;
}
