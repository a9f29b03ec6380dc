/* What the suites of a bench job share. */
#include "job/bench/suites.h"

#include <math.h>

#include "job/bench/bench.h"

saf_status saf__suite_row(const saf__suites *w, saf_suite_table table, const void *row) {
    return saf_buf_append(&w->s->results.bench.tables[table], row,
                          saf_suite_table_info(table).row_bytes);
}

saf_status saf__suite_gather(const saf__suites *w, saf_suite_table table, const saf_buf *mine) {
    saf_status st = SAF_OK;
    saf_buf *all = NULL;
    const saf__session *s = w->s;
    size_t ranks = (size_t)s->ranks;
    SAF_TRY(saf_comm_agree(s->world, saf_alloc(ranks, sizeof *all, &all)));
    SAF_TRY(saf_comm_gather_buf(s->world, 0, mine, all));
    for (size_t r = 0; st == SAF_OK && s->rank == 0 && r < ranks; r++)
        st = saf_buf_append(&w->s->results.bench.tables[table], all[r].data, all[r].len);
    st = saf_comm_agree(s->world, st);
out:
    for (size_t r = 0; all && r < ranks; r++) saf_buf_free(&all[r]);
    saf_free(&all);
    return st;
}

saf_status saf__suite_figures(const double *samples, int64_t n, double amount, saf__figures *out) {
    saf_status st = saf__spread(samples, n, &out->seconds, &out->seconds_min, &out->seconds_max);
    if (st != SAF_OK) return st;
    out->rate = out->seconds > 0 ? amount / out->seconds : (double)NAN;
    out->rate_min = out->seconds_max > 0 ? amount / out->seconds_max : (double)NAN;
    out->rate_max = out->seconds_min > 0 ? amount / out->seconds_min : (double)NAN;
    return SAF_OK;
}

int saf__suite_sizes(int64_t most, int64_t sizes[SAF__SIZES_MAX]) {
    int n = 0;
    for (int64_t size = 1; size < most && n < SAF__SIZES_MAX - 1; size *= 4) sizes[n++] = size;
    sizes[n++] = most;
    return n;
}

int32_t saf__suite_rounds(int64_t bytes) {
    enum { MOST = 256, TOGETHER_BYTES = 4 << 20 };
    return (int32_t)saf_i64_max(1, saf_i64_min(MOST, TOGETHER_BYTES / saf_i64_max(1, bytes)));
}

void saf__suite_end_apart(const saf__suites *w, saf_status st) {
    if (st == SAF_OK || w->s->ranks == 1) return;
    saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
    saf_comm_abort(w->s->world, saf_status_exit_code(st));
}
