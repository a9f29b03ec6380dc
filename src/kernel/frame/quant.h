/* quant.h: quantised products around an instruction set's kernels (see lanes.h for what a frame
 * is).
 *
 * One token reads the packed planes as they are: it is bound by memory; so do a few where memory
 * is read in order (dot_few of kernels.h). More tokens have a panel of blocks unpacked into codes
 * of a byte (the "wide" form: the same supers with planes of 1024 bytes), which stays in the first-
 * level cache while all tokens pass; y holds the sums between panels. An instruction set unpacks a
 * panel beforehand, or while the first tile of tokens is multiplied with it. Q8_0 is wide already.
 */
#ifndef SAF_KERNEL_FRAME_QUANT_H
#define SAF_KERNEL_FRAME_QUANT_H

#include "kernel/frame/inline.h"
#include "kernel/kernels.h"

enum {
    WIDE_PLANE = SAF__GROUPS * SAF__GROUP_BYTES,
    HEADER_BYTES = 64,    /* of a super's scales, and of its minimums */
    META_BYTES = 64,      /* of a block of the types that have any */
    READY_BYTES = 4 * 64, /* of a wide block whose scales and minimums are ready for use */
    PANEL_BLOCKS = 16,
    PREFETCH_BYTES = 1024,
};

/* Blocks of one tile of weights and one tile of tokens. */
typedef struct {
    const uint8_t *super;
    int64_t supers;
    const int8_t *q;
    const float *dx;
    const int32_t *sums;
    const float *u;
    const char *next; /* what comes after this panel in memory, and how many cache lines of it */
    int next_lines;   /* to ask for with every block */
    int ahead;        /* bytes that packed planes are asked for ahead */
    int offset;       /* of the codes */
    bool first;       /* the sums begin at 0, not at y */
    uint8_t *wide;    /* where a kernel that unpacks leaves the wide form */
} panel;

/* y[t, 0 .. rows) += the panel's part, for as many tokens as the kernel is made for. */
typedef void (*panel_kernel)(const panel *p, int rows, float *y, int64_t ldy);

typedef struct {
    panel_kernel one;         /* one token, from the packed planes */
    const panel_kernel *wide; /* [tokens - 1], from the wide form */
    /* [tokens - 1], from the packed planes, which they leave in the wide form. NULL: `unpack`. */
    const panel_kernel *first;
    int wide_offset;
    /* A super into its wide form; returns the place after that. NULL, as `first`: packed is wide.
     */
    uint8_t *(*unpack)(const saf__form *form, const uint8_t *super, uint8_t *wide);
} quant_type;

/* Defines `name`, the table of kernels for so many tokens, and these by the caller's macro
 * kernel(name, tokens, ...). */
#define SAF__TOKEN_KERNELS(kernel, name, ...)                                                    \
    kernel(name##_1, 1, __VA_ARGS__) kernel(name##_2, 2, __VA_ARGS__)                            \
        kernel(name##_3, 3, __VA_ARGS__) kernel(name##_4, 4, __VA_ARGS__)                        \
            kernel(name##_5, 5, __VA_ARGS__) static const panel_kernel name[SAF__ACT_TOKENS] = { \
                name##_1, name##_2, name##_3, name##_4, name##_5};
/* Defines `name`, which unpacks a super by the caller's unpack(..., block, codes). What is not
 * codes stays as it is; it is copied by constant sizes, a few instructions each. */
#define SAF__UNPACK(name, ...)                                                              \
    static uint8_t *name(const saf__form *form, const uint8_t *super, uint8_t *wide) {      \
        memcpy(wide, super, HEADER_BYTES);                                                  \
        if (form->has_min) memcpy(wide + HEADER_BYTES, super + HEADER_BYTES, HEADER_BYTES); \
        super += form->header_bytes;                                                        \
        wide += form->header_bytes;                                                         \
        for (int b = 0; b < form->blocks; b++) {                                            \
            unpack(__VA_ARGS__, super, wide);                                               \
            wide += WIDE_PLANE;                                                             \
            if (form->meta != SAF__META_NONE) {                                             \
                memcpy(wide, super + form->plane_bytes, META_BYTES);                        \
                wide += META_BYTES;                                                         \
            }                                                                               \
            super += form->block_bytes;                                                     \
        }                                                                                   \
        return wide;                                                                        \
    }

/* dx times the sum of q over half h of the block's columns. */
SAF__INLINE float half_sum(const panel *p, int t, const int h) {
    int32_t sums = p->sums[t];
    return p->dx[t] * (float)(h == 0 ? (int16_t)sums : sums >> 16);
}

SAF__INLINE void prefetch_lines(const uint8_t *from, const int bytes) {
    SAF__UNROLL for (int i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

/* A single pass over weights from memory: unpacking keeps the processor from running far enough
 * ahead of its loads by itself. Into the second level of cache. Prefetching past the end of the
 * weights is harmless. */
SAF__INLINE void prefetch_ahead(const uint8_t *at, const int bytes) {
    prefetch_lines(at + PREFETCH_BYTES, bytes);
}

/* The panel that follows comes in while this one is computed. */
SAF__INLINE void prefetch_next(panel *p) {
    for (int i = 0; i < p->next_lines; i++, p->next += 64) __builtin_prefetch(p->next, 0, 2);
}

/* All tokens over n blocks from b0; `ahead` bytes of weights after them come in meanwhile. */
static void dot_tokens(const quant_type *type, panel *p, const saf__acts_view *a, int64_t b0,
                       int64_t n_blocks, int64_t ahead, int rows, float *y, int64_t ldy) {
    int64_t passes = saf_ceil_div(a->tokens, a->tile);
    int64_t lines = saf_ceil_div(ahead, 64);
    p->next_lines = (int)saf_ceil_div(lines, passes * n_blocks);
    for (int64_t t = 0; t < a->tokens; t += a->tile) {
        int64_t n = saf__act_tile_tokens(a, t), at = t * a->blocks + b0 * n;
        const bool unpacks = type->first && t == 0;
        p->q = a->q + at * SAF_QUANT_BLOCK;
        p->dx = a->dx + at;
        p->sums = a->sums + at;
        p->u = a->u + at;
        (unpacks ? type->first : type->wide)[n - 1](p, rows, y + t * ldy, ldy);
        if (unpacks) p->super = p->wide;
        p->next += p->next_lines * n_blocks * 64;
        lines -= p->next_lines * n_blocks;
        if (lines <= 0) p->next_lines = 0;
    }
}

/* All blocks of a packed tile; the first tile of tokens. */
SAF__INLINE panel packed_panel(const saf__form *form, const uint8_t *tile,
                               const saf__acts_view *a) {
    return (panel){.super = tile,
                   .supers = a->blocks / form->blocks,
                   .q = a->q,
                   .dx = a->dx,
                   .sums = a->sums,
                   .u = a->u,
                   .ahead = saf__kernels_get()->stream_ahead,
                   .offset = form->offset,
                   .first = true};
}

static void frame_dot_quant(const quant_type *type, const saf__form *form, const uint8_t *tile,
                            const saf__acts_view *a, int rows, float *y, int64_t ldy) {
    uint8_t wide[PANEL_BLOCKS * (WIDE_PLANE + READY_BYTES)] __attribute__((aligned(64)));
    panel p = packed_panel(form, tile, a);
    if (a->tokens == 1) {
        type->one(&p, rows, y, ldy);
        return;
    }
    p.offset = type->wide_offset;
    p.wide = wide;
    if (!type->unpack && !type->first && a->tokens <= a->tile) {
        /* nothing to keep for other tokens */
        p.next = (const char *)tile + PREFETCH_BYTES;
        dot_tokens(type, &p, a, 0, a->blocks, p.supers * form->super_bytes, rows, y, ldy);
        return;
    }
    for (int64_t b = 0; b < a->blocks; b += PANEL_BLOCKS) {
        int64_t blocks = saf_i64_min(PANEL_BLOCKS, a->blocks - b);
        p.supers = blocks / form->blocks;
        p.super = tile + (size_t)(b / form->blocks) * (size_t)form->super_bytes;
        p.next = (const char *)p.super + p.supers * form->super_bytes;
        p.first = b == 0;
        if (type->unpack) {
            uint8_t *to = wide;
            for (int64_t i = 0; i < p.supers; i++, p.super += form->super_bytes)
                to = type->unpack(form, p.super, to);
            p.super = wide;
        }
        int64_t later = b + blocks < a->blocks ? a->blocks - b - blocks : a->blocks;
        later = saf_i64_min(PANEL_BLOCKS, later) / form->blocks * form->super_bytes;
        dot_tokens(type, &p, a, b, blocks, later, rows, y, ldy);
    }
}

#endif
