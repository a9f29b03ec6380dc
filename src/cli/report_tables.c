/* The tables of a report: ranks, calls, requests. */
#include <math.h>

#include "cli/grid.h"
#include "cli/report.h"

enum { LINE_CHARS = 100 };

static double mib(int64_t bytes) {
    return (double)bytes / 0x1p20;
}

/* ---- ranks and calls ---- */

/* Whether some rank is not alone in its stage, or in a second copy of the model. */
static bool is_grid(const saf_results *r) {
    for (int64_t i = 0; i < r->n_ranks; i++)
        if (r->ranks[i].replica > 0 || r->ranks[i].part > 0) return true;
    return false;
}

/* A run of numbers, without its end. */
static saf_status run_cell(saf__grid *g, int32_t begin, int32_t end) {
    if (end <= begin) return saf__grid_cell(g, "none");
    if (end - 1 == begin) return saf__grid_cell(g, "%d", (int)begin);
    return saf__grid_cell(g, "%d-%d", (int)begin, (int)end - 1);
}

static saf_status rank_cells(saf__grid *g, const saf_result_rank *k, bool grid) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__grid_cell(g, "%d", (int)k->rank));
    SAF_TRY(saf__grid_cell(g, "%.63s", k->host));
    if (grid) SAF_TRY(saf__grid_cell(g, "%d", (int)k->replica));
    SAF_TRY(saf__grid_cell(g, "%d", (int)k->stage));
    if (grid) SAF_TRY(saf__grid_cell(g, "%d", (int)k->part));
    SAF_TRY(run_cell(g, k->layer0, k->layer1));
    if (grid) SAF_TRY(run_cell(g, k->head0, k->head1));
    SAF_TRY(saf__grid_cell(g, "%.31s", k->kernels));
    SAF_TRY(saf__grid_cell(g, "%d", (int)k->threads));
    SAF_TRY(saf__grid_cell(g, "%.1f", mib(k->weight_bytes)));
    SAF_TRY(saf__grid_cell(g, "%.1f", mib(k->memory_kv_bytes)));
    SAF_TRY(saf__grid_cell(g, "%.1f", mib(k->peak_memory_bytes)));
    SAF_TRY(saf__grid_cell(g, "%.2f", k->load_s));
    SAF_TRY(saf__grid_cell(g, "%.1f", 100 * k->busy));
    SAF_TRY(saf__grid_cell(g, "%.2f", k->wait_s));
    SAF_TRY(saf__grid_cell(g, "%.2f", mib(k->bytes_sent)));
    SAF_TRY(saf__grid_cell(g, "%.2f", mib(k->bytes_received)));
out:
    return st;
}

/* Each rank counts what others of its replica hold as well; here is what the other replicas hold.
 */
static void print_replicas(FILE *out, const saf_results *r) {
    int32_t last = 0;
    double model = 0;
    for (int64_t i = 0; i < r->n_ranks; i++) {
        const saf_result_rank *k = &r->ranks[i];
        if (k->replica > last) last = k->replica;
        if (k->replica == 0) model += mib(k->weight_bytes - k->replicated_bytes);
    }
    if (last > 0)
        fprintf(out, "%lld replicas: each holds the whole model, %.1f MiB\n", (long long)last + 1,
                model);
}

/* Of many ranks that hold what others hold, the one with the most stands for all. */
static saf_status print_replicated(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    const saf_result_rank *most = NULL;
    saf_buf names = {0};
    int64_t ranks = 0;
    double total = 0;
    for (int64_t i = 0; i < r->n_ranks; i++) {
        const saf_result_rank *k = &r->ranks[i];
        if (k->replicated_bytes <= 0) continue;
        ranks++;
        total += mib(k->replicated_bytes);
        if (!most || k->replicated_bytes > most->replicated_bytes) most = k;
    }
    if (!most || total < 0.05) return SAF_OK; /* norms alone: nothing that anybody misses */
    SAF_TRY(saf__show_text(&names, most->replicated, LINE_CHARS));
    if (ranks > 1)
        fprintf(out,
                "%lld ranks: %.1f MiB of their weights are on another rank as well, %.1f of them "
                "on rank %d: %s\n",
                (long long)ranks, total, mib(most->replicated_bytes), (int)most->rank, names.data);
    else
        fprintf(out, "rank %d: %.1f MiB of its weights are on another rank as well: %s\n",
                (int)most->rank, total, names.data);
out:
    saf_buf_free(&names);
    return st;
}

saf_status saf__report_ranks(FILE *out, const saf_results *r) {
    saf__grid g = {0};
    saf_buf head = {0};
    saf_status st = SAF_OK;
    bool grid = is_grid(r);
    SAF_TRY(saf_buf_printf(&head,
                           "rank|<host|%s|<layers|%s<kernels|threads|weights MiB|KV MiB|peak MiB|"
                           "load s|busy %%|wait s|sent MiB|received MiB",
                           grid ? "replica|stage|part" : "stage", grid ? "<heads|" : ""));
    SAF_TRY(saf__grid_begin(&g, head.data));
    for (int64_t i = 0; i < r->n_ranks; i++) SAF_TRY(rank_cells(&g, &r->ranks[i], grid));
    SAF_TRY(saf__grid_print(&g, out));
    for (int64_t i = 0; i < r->n_ranks; i++) {
        const saf_result_rank *k = &r->ranks[i];
        if (k->weights_from != k->rank)
            fprintf(out, "rank %d had no model file: its weights came from rank %d\n", (int)k->rank,
                    (int)k->weights_from);
    }
    print_replicas(out, r);
    SAF_TRY(print_replicated(out, r));
out:
    saf_buf_free(&head);
    saf__grid_free(&g);
    return st;
}

static saf_status call_cells(saf__grid *g, const saf_result_call *c) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__grid_cell(g, "%.15s", c->kind));
    SAF_TRY(saf__grid_cell(g, "%lld", (long long)c->calls));
    SAF_TRY(saf__grid_cell(g, "%.3f", mib(c->bytes)));
    SAF_TRY(saf__grid_cell(g, "%.3f", c->wait_s));
out:
    return st;
}

/* Kinds in the order in which the ranks name them first. */
static saf_status sum_calls(const saf_results *r, saf_result_call **sums, int64_t *n) {
    saf_status st = saf_alloc((size_t)r->n_ranks * SAF_CALL_KINDS_MAX, sizeof **sums, sums);
    if (st != SAF_OK) return st;
    *n = 0;
    for (int64_t i = 0; i < r->n_ranks; i++)
        for (int k = 0; k < r->ranks[i].n_calls; k++) {
            const saf_result_call *c = &r->ranks[i].calls[k];
            int64_t at = 0;
            while (at < *n && strcmp((*sums)[at].kind, c->kind) != 0) at++;
            saf_result_call *sum = &(*sums)[at];
            if (at == *n) {
                memcpy(sum->kind, c->kind, sizeof sum->kind);
                ++*n;
            }
            /* A file may hold any counts: their sum wraps rather than traps. */
            sum->calls = (int64_t)((uint64_t)sum->calls + (uint64_t)c->calls);
            sum->bytes = (int64_t)((uint64_t)sum->bytes + (uint64_t)c->bytes);
            sum->wait_s += c->wait_s;
        }
    return SAF_OK;
}

saf_status saf__report_calls(FILE *out, const saf_results *r, bool per_rank) {
    saf__grid g = {0};
    saf_result_call *sums = NULL;
    int64_t n = 0;
    saf_status st = SAF_OK;
    SAF_TRY(sum_calls(r, &sums, &n));
    if (n == 0) goto out;
    if (per_rank) {
        SAF_TRY(saf__grid_begin(&g, "rank|<calls|number|MiB|waiting s"));
        for (int64_t i = 0; i < r->n_ranks; i++)
            for (int k = 0; k < r->ranks[i].n_calls; k++) {
                SAF_TRY(saf__grid_cell(&g, "%d", (int)r->ranks[i].rank));
                SAF_TRY(call_cells(&g, &r->ranks[i].calls[k]));
            }
    } else {
        SAF_TRY(saf__grid_begin(&g, "<calls of all ranks|number|MiB|waiting s"));
        for (int64_t i = 0; i < n; i++)
            if (sums[i].calls != 0) SAF_TRY(call_cells(&g, &sums[i]));
    }
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf_free(&sums);
    saf__grid_free(&g);
    return st;
}

/* ---- all requests ---- */

static saf_status number_cell(saf__grid *g, double v) {
    return isfinite(v) ? saf__grid_cell(g, "%.4g", v) : saf__grid_cell(g, "-");
}

static saf_status request_cells(saf__grid *g, const saf_result_request *q, bool score) {
    saf_status st = SAF_OK;
    saf_buf error = {0};
    SAF_TRY(saf__grid_cell(g, "%.200s", q->id ? q->id : ""));
    SAF_TRY(saf__grid_cell(g, "%.15s", q->state));
    SAF_TRY(saf__grid_cell(g, "%.15s", q->finish_reason));
    SAF_TRY(saf__grid_cell(g, "%lld", (long long)q->prompt_tokens));
    SAF_TRY(saf__grid_cell(g, "%lld", (long long)q->completion_tokens));
    SAF_TRY(number_cell(g, q->queue_s));
    SAF_TRY(number_cell(g, score ? q->log_likelihood : q->time_to_first_token_s));
    SAF_TRY(number_cell(g, score ? q->perplexity : q->seconds_per_token));
    SAF_TRY(saf__show_text(&error, q->error ? q->error : "", LINE_CHARS));
    SAF_TRY(saf__grid_cell(g, "%s", error.data));
out:
    saf_buf_free(&error);
    return st;
}

saf_status saf__report_requests(FILE *out, const saf_results *r) {
    bool score = r->kind && strcmp(r->kind, "score") == 0;
    saf__grid g = {0};
    saf_status st = SAF_OK;
    SAF_TRY(saf__grid_begin(
        &g, score ? "<id|<state|<finish|prompt|completion|queue s|log-likelihood|perplexity|<error"
                  : "<id|<state|<finish|prompt|completion|queue s|first token s|s/token|<error"));
    for (int64_t i = 0; i < r->n_requests; i++) SAF_TRY(request_cells(&g, &r->requests[i], score));
    SAF_TRY(saf__grid_print(&g, out));
out:
    saf__grid_free(&g);
    return st;
}
