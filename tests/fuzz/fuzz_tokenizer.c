/* A tokenizer from a model file, and a text through it: the input is a file, a text, and the text's
 * length in its last 2 bytes. */
#include <stdlib.h>

#include "fuzz.h"
#include "saf/model.h"

enum { LENGTH_BYTES = 2, TEXT_MAX = 512 };

static size_t text_bytes(const uint8_t *data, size_t size) {
    uint16_t len;
    memcpy(&len, data + size - LENGTH_BYTES, sizeof len);
    return len < size - LENGTH_BYTES ? len : size - LENGTH_BYTES;
}

static void encode(saf_tokenizer *t, const char *text, size_t len, bool special) {
    saf_ids ids = {0};
    saf_buf back = {0};
    if (fuzz_accepted(saf_tokenizer_encode(t, text, len, special, special, &ids), SAF_BAD_INPUT)) {
        /* A byte gives a token; a space, of which one may come before, the three bytes of U+2581;
         * BOS and EOS. */
        FUZZ_CHECK(ids.len <= 3 * ((int64_t)len + 1) + 2);
        for (int64_t i = 0; i < ids.len; i++)
            FUZZ_CHECK(ids.data[i] >= 0 && ids.data[i] < saf_tokenizer_vocab(t));
        FUZZ_CHECK(saf_tokenizer_decode(t, ids.data, ids.len, true, &back) == SAF_OK);
    } else {
        FUZZ_CHECK(ids.len == 0);
    }
    saf_ids_free(&ids);
    saf_buf_free(&back);
}

static void pieces(const saf_tokenizer *t) {
    saf_buf out = {0};
    int32_t n = saf_tokenizer_vocab(t);
    for (int32_t id = -1; id <= n; id++) {
        saf_status st = saf_tokenizer_piece(t, id, id & 1, true, &out);
        FUZZ_CHECK(fuzz_accepted(st, SAF_BAD_INPUT) == (id >= 0 && id < n));
        (void)saf_tokenizer_is_end(t, id);
        saf_buf_clear(&out);
    }
    saf_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_gguf *g = NULL;
    saf_tokenizer *t = NULL;
    saf_chat_family family;
    if (size < LENGTH_BYTES) return -1;
    size_t len = text_bytes(data, size), file_bytes = size - LENGTH_BYTES - len;
    const char *text = (const char *)data + file_bytes;
    const char *path = fuzz_file("tokenizer.gguf", data, file_bytes);
    fuzz_begin(size);
    if (fuzz_accepted(saf_gguf_open(path, &g), SAF_BAD_INPUT)) {
        (void)fuzz_accepted(saf_chat_family_of(g, &family), SAF_BAD_INPUT);
        if (fuzz_accepted(saf_tokenizer_new(g, &t), SAF_BAD_INPUT)) {
            pieces(t);
            encode(t, text, len, false);
            encode(t, text, len, true);
            (void)saf_tokenizer_find(t, text, len);
            saf_tokenizer_free(&t);
        }
        saf_gguf_close(&g);
    }
    fuzz_end();
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    uint8_t text[TEXT_MAX + LENGTH_BYTES];
    fuzz_random r = {seed};
    if (size < LENGTH_BYTES || max_size < sizeof text + 1)
        return LLVMFuzzerMutate(data, size, max_size);
    size_t len = text_bytes(data, size), file_bytes = size - LENGTH_BYTES - len;
    if (len > TEXT_MAX) len = TEXT_MAX;
    memcpy(text, data + file_bytes, len);
    if (fuzz_below(&r, 3) == 0)
        len = LLVMFuzzerMutate(text, len, TEXT_MAX);
    else
        file_bytes = fuzz_gguf_mutate(data, file_bytes, max_size - sizeof text, &r);
    uint16_t stored = (uint16_t)len;
    if (file_bytes > max_size - len - LENGTH_BYTES) file_bytes = max_size - len - LENGTH_BYTES;
    memcpy(text + len, &stored, sizeof stored);
    memcpy(data + file_bytes, text, len + LENGTH_BYTES);
    return file_bytes + len + LENGTH_BYTES;
}
