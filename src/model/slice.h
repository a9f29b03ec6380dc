/* What a loaded slice looks like inside the model room. Of every matrix, and of the biases, it has
 * the rows of its part, counted from the part's first; there may be none. */
#ifndef SAF_MODEL_SLICE_H
#define SAF_MODEL_SLICE_H

#include "saf/model.h"

typedef struct {
    float *attn_norm, *ffn_norm;     /* [D] */
    float *q_norm, *k_norm;          /* [C], NULL without qk_norm */
    float *q_bias, *k_bias, *v_bias; /* NULL where the file has none */
    saf_weight q, k, v;              /* [H*C, D], [HKV*C, D] twice */
    saf_weight o;                    /* [D, H*C] */
    saf_weight gate, up, down;       /* [F, D] twice, [D, F] */
} saf__layer;

struct saf_slice {
    const saf_model_params *params;
    saf_slice_range range;
    saf__layer *layers; /* [layer1 - layer0] */
    saf_weight
        embedding;      /* [V, D]; data NULL unless it is the first stage (or tied and the last) */
    saf_weight head;    /* [V, D]; data NULL when tied: then the embedding serves */
    float *output_norm; /* [D] on the last stage */
    char *matrices;     /* the data of all matrices, in the order of use */
    size_t memory_bytes;
};

/* The tensors of a range, in the order of use. Those of which the part has nothing are there as
 * well, with 0 rows. */
typedef struct {
    const saf_gguf_tensor *t;
    int32_t role;
    int64_t layer;      /* from the range's first */
    int64_t rows, cols; /* that the part has; a vector is one row */
    size_t offset;      /* of the part's first row, in the tensor */
    size_t row_bytes;
} saf__slice_tensor;
typedef struct {
    saf__slice_tensor *items; /* to be released by saf_free */
    int64_t n;
} saf__slice_list;
saf_status saf__slice_list_make(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                                saf__slice_list *out);
bool saf__slice_is_matrix(const saf__slice_tensor *x);
/* Where a tensor of a slice goes: one of the two, the other is NULL. */
void saf__slice_target(saf_slice *s, const saf__slice_tensor *x, saf_weight **w, float ***v);
void saf__slice_free_vectors(saf_slice *s);

/* The matrix that turns a hidden row into logits. */
const saf_weight *saf__slice_head(const saf_slice *s);

/* K and V of one layer of one slot, as saf_attn_seq wants them. layer counts from the range's
 * first. */
void saf__kv_cache_layer(const saf_kv_cache *kv, int64_t slot, int64_t layer, void **k, void **v);
size_t saf__kv_cache_stride(const saf_kv_cache *kv);
int64_t saf__kv_cache_capacity(const saf_kv_cache *kv);
saf_kv_type saf__kv_cache_type(const saf_kv_cache *kv);

#endif
