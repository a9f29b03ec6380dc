#include <stdlib.h>
#include <sys/mman.h>

#include "saf/core.h"

/* A header of one cache line in front of every block tells how it was obtained. */
enum { HEADER_BYTES = 64, MMAP_THRESHOLD = 1 << 20 };

typedef struct {
    char *block;
    size_t mapped_bytes; /* 0: from aligned_alloc */
} block_header;

static void put_header(char *user, char *block, size_t mapped_bytes) {
    *(block_header *)(user - HEADER_BYTES) = (block_header){block, mapped_bytes};
}

static char *map(size_t bytes) {
    char *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}

saf_status saf_alloc(size_t count, size_t size, void *out) {
    size_t bytes, total;
    if (!saf_size_mul(count, size, &bytes) || !saf_size_add(bytes, HEADER_BYTES + 63, &total))
        return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu elements of %zu bytes", count, size);
    total &= ~(size_t)63;
    char *block;
    if (total >= MMAP_THRESHOLD) {
        block = map(total);
    } else {
        block = aligned_alloc(64, total);
        if (block) memset(block, 0, total);
    }
    if (!block) return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu bytes", bytes);
    char *user = block + HEADER_BYTES;
    put_header(user, block, total >= MMAP_THRESHOLD ? total : 0);
    memcpy(out, &user, sizeof user);
    return SAF_OK;
}

saf_status saf_alloc_huge(size_t bytes, void *out) {
    size_t total;
    char *block = NULL;
    if (saf_size_add(bytes, HEADER_BYTES + SAF_HUGE_PAGE, &total)) block = map(total);
    if (!block) return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu bytes", bytes);
    char *user = block + HEADER_BYTES;
    user += (SAF_HUGE_PAGE - (uintptr_t)user % SAF_HUGE_PAGE) % SAF_HUGE_PAGE;
    put_header(user, block, total);
    if (bytes > 0) (void)madvise(user, bytes, MADV_HUGEPAGE); /* only advice */
    memcpy(out, &user, sizeof user);
    return SAF_OK;
}

saf_status saf_alloc_large(size_t count, size_t size, void *out) {
    size_t bytes;
    return saf_size_mul(count, size, &bytes) && bytes >= SAF_HUGE_PAGE
               ? saf_alloc_huge(bytes, out)
               : saf_alloc(count, size, out);
}

saf_status saf_memory_spare(size_t bytes, const char *what_for) {
    char *block = map(bytes);
    if (!block) return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu bytes for %s", bytes, what_for);
    munmap(block, bytes);
    return SAF_OK;
}

void saf_free(void *pointer_to_pointer) {
    char *user;
    memcpy(&user, pointer_to_pointer, sizeof user);
    if (!user) return;
    block_header header = *(block_header *)(user - HEADER_BYTES);
    if (header.mapped_bytes)
        munmap(header.block, header.mapped_bytes);
    else
        free(header.block);
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
