/* The likeliest tokens of a part of a row of logits: of its segments only those are looked through
 * whose largest value could be among them. */
#include <math.h>
#include <stdlib.h>

#include "model/logits.h"
#include "model/sampler.h"

/* A token whose logit was put down, and what it was. */
typedef struct {
    int32_t id;
    float logit;
} penalised;

static bool before(const saf_candidate *a, const saf_candidate *b) {
    return a->value > b->value || (a->value == b->value && a->id < b->id);
}

int32_t saf__candidates_merge(saf_candidate *list, int32_t n, int32_t most,
                              const saf_candidate *more, int32_t n_more) {
    saf_candidate old[SAF_CANDIDATES];
    int32_t i = 0, j = 0, at = 0;
    memcpy(old, list, (size_t)n * sizeof *old);
    for (; at < most && (i < n || j < n_more); at++)
        list[at] = j == n_more || (i < n && before(&old[i], &more[j])) ? old[i++] : more[j++];
    return at;
}

/* ---- the best of many ----
 *
 * A heap: the last in order of those found so far is heap[0], which a better one replaces. */

static void sink(saf_candidate *heap, int32_t n, int32_t at, saf_candidate c) {
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(&heap[child], &heap[child + 1])) child++;
        if (!before(&c, &heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = c;
}

static void rise(saf_candidate *heap, int32_t at, saf_candidate c) {
    for (; at > 0 && before(&heap[(at - 1) / 2], &c); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = c;
}

static void sort_heap(saf_candidate *heap, int32_t n) {
    while (n > 1) {
        saf_candidate last = heap[--n];
        heap[n] = heap[0];
        sink(heap, n, 0, last);
    }
}

static int64_t segment_end(saf_span vocab, int64_t begin) {
    return saf_i64_min(begin + SAF_LOGIT_SEGMENT, vocab.end);
}

/* Adds what a segment has; returns how many are in the heap then. */
static int32_t look_through(const float *row, int64_t begin, int64_t end, int32_t most, int32_t n,
                            saf_candidate *heap) {
    for (int64_t v = begin; v < end; v++) {
        const saf_candidate c = {(int32_t)v, row[v], row[v]};
        if (n < most)
            rise(heap, n++, c);
        else if (c.value >= heap[0].value && before(&c, &heap[0]))
            sink(heap, n, 0, c);
    }
    return n;
}

/* maxima[] of the part's segments; they are used up. The segments with the largest values go first,
 * so that most of the others have none that is large enough. */
static int32_t find_likeliest(saf_span vocab, float *maxima, const float *row, int32_t most,
                              saf_candidate *out) {
    enum { FIRST = 16 };
    int64_t segments = saf_ceil_div(vocab.end - vocab.begin, SAF_LOGIT_SEGMENT);
    int32_t n = 0;
    for (int64_t k = 0; k < FIRST + segments && most > 0; k++) {
        int64_t next = k - FIRST;
        if (k < FIRST) {
            next = 0;
            for (int64_t i = 1; i < segments; i++)
                if (maxima[i] > maxima[next]) next = i;
        }
        if (next >= segments || maxima[next] == -INFINITY) continue; /* it has been */
        if (n == most && maxima[next] < out[0].value) {
            if (k < FIRST) break; /* it is the largest that is left */
            continue;
        }
        maxima[next] = -INFINITY;
        int64_t begin = vocab.begin + next * SAF_LOGIT_SEGMENT;
        n = look_through(row, begin, segment_end(vocab, begin), most, n, out);
    }
    sort_heap(out, n);
    return n;
}

static void copy_maxima(saf_span vocab, const saf_logit_segment *segments, float *maxima) {
    int64_t first = vocab.begin / SAF_LOGIT_SEGMENT;
    for (int64_t v = vocab.begin; v < vocab.end; v += SAF_LOGIT_SEGMENT)
        maxima[v / SAF_LOGIT_SEGMENT - first] = segments[v / SAF_LOGIT_SEGMENT].max;
}

static int by_id(const void *a, const void *b) {
    const penalised *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Each token once, by its number. */
static int32_t list_history(const saf_logit_ask *ask, saf_span vocab, penalised *list) {
    saf_span window = saf__sampling_window(ask->sampling, ask->n_history);
    int32_t n = 0, unlike = 0;
    for (int64_t i = window.begin; i < window.end && n < SAF_PENALISED; i++)
        if (ask->history[i] >= vocab.begin && ask->history[i] < vocab.end)
            list[n++].id = ask->history[i];
    qsort(list, (size_t)n, sizeof *list, by_id);
    for (int32_t i = 0; i < n; i++)
        if (unlike == 0 || list[unlike - 1].id != list[i].id) list[unlike++].id = list[i].id;
    return unlike;
}

static float largest(const float *row, int64_t begin, int64_t end) {
    float max = row[begin];
    for (int64_t v = begin + 1; v < end; v++) max = row[v] > max ? row[v] : max;
    return max;
}

/* maxima[] as before, of the part's segments. */
static void penalise(const saf_sampling *sampling, saf_span vocab, penalised *list, int32_t n,
                     const saf_logit_segment *segments, float *maxima, float *row) {
    for (int32_t i = 0; i < n; i++) {
        list[i].logit = row[list[i].id];
        row[list[i].id] = saf__penalised(list[i].logit, sampling);
    }
    for (int32_t i = 0; i < n; i++) {
        int64_t segment = (list[i].id - vocab.begin) / SAF_LOGIT_SEGMENT;
        int64_t begin = vocab.begin + segment * SAF_LOGIT_SEGMENT;
        float *max = &maxima[segment], value = row[list[i].id];
        if (list[i].logit == segments[begin / SAF_LOGIT_SEGMENT].max)
            *max = largest(row, begin, segment_end(vocab, begin));
        else if (value > *max)
            *max = value;
    }
}

static void put_logits_back(const penalised *list, int32_t n, saf_candidate *c, int32_t n_c) {
    for (int32_t i = 0; i < n_c && n > 0; i++) {
        const penalised key = {.id = c[i].id};
        const penalised *p = bsearch(&key, list, (size_t)n, sizeof *list, by_id);
        if (p) c[i].logit = p->logit;
    }
}

saf__found saf__candidates_find(const saf_logit_ask *ask, saf_span vocab,
                                const saf_logit_segment *segments, float *maxima, float *row,
                                saf_candidate *out) {
    saf__found found = {0};
    penalised list[SAF_PENALISED];
    int32_t n = ask->sampling ? list_history(ask, vocab, list) : 0;
    if (ask->scored >= vocab.begin && ask->scored < vocab.end)
        found.scored_logit = row[ask->scored];
    if (ask->n_top > 0) {
        copy_maxima(vocab, segments, maxima);
        found.n_top = find_likeliest(vocab, maxima, row, ask->n_top, out + ask->n);
    }
    if (ask->n > 0) {
        copy_maxima(vocab, segments, maxima);
        penalise(ask->sampling, vocab, list, n, segments, maxima, row);
        found.n = find_likeliest(vocab, maxima, row, ask->n, out);
        put_logits_back(list, n, out, found.n);
    }
    return found;
}
