/* Packed weights as the tiles take them: signed bytes. */
#include "kernel/amx/unpack.h"

/* Block b of a super. */
typedef void (*unpack_function)(const uint8_t *super, const uint8_t *block, saf__amx_block *first,
                                saf__amx_block *second);
#define UNPACK(name, ...)                                                               \
    static void name(const uint8_t *super, const uint8_t *block, saf__amx_block *first, \
                     saf__amx_block *second) {                                          \
        const variant v = {__VA_ARGS__};                                                \
        unpack_rows(v, super, block, 0, first);                                         \
        unpack_rows(v, super, block, 1, second);                                        \
    }
UNPACK(unpack_q8_0, VARIANT_Q8_0)
UNPACK(unpack_q4_0, VARIANT_Q4_0)
UNPACK(unpack_q4_1, VARIANT_Q4_1)
UNPACK(unpack_q5_0, VARIANT_Q5_0)
UNPACK(unpack_q5_1, VARIANT_Q5_1)
UNPACK(unpack_q2_k, VARIANT_Q2_K)
UNPACK(unpack_q3_k, VARIANT_Q3_K)
UNPACK(unpack_q4_k, VARIANT_Q4_K)
UNPACK(unpack_q5_k, VARIANT_Q5_K)
UNPACK(unpack_q6_k, VARIANT_Q6_K)

static const unpack_function unpack[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = unpack_q8_0, [SAF_DTYPE_Q4_0] = unpack_q4_0, [SAF_DTYPE_Q4_1] = unpack_q4_1,
    [SAF_DTYPE_Q5_0] = unpack_q5_0, [SAF_DTYPE_Q5_1] = unpack_q5_1, [SAF_DTYPE_Q2_K] = unpack_q2_k,
    [SAF_DTYPE_Q3_K] = unpack_q3_k, [SAF_DTYPE_Q4_K] = unpack_q4_k, [SAF_DTYPE_Q5_K] = unpack_q5_k,
    [SAF_DTYPE_Q6_K] = unpack_q6_k};

void saf__amx_unpack(saf_dtype dtype, const uint8_t *super, int64_t n, uint8_t *first,
                     uint8_t *second) {
    const saf__form *form = saf__form_of(dtype);
    const size_t bytes = saf__amx_block_bytes(saf__amx_planes(dtype));
    for (int64_t b = 0; b < n; b += form->blocks, super += form->super_bytes)
        for (int i = 0; i < form->blocks; i++, first += bytes, second += bytes)
            unpack[dtype](super, super + form->header_bytes + i * form->block_bytes,
                          (saf__amx_block *)first, (saf__amx_block *)second);
}
