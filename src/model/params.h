/* Between the files that read a model's keys and check its tensors. */
#ifndef SAF_MODEL_PARAMS_H
#define SAF_MODEL_PARAMS_H

#include "saf/model.h"

enum { SAF__KEY_BYTES = 128 };

/* A file and the name of its architecture, which begins most keys. */
typedef struct {
    const saf_gguf *g;
    const char *arch;
} saf__arch_keys;

/* "ARCH.suffix" */
void saf__arch_key(const saf__arch_keys *k, const char *suffix, char out[SAF__KEY_BYTES]);
/* ARCH.suffix within [min, max]; an array whose values are all equal stands for its value.
 * *found false leaves *out; `found` NULL makes the key necessary. */
saf_status saf__arch_int(const saf__arch_keys *k, const char *suffix, int64_t min, int64_t max,
                         bool *found, int64_t *out);
/* A finite number within [min, max], likewise. */
saf_status saf__arch_float(const saf__arch_keys *k, const char *suffix, double min, double max,
                           bool *found, double *out);

/* Fills rope_half, rope_scale and inv_freq (owned by p) from the rope.* keys and the tensor
 * rope_freqs.weight; needs head_width and context. */
saf_status saf__rope_read(const saf__arch_keys *k, saf_model_params *p);

/* Checks that every tensor of the architecture is there, with its shape and a supported type, and
 * no other; sets qkv_bias and tied. Needs all dimensions. */
saf_status saf__tensors_check(const saf_gguf *g, saf_model_params *p);

/* Calls `visit` for each tensor of a model with these parameters (arch, dimensions, tied, qkv_bias
 * and qk_norm are read), in the order of a file. rows 0: a vector. */
typedef saf_status (*saf__tensor_visit)(void *user, const char *name, int64_t cols, int64_t rows);
saf_status saf__tensors_each(const saf_model_params *p, saf__tensor_visit visit, void *user);

#endif
