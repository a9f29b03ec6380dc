/* What the file says about special ids: where a text begins and ends, and what ends a completion.
 */
#include "model/tokenizer.h"

/* An id key; -1 where it is absent or holds -1. */
static saf_status read_id(const saf_tokenizer *t, const char *key, int32_t *out) {
    saf_status st = SAF_OK;
    bool found = false;
    int64_t id = -1;
    SAF_TRY(saf_gguf_get_i64(t->g, key, &found, &id));
    if (!found || id == -1 || id == UINT32_MAX) {
        *out = -1;
    } else if (id < 0 || id >= t->vocab) {
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s is %lld, expected a token below %d",
                         saf_gguf_path(t->g), key, (long long)id, t->vocab));
    } else {
        *out = (int32_t)id;
    }
out:
    return st;
}

static bool has_text(const saf_tokenizer *t, int32_t id, const char *text) {
    return t->len[id] == strlen(text) && memcmp(t->text[id], text, t->len[id]) == 0;
}

/* Old files of model "llama" leave the ids out: its unknown token, BOS and EOS are 0, 1, 2. */
static void default_ids(saf_tokenizer *t) {
    if (t->model != SAF__TOKENIZER_LLAMA || t->vocab < 3) return;
    if (!saf_gguf_has(t->g, "tokenizer.ggml.unknown_token_id") &&
        saf__token_type(t, 0) == SAF__TOKEN_UNKNOWN)
        t->unknown = 0;
    if (!saf_gguf_has(t->g, "tokenizer.ggml.bos_token_id") && has_text(t, 1, "<s>")) t->bos = 1;
    if (!saf_gguf_has(t->g, "tokenizer.ggml.eos_token_id") && has_text(t, 2, "</s>")) t->eos = 2;
}

/* `*adds` holds the default of model and splitting rule. */
static saf_status read_adds(const saf_tokenizer *t, const char *key, int32_t id, const char *what,
                            bool *adds) {
    saf_status st = SAF_OK;
    bool found = false;
    SAF_TRY(saf_gguf_get_bool(t->g, key, &found, adds));
    if (found && *adds && id < 0)
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s is true but there is no %s token",
                         saf_gguf_path(t->g), key, what));
    if (id < 0) *adds = false;
out:
    return st;
}

/* Texts of tokens that end an answer, in the models that have them. They count where the file
 * says that the token is control or user-defined; the same text as a plain token ends nothing. */
static const char *const end_texts[] = {
    "<|eot_id|>",                              /* Llama 3 */
    "<|eom_id|>",                              /* Llama 3.1 */
    "<|im_end|>",                              /* ChatML */
    "<|end|>",                                 /* Phi-3 */
    "<|return|>",                              /* gpt-oss */
    "<|call|>",                                /* gpt-oss */
    "<|flush|>",                               /* Solar */
    "<|calls|>",                               /* Solar */
    "<end_of_turn>",                           /* Gemma */
    "<|endoftext|>",                           /* GPT-2 and after */
    "<|end_of_text|>",                         /* Llama 3, Granite */
    "</s>",                                    /* SentencePiece */
    "<EOT>",                                   /* CodeLlama */
    "\u2581<EOT>",                             /* CodeLlama */
    "[EOT]",                                   /* Kimi */
    "[EOS]",                                   /* Kimi */
    "<end_of_utterance>",                      /* SmolVLM */
    "<eos>",                                   /* Gemma */
    "<\uff5cend\u2581of\u2581sentence\uff5c>", /* DeepSeek */
    "<|fim_pad|>",                             /* Qwen */
    "<|repo_name|>",                           /* Qwen */
    "<|file_sep|>",                            /* Qwen */
};

static bool is_marker(const saf_tokenizer *t, int32_t id) {
    return id >= 0 && (saf__token_type(t, id) == SAF__TOKEN_CONTROL ||
                       saf__token_type(t, id) == SAF__TOKEN_USER_DEFINED);
}

static int32_t find_marker(const saf_tokenizer *t, const char *text) {
    int32_t id = saf__tokenizer_find(t, text, strlen(text));
    return is_marker(t, id) ? id : -1;
}

static saf_status mark_ends(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    for (size_t i = 0; i < sizeof end_texts / sizeof end_texts[0]; i++) {
        int32_t id = find_marker(t, end_texts[i]);
        if (id >= 0) t->kind[id] |= SAF__TOKEN_END;
    }
    /* gpt-oss and Solar end every message with <|end|>, also those before the answer. */
    int32_t end = find_marker(t, "<|end|>");
    if (end >= 0 && ((find_marker(t, "<|return|>") >= 0 && find_marker(t, "<|call|>") >= 0) ||
                     (find_marker(t, "<|flush|>") >= 0 && find_marker(t, "<|calls|>") >= 0)))
        t->kind[end] &= (uint8_t)~SAF__TOKEN_END;
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int32_t id = -1;
        SAF_TRY(read_id(t, keys[i], &id));
        if (id >= 0) t->kind[id] |= SAF__TOKEN_END;
    }
    if (t->eos >= 0) t->kind[t->eos] |= SAF__TOKEN_END;
out:
    return st;
}

saf_status saf__tokenizer_load_keys(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    bool found = false;
    SAF_TRY(read_id(t, "tokenizer.ggml.bos_token_id", &t->bos));
    SAF_TRY(read_id(t, "tokenizer.ggml.eos_token_id", &t->eos));
    SAF_TRY(read_id(t, "tokenizer.ggml.unknown_token_id", &t->unknown));
    default_ids(t);
    SAF_TRY(read_adds(t, "tokenizer.ggml.add_bos_token", t->bos, "BOS", &t->adds_bos));
    SAF_TRY(read_adds(t, "tokenizer.ggml.add_eos_token", t->eos, "EOS", &t->adds_eos));
    if (t->model == SAF__TOKENIZER_LLAMA)
        SAF_TRY(saf_gguf_get_bool(t->g, "tokenizer.ggml.add_space_prefix", &found, &t->adds_space));
    t->unknown_is_text = true;
    for (int b = 0; b < 256; b++) t->unknown_is_text = t->unknown_is_text && t->byte_id[b] >= 0;
    SAF_TRY(mark_ends(t));
out:
    return st;
}
