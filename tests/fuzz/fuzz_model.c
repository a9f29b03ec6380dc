/* A whole model: its parameters, what a rank would hold of it, and a few tokens through it. What is
 * accepted must compute, with whatever sizes. */
#include <stdlib.h>

#include "fuzz.h"
#include "saf/kernel.h"
#include "saf/model.h"

enum { TOKENS = 3, CAPACITY = 64 };

static saf_status compute(const saf_model_params *p, saf_slice *slice, saf_slice_range all) {
    saf_status st = SAF_OK;
    saf_kv_cache *kv = NULL;
    saf_stage *stage = NULL;
    float *x = NULL, *logits = NULL;
    int32_t ids[TOKENS] = {0, (int32_t)(p->vocab - 1), (int32_t)(p->vocab / 2)};
    saf_run run = {.tokens = TOKENS, .logits = TOKENS};
    saf_batch batch = {.n_runs = 1, .tokens = TOKENS, .runs = &run, .ids = ids};
    saf_fault fault;
    bool finite[TOKENS];
    saf_kv_type type = (saf_kv_type)(p->vocab % 3);
    SAF_TRY(saf_kv_cache_new(p, all, type, 1, CAPACITY, &kv));
    SAF_TRY(saf_stage_new(p, slice, kv, (saf_stage_room){TOKENS, 1, TOKENS, 0}, NULL, &stage));
    SAF_TRY(saf_alloc((size_t)(TOKENS * p->width), sizeof *x, &x));
    SAF_TRY(saf_alloc((size_t)(TOKENS * p->vocab), sizeof *logits, &logits));
    SAF_TRY(saf_stage_forward(stage, &batch, x, &fault));
    SAF_TRY(saf_stage_logits(stage, 0, TOKENS, logits, finite));
    run = (saf_run){.pos0 = TOKENS, .tokens = 1, .logits = 1};
    batch.tokens = 1;
    SAF_TRY(saf_stage_forward(stage, &batch, x, &fault));
    SAF_TRY(saf_stage_logits(stage, 0, 1, logits, finite));
out:
    saf_free(&logits);
    saf_free(&x);
    saf_stage_free(&stage);
    saf_kv_cache_free(&kv);
    return st;
}

static saf_status hold(const saf_gguf *g, const saf_model_params *p) {
    saf_status st = SAF_OK;
    saf_slice *slice = NULL;
    saf_buf names = {0};
    size_t replicated;
    int64_t int8_ops, float_ops;
    saf_slice_range all = saf_slice_range_whole(p, 0, p->layers, true, true);
    FUZZ_CHECK(saf_slice_file_bytes(g, p, all, &replicated) <= saf_gguf_file_bytes(g));
    saf_slice_ops(g, p, all, &int8_ops, &float_ops);
    FUZZ_CHECK(int8_ops >= 0 && float_ops >= 0);
    SAF_TRY(saf_slice_replicated_names(g, p, all, &names));
    SAF_TRY(saf_slice_load(g, p, all, &slice));
    fuzz_end(); /* cache and working memory follow from the job */
    st = compute(p, slice, all);
out:
    saf_buf_free(&names);
    saf_slice_free(&slice);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    const char *path = fuzz_file("model.gguf", data, size);
    static const char *const kernels[] = {"scalar", "avx2", "avx512", NULL};
    if (saf_kernels_init(kernels[size % 4]) != SAF_OK) FUZZ_CHECK(saf_kernels_init(NULL) == SAF_OK);
    fuzz_begin(size);
    if (fuzz_accepted(saf_gguf_open(path, &g), SAF_BAD_INPUT)) {
        if (fuzz_accepted(saf_model_params_read(g, &p), SAF_BAD_INPUT)) {
            FUZZ_CHECK(hold(g, &p) == SAF_OK);
            saf_model_params_free(&p);
        }
        saf_gguf_close(&g);
    }
    fuzz_end();
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    fuzz_random r = {seed};
    return fuzz_gguf_mutate(data, size, max_size, &r);
}
