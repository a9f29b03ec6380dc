/* The tokenizer as its callers see it. */
#include "model/tokenizer.h"

/* Scratch for longer stretches is given back after the text that needed it. */
enum { KEEP_SYMBOLS = 1 << 16 };

static saf_status choose_model(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    const char *model = "";
    size_t len = 0;
    bool found = false;
    SAF_TRY(saf_gguf_get_string(t->g, "tokenizer.ggml.model", &found, &model, &len));
    if (!found)
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: no tokenizer.ggml.model", saf_gguf_path(t->g)));
    if (len == 5 && memcmp(model, "llama", 5) == 0)
        t->model = SAF__TOKENIZER_LLAMA;
    else if (len == 4 && memcmp(model, "gpt2", 4) == 0)
        t->model = SAF__TOKENIZER_GPT2;
    else
        SAF_TRY(saf_fail(SAF_BAD_INPUT,
                         "%s: tokenizer.ggml.model \"%.*s\" is not supported (llama, gpt2 are)",
                         saf_gguf_path(t->g), len < 64 ? (int)len : 64, model));
out:
    return st;
}

saf_status saf_tokenizer_new(const saf_gguf *g, saf_tokenizer **out) {
    saf_status st = SAF_OK;
    saf_tokenizer *t = NULL;
    SAF_TRY(saf_alloc(1, sizeof *t, &t));
    t->g = g;
    t->bos = t->eos = t->unknown = -1;
    SAF_TRY(choose_model(t));
    SAF_TRY(saf__tokenizer_load_vocab(t));
    if (t->model == SAF__TOKENIZER_LLAMA)
        SAF_TRY(saf__tokenizer_load_llama(t));
    else
        SAF_TRY(saf__tokenizer_load_gpt2(t));
    SAF_TRY(saf__tokenizer_load_keys(t));
    SAF_TRY(saf__tokenizer_load_special(t));
    *out = t;
    t = NULL;
out:
    saf_tokenizer_free(&t);
    return st;
}

void saf_tokenizer_free(saf_tokenizer **pt) {
    saf_tokenizer *t = *pt;
    if (!t) return;
    saf_free(&t->text);
    saf_free(&t->len);
    saf_free(&t->kind);
    saf_free(&t->slots);
    saf_free(&t->special);
    saf_free(&t->score_key);
    saf_free(&t->pairs);
    saf__pretok_free(&t->pretok);
    saf__merger_free(&t->merger);
    saf_buf_free(&t->scratch);
    saf_free(pt);
}

int32_t saf_tokenizer_vocab(const saf_tokenizer *t) {
    return t->vocab;
}
int32_t saf_tokenizer_bos(const saf_tokenizer *t) {
    return t->bos;
}
int32_t saf_tokenizer_eos(const saf_tokenizer *t) {
    return t->eos;
}
bool saf_tokenizer_adds_bos(const saf_tokenizer *t) {
    return t->adds_bos;
}
bool saf_tokenizer_adds_eos(const saf_tokenizer *t) {
    return t->adds_eos;
}
bool saf_tokenizer_is_end(const saf_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->vocab && (t->kind[id] & SAF__TOKEN_END);
}
int32_t saf_tokenizer_find(const saf_tokenizer *t, const char *text, size_t len) {
    return saf__tokenizer_find(t, text, len);
}

saf_status saf_ids_append(saf_ids *ids, int32_t id) {
    saf_status st = SAF_OK;
    int32_t *data = NULL;
    if (ids->len == ids->cap) {
        int64_t cap = ids->cap < 64 ? 64 : 2 * ids->cap;
        SAF_TRY(saf_alloc((size_t)cap, sizeof *data, &data));
        if (ids->len > 0) memcpy(data, ids->data, (size_t)ids->len * sizeof *data);
        saf_free(&ids->data);
        ids->data = data;
        ids->cap = cap;
    }
    ids->data[ids->len++] = id;
out:
    return st;
}

void saf_ids_free(saf_ids *ids) {
    saf_free(&ids->data);
    *ids = (saf_ids){0};
}

static saf_status encode_plain(saf_tokenizer *t, const char *text, size_t len, saf_ids *out) {
    if (len == 0) return SAF_OK;
    return t->model == SAF__TOKENIZER_LLAMA ? saf__tokenizer_encode_llama(t, text, len, out)
                                            : saf__tokenizer_encode_gpt2(t, text, len, out);
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

saf_status saf_tokenizer_encode(saf_tokenizer *t, const char *text, size_t len, bool add_bos,
                                bool special, saf_ids *out) {
    saf_status st = SAF_OK;
    int64_t before = out->len;
    size_t from = 0, at = 0, valid = saf_utf8_valid_prefix(text, len);
    if (valid != len)
        SAF_TRY(
            saf_fail(SAF_BAD_INPUT, "the text is not valid UTF-8 at byte %zu of %zu", valid, len));
    if (add_bos && t->adds_bos) SAF_TRY(saf_ids_append(out, t->bos));
    while (from < len) {
        int32_t id = saf__tokenizer_next_special(t, text, len, from, special, &at);
        if (id < 0) at = len;
        SAF_TRY(encode_plain(t, text + from, at - from, out));
        from = at;
        if (id < 0) break;
        SAF_TRY(saf_ids_append(out, id));
        from += t->len[id];
        while ((t->kind[id] & SAF__TOKEN_RSTRIP) && from < len && is_space(text[from])) from++;
    }
    if (add_bos && t->adds_eos) SAF_TRY(saf_ids_append(out, t->eos));
out:
    if (st != SAF_OK) out->len = before;
    if (t->merger.cap > KEEP_SYMBOLS) saf__merger_free(&t->merger);
    if (t->scratch.cap > KEEP_SYMBOLS) saf_buf_free(&t->scratch);
    return st;
}
