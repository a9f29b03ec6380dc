/* saf_vocab_make: a vocabulary learnt from texts, as the tokenizer keys of a GGUF file. */
#include <math.h>
#include <stdio.h>

#include "model/bpe.h"
#include "model/make.h"
#include "model/pretok.h"

enum { FILE_MAX = 1 << 30, SIZE_MIN = SAF__BPE_BYTES + 1, VOCAB_MAX = 1 << 20 };
static const char END[] = "<|endoftext|>", RULE[] = "gpt-2";

/* What the merges give, as the file has it. */
typedef struct {
    saf_buf texts, types, merges; /* arrays of a GGUF file */
    saf_buf spelt;                /* the tokens' characters, end to end */
    size_t *at;                   /* [tokens + 1] where each begins */
    int64_t n;                    /* tokens */
} vocabulary;

size_t saf_text_held_out(const char *text, size_t len, double share) {
    size_t from = share > 0 ? (size_t)floor((double)len * (1 - share)) : len;
    if (from >= len) return len;
    const char *line = memchr(text + from, '\n', len - from);
    return line ? (size_t)(line - text) + 1 : len;
}

static saf_status count_words(const char *path, double held_out, saf__pretok *rule, saf__bpe *bpe) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    SAF_TRY(saf_file_read(path, FILE_MAX, &text));
    size_t valid = saf_utf8_valid_prefix(text.data, text.len), from = 0;
    if (valid != text.len) {
        st = saf_fail(SAF_BAD_INPUT, "%s: byte %zu is not UTF-8", path, valid);
        goto out;
    }
    size_t upto = saf_text_held_out(text.data, text.len, held_out);
    while (from < upto) { /* the end of a text is a token of its own */
        const char *end = memmem(text.data + from, upto - from, END, sizeof END - 1);
        size_t len = end ? (size_t)(end - text.data) - from : upto - from;
        SAF_TRY(saf__pretok_split(rule, text.data + from, len, saf__bpe_add_word, bpe));
        from += len + (end ? sizeof END - 1 : 0);
    }
out:
    saf_buf_free(&text);
    return st;
}

static saf_status learn(const char *const *paths, int64_t n_paths, double held_out, int64_t max,
                        saf__bpe_merge *merges, int64_t *made) {
    saf_status st = SAF_OK;
    saf__pretok *rule = NULL;
    saf__bpe *bpe = NULL;
    const saf__pretok_name *name = saf__pretok_find(RULE, sizeof RULE - 1);
    if (!name) return saf_fail(SAF_DEFECT, "no splitting rule %s", RULE);
    SAF_TRY(saf__pretok_new(name->rule, &rule));
    SAF_TRY(saf__bpe_new(&bpe));
    for (int64_t i = 0; i < n_paths; i++) SAF_TRY(count_words(paths[i], held_out, rule, bpe));
    SAF_TRY(saf__bpe_learn(bpe, max, merges, made));
out:
    saf__bpe_free(&bpe);
    saf__pretok_free(&rule);
    return st;
}

static saf_status append_string(saf_buf *array, const char *text, size_t len) {
    uint64_t n = len;
    saf_status st = saf_buf_append(array, &n, sizeof n);
    return st == SAF_OK ? saf_buf_append(array, text, len) : st;
}

/* What was spelt since the last token is one. */
static saf_status end_token(vocabulary *v, int32_t type) {
    saf_status st = SAF_OK;
    size_t from = v->at[v->n];
    SAF_TRY(append_string(&v->texts, v->spelt.data + from, v->spelt.len - from));
    SAF_TRY(saf_buf_append(&v->types, &type, sizeof type));
    v->at[++v->n] = v->spelt.len;
out:
    return st;
}

/* Tokens a, then b, as one string. */
static saf_status spell(vocabulary *v, int32_t token) {
    size_t len = v->at[token + 1] - v->at[token], to = v->spelt.len;
    saf_status st = saf_buf_resize(&v->spelt, to + len);
    if (st == SAF_OK) memcpy(v->spelt.data + to, v->spelt.data + v->at[token], len);
    return st;
}

static saf_status fill(vocabulary *v, const saf__bpe_merge *merges, int64_t n) {
    saf_status st = SAF_OK;
    saf_buf line = {0};
    SAF_TRY(saf_alloc((size_t)(SIZE_MIN + n + 1), sizeof *v->at, &v->at));
    for (int b = 0; b < SAF__BPE_BYTES; b++) {
        char text[4];
        int len = saf_utf8_encode(saf__char_of_byte(b), text);
        SAF_TRY(saf_buf_append(&v->spelt, text, (size_t)len));
        SAF_TRY(end_token(v, SAF__VOCAB_NORMAL));
    }
    for (int64_t i = 0; i < n; i++) {
        size_t from = v->spelt.len, half;
        SAF_TRY(spell(v, merges[i].left));
        half = v->spelt.len - from;
        SAF_TRY(spell(v, merges[i].right));
        saf_buf_clear(&line);
        SAF_TRY(saf_buf_append(&line, v->spelt.data + from, half));
        SAF_TRY(saf_buf_append(&line, " ", 1));
        SAF_TRY(saf_buf_append(&line, v->spelt.data + from + half, v->spelt.len - from - half));
        SAF_TRY(append_string(&v->merges, line.data, line.len));
        SAF_TRY(end_token(v, SAF__VOCAB_NORMAL));
    }
    SAF_TRY(saf_buf_append(&v->spelt, END, sizeof END - 1));
    SAF_TRY(end_token(v, SAF__VOCAB_CONTROL));
out:
    saf_buf_free(&line);
    return st;
}

static saf_status write_file(const char *path, const vocabulary *v, int64_t n_merges) {
    saf_status st = SAF_OK;
    saf_gguf_writer *w = NULL;
    char name[64];
    uint32_t end = (uint32_t)(v->n - 1);
    snprintf(name, sizeof name, "vocabulary of %lld", (long long)v->n);
    SAF_TRY(saf_gguf_writer_open(path, &w));
    SAF_TRY(saf_gguf_write_string(w, "general.architecture", "llama"));
    SAF_TRY(saf_gguf_write_string(w, "general.type", "vocab"));
    SAF_TRY(saf_gguf_write_string(w, "general.name", name));
    SAF_TRY(saf_gguf_write_string(w, "tokenizer.ggml.model", "gpt2"));
    SAF_TRY(saf_gguf_write_string(w, "tokenizer.ggml.pre", RULE));
    SAF_TRY(saf_gguf_write_array(w, "tokenizer.ggml.tokens", SAF_GGUF_STRING, v->n, v->texts.data,
                                 v->texts.len));
    SAF_TRY(saf_gguf_write_array(w, "tokenizer.ggml.token_type", SAF_GGUF_I32, v->n, v->types.data,
                                 v->types.len));
    SAF_TRY(saf_gguf_write_array(w, "tokenizer.ggml.merges", SAF_GGUF_STRING, n_merges,
                                 n_merges ? v->merges.data : "", v->merges.len));
    SAF_TRY(saf_gguf_write_u32(w, "tokenizer.ggml.bos_token_id", end));
    SAF_TRY(saf_gguf_write_u32(w, "tokenizer.ggml.eos_token_id", end));
    SAF_TRY(saf_gguf_write_bool(w, "tokenizer.ggml.add_bos_token", true));
    SAF_TRY(saf_gguf_write_bool(w, "tokenizer.ggml.add_eos_token", false));
    SAF_TRY(saf_gguf_writer_finish(w));
out:
    saf_gguf_writer_free(&w);
    return st;
}

saf_status saf_vocab_make(const char *path, const char *const *texts, int64_t n_texts, int64_t size,
                          double held_out, int64_t *tokens) {
    saf_status st = SAF_OK;
    saf__bpe_merge *merges = NULL;
    vocabulary v = {0};
    int64_t made = 0;
    if (size < SIZE_MIN || size > VOCAB_MAX)
        return saf_fail(SAF_USAGE, "a vocabulary of %lld tokens, expected %d to %d",
                        (long long)size, SIZE_MIN, VOCAB_MAX);
    SAF_TRY(saf_alloc((size_t)(size - SIZE_MIN), sizeof *merges, &merges));
    SAF_TRY(learn(texts, n_texts, held_out, size - SIZE_MIN, merges, &made));
    SAF_TRY(fill(&v, merges, made));
    SAF_TRY(write_file(path, &v, made));
    *tokens = v.n;
out:
    saf_buf_free(&v.texts);
    saf_buf_free(&v.types);
    saf_buf_free(&v.merges);
    saf_buf_free(&v.spelt);
    saf_free(&v.at);
    saf_free(&merges);
    return st;
}
