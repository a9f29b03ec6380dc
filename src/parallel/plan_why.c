/* One sentence on why a layout is best, and what the rules of thumb say of it. */
#include <math.h>
#include <stdio.h>

#include "parallel/plan.h"

/* A model is said to fit where its file is under so much of the memory, and several hosts to pay
 * while the network takes less than so much of the time. */
#define RULE_MEMORY 0.8
#define RULE_NETWORK 0.2

static double gb(double bytes) {
    return bytes * 1e-9;
}

static const char *plural(int64_t n) {
    return n == 1 ? "" : "s";
}

static const saf_plan_choice *best_on_several(const saf_plan *plan) {
    for (int32_t i = 0; i < plan->n; i++)
        if (plan->choices[i].hosts > 1 && plan->choices[i].fits) return &plan->choices[i];
    return NULL;
}

static void explain_shortage(const saf_plan_choice *best, int32_t hosts, const double *short_of,
                             char *out, size_t size) {
    double least = (double)INFINITY;
    int32_t at = 0;
    for (int32_t i = 1; i <= hosts; i++)
        if (short_of[i] < least) {
            least = short_of[i];
            at = i;
        }
    snprintf(out, size,
             "does not fit: the fullest host would need %.3g GB more than the %.3g it has without "
             "its reserve, in the best of all layouts, on %d of %d host%s",
             gb(least), gb(best->room_bytes), at, hosts, plural(hosts));
}

/* Where fewer hosts than the best layout has are too few: how many, and what they lack. */
static bool explain_need(const saf_plan_choice *best, const double *short_of, char *out,
                         size_t size) {
    int32_t fewest = 1, below = 0;
    while (fewest < best->hosts && short_of[fewest] > 0) {
        if (short_of[fewest] < (double)INFINITY) below = fewest;
        fewest++;
    }
    if (fewest == 1 || below == 0) return false;
    int n = snprintf(out, size, "does not fit on fewer than %d hosts: short of %.3g GB on %d",
                     fewest, gb(short_of[below]), below);
    if (best->hosts > fewest && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, "; %d do it fastest", best->hosts);
    return true;
}

static void explain_one(const saf_plan *plan, char *out, size_t size) {
    const saf_plan_choice *best = &plan->choices[0], *more = best_on_several(plan);
    if (!more) {
        snprintf(out, size, "one host holds the model, and no layout on more was looked at");
        return;
    }
    double times = more->job_s / best->job_s;
    bool token = more->token_network_share >= more->network_share;
    double share = fmax(more->token_network_share, more->network_share);
    if (times < 1.02)
        snprintf(out, size, "one host alone is as fast as %d", more->hosts);
    else if (share >= 0.05)
        snprintf(out, size,
                 "one host alone is %.1f times faster than %d: the link would take %.0f %% of %s",
                 times, more->hosts, 100 * share, token ? "each token" : "the time");
    else
        snprintf(out, size,
                 "one host alone is %.1f times faster than %d: there is too little to do side by "
                 "side for more",
                 times, more->hosts);
}

static void explain_ranks(const saf_plan *plan, char *out, size_t size) {
    const saf_plan_choice *best = &plan->choices[0];
    int32_t ranks = best->replicas * best->stages * best->tensor;
    for (int32_t i = 1; i < plan->n; i++) {
        const saf_plan_choice *c = &plan->choices[i];
        int32_t other = c->replicas * c->stages * c->tensor;
        if (other == ranks || !c->fits) continue;
        snprintf(out, size, "%d rank%s with all cores of the host %s %.2f times as fast as %d",
                 ranks, plural(ranks), ranks == 1 ? "is" : "are", c->job_s / best->job_s, other);
        return;
    }
    snprintf(out, size, "there is one host, and it holds the model");
}

static void rules(const saf_plan_model *m, const saf_plan_cluster *cluster, saf_plan *plan) {
    const saf_plan_choice *best = &plan->choices[0];
    double smallest = (double)INFINITY;
    for (int32_t i = 0; i < cluster->n; i++)
        smallest = fmin(smallest, cluster->classes[i].memory_bytes);
    double hosts = fmax(1, (double)best->hosts / best->replicas);
    bool under = m->file_bytes <= RULE_MEMORY * smallest * hosts;
    snprintf(
        plan->rules[0], sizeof plan->rules[0],
        "a model fits where its file is under 0.8 of the memory: %.3g GB on %.0f x %.3g GB, so "
        "it %s; this plan says it %s",
        gb(m->file_bytes), hosts, gb(smallest), under ? "would" : "would not",
        best->fits ? "does" : "does not");
    const saf_plan_choice *more = best_on_several(plan);
    if (!more) return;
    bool pays = more->network_share < RULE_NETWORK;
    snprintf(plan->rules[1], sizeof plan->rules[1],
             "several hosts pay while the network takes under 20 %% of the time: %.0f %% on %d "
             "hosts, so they %s; this plan says they %s",
             100 * more->network_share, more->hosts, pays ? "would" : "would not",
             best->hosts > 1 ? "do" : "do not");
}

void saf__plan_explain(const saf_plan_model *m, const saf_plan_cluster *cluster, saf_plan *plan,
                       const double *short_of, int32_t hosts) {
    const saf_plan_choice *best = &plan->choices[0], *one = plan->one_host;
    char *out = plan->why;
    size_t size = sizeof plan->why;
    rules(m, cluster, plan);
    if (!best->fits)
        explain_shortage(best, hosts, short_of, out, size);
    else if (best->hosts == 1 && hosts == 1)
        explain_ranks(plan, out, size);
    else if (best->hosts == 1)
        explain_one(plan, out, size);
    else if (one && one->fits)
        snprintf(out, size,
                 "%d hosts are %.1f times as fast as one alone: the network takes %.0f %% "
                 "of the time",
                 best->hosts, one->job_s / best->job_s, 100 * best->network_share);
    else if (!explain_need(best, short_of, out, size))
        snprintf(out, size, "the fastest of %lld layouts: the network takes %.0f %% of the time",
                 (long long)plan->looked_at, 100 * best->network_share);
}
