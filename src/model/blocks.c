/* The bytes of a slice in the order of the file: cutting them into blocks, reading, repacking. The
 * rows that a part has of a tensor lie side by side in the file, and nothing else is read. Each
 * block is repacked as it comes, so that no second copy of a matrix ever exists. */
#include <assert.h>
#include <omp.h>
#include <stdlib.h>

#include "model/gguf.h"
#include "model/slice.h"

enum { ALIGNMENT = 64 };

/* Rows of a tensor, counted from the part's first. */
typedef struct {
    const saf__slice_tensor *tensor;
    int64_t row, rows;
    size_t offset;    /* in the tensor */
    size_t bytes, at; /* in the block */
} piece;

typedef struct {
    int64_t first, n; /* pieces */
    size_t bytes;
} block;

struct saf_blocks {
    const saf_gguf *g;
    saf__slice_list list; /* in the order of the file */
    piece *pieces;
    block *items;
    int64_t n, n_pieces;
    size_t largest, total;
};

/* ---- cutting --------------------------------------------------------------------------------- */

static int file_order(const void *a, const void *b) {
    const saf_gguf_tensor *x = ((const saf__slice_tensor *)a)->t;
    const saf_gguf_tensor *y = ((const saf__slice_tensor *)b)->t;
    if (x->part != y->part) return x->part < y->part ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Rows of a tensor that are never cut: a tile, or a vector. */
static int64_t unit_rows(const saf__slice_tensor *x) {
    return saf_i64_min(x->rows, SAF_TILE_ROWS);
}

/* An upper bound: every unit of a tensor alone, where units are larger than blocks. */
static int64_t most_pieces(const saf__slice_tensor *x) {
    if (x->rows == 0) return 0;
    size_t unit = x->row_bytes * (size_t)unit_rows(x);
    int64_t units = saf_ceil_div(x->rows, unit_rows(x));
    int64_t in_block = saf_i64_max(1, (int64_t)(SAF_BLOCK_BYTES / 2 / unit));
    return saf_ceil_div(units, in_block) + 1;
}

/* Adds a piece of as many units as fit, to the last block or a new one. */
static void add_piece(saf_blocks *b, const saf__slice_tensor *x, int64_t row) {
    size_t unit = x->row_bytes * (size_t)unit_rows(x);
    block *last = b->n ? &b->items[b->n - 1] : NULL;
    size_t used = last ? last->bytes : SAF_BLOCK_BYTES;
    size_t units = used < SAF_BLOCK_BYTES ? (SAF_BLOCK_BYTES - used) / unit : 0;
    if (units == 0) {
        last = &b->items[b->n++];
        *last = (block){.first = b->n_pieces};
        units = unit < SAF_BLOCK_BYTES ? SAF_BLOCK_BYTES / unit : 1;
    }
    int64_t rows = saf_i64_min(x->rows - row, (int64_t)units * unit_rows(x));
    piece *p = &b->pieces[b->n_pieces++];
    *p = (piece){.tensor = x,
                 .row = row,
                 .rows = rows,
                 .offset = x->offset + (size_t)row * x->row_bytes,
                 .bytes = (size_t)rows * x->row_bytes,
                 .at = last->bytes};
    last->n++;
    last->bytes += aligned(p->bytes);
}

saf_status saf_blocks_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_blocks **out) {
    saf_status st = SAF_OK;
    saf_blocks *b = NULL;
    int64_t most = 0;
    SAF_TRY(saf_alloc(1, sizeof *b, &b));
    b->g = g;
    SAF_TRY(saf__slice_list_make(g, p, range, &b->list));
    qsort(b->list.items, (size_t)b->list.n, sizeof *b->list.items, file_order);
    for (int64_t i = 0; i < b->list.n; i++) most += most_pieces(&b->list.items[i]);
    SAF_TRY(saf_alloc((size_t)most, sizeof *b->pieces, &b->pieces));
    SAF_TRY(saf_alloc((size_t)most, sizeof *b->items, &b->items));
    assert(b->pieces && b->items); /* or one would have failed */
    for (int64_t i = 0; i < b->list.n; i++) {
        const saf__slice_tensor *x = &b->list.items[i];
        for (int64_t row = 0; row < x->rows;) {
            add_piece(b, x, row);
            row += b->pieces[b->n_pieces - 1].rows;
        }
    }
    for (int64_t i = 0; i < b->n; i++) {
        b->total += b->items[i].bytes;
        if (b->items[i].bytes > b->largest) b->largest = b->items[i].bytes;
    }
    *out = b;
    b = NULL;
out:
    saf_blocks_free(&b);
    return st;
}

void saf_blocks_free(saf_blocks **blocks) {
    saf_blocks *b = *blocks;
    if (!b) return;
    saf_free(&b->list.items);
    saf_free(&b->pieces);
    saf_free(&b->items);
    saf_free(blocks);
}

int64_t saf_blocks_count(const saf_blocks *b) {
    return b->n;
}
size_t saf_blocks_bytes(const saf_blocks *b, int64_t i) {
    return b->items[i].bytes;
}
size_t saf_blocks_largest(const saf_blocks *b) {
    return b->largest;
}
size_t saf_blocks_total(const saf_blocks *b) {
    return b->total;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool follows(const piece *p, const piece *q) {
    const saf_gguf_tensor *a = p->tensor->t, *b = q->tensor->t;
    return a->part == b->part && a->offset + p->offset + p->bytes == b->offset + q->offset &&
           p->at + p->bytes == q->at;
}

saf_status saf_blocks_read(const saf_blocks *b, int64_t i, void *out) {
    saf_status st = SAF_OK;
    const piece *p = &b->pieces[b->items[i].first], *end = p + b->items[i].n;
    while (p < end) {
        const piece *first = p;
        size_t bytes = p->bytes;
        for (p++; p < end && follows(p - 1, p); p++) bytes += p->bytes;
        const saf_gguf_tensor *t = first->tensor->t;
        SAF_TRY(saf__gguf_pread(&b->g->parts[t->part], t->offset + first->offset, bytes, t->name,
                                (char *)out + first->at));
    }
out:
    return st;
}

/* ---- repacking ------------------------------------------------------------------------------- */

/* A norm or bias: [n] in f32, whatever float type the file has. */
static void put_vector(saf_dtype dtype, int64_t n, const void *bytes, float *v) {
    const uint16_t *half = bytes;
    if (dtype == SAF_DTYPE_F32)
        memcpy(v, bytes, (size_t)n * sizeof *v);
    else if (dtype == SAF_DTYPE_F16)
        for (int64_t i = 0; i < n; i++) v[i] = saf_f32_from_f16(half[i]);
    else
        for (int64_t i = 0; i < n; i++) v[i] = saf_f32_from_bf16(half[i]);
}

/* Rows [row, row + rows) of a piece, counted from its first; a vector: all. */
static void put_rows(saf_slice *s, const piece *p, int64_t row, int64_t rows, const char *bytes) {
    const saf__slice_tensor *x = p->tensor;
    saf_weight *w;
    float **v;
    saf__slice_target(s, x, &w, &v);
    if (v)
        put_vector(x->t->dtype, x->cols, bytes + p->at, *v);
    else
        saf_weight_pack(w, p->row + row, rows, bytes + p->at + (size_t)row * x->row_bytes);
}

void saf_slice_put(saf_slice *s, const saf_blocks *b, int64_t i, const void *bytes) {
    const piece *first = &b->pieces[b->items[i].first], *end = first + b->items[i].n;
#pragma omp parallel
    for (const piece *p = first; p < end; p++) {
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < p->rows; row += SAF_TILE_ROWS)
            put_rows(s, p, row, saf_i64_min(p->rows - row, SAF_TILE_ROWS), bytes);
    }
}

static saf_status read_block(saf_slice *s, const saf_blocks *b, int64_t i, char *raw) {
    saf_status st = saf_blocks_read(b, i, raw);
    const piece *first = &b->pieces[b->items[i].first], *end = first + b->items[i].n;
    for (const piece *p = first; st == SAF_OK && p < end; p++) put_rows(s, p, 0, p->rows, raw);
    return st;
}

saf_status saf_slice_read(saf_slice *s, const saf_blocks *b, saf_slice_tick tick, void *ctx) {
    saf_status st = SAF_OK;
    size_t there = 0;
    bool stop = false;
#pragma omp parallel
    {
        char *raw = NULL;
        size_t now;
        bool stopped;
        saf_status mine = saf_alloc(b->largest, 1, &raw);
        if (mine != SAF_OK) {
#pragma omp atomic write
            stop = true;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < b->n; i++) {
#pragma omp atomic read
            stopped = stop;
            if (stopped || mine != SAF_OK) continue;
            mine = read_block(s, b, i, raw);
#pragma omp atomic capture
            now = there += b->items[i].bytes;
            if (tick && mine == SAF_OK && omp_get_thread_num() == 0) mine = tick(ctx, now);
            if (mine != SAF_OK) {
#pragma omp atomic write
                stop = true;
            }
        }
        saf_free(&raw);
        if (mine != SAF_OK) {
#pragma omp critical(saf_read_status)
            st = mine;
        }
    }
    return st;
}

saf_status saf_slice_load(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_slice **out) {
    saf_status st = SAF_OK;
    saf_slice *s = NULL;
    saf_blocks *b = NULL;
    SAF_TRY(saf_blocks_new(g, p, range, &b));
    SAF_TRY(saf_slice_new(g, p, range, &s));
    SAF_TRY(saf_slice_read(s, b, NULL, NULL));
    *out = s;
    s = NULL;
out:
    saf_blocks_free(&b);
    saf_slice_free(&s);
    return st;
}
