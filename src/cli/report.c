#include "cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "cli/grid.h"

enum { LINE_CHARS = 100, FIELD_CHARS = 1000, FAILED_SHOWN = 20 };

/* ---- the header ---- */

static saf_status print_field(FILE *out, const char *name, const char *text) {
    saf_buf shown = {0};
    saf_status st = SAF_OK;
    if (!text || !text[0]) return SAF_OK;
    SAF_TRY(saf__show_text(&shown, text, FIELD_CHARS));
    fprintf(out, "%-10s %s\n", name, shown.data);
out:
    saf_buf_free(&shown);
    return st;
}

/* The first 12 digits say enough for the eye. */
static const char *short_hash(const char *hash, char out[16]) {
    snprintf(out, 16, "%.12s", hash ? hash : "");
    return out;
}

static saf_status print_header(FILE *out, const char *path, const saf_results *r) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    char a[16];
    SAF_TRY(saf_buf_printf(&text, "%s: %s job, %s", path, r->kind ? r->kind : "unknown",
                           r->exit_state ? r->exit_state : "unknown"));
    SAF_TRY(print_field(out, "results", text.data));
    SAF_TRY(print_field(out, "command", r->command_line));
    saf_buf_clear(&text);
    SAF_TRY(saf_buf_printf(&text, "%s", r->model_name ? r->model_name : ""));
    if (r->model_path) SAF_TRY(saf_buf_printf(&text, " (%s)", r->model_path));
    if (r->model_sha256)
        SAF_TRY(saf_buf_printf(&text, " sha256 %s", short_hash(r->model_sha256, a)));
    if (text.len) SAF_TRY(print_field(out, "model", text.data));
    SAF_TRY(print_field(out, "layout", r->layout));
    saf_buf_clear(&text);
    SAF_TRY(saf_buf_printf(&text, "%s to %s; loading %.2f s, running %.2f s",
                           r->start_time ? r->start_time : "?", r->end_time ? r->end_time : "?",
                           r->load_s, r->run_s));
    SAF_TRY(print_field(out, "time", text.data));
    saf_buf_clear(&text);
    SAF_TRY(saf_buf_printf(&text, "%lld of prompts", (long long)r->prompt_tokens));
    if (r->completion_tokens > 0)
        SAF_TRY(saf_buf_printf(&text, ", %lld generated", (long long)r->completion_tokens));
    double generated = (double)r->completion_tokens, all = (double)r->prompt_tokens + generated;
    if (r->run_s > 0) SAF_TRY(saf_buf_printf(&text, "; %.1f tokens/s", all / r->run_s));
    if (r->run_s > 0 && r->completion_tokens > 0)
        SAF_TRY(saf_buf_printf(&text, " in all, %.1f generated tokens/s", generated / r->run_s));
    if (all > 0) SAF_TRY(print_field(out, "tokens", text.data));
    saf_buf_clear(&text);
    SAF_TRY(saf_buf_printf(&text, "tokens %s", short_hash(r->tokens_sha256, a)));
    if (r->logits_sha256)
        SAF_TRY(saf_buf_printf(&text, ", logits %s", short_hash(r->logits_sha256, a)));
    if (r->tokens_sha256) SAF_TRY(print_field(out, "hashes", text.data));
    saf_buf_clear(&text);
    SAF_TRY(saf_buf_printf(&text, "%s, commit %s, kernels %s", r->version ? r->version : "?",
                           r->commit ? r->commit : "?", r->kernels ? r->kernels : "?"));
    SAF_TRY(print_field(out, "saf", text.data));
out:
    saf_buf_free(&text);
    return st;
}

/* ---- requests ---- */

static bool is_failed(const saf_result_request *q) {
    return strcmp(q->state, "failed") == 0;
}

static const char *duration(double s, char out[32]) {
    if (s >= 1)
        snprintf(out, 32, "%.3f s", s);
    else if (s >= 1e-3)
        snprintf(out, 32, "%.2f ms", s * 1e3);
    else
        snprintf(out, 32, "%.1f us", s * 1e6);
    return out;
}

/* Median and largest of one figure of the requests that did not fail and have it. */
static saf_status print_spread(FILE *out, const saf_results *r, const char *name, size_t member) {
    double *v = NULL;
    int64_t n = 0;
    char median[32], longest[32];
    saf_status st = saf_alloc((size_t)r->n_requests, sizeof *v, &v);
    if (st != SAF_OK) return st;
    for (int64_t i = 0; i < r->n_requests; i++) {
        double x;
        memcpy(&x, (const char *)&r->requests[i] + member, sizeof x);
        if (!is_failed(&r->requests[i]) && isfinite(x) && x > 0) v[n++] = x;
    }
    if (n > 0) { /* the median sorts them */
        duration(saf_median(v, n), median);
        fprintf(out, "%s: median %s, longest %s\n", name, median, duration(v[n - 1], longest));
    }
    saf_free(&v);
    return SAF_OK;
}

static void print_reasons(FILE *out, const saf_results *r) {
    enum { KINDS = 16 };
    struct {
        const char *name;
        int64_t count;
    } kinds[KINDS];
    int n = 0;
    for (int64_t i = 0; i < r->n_requests; i++) {
        const char *reason = r->requests[i].finish_reason;
        int at = 0;
        while (at < n && strcmp(kinds[at].name, reason) != 0) at++;
        if (at == KINDS) continue;
        if (at == n) {
            kinds[n].name = reason;
            kinds[n++].count = 0;
        }
        kinds[at].count++;
    }
    for (int i = 0; i < n; i++)
        fprintf(out, "%s%lld %s", i ? ", " : " (", (long long)kinds[i].count,
                kinds[i].name[0] ? kinds[i].name : "without a reason");
    fprintf(out, "%s\n", n ? ")" : "");
}

/* Over all texts, as one text of all their predicted tokens. */
static void print_score(FILE *out, const saf_results *r) {
    double sum = 0;
    int64_t predicted = 0;
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        if (is_failed(q) || !isfinite(q->log_likelihood) || q->prompt_tokens < 2) continue;
        sum += q->log_likelihood;
        predicted += q->prompt_tokens - 1;
    }
    if (predicted > 0)
        fprintf(out, "log-likelihood %.6g over %lld predicted tokens: perplexity %.6g\n", sum,
                (long long)predicted, exp(-sum / (double)predicted));
}

static saf_status print_summary(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    bool score = r->kind && strcmp(r->kind, "score") == 0;
    int64_t failed = 0;
    for (int64_t i = 0; i < r->n_requests; i++) failed += is_failed(&r->requests[i]);
    fprintf(out, "%lld request%s: %lld done, %lld failed", (long long)r->n_requests,
            r->n_requests == 1 ? "" : "s", (long long)(r->n_requests - failed), (long long)failed);
    print_reasons(out, r);
    SAF_TRY(print_spread(out, r, "time to first token",
                         offsetof(saf_result_request, time_to_first_token_s)));
    SAF_TRY(print_spread(out, r, score ? "time per token" : "time per token after it",
                         offsetof(saf_result_request, seconds_per_token)));
    print_score(out, r);
out:
    return st;
}

static saf_status print_failed(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    int64_t shown = 0, more = 0;
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        if (!is_failed(q)) continue;
        if (shown == FAILED_SHOWN) {
            more++;
            continue;
        }
        shown++;
        saf_buf_clear(&text);
        SAF_TRY(saf__show_text(&text, q->id ? q->id : "", LINE_CHARS));
        SAF_TRY(saf_buf_printf(&text, ": "));
        SAF_TRY(saf__show_text(&text, q->error ? q->error : "no reason given", 3 * LINE_CHARS));
        fprintf(out, "failed: %s\n", text.data);
    }
    if (more) fprintf(out, "... and %lld more: --requests lists all\n", (long long)more);
out:
    saf_buf_free(&text);
    return st;
}

static saf_status print_completions(FILE *out, const saf_results *r, int most) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    bool first = true;
    for (int64_t i = 0; i < r->n_requests && most > 0; i++) {
        const saf_result_request *q = &r->requests[i];
        if (!q->completion || !q->completion[0]) continue;
        if (first) fputc('\n', out);
        first = false;
        saf_buf_clear(&text);
        SAF_TRY(saf_buf_printf(&text, "["));
        SAF_TRY(saf__show_text(&text, q->id ? q->id : "", 30));
        SAF_TRY(saf_buf_printf(&text, "] "));
        SAF_TRY(saf__show_text(&text, q->completion, LINE_CHARS));
        fprintf(out, "%s\n", text.data);
        most--;
    }
out:
    saf_buf_free(&text);
    return st;
}

/* ---- what others call ---- */

saf_status saf__report_flush(FILE *out) {
    errno = 0;
    if (fflush(out) != 0 || ferror(out))
        return saf_fail(SAF_IO, "cannot write the report: %s", strerror(errno ? errno : EIO));
    return SAF_OK;
}

saf_status saf__report_print(FILE *out, const char *path, const saf_results *r,
                             const saf__report_options *options) {
    saf_status st = SAF_OK;
    if (options->ranks || options->requests || options->calls) {
        if (options->ranks) SAF_TRY(saf__report_ranks(out, r));
        if (options->calls) SAF_TRY(saf__report_calls(out, r, true));
        if (options->requests) SAF_TRY(saf__report_requests(out, r));
        return saf__report_flush(out);
    }
    SAF_TRY(print_header(out, path, r));
    fputc('\n', out);
    if (r->product.there) {
        SAF_TRY(saf__report_product(out, r));
        return saf__report_flush(out);
    }
    if (r->training.there) SAF_TRY(saf__report_training(out, r));
    SAF_TRY(saf__report_ranks(out, r));
    fputc('\n', out);
    if (r->n_entries > 0) {
        SAF_TRY(saf__report_timeline(out, r));
        fputc('\n', out);
    }
    if (r->n_ranks > 1) {
        SAF_TRY(saf__report_calls(out, r, false));
        fputc('\n', out);
    }
    if (r->kind && strcmp(r->kind, "bench") == 0) {
        SAF_TRY(saf__report_bench(out, &r->bench));
        return saf__report_flush(out);
    }
    if (r->training.there) return saf__report_flush(out);
    SAF_TRY(saf__report_plan(out, r));
    SAF_TRY(print_summary(out, r));
    SAF_TRY(print_failed(out, r));
    SAF_TRY(print_completions(out, r, options->completions));
    st = saf__report_flush(out);
out:
    return st;
}

static const saf_result_request *find_request(const saf_results *r, const char *which) {
    for (int64_t i = 0; i < r->n_requests; i++)
        if (r->requests[i].id && strcmp(r->requests[i].id, which) == 0) return &r->requests[i];
    char *end = NULL;
    errno = 0;
    long long n = strtoll(which, &end, 10);
    if (errno || end == which || *end || n < 1 || n > r->n_requests) return NULL;
    return &r->requests[n - 1];
}

saf_status saf__report_text(FILE *out, const char *path, const saf_results *r, const char *which) {
    const saf_result_request *q = find_request(r, which);
    saf_status st = SAF_OK;
    saf_buf text = {0};
    if (!q)
        return saf_fail(SAF_USAGE,
                        "%s has no request \"%s\": expected an id, or a number from 1 to "
                        "%lld",
                        path, which, (long long)r->n_requests);
    SAF_TRY(saf__show_text(&text, q->prompt ? q->prompt : "", 0));
    SAF_TRY(saf__show_text(&text, q->completion ? q->completion : "", 0));
    fprintf(out, "%s\n", text.data);
    if (q->error) {
        saf_buf_clear(&text);
        SAF_TRY(saf__show_text(&text, q->error, 0));
        fprintf(out, "failed: %s\n", text.data);
    }
    st = saf__report_flush(out);
out:
    saf_buf_free(&text);
    return st;
}
