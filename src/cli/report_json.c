/* A results file as JSON: everything but the logits. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "cli/report.h"

/* Building stops at the first failure, so that the callers need not ask after each member. */
typedef struct {
    bool failed;
} builder;

static void add(builder *b, cJSON *object, const char *name, cJSON *value) {
    if (value && object && !b->failed && cJSON_AddItemToObject(object, name, value)) return;
    cJSON_Delete(value);
    b->failed = true;
}

/* Takes the item. */
static void add_item(builder *b, cJSON *array, cJSON *item) {
    if (array && item && !b->failed && cJSON_AddItemToArray(array, item)) return;
    cJSON_Delete(item);
    b->failed = true;
}

static void add_text(builder *b, cJSON *object, const char *name, const char *text) {
    add(b, object, name, text ? cJSON_CreateString(text) : cJSON_CreateNull());
}

/* cJSON's own numbers are doubles: seeds and large counts would lose digits. */
static void add_whole(builder *b, cJSON *object, const char *name, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    add(b, object, name, cJSON_CreateRaw(text));
}

static void add_number(builder *b, cJSON *object, const char *name, double value) {
    char text[40];
    snprintf(text, sizeof text, isfinite(value) ? "%.17g" : "null", value);
    add(b, object, name, cJSON_CreateRaw(text));
}

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
static void add_array(builder *b, cJSON *object, const char *name, const int32_t *ids,
                      const float *values, int64_t rows, int64_t cols) {
    saf_buf text = {0};
    bool good = true;
    if (!ids && !values) {
        add(b, object, name, cJSON_CreateNull());
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
    add(b, object, name, good ? cJSON_CreateRaw(text.data) : NULL);
    saf_buf_free(&text);
}

/* ---- the parts ---- */

static void add_header(builder *b, cJSON *o, const saf_results *r) {
    double tokens = (double)r->prompt_tokens + (double)r->completion_tokens;
    add_text(b, o, "saf_version", r->version);
    add_text(b, o, "commit", r->commit);
    add_text(b, o, "job_kind", r->kind);
    add_text(b, o, "job_text", r->job_text);
    add_text(b, o, "command_line", r->command_line);
    add_text(b, o, "start_time", r->start_time);
    add_text(b, o, "end_time", r->end_time);
    add_text(b, o, "exit_state", r->exit_state);
    add_text(b, o, "layout", r->layout);
    add_text(b, o, "model_path", r->model_path);
    add_text(b, o, "model_name", r->model_name);
    add_text(b, o, "model_sha256", r->model_sha256);
    add_text(b, o, "tokens_sha256", r->tokens_sha256);
    add_text(b, o, "logits_sha256", r->logits_sha256);
    add_text(b, o, "kernels", r->kernels);
    add_whole(b, o, "prompt_tokens", r->prompt_tokens);
    add_whole(b, o, "completion_tokens", r->completion_tokens);
    add_whole(b, o, "vocab", r->vocab);
    add_whole(b, o, "failed_requests", r->failed_requests);
    add_number(b, o, "load_s", r->load_s);
    add_number(b, o, "run_s", r->run_s);
    add_number(b, o, "tokens_per_s", r->run_s > 0 ? tokens / r->run_s : (double)NAN);
    add_number(b, o, "completion_tokens_per_s",
               r->run_s > 0 ? (double)r->completion_tokens / r->run_s : (double)NAN);
}

static cJSON *make_calls(builder *b, const saf_result_rank *k) {
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < k->n_calls; i++) {
        const saf_result_call *c = &k->calls[i];
        cJSON *o = cJSON_CreateObject();
        add_text(b, o, "kind", c->kind);
        add_whole(b, o, "calls", c->calls);
        add_whole(b, o, "bytes", c->bytes);
        add_number(b, o, "wait_s", c->wait_s);
        add_item(b, array, o);
    }
    return array;
}

static cJSON *make_rank(builder *b, const saf_result_rank *k) {
    cJSON *o = cJSON_CreateObject();
    add_whole(b, o, "rank", k->rank);
    add_whole(b, o, "replica", k->replica);
    add_whole(b, o, "stage", k->stage);
    add_whole(b, o, "part", k->part);
    add_text(b, o, "host", k->host);
    add_whole(b, o, "cores", k->cores);
    add_whole(b, o, "threads", k->threads);
    add_text(b, o, "kernels", k->kernels);
    add_whole(b, o, "layer0", k->layer0);
    add_whole(b, o, "layer1", k->layer1);
    add_whole(b, o, "head0", k->head0);
    add_whole(b, o, "head1", k->head1);
    add_whole(b, o, "weight_bytes", k->weight_bytes);
    add_whole(b, o, "replicated_bytes", k->replicated_bytes);
    add_text(b, o, "replicated", k->replicated);
    add_whole(b, o, "memory_weights_bytes", k->memory_weights_bytes);
    add_whole(b, o, "memory_kv_bytes", k->memory_kv_bytes);
    add_whole(b, o, "peak_memory_bytes", k->peak_memory_bytes);
    add_whole(b, o, "weights_from", k->weights_from);
    add_number(b, o, "load_s", k->load_s);
    add_number(b, o, "compute_s", k->compute_s);
    add_number(b, o, "wait_s", k->wait_s);
    add_number(b, o, "busy", k->busy);
    add_whole(b, o, "bytes_sent", k->bytes_sent);
    add_whole(b, o, "bytes_received", k->bytes_received);
    add(b, o, "calls", make_calls(b, k));
    return o;
}

static cJSON *make_request(builder *b, const saf_results *r, const saf_result_request *q) {
    bool score = r->kind && strcmp(r->kind, "score") == 0;
    int64_t values = score ? q->prompt_tokens : q->completion_tokens;
    char seed[32];
    cJSON *o = cJSON_CreateObject();
    add_text(b, o, "id", q->id ? q->id : "");
    add_text(b, o, "state", q->state);
    add_text(b, o, "finish_reason", q->finish_reason);
    add_text(b, o, "error", q->error);
    add_whole(b, o, "prompt_tokens", q->prompt_tokens);
    add_whole(b, o, "completion_tokens", q->completion_tokens);
    add_number(b, o, "queue_s", q->queue_s);
    add_number(b, o, "time_to_first_token_s", q->time_to_first_token_s);
    add_number(b, o, "seconds_per_token", q->seconds_per_token);
    add_number(b, o, "log_likelihood", q->log_likelihood);
    add_number(b, o, "perplexity", q->perplexity);
    snprintf(seed, sizeof seed, "%" PRIu64, q->seed);
    add(b, o, "seed", cJSON_CreateRaw(seed));
    add_whole(b, o, "replica", q->replica);
    add_whole(b, o, "logits_row0", q->logits_row0);
    add_whole(b, o, "logits_rows", q->logits_rows);
    add_text(b, o, "prompt", q->prompt ? q->prompt : "");
    add_text(b, o, "completion", q->completion ? q->completion : "");
    add_array(b, o, "prompt_ids", q->prompt_ids, NULL, q->prompt_tokens, 0);
    add_array(b, o, "completion_ids", q->completion_ids, NULL, q->completion_tokens, 0);
    add_array(b, o, "logprobs", NULL, q->logprobs, values, 0);
    add_array(b, o, "top_ids", q->top_ids, NULL, values, q->n_top);
    add_array(b, o, "top_logprobs", NULL, q->top_logprobs, values, q->n_top);
    return o;
}

static cJSON *make_phase(builder *b, const saf_result_phase *p) {
    cJSON *o = cJSON_CreateObject();
    add_text(b, o, "phase", p->phase);
    add_whole(b, o, "repeats", p->repeats);
    add_whole(b, o, "sequences", p->sequences);
    add_whole(b, o, "passes", p->passes);
    add_whole(b, o, "context", p->context);
    add_whole(b, o, "tokens", p->tokens);
    add_number(b, o, "seconds", p->seconds);
    add_number(b, o, "seconds_min", p->seconds_min);
    add_number(b, o, "seconds_max", p->seconds_max);
    add_number(b, o, "tokens_per_s", p->tokens_per_s);
    add_number(b, o, "tokens_per_s_min", p->tokens_per_s_min);
    add_number(b, o, "tokens_per_s_max", p->tokens_per_s_max);
    add_whole(b, o, "weight_bytes", p->weight_bytes);
    add_whole(b, o, "kv_bytes", p->kv_bytes);
    add_whole(b, o, "int8_ops", p->int8_ops);
    add_whole(b, o, "float_ops", p->float_ops);
    add_number(b, o, "bytes_per_s", p->bytes_per_s);
    add_number(b, o, "ops_per_s", p->ops_per_s);
    add_number(b, o, "read_bytes_per_s", p->read_bytes_per_s);
    add_text(b, o, "peaks", p->peaks);
    add_number(b, o, "int8_ops_per_s", p->int8_ops_per_s);
    add_number(b, o, "f32_ops_per_s", p->f32_ops_per_s);
    add_number(b, o, "of_read", p->of_read);
    add_number(b, o, "of_read_min", p->of_read_min);
    add_number(b, o, "of_read_max", p->of_read_max);
    add_number(b, o, "of_peak", p->of_peak);
    add_number(b, o, "of_peak_min", p->of_peak_min);
    add_number(b, o, "of_peak_max", p->of_peak_max);
    add_number(b, o, "tile_ops_per_s", p->tile_ops_per_s);
    add_number(b, o, "of_tiles", p->of_tiles);
    add_number(b, o, "of_tiles_min", p->of_tiles_min);
    add_number(b, o, "of_tiles_max", p->of_tiles_max);
    add_number(b, o, "sgemm_ops_per_s", p->sgemm_ops_per_s);
    add_number(b, o, "of_sgemm", p->of_sgemm);
    add_number(b, o, "copy_s", p->copy_s);
    add_number(b, o, "copies", p->copies);
    return o;
}

static cJSON *make_sample(builder *b, const saf_result_sample *m) {
    cJSON *o = cJSON_CreateObject();
    add_text(b, o, "phase", m->phase);
    add_whole(b, o, "repetition", m->repetition);
    add_number(b, o, "seconds", m->seconds);
    add_number(b, o, "read_before", m->read_before);
    add_number(b, o, "read_after", m->read_after);
    add_number(b, o, "int8_before", m->int8_before);
    add_number(b, o, "int8_after", m->int8_after);
    add_number(b, o, "f32_before", m->f32_before);
    add_number(b, o, "f32_after", m->f32_after);
    add_number(b, o, "tiles_before", m->tiles_before);
    add_number(b, o, "tiles_after", m->tiles_after);
    add_number(b, o, "sgemm_ops_per_s", m->sgemm_ops_per_s);
    add_number(b, o, "copy_s", m->copy_s);
    return o;
}

static cJSON *make_step(builder *b, const saf_result_step *t) {
    cJSON *o = cJSON_CreateObject();
    add_text(b, o, "phase", t->phase);
    add_text(b, o, "step", t->step);
    add_number(b, o, "seconds", t->seconds);
    add_number(b, o, "share", t->share);
    add_whole(b, o, "weight_bytes", t->weight_bytes);
    add_whole(b, o, "kv_bytes", t->kv_bytes);
    add_whole(b, o, "int8_ops", t->int8_ops);
    add_whole(b, o, "float_ops", t->float_ops);
    add_number(b, o, "limit_s", t->limit_s);
    return o;
}

static cJSON *make_bench(builder *b, const saf_result_bench *bench) {
    cJSON *o = cJSON_CreateObject(), *phases = cJSON_CreateArray();
    cJSON *samples = cJSON_CreateArray(), *steps = cJSON_CreateArray();
    for (int64_t i = 0; i < bench->n_phases && !b->failed; i++)
        add_item(b, phases, make_phase(b, &bench->phases[i]));
    for (int64_t i = 0; i < bench->n_samples && !b->failed; i++)
        add_item(b, samples, make_sample(b, &bench->samples[i]));
    for (int64_t i = 0; i < bench->n_steps && !b->failed; i++)
        add_item(b, steps, make_step(b, &bench->steps[i]));
    add(b, o, "phases", phases);
    add(b, o, "samples", samples);
    add(b, o, "steps", steps);
    return o;
}

saf_status saf__report_json(FILE *out, const saf_results *r) {
    builder b = {false};
    saf_status st = SAF_OK;
    char *text = NULL;
    cJSON *root = cJSON_CreateObject();
    cJSON *ranks = cJSON_CreateArray(), *requests = cJSON_CreateArray();
    add_header(&b, root, r);
    for (int64_t i = 0; i < r->n_ranks && !b.failed; i++)
        add_item(&b, ranks, make_rank(&b, &r->ranks[i]));
    for (int64_t i = 0; i < r->n_requests && !b.failed; i++)
        add_item(&b, requests, make_request(&b, r, &r->requests[i]));
    add(&b, root, "ranks", ranks);
    add(&b, root, "requests", requests);
    if (r->bench.n_phases > 0) add(&b, root, "bench", make_bench(&b, &r->bench));
    if (!b.failed) text = cJSON_Print(root);
    if (text) {
        fprintf(out, "%s\n", text);
        st = saf__report_flush(out);
    } else {
        st = saf_fail(SAF_NO_MEMORY, "out of memory: the report as JSON");
    }
    cJSON_free(text);
    cJSON_Delete(root);
    return st;
}
