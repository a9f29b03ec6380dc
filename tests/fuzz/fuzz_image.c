/* The header of a model as another rank sends it. */
#include "fuzz.h"
#include "saf/model.h"

enum { MAGIC_BYTES = 8, PART_BYTES = 8, EXTENT_BYTES = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_gguf *g = NULL;
    saf_buf image = {0};
    uint8_t sha[32];
    fuzz_begin(size);
    FUZZ_CHECK(saf_buf_append(&image, data, size) == SAF_OK);
    if (fuzz_accepted(saf_gguf_image_open("m-00001-of-00003.gguf", &image, &g), SAF_BAD_INPUT)) {
        (void)saf_gguf_header_sha256(g, sha); /* what did not come is a defect of the sender */
        saf_gguf_drop_keys(g);
        saf_gguf_close(&g);
    }
    FUZZ_CHECK(!image.data);
    fuzz_end();
    return 0;
}

/* One part, as seeds have it: the GGUF header within, and the sizes around it made right again. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    enum { AT = 3 * MAGIC_BYTES + PART_BYTES + EXTENT_BYTES };
    fuzz_random r = {seed};
    uint64_t parts = 0, extents = 0;
    if (size >= AT) {
        memcpy(&parts, data + 8, sizeof parts);
        memcpy(&extents, data + 16, sizeof extents);
    }
    if (parts != 1 || extents != 1 || fuzz_below(&r, 4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    uint64_t len = fuzz_gguf_mutate(data + AT, size - AT, max_size - AT, &r);
    if (fuzz_below(&r, 8)) memcpy(data + AT - 8, &len, sizeof len);
    return AT + (size_t)len;
}
