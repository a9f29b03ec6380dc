/* A results file's content made from a number, and its comparison, for the tests of the store. */
#ifndef TESTS_RESULTS_FIXTURE_H
#define TESTS_RESULTS_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
/* after what it needs */
#include <cmocka.h>

#include "saf/store.h"

enum { FIXTURE_VOCAB = 300, FIXTURE_TOP = 3 };

static inline void fixture_ok(saf_status st) {
    if (st != SAF_OK) fail_msg("%s: %s", saf_status_text(st), saf_error_text());
}

static inline void fixture_text(char **out, const char *text) {
    fixture_ok(saf_strdup(text, out));
}

static inline void fixture_ids(int32_t **out, int64_t n, int64_t seed) {
    if (n == 0) return;
    fixture_ok(saf_alloc((size_t)n, sizeof **out, out));
    for (int64_t i = 0; i < n; i++) (*out)[i] = (int32_t)((seed * 7919 + i * 31) % FIXTURE_VOCAB);
}

static inline void fixture_request(saf_result_request *q, int64_t i) {
    /* spelled so that no hexadecimal escape swallows the letter after it */
    static const char *const texts[] = {"plain",
                                        ("Gr\xC3\xBC\xC3\x9F"
                                         "e, \xE6\x97\xA5\xE6\x9C\xAC"),
                                        "\xF0\x9F\x98\x80 two\nlines\t\"quoted\"\\"};
    char id[64];
    bool failed = i % 5 == 4;
    snprintf(id, sizeof id, "request-%lld-%s", (long long)i, i % 2 ? "\xC3\xA9" : "e");
    fixture_text(&q->id, id);
    strcpy(q->state, failed ? "failed" : "done");
    strcpy(q->finish_reason, failed ? "error" : i % 2 ? "eos" : "length");
    if (failed) fixture_text(&q->error, "layer 3, position 17: a value is not finite");
    fixture_text(&q->prompt, texts[i % 3]);
    if (!failed) fixture_text(&q->completion, texts[(i + 1) % 3]);
    q->prompt_tokens = 3 + i % 11;
    q->completion_tokens = failed ? 0 : 1 + i % 7;
    q->queue_s = 0.25 * (double)i;
    q->time_to_first_token_s = failed ? NAN : 0.125 + (double)i;
    q->seconds_per_token = failed ? NAN : 1.0 / (double)(i + 3);
    q->log_likelihood = q->perplexity = NAN;
    q->seed = UINT64_MAX - (uint64_t)i;
    q->replica = failed ? -1 : (int32_t)i % 3;
    fixture_ids(&q->prompt_ids, q->prompt_tokens, i);
    fixture_ids(&q->completion_ids, q->completion_tokens, i + 1000);
    if (failed) return;
    int64_t n = q->completion_tokens;
    q->n_top = FIXTURE_TOP;
    fixture_ok(saf_alloc((size_t)n, sizeof(float), &q->logprobs));
    fixture_ids(&q->top_ids, n * FIXTURE_TOP, i + 2000);
    fixture_ok(saf_alloc((size_t)n * FIXTURE_TOP, sizeof(float), &q->top_logprobs));
    for (int64_t k = 0; k < n; k++) q->logprobs[k] = -0.1f * (float)(i + k);
    for (int64_t k = 0; k < n * FIXTURE_TOP; k++) q->top_logprobs[k] = -0.3f * (float)(i + k);
}

static inline void fixture_rank(saf_result_rank *k, int32_t rank) {
    static const char *const kinds[] = {"send", "recv", "barrier"};
    k->rank = rank;
    k->replica = rank % 2;
    k->stage = rank;
    k->part = rank / 2;
    k->threads = 4 + rank;
    k->cores = 8;
    snprintf(k->host, sizeof k->host,
             "n\xC3\xB6"
             "de-%02d",
             (int)rank);
    strcpy(k->kernels, rank ? "avx512" : "avx2");
    k->layer0 = rank * 10;
    k->layer1 = rank * 10 + 10;
    k->head0 = rank;
    k->head1 = rank + 3;
    k->weight_bytes = (int64_t)5 << 32;
    k->replicated_bytes = 1234567;
    strcpy(k->replicated,
           rank ? "token_embd.weight, output_norm.weight, blk.*.attn_norm.weight, "
                  "blk.*.attn_k.weight (rows 128-255), blk.*.attn_v.weight (rows 128-255)"
                : "token_embd.weight");
    k->memory_weights_bytes = (int64_t)6 << 32;
    k->memory_kv_bytes = 987654321;
    k->peak_memory_bytes = (int64_t)7 << 32;
    k->weights_from = rank / 2;
    k->load_s = 2.25 + rank;
    k->compute_s = 8.5 + rank;
    k->wait_s = 1.5;
    k->busy = 0.85;
    k->bytes_sent = 1000 + rank;
    k->bytes_received = 2000 + rank;
    k->n_calls = 3;
    for (int i = 0; i < k->n_calls; i++) {
        strcpy(k->calls[i].kind, kinds[i]);
        k->calls[i].calls = 10 * (rank + 1) + i;
        k->calls[i].bytes = 100 * i;
        k->calls[i].wait_s = 0.5 * i;
    }
}

/* Of each rank: rounds of waiting 1 s, then computing 2 s, with half a second of exchange inside,
 * then sending for a quarter of a second, then a quarter of nothing; rank 1 has forgotten what was
 * before second 2 and begins half a second later. */
enum { FIXTURE_ROUNDS = 2, FIXTURE_ENTRIES = 4 * FIXTURE_ROUNDS };

static inline void fixture_entry(saf_results *r, int32_t rank, const char *kind, double start_s,
                                 double seconds, int64_t flight, int32_t tokens) {
    saf_result_entry *e = &r->timeline[r->n_entries++];
    e->rank = rank;
    snprintf(e->kind, sizeof e->kind, "%s", kind);
    e->start_s = start_s;
    e->end_s = start_s + seconds;
    e->flight = flight;
    e->tokens = tokens;
}

static inline void fixture_timeline(saf_results *r) {
    fixture_ok(
        saf_alloc((size_t)r->n_ranks * FIXTURE_ENTRIES + 1, sizeof *r->timeline, &r->timeline));
    for (int32_t rank = 0; rank < r->n_ranks; rank++) {
        double at = rank == 1 ? 2.5 : 0;
        if (rank == 1) fixture_entry(r, rank, "dropped", 0, 2, -1, 0);
        for (int i = 0; i < FIXTURE_ROUNDS; i++, at += 3.5) {
            fixture_entry(r, rank, "wait", at, 1, -1, 0);
            fixture_entry(r, rank, "exchange", at + 1.25, 0.5, i, 0);
            fixture_entry(r, rank, "compute", at + 1, 2, i, 8 + rank);
            fixture_entry(r, rank, "send", at + 3, 0.25, i, 8 + rank);
        }
    }
}

static inline void fixture_make(saf_results *r, int64_t n_ranks, int64_t n_requests) {
    memset(r, 0, sizeof *r);
    fixture_text(&r->version, SAF_VERSION);
    fixture_text(&r->commit, "0123456789ab");
    fixture_text(&r->kind, "generate");
    fixture_text(&r->job_text, "job = \"generate\";\n# \xC3\xBC\n");
    fixture_text(&r->command_line, "saf run a.cfg output.file=b.h5");
    fixture_text(&r->start_time, "2026-01-31T12:00:00Z");
    fixture_text(&r->end_time, "2026-01-31T12:01:00Z");
    fixture_text(&r->exit_state, "done");
    fixture_text(&r->layout, "pipeline 2: layers 0-9, 10-19");
    fixture_text(&r->model_path, "models/tiny.gguf");
    fixture_text(&r->model_name, "tiny \xE2\x80\x9Cmodel\xE2\x80\x9D");
    fixture_text(&r->model_sha256, "aa");
    fixture_text(&r->kernels, "avx2, avx512");
    r->n_ranks = n_ranks;
    r->n_requests = n_requests;
    r->vocab = FIXTURE_VOCAB;
    r->load_s = 1.25;
    r->run_s = 10.5;
    r->resumes = 2;
    r->checkpoints = 7;
    r->checkpoint_s = 0.375;
    fixture_ok(saf_identity_add(&r->identity, "model", "tiny \xE2\x80\x9Cmodel\xE2\x80\x9D"));
    fixture_ok(saf_identity_add(&r->identity, "generate.max_tokens", "12"));
    if (n_ranks) fixture_ok(saf_alloc((size_t)n_ranks, sizeof *r->ranks, &r->ranks));
    if (n_requests) fixture_ok(saf_alloc((size_t)n_requests, sizeof *r->requests, &r->requests));
    for (int32_t i = 0; i < n_ranks; i++) fixture_rank(&r->ranks[i], i);
    for (int64_t i = 0; i < n_requests; i++) {
        fixture_request(&r->requests[i], i);
        r->prompt_tokens += r->requests[i].prompt_tokens;
        r->completion_tokens += r->requests[i].completion_tokens;
        r->failed_requests += strcmp(r->requests[i].state, "failed") == 0;
    }
    if (n_ranks) fixture_timeline(r);
}

/* ---- logits: row r, column c ---- */

static inline float fixture_logit(int64_t r, int64_t c) {
    return (float)(r * 1000 + c) * 0.001f - 7.0f;
}

/* Appends rows in uneven blocks and hands them to the requests from the last to the first, so
 * that input order is not the order of the file. */
static inline saf_status fixture_logits(saf_results_writer *w, saf_results *r, int64_t rows_each) {
    saf_status st = SAF_OK;
    float *rows = NULL;
    int64_t at = 0;
    SAF_TRY(saf_alloc((size_t)rows_each * FIXTURE_VOCAB, sizeof *rows, &rows));
    for (int64_t i = r->n_requests - 1; i >= 0; i--) {
        int64_t n = i == 0 ? rows_each : rows_each - i % 3;
        if (n < 0) n = 0;
        for (int64_t k = 0; k < n; k++)
            for (int64_t c = 0; c < FIXTURE_VOCAB; c++)
                rows[k * FIXTURE_VOCAB + c] = fixture_logit(at + k, c);
        SAF_TRY(saf_results_logits(w, FIXTURE_VOCAB, at, n, rows));
        r->requests[i].logits_row0 = at;
        r->requests[i].logits_rows = n;
        at += n;
    }
out:
    saf_free(&rows);
    return st;
}

static inline saf_status fixture_write(const char *path, saf_results *r, int64_t rows_each) {
    saf_results_writer *w = NULL;
    saf_status st = SAF_OK;
    SAF_TRY(saf_results_create(path, &w));
    if (rows_each > 0) SAF_TRY(fixture_logits(w, r, rows_each));
    SAF_TRY(saf_results_hash(w, r));
    SAF_TRY(saf_results_finish(w, r));
out:
    saf_results_writer_free(&w);
    return st;
}

/* ---- comparison ---- */

static inline void fixture_same_text(const char *a, const char *b) {
    if (!a || !b) {
        assert_null(a);
        assert_null(b);
    } else {
        assert_string_equal(a, b);
    }
}

static inline void fixture_same_array(const void *a, const void *b, int64_t n, size_t size) {
    if (!a || !b) {
        assert_null(a);
        assert_null(b);
    } else {
        assert_memory_equal(a, b, (size_t)n * size);
    }
}

static inline void fixture_same_number(double a, double b) {
    if (!(isnan(a) && isnan(b)) && a != b) fail_msg("%.17g and %.17g differ", a, b);
}

static inline void fixture_same_request(const saf_results *r, const saf_result_request *a,
                                        const saf_result_request *b) {
    int64_t values = strcmp(r->kind, "score") == 0 ? a->prompt_tokens : a->completion_tokens;
    fixture_same_text(a->id, b->id);
    assert_string_equal(a->state, b->state);
    assert_string_equal(a->finish_reason, b->finish_reason);
    fixture_same_text(a->error, b->error);
    assert_int_equal(a->prompt_tokens, b->prompt_tokens);
    assert_int_equal(a->completion_tokens, b->completion_tokens);
    fixture_same_number(a->queue_s, b->queue_s);
    fixture_same_number(a->time_to_first_token_s, b->time_to_first_token_s);
    fixture_same_number(a->seconds_per_token, b->seconds_per_token);
    fixture_same_number(a->log_likelihood, b->log_likelihood);
    fixture_same_number(a->perplexity, b->perplexity);
    assert_true(a->seed == b->seed);
    assert_int_equal(a->replica, b->replica);
    fixture_same_text(a->prompt, b->prompt);
    fixture_same_text(a->completion, b->completion);
    fixture_same_array(a->prompt_ids, b->prompt_ids, a->prompt_tokens, sizeof(int32_t));
    fixture_same_array(a->completion_ids, b->completion_ids, a->completion_tokens, sizeof(int32_t));
    fixture_same_array(a->logprobs, b->logprobs, values, sizeof(float));
    assert_int_equal(a->n_top, b->n_top);
    fixture_same_array(a->top_ids, b->top_ids, values * a->n_top, sizeof(int32_t));
    fixture_same_array(a->top_logprobs, b->top_logprobs, values * a->n_top, sizeof(float));
    assert_int_equal(a->logits_row0, b->logits_row0);
    assert_int_equal(a->logits_rows, b->logits_rows);
}

static inline void fixture_same(const saf_results *a, const saf_results *b) {
    fixture_same_text(a->version, b->version);
    fixture_same_text(a->commit, b->commit);
    fixture_same_text(a->kind, b->kind);
    fixture_same_text(a->job_text, b->job_text);
    fixture_same_text(a->command_line, b->command_line);
    fixture_same_text(a->start_time, b->start_time);
    fixture_same_text(a->end_time, b->end_time);
    fixture_same_text(a->exit_state, b->exit_state);
    fixture_same_text(a->layout, b->layout);
    fixture_same_text(a->model_path, b->model_path);
    fixture_same_text(a->model_name, b->model_name);
    fixture_same_text(a->model_sha256, b->model_sha256);
    fixture_same_text(a->tokens_sha256, b->tokens_sha256);
    fixture_same_text(a->logits_sha256, b->logits_sha256);
    fixture_same_text(a->kernels, b->kernels);
    assert_int_equal(a->n_ranks, b->n_ranks);
    assert_int_equal(a->prompt_tokens, b->prompt_tokens);
    assert_int_equal(a->completion_tokens, b->completion_tokens);
    assert_int_equal(a->vocab, b->vocab);
    fixture_same_number(a->load_s, b->load_s);
    fixture_same_number(a->run_s, b->run_s);
    assert_int_equal(a->failed_requests, b->failed_requests);
    assert_int_equal(a->resumes, b->resumes);
    assert_int_equal(a->checkpoints, b->checkpoints);
    fixture_same_number(a->checkpoint_s, b->checkpoint_s);
    assert_int_equal(a->identity.n, b->identity.n);
    for (int32_t i = 0; i < a->identity.n; i++) {
        assert_string_equal(a->identity.items[i].name, b->identity.items[i].name);
        assert_string_equal(a->identity.items[i].value, b->identity.items[i].value);
    }
    /* Rows of ranks start as zeros on both sides, padding included. */
    fixture_same_array(a->ranks, b->ranks, a->n_ranks, sizeof *a->ranks);
    assert_int_equal(a->n_entries, b->n_entries);
    fixture_same_array(a->timeline, b->timeline, a->n_entries, sizeof *a->timeline);
    assert_int_equal(a->n_requests, b->n_requests);
    for (int64_t i = 0; i < a->n_requests; i++)
        fixture_same_request(a, &a->requests[i], &b->requests[i]);
}

static inline bool fixture_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* A folder of the test's own; the path is valid until the next call. */
static inline const char *fixture_folder(void) {
    static char folder[256];
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/saf-results-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) fail_msg("cannot make %s", folder);
    return folder;
}

#endif
