/* What was planned for a run, beside what came of it. */
#include <math.h>

#include "cli/grid.h"
#include "cli/json.h"
#include "cli/report.h"

/* Of the requests that did not fail: the least time to a first token, for the plan's is that of a
 * prompt with nothing else on its way, and the average time of a token. */
typedef struct {
    double first_token_s, token_s, tokens_per_s;
    int64_t memory_bytes; /* of the largest rank */
} measured;

static measured measure(const saf_results *r) {
    measured m = {(double)NAN, (double)NAN, (double)NAN, 0};
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_requests; i++) {
        const saf_result_request *q = &r->requests[i];
        if (strcmp(q->state, "done") != 0) continue;
        if (q->time_to_first_token_s > 0)
            m.first_token_s = fmin(m.first_token_s, q->time_to_first_token_s);
        if (!(q->seconds_per_token > 0) || q->completion_tokens < 2) continue;
        sum += q->seconds_per_token;
        n++;
    }
    if (n > 0) m.token_s = sum / (double)n;
    if (r->run_s > 0) m.tokens_per_s = (double)(r->prompt_tokens + r->completion_tokens) / r->run_s;
    for (int64_t i = 0; i < r->n_ranks; i++)
        m.memory_bytes = saf_i64_max(m.memory_bytes, r->ranks[i].peak_memory_bytes);
    return m;
}

static saf_status add(saf__grid *g, const char *name, double planned, double got, double scale,
                      int digits) {
    saf_status st = SAF_OK;
    if (!(planned > 0)) return SAF_OK;
    SAF_TRY(saf__grid_cell(g, "%s", name));
    SAF_TRY(saf__grid_cell(g, "%.*f", digits, planned * scale));
    if (!(got > 0)) {
        SAF_TRY(saf__grid_cell(g, "-"));
        return saf__grid_cell(g, "-");
    }
    SAF_TRY(saf__grid_cell(g, "%.*f", digits, got * scale));
    SAF_TRY(saf__grid_cell(g, "%+.0f %%", 100 * (planned / got - 1)));
out:
    return st;
}

/* Rules of thumb say nothing of a run that is over at once: it is its starting that takes the time.
 */
static bool says_something(const saf_results *r) {
    const char *rates = r->plan.rates;
    return rates && (r->run_s >= 1 || strncmp(rates, "profile", strlen("profile")) == 0);
}

saf_status saf__report_plan(FILE *out, const saf_results *r) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    saf_buf rates = {0};
    const saf_result_plan *p = &r->plan;
    measured m = measure(r);
    if (!says_something(r)) return SAF_OK;
    SAF_TRY(saf__show_text(&rates, p->rates, 200));
    SAF_TRY(saf__grid_begin(&g, "<plan|planned|measured|plan off by"));
    SAF_TRY(add(&g, "first token ms", p->first_token_s, m.first_token_s, 1e3, 1));
    SAF_TRY(add(&g, "a token ms", p->token_s, m.token_s, 1e3, 2));
    SAF_TRY(add(&g, "tokens/s in all", p->tokens_per_s, m.tokens_per_s, 1, 1));
    SAF_TRY(add(&g, "run s", p->run_s, r->run_s, 1, 2));
    SAF_TRY(add(&g, "largest rank MB", (double)p->memory_bytes, (double)m.memory_bytes, 1e-6, 0));
    SAF_TRY(saf__grid_print(&g, out));
    fprintf(out, "(by %s; completions of full length)\n\n", rates.data);
out:
    saf_buf_free(&rates);
    saf__grid_free(&g);
    return st;
}

cJSON *saf__json_plan(saf__json *b, const saf_results *r) {
    const saf_result_plan *p = &r->plan;
    measured m = measure(r);
    cJSON *o = cJSON_CreateObject(), *ranks = cJSON_CreateArray();
    saf__json_text(b, o, "rates", p->rates);
    saf__json_number(b, o, "first_token_s", p->first_token_s);
    saf__json_number(b, o, "measured_first_token_s", m.first_token_s);
    saf__json_number(b, o, "token_s", p->token_s);
    saf__json_number(b, o, "measured_token_s", m.token_s);
    saf__json_number(b, o, "tokens_per_s", p->tokens_per_s);
    saf__json_number(b, o, "measured_tokens_per_s", m.tokens_per_s);
    saf__json_number(b, o, "run_s", p->run_s);
    saf__json_number(b, o, "measured_run_s", r->run_s);
    saf__json_number(b, o, "network_share", p->network_share);
    saf__json_whole(b, o, "memory_bytes", p->memory_bytes);
    saf__json_whole(b, o, "measured_memory_bytes", m.memory_bytes);
    for (int64_t i = 0; i < p->n_ranks; i++)
        saf__json_item(b, ranks, cJSON_CreateNumber((double)p->ranks[i].memory_bytes));
    saf__json_add(b, o, "rank_memory_bytes", ranks);
    return o;
}
