/* codes.h: packed blocks in registers of AVX-512: their codes, scales and small numbers. */
#ifndef SAF_KERNEL_AVX512_CODES_H
#define SAF_KERNEL_AVX512_CODES_H

#include <immintrin.h>

#include "kernel/frame/inline.h"
#include "kernel/kernels.h"

/* Bit `from` and up of every byte moved to bit `to`; bits of neighbours come along. */
SAF__INLINE __m512i shifted(__m512i x, const int from, const int to) {
    if (from > to) return _mm512_srli_epi16(x, (unsigned)(from > to ? from - to : 0));
    if (from < to) return _mm512_slli_epi16(x, (unsigned)(from < to ? to - from : 0));
    return x;
}
SAF__INLINE __m512i masked(__m512i x, const int mask) {
    return _mm512_and_si512(x, _mm512_set1_epi8((char)mask));
}
/* low | (high & mask) */
SAF__INLINE __m512i joined(__m512i low, __m512i high, const int mask) {
    return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8((char)mask), 0xF8);
}
/* Sixteen rows (half 0 or 1) of one plane's 128 bytes. */
SAF__INLINE __m512i plane_load(const uint8_t *plane, int part, int half) {
    return _mm512_loadu_si512(plane + part * SAF__GROUP_BYTES + half * 64);
}

/* The codes of group g. */
SAF__INLINE __m512i codes(const int bits, const uint8_t *block, const int g, const int half) {
    if (bits == 8) return plane_load(block, g, half);
    if (bits >= 4) {
        __m512i low = masked(shifted(plane_load(block, g % 4, half), g < 4 ? 0 : 4, 0), 0x0F);
        if (bits == 5) return joined(low, shifted(plane_load(block + 512, 0, half), g, 4), 0x10);
        if (bits == 6)
            return joined(low, shifted(plane_load(block + 512, g / 4, half), g % 4 * 2, 4), 0x30);
        return low;
    }
    __m512i low = masked(shifted(plane_load(block, g / 4, half), g % 4 * 2, 0), 0x03);
    if (bits == 3) return joined(low, shifted(plane_load(block + 256, 0, half), g, 2), 0x04);
    return low;
}

/* Sixteen bytes as f32, as int32. */
SAF__INLINE __m512i unsigned_bytes(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
SAF__INLINE __m512i signed_bytes(const uint8_t *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
SAF__INLINE __m512 halfs(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
SAF__INLINE __m512i broadcast4(const void *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

/* A lane's number in both of its words. */
SAF__INLINE __m512i both_words(__m512i x) {
    return _mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi32(0xFFFF)),
                           _mm512_slli_epi32(x, 16));
}
/* The low bytes of words: those of `even` and `odd` by turns. */
SAF__INLINE __m512i bytes_of(__m512i even, __m512i odd) {
    return _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAA, even, _mm512_slli_epi16(odd, 8));
}
/* Every byte of a lane times that lane's scale, modulo 256. */
SAF__INLINE __m512i scaled_bytes(__m512i x, __m512i scale) {
    __m512i twice = both_words(scale);
    return bytes_of(_mm512_mullo_epi16(x, twice),
                    _mm512_mullo_epi16(_mm512_srli_epi16(x, 8), twice));
}

enum { Q3_K_WIDE_OFFSET = 124 }; /* scale * w is in [-124, 128] */

SAF__INLINE __m512i scaled_codes(const int bits, __m512i x, const uint8_t *scales) {
    if (bits == 2) /* at most 3 * 15 */
        return scaled_bytes(x, _mm512_and_si512(unsigned_bytes(scales), _mm512_set1_epi32(15)));
    __m512i w = _mm512_sub_epi8(x, _mm512_set1_epi8(4));
    return _mm512_add_epi8(scaled_bytes(w, signed_bytes(scales)),
                           _mm512_set1_epi8(Q3_K_WIDE_OFFSET));
}

#endif
