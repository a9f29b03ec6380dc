/* From ids back to bytes. */
#include "model/tokenizer.h"

#define SPACE "\u2581"
enum { SPACE_BYTES = 3 };

static saf_status append_spaced(saf_buf *out, const char *text, size_t len, bool drop_space) {
    saf_status st = SAF_OK;
    size_t plain = 0;
    for (size_t i = 0; i < len;) {
        if (len - i < SPACE_BYTES || memcmp(text + i, SPACE, SPACE_BYTES) != 0) {
            i++;
            continue;
        }
        SAF_TRY(saf_buf_append(out, text + plain, i - plain));
        if (i > 0 || !drop_space) SAF_TRY(saf_buf_append(out, " ", 1));
        i += SPACE_BYTES;
        plain = i;
    }
    SAF_TRY(saf_buf_append(out, text + plain, len - plain));
out:
    return st;
}

/* Characters that stand for bytes become them. A text with any other character was not made by the
 * byte-level rule and stands for itself. */
static saf_status append_bytes(const saf_tokenizer *t, saf_buf *out, const char *text, size_t len) {
    size_t before = out->len;
    for (size_t i = 0; i < len;) {
        uint32_t c;
        int n = saf_utf8_decode(text + i, len - i, &c);
        if (n == 0 || c >= sizeof t->char_byte / sizeof t->char_byte[0] || t->char_byte[c] < 0) {
            out->len = before;
            return saf_buf_append(out, text, len);
        }
        char byte = (char)t->char_byte[c];
        saf_status st = saf_buf_append(out, &byte, 1);
        if (st != SAF_OK) return st;
        i += (size_t)n;
    }
    return SAF_OK;
}

saf_status saf_tokenizer_piece(const saf_tokenizer *t, int32_t id, bool first, bool special,
                               saf_buf *out) {
    if (id < 0 || id >= t->vocab)
        return saf_fail(SAF_BAD_INPUT, "token %d is not in the vocabulary of %d", id, t->vocab);
    const char *text = t->text[id];
    size_t len = t->len[id];
    int type = saf__token_type(t, id);
    if (type == SAF__TOKEN_CONTROL || type == SAF__TOKEN_UNKNOWN)
        return special ? saf_buf_append(out, text, len) : SAF_OK;
    if (type == SAF__TOKEN_BYTE) {
        char byte = 0;
        for (int i = 3; i < 5; i++)
            byte = (char)(byte << 4 | (text[i] <= '9' ? text[i] - '0' : (text[i] & 7) + 9));
        return saf_buf_append(out, &byte, 1);
    }
    if (t->model == SAF__TOKENIZER_LLAMA)
        return append_spaced(out, text, len,
                             first && t->adds_space && type != SAF__TOKEN_USER_DEFINED);
    return type == SAF__TOKEN_USER_DEFINED ? saf_buf_append(out, text, len)
                                           : append_bytes(t, out, text, len);
}

/* Whether what follows this token is encoded as a text of its own. A user-defined token with U+2581
 * comes from merges: texts have spaces there. */
static bool is_cut(const saf_tokenizer *t, int32_t id) {
    int type = saf__token_type(t, id);
    if (type == SAF__TOKEN_USER_DEFINED)
        return !memmem(t->text[id], t->len[id], SPACE, SPACE_BYTES);
    return type == SAF__TOKEN_CONTROL || (type == SAF__TOKEN_UNKNOWN && t->unknown_is_text);
}

saf_status saf_tokenizer_decode(const saf_tokenizer *t, const int32_t *ids, int64_t n, bool special,
                                saf_buf *out) {
    saf_status st = SAF_OK;
    size_t before = out->len;
    bool first = true;
    for (int64_t i = n > 0 && t->adds_bos && ids[0] == t->bos; i < n; i++) {
        SAF_TRY(saf_tokenizer_piece(t, ids[i], first, special, out));
        first = is_cut(t, ids[i]);
    }
out:
    if (st != SAF_OK && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return st;
}
