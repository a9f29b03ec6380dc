/* Between the files that make a model with synthetic weights. */
#ifndef SAF_MODEL_MAKE_H
#define SAF_MODEL_MAKE_H

#include "saf/model.h"

/* The values of one tensor: independent, with this mean and standard deviation. */
typedef struct {
    saf_dtype dtype;
    double mean, std; /* quantised types: mean 0 */
    uint64_t seed, tensor;
} saf__synthetic;

bool saf__synthetic_supports(saf_dtype dtype);
/* Writes the tensor's bytes for elements [first, first + n), both multiples of SAF__UNIT unless the
 * tensor ends there. Uses all threads; the bytes depend on the arguments alone. */
enum { SAF__UNIT = 256 };
void saf__synthetic_fill(const saf__synthetic *s, int64_t first, int64_t n, void *out);

/* `tokenizer.ggml.token_type` of tokens that saf makes. */
enum { SAF__VOCAB_NORMAL = 1, SAF__VOCAB_CONTROL = 3, SAF__VOCAB_UNUSED = 5 };
/* The character that stands for a byte in byte-level vocabularies. */
uint32_t saf__char_of_byte(int byte);
/* Writes the tokenizer.* keys: those of the file, or a built-in vocabulary where `path` is NULL;
 * padded up to `size` (0: as it is). *vocab is the number of tokens. */
saf_status saf__make_vocab(saf_gguf_writer *w, const char *path, int64_t size, int64_t *vocab);

#endif
