/* Model "llama": merges in the way of SentencePiece's BPE. Spaces become U+2581, neighbours whose
 * text together is a token merge, the best score first, and what is no token in the end becomes
 * byte tokens. */
#include "model/tokenizer.h"

#define SPACE "\u2581"
enum { SPACE_BYTES = 3 };

static const char SCORES[] = "tokenizer.ggml.scores";

static bool is_space(const char *text) {
    return memcmp(text, SPACE, SPACE_BYTES) == 0;
}

/* Floats as integers that fall as the score rises. */
static saf_status read_scores(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    bool found = false;
    saf_gguf_kind element;
    int64_t n = 0;
    SAF_TRY(saf_gguf_get_array(t->g, SCORES, &found, &element, &n));
    if (!found || element != SAF_GGUF_F32 || n != t->vocab)
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s must be %d floats, one a token",
                         saf_gguf_path(t->g), SCORES, t->vocab));
    SAF_TRY(saf_alloc((size_t)n, sizeof *t->score_key, &t->score_key));
    for (int32_t i = 0; i < t->vocab; i++) {
        float score = (float)saf_gguf_array_f64(t->g, SCORES, i) + 0.0f; /* -0 becomes 0 */
        if (score != score)
            SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s: %s[%d] is not a number", saf_gguf_path(t->g),
                             SCORES, i));
        uint32_t bits = saf_f32_to_bits(score);
        t->score_key[i] = bits >> 31 ? bits : ~bits & 0x7fffffffu;
    }
out:
    return st;
}

/* Whether no merge can join what lies before a U+2581 that follows another character with what
 * lies after: then a text may be merged word by word, with the same result. */
static bool words_are_apart(const saf_tokenizer *t) {
    for (int32_t id = 0; id < t->vocab; id++) {
        if (!saf__token_is_plain(t, id)) continue;
        bool other = false;
        for (uint32_t i = 0; i < t->len[id]; i++) {
            if (t->len[id] - i >= SPACE_BYTES && is_space(t->text[id] + i)) {
                if (other) return false;
                i += SPACE_BYTES - 1;
            } else {
                other = true;
            }
        }
    }
    return true;
}

saf_status saf__tokenizer_load_llama(saf_tokenizer *t) {
    saf_status st = SAF_OK;
    t->adds_bos = true;
    t->adds_space = true;
    SAF_TRY(read_scores(t));
    for (int b = 0; b < 128; b++) {
        char text = (char)b;
        if (t->byte_id[b] < 0) t->byte_id[b] = saf__tokenizer_find_plain(t, &text, 1);
    }
    t->words_are_apart = words_are_apart(t);
out:
    return st;
}

static bool by_score(const saf_tokenizer *t, const saf__symbol *left, const saf__symbol *right,
                     uint32_t *key, int32_t *id) {
    /* The two lie next to each other in the text. */
    *id = saf__tokenizer_find_plain(t, t->merger.text + left->at, (size_t)left->len + right->len);
    if (*id < 0) return false;
    *key = t->score_key[*id];
    return true;
}

static saf_status append_symbol(const saf_tokenizer *t, const char *text, const saf__symbol *s,
                                saf_ids *out) {
    saf_status st = SAF_OK;
    int32_t id = s->id >= 0 ? s->id : saf__tokenizer_find_plain(t, text + s->at, s->len);
    if (id >= 0) return saf_ids_append(out, id);
    for (uint32_t i = 0; i < s->len; i++) {
        if (t->byte_id[(uint8_t)text[s->at + i]] < 0 && t->unknown >= 0)
            return saf_ids_append(out, t->unknown); /* one for the character */
    }
    for (uint32_t i = 0; i < s->len; i++)
        SAF_TRY(saf__tokenizer_append_byte(t, (uint8_t)text[s->at + i], out));
out:
    return st;
}

/* Ids of a stretch in which anything may merge with anything. */
static saf_status encode_chunk(saf_tokenizer *t, const char *text, size_t len, saf_ids *out) {
    saf_status st = SAF_OK;
    saf__merger *m = &t->merger;
    size_t n = 0;
    SAF_TRY(saf__merger_reserve(m, len));
    m->text = text;
    for (size_t at = 0; at < len; n++) {
        uint32_t code_point;
        int bytes = saf_utf8_decode(text + at, len - at, &code_point);
        m->symbols[n] =
            (saf__symbol){(int32_t)n - 1, (int32_t)n + 1, (uint32_t)at, (uint32_t)bytes, -1};
        at += (size_t)bytes;
    }
    m->symbols[n - 1].next = -1;
    saf__merger_run(t, m, n, by_score);
    for (int32_t i = 0; i >= 0; i = m->symbols[i].next)
        SAF_TRY(append_symbol(t, text, &m->symbols[i], out));
out:
    return st;
}

/* Where the next word begins: at a U+2581 after another character, or the end. */
static size_t next_word(const char *text, size_t len) {
    bool other = false;
    for (size_t i = 0; i < len;) {
        if (len - i >= SPACE_BYTES && is_space(text + i)) {
            if (other) return i;
            i += SPACE_BYTES;
        } else {
            other = true;
            i++;
        }
    }
    return len;
}

saf_status saf__tokenizer_encode_llama(saf_tokenizer *t, const char *text, size_t len,
                                       saf_ids *out) {
    saf_status st = SAF_OK;
    saf_buf *b = &t->scratch;
    saf_buf_clear(b);
    if (t->adds_space) SAF_TRY(saf_buf_append(b, SPACE, SPACE_BYTES));
    for (size_t i = 0; i < len;) {
        const char *blank = memchr(text + i, ' ', len - i);
        size_t end = blank ? (size_t)(blank - text) : len;
        SAF_TRY(saf_buf_append(b, text + i, end - i));
        if (blank) SAF_TRY(saf_buf_append(b, SPACE, SPACE_BYTES));
        i = end + (blank != NULL);
    }
    for (size_t at = 0; at < b->len;) {
        size_t n = t->words_are_apart ? next_word(b->data + at, b->len - at) : b->len - at;
        SAF_TRY(encode_chunk(t, b->data + at, n, out));
        at += n;
    }
out:
    return st;
}
