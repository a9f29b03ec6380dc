/* The tokenizer keys of a made model. */
#include <stdio.h>

#include "model/make.h"

enum { BYTES = 256 };

static saf_status append_token(saf_buf *buf, const char *text, size_t len) {
    uint64_t n = len;
    saf_status st = saf_buf_append(buf, &n, sizeof n);
    return st == SAF_OK ? saf_buf_append(buf, text, len) : st;
}

static saf_status append_unused(saf_buf *buf, int64_t from, int64_t to) {
    saf_status st = SAF_OK;
    char text[32];
    for (int64_t i = from; i < to && st == SAF_OK; i++) {
        int len = snprintf(text, sizeof text, "[PAD%lld]", (long long)i);
        st = append_token(buf, text, (size_t)len);
    }
    return st;
}

static saf_status append_types(saf_buf *buf, int32_t type, int64_t n) {
    saf_status st = SAF_OK;
    for (int64_t i = 0; i < n && st == SAF_OK; i++) st = saf_buf_append(buf, &type, sizeof type);
    return st;
}

/* Printable Latin-1 bytes stand for themselves, the others are counted up from U+0100.
 * Source: Radford et al., GPT-2 (2019), its byte-to-unicode table. */
uint32_t saf__char_of_byte(int byte) {
    uint32_t next = 0x100;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte) return printable ? (uint32_t)b : next;
        if (!printable) next++;
    }
    return next;
}

static saf_status built_in_vocab(saf_gguf_writer *w, int64_t size, int64_t *vocab) {
    saf_status st = SAF_OK;
    saf_buf tokens = {0}, types = {0};
    static const char end[] = "<|endoftext|>";
    *vocab = saf_i64_max(size, BYTES + 1);
    for (int b = 0; b < BYTES; b++) {
        char text[4];
        int len = saf_utf8_encode(saf__char_of_byte(b), text);
        SAF_TRY(append_token(&tokens, text, (size_t)len));
    }
    SAF_TRY(append_token(&tokens, end, sizeof end - 1));
    SAF_TRY(append_unused(&tokens, BYTES + 1, *vocab));
    SAF_TRY(append_types(&types, SAF__VOCAB_NORMAL, BYTES));
    SAF_TRY(append_types(&types, SAF__VOCAB_CONTROL, 1));
    SAF_TRY(append_types(&types, SAF__VOCAB_UNUSED, *vocab - BYTES - 1));
    SAF_TRY(saf_gguf_write_string(w, "tokenizer.ggml.model", "gpt2"));
    SAF_TRY(saf_gguf_write_string(w, "tokenizer.ggml.pre", "gpt-2"));
    SAF_TRY(saf_gguf_write_array(w, "tokenizer.ggml.tokens", SAF_GGUF_STRING, *vocab, tokens.data,
                                 tokens.len));
    SAF_TRY(saf_gguf_write_array(w, "tokenizer.ggml.token_type", SAF_GGUF_I32, *vocab, types.data,
                                 types.len));
    SAF_TRY(saf_gguf_write_array(w, "tokenizer.ggml.merges", SAF_GGUF_STRING, 0, "", 0));
    SAF_TRY(saf_gguf_write_u32(w, "tokenizer.ggml.bos_token_id", BYTES));
    SAF_TRY(saf_gguf_write_u32(w, "tokenizer.ggml.eos_token_id", BYTES));
    SAF_TRY(saf_gguf_write_bool(w, "tokenizer.ggml.add_bos_token", false));
out:
    saf_buf_free(&tokens);
    saf_buf_free(&types);
    return st;
}

/* One of the arrays that have an entry per token, with entries for the unused ones behind. */
static saf_status write_padded(saf_gguf_writer *w, const saf_gguf *g, const char *key,
                               saf_gguf_kind element, int64_t n, int64_t vocab) {
    saf_status st = SAF_OK;
    saf_buf bytes = {0};
    for (int64_t i = 0; i < n; i++) {
        if (element == SAF_GGUF_STRING) {
            const char *text;
            size_t len;
            saf_gguf_array_string(g, key, i, &text, &len);
            SAF_TRY(append_token(&bytes, text, len));
        } else if (element == SAF_GGUF_F32) {
            float v = (float)saf_gguf_array_f64(g, key, i);
            SAF_TRY(saf_buf_append(&bytes, &v, sizeof v));
        } else {
            int32_t v = (int32_t)saf_gguf_array_i64(g, key, i);
            SAF_TRY(saf_buf_append(&bytes, &v, sizeof v));
        }
    }
    const float unlikely = -1000;
    if (element == SAF_GGUF_STRING) SAF_TRY(append_unused(&bytes, n, vocab));
    if (element == SAF_GGUF_F32)
        for (int64_t i = n; i < vocab; i++)
            SAF_TRY(saf_buf_append(&bytes, &unlikely, sizeof unlikely));
    if (element == SAF_GGUF_I32) SAF_TRY(append_types(&bytes, SAF__VOCAB_UNUSED, vocab - n));
    SAF_TRY(saf_gguf_write_array(w, key, element, vocab, bytes.data, bytes.len));
out:
    saf_buf_free(&bytes);
    return st;
}

static saf_status copy_key(saf_gguf_writer *w, const saf_gguf *g, const char *key,
                           saf_gguf_kind element, int64_t length, int64_t vocab) {
    static const struct {
        const char *key;
        saf_gguf_kind element;
    } per_token[] = {{"tokenizer.ggml.tokens", SAF_GGUF_STRING},
                     {"tokenizer.ggml.scores", SAF_GGUF_F32},
                     {"tokenizer.ggml.token_type", SAF_GGUF_I32}};
    for (size_t i = 0; i < sizeof per_token / sizeof per_token[0]; i++) {
        if (strcmp(key, per_token[i].key) != 0 || length == vocab) continue;
        if (element != per_token[i].element || length > vocab)
            return saf_fail(SAF_BAD_INPUT, "%s: key \"%s\" is no array of %s with an entry a token",
                            saf_gguf_path(g), key, saf_gguf_kind_name(per_token[i].element));
        return write_padded(w, g, key, element, length, vocab);
    }
    return saf_gguf_write_copy(w, g, key);
}

static saf_status copy_vocab(saf_gguf_writer *w, const char *path, int64_t size, int64_t *vocab) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf_gguf_kind kind, element = SAF_GGUF_KINDS;
    int64_t tokens = 0, length;
    bool found;
    SAF_TRY(saf_gguf_open(path, &g));
    SAF_TRY(saf_gguf_get_array(g, "tokenizer.ggml.tokens", &found, &element, &tokens));
    if (!found || element != SAF_GGUF_STRING || tokens == 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: no tokens (key \"tokenizer.ggml.tokens\")", path);
        goto out;
    }
    if (size != 0 && size < tokens) {
        st = saf_fail(SAF_USAGE, "%s has %lld tokens, more than the %lld asked for", path,
                      (long long)tokens, (long long)size);
        goto out;
    }
    *vocab = saf_i64_max(size, tokens);
    for (int64_t i = 0; i < saf_gguf_key_count(g); i++) {
        const char *key = saf_gguf_key(g, i, &kind, &element, &length);
        if (strncmp(key, "tokenizer.", 10) != 0) continue;
        SAF_TRY(copy_key(w, g, key, element, length, *vocab));
    }
out:
    saf_gguf_close(&g);
    return st;
}

saf_status saf__make_vocab(saf_gguf_writer *w, const char *path, int64_t size, int64_t *vocab) {
    if (path) return copy_vocab(w, path, size, vocab);
    if (size != 0 && size < BYTES + 1)
        return saf_fail(SAF_USAGE, "a vocabulary of %lld is too small for the %d built-in tokens",
                        (long long)size, BYTES + 1);
    return built_in_vocab(w, size, vocab);
}
