/* Between the files that write models. */
#ifndef SAF_MODEL_MAKE_H
#define SAF_MODEL_MAKE_H

#include "model/params.h"

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

/* make_header.c: the general.* keys; those of the architecture (dimensions, norm_eps and vocab of p
 * are read). */
saf_status saf__write_general(saf_gguf_writer *w, const char *arch, const char *name,
                              saf_dtype dtype);
saf_status saf__write_arch(saf_gguf_writer *w, const saf_model_params *p, double rope_base);
/* The type of a tensor where `wanted` is that of the matrices: another one where rows are no
 * multiple of its block; F32 for vectors. */
saf_dtype saf__type_of(saf_dtype wanted, int64_t cols, int64_t rows);

#endif
