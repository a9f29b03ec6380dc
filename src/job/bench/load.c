/* How long loading takes, against a plain copy of the same bytes. */
#include <omp.h>

#include "job/bench/bench.h"

enum { PIECE_BYTES = 2 << 20 };

/* The bytes of every tensor, from the page cache into fresh memory, by all threads. */
static saf_status copy_tensors(const saf_gguf *g, double *seconds) {
    saf_status st = SAF_OK;
    char *to = NULL;
    size_t total = 0;
    double start = saf_clock_s();
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) total += saf_gguf_tensor_at(g, i)->bytes;
    SAF_TRY(saf_alloc(total, 1, &to));
    char *at = to;
#pragma omp parallel
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        int64_t pieces = saf_ceil_div((int64_t)t->bytes, PIECE_BYTES);
#pragma omp for schedule(static, 1)
        for (int64_t piece = 0; piece < pieces; piece++) {
            size_t from = (size_t)piece * PIECE_BYTES, left = t->bytes - from;
            size_t n = left < PIECE_BYTES ? left : PIECE_BYTES;
            saf_status mine = saf_gguf_tensor_read(g, t, from, n, at + from);
            if (mine != SAF_OK) {
#pragma omp critical(saf_copy_status)
                st = mine;
            }
        }
#pragma omp single
        at += t->bytes;
    }
    *seconds = saf_clock_s() - start;
out:
    saf_free(&to);
    return st;
}

static saf_status load(saf__session *s, double *seconds) {
    saf_slice_free(&s->slice);
    double start = saf_clock_s();
    saf_status st = saf_slice_load(s->gguf, &s->params, s->range, &s->slice);
    *seconds = saf_clock_s() - start;
    return st;
}

saf_status saf__bench_load(saf__session *s, int32_t repeats, double *seconds, double *copies_s) {
    saf_status st = SAF_OK;
    double ignored;
    /* The first copy brings the file into the page cache. */
    SAF_TRY(copy_tensors(s->gguf, &ignored));
    SAF_TRY(copy_tensors(s->gguf, &copies_s[0]));
    for (int32_t i = 0; i < repeats; i++) {
        SAF_TRY(load(s, &seconds[i]));
        saf_slice_free(&s->slice); /* never both in memory */
        SAF_TRY(copy_tensors(s->gguf, &copies_s[i + 1]));
    }
    SAF_TRY(load(s, &ignored));
out:
    return st;
}
