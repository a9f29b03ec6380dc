/* Cutting a row of things into runs, one for each part. */
#include <math.h>

#include "parallel/layout.h"

/* One pass over all cuts:
 *   best[s][n] = the smallest, over m, of best[s-1][m] with the run [m, n) added
 * where to add is to take the larger of the two (limit is infinite), or to sum squares over those
 * cuts whose runs are all within the limit. Returns best[parts][items]. */
static double pass(const saf__cut *c, double limit, double *best, int32_t *from) {
    size_t row = (size_t)c->items + 1;
    bool squares = limit < (double)INFINITY;
    for (size_t i = 0; i < row * ((size_t)c->parts + 1); i++) best[i] = (double)INFINITY;
    best[0] = 0;
    for (int32_t s = 1; s <= c->parts; s++) {
        const double *before = best + (size_t)(s - 1) * row;
        double share = c->share[s - 1];
        for (int32_t n = s * c->least; n <= c->items; n++) {
            size_t at = (size_t)s * row + (size_t)n;
            for (int32_t m = (s - 1) * c->least; m <= n - c->least; m++) {
                double value = (double)c->cost(c->ctx, m, n) / share;
                if (value > limit) continue;
                value = squares ? before[m] + value * value * share : fmax(before[m], value);
                if (value >= best[at]) continue;
                best[at] = value;
                from[at] = m;
            }
        }
    }
    return best[row * (size_t)c->parts + (size_t)c->items];
}

saf_status saf__cut_choose(const saf__cut *c, int32_t *at) {
    saf_status st = SAF_OK;
    double *best = NULL;
    int32_t *from = NULL;
    size_t row = (size_t)c->items + 1, cells;
    if (!saf_size_mul(row, (size_t)c->parts + 1, &cells))
        return saf_fail(SAF_NO_MEMORY, "%d things among %d parts", c->items, c->parts);
    SAF_TRY(saf_alloc(cells, sizeof *best, &best));
    SAF_TRY(saf_alloc(cells, sizeof *from, &from));
    pass(c, pass(c, (double)INFINITY, best, from), best, from);
    at[c->parts] = c->items;
    for (int32_t s = c->parts; s > 0; s--) at[s - 1] = from[(size_t)s * row + (size_t)at[s]];
out:
    saf_free(&best);
    saf_free(&from);
    return st;
}

/* Everybody first gets the whole part of what the share is worth: the best cut never gives less.
 * Each of the few that are left goes where it makes the least of items / share. */
void saf__cut_alike(int64_t items, const double *share, int32_t parts, int64_t *at) {
    double sum = 0;
    int64_t left = items;
    for (int32_t i = 0; i < parts; i++) sum += share[i];
    at[0] = 0;
    for (int32_t i = 0; i < parts; i++) {
        int64_t n = (int64_t)((double)items * (share[i] / sum));
        at[i + 1] = saf_i64_min(n, left);
        left -= at[i + 1];
    }
    for (; left > 0; left--) {
        int32_t best = 0;
        for (int32_t i = 1; i < parts; i++)
            if ((double)(at[i + 1] + 1) / share[i] < (double)(at[best + 1] + 1) / share[best])
                best = i;
        at[best + 1]++;
    }
    for (int32_t i = 0; i < parts; i++) at[i + 1] += at[i];
}
