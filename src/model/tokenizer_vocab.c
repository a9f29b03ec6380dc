/* The vocabulary of a tokenizer: texts (borrowed from the file), types, the table text -> id. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "model/tokenizer.h"

static const char TOKENS[] = "tokenizer.ggml.tokens", TYPES[] = "tokenizer.ggml.token_type";

bool saf__token_is_plain(const saf_tokenizer *t, int32_t id) {
    int type = saf__token_type(t, id);
    return type == SAF__TOKEN_NORMAL || type == SAF__TOKEN_UNDEFINED || type == SAF__TOKEN_UNUSED ||
           (type == SAF__TOKEN_USER_DEFINED && t->model == SAF__TOKENIZER_LLAMA);
}

int32_t saf__tokenizer_find(const saf_tokenizer *t, const char *text, size_t len) {
    uint64_t hash = XXH3_64bits(text, len);
    uint32_t tag = (uint32_t)(hash >> 32);
    for (size_t i = (size_t)hash & t->slot_mask; t->slots[i].id >= 0; i = (i + 1) & t->slot_mask) {
        int32_t id = t->slots[i].id;
        if (t->slots[i].tag == tag && t->len[id] == len && memcmp(t->text[id], text, len) == 0)
            return id;
    }
    return -1;
}

int32_t saf__tokenizer_find_plain(const saf_tokenizer *t, const char *text, size_t len) {
    if (len > t->max_len) return -1;
    int32_t id = saf__tokenizer_find(t, text, len);
    return id >= 0 && saf__token_is_plain(t, id) ? id : -1;
}

/* Of two tokens with the same text the first is found. Empty texts are not. */
static saf_status make_table(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    size_t slots = 16, texts = 0;
    for (int32_t id = 0; id < t->vocab; id++) texts += t->len[id] > 0;
    while (slots < texts + texts / 2) slots *= 2;
    SAF_TRY(saf_alloc(slots, sizeof *t->slots, &t->slots));
    t->slot_mask = slots - 1;
    for (size_t i = 0; i < slots; i++) t->slots[i].id = -1;
    for (int32_t id = 0; id < t->vocab; id++) {
        if (t->len[id] == 0 || saf__tokenizer_find(t, t->text[id], t->len[id]) >= 0) continue;
        uint64_t hash = XXH3_64bits(t->text[id], t->len[id]);
        size_t i = (size_t)hash & t->slot_mask;
        while (t->slots[i].id >= 0) i = (i + 1) & t->slot_mask;
        t->slots[i].tag = (uint32_t)(hash >> 32);
        t->slots[i].id = id;
    }
out:
    return st;
}

static bool is_integer(saf_gguf_kind kind) {
    return kind <= SAF_GGUF_I32 || kind == SAF_GGUF_U64 || kind == SAF_GGUF_I64;
}

static saf_status read_types(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    bool found = false;
    saf_gguf_kind element;
    int64_t n = 0;
    SAF_TRY(saf_gguf_get_array(t->g, TYPES, &found, &element, &n));
    if (found && (!is_integer(element) || n != t->vocab))
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s must be %d integers, one a token, not %lld",
                         saf_gguf_path(t->g), TYPES, t->vocab, (long long)n));
    for (int32_t i = 0; i < t->vocab; i++) {
        int64_t type = found ? saf_gguf_array_i64(t->g, TYPES, i) : SAF__TOKEN_NORMAL;
        if (type < SAF__TOKEN_UNDEFINED || type > SAF__TOKEN_BYTE)
            SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s[%d] is %lld, expected 0 to 6",
                             saf_gguf_path(t->g), TYPES, i, (long long)type));
        t->kind[i] = (uint8_t)type;
    }
out:
    return st;
}

/* The value of a byte token's text "<0x0A>", or -1. */
static int byte_of(const char *text, size_t len) {
    int value = 0;
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        int digit = text[i] >= '0' && text[i] <= '9'   ? text[i] - '0'
                    : text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 10
                    : text[i] >= 'a' && text[i] <= 'f' ? text[i] - 'a' + 10
                                                       : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static saf_status read_bytes(saf_tokenizer *t) {
    for (int b = 0; b < 256; b++) t->byte_id[b] = -1;
    for (int32_t i = 0; i < t->vocab; i++) {
        if (saf__token_type(t, i) != SAF__TOKEN_BYTE) continue;
        int byte = byte_of(t->text[i], t->len[i]);
        if (byte < 0)
            return saf_fail(SAF_BAD_INPUT, "%s: %s[%d] is of type byte but not of the form <0x00>",
                            saf_gguf_path(t->g), TOKENS, i);
        if (t->byte_id[byte] < 0) t->byte_id[byte] = i;
    }
    return SAF_OK;
}

saf_status saf__tokenizer_load_vocab(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    bool found = false;
    saf_gguf_kind element;
    int64_t n = 0;
    SAF_TRY(saf_gguf_get_array(t->g, TOKENS, &found, &element, &n));
    if (!found || element != SAF_GGUF_STRING || n < 1 || n > SAF__TOKENS_MAX)
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s must be 1 to %d texts", saf_gguf_path(t->g), TOKENS,
                         SAF__TOKENS_MAX));
    t->vocab = (int32_t)n;
    SAF_TRY(saf_alloc((size_t)n, sizeof *t->text, &t->text));
    SAF_TRY(saf_alloc((size_t)n, sizeof *t->len, &t->len));
    SAF_TRY(saf_alloc((size_t)n, sizeof *t->kind, &t->kind));
    SAF_TRY(read_types(t));
    for (int32_t i = 0; i < t->vocab; i++) {
        size_t len = 0;
        saf_gguf_array_string(t->g, TOKENS, i, &t->text[i], &len);
        if (len > INT32_MAX)
            SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s[%d] has %zu bytes", saf_gguf_path(t->g), TOKENS,
                             i, len));
        t->len[i] = (uint32_t)len;
        if (saf__token_is_plain(t, i) && t->len[i] > t->max_len) t->max_len = t->len[i];
    }
    SAF_TRY(make_table(t));
    SAF_TRY(read_bytes(t));
out:
    return st;
}

saf_status saf__tokenizer_append_byte(const saf_tokenizer *t, uint8_t byte, saf_ids *out) {
    int32_t id = t->byte_id[byte] >= 0 ? t->byte_id[byte] : t->unknown;
    if (id < 0)
        return saf_fail(SAF_BAD_INPUT,
                        "%s: the vocabulary has no token for byte 0x%02X and no unknown token",
                        saf_gguf_path(t->g), byte);
    return saf_ids_append(out, id);
}
