/* Suite comm: messages from one rank to another and back, one at a time and ten at once, between
 * every two hosts (or every two ranks of the only host). All sizes follow each other in every
 * repetition, so that whatever else the machines do meets all of them alike. */
#include "job/bench/suites.h"

enum { AT_ONCE = 10 };

typedef struct {
    int64_t bytes; /* of each message */
    int32_t at_once;
} one_case;

typedef struct {
    saf__suites *w;
    int32_t a, b; /* the two ranks */
    bool measures, takes_part;
    int32_t n_cases;
    one_case cases[2 * SAF__SIZES_MAX];
    char *out, *in;  /* room for the largest case */
    double *samples; /* [repeats, n_cases] seconds one way */
} pairs;

static void choose_cases(pairs *p) {
    int64_t sizes[SAF__SIZES_MAX], most = p->w->s->job->bench.message_bytes;
    int n = saf__suite_sizes(most, sizes);
    for (int i = 0; i < n; i++) p->cases[p->n_cases++] = (one_case){sizes[i], 1};
    for (int i = 0; i < n; i++)
        if (sizes[i] * AT_ONCE <= most) p->cases[p->n_cases++] = (one_case){sizes[i], AT_ONCE};
}

static saf_status pass_one(const pairs *p, bool send, size_t bytes) {
    saf_comm *world = p->w->s->world;
    int peer = p->measures ? p->b : p->a;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_U8, send ? p->out : p->in, (int64_t)bytes);
    return send ? saf_comm_send(world, peer, SAF_TAG_BENCH, &t)
                : saf_comm_recv(world, peer, SAF_TAG_BENCH, bytes, &t);
}

static saf_status pass_many(const pairs *p, bool send, size_t bytes) {
    saf_status st = SAF_OK;
    saf_comm *world = p->w->s->world;
    int peer = p->measures ? p->b : p->a;
    saf_tensor t[AT_ONCE];
    saf_comm_request *requests[AT_ONCE] = {NULL};
    for (int i = 0; i < AT_ONCE; i++) {
        char *at = (send ? p->out : p->in) + (size_t)i * bytes;
        t[i] = saf_tensor_1d(SAF_DTYPE_U8, at, (int64_t)bytes);
        SAF_TRY(send ? saf_comm_isend(world, peer, SAF_TAG_BENCH, &t[i], &requests[i])
                     : saf_comm_irecv(world, peer, SAF_TAG_BENCH, bytes, &t[i], &requests[i]));
    }
    for (int i = 0; i < AT_ONCE; i++) SAF_TRY(saf_comm_wait(&requests[i]));
out:
    return st; /* after an error all ranks end: nothing is given back */
}

static saf_status pass(const pairs *p, const one_case *c, bool send) {
    size_t bytes = (size_t)c->bytes;
    return c->at_once == 1 ? pass_one(p, send, bytes) : pass_many(p, send, bytes);
}

static saf_status measure_case(const pairs *p, const one_case *c, double *one_way_s) {
    saf_status st = SAF_OK;
    int32_t rounds = saf__suite_rounds(c->bytes * c->at_once);
    double start = saf_clock_s();
    for (int32_t i = 0; i < rounds; i++) {
        SAF_TRY(pass(p, c, p->measures));
        SAF_TRY(pass(p, c, !p->measures));
    }
    *one_way_s = (saf_clock_s() - start) / (2 * rounds);
out:
    return st;
}

/* The first time through all sizes is for nothing. */
static saf_status measure_pair(const pairs *p) {
    saf_status st = SAF_OK;
    for (int32_t repeat = -1; repeat < p->w->repeats; repeat++)
        for (int32_t i = 0; i < p->n_cases; i++) {
            double s;
            SAF_TRY(measure_case(p, &p->cases[i], &s));
            if (repeat >= 0) p->samples[repeat * p->n_cases + i] = s;
        }
out:
    return st;
}

static saf_status add_rows(const pairs *p) {
    saf_status st = SAF_OK;
    const saf__suites *w = p->w;
    double *values = NULL;
    SAF_TRY(saf_alloc((size_t)w->repeats, sizeof *values, &values));
    for (int32_t i = 0; i < p->n_cases; i++) {
        saf__figures f;
        int64_t bytes = p->cases[i].bytes * p->cases[i].at_once;
        for (int32_t r = 0; r < w->repeats; r++) values[r] = p->samples[r * p->n_cases + i];
        SAF_TRY(saf__suite_figures(values, w->repeats, (double)bytes, &f));
        saf_suite_pair row = {.rank_a = p->a,
                              .rank_b = p->b,
                              .at_once = p->cases[i].at_once,
                              .bytes = bytes,
                              .repeats = w->repeats,
                              .rounds = saf__suite_rounds(bytes),
                              .seconds = f.seconds,
                              .seconds_min = f.seconds_min,
                              .seconds_max = f.seconds_max,
                              .bytes_per_s = f.rate,
                              .bytes_per_s_min = f.rate_min,
                              .bytes_per_s_max = f.rate_max};
        memcpy(row.host_a, w->hosts[p->a], sizeof row.host_a);
        memcpy(row.host_b, w->hosts[p->b], sizeof row.host_b);
        SAF_TRY(saf__suite_row(w, SAF_SUITE_PAIRS, &row));
    }
out:
    saf_free(&values);
    return st;
}

static saf_status run_pair(pairs *p, int32_t a, int32_t b) {
    saf_status st = SAF_OK;
    const saf__session *s = p->w->s;
    p->a = a;
    p->b = b;
    p->measures = s->rank == a;
    SAF_TRY(saf_comm_barrier(s->world));
    if (s->rank == a || s->rank == b) saf__suite_end_apart(p->w, measure_pair(p));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, p->samples, (int64_t)p->w->repeats * p->n_cases);
    SAF_TRY(saf_comm_bcast(s->world, a, &t));
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? add_rows(p) : SAF_OK));
out:
    return st;
}

saf_status saf__suite_pairs(saf__suites *w) {
    saf_status st = SAF_OK;
    pairs p = {.w = w};
    const saf__session *s = w->s;
    size_t most = (size_t)s->job->bench.message_bytes;
    choose_cases(&p);
    for (int32_t i = 0; i < w->n_ends; i++) p.takes_part = p.takes_part || w->ends[i] == s->rank;
    st = saf_alloc((size_t)w->repeats, (size_t)p.n_cases * sizeof *p.samples, &p.samples);
    if (st == SAF_OK && p.takes_part) st = saf_alloc(most, 1, &p.out);
    if (st == SAF_OK && p.takes_part) st = saf_alloc(most, 1, &p.in);
    if (st == SAF_OK && p.takes_part) memset(p.out, 1, most);
    if (st == SAF_OK && p.takes_part) memset(p.in, 0, most);
    SAF_TRY(saf_comm_agree(s->world, st));
    for (int32_t i = 0; i < w->n_ends; i++)
        for (int32_t j = i + 1; j < w->n_ends; j++) SAF_TRY(run_pair(&p, w->ends[i], w->ends[j]));
out:
    saf_free(&p.out);
    saf_free(&p.in);
    saf_free(&p.samples);
    return st;
}
