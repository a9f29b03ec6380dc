/* What the ranks did when, from their memories into the results. */
#include <assert.h>
#include <stdio.h>

#include "job/session.h"

saf_status saf__timeline_begin(saf__session *s) {
    saf_status st = SAF_OK;
    if (!s->settings.trace) return SAF_OK;
    SAF_TRY(saf_comm_agree(s->world, saf_trace_new(s->ranks, &s->trace)));
    st = saf_trace_meet(s->world, s->trace);
out:
    return st;
}

static void add_row(saf_results *r, int rank, const saf_trace_entry *e) {
    saf_result_entry *row = &r->timeline[r->n_entries++];
    row->rank = rank;
    row->start_s = e->start_s;
    row->end_s = e->end_s;
    row->flight = e->flight;
    row->tokens = e->tokens;
    snprintf(row->kind, sizeof row->kind, "%s", saf_trace_kind_name((saf_trace_kind)e->kind));
}

/* Rank 0: one rank's entries after the other's, each one's own memory given back at once. */
static saf_status add_rows(saf_results *r, saf_buf *all, int ranks) {
    saf_status st = SAF_OK;
    size_t n = 0;
    for (int i = 0; i < ranks; i++) n += all[i].len / sizeof(saf_trace_entry);
    SAF_TRY(saf_alloc(n, sizeof *r->timeline, &r->timeline));
    for (int i = 0; i < ranks; i++) {
        const saf_trace_entry *e = (const saf_trace_entry *)(const void *)all[i].data;
        for (size_t k = 0; k < all[i].len / sizeof *e; k++) add_row(r, i, &e[k]);
        saf_buf_free(&all[i]);
    }
out:
    return st;
}

saf_status saf__timeline_gather(saf__session *s) {
    saf_status st = SAF_OK;
    saf_buf mine = {0}, *all = NULL;
    double zero_s = s->run_start_s;
    if (!s->trace) return SAF_OK;
    SAF_TRY(saf_trace_meet(s->world, s->trace));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, &zero_s, 1);
    SAF_TRY(saf_comm_bcast(s->world, 0, &t));
    st = saf_trace_pack(s->trace, zero_s, &mine);
    saf_trace_free(&s->trace);
    if (st == SAF_OK) st = saf_alloc((size_t)s->ranks, sizeof *all, &all);
    SAF_TRY(saf_comm_agree(s->world, st));
    assert(all); /* or all would have failed */
    SAF_TRY(saf_comm_gather_buf(s->world, 0, &mine, all));
    if (s->rank == 0) st = add_rows(&s->results, all, s->ranks);
    SAF_TRY(saf_comm_agree(s->world, st));
out:
    for (int i = 0; all && i < s->ranks; i++) saf_buf_free(&all[i]);
    saf_free(&all);
    saf_buf_free(&mine);
    return st;
}
