/* A results file as JSON: everything but the logits. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "cli/json.h"
#include "cli/report.h"

/* ---- arrays of numbers, as text: one node of cJSON each would be 16 times as large ---- */

static bool append_ids(saf_buf *out, const int32_t *ids, int64_t n) {
    bool good = saf_buf_append(out, "[", 1) == SAF_OK;
    for (int64_t i = 0; good && i < n; i++)
        good = saf_buf_printf(out, i ? ",%d" : "%d", (int)ids[i]) == SAF_OK;
    return good && saf_buf_append(out, "]", 1) == SAF_OK;
}

static bool append_floats(saf_buf *out, const float *values, int64_t n) {
    bool good = saf_buf_append(out, "[", 1) == SAF_OK;
    for (int64_t i = 0; good && i < n; i++) {
        if (i) good = saf_buf_append(out, ",", 1) == SAF_OK;
        if (good && isfinite(values[i]))
            good = saf_buf_printf(out, "%.9g", (double)values[i]) == SAF_OK;
        else if (good)
            good = saf_buf_append(out, "null", 4) == SAF_OK;
    }
    return good && saf_buf_append(out, "]", 1) == SAF_OK;
}

/* rows of `cols` values; cols 0: one plain array. Exactly one of ids and values is given. */
static void add_array(saf__json *b, cJSON *object, const char *name, const int32_t *ids,
                      const float *values, int64_t rows, int64_t cols) {
    saf_buf text = {0};
    bool good = true;
    if (!ids && !values) {
        saf__json_add(b, object, name, cJSON_CreateNull());
        return;
    }
    if (cols == 0) {
        good = ids ? append_ids(&text, ids, rows) : append_floats(&text, values, rows);
    } else {
        good = saf_buf_append(&text, "[", 1) == SAF_OK;
        for (int64_t i = 0; good && i < rows; i++) {
            if (i) good = saf_buf_append(&text, ",", 1) == SAF_OK;
            if (good)
                good = ids ? append_ids(&text, ids + i * cols, cols)
                           : append_floats(&text, values + i * cols, cols);
        }
        good = good && saf_buf_append(&text, "]", 1) == SAF_OK;
    }
    saf__json_add(b, object, name, good ? cJSON_CreateRaw(text.data) : NULL);
    saf_buf_free(&text);
}

/* ---- the parts ---- */

static void add_header(saf__json *b, cJSON *o, const saf_results *r) {
    double tokens = (double)r->prompt_tokens + (double)r->completion_tokens;
    saf__json_text(b, o, "saf_version", r->version);
    saf__json_text(b, o, "commit", r->commit);
    saf__json_text(b, o, "job_kind", r->kind);
    saf__json_text(b, o, "job_text", r->job_text);
    saf__json_text(b, o, "command_line", r->command_line);
    saf__json_text(b, o, "start_time", r->start_time);
    saf__json_text(b, o, "end_time", r->end_time);
    saf__json_text(b, o, "exit_state", r->exit_state);
    saf__json_text(b, o, "layout", r->layout);
    saf__json_text(b, o, "model_path", r->model_path);
    saf__json_text(b, o, "model_name", r->model_name);
    saf__json_text(b, o, "model_sha256", r->model_sha256);
    saf__json_text(b, o, "tokens_sha256", r->tokens_sha256);
    saf__json_text(b, o, "logits_sha256", r->logits_sha256);
    saf__json_text(b, o, "kernels", r->kernels);
    saf__json_whole(b, o, "prompt_tokens", r->prompt_tokens);
    saf__json_whole(b, o, "completion_tokens", r->completion_tokens);
    saf__json_whole(b, o, "vocab", r->vocab);
    saf__json_whole(b, o, "failed_requests", r->failed_requests);
    saf__json_number(b, o, "load_s", r->load_s);
    saf__json_number(b, o, "run_s", r->run_s);
    saf__json_whole(b, o, "resumes", r->resumes);
    saf__json_whole(b, o, "checkpoints", r->checkpoints);
    saf__json_number(b, o, "checkpoint_s", r->checkpoint_s);
    saf__json_identity(b, o, &r->identity);
    saf__json_number(b, o, "tokens_per_s", r->run_s > 0 ? tokens / r->run_s : (double)NAN);
    saf__json_number(b, o, "completion_tokens_per_s",
                     r->run_s > 0 ? (double)r->completion_tokens / r->run_s : (double)NAN);
}

static cJSON *make_calls(saf__json *b, const saf_result_rank *k) {
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < k->n_calls; i++) {
        const saf_result_call *c = &k->calls[i];
        cJSON *o = cJSON_CreateObject();
        saf__json_text(b, o, "kind", c->kind);
        saf__json_whole(b, o, "calls", c->calls);
        saf__json_whole(b, o, "bytes", c->bytes);
        saf__json_number(b, o, "wait_s", c->wait_s);
        saf__json_item(b, array, o);
    }
    return array;
}

static cJSON *make_rank(saf__json *b, const saf_result_rank *k) {
    cJSON *o = cJSON_CreateObject();
    saf__json_whole(b, o, "rank", k->rank);
    saf__json_whole(b, o, "replica", k->replica);
    saf__json_whole(b, o, "stage", k->stage);
    saf__json_whole(b, o, "part", k->part);
    saf__json_text(b, o, "host", k->host);
    saf__json_whole(b, o, "cores", k->cores);
    saf__json_whole(b, o, "threads", k->threads);
    saf__json_text(b, o, "kernels", k->kernels);
    saf__json_whole(b, o, "layer0", k->layer0);
    saf__json_whole(b, o, "layer1", k->layer1);
    saf__json_whole(b, o, "head0", k->head0);
    saf__json_whole(b, o, "head1", k->head1);
    saf__json_whole(b, o, "weight_bytes", k->weight_bytes);
    saf__json_whole(b, o, "replicated_bytes", k->replicated_bytes);
    saf__json_text(b, o, "replicated", k->replicated);
    saf__json_whole(b, o, "memory_weights_bytes", k->memory_weights_bytes);
    saf__json_whole(b, o, "memory_kv_bytes", k->memory_kv_bytes);
    saf__json_whole(b, o, "peak_memory_bytes", k->peak_memory_bytes);
    saf__json_whole(b, o, "weights_from", k->weights_from);
    saf__json_number(b, o, "load_s", k->load_s);
    saf__json_number(b, o, "compute_s", k->compute_s);
    saf__json_number(b, o, "wait_s", k->wait_s);
    saf__json_number(b, o, "busy", k->busy);
    saf__json_whole(b, o, "bytes_sent", k->bytes_sent);
    saf__json_whole(b, o, "bytes_received", k->bytes_received);
    saf__json_add(b, o, "calls", make_calls(b, k));
    return o;
}

static cJSON *make_request(saf__json *b, const saf_results *r, const saf_result_request *q) {
    bool score = r->kind && strcmp(r->kind, "score") == 0;
    int64_t values = score ? q->prompt_tokens : q->completion_tokens;
    char seed[32];
    cJSON *o = cJSON_CreateObject();
    saf__json_text(b, o, "id", q->id ? q->id : "");
    saf__json_text(b, o, "state", q->state);
    saf__json_text(b, o, "finish_reason", q->finish_reason);
    saf__json_text(b, o, "error", q->error);
    saf__json_whole(b, o, "prompt_tokens", q->prompt_tokens);
    saf__json_whole(b, o, "completion_tokens", q->completion_tokens);
    saf__json_number(b, o, "queue_s", q->queue_s);
    saf__json_number(b, o, "time_to_first_token_s", q->time_to_first_token_s);
    saf__json_number(b, o, "seconds_per_token", q->seconds_per_token);
    saf__json_number(b, o, "log_likelihood", q->log_likelihood);
    saf__json_number(b, o, "perplexity", q->perplexity);
    snprintf(seed, sizeof seed, "%" PRIu64, q->seed);
    saf__json_add(b, o, "seed", cJSON_CreateRaw(seed));
    saf__json_whole(b, o, "replica", q->replica);
    saf__json_whole(b, o, "logits_row0", q->logits_row0);
    saf__json_whole(b, o, "logits_rows", q->logits_rows);
    saf__json_text(b, o, "prompt", q->prompt ? q->prompt : "");
    saf__json_text(b, o, "completion", q->completion ? q->completion : "");
    add_array(b, o, "prompt_ids", q->prompt_ids, NULL, q->prompt_tokens, 0);
    add_array(b, o, "completion_ids", q->completion_ids, NULL, q->completion_tokens, 0);
    add_array(b, o, "logprobs", NULL, q->logprobs, values, 0);
    add_array(b, o, "top_ids", q->top_ids, NULL, values, q->n_top);
    add_array(b, o, "top_logprobs", NULL, q->top_logprobs, values, q->n_top);
    return o;
}

static cJSON *make_phase(saf__json *b, const saf_result_phase *p) {
    cJSON *o = cJSON_CreateObject();
    saf__json_text(b, o, "phase", p->phase);
    saf__json_whole(b, o, "repeats", p->repeats);
    saf__json_whole(b, o, "sequences", p->sequences);
    saf__json_whole(b, o, "passes", p->passes);
    saf__json_whole(b, o, "context", p->context);
    saf__json_whole(b, o, "tokens", p->tokens);
    saf__json_number(b, o, "seconds", p->seconds);
    saf__json_number(b, o, "seconds_min", p->seconds_min);
    saf__json_number(b, o, "seconds_max", p->seconds_max);
    saf__json_number(b, o, "tokens_per_s", p->tokens_per_s);
    saf__json_number(b, o, "tokens_per_s_min", p->tokens_per_s_min);
    saf__json_number(b, o, "tokens_per_s_max", p->tokens_per_s_max);
    saf__json_whole(b, o, "weight_bytes", p->weight_bytes);
    saf__json_whole(b, o, "kv_bytes", p->kv_bytes);
    saf__json_whole(b, o, "int8_ops", p->int8_ops);
    saf__json_whole(b, o, "float_ops", p->float_ops);
    saf__json_number(b, o, "bytes_per_s", p->bytes_per_s);
    saf__json_number(b, o, "ops_per_s", p->ops_per_s);
    saf__json_number(b, o, "read_bytes_per_s", p->read_bytes_per_s);
    saf__json_text(b, o, "peaks", p->peaks);
    saf__json_number(b, o, "int8_ops_per_s", p->int8_ops_per_s);
    saf__json_number(b, o, "f32_ops_per_s", p->f32_ops_per_s);
    saf__json_number(b, o, "of_read", p->of_read);
    saf__json_number(b, o, "of_read_min", p->of_read_min);
    saf__json_number(b, o, "of_read_max", p->of_read_max);
    saf__json_number(b, o, "of_peak", p->of_peak);
    saf__json_number(b, o, "of_peak_min", p->of_peak_min);
    saf__json_number(b, o, "of_peak_max", p->of_peak_max);
    saf__json_number(b, o, "tile_ops_per_s", p->tile_ops_per_s);
    saf__json_number(b, o, "of_tiles", p->of_tiles);
    saf__json_number(b, o, "of_tiles_min", p->of_tiles_min);
    saf__json_number(b, o, "of_tiles_max", p->of_tiles_max);
    saf__json_number(b, o, "sgemm_ops_per_s", p->sgemm_ops_per_s);
    saf__json_number(b, o, "of_sgemm", p->of_sgemm);
    saf__json_number(b, o, "copy_s", p->copy_s);
    saf__json_number(b, o, "copies", p->copies);
    return o;
}

static cJSON *make_sample(saf__json *b, const saf_result_sample *m) {
    cJSON *o = cJSON_CreateObject();
    saf__json_text(b, o, "phase", m->phase);
    saf__json_whole(b, o, "repetition", m->repetition);
    saf__json_number(b, o, "seconds", m->seconds);
    saf__json_number(b, o, "read_before", m->read_before);
    saf__json_number(b, o, "read_after", m->read_after);
    saf__json_number(b, o, "int8_before", m->int8_before);
    saf__json_number(b, o, "int8_after", m->int8_after);
    saf__json_number(b, o, "f32_before", m->f32_before);
    saf__json_number(b, o, "f32_after", m->f32_after);
    saf__json_number(b, o, "tiles_before", m->tiles_before);
    saf__json_number(b, o, "tiles_after", m->tiles_after);
    saf__json_number(b, o, "sgemm_ops_per_s", m->sgemm_ops_per_s);
    saf__json_number(b, o, "copy_s", m->copy_s);
    return o;
}

static cJSON *make_step(saf__json *b, const saf_result_step *t) {
    cJSON *o = cJSON_CreateObject();
    saf__json_text(b, o, "phase", t->phase);
    saf__json_text(b, o, "step", t->step);
    saf__json_number(b, o, "seconds", t->seconds);
    saf__json_number(b, o, "share", t->share);
    saf__json_whole(b, o, "weight_bytes", t->weight_bytes);
    saf__json_whole(b, o, "kv_bytes", t->kv_bytes);
    saf__json_whole(b, o, "int8_ops", t->int8_ops);
    saf__json_whole(b, o, "float_ops", t->float_ops);
    saf__json_number(b, o, "limit_s", t->limit_s);
    return o;
}

/* Rows of objects, by the table's own columns. */
static cJSON *make_suite(saf__json *b, saf_suite_table table, const saf_buf *rows) {
    cJSON *array = cJSON_CreateArray();
    saf_suite_table_about about = saf_suite_table_info(table);
    for (int64_t i = 0; i < saf_suite_rows(table, rows) && !b->failed; i++) {
        cJSON *o = cJSON_CreateObject();
        const char *row = rows->data + (size_t)i * about.row_bytes;
        for (int c = 0; c < about.n_columns; c++) {
            saf_suite_column column = saf_suite_column_info(table, c);
            int32_t narrow = 0;
            int64_t wide = 0;
            double number = 0;
            if (column.kind == SAF_CELL_I32) memcpy(&narrow, row + column.offset, sizeof narrow);
            if (column.kind == SAF_CELL_I64) memcpy(&wide, row + column.offset, sizeof wide);
            if (column.kind == SAF_CELL_F64) memcpy(&number, row + column.offset, sizeof number);
            if (column.kind == SAF_CELL_TEXT)
                saf__json_text(b, o, column.name, row + column.offset);
            else if (column.kind == SAF_CELL_F64)
                saf__json_number(b, o, column.name, number);
            else
                saf__json_whole(b, o, column.name, narrow + wide);
        }
        saf__json_item(b, array, o);
    }
    return array;
}

static cJSON *make_bench(saf__json *b, const saf_result_bench *bench) {
    cJSON *o = cJSON_CreateObject(), *phases = cJSON_CreateArray();
    cJSON *samples = cJSON_CreateArray(), *steps = cJSON_CreateArray();
    for (int64_t i = 0; i < bench->n_phases && !b->failed; i++)
        saf__json_item(b, phases, make_phase(b, &bench->phases[i]));
    for (int64_t i = 0; i < bench->n_samples && !b->failed; i++)
        saf__json_item(b, samples, make_sample(b, &bench->samples[i]));
    for (int64_t i = 0; i < bench->n_steps && !b->failed; i++)
        saf__json_item(b, steps, make_step(b, &bench->steps[i]));
    saf__json_add(b, o, "phases", phases);
    saf__json_add(b, o, "samples", samples);
    saf__json_add(b, o, "steps", steps);
    for (int i = 0; i < SAF_SUITE_TABLES; i++) {
        saf_suite_table table = (saf_suite_table)i;
        const char *name = saf_suite_table_info(table).path + strlen("/bench/");
        if (bench->tables[i].len > 0)
            saf__json_add(b, o, name, make_suite(b, table, &bench->tables[i]));
    }
    return o;
}

saf_status saf__report_json(FILE *out, const saf_results *r) {
    saf__json b = {false};
    saf_status st = SAF_OK;
    cJSON *root = cJSON_CreateObject();
    cJSON *ranks = cJSON_CreateArray(), *requests = cJSON_CreateArray();
    add_header(&b, root, r);
    for (int64_t i = 0; i < r->n_ranks && !b.failed; i++)
        saf__json_item(&b, ranks, make_rank(&b, &r->ranks[i]));
    for (int64_t i = 0; i < r->n_requests && !b.failed; i++)
        saf__json_item(&b, requests, make_request(&b, r, &r->requests[i]));
    saf__json_add(&b, root, "ranks", ranks);
    saf__json_add(&b, root, "requests", requests);
    if (r->kind && strcmp(r->kind, "bench") == 0)
        saf__json_add(&b, root, "bench", make_bench(&b, &r->bench));
    if (r->plan.rates) saf__json_add(&b, root, "plan", saf__json_plan(&b, r));
    if (r->product.there) saf__json_add(&b, root, "product", saf__json_product(&b, &r->product));
    if (r->training.there)
        saf__json_add(&b, root, "training", saf__json_training(&b, &r->training));
    st = saf__json_print(&b, out, root);
    cJSON_Delete(root);
    return st;
}
