/* A model split into files. The input is up to 4 files, each with its length in 4 bytes before it;
 * the last may be shorter than it says. */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "saf/model.h"

enum { PARTS_MAX = 4, LENGTH_BYTES = 4 };

typedef struct {
    const uint8_t *data;
    size_t size;
} part;

static int cut(const uint8_t *data, size_t size, part parts[PARTS_MAX]) {
    int n = 0;
    for (size_t at = 0; n < PARTS_MAX && size - at >= LENGTH_BYTES; n++) {
        uint32_t len;
        memcpy(&len, data + at, sizeof len);
        at += LENGTH_BYTES;
        parts[n] = (part){data + at, len < size - at ? len : size - at};
        at += parts[n].size;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    part parts[PARTS_MAX] = {{0}};
    saf_gguf *g = NULL;
    saf_buf image = {0};
    const char *first = NULL;
    char name[32];
    int n = cut(data, size, parts);
    if (n < 2) return -1;
    for (int i = 0; i < 3; i++) { /* of three, whatever the keys say */
        (void)snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i + 1);
        const char *path = fuzz_file(name, parts[i].data, parts[i].size);
        if (i == 0) first = path;
    }
    fuzz_begin(size);
    if (fuzz_accepted(saf_gguf_open(first, &g), SAF_BAD_INPUT)) {
        uint8_t byte;
        for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
            const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
            FUZZ_CHECK(t->part >= 0 && t->part < saf_gguf_parts(g));
            FUZZ_CHECK(saf_gguf_tensor_read(g, t, t->bytes - 1, 1, &byte) == SAF_OK);
        }
        FUZZ_CHECK(saf_gguf_image_write(g, &image) == SAF_OK);
        saf_gguf_close(&g);
        FUZZ_CHECK(saf_gguf_image_open(first, &image, &g) == SAF_OK);
        saf_gguf_close(&g);
    }
    fuzz_end();
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    fuzz_random r = {seed};
    part parts[PARTS_MAX];
    int n = cut(data, size, parts);
    if (n < 2 || fuzz_below(&r, 16) == 0) return LLVMFuzzerMutate(data, size, max_size);
    part *p = &parts[fuzz_below(&r, (uint32_t)n)];
    size_t at = (size_t)(p->data - data), behind = size - at - p->size,
           room = max_size - behind - at;
    uint8_t *rest = malloc(behind + 1);
    if (!rest) return size;
    memcpy(rest, data + at + p->size, behind);
    uint32_t len = (uint32_t)fuzz_gguf_mutate(data + at, p->size, room, &r);
    memcpy(data + at - LENGTH_BYTES, &len, sizeof len);
    memcpy(data + at + len, rest, behind);
    free(rest);
    return at + len + behind;
}
