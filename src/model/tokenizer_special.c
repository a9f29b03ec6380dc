/* Tokens that stand for their own text wherever it appears: user-defined ones always, control and
 * unknown ones when the caller says that the text may hold special tokens. */
#include <stdlib.h>

#include "model/tokenizer.h"

/* Bytes of a text that stands for itself: each place of an input is compared with it. Real ones
 * have less than 100. */
enum { SPECIAL_MAX = 256 };

static int by_text(const void *a, const void *b, void *tokenizer) {
    const saf_tokenizer *t = tokenizer;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    uint32_t m = t->len[x], n = t->len[y];
    int order = memcmp(t->text[x], t->text[y], m < n ? m : n);
    if (order != 0) return order;
    if (m != n) return m < n ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Texts that are not valid UTF-8 are left out: a match inside a character would cut it. */
static bool is_special(const saf_tokenizer *t, int32_t id) {
    int type = saf__token_type(t, id);
    return t->len[id] > 0 &&
           (type == SAF__TOKEN_CONTROL || type == SAF__TOKEN_USER_DEFINED ||
            type == SAF__TOKEN_UNKNOWN) &&
           saf_utf8_valid_prefix(t->text[id], t->len[id]) == t->len[id];
}

/* Phi-3's own tokenizer drops white space after its special tokens, but not after these. GGUF has
 * no place for that, so the model's name tells. */
static saf_status mark_rstrip(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    const char *name;
    size_t len;
    bool found = false, phi3 = false;
    SAF_TRY(saf_gguf_get_string(t->g, "general.name", &found, &name, &len));
    for (size_t i = 0; found && i + 4 <= len; i++)
        phi3 = phi3 || strncasecmp(name + i, "phi3", 4) == 0 ||
               (i + 5 <= len && strncasecmp(name + i, "phi-3", 5) == 0);
    if (!phi3) goto out;
    static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (int32_t i = 0; i < t->n_special; i++) {
        int32_t id = t->special[i];
        bool keep = false;
        for (size_t k = 0; k < sizeof plain / sizeof plain[0]; k++)
            keep = keep ||
                   (t->len[id] == strlen(plain[k]) && !memcmp(t->text[id], plain[k], t->len[id]));
        if (!keep) t->kind[id] |= SAF__TOKEN_RSTRIP;
    }
out:
    return st;
}

saf_status saf__tokenizer_load_special(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    int32_t n = 0, at = 0;
    for (int32_t i = 0; i < t->vocab; i++) {
        n += is_special(t, i);
        if (is_special(t, i) && t->len[i] > SPECIAL_MAX) {
            st = saf_fail(SAF_BAD_INPUT,
                          "%s: tokenizer.ggml.tokens[%d] is a special token of %u bytes, expected "
                          "at most %d",
                          saf_gguf_path(t->g), i, t->len[i], SPECIAL_MAX);
            goto out;
        }
    }
    SAF_TRY(saf_alloc((size_t)n, sizeof *t->special, &t->special));
    t->n_special = n;
    n = 0;
    for (int32_t i = 0; i < t->vocab; i++)
        if (is_special(t, i)) t->special[n++] = i;
    qsort_r(t->special, (size_t)n, sizeof *t->special, by_text, t);
    for (int b = 0; b <= 256; b++) {
        while (at < n && (uint8_t)t->text[t->special[at]][0] < b) at++;
        t->special_at[b] = at;
    }
    SAF_TRY(mark_rstrip(t));
out:
    return st;
}

/* The first of special[lo..hi), which agree up to `depth`, whose byte there is at least `byte`. */
static int32_t lower(const saf_tokenizer *t, int32_t lo, int32_t hi, uint32_t depth, int byte) {
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2, id = t->special[mid];
        int here = t->len[id] > depth ? (uint8_t)t->text[id][depth] : -1;
        if (here < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest special token that text[0..len) begins with, or -1. Walks the sorted texts like a
 * trie: a byte at a time leaves a narrower range. */
static int32_t longest_at(const saf_tokenizer *t, const char *text, size_t len, bool special) {
    int32_t lo = t->special_at[(uint8_t)text[0]], hi = t->special_at[(uint8_t)text[0] + 1];
    int32_t best = -1;
    for (uint32_t depth = 1; lo < hi; depth++) {
        bool taken = false;
        for (; lo < hi && t->len[t->special[lo]] == depth; lo++) {
            int32_t id = t->special[lo];
            if (taken || (!special && saf__token_type(t, id) != SAF__TOKEN_USER_DEFINED)) continue;
            best = id;
            taken = true;
        }
        if (depth >= len || lo == hi) break;
        int byte = (uint8_t)text[depth];
        lo = lower(t, lo, hi, depth, byte);
        hi = lower(t, lo, hi, depth, byte + 1);
    }
    return best;
}

int32_t saf__tokenizer_next_special(const saf_tokenizer *t, const char *text, size_t len,
                                    size_t from, bool special, size_t *at) {
    for (size_t i = from; i < len; i++) {
        uint8_t b = (uint8_t)text[i];
        if (t->special_at[b] == t->special_at[b + 1]) continue;
        int32_t id = longest_at(t, text + i, len - i, special);
        if (id >= 0) {
            *at = i;
            return id;
        }
    }
    return -1;
}
