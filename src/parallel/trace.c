/* What a rank did when: a ring of entries in memory that is taken beforehand, and the clock of rank
 * 0. */
#include "parallel/trace.h"

#include <math.h>

/* All ranks together, so that rank 0 can hold what it gathers; and a rank at most. */
enum { ENTRIES_IN_ALL = 1 << 21, ENTRIES_MOST = 1 << 18, ENTRIES_LEAST = 1 << 12 };
enum { ROUNDS = 16 };
/* A clock is right to some 100 millionths, and the kernel lets NTP change its pace by 500 at most
 * (adjtimex(2)): what two meetings show beyond it is that other processes had the core. */
static const double MOST_DRIFT = 500e-6;

const char *saf_trace_kind_name(saf_trace_kind kind) {
    static const char *const names[SAF_TRACE_KINDS] = {"dropped", "compute", "sample", "exchange",
                                                       "send",    "receive", "wait"};
    return (unsigned)kind < SAF_TRACE_KINDS ? names[kind] : "unknown";
}

saf_status saf_trace_new(int32_t ranks, saf_trace **out) {
    saf_status st = SAF_OK;
    saf_trace *t = NULL;
    SAF_TRY(saf_alloc(1, sizeof *t, &t));
    t->capacity = saf_i64_min(ENTRIES_MOST, saf_i64_max(ENTRIES_LEAST, ENTRIES_IN_ALL / ranks));
    SAF_TRY(saf_alloc((size_t)t->capacity, sizeof *t->entries, &t->entries));
    *out = t;
    t = NULL;
out:
    saf_trace_free(&t);
    return st;
}

void saf_trace_free(saf_trace **trace) {
    if (!*trace) return;
    saf_free(&(*trace)->entries);
    saf_free(trace);
}

void saf_trace_add(saf_trace *t, saf_trace_kind kind, double start_s, double end_s, int64_t flight,
                   int32_t tokens) {
    if (!t) return;
    t->entries[t->count++ % t->capacity] =
        (saf_trace_entry){start_s, end_s, flight, tokens, (int32_t)kind};
}

/* ---- clocks ---- */

/* Rank 0 asks rank `other` for the time, again and again; the shortest answer says the most. Its
 * time is taken to be that of the middle of the exchange. */
static saf_status ask(saf_comm *comm, int other) {
    saf_status st = SAF_OK;
    double theirs = 0, shortest = 0, found[2] = {0, 0};
    saf_tensor out = saf_tensor_1d(SAF_DTYPE_F64, &theirs, 1), back = out;
    for (int i = 0; i < ROUNDS; i++) {
        double start = saf_clock_s();
        SAF_TRY(saf_comm_send(comm, other, SAF_TAG_CLOCK, &out));
        SAF_TRY(saf_comm_recv(comm, other, SAF_TAG_CLOCK, sizeof theirs, &back));
        double end = saf_clock_s();
        if (i > 0 && end - start >= shortest) continue;
        shortest = end - start;
        found[0] = theirs;
        found[1] = theirs - (start + end) / 2;
    }
    out = saf_tensor_1d(SAF_DTYPE_F64, found, 2);
    st = saf_comm_send(comm, other, SAF_TAG_CLOCK, &out);
out:
    return st;
}

static saf_status answer(saf_comm *comm, saf__clock_meeting *found) {
    saf_status st = SAF_OK;
    double word[2];
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, word, 1);
    for (int i = 0; i < ROUNDS; i++) {
        SAF_TRY(saf_comm_recv(comm, 0, SAF_TAG_CLOCK, sizeof word[0], &t));
        word[0] = saf_clock_s();
        SAF_TRY(saf_comm_send(comm, 0, SAF_TAG_CLOCK, &t));
    }
    t = saf_tensor_1d(SAF_DTYPE_F64, word, 2);
    SAF_TRY(saf_comm_recv(comm, 0, SAF_TAG_CLOCK, sizeof word, &t));
    *found = (saf__clock_meeting){word[0], word[1]};
out:
    return st;
}

saf_status saf_trace_meet(saf_comm *comm, saf_trace *t) {
    saf_status st = SAF_OK;
    saf__clock_meeting now = {saf_clock_s(), 0};
    if (saf_comm_rank(comm) > 0) {
        SAF_TRY(answer(comm, &now));
    } else {
        for (int r = 1; r < saf_comm_size(comm); r++) SAF_TRY(ask(comm, r));
    }
    if (t->meetings++ == 0) t->first = now;
    t->last = now;
out:
    return st;
}

double saf__trace_on_rank0(const saf_trace *t, double at) {
    double between = t->last.at_s - t->first.at_s, drift = 0;
    if (between > 0) drift = (t->last.ahead_s - t->first.ahead_s) / between;
    drift = fmax(-MOST_DRIFT, fmin(drift, MOST_DRIFT));
    return at - t->first.ahead_s - drift * (at - t->first.at_s);
}

/* ---- out ---- */

/* Nothing counts before zero: a rank may have begun to wait a little earlier. */
static double from_zero(const saf_trace *t, double at, double zero_s) {
    double s = saf__trace_on_rank0(t, at) - zero_s;
    return s > 0 ? s : 0;
}

saf_status saf_trace_pack(const saf_trace *t, double zero_s, saf_buf *out) {
    saf_status st = SAF_OK;
    int64_t kept = saf_i64_min(t->count, t->capacity), lost = t->count - kept;
    saf_trace_entry dropped = {.flight = -1, .kind = SAF_TRACE_DROPPED};
    for (int64_t i = lost; i < t->count; i++) {
        double start = t->entries[i % t->capacity].start_s;
        if (i == lost || start < dropped.end_s) dropped.end_s = start;
    }
    dropped.end_s = from_zero(t, dropped.end_s, zero_s);
    if (lost > 0) SAF_TRY(saf_buf_append(out, &dropped, sizeof dropped));
    for (int64_t i = lost; i < t->count; i++) {
        saf_trace_entry e = t->entries[i % t->capacity];
        e.start_s = from_zero(t, e.start_s, zero_s);
        e.end_s = from_zero(t, e.end_s, zero_s);
        SAF_TRY(saf_buf_append(out, &e, sizeof e));
    }
out:
    return st;
}
