/* Latency and bandwidth between every two hosts, by the circle method: in each round every host
 * meets another one, so that no host sends for two pairs at a time, and all pairs have had their
 * turn after as many rounds as there are hosts. */
#include <math.h>

#include "job/plan/detect.h"

#define ALL_S 6.0 /* for all rounds together, where they are few */
#define ROUND_MOST_S 0.8
#define ROUND_LEAST_S 0.05

enum {
    GROUPS = 5,        /* of short messages; their median counts */
    TRIPS = 50,        /* of such a group at most */
    SAMPLES = 3,       /* of long messages, in each direction */
    LEAST = 256 << 10, /* bytes of a long message */
    MOST = 32 << 20
};

int32_t saf__detect_rounds(int32_t n) {
    return n < 2 ? 0 : n % 2 ? n : n - 1;
}

int32_t saf__detect_partner(int32_t n, int32_t round, int32_t i) {
    int32_t m = saf__detect_rounds(n); /* odd */
    if (i == m) return (int32_t)((int64_t)round * ((m + 1) / 2) % m);
    int32_t partner = (round - i % m + m) % m;
    if (partner != i) return partner;
    return n % 2 ? -1 : m; /* of an odd number of hosts one rests */
}

/* ---- two ranks ---- */

/* What the rank that measures tells the other to do. */
typedef enum { ECHO, TAKE, GIVE, END } what;
typedef struct {
    int64_t what, count, bytes;
} order;

typedef struct {
    saf_comm *comm;
    int peer;
    char *memory; /* [MOST] */
    double budget_s;
} wire;

static saf_status put(const wire *w, void *data, int64_t bytes) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, data, bytes);
    return saf_comm_send(w->comm, w->peer, SAF_TAG_BENCH, &t);
}

static saf_status get(const wire *w, void *data, int64_t bytes) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, data, bytes);
    return saf_comm_recv(w->comm, w->peer, SAF_TAG_BENCH, (size_t)bytes, &t);
}

/* Until the other has enough. */
static saf_status obey(const wire *w) {
    saf_status st = SAF_OK;
    for (;;) {
        order o = {0};
        SAF_TRY(get(w, &o, sizeof o));
        if (o.what == END) return SAF_OK;
        if (o.bytes < 1 || o.bytes > MOST) return saf_fail(SAF_COMM, "an order of no use");
        for (int64_t i = 0; i < o.count; i++) {
            if (o.what != GIVE) SAF_TRY(get(w, w->memory, o.bytes));
            if (o.what != TAKE) SAF_TRY(put(w, w->memory, o.bytes));
        }
        if (o.what == TAKE) SAF_TRY(put(w, w->memory, 1));
    }
out:
    return st;
}

/* Seconds of a whole order, from its sending to the last byte that comes back. */
static saf_status give_order(const wire *w, order o, double *seconds) {
    saf_status st = SAF_OK;
    SAF_TRY(put(w, &o, sizeof o));
    double start = saf_clock_s();
    for (int64_t i = 0; i < o.count; i++) {
        if (o.what != GIVE) SAF_TRY(put(w, w->memory, o.bytes));
        if (o.what != TAKE) SAF_TRY(get(w, w->memory, o.bytes));
    }
    if (o.what == TAKE) SAF_TRY(get(w, w->memory, 1));
    *seconds = saf_clock_s() - start;
out:
    return st;
}

/* One way, by groups as long as a tenth of the time allows. */
static saf_status measure_short(const wire *w, int64_t bytes, double *out) {
    saf_status st = SAF_OK;
    double s, each[GROUPS];
    SAF_TRY(give_order(w, (order){ECHO, 1, bytes}, &s));
    SAF_TRY(give_order(w, (order){ECHO, 1, bytes}, &s));
    int64_t trips = s > 0 ? (int64_t)fmin(TRIPS, w->budget_s / 10 / GROUPS / s) : TRIPS;
    if (trips < 1) trips = 1;
    for (int i = 0; i < GROUPS; i++) {
        SAF_TRY(give_order(w, (order){ECHO, trips, bytes}, &s));
        each[i] = s / (2 * (double)trips);
    }
    *out = saf_median(each, GROUPS);
out:
    return st;
}

/* Messages that take a tenth of the time; the word that they are there takes a latency, and where
 * they are given, so does the order. */
static saf_status measure_rates(const wire *w, saf_profile_link *l) {
    saf_status st = SAF_OK;
    double s, each[SAMPLES];
    l->bytes = LEAST;
    for (;;) {
        SAF_TRY(give_order(w, (order){TAKE, 1, l->bytes}, &s));
        if (s > w->budget_s / 20 || l->bytes * 2 > MOST) break;
        l->bytes *= 2;
    }
    for (int way = 0; way < 2; way++) {
        for (int i = 0; i < SAMPLES; i++) {
            SAF_TRY(give_order(w, (order){way ? GIVE : TAKE, 1, l->bytes}, &s));
            each[i] = (double)l->bytes / fmax(s - l->latency_s, s / 2);
        }
        *(way ? &l->bytes_s_to_a : &l->bytes_s_to_b) = saf_median(each, SAMPLES);
    }
out:
    return st;
}

static saf_status measure_pair(const wire *w, saf_profile_link *l) {
    saf_status st = SAF_OK;
    order end = {END, 0, 1};
    SAF_TRY(measure_short(w, 1, &l->latency_s));
    SAF_TRY(measure_short(w, SAF_PROFILE_SHORT_BYTES, &l->short_s));
    SAF_TRY(measure_rates(w, l));
    SAF_TRY(put(w, &end, sizeof end));
out:
    return st;
}

/* ---- all of them ---- */

saf_status saf__detect_links_measure(saf_comm *world, saf_comm *firsts,
                                     char (*names)[SAF_SUITE_HOST_BYTES], saf_buf *rows) {
    saf_status st = SAF_OK;
    int32_t n = saf_comm_size(firsts), me = saf_comm_rank(firsts);
    int32_t rounds = saf__detect_rounds(n);
    wire w = {.comm = firsts};
    if (rounds == 0) return SAF_OK;
    w.budget_s = fmax(ROUND_LEAST_S, fmin(ROUND_MOST_S, ALL_S / rounds));
    SAF_TRY(saf_comm_agree(firsts, saf_alloc(MOST, 1, &w.memory)));
    memset(w.memory, 1, MOST);
    for (int32_t round = 0; round < rounds; round++) {
        SAF_TRY(saf_comm_barrier(firsts));
        w.peer = saf__detect_partner(n, round, me);
        if (w.peer < 0) continue;
        saf_profile_link l = {.round = round};
        memcpy(l.host_a, names[me], sizeof l.host_a);
        memcpy(l.host_b, names[w.peer], sizeof l.host_b);
        st = me < w.peer ? measure_pair(&w, &l) : obey(&w);
        if (st == SAF_OK && me < w.peer) st = saf_buf_append(rows, &l, sizeof l);
        if (st != SAF_OK) { /* the other one waits, and knows nothing of it */
            saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
            saf_comm_abort(world, saf_status_exit_code(st));
        }
    }
out:
    saf_free(&w.memory);
    return st;
}
