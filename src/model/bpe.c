/* Byte-pair encoding, learnt. Words are counted first, and every different one is then kept once,
 * as a chain of symbols with the word's weight. A table has for each pair of neighbours how often
 * it is there and a list of places; a merge walks its list and corrects the counts around each
 * place. Places are never taken out of lists: one that has changed since is recognised and skipped.
 *
 * A list is in the order of the text without any sorting: the places of a pair are all noted
 * at the start or while the newer of its two tokens is made, from the first place to the last. So
 * of overlapping places the left one merges, as it does when a text is encoded.
 *
 * Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units"
 * (2016), section 3.2. */
#define XXH_INLINE_ALL
#include "model/bpe.h"

#include <xxhash.h>

enum { WORDS_MIN = 1024, TEXT_MAX = 1 << 29, NONE = -1 }; /* places: three a byte, below 2^31 */

typedef struct {
    size_t at;
    uint32_t len; /* 0: free */
    uint32_t tag; /* of the hash: most mismatches need no look at the text */
    int64_t count;
} word;

typedef struct {
    int32_t left, right; /* left NONE: free */
    int64_t count;
    int32_t first, last; /* of the list of its places */
} pair;

typedef struct {
    int32_t at, next;
} place;

typedef struct {
    int64_t count; /* when it was put here; the pair's own may be smaller by now */
    int32_t left, right;
} candidate;

struct saf__bpe {
    saf_buf text; /* the different words, end to end */
    word *words;  /* open addressing */
    size_t n_words, word_mask;

    /* Symbols: one a byte of the text. */
    int32_t *token, *prev, *next; /* token NONE: merged into the one before */
    int64_t *weight;

    pair *pairs; /* open addressing */
    size_t n_pairs, pair_mask;
    place *places;
    size_t n_places;
    candidate *heap; /* the best first */
    size_t n_heap, heap_cap;
    saf_buf fresh; /* candidates: pairs that the merge under way found first */
};

saf_status saf__bpe_new(saf__bpe **out) {
    saf_status st = SAF_OK;
    saf__bpe *b = NULL;
    SAF_TRY(saf_alloc(1, sizeof *b, &b));
    SAF_TRY(saf_alloc(WORDS_MIN, sizeof *b->words, &b->words));
    b->word_mask = WORDS_MIN - 1;
    *out = b;
    b = NULL;
out:
    saf__bpe_free(&b);
    return st;
}

void saf__bpe_free(saf__bpe **bb) {
    saf__bpe *b = *bb;
    if (!b) return;
    saf_buf_free(&b->text);
    saf_free(&b->words);
    saf_free(&b->token);
    saf_free(&b->prev);
    saf_free(&b->next);
    saf_free(&b->weight);
    saf_free(&b->pairs);
    saf_free(&b->places);
    saf_free(&b->heap);
    saf_buf_free(&b->fresh);
    saf_free(bb);
}

static saf_status grow_words(saf__bpe *b) {
    saf_status st = SAF_OK;
    word *wider = NULL;
    size_t slots = 2 * (b->word_mask + 1);
    SAF_TRY(saf_alloc(slots, sizeof *wider, &wider));
    for (size_t i = 0; i <= b->word_mask; i++) {
        const word *w = &b->words[i];
        if (w->len == 0) continue;
        size_t k = (size_t)XXH3_64bits(b->text.data + w->at, w->len) & (slots - 1);
        while (wider[k].len != 0) k = (k + 1) & (slots - 1);
        wider[k] = *w;
    }
    saf_free(&b->words);
    b->words = wider;
    b->word_mask = slots - 1;
out:
    return st;
}

saf_status saf__bpe_add_word(void *bpe, const char *text, size_t len) {
    saf_status st = SAF_OK;
    saf__bpe *b = bpe;
    if (len == 0) return SAF_OK;
    uint64_t hash = XXH3_64bits(text, len);
    uint32_t tag = (uint32_t)(hash >> 32);
    size_t i = (size_t)hash & b->word_mask;
    for (; b->words[i].len != 0; i = (i + 1) & b->word_mask) {
        word *w = &b->words[i];
        if (w->tag != tag || w->len != len || memcmp(b->text.data + w->at, text, len) != 0)
            continue;
        w->count++;
        return SAF_OK;
    }
    if (len > TEXT_MAX - b->text.len)
        return saf_fail(SAF_BAD_INPUT, "the texts have more than %d MiB of different words",
                        TEXT_MAX >> 20);
    b->words[i] = (word){b->text.len, (uint32_t)len, tag, 1};
    SAF_TRY(saf_buf_append(&b->text, text, len));
    if (++b->n_words > b->word_mask / 2) SAF_TRY(grow_words(b));
out:
    return st;
}

/* Larger counts first, then smaller tokens. */
static bool is_before(const candidate *a, const candidate *b) {
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static saf_status push(saf__bpe *b, const pair *p) {
    saf_status st = SAF_OK;
    candidate c = {p->count, p->left, p->right}, *wider = NULL;
    if (b->n_heap == b->heap_cap) {
        size_t cap = b->heap_cap ? 2 * b->heap_cap : 4096;
        SAF_TRY(saf_alloc(cap, sizeof *wider, &wider));
        if (b->n_heap > 0) memcpy(wider, b->heap, b->n_heap * sizeof *wider);
        saf_free(&b->heap);
        b->heap = wider;
        b->heap_cap = cap;
    }
    size_t i = b->n_heap++;
    while (i > 0 && is_before(&c, &b->heap[(i - 1) / 2])) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = c;
out:
    return st;
}

static candidate pop(saf__bpe *b) {
    candidate top = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= b->n_heap) break;
        if (child + 1 < b->n_heap && is_before(&b->heap[child + 1], &b->heap[child])) child++;
        if (!is_before(&b->heap[child], &last)) break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    b->heap[i] = last;
    return top;
}

static size_t pair_slot(const pair *pairs, size_t mask, int32_t left, int32_t right) {
    int32_t both[2] = {left, right};
    size_t i = (size_t)XXH3_64bits(both, sizeof both) & mask;
    while (pairs[i].left != NONE && (pairs[i].left != left || pairs[i].right != right))
        i = (i + 1) & mask;
    return i;
}

static saf_status grow_pairs(saf__bpe *b, size_t slots) {
    saf_status st = SAF_OK;
    pair *wider = NULL;
    SAF_TRY(saf_alloc(slots, sizeof *wider, &wider));
    for (size_t i = 0; i < slots; i++) wider[i].left = NONE;
    for (size_t i = 0; b->pairs && i <= b->pair_mask; i++)
        if (b->pairs[i].left != NONE)
            wider[pair_slot(wider, slots - 1, b->pairs[i].left, b->pairs[i].right)] = b->pairs[i];
    saf_free(&b->pairs);
    b->pairs = wider;
    b->pair_mask = slots - 1;
out:
    return st;
}

/* The pair that begins with the symbol at `at` is there. */
static saf_status note(saf__bpe *b, int32_t at) {
    saf_status st = SAF_OK;
    int32_t left = b->token[at], right = b->token[b->next[at]];
    size_t i = pair_slot(b->pairs, b->pair_mask, left, right);
    if (b->pairs[i].left == NONE) {
        candidate c = {0, left, right};
        SAF_TRY(saf_buf_append(&b->fresh, &c, sizeof c));
        if (++b->n_pairs > b->pair_mask / 2) {
            SAF_TRY(grow_pairs(b, 2 * (b->pair_mask + 1)));
            i = pair_slot(b->pairs, b->pair_mask, left, right);
        }
        b->pairs[i] = (pair){left, right, 0, NONE, NONE};
    }
    pair *p = &b->pairs[i];
    int32_t k = (int32_t)b->n_places++;
    b->places[k] = (place){at, NONE};
    if (p->last == NONE)
        p->first = k;
    else
        b->places[p->last].next = k;
    p->last = k;
    p->count += b->weight[at];
out:
    return st;
}

/* It is there no longer. */
static void forget(saf__bpe *b, int32_t at) {
    size_t i = pair_slot(b->pairs, b->pair_mask, b->token[at], b->token[b->next[at]]);
    b->pairs[i].count -= b->weight[at];
}

static pair *find_pair(saf__bpe *b, const candidate *c) {
    return &b->pairs[pair_slot(b->pairs, b->pair_mask, c->left, c->right)];
}

/* Those that were found since, with the counts that they have by now. */
static saf_status push_fresh(saf__bpe *b) {
    saf_status st = SAF_OK;
    for (size_t at = 0; at < b->fresh.len; at += sizeof(candidate)) {
        candidate c;
        memcpy(&c, b->fresh.data + at, sizeof c);
        SAF_TRY(push(b, find_pair(b, &c)));
    }
    saf_buf_clear(&b->fresh);
out:
    return st;
}

/* The words as chains of bytes, and the table of their pairs. */
static saf_status make_symbols(saf__bpe *b) {
    saf_status st = SAF_OK;
    size_t n = b->text.len;
    SAF_TRY(saf_alloc(n, sizeof *b->token, &b->token));
    SAF_TRY(saf_alloc(n, sizeof *b->prev, &b->prev));
    SAF_TRY(saf_alloc(n, sizeof *b->next, &b->next));
    SAF_TRY(saf_alloc(n, sizeof *b->weight, &b->weight));
    /* A place for each pair of bytes; a merge, of which there are fewer than bytes, notes two. */
    SAF_TRY(saf_alloc(n, 3 * sizeof *b->places, &b->places));
    SAF_TRY(grow_pairs(b, 4096));
    for (size_t i = 0; i <= b->word_mask; i++) {
        const word *w = &b->words[i];
        for (size_t k = 0; k < w->len; k++) {
            int32_t at = (int32_t)(w->at + k);
            b->token[at] = (uint8_t)b->text.data[at];
            b->prev[at] = k > 0 ? at - 1 : NONE;
            b->next[at] = k + 1 < w->len ? at + 1 : NONE;
            b->weight[at] = w->count;
        }
    }
    for (size_t at = 0; at < n; at++)
        if (b->next[at] != NONE) SAF_TRY(note(b, (int32_t)at));
    SAF_TRY(push_fresh(b));
out:
    return st;
}

/* The symbol at `at` and the one behind it become `made`. */
static saf_status merge_at(saf__bpe *b, int32_t at, int32_t made) {
    saf_status st = SAF_OK;
    int32_t gone = b->next[at], before = b->prev[at], behind = b->next[gone];
    if (before != NONE) forget(b, before);
    if (behind != NONE) forget(b, gone);
    b->token[at] = made;
    b->token[gone] = NONE;
    b->next[at] = behind;
    if (behind != NONE) b->prev[behind] = at;
    if (before != NONE) SAF_TRY(note(b, before));
    if (behind != NONE) SAF_TRY(note(b, at));
out:
    return st;
}

static saf_status merge_all(saf__bpe *b, const candidate *c, int32_t made) {
    saf_status st = SAF_OK;
    for (int32_t k = find_pair(b, c)->first; k != NONE; k = b->places[k].next) {
        int32_t at = b->places[k].at, behind = b->next[at];
        if (b->token[at] != c->left || behind == NONE || b->token[behind] != c->right) continue;
        SAF_TRY(merge_at(b, at, made));
    }
    find_pair(b, c)->count = 0;
    SAF_TRY(push_fresh(b));
out:
    return st;
}

saf_status saf__bpe_learn(saf__bpe *b, int64_t max, saf__bpe_merge *merges, int64_t *made) {
    saf_status st = SAF_OK;
    *made = 0;
    SAF_TRY(make_symbols(b));
    while (*made < max && b->n_heap > 0) {
        candidate c = pop(b);
        const pair *p = find_pair(b, &c);
        if (p->count < 2) continue;
        if (p->count != c.count) {
            SAF_TRY(push(b, p));
            continue;
        }
        merges[*made] = (saf__bpe_merge){c.left, c.right};
        SAF_TRY(merge_all(b, &c, (int32_t)(SAF__BPE_BYTES + (*made)++)));
    }
out:
    return st;
}
