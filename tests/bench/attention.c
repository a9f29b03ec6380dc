/* Attention alone, beside the yardsticks of the same minute: decode against the read bandwidth (the
 * bytes of the cache over the time), prefill against fused multiply-adds from registers (the
 * operations of its two products over the time), a batch of both. `make bench-attention`; medians.
 *   attention [f16|f32|q8_0 [THREADS [HEADS:KV_HEADS:WIDTH]]]
 * Decode walks the caches of several layers in turn, so that they come from memory and not from the
 * caches of the processor. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "saf/hw.h"
#include "saf/kernel.h"

enum {
    CAPACITY = 4096,
    LAYERS = 28,
    CHUNK = 512,
    DECODES = 15,
    SEQUENCES = 16,
    REPEATS = 7,
    HUGE_PAGE = 2 << 20
};

typedef struct {
    saf_kv_type type;
    int64_t heads, kv_heads, width;
    size_t part_bytes, stride; /* a segment's keys, or values, of one layer; all of a segment */
    char *block, *cache; /* as allocated; [CAPACITY / 256] segments of [LAYERS] keys, then values */
    float *q, *k, *v, *out;
    saf_attn_scratch *scratch;
    saf_hw_yardstick *yard;
} bench;

static saf_attn_seq seq_at(const bench *b, int layer, int64_t pos0, int64_t tokens) {
    char *k = b->cache + (size_t)(2 * layer) * b->part_bytes;
    return (saf_attn_seq){k, k + b->part_bytes, b->stride, pos0, tokens, 0};
}

static void attend(bench *b, const saf_attn_seq *seqs, int64_t n) {
    int64_t ld = b->heads * b->width;
    const saf_attn_shape shape = saf_attn_shape_whole(b->heads, b->kv_heads, b->width);
    saf_attention(&shape, b->type, seqs, n, 0.05f, b->q, ld, b->out, ld, b->scratch);
}

static void fill(bench *b) {
    static const saf_attn_heads as_they_are;
    const saf_attn_shape shape = {b->heads, b->kv_heads, b->width, {0, 0}, {0, b->kv_heads}};
    int64_t ld = b->kv_heads * b->width;
#pragma omp parallel
    for (int layer = 0; layer < LAYERS; layer++)
        for (int64_t p = 0; p < CAPACITY; p += CHUNK) {
            saf_attn_seq s = seq_at(b, layer, p, CHUNK);
            saf_attn_store(&as_they_are, &shape, b->type, &s, 1, NULL, 0, b->k, b->v, ld);
        }
}

static void bench_decode(bench *b, int64_t context) {
    double rate[REPEATS], share[REPEATS];
    double bytes = (double)saf_kv_bytes(b->type, context, b->kv_heads, b->width) * 2 * LAYERS;
    for (int i = 0; i < REPEATS; i++) {
        saf_hw_rates before, after;
        saf_hw_yardstick_sample(b->yard, &before);
        double t0 = saf_clock_s();
#pragma omp parallel
        for (int layer = 0; layer < LAYERS; layer++) {
            saf_attn_seq s = seq_at(b, layer, context - 1, 1);
            attend(b, &s, 1);
        }
        rate[i] = bytes / (saf_clock_s() - t0);
        saf_hw_yardstick_sample(b->yard, &after);
        share[i] = rate[i] / (before.read_bytes_s + after.read_bytes_s) * 2;
    }
    double r = saf_median(rate, REPEATS);
    printf("decode at %4lld              %6.2f GB/s    %3.0f %% of the read bandwidth, %.2f ms\n",
           (long long)context, r / 1e9, 100 * saf_median(share, REPEATS), 1e3 * bytes / r);
}

/* One token of each of many sequences, one a layer's part of the cache, after short contexts. */
static void bench_batch(bench *b, int64_t context) {
    double rate[REPEATS], share[REPEATS];
    double bytes = (double)saf_kv_bytes(b->type, context, b->kv_heads, b->width) * 2 * SEQUENCES;
    saf_attn_seq seqs[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) {
        seqs[i] = seq_at(b, i, context - 1, 1);
        seqs[i].row0 = i;
    }
    for (int i = 0; i < REPEATS; i++) {
        saf_hw_rates before, after;
        saf_hw_yardstick_sample(b->yard, &before);
        double t0 = saf_clock_s();
#pragma omp parallel
        attend(b, seqs, SEQUENCES);
        rate[i] = bytes / (saf_clock_s() - t0);
        saf_hw_yardstick_sample(b->yard, &after);
        share[i] = rate[i] / (before.read_bytes_s + after.read_bytes_s) * 2;
    }
    double r = saf_median(rate, REPEATS);
    printf("decode %d at %4lld           %6.2f GB/s    %3.0f %% of the read bandwidth, %.2f ms\n",
           SEQUENCES, (long long)context, r / 1e9, 100 * saf_median(share, REPEATS),
           1e3 * bytes / r);
}

/* One chunk of CHUNK tokens at pos0, and beside it single tokens after long contexts. */
static void bench_prefill(bench *b, int64_t pos0, int decodes) {
    double rate[REPEATS], share[REPEATS], balance[REPEATS];
    double pairs = (double)(CHUNK * pos0 + CHUNK * (CHUNK + 1) / 2 + decodes * (CAPACITY - 8));
    double ops = 4 * pairs * (double)(b->heads * b->width);
    saf_attn_seq seqs[1 + DECODES];
    for (int i = 0; i <= decodes; i++) {
        seqs[i] = i == 0 ? seq_at(b, 0, pos0, CHUNK) : seq_at(b, i, CAPACITY - 8, 1);
        seqs[i].row0 = i == 0 ? 0 : CHUNK + i - 1;
    }
    for (int i = 0; i < REPEATS; i++) {
        saf_hw_rates before, after;
        saf_hw_yardstick_sample(b->yard, &before);
        /* The yardstick emptied the caches; a product has just written q when attention begins. */
#pragma omp parallel
        attend(b, seqs, 1);
        double t0 = saf_clock_s();
#pragma omp parallel
        attend(b, seqs, 1 + decodes);
        rate[i] = ops / (saf_clock_s() - t0);
        saf_hw_yardstick_sample(b->yard, &after);
        share[i] = rate[i] / (before.f32_ops_s + after.f32_ops_s) * 2;
        balance[i] = ops / rate[i];
    }
    printf("prefill %d at %4lld%s %6.1f GFLOP/s %3.0f %% of the fma peak, %.2f ms\n", CHUNK,
           (long long)pos0, decodes ? " + decodes" : "          ", saf_median(rate, REPEATS) / 1e9,
           100 * saf_median(share, REPEATS), 1e3 * saf_median(balance, REPEATS));
}

static saf_status take(bench *b) {
    saf_status st = SAF_OK;
    const saf_attn_shape shape = saf_attn_shape_whole(b->heads, b->kv_heads, b->width);
    int64_t rows = CHUNK + DECODES, n = rows * b->heads * b->width;
    b->part_bytes = saf_kv_bytes(b->type, SAF_KV_SEGMENT, b->kv_heads, b->width);
    b->stride = b->part_bytes * 2 * LAYERS;
    size_t bytes = b->stride * (CAPACITY / SAF_KV_SEGMENT);
    SAF_TRY(saf_alloc(bytes + HUGE_PAGE, 1, &b->block));
    b->cache = (char *)saf_round_up((int64_t)(intptr_t)b->block, HUGE_PAGE);
    (void)madvise(b->cache, bytes, MADV_HUGEPAGE);
    SAF_TRY(saf_alloc((size_t)n, sizeof(float), &b->q));
    SAF_TRY(saf_alloc((size_t)n, sizeof(float), &b->out));
    SAF_TRY(saf_alloc((size_t)n, sizeof(float), &b->k));
    SAF_TRY(saf_alloc((size_t)n, sizeof(float), &b->v));
    SAF_TRY(saf_attn_scratch_new(&shape, CAPACITY, &b->scratch));
    SAF_TRY(saf_hw_yardstick_new(512 << 20, &b->yard));
    for (int64_t i = 0; i < n; i++) {
        b->q[i] = (float)(i * 7919 % 1000) / 500 - 1;
        b->k[i] = (float)(i * 6101 % 1000) / 500 - 1;
        b->v[i] = (float)(i * 4969 % 1000) / 500 - 1;
    }
out:
    return st;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"f16", "f32", "q8_0"};
    bench b = {.heads = 16, .kv_heads = 8, .width = 128};
    long long shape[3];
    for (int i = 0; argc > 1 && i < 3; i++)
        if (strcmp(argv[1], names[i]) == 0) b.type = (saf_kv_type)i;
    if (argc > 2) omp_set_num_threads(atoi(argv[2]));
    if (argc > 3 && sscanf(argv[3], "%lld:%lld:%lld", &shape[0], &shape[1], &shape[2]) == 3)
        b.heads = shape[0], b.kv_heads = shape[1], b.width = shape[2];
    if (saf_kernels_init(NULL) != SAF_OK || take(&b) != SAF_OK) return 1;
    fill(&b);
    printf("%s, %lld:%lld:%lld, %s, threads %d\n", names[b.type], (long long)b.heads,
           (long long)b.kv_heads, (long long)b.width, saf_kernels_name(), omp_get_max_threads());
    for (int64_t n = 64; n <= CAPACITY; n *= 8) bench_decode(&b, n);
    for (int64_t n = 128; n <= CAPACITY; n *= 4) bench_batch(&b, n);
    bench_prefill(&b, 0, 0);
    bench_prefill(&b, CAPACITY / 2 - CHUNK, 0);
    bench_prefill(&b, CAPACITY - CHUNK, 0);
    bench_prefill(&b, 0, DECODES);
    saf_hw_yardstick_free(&b.yard);
    saf_attn_scratch_free(&b.scratch);
    float **rest[] = {&b.q, &b.k, &b.v, &b.out};
    for (int i = 0; i < 4; i++) saf_free(rest[i]);
    saf_free(&b.block);
    return 0;
}
