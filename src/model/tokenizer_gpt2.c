/* Model "gpt2": byte-level BPE. The vocabulary writes every byte as a printable character; a text
 * is cut into words by the splitting rule, and inside a word neighbours merge in the order of the
 * list of merges. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "model/tokenizer.h"

enum { LINE_MIN = 3 }; /* bytes of a line of the list: a letter, a space, a letter */
static const char MERGES[] = "tokenizer.ggml.merges", PRE[] = "tokenizer.ggml.pre";

/* Printable bytes of Latin-1 stand for themselves, the others, in order, for U+0100 onwards. */
static void make_byte_chars(saf_tokenizer *t) {
    uint16_t next = 256;
    memset(t->char_byte, -1, sizeof t->char_byte);
    for (int b = 0; b < 256; b++) {
        bool printable =
            (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        t->byte_char[b] = printable ? (uint16_t)b : next++;
        t->char_byte[t->byte_char[b]] = (int16_t)b;
    }
    for (int b = 0; b < 256; b++) {
        char text[4];
        int n = saf_utf8_encode(t->byte_char[b], text);
        int32_t id = saf__tokenizer_find_plain(t, text, (size_t)n);
        if (id >= 0) t->byte_id[b] = id;
    }
}

static saf_status choose_rule(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    saf_buf known = {0};
    const char *name = "";
    size_t len = 0;
    bool found = false;
    SAF_TRY(saf_gguf_get_string(t->g, PRE, &found, &name, &len));
    const saf__pretok_name *pre = found ? saf__pretok_find(name, len) : NULL;
    if (!pre) {
        SAF_TRY(saf__pretok_list(&known));
        st = saf_fail(SAF_BAD_INPUT, "%s: %s %s%.*s%s; known are %s", saf_gguf_path(t->g), PRE,
                      found ? "\"" : "is missing", len < 64 ? (int)len : 64, name,
                      found ? "\" is not supported" : "", known.data);
        goto out;
    }
    t->whole_words = pre->whole_words;
    t->adds_bos = pre->adds_bos;
    SAF_TRY(saf__pretok_new(pre->rule, &t->pretok));
out:
    saf_buf_free(&known);
    return st;
}

static size_t pair_slot(const saf_tokenizer *t, int32_t left, int32_t right) {
    int32_t pair[2] = {left, right};
    size_t i = (size_t)XXH3_64bits(pair, sizeof pair) & t->pair_mask;
    while (t->pairs[i].left >= 0 && (t->pairs[i].left != left || t->pairs[i].right != right))
        i = (i + 1) & t->pair_mask;
    return i;
}

/* One line "left right" of the list. A merge of what are no plain tokens, or into what is none,
 * can never happen and is left out; of two for the same pair the first counts. */
static saf_status add_merge(saf_tokenizer *t, const char *text, size_t len, uint32_t rank) {
    const char *gap = len > 1 ? memchr(text + 1, ' ', len - 1) : NULL;
    if (!gap) return SAF_OK;
    size_t left_len = (size_t)(gap - text), right_len = len - left_len - 1;
    if (left_len + right_len > t->max_len) return SAF_OK;
    int32_t left = saf__tokenizer_find_plain(t, text, left_len);
    int32_t right = saf__tokenizer_find_plain(t, gap + 1, right_len);
    if (left < 0 || right < 0) return SAF_OK;
    saf_buf_clear(&t->scratch);
    saf_status st = saf_buf_append(&t->scratch, text, left_len);
    if (st == SAF_OK) st = saf_buf_append(&t->scratch, gap + 1, right_len);
    if (st != SAF_OK) return st;
    int32_t result = saf__tokenizer_find_plain(t, t->scratch.data, t->scratch.len);
    if (result < 0) return SAF_OK;
    size_t i = pair_slot(t, left, right);
    if (t->pairs[i].left < 0) t->pairs[i] = (saf__pair_slot){left, right, rank, result};
    return SAF_OK;
}

static saf_status read_merges(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    bool found = false;
    saf_gguf_kind element;
    int64_t n = 0;
    const char *text;
    size_t slots = 16, texts = 0, len;
    SAF_TRY(saf_gguf_get_array(t->g, MERGES, &found, &element, &n));
    if (!found || element != SAF_GGUF_STRING || n > SAF__TOKENS_MAX)
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s must be up to %d texts", saf_gguf_path(t->g),
                         MERGES, SAF__TOKENS_MAX));
    for (int64_t i = 0; i < n; i++) {
        saf_gguf_array_string(t->g, MERGES, i, &text, &len);
        texts += len >= LINE_MIN;
    }
    while (slots < texts + texts / 2) slots *= 2;
    SAF_TRY(saf_alloc(slots, sizeof *t->pairs, &t->pairs));
    t->pair_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) t->pairs[i].left = -1;
    for (int64_t i = 0; i < n; i++) {
        saf_gguf_array_string(t->g, MERGES, i, &text, &len);
        SAF_TRY(add_merge(t, text, len, (uint32_t)i));
    }
out:
    return st;
}

saf_status saf__tokenizer_load_gpt2(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    make_byte_chars(t);
    SAF_TRY(choose_rule(t));
    SAF_TRY(read_merges(t));
out:
    return st;
}

static bool by_rank(const saf_tokenizer *t, const saf__symbol *left, const saf__symbol *right,
                    uint32_t *key, int32_t *id) {
    if (left->id < 0 || right->id < 0) return false;
    const saf__pair_slot *pair = &t->pairs[pair_slot(t, left->id, right->id)];
    if (pair->left < 0) return false;
    *key = pair->rank;
    *id = pair->result;
    return true;
}

/* The token whose text is this whole word, or -1. */
static saf_status find_whole(saf_tokenizer *t, const char *word, size_t len, int32_t *id) {
    saf_status st = SAF_OK;
    *id = -1;
    if (len > t->max_len) return SAF_OK; /* a byte takes one byte or two as a character */
    saf_buf_clear(&t->scratch);
    for (size_t i = 0; i < len; i++) {
        char text[4];
        int n = saf_utf8_encode(t->byte_char[(uint8_t)word[i]], text);
        SAF_TRY(saf_buf_append(&t->scratch, text, (size_t)n));
    }
    *id = saf__tokenizer_find_plain(t, t->scratch.data, t->scratch.len);
out:
    return st;
}

typedef struct {
    saf_tokenizer *t;
    saf_ids *out;
} word_context;

static saf_status encode_word(void *context, const char *word, size_t len) {
    saf_status st = SAF_OK;
    saf_tokenizer *t = ((word_context *)context)->t;
    saf_ids *out = ((word_context *)context)->out;
    saf__merger *m = &t->merger;
    if (len == 1) return saf__tokenizer_append_byte(t, (uint8_t)word[0], out);
    if (t->whole_words) {
        int32_t id;
        SAF_TRY(find_whole(t, word, len, &id));
        if (id >= 0) return saf_ids_append(out, id);
    }
    SAF_TRY(saf__merger_reserve(m, len));
    m->text = word;
    for (size_t i = 0; i < len; i++)
        m->symbols[i] = (saf__symbol){(int32_t)i - 1, (int32_t)i + 1, (uint32_t)i, 1,
                                      t->byte_id[(uint8_t)word[i]]};
    m->symbols[len - 1].next = -1;
    saf__merger_run(t, m, len, by_rank);
    for (int32_t i = 0; i >= 0; i = m->symbols[i].next) {
        const saf__symbol *s = &m->symbols[i];
        if (s->id >= 0)
            SAF_TRY(saf_ids_append(out, s->id));
        else
            SAF_TRY(saf__tokenizer_append_byte(t, (uint8_t)word[s->at], out));
    }
out:
    return st;
}

saf_status saf__tokenizer_encode_gpt2(saf_tokenizer *t, const char *text, size_t len,
                                      saf_ids *out) {
    word_context context = {t, out};
    return saf__pretok_split(t->pretok, text, len, encode_word, &context);
}
