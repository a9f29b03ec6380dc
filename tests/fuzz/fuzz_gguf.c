/* A model file: header, keys, tensors; and the image of its header that other ranks are sent. */
#include "fuzz.h"
#include "saf/model.h"

static void read_keys(const saf_gguf *g) {
    saf_gguf_kind kind, element;
    int64_t length, number;
    double real;
    bool found, flag;
    const char *text;
    size_t len;
    volatile char last = 0;
    for (int64_t i = 0; i < saf_gguf_key_count(g); i++) {
        const char *key = saf_gguf_key(g, i, &kind, &element, &length);
        FUZZ_CHECK(saf_gguf_has(g, key));
        (void)fuzz_accepted(saf_gguf_get_i64(g, key, &found, &number), SAF_BAD_INPUT);
        (void)fuzz_accepted(saf_gguf_get_f64(g, key, &found, &real), SAF_BAD_INPUT);
        (void)fuzz_accepted(saf_gguf_get_bool(g, key, &found, &flag), SAF_BAD_INPUT);
        if (fuzz_accepted(saf_gguf_get_string(g, key, &found, &text, &len), SAF_BAD_INPUT) && len)
            last = text[len - 1];
        for (int64_t j = 0; kind == SAF_GGUF_ARRAY && j < length; j++) {
            saf_gguf_array_string(g, key, j, &text, &len);
            if (len) last = text[len - 1];
            (void)saf_gguf_array_i64(g, key, j);
            (void)saf_gguf_array_f64(g, key, j);
        }
    }
    (void)last;
}

static void read_tensors(const saf_gguf *g) {
    uint8_t bytes[64];
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        size_t n = t->bytes < sizeof bytes ? t->bytes : sizeof bytes;
        FUZZ_CHECK(saf_gguf_tensor_find(g, t->name) == t);
        FUZZ_CHECK(saf_gguf_tensor_read(g, t, t->bytes - n, n, bytes) == SAF_OK);
    }
}

/* What another rank makes of the header is what this one has. */
static void send(const saf_gguf *g) {
    saf_buf image = {0};
    saf_gguf *copy = NULL;
    uint8_t here[32], there[32];
    FUZZ_CHECK(saf_gguf_image_write(g, &image) == SAF_OK);
    FUZZ_CHECK(saf_gguf_image_open(saf_gguf_path(g), &image, &copy) == SAF_OK);
    FUZZ_CHECK(saf_gguf_header_sha256(g, here) == SAF_OK);
    FUZZ_CHECK(saf_gguf_header_sha256(copy, there) == SAF_OK);
    FUZZ_CHECK(memcmp(here, there, sizeof here) == 0);
    FUZZ_CHECK(saf_gguf_tensor_count(copy) == saf_gguf_tensor_count(g));
    saf_gguf_close(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_gguf *g = NULL;
    const char *path = fuzz_file("model.gguf", data, size);
    fuzz_begin(size);
    if (fuzz_accepted(saf_gguf_open(path, &g), SAF_BAD_INPUT)) {
        read_keys(g);
        read_tensors(g);
        send(g);
        saf_gguf_close(&g);
    }
    fuzz_end();
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    fuzz_random r = {seed};
    return fuzz_gguf_mutate(data, size, max_size, &r);
}
