/* Merging neighbours, the best pair first: a chain of symbols and a heap of candidate merges.
 * n symbols take O(n log n), whatever the text. */
#include "model/tokenizer.h"

saf_status saf__merger_reserve(saf__merger *m, size_t n) {
    saf_status st = SAF_OK;
    if (n > INT32_MAX)
        return saf_fail(SAF_BAD_INPUT, "a stretch of text of %zu symbols is too long to tokenize",
                        n);
    if (n <= m->cap) return SAF_OK;
    size_t cap = n < 256 ? 256 : n;
    saf__merger_free(m);
    SAF_TRY(saf_alloc(cap, sizeof *m->symbols, &m->symbols));
    /* At first a candidate for each of n - 1 pairs; every merge takes one and gives at most two. */
    SAF_TRY(saf_alloc(2 * cap, sizeof *m->heap, &m->heap));
    m->cap = cap;
out:
    return st;
}

void saf__merger_free(saf__merger *m) {
    saf_free(&m->symbols);
    saf_free(&m->heap);
    m->cap = 0;
}

static void heap_push(saf__candidate *heap, size_t *n, saf__candidate c) {
    size_t i = (*n)++;
    while (i > 0 && heap[(i - 1) / 2].order > c.order) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = c;
}

static saf__candidate heap_pop(saf__candidate *heap, size_t *n) {
    saf__candidate top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *n) break;
        if (child + 1 < *n && heap[child + 1].order < heap[child].order) child++;
        if (heap[child].order >= last.order) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static void consider(const saf_tokenizer *t, saf__merger *m, int32_t left, size_t *n_heap,
                     saf__merge_rule *rule) {
    if (left < 0) return;
    const saf__symbol *l = &m->symbols[left];
    if (l->next < 0) return;
    const saf__symbol *r = &m->symbols[l->next];
    uint32_t key;
    saf__candidate c;
    if (!rule(t, l, r, &key, &c.id)) return;
    c.order = (uint64_t)key << 32 | (uint32_t)left;
    c.size = l->len + r->len;
    heap_push(m->heap, n_heap, c);
}

void saf__merger_run(const saf_tokenizer *t, saf__merger *m, size_t n, saf__merge_rule *rule) {
    size_t n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++) consider(t, m, (int32_t)i, &n_heap, rule);
    while (n_heap > 0) {
        saf__candidate c = heap_pop(m->heap, &n_heap);
        int32_t at = (int32_t)(uint32_t)c.order;
        saf__symbol *left = &m->symbols[at];
        if (left->len == 0 || left->next < 0) continue;
        saf__symbol *right = &m->symbols[left->next];
        /* Symbols only grow, so the same size means that both are what they were. */
        if (left->len + right->len != c.size) continue;
        left->len = c.size;
        left->id = c.id;
        left->next = right->next;
        right->len = 0;
        if (left->next >= 0) m->symbols[left->next].prev = at;
        consider(t, m, left->prev, &n_heap, rule);
        consider(t, m, at, &n_heap, rule);
    }
}
