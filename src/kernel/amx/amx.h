/* amx.h: what the AMX folder is made of: amx.c the products of many tokens, few.c those of a single
 * tile of them, unpack.c the weights. Their activations are avx512/quantise.c's. */
#ifndef SAF_KERNEL_AMX_AMX_H
#define SAF_KERNEL_AMX_AMX_H

#include "kernel/kernels.h"

enum {
    SAF__AMX_ROWS = 16,  /* of a product: half a tile of weights */
    SAF__AMX_PANEL = 16, /* blocks that are unpacked together, at most */
    SAF__AMX_PLANE_BYTES = SAF_QUANT_BLOCK * SAF__AMX_ROWS
};

/* A block of sixteen rows, for the tiles: bytes of four columns of each row side by side, and for
 * the lanes: scales. Weights of more than eight bits are 64 times those of a second plane, which
 * follows the first, plus those of the first. */
typedef struct {
    float d[SAF__AMX_ROWS];    /* times the scale of the block, where it has one */
    float m[2][SAF__AMX_ROWS]; /* times the minimum of the block, or of each half */
    int8_t plane[SAF__AMX_PLANE_BYTES];
} saf__amx_block;

static inline int saf__amx_planes(saf_dtype dtype) {
    return dtype == SAF_DTYPE_Q6_K ? 2 : 1;
}
static inline size_t saf__amx_block_bytes(int planes) {
    return sizeof(saf__amx_block) + (size_t)(planes - 1) * SAF__AMX_PLANE_BYTES;
}

/* n blocks of a packed tile, which begin at `super`: rows 0 to 15 to `first`, 16 to 31 to `second`.
 */
void saf__amx_unpack(saf_dtype dtype, const uint8_t *super, int64_t n, uint8_t *first,
                     uint8_t *second);

/* dot_quant for a single tile of tokens, the tiles' configuration loaded. */
void saf__amx_dot_few(saf_dtype dtype, const uint8_t *tile, const saf__acts_view *a, int rows,
                      float *y, int64_t ldy);

#endif
