/* unpack.h: a block of packed weights as the tiles take it: signed bytes, and scales for the lanes.
 */
#ifndef SAF_KERNEL_AMX_UNPACK_H
#define SAF_KERNEL_AMX_UNPACK_H

#include "kernel/amx/amx.h"
#include "kernel/avx512/codes.h"

/* What a type's blocks hold. */
typedef struct {
    int bits;   /* of a code */
    int offset; /* w = code - offset */
    saf__meta meta;
    bool has_min;
} variant;
#define VARIANT_Q8_0 8, 128, SAF__META_NONE, false
#define VARIANT_Q4_0 4, 8, SAF__META_NONE, false
#define VARIANT_Q4_1 4, 0, SAF__META_NONE, true
#define VARIANT_Q5_0 5, 16, SAF__META_NONE, false
#define VARIANT_Q5_1 5, 0, SAF__META_NONE, true
#define VARIANT_Q2_K 2, 0, SAF__META_NIBBLES, true
#define VARIANT_Q3_K 3, 4, SAF__META_HALVES, false
#define VARIANT_Q4_K 4, 0, SAF__META_BLOCK, true
#define VARIANT_Q5_K 5, 0, SAF__META_BLOCK, true
#define VARIANT_Q6_K 6, 32, SAF__META_HALVES, false

/* Group g of codes times the scales of its half, which are two words of each row's lane. Q2_K: at
 * most 3 * 15. Q3_K: within [-124, 128], of which the negative is kept, and d is made negative too.
 * Q6_K: up to fourteen bits: what is left when a multiple of 64 is taken away, and this multiple in
 * the second plane. */
SAF__INLINE void store_scaled(const variant V, __m512i x, __m512i scale, int8_t *to) {
    const __m512i offset = _mm512_set1_epi16((int16_t)V.offset), low = _mm512_set1_epi16(0xFF);
    __m512i w[2] = {_mm512_and_si512(x, low), _mm512_srli_epi16(x, 8)}, upper[2];
    for (int i = 0; i < 2; i++) {
        w[i] = V.bits == 3 ? _mm512_sub_epi16(offset, w[i]) : _mm512_sub_epi16(w[i], offset);
        w[i] = _mm512_mullo_epi16(w[i], scale);
        upper[i] = _mm512_srai_epi16(_mm512_add_epi16(w[i], _mm512_set1_epi16(32)), 6);
        if (V.bits == 6) w[i] = _mm512_sub_epi16(w[i], _mm512_slli_epi16(upper[i], 6));
    }
    _mm512_store_si512(to, bytes_of(w[0], w[1]));
    if (V.bits == 6) _mm512_store_si512(to + SAF__AMX_PLANE_BYTES, bytes_of(upper[0], upper[1]));
}

/* Sixteen rows of the block that lies at `block`; d[] and m[] of its super at `header`. */
SAF__INLINE void unpack_rows(const variant V, const uint8_t *header, const uint8_t *block,
                             const int rows, saf__amx_block *to) {
    const bool by_halves = V.meta == SAF__META_HALVES || V.meta == SAF__META_NIBBLES;
    const uint8_t *meta = block + V.bits * SAF__GROUP_BYTES + SAF__AMX_ROWS * rows;
    __m512i scale[2], min[2];
    for (int h = 0; h < 2 && by_halves; h++) {
        scale[h] = V.meta == SAF__META_HALVES ? signed_bytes(meta + 32 * h)
                                              : unsigned_bytes(meta + 32 * h);
        min[h] = _mm512_srli_epi32(scale[h], 4);
        if (V.meta == SAF__META_NIBBLES)
            scale[h] = _mm512_and_si512(scale[h], _mm512_set1_epi32(15));
        scale[h] = both_words(scale[h]);
    }
    SAF__UNROLL for (int g = 0; g < SAF__GROUPS; g++) {
        __m512i x = codes(V.bits, block, g, rows);
        int8_t *at = to->plane + g * 4 * SAF__AMX_ROWS;
        if (by_halves)
            store_scaled(V, x, scale[g / (SAF__GROUPS / 2)], at);
        else
            _mm512_store_si512(at, _mm512_sub_epi8(x, _mm512_set1_epi8((char)V.offset)));
    }
    __m512 d = halfs(header + 32 * rows), m = V.has_min ? halfs(header + 64 + 32 * rows) : d;
    if (V.meta == SAF__META_BLOCK) d = _mm512_mul_ps(d, _mm512_cvtepi32_ps(unsigned_bytes(meta)));
    if (V.bits == 3) d = _mm512_mul_ps(d, _mm512_set1_ps(-1));
    _mm512_store_ps(to->d, d);
    if (!V.has_min) return;
    if (V.meta == SAF__META_BLOCK)
        m = _mm512_mul_ps(m, _mm512_cvtepi32_ps(unsigned_bytes(meta + 32)));
    for (int h = 0; h < 2; h++)
        _mm512_store_ps(to->m[h], by_halves ? _mm512_mul_ps(m, _mm512_cvtepi32_ps(min[h])) : m);
}

#endif
