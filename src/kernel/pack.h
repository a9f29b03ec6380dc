/* pack.h: the one packed layout of weights, for every instruction set.
 *
 * A matrix [R, K] is ceil(R / 32) tiles of 32 rows, one after another; the rows after R are zero.
 * Lanes run over the rows of a tile, never along k.
 *
 * Float types. A tile is K columns of 32 elements: element (row i, column k) at k * 32 + i.
 *
 * Quantised types. A weight is an unsigned code, w = code - offset. A tile is a run of supers, of
 * 1 block (the types whose scale is a block's own) or 8 blocks (the K types) of 32 columns:
 *
 *   super   d[32] f16, one a row; m[32] f16 in types with a minimum; then the blocks.
 *           m is what multiplies the minimum: the file's m, or -dmin.
 *   block   planes with the codes, then the meta bytes
 *   planes  bits   bytes  the code of (row i, column 4g + j), with at = 4 i + j in [0, 128)
 *            8     1024   byte[128 g + at]
 *            4      512   low half of byte[128 g + at] for g < 4, high half of
 *                         byte[128 (g - 4) + at] for g >= 4
 *            2      256   bits 2 (g % 4) and up of byte[128 (g / 4) + at]
 *            1      128   bit g of byte[at]
 *           6, 5 and 3 bits are 4 + 2, 4 + 1 and 2 + 1: the low plane first, then the high bits.
 *   meta    NONE    nothing: scale 1; the minimum's factor, where there is one, is 1
 *           BLOCK   scale[32] u8, min[32] u8, for the block
 *           HALVES  scale[2][32] s8, for each half of 16 columns
 *           NIBBLES byte[2][32], for each half: scale in the low four bits, minimum in the high
 *
 * Bytes per 256 weights of a row, the file's in brackets: Q8_0 272 (272), Q4_0 144 (144), Q4_1 160
 * (160), Q5_0 176 (176), Q5_1 192 (192), Q2_K 84 (84), Q3_K 114 (110), Q4_K 148 (144), Q5_K 180
 * (176), Q6_K 210 (210).
 */
#ifndef SAF_KERNEL_PACK_H
#define SAF_KERNEL_PACK_H

#include "saf/kernel.h"

enum { SAF__GROUPS = 8, SAF__GROUP_BYTES = 4 * SAF_TILE_ROWS };

typedef enum { SAF__META_NONE, SAF__META_BLOCK, SAF__META_HALVES, SAF__META_NIBBLES } saf__meta;

/* How a quantised type is packed. */
typedef struct {
    int bits;   /* of a code: 8, 6, 5, 4, 3 or 2 */
    int offset; /* w = code - offset */
    saf__meta meta;
    bool has_min;
    int blocks; /* of 32 columns in a super */
    int header_bytes, plane_bytes, block_bytes, super_bytes;
} saf__form;

/* Whether the halves of a block have scales, and minimums, of their own. */
static inline bool saf__form_by_halves(const saf__form *form) {
    return form->meta == SAF__META_HALVES || form->meta == SAF__META_NIBBLES;
}
/* NULL for a type that is not quantised or has no kernels. */
const saf__form *saf__form_of(saf_dtype dtype);
/* Bytes of a tile of K columns; K is a multiple of the type's block. */
size_t saf__tile_bytes(saf_dtype dtype, int64_t cols);

/* One row's part of a block of 32 columns, as every quantised type decodes to it. */
typedef struct {
    uint8_t code[SAF_QUANT_BLOCK];
    uint16_t d, m; /* f16 */
    int16_t scale[2], min[2];
} saf__block;

/* Block `b` (of 32 columns, within its super) of the file's bytes of one super. */
void saf__block_decode(saf_dtype dtype, const uint8_t *raw, int b, saf__block *out);
/* Into and out of row i of block b of a packed super. */
void saf__block_put(const saf__form *form, uint8_t *super, int b, int i, const saf__block *in);
void saf__block_get(const saf__form *form, const uint8_t *super, int b, int i, saf__block *out);

#endif
