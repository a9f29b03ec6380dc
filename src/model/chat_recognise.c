/* Which family a template belongs to, by the texts it contains. */
#include <stdio.h>

#include "model/chat.h"

typedef struct {
    const char *text;
    size_t len;
} source;

static bool has(source s, const char *part) {
    return memmem(s.text, s.len, part, strlen(part)) != NULL;
}

/* For parts with a line break, which a template may write as one or as \n. */
static bool has_line(source s, const char *before, const char *after) {
    char line[128], escape[128];
    int n = snprintf(line, sizeof line, "%s\n%s", before, after);
    int m = snprintf(escape, sizeof escape, "%s\\n%s", before, after);
    return n > 0 && m > n && (size_t)m < sizeof escape && (has(s, line) || has(s, escape));
}

static saf_chat_family chatml_kind(source s) {
    if (has(s, "<|im_sep|>")) return SAF_CHAT_PHI4;
    if (has(s, "<end_of_utterance>")) return SAF_CHAT_NONE;
    /* Of the default system texts only the whole turn tells: some templates mention others. */
    for (int f = SAF_CHAT_QWEN2; f <= SAF_CHAT_SMOLLM2; f++)
        if (has_line(s, "<|im_start|>system", saf__chat_formats[f].default_system))
            return (saf_chat_family)f;
    if (has_line(s, "<|im_start|>assistant", "<think>")) return SAF_CHAT_QWEN3_THINKING;
    if (has(s, "'</think>' in") && has(s, "last_query_index")) return SAF_CHAT_QWEN3;
    return SAF_CHAT_CHATML;
}

static saf_chat_family inst_kind(source s) {
    if (has(s, "<<SYS>>")) return SAF_CHAT_LLAMA2;
    if (has(s, "[SYSTEM_PROMPT]")) return SAF_CHAT_NONE;
    if (has(s, "\" [INST] \"") || has(s, "' [INST] '")) return SAF_CHAT_MISTRAL_V1;
    bool trims = has(s, "message[\"content\"]|trim + eos_token");
    if (has(s, "\"[INST] \"")) return trims ? SAF_CHAT_MISTRAL_V3_TRIM : SAF_CHAT_MISTRAL_V3;
    if (has(s, "\"[INST]\"")) return trims ? SAF_CHAT_MINISTRAL : SAF_CHAT_MISTRAL_TEKKEN;
    return has(s, "'[INST] '") ? SAF_CHAT_MISTRAL : SAF_CHAT_NONE;
}

saf_chat_family saf_chat_recognise(const char *text, size_t len) {
    source s = {text, len};
    if (has(s, "<|im_start|>")) return chatml_kind(s);
    if (has(s, "[INST]")) return inst_kind(s);
    if (has(s, "<|start_header_id|>")) {
        if (!has(s, "Cutting Knowledge Date")) return SAF_CHAT_LLAMA3;
        return has(s, "26 Jul 2024") && !has(s, "Reasoning Mode") ? SAF_CHAT_LLAMA31
                                                                  : SAF_CHAT_NONE;
    }
    if (has(s, "<start_of_turn>")) return SAF_CHAT_GEMMA;
    bool tagged = has(s, "<|assistant|>") && (has(s, "<|user|>") || has(s, "'<|' + message["));
    if (tagged && has(s, "<|end|>"))
        return has(s, "'|>' + message['content']") ? SAF_CHAT_PHI4_MINI : SAF_CHAT_PHI3;
    if (tagged && has(s, "message['content'] + eos_token")) return SAF_CHAT_ZEPHYR;
    return SAF_CHAT_NONE;
}

/* Zephyr's row ends turns with </s>; where the file's EOS is another text it does not fit. */
static saf_status eos_is_s(const saf_gguf *g, bool *out) {
    saf_status st = SAF_OK;
    const char *text;
    size_t len;
    bool found = false;
    int64_t id = 0, n = 0;
    saf_gguf_kind element;
    *out = false;
    SAF_TRY(saf_gguf_get_i64(g, "tokenizer.ggml.eos_token_id", &found, &id));
    if (!found) goto out;
    SAF_TRY(saf_gguf_get_array(g, "tokenizer.ggml.tokens", &found, &element, &n));
    if (!found || element != SAF_GGUF_STRING || id < 0 || id >= n) goto out;
    saf_gguf_array_string(g, "tokenizer.ggml.tokens", id, &text, &len);
    *out = len == 4 && memcmp(text, "</s>", 4) == 0;
out:
    return st;
}

saf_status saf_chat_family_of(const saf_gguf *g, saf_chat_family *out) {
    saf_status st = SAF_OK;
    const char *text;
    size_t len;
    bool found = false, fits = true;
    saf_chat_family family = SAF_CHAT_NONE;
    SAF_TRY(saf_gguf_get_string(g, "tokenizer.chat_template", &found, &text, &len));
    if (found) family = saf_chat_recognise(text, len);
    if (family == SAF_CHAT_ZEPHYR) SAF_TRY(eos_is_s(g, &fits));
    *out = fits ? family : SAF_CHAT_NONE;
out:
    return st;
}
