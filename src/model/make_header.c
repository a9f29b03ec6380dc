/* What the headers of all models that saf writes have in common. */
#include "model/make.h"

/* general.file_type as other programs number it; it only informs. */
static uint32_t file_type(saf_dtype dtype) {
    static const uint8_t numbers[SAF_DTYPE_COUNT] = {
        [SAF_DTYPE_F32] = 0,   [SAF_DTYPE_F16] = 1,   [SAF_DTYPE_Q4_0] = 2,  [SAF_DTYPE_Q4_1] = 3,
        [SAF_DTYPE_Q8_0] = 7,  [SAF_DTYPE_Q5_0] = 8,  [SAF_DTYPE_Q5_1] = 9,  [SAF_DTYPE_Q2_K] = 10,
        [SAF_DTYPE_Q3_K] = 12, [SAF_DTYPE_Q4_K] = 14, [SAF_DTYPE_Q5_K] = 16, [SAF_DTYPE_Q6_K] = 18,
        [SAF_DTYPE_BF16] = 32,
    };
    return numbers[dtype];
}

saf_status saf__write_general(saf_gguf_writer *w, const char *arch, const char *name,
                              saf_dtype dtype) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_gguf_write_string(w, "general.architecture", arch));
    SAF_TRY(saf_gguf_write_string(w, "general.type", "model"));
    SAF_TRY(saf_gguf_write_string(w, "general.name", name));
    SAF_TRY(saf_gguf_write_u32(w, "general.file_type", file_type(dtype)));
    SAF_TRY(saf_gguf_write_u32(w, "general.quantization_version", 2));
out:
    return st;
}

saf_status saf__write_arch(saf_gguf_writer *w, const saf_model_params *p, double rope_base) {
    saf_status st = SAF_OK;
    char key[SAF__KEY_BYTES];
    const saf__arch_keys k = {NULL, saf_arch_name(p->arch)};
    const struct {
        const char *suffix;
        int64_t value;
    } integers[] = {
        {"block_count", p->layers},
        {"context_length", p->context},
        {"embedding_length", p->width},
        {"feed_forward_length", p->ff_width},
        {"attention.head_count", p->heads},
        {"attention.head_count_kv", p->kv_heads},
        {"attention.key_length", p->head_width},
        {"attention.value_length", p->head_width},
        {"rope.dimension_count", p->head_width},
        {"vocab_size", p->vocab},
    };
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        saf__arch_key(&k, integers[i].suffix, key);
        SAF_TRY(saf_gguf_write_int(w, key, SAF_GGUF_U32, integers[i].value));
    }
    saf__arch_key(&k, "attention.layer_norm_rms_epsilon", key);
    SAF_TRY(saf_gguf_write_f32(w, key, p->norm_eps));
    saf__arch_key(&k, "rope.freq_base", key);
    SAF_TRY(saf_gguf_write_f32(w, key, (float)rope_base));
out:
    return st;
}

saf_dtype saf__type_of(saf_dtype wanted, int64_t cols, int64_t rows) {
    if (rows == 0) return SAF_DTYPE_F32;
    if (cols % saf_dtype_block(wanted) == 0) return wanted;
    return cols % saf_dtype_block(SAF_DTYPE_Q8_0) == 0 ? SAF_DTYPE_Q8_0 : SAF_DTYPE_F16;
}
