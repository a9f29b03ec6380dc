/* Bench jobs: what the ranks, their hosts and the network between them can do, suite by suite. */
#include <assert.h>
#include <stdio.h>

#include "job/bench/suites.h"

typedef struct {
    saf__suite_kind kind;
    saf_status (*run)(saf__suites *w);
} suite;

/* In the order in which they run: what is short and quiet first. */
static const suite suites[] = {
    {SAF__SUITE_COMM, saf__suite_comm},       {SAF__SUITE_MEMORY, saf__suite_memory},
    {SAF__SUITE_COMPUTE, saf__suite_compute}, {SAF__SUITE_MATMUL, saf__suite_matmul},
    {SAF__SUITE_STORAGE, saf__suite_storage}, {SAF__SUITE_MODEL, saf__suite_model},
};
enum { N_SUITES = sizeof suites / sizeof suites[0] };

/* ---- opening ---- */

/* The phases of a model are those of one rank, which has all of it. */
static saf_status place_model(saf__session *s) {
    saf_status st = SAF_OK;
    saf_layout_wish wish = {.ranks = 1};
    SAF_TRY(saf_layout_choose(s->gguf, &s->params, &wish, &s->layout));
    s->range = saf_layout_range(&s->layout, 0);
    SAF_TRY(saf_alloc(1, sizeof *s->giver, &s->giver));
    SAF_TRY(saf__suite_model_check(s));
out:
    return st;
}

static saf_status start_kernels(void) {
    saf_status st = saf_kernels_init(NULL);
    return st != SAF_OK ? st : saf_kernels_check_float_state();
}

saf_status saf__bench_open(saf__session *s) {
    saf_status st = SAF_OK;
    if (!(saf__suites_of(s->job) & 1u << SAF__SUITE_MODEL)) {
        saf__bench_unlink_model(s);
        return saf_comm_agree(s->world, start_kernels());
    }
    SAF_TRY(saf__model_open(s));
    saf__bench_unlink_model(s);
    SAF_TRY(saf_comm_agree(s->world, s->rank == 0 ? place_model(s) : SAF_OK));
out:
    return st;
}

void saf__bench_plan(const saf__session *s) {
    uint32_t wanted = saf__suites_of(s->job);
    printf("suites:");
    for (int i = 0; i < N_SUITES; i++)
        if (wanted & 1u << suites[i].kind) printf(" %s", saf__suite_name(suites[i].kind));
    printf("; %d ranks\n", s->ranks);
    if (wanted & 1u << SAF__SUITE_MODEL) saf__suite_model_plan(s);
}

/* ---- running ---- */

/* Everybody learns the hosts' names, and between which ranks messages are measured. */
static saf_status find_ends(saf__suites *w) {
    saf_status st = SAF_OK;
    const saf__session *s = w->s;
    size_t ranks = (size_t)s->ranks;
    char mine[SAF_SUITE_HOST_BYTES] = "";
    saf_tensor *all = NULL;
    int32_t hosts = 0;
    st = saf_alloc(ranks, sizeof *w->hosts, &w->hosts);
    if (st == SAF_OK) st = saf_alloc(ranks, sizeof *w->ends, &w->ends);
    if (st == SAF_OK) st = saf_alloc(ranks, sizeof *all, &all);
    SAF_TRY(saf_comm_agree(s->world, st));
    assert(w->hosts && w->ends && all); /* or all would have failed */
    snprintf(mine, sizeof mine, "%s", saf_comm_host(s->world));
    for (size_t r = 0; r < ranks; r++)
        all[r] = saf_tensor_1d(SAF_DTYPE_U8, w->hosts[r], sizeof mine);
    saf_tensor own = saf_tensor_1d(SAF_DTYPE_U8, mine, sizeof mine);
    SAF_TRY(saf_comm_allgather(s->world, &own, all));
    for (int32_t r = 0; r < s->ranks; r++)
        if (s->host[r] == hosts) w->ends[hosts++] = r;
    w->n_ends = hosts > 1 ? hosts : s->ranks;
    for (int32_t r = 0; hosts == 1 && r < s->ranks; r++) w->ends[r] = r;
    for (int32_t r = 0; r < s->ranks; r++) {
        int32_t before = 0;
        for (int32_t q = 0; q < r; q++) before += s->host[q] == s->host[r];
        if (r == s->rank) w->turn = before;
        w->turns = before >= w->turns ? before + 1 : w->turns;
        w->neighbours += s->host[r] == s->host[s->rank];
    }
out:
    saf_free(&all);
    return st;
}

saf_status saf__bench_run(saf__session *s) {
    saf_status st = SAF_OK;
    saf__suites w = {.s = s, .repeats = s->job->bench.repeats, .wanted = saf__suites_of(s->job)};
    s->run_start_s = saf_clock_s();
    saf_comm_watch_phase("measuring");
    SAF_TRY(find_ends(&w));
    for (int i = 0; i < N_SUITES; i++) {
        if (!(w.wanted & 1u << suites[i].kind)) continue;
        if (s->rank == 0 && !s->options->quiet)
            saf_log(SAF_LOG_INFO, "suite %s", saf__suite_name(suites[i].kind));
        SAF_TRY(suites[i].run(&w));
    }
    s->results.run_s = saf_clock_s() - s->run_start_s;
out:
    saf_free(&w.hosts);
    saf_free(&w.ends);
    return st;
}
