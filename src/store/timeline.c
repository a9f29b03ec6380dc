/* /timeline: what each rank did when, where that was recorded. */
#include <math.h>

#include "store/schema.h"

#define ENTRY(member, k, units, text)                                              \
    {                                                                              \
#member, units, text, SAF__COLUMN_##k, offsetof(saf_result_entry, member), \
            sizeof((saf_result_entry *)0)->member                                  \
    }

static const saf__column columns[] = {
    ENTRY(rank, I32, "1", "number of the rank"),
    ENTRY(kind, CHARS, "text",
          "what it did: compute, sample, exchange, send, receive, wait; dropped: no longer known"),
    ENTRY(start_s, F64, "s", "from the start of the run on, by the clock of rank 0"),
    ENTRY(end_s, F64, "s", "likewise"),
    ENTRY(flight, I64, "1", "number of the micro-batch of its replica, from 0 on; -1: none"),
    ENTRY(tokens, I32, "tokens", "tokens of the micro-batch; 0 where there is none"),
};
static const saf__table table = {
    "/timeline", "what each rank did when; rank by rank, in the order in which it ended",
    sizeof(saf_result_entry), sizeof columns / sizeof columns[0], columns};

saf_status saf__timeline_write(const saf__h5 *f, const saf_results *r) {
    if (r->n_entries == 0) return SAF_OK;
    return saf__table_write(f, &table, r->timeline, r->n_entries);
}

saf_status saf__timeline_read(const saf__h5 *f, saf_results *r) {
    saf_status st = SAF_OK;
    bool there = false;
    SAF_TRY(saf__h5_has(f, table.path, &there));
    if (!there) return SAF_OK;
    SAF_TRY(saf__table_read(f, &table, &r->timeline, &r->n_entries));
    for (int64_t i = 0; i < r->n_entries; i++) {
        const saf_result_entry *e = &r->timeline[i];
        if (e->rank < 0 || e->rank >= r->n_ranks || !isfinite(e->start_s) || !isfinite(e->end_s) ||
            e->end_s < e->start_s)
            return saf_fail(SAF_BAD_INPUT, "%s: row %lld of %s: rank %d of %lld, from %g s to %g s",
                            f->path, (long long)i, table.path, (int)e->rank, (long long)r->n_ranks,
                            e->start_s, e->end_s);
    }
out:
    return st;
}
