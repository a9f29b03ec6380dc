/* plan_fixture.h: models, hosts and work for the tests of plans. */
#ifndef TESTS_UNIT_PLAN_FIXTURE_H
#define TESTS_UNIT_PLAN_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/parallel_plan.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static char folder[] = "/tmp/saf-plan-XXXXXX";
static char path[64];

/* A model and what a plan knows of it. */
typedef struct {
    saf_gguf *g;
    saf_model_params p;
    saf_plan_model m;
} model;

#define SHAPE(l, d, h, hkv, c, f) \
    .layers = l, .width = d, .heads = h, .kv_heads = hkv, .head_width = c, .ff_width = f

static const saf_model_make_options small = {
    .arch = "qwen3", SHAPE(6, 256, 8, 4, 32, 512), .vocab_size = 1000, .dtype = SAF_DTYPE_Q8_0};
/* The shape of qwen3 0.6B, as doc/performance.md counts it. */
static const saf_model_make_options usual = {.arch = "qwen3",
                                             SHAPE(28, 1024, 16, 8, 128, 3072),
                                             .vocab_size = 151936,
                                             .dtype = SAF_DTYPE_Q8_0,
                                             .header_only = true};
/* 405 billion parameters */
static const saf_model_make_options huge = {.arch = "llama",
                                            SHAPE(126, 16384, 128, 8, 128, 53248),
                                            .vocab_size = 128256,
                                            .dtype = SAF_DTYPE_Q8_0,
                                            .header_only = true};

static inline void open_model(const saf_model_make_options *options, model *out) {
    OK(saf_model_make(path, options));
    OK(saf_gguf_open(path, &out->g));
    OK(saf_model_params_read(out->g, &out->p));
    OK(saf_plan_model_new(out->g, &out->p, SAF_KV_F16, &out->m));
}

static inline void close_model(model *m) {
    saf_plan_model_free(&m->m);
    saf_model_params_free(&m->p);
    saf_gguf_close(&m->g);
    unlink(path);
}

static inline saf_plan_host host_of(int32_t count, double memory_gb, double link_gbit) {
    return (saf_plan_host){.name = "h",
                           .count = count,
                           .cores = 8,
                           .ranks = 1,
                           .memory_bytes = memory_gb * 1e9,
                           .reserve_bytes = memory_gb * 1e8,
                           .read_bytes_s = 50e9,
                           .int8_ops_s = 2000e9,
                           .f32_ops_s = 500e9,
                           .link = {link_gbit / 8 * 1e9, 30e-6, 0}};
}

static inline saf_plan plan_of(const model *m, const saf_plan_host *hosts, int32_t n,
                               const saf_plan_work *work) {
    saf_plan plan;
    saf_plan_cluster cluster = {n, hosts, 0};
    OK(saf_plan_make(&m->m, &cluster, work, 16, &plan));
    return plan;
}

static const saf_plan_work eight = {
    .requests = 8, .prompt_tokens = 200, .completion_tokens = 100, .longest = 300};
static const saf_plan_work single = {
    .requests = 1, .prompt_tokens = 10, .completion_tokens = 100, .longest = 110};

static inline int begin(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    return saf_kernels_init(NULL) != SAF_OK;
}

static inline int end(void **state) {
    (void)state;
    return rmdir(folder);
}

#endif
