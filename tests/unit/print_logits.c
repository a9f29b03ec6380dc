/* print_logits TOKENS.txt MODEL.gguf...: no test, but a program for them. Takes the token ids of
 * the file (white space between them) as one sequence through each model and prints the SHA-256 of
 * the logits [T, V] of all positions. Needs no MPI and no HDF5. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "saf/model.h"

enum { MAX_TOKENS = 256, FEW = 7 };

typedef struct {
    int32_t n, id[MAX_TOKENS];
} token_list;

static saf_status tokens_read(const char *path, token_list *out) {
    FILE *file = fopen(path, "r");
    if (!file) return saf_fail(SAF_NO_INPUT, "cannot open %s", path);
    while (out->n < MAX_TOKENS && fscanf(file, "%" SCNd32, &out->id[out->n]) == 1) out->n++;
    (void)fclose(file);
    if (out->n < 2 + FEW) return saf_fail(SAF_BAD_INPUT, "%s: too few tokens", path);
    return SAF_OK;
}

/* Positions [from, to) of the sequence in one batch: their logits[to - from, V] join the hash. */
static saf_status feed(saf_stage *stage, const saf_model_params *p, const token_list *tokens,
                       int32_t from, int32_t to, float *x, float *logits, saf_sha256 *sha) {
    int32_t n = to - from;
    saf_run run = {.slot = 0, .pos0 = from, .tokens = n, .logits = n};
    saf_batch batch = {.n_runs = 1, .tokens = n, .runs = &run, .ids = tokens->id + from};
    saf_fault fault;
    bool finite[MAX_TOKENS];
    saf_status st = saf_stage_forward(stage, &batch, x, &fault);
    if (st != SAF_OK) return st;
    if (fault.run >= 0)
        return saf_fail(SAF_FAILED, "layer %d, position %d: a value is not finite", fault.layer,
                        fault.position);
    st = saf_stage_logits(stage, 0, n, logits, finite);
    if (st != SAF_OK) return st;
    return saf_sha256_add(sha, logits, (size_t)(n * p->vocab) * sizeof *logits);
}

static saf_status print_model(const char *path, const token_list *tokens, saf_kv_type type) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    saf_slice *slice = NULL;
    saf_kv_cache *kv = NULL;
    saf_stage *stage = NULL;
    saf_sha256 *sha = NULL;
    float *x = NULL, *logits = NULL;
    uint8_t digest[32];
    char hex[65];
    SAF_TRY(saf_gguf_open(path, &g));
    SAF_TRY(saf_model_params_read(g, &p));
    saf_slice_range all = saf_slice_range_whole(&p, 0, p.layers, true, true);
    SAF_TRY(saf_slice_load(g, &p, all, &slice));
    SAF_TRY(saf_kv_cache_new(&p, all, type, 1, MAX_TOKENS, &kv));
    SAF_TRY(
        saf_stage_new(&p, slice, kv, (saf_stage_room){MAX_TOKENS, 1, MAX_TOKENS, 0}, NULL, &stage));
    SAF_TRY(saf_alloc((size_t)(MAX_TOKENS * p.width), sizeof *x, &x));
    SAF_TRY(saf_alloc((size_t)(MAX_TOKENS * p.vocab), sizeof *logits, &logits));
    SAF_TRY(saf_sha256_new(&sha));
    /* one token, a few, many: each has kernels of its own */
    SAF_TRY(feed(stage, &p, tokens, 0, 1, x, logits, sha));
    SAF_TRY(feed(stage, &p, tokens, 1, 1 + FEW, x, logits, sha));
    SAF_TRY(feed(stage, &p, tokens, 1 + FEW, tokens->n, x, logits, sha));
    SAF_TRY(saf_sha256_final(sha, digest));
    saf_hex(digest, sizeof digest, hex);
    printf("%s %s %s\n", saf_kernels_name(), hex, path);
out:
    saf_sha256_free(&sha);
    saf_free(&logits);
    saf_free(&x);
    saf_stage_free(&stage);
    saf_kv_cache_free(&kv);
    saf_slice_free(&slice);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
    return st;
}

int main(int argc, char **argv) {
    static token_list tokens;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s TOKENS.txt MODEL.gguf...\n", argv[0]);
        return 2;
    }
    saf_status st = saf_kernels_init(NULL);
    if (st == SAF_OK) st = tokens_read(argv[1], &tokens);
    for (int i = 2; i < argc; i++)
        for (int type = SAF_KV_F16; st == SAF_OK && type <= SAF_KV_Q8_0; type++)
            st = print_model(argv[i], &tokens, (saf_kv_type)type);
    if (st != SAF_OK) (void)fprintf(stderr, "%s\n", saf_error_text());
    return st != SAF_OK;
}
