#include <stdlib.h>
#include <sys/mman.h>

#include "saf/core.h"

/* A header of one cache line in front of every block tells how it was obtained. */
enum { HEADER_BYTES = 64, MMAP_THRESHOLD = 1 << 20 };

typedef struct {
    size_t mapped_bytes; /* 0: from aligned_alloc */
} block_header;

saf_status saf_alloc(size_t count, size_t size, void *out) {
    size_t bytes, total;
    if (!saf_size_mul(count, size, &bytes) || !saf_size_add(bytes, HEADER_BYTES + 63, &total))
        return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu elements of %zu bytes", count, size);
    total &= ~(size_t)63;
    char *block;
    if (total >= MMAP_THRESHOLD) {
        block = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) block = NULL;
    } else {
        block = aligned_alloc(64, total);
        if (block) memset(block, 0, total);
    }
    if (!block) return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu bytes", bytes);
    ((block_header *)block)->mapped_bytes = total >= MMAP_THRESHOLD ? total : 0;
    char *user = block + HEADER_BYTES;
    memcpy(out, &user, sizeof user);
    return SAF_OK;
}

void saf_free(void *pointer_to_pointer) {
    char *user;
    memcpy(&user, pointer_to_pointer, sizeof user);
    if (!user) return;
    char *block = user - HEADER_BYTES;
    size_t mapped = ((block_header *)block)->mapped_bytes;
    if (mapped)
        munmap(block, mapped);
    else
        free(block);
    user = NULL;
    memcpy(pointer_to_pointer, &user, sizeof user);
}

saf_status saf_strdup(const char *text, char **out) {
    size_t len = strlen(text) + 1;
    char *copy = NULL;
    saf_status st = saf_alloc(len, 1, &copy);
    if (st != SAF_OK) return st;
    memcpy(copy, text, len);
    *out = copy;
    return SAF_OK;
}
