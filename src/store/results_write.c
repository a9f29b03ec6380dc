/* Writing a results file: everything but the logits, which come first, at the end. */
#include "store/writer.h"

saf_status saf_results_create(const char *path, saf_results_writer **out) {
    saf_results_writer *w = NULL;
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf_alloc(1, sizeof *w, &w));
    w->part = (saf__part)SAF__PART_EMPTY;
    w->h5 = (saf__h5)SAF__H5_EMPTY;
    w->logits = w->product.dataset = H5I_INVALID_HID;
    SAF_TRY(saf__part_open(path, 0666, &w->part));
    SAF_TRY(saf__h5_create_file(w->part.part, 0, &w->h5));
    *out = w;
    w = NULL;
out:
    saf_results_writer_free(&w);
    saf__h5_leave();
    return st;
}

/* HDF5 lets go of the file before its name does; a file that it could not write stays open in it
 * until the process ends, empty and without a name. */
static void abandon(saf_results_writer *w) {
    saf__h5_enter();
    if (w->broken) w->logits = w->product.dataset = w->h5.id = H5I_INVALID_HID;
    saf__h5_close(&w->logits);
    saf__h5_close(&w->product.dataset);
    saf__h5_close(&w->h5.id);
    saf__h5_leave();
    saf__part_abandon(&w->part);
}

void saf_results_writer_free(saf_results_writer **w) {
    if (!*w) return;
    abandon(*w);
    saf_buf_free(&(*w)->touched);
    saf_free(w);
}

/* ---- what comes from other rooms ---- */

saf_status saf__results_check_usable(const saf_results_writer *w) {
    if (w->h5.id < 0) return saf_fail(SAF_DEFECT, "a results file is written to after its end");
    if (w->broken) return saf_fail(SAF_IO, "cannot write %s: an earlier write failed", w->h5.path);
    return SAF_OK;
}

saf_status saf__results_check_requests(const saf_results_writer *w, const saf_results *r) {
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        if (q->prompt_tokens < 0 || q->completion_tokens < 0 || q->n_top < 0 ||
            q->logits_rows < 0 || q->logits_row0 < 0 ||
            (q->logits_rows > 0 && q->logits_row0 > w->rows - q->logits_rows))
            return saf_fail(
                SAF_DEFECT,
                "request %lld: %lld prompt tokens, %lld completion tokens, logits [%lld, "
                "+%lld) of %lld",
                (long long)i, (long long)q->prompt_tokens, (long long)q->completion_tokens,
                (long long)q->logits_row0, (long long)q->logits_rows, (long long)w->rows);
    }
    return SAF_OK;
}

/* ---- attributes and tables ---- */

static saf_status write_table(const saf__h5 *f, const saf_results *r, const saf__attribute *table,
                              int n) {
    saf_status st = SAF_OK;
    for (int i = 0; i < n; i++) {
        const saf__attribute *a = &table[i];
        const char *member = (const char *)r + a->offset;
        const char *text;
        int64_t whole;
        double number;
        switch (a->kind) {
            case SAF__ATTRIBUTE_TEXT:
                memcpy(&text, member, sizeof text);
                if (text) SAF_TRY(saf__h5_put_text(f, f->id, a->name, text));
                break;
            case SAF__ATTRIBUTE_I64:
                memcpy(&whole, member, sizeof whole);
                SAF_TRY(saf__h5_put_i64(f, f->id, a->name, whole));
                break;
            case SAF__ATTRIBUTE_F64:
                memcpy(&number, member, sizeof number);
                SAF_TRY(saf__h5_put_f64(f, f->id, a->name, number));
                break;
        }
    }
out:
    return st;
}

static saf_status write_attributes(const saf__h5 *f, const saf_results *r) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__h5_put_i64(f, f->id, "schema_version", SAF_RESULTS_SCHEMA));
    SAF_TRY(write_table(f, r, saf__result_attributes, saf__n_result_attributes));
    if (r->product.there) {
        SAF_TRY(write_table(f, r, saf__product_attributes, saf__n_product_attributes));
        return SAF_OK;
    }
    if (r->training.there) {
        SAF_TRY(write_table(f, r, saf__training_attributes, saf__n_training_attributes));
        return SAF_OK;
    }
    if (r->plan.rates) SAF_TRY(write_table(f, r, saf__plan_attributes, saf__n_plan_attributes));
    double prompt = (double)r->prompt_tokens, completion = (double)r->completion_tokens;
    if (r->run_s > 0) {
        SAF_TRY(saf__h5_put_f64(f, f->id, "tokens_per_s", (prompt + completion) / r->run_s));
        SAF_TRY(saf__h5_put_f64(f, f->id, "completion_tokens_per_s", completion / r->run_s));
    }
out:
    return st;
}

static saf_status write_calls(const saf__h5 *f, const saf_results *r) {
    saf_status st = SAF_OK;
    saf__call_row *rows = NULL;
    int64_t n = 0;
    SAF_TRY(saf_alloc((size_t)r->n_ranks * SAF_CALL_KINDS_MAX, sizeof *rows, &rows));
    for (int64_t i = 0; i < r->n_ranks; i++)
        for (int k = 0; k < r->ranks[i].n_calls && k < SAF_CALL_KINDS_MAX; k++) {
            rows[n].rank = r->ranks[i].rank;
            rows[n++].call = r->ranks[i].calls[k];
        }
    SAF_TRY(saf__table_write(f, &saf__calls_table, rows, n));
out:
    saf_free(&rows);
    return st;
}

static saf_status write_texts(const saf__h5 *f, const saf_results *r) {
    saf_status st = SAF_OK;
    const char **texts = NULL;
    SAF_TRY(saf_alloc((size_t)r->n_requests, sizeof *texts, &texts));
    for (int64_t i = 0; i < r->n_requests; i++) texts[i] = r->requests[i].prompt;
    SAF_TRY(saf__h5_put_strings(f, &saf__text_prompt, r->n_requests, texts));
    for (int64_t i = 0; i < r->n_requests; i++) texts[i] = r->requests[i].completion;
    SAF_TRY(saf__h5_put_strings(f, &saf__text_completion, r->n_requests, texts));
out:
    saf_free(&texts);
    return st;
}

/* ---- the end ---- */

static int64_t text_bytes(const char *text) {
    return text ? (int64_t)strlen(text) : 0;
}

/* What the file holds at least, for the message about a full disk. */
static int64_t least_bytes(const saf_results_writer *w, const saf_results *r) {
    int64_t n = w->rows * w->vocab * (int64_t)sizeof(float);
    n += w->product.put * saf_dtype_block_bytes(w->product.shape.dtype);
    n += r->n_ranks * (int64_t)sizeof(saf_result_rank);
    n += r->n_entries * (int64_t)sizeof *r->timeline;
    n += r->plan.n_ranks * (int64_t)sizeof *r->plan.ranks;
    n += saf__bench_bytes(&r->bench);
    n += saf__training_bytes(&r->training);
    for (int i = 0; i < saf__n_result_attributes; i++) {
        const char *text = NULL;
        if (saf__result_attributes[i].kind == SAF__ATTRIBUTE_TEXT)
            memcpy(&text, (const char *)r + saf__result_attributes[i].offset, sizeof text);
        n += text_bytes(text) + 16;
    }
    for (int32_t i = 0; i < r->identity.n; i++)
        n += 32 + text_bytes(r->identity.items[i].name) + text_bytes(r->identity.items[i].value);
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        int64_t values = saf__logprob_count(r, q);
        n += 200 + text_bytes(q->id) + text_bytes(q->error) + text_bytes(q->prompt) +
             text_bytes(q->completion) + 4 * (q->prompt_tokens + q->completion_tokens) +
             values * (4 + (q->top_ids ? 8 * (int64_t)q->n_top : 0));
    }
    return n;
}

/* All chunks of /logits that were written to are in the file. */
static saf_status logits_complete(const saf_results_writer *w, bool *complete) {
    saf_status st = SAF_OK;
    saf__h5 f = SAF__H5_EMPTY;
    hid_t logits = H5I_INVALID_HID, space = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 0};
    hsize_t least = (hsize_t)(w->chunks * w->chunk_rows * w->vocab) * sizeof(float);
    saf__h5_enter();
    SAF_TRY(saf__h5_open_file(w->part.part, &f));
    SAF_TRY(saf__h5_take(&f, H5Dopen2(f.id, saf__logits.path, H5P_DEFAULT), "/logits", &logits));
    SAF_TRY(saf__h5_take(&f, H5Dget_space(logits), "/logits", &space));
    SAF_TRY(saf__h5_check(&f, H5Sget_simple_extent_dims(space, dims, NULL), "/logits"));
    *complete = dims[0] == (hsize_t)w->rows && dims[1] == (hsize_t)w->vocab &&
                H5Dget_storage_size(logits) >= least;
out:
    saf__h5_close(&space);
    saf__h5_close(&logits);
    saf__h5_close(&f.id);
    saf__h5_leave();
    return st;
}

/* HDF5 can lose data and say nothing: what was written is read back before the file takes the
 * place of an older one. */
static saf_status verify(const saf_results_writer *w, const saf_results *r) {
    saf_status st = SAF_OK;
    saf_results back = {0};
    char before[65], after[65];
    bool complete = true;
    SAF_TRY(saf_results_read(w->part.part, &back));
    SAF_TRY(saf__results_tokens_hash(r, before));
    SAF_TRY(saf__results_tokens_hash(&back, after));
    bool same = back.n_ranks == r->n_ranks && strcmp(before, after) == 0 &&
                back.n_entries == r->n_entries && saf__bench_alike(&back.bench, &r->bench) &&
                saf__training_alike(&back.training, &r->training) &&
                back.identity.n == r->identity.n;
    if (w->rows > 0) SAF_TRY(logits_complete(w, &complete));
    if (w->product_begun)
        SAF_TRY(saf__matrix_out_verify(w->part.part, saf__product_path, &w->product.shape));
    if (!same || !complete)
        st = saf_fail(SAF_IO, "%s reads back other than it was written", w->part.part);
out:
    saf_results_free(&back);
    return st == SAF_OK || st == SAF_NO_MEMORY ? st : SAF_IO;
}

static saf_status write_all(saf_results_writer *w, const saf_results *r) {
    saf_status st = SAF_OK;
    const saf__h5 *f = &w->h5;
    saf__h5_enter();
    w->h5.needed_bytes = least_bytes(w, r);
    w->broken = true;
    SAF_TRY(saf__h5_check(f, saf__h5_close(&w->logits), saf__logits.path));
    SAF_TRY(saf__matrix_out_end(f, &w->product));
    SAF_TRY(write_attributes(f, r));
    if (r->product.there)
        SAF_TRY(saf__table_write(f, &saf__shares_table, r->product.shares, r->product.n_shares));
    SAF_TRY(saf__training_write(f, &r->training));
    SAF_TRY(saf__identity_write(f, &r->identity));
    SAF_TRY(saf__table_write(f, &saf__ranks_table, r->ranks, r->n_ranks));
    SAF_TRY(write_calls(f, r));
    if (r->plan.rates)
        SAF_TRY(saf__table_write(f, &saf__plan_table, r->plan.ranks, r->plan.n_ranks));
    SAF_TRY(saf__table_write(f, &saf__requests_table, r->requests, r->n_requests));
    SAF_TRY(write_texts(f, r));
    SAF_TRY(saf__results_write_tokens(f, r));
    SAF_TRY(saf__results_write_logprobs(f, r));
    SAF_TRY(saf__timeline_write(f, r));
    SAF_TRY(saf__bench_write(f, &r->bench));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&w->h5.id), "closing it"));
    w->broken = false;
out:
    saf__h5_leave();
    return st;
}

saf_status saf_results_finish(saf_results_writer *w, const saf_results *r) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__results_check_usable(w));
    SAF_TRY(saf__results_check_requests(w, r));
    SAF_TRY(write_all(w, r));
    SAF_TRY(saf__part_sync(&w->part));
    SAF_TRY(verify(w, r));
    SAF_TRY(saf__part_commit(&w->part));
out:
    if (st != SAF_OK) abandon(w);
    return st;
}
