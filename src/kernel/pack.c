
#include "kernel/pack.h"

#define FORM(bits_, planes, offset_, meta_, meta_bytes, min, blocks_)                        \
    {                                                                                        \
        .bits = (bits_), .offset = (offset_), .meta = SAF__META_##meta_, .has_min = (min),   \
        .blocks = (blocks_), .header_bytes = 64 + ((min) ? 64 : 0), .plane_bytes = (planes), \
        .block_bytes = (planes) + (meta_bytes),                                              \
        .super_bytes = 64 + ((min) ? 64 : 0) + (blocks_) * ((planes) + (meta_bytes))         \
    }

static const saf__form forms[SAF_DTYPE_COUNT] = {
    [SAF_DTYPE_Q8_0] = FORM(8, 1024, 128, NONE, 0, false, 1),
    [SAF_DTYPE_Q4_0] = FORM(4, 512, 8, NONE, 0, false, 1),
    [SAF_DTYPE_Q4_1] = FORM(4, 512, 0, NONE, 0, true, 1),
    [SAF_DTYPE_Q5_0] = FORM(5, 640, 16, NONE, 0, false, 1),
    [SAF_DTYPE_Q5_1] = FORM(5, 640, 0, NONE, 0, true, 1),
    [SAF_DTYPE_Q2_K] = FORM(2, 256, 0, NIBBLES, 64, true, 8),
    [SAF_DTYPE_Q3_K] = FORM(3, 384, 4, HALVES, 64, false, 8),
    [SAF_DTYPE_Q4_K] = FORM(4, 512, 0, BLOCK, 64, true, 8),
    [SAF_DTYPE_Q5_K] = FORM(5, 640, 0, BLOCK, 64, true, 8),
    [SAF_DTYPE_Q6_K] = FORM(6, 768, 32, HALVES, 64, false, 8),
};

const saf__form *saf__form_of(saf_dtype dtype) {
    if ((unsigned)dtype >= SAF_DTYPE_COUNT || forms[dtype].bits == 0) return NULL;
    return &forms[dtype];
}

static bool is_float_type(saf_dtype dtype) {
    return dtype == SAF_DTYPE_F32 || dtype == SAF_DTYPE_F16 || dtype == SAF_DTYPE_BF16;
}

size_t saf__tile_bytes(saf_dtype dtype, int64_t cols) {
    const saf__form *form = saf__form_of(dtype);
    if (!form) return (size_t)cols * SAF_TILE_ROWS * (size_t)saf_dtype_block_bytes(dtype);
    return (size_t)(cols / (form->blocks * SAF_QUANT_BLOCK)) * (size_t)form->super_bytes;
}

saf_status saf_weight_plan(saf_dtype dtype, int64_t rows, int64_t cols, saf_weight *out) {
    if ((unsigned)dtype >= SAF_DTYPE_COUNT || (!is_float_type(dtype) && !saf__form_of(dtype)))
        return saf_fail(SAF_BAD_INPUT, "no kernels for matrices of type %s",
                        (unsigned)dtype < SAF_DTYPE_COUNT ? saf_dtype_name(dtype) : "unknown");
    int block = saf_dtype_block(dtype);
    if (rows < 0 || cols < 1 || cols % block != 0)
        return saf_fail(SAF_BAD_INPUT,
                        "a %s matrix of %lld rows and %lld columns: expected columns in multiples "
                        "of %d",
                        saf_dtype_name(dtype), (long long)rows, (long long)cols, block);
    /* No type packs to more than 5 bytes a weight: with this bound tile_bytes cannot overflow. */
    size_t tile = 0, bytes = 0;
    bool fits = cols <= INT64_MAX / (SAF_TILE_ROWS * 5) && rows <= INT64_MAX - SAF_TILE_ROWS;
    if (fits) tile = saf__tile_bytes(dtype, cols);
    if (!fits || !saf_size_mul(tile, (size_t)saf_ceil_div(rows, SAF_TILE_ROWS), &bytes) ||
        bytes > INT64_MAX)
        return saf_fail(SAF_BAD_INPUT, "a %s matrix of %lld rows and %lld columns is too large",
                        saf_dtype_name(dtype), (long long)rows, (long long)cols);
    *out = (saf_weight){.dtype = dtype, .rows = rows, .cols = cols, .bytes = bytes};
    return SAF_OK;
}

/* ---- one row of one block ------------------------------------------------------------------ */

/* Four codes at a time: columns 4g .. 4g + 3 are one 32-bit word in every plane, and no shift
 * below moves a bit from one code to the next. */
static uint32_t word_load(const uint8_t *p) {
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}
static void word_store(uint8_t *p, uint32_t w) {
    memcpy(p, &w, sizeof w);
}
enum { NIBBLE_MASK = 0x0F0F0F0F, PAIR_MASK = 0x03030303, BIT_MASK = 0x01010101 };

static void put_four(uint8_t *plane, const uint32_t word[SAF__GROUPS], int shift) {
    for (int g = 0; g < 4; g++)
        word_store(plane + g * SAF__GROUP_BYTES,
                   (word[g] >> shift & NIBBLE_MASK) | (word[g + 4] >> shift & NIBBLE_MASK) << 4);
}
static void put_two(uint8_t *plane, const uint32_t word[SAF__GROUPS], int shift) {
    for (int v = 0; v < 2; v++) {
        uint32_t w = 0;
        for (int g = 0; g < 4; g++) w |= (word[4 * v + g] >> shift & PAIR_MASK) << 2 * g;
        word_store(plane + v * SAF__GROUP_BYTES, w);
    }
}
static void put_one(uint8_t *plane, const uint32_t word[SAF__GROUPS], int shift) {
    uint32_t w = 0;
    for (int g = 0; g < SAF__GROUPS; g++) w |= (word[g] >> shift & BIT_MASK) << g;
    word_store(plane, w);
}
static uint32_t get_four(const uint8_t *plane, int g) {
    return word_load(plane + g % 4 * SAF__GROUP_BYTES) >> g / 4 * 4 & NIBBLE_MASK;
}
static uint32_t get_two(const uint8_t *plane, int g) {
    return word_load(plane + g / 4 * SAF__GROUP_BYTES) >> g % 4 * 2 & PAIR_MASK;
}
static uint32_t get_one(const uint8_t *plane, int g) {
    return word_load(plane) >> g & BIT_MASK;
}

void saf__block_put(const saf__form *form, uint8_t *super, int b, int i, const saf__block *in) {
    uint8_t *block = super + form->header_bytes + b * form->block_bytes, *at = block + 4 * i;
    uint32_t word[SAF__GROUPS];
    memcpy(word, in->code, sizeof word);
    switch (form->bits) {
        case 8:
            for (int g = 0; g < SAF__GROUPS; g++) word_store(at + g * SAF__GROUP_BYTES, word[g]);
            break;
        case 6:
            put_four(at, word, 0), put_two(at + 512, word, 4);
            break;
        case 5:
            put_four(at, word, 0), put_one(at + 512, word, 4);
            break;
        case 4:
            put_four(at, word, 0);
            break;
        case 3:
            put_two(at, word, 0), put_one(at + 256, word, 2);
            break;
        case 2:
            put_two(at, word, 0);
            break;
    }
    memcpy(super + 2 * i, &in->d, 2);
    if (form->has_min) memcpy(super + 64 + 2 * i, &in->m, 2);
    uint8_t *meta = block + form->plane_bytes;
    if (form->meta == SAF__META_BLOCK) {
        meta[i] = (uint8_t)in->scale[0];
        meta[32 + i] = (uint8_t)in->min[0];
    } else if (form->meta == SAF__META_HALVES) {
        meta[i] = (uint8_t)in->scale[0];
        meta[32 + i] = (uint8_t)in->scale[1];
    } else if (form->meta == SAF__META_NIBBLES) {
        meta[i] = (uint8_t)(in->scale[0] | in->min[0] << 4);
        meta[32 + i] = (uint8_t)(in->scale[1] | in->min[1] << 4);
    }
}

void saf__block_get(const saf__form *form, const uint8_t *super, int b, int i, saf__block *out) {
    const uint8_t *block = super + form->header_bytes + b * form->block_bytes, *at = block + 4 * i;
    uint32_t word[SAF__GROUPS];
    for (int g = 0; g < SAF__GROUPS; g++) {
        switch (form->bits) {
            case 8:
                word[g] = word_load(at + g * SAF__GROUP_BYTES);
                break;
            case 6:
                word[g] = get_four(at, g) | get_two(at + 512, g) << 4;
                break;
            case 5:
                word[g] = get_four(at, g) | get_one(at + 512, g) << 4;
                break;
            case 4:
                word[g] = get_four(at, g);
                break;
            case 3:
                word[g] = get_two(at, g) | get_one(at + 256, g) << 2;
                break;
            default:
                word[g] = get_two(at, g);
                break;
        }
    }
    memcpy(out->code, word, sizeof word);
    memcpy(&out->d, super + 2 * i, 2);
    out->m = 0;
    if (form->has_min) memcpy(&out->m, super + 64 + 2 * i, 2);
    const uint8_t *meta = block + form->plane_bytes;
    for (int h = 0; h < 2; h++) {
        out->scale[h] = out->min[h] = 1;
        if (form->meta == SAF__META_BLOCK) {
            out->scale[h] = meta[i];
            out->min[h] = meta[32 + i];
        } else if (form->meta == SAF__META_HALVES) {
            out->scale[h] =
                (int16_t)(meta[32 * h + i] < 128 ? meta[32 * h + i] : meta[32 * h + i] - 256);
        } else if (form->meta == SAF__META_NIBBLES) {
            out->scale[h] = (int16_t)(meta[32 * h + i] & 15);
            out->min[h] = (int16_t)(meta[32 * h + i] >> 4);
        }
    }
}

/* ---- whole rows ---------------------------------------------------------------------------- */

/* Rows 0 .. n_rows - 1 of a tile; supers outside, so that the writes stay near each other. */
static void pack_quant_tile(const saf_weight *w, const saf__form *form, uint8_t *tile,
                            int64_t n_rows, const uint8_t *raw, size_t row_bytes) {
    int64_t supers = w->cols / SAF_QUANT_BLOCK / form->blocks;
    size_t raw_bytes = (size_t)saf_dtype_block_bytes(w->dtype);
    saf__block block;
    for (int64_t s = 0; s < supers; s++, tile += form->super_bytes, raw += raw_bytes) {
        for (int i = 0; i < n_rows; i++) {
            for (int b = 0; b < form->blocks; b++) {
                saf__block_decode(w->dtype, raw + (size_t)i * row_bytes, b, &block);
                saf__block_put(form, tile, b, i, &block);
            }
        }
    }
}

/* Transposes elements of 2 or 4 bytes, 64 columns at a time. */
static void pack_float_tile(const saf_weight *w, uint8_t *tile, int64_t n_rows, const uint8_t *raw,
                            size_t row_bytes) {
    bool wide = saf_dtype_block_bytes(w->dtype) == 4;
    for (int64_t k0 = 0; k0 < w->cols; k0 += 64) {
        int64_t k1 = saf_i64_min(k0 + 64, w->cols);
        for (int64_t i = 0; i < n_rows; i++) {
            const uint8_t *row = raw + (size_t)i * row_bytes;
            for (int64_t k = k0; k < k1; k++) {
                if (wide)
                    memcpy(tile + 4 * (k * SAF_TILE_ROWS + i), row + 4 * k, 4);
                else
                    memcpy(tile + 2 * (k * SAF_TILE_ROWS + i), row + 2 * k, 2);
            }
        }
    }
}

void saf_weight_pack(saf_weight *w, int64_t row0, int64_t n_rows, const void *raw) {
    const saf__form *form = saf__form_of(w->dtype);
    size_t tile_bytes = saf__tile_bytes(w->dtype, w->cols);
    size_t row_bytes =
        (size_t)(w->cols / saf_dtype_block(w->dtype)) * (size_t)saf_dtype_block_bytes(w->dtype);
    for (int64_t r = row0; r < row0 + n_rows; r += SAF_TILE_ROWS) {
        uint8_t *tile = (uint8_t *)w->data + (size_t)(r / SAF_TILE_ROWS) * tile_bytes;
        const uint8_t *rows = (const uint8_t *)raw + (size_t)(r - row0) * row_bytes;
        int64_t n = saf_i64_min(row0 + n_rows - r, SAF_TILE_ROWS);
        if (n < SAF_TILE_ROWS) memset(tile, 0, tile_bytes);
        if (form)
            pack_quant_tile(w, form, tile, n, rows, row_bytes);
        else
            pack_float_tile(w, tile, n, rows, row_bytes);
    }
}

static void float_row(const saf_weight *w, const uint8_t *tile, int i, float *out) {
    for (int64_t k = 0; k < w->cols; k++) {
        int64_t at = k * SAF_TILE_ROWS + i;
        uint16_t half = 0;
        if (w->dtype == SAF_DTYPE_F32) {
            memcpy(out + k, tile + 4 * at, 4);
            continue;
        }
        memcpy(&half, tile + 2 * at, 2);
        out[k] = w->dtype == SAF_DTYPE_F16 ? saf_f32_from_f16(half) : saf_f32_from_bf16(half);
    }
}

void saf_weight_row(const saf_weight *w, int64_t r, float *out) {
    const saf__form *form = saf__form_of(w->dtype);
    const uint8_t *tile =
        (const uint8_t *)w->data + (size_t)(r / SAF_TILE_ROWS) * saf__tile_bytes(w->dtype, w->cols);
    int i = (int)(r % SAF_TILE_ROWS);
    if (!form) {
        float_row(w, tile, i, out);
        return;
    }
    saf__block block;
    for (int64_t b = 0; b < w->cols / SAF_QUANT_BLOCK; b++) {
        const uint8_t *super = tile + (size_t)(b / form->blocks) * (size_t)form->super_bytes;
        saf__block_get(form, super, (int)(b % form->blocks), i, &block);
        float d = saf_f32_from_f16(block.d), m = saf_f32_from_f16(block.m);
        for (int k = 0; k < SAF_QUANT_BLOCK; k++) {
            int half = k / 16;
            float scale = d * (float)block.scale[half];
            float value = scale * (float)(block.code[k] - form->offset);
            if (form->has_min) value += m * (float)block.min[half];
            *out++ = value;
        }
    }
}
