#include <strings.h>

#include "saf/core.h"

static const struct {
    const char *name;
    int block, block_bytes, gguf;
} dtypes[SAF_DTYPE_COUNT] = {
#define X(name, block, bytes, gguf) {#name, block, bytes, gguf},
    SAF_DTYPE_LIST(X)
#undef X
};

const char *saf_dtype_name(saf_dtype dtype) {
    return dtypes[dtype].name;
}
int saf_dtype_block(saf_dtype dtype) {
    return dtypes[dtype].block;
}
int saf_dtype_block_bytes(saf_dtype dtype) {
    return dtypes[dtype].block_bytes;
}
bool saf_dtype_is_quantised(saf_dtype dtype) {
    return dtypes[dtype].block > 1;
}
int saf_dtype_to_gguf(saf_dtype dtype) {
    return dtypes[dtype].gguf;
}

bool saf_dtype_bytes(saf_dtype dtype, int64_t elements, size_t *out) {
    int block = dtypes[dtype].block;
    if (elements < 0 || elements % block != 0) return false;
    return saf_size_mul((size_t)(elements / block), (size_t)dtypes[dtype].block_bytes, out);
}

bool saf_dtype_from_gguf(uint32_t number, saf_dtype *out) {
    for (int i = 0; i < SAF_DTYPE_COUNT; i++) {
        if (dtypes[i].gguf >= 0 && (uint32_t)dtypes[i].gguf == number) {
            *out = (saf_dtype)i;
            return true;
        }
    }
    return false;
}

bool saf_dtype_from_name(const char *name, saf_dtype *out) {
    for (int i = 0; i < SAF_DTYPE_COUNT; i++) {
        if (strcasecmp(dtypes[i].name, name) == 0) {
            *out = (saf_dtype)i;
            return true;
        }
    }
    return false;
}

/* Source: IEEE 754-2019 binary16. */
float saf_f32_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 0x1F, fraction = h & 0x3FF;
    if (exponent == 0x1F) return saf_f32_from_bits(sign | 0x7F800000 | fraction << 13);
    if (exponent == 0) { /* zero or denormal: fraction * 2^-24, exact */
        float f = (float)fraction * 0x1p-24f;
        return saf_f32_from_bits(sign | saf_f32_to_bits(f));
    }
    return saf_f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t saf_f16_from_f32(float f) {
    uint32_t u = saf_f32_to_bits(f);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7FFFFFFF;
    if (u > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (u >> 13 & 0x1FF)); /* quiet NaN */
    if (u >= 0x477FF000) return sign | 0x7C00; /* 65520 and above round to infinity */
    if (u < 0x38800000) { /* below 2^-14: a multiple of 2^-24, rounded by the addition */
        float r = saf_f32_from_bits(u) + 0.5f;
        return (uint16_t)(sign | (saf_f32_to_bits(r) - 0x3F000000));
    }
    uint32_t rounded = u + 0xFFF + (u >> 13 & 1) - (112u << 23);
    return (uint16_t)(sign | rounded >> 13);
}

uint16_t saf_bf16_from_f32(float f) {
    uint32_t u = saf_f32_to_bits(f);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}
