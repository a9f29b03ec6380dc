/* A job's requests through the engine, on a simulated cluster: what the plan said of it as
 * key=value (see sim.py), and on stdout one line of JSON with how long it took there. */
#include <assert.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"
#include "stage.h"

typedef struct {
    double admitted_s, first_s, last_s;
    int32_t tokens;
} request_times;

static struct {
    saf_gguf *gguf;
    saf_model_params params;
    saf_layout layout;
    saf_schedule schedule;
    saf_work work;
    sim_model model;
    request_times *times;
    double start_s, end_s;
} job;

/* ---- what is told ---- */

static void admitted(void *ctx, int32_t request) {
    (void)ctx;
    job.times[request].admitted_s = sim_now();
}

static saf_status token(void *ctx, int32_t request, saf_sampled sampled, const saf_sampled *top,
                        bool *finished) {
    request_times *t = &job.times[request];
    (void)ctx;
    (void)sampled;
    (void)top;
    t->last_s = sim_now();
    if (t->tokens++ == 0) t->first_s = t->last_s;
    *finished = t->tokens == job.work.requests[request].max_tokens;
    return SAF_OK;
}

/* ---- a rank ---- */

static void rank(saf_comm *world) {
    saf_group *group = NULL;
    saf_stage *stage = NULL;
    saf_engine_events events = {.admitted = admitted, .token = token};
    saf_engine_times times;
    sim_check(saf_group_new(world, &job.layout, &job.params, &job.work, &job.schedule, &group));
    saf_place place = saf_layout_place(&job.layout, saf_comm_rank(world));
    saf_slice_range range = saf_layout_range(&job.layout, saf_comm_rank(world));
    stage = sim_stage_new(&job.model, place, range, &job.schedule,
                          saf_schedule_room(&job.schedule, &job.work, range.head),
                          saf_group_stage(group));
    sim_barrier(world);
    if (saf_comm_rank(world) == 0) job.start_s = sim_now();
    sim_check(saf_engine_run(group, stage, &events, NULL, &times));
    sim_stage_free(stage);
    sim_barrier(world); /* others may look at what the group shares */
    saf_group_free(&group);
}

/* ---- setting up ---- */

static void make_work(int argc, char **argv) {
    saf_work *w = &job.work;
    int32_t prompt = (int32_t)sim_number(argc, argv, "prompt");
    w->n_requests = (int32_t)sim_number(argc, argv, "requests");
    sim_check(saf_alloc((size_t)w->n_requests, sizeof *w->requests, &w->requests));
    sim_check(saf_alloc((size_t)w->n_requests, sizeof *job.times, &job.times));
    for (int32_t i = 0; i < w->n_requests; i++) {
        saf_request *r = &w->requests[i];
        *r = (saf_request){.key = (uint64_t)i,
                           .sampling = {.top_p = 1, .repeat_penalty = 1},
                           .n_prompt = prompt,
                           .max_tokens = (int32_t)sim_number(argc, argv, "tokens")};
        sim_check(saf_alloc((size_t)prompt, sizeof *r->prompt, &r->prompt));
        for (int32_t k = 0; k < prompt; k++)
            r->prompt[k] = sim_token(job.params.vocab, 31 * (int64_t)i + k);
    }
}

static void make_layout(int argc, char **argv) {
    int32_t stages = (int32_t)sim_number(argc, argv, "pipeline"), *layers = NULL, *host = NULL;
    double *each = NULL;
    sim_check(saf_alloc((size_t)stages, sizeof *each, &each));
    sim_check(saf_alloc((size_t)stages, sizeof *layers, &layers));
    sim_check(saf_alloc((size_t)sim.ranks, sizeof *host, &host));
    sim_numbers(argc, argv, "stages", stages, each);
    for (int32_t s = 0; s < stages; s++) layers[s] = (int32_t)each[s];
    for (int32_t r = 0; r < sim.ranks; r++) host[r] = sim_host_of(r);
    saf_layout_wish wish = {.ranks = sim.ranks,
                            .host = host,
                            .replicas = (int32_t)sim_number(argc, argv, "replicas"),
                            .stages = stages,
                            .tensor = (int32_t)sim_number(argc, argv, "tensor"),
                            .layers = layers,
                            .n_layers = stages};
    sim_check(saf_layout_choose(job.gguf, &job.params, &wish, &job.layout));
    saf_free(&each);
    saf_free(&layers);
    saf_free(&host);
}

static void report(void) {
    double first = 0, token_s = 0, end = 0;
    int32_t n = job.work.n_requests;
    for (int32_t i = 0; i < n; i++) {
        const request_times *t = &job.times[i];
        assert(t->tokens == job.work.requests[i].max_tokens);
        if (i == 0) first = t->first_s - t->admitted_s;
        if (t->tokens > 1) token_s += (t->last_s - t->first_s) / (t->tokens - 1) / n;
        if (t->last_s > end) end = t->last_s;
    }
    printf("{\"first_token_s\": %.9g, \"token_s\": %.9g, \"job_s\": %.9g}\n", first, token_s,
           end - job.start_s);
}

int main(int argc, char **argv) {
    omp_set_num_threads(1); /* ranks take turns, and a team may not be left in the middle */
    sim_read_cluster(argc, argv);
    sim_check(saf_gguf_open(sim_text(argc, argv, "model"), &job.gguf));
    sim_check(saf_model_params_read(job.gguf, &job.params));
    make_work(argc, argv);
    make_layout(argc, argv);
    job.schedule = (saf_schedule){
        .sequences = (int32_t)sim_number(argc, argv, "sequences"),
        .micro_batch = (int32_t)sim_number(argc, argv, "micro_batch"),
        .chunk = (int32_t)sim_number(argc, argv, "chunk"),
        .capacity = (int32_t)(sim_number(argc, argv, "prompt") + sim_number(argc, argv, "tokens"))};
    sim_model_new(job.gguf, &job.params, &job.layout, &job.schedule, &job.model);
    int code = sim_run(sim_text(argc, argv, "folder"), rank);
    report();
    return code;
}
