/* What the fuzz targets share. A target is one file fuzz_NAME.c that reads bytes the way saf reads
 * them from outside; README.md says how to add one. */
#ifndef SAF_TESTS_FUZZ_H
#define SAF_TESTS_FUZZ_H

#include "saf/core.h"

/* libFuzzer's side of a target. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* From here to fuzz_end, more than a second of processor time is a crash, and so is memory that is
 * held beyond 4 times file_bytes and 64 MiB.
 * Counted are the bytes asked of malloc, and of mmap by saf itself, whether touched or not. */
void fuzz_begin(size_t file_bytes);
void fuzz_end(void);

/* The bytes as a file of this name in a folder of the process, as the path that opens it. What the
 * name was used for before is gone. */
const char *fuzz_file(const char *name, const void *bytes, size_t len);

/* A broken promise is a crash, as a broken pointer is. */
#define FUZZ_CHECK(condition)                                          \
    do {                                                               \
        if (!(condition)) fuzz_broken(__FILE__, __LINE__, #condition); \
    } while (0)
_Noreturn void fuzz_broken(const char *file, int line, const char *what);

/* What came of reading hostile bytes: `refused` (with a message that a terminal can show), or
 * SAF_OK, and nothing else. True for SAF_OK. */
bool fuzz_accepted(saf_status st, saf_status refused);

/* Numbers for mutators, from libFuzzer's seed. */
typedef struct {
    uint64_t state;
} fuzz_random;
uint32_t fuzz_below(fuzz_random *r, uint32_t n); /* [0, n); 0 for n 0 */

/* Changes one GGUF file in place, knowing its fields; returns its new size. */
size_t fuzz_gguf_mutate(uint8_t *data, size_t size, size_t max_size, fuzz_random *r);

#endif
