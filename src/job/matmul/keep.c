/* Checkpoints of a product: /state holds what all ranks held between two steps, whatever the grid.
 *
 *   parts[n, 6]   tile row, tile column, segment, segments, panels, values (saf_product_part)
 *   data          the values of the parts, one after the other
 *   tiles[t, 2]   tile row and column of those that are done
 *   row_sums[m]   of each row the part of these, for the check
 *   sha256        of each of these
 *   product       their values, where the product is kept
 *
 * Ranks send what they have to rank 0 part by part, and rank 0 writes it as it comes. */
#include <assert.h>

#include "job/matmul/matmul.h"
#include "saf/core_signals.h"

enum { PART_WORDS = SAF__PART_WORDS };

/* ---- gathering ---- */

/* What all ranks have, at rank 0: an array of each, in their order. */
typedef struct {
    saf_buf *parts, *tiles; /* [ranks] */
    int64_t values, done_values, n_parts, n_tiles;
    int64_t done, total; /* products of tiles */
    void *tile;          /* rank 0: room for one */
} state;

static saf_status gather(saf__matmul *x, const saf_buf *mine, saf_buf **out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_comm_agree(x->world, saf_alloc((size_t)x->ranks, sizeof **out, out)));
    assert(*out);
    st = saf_comm_gather_buf(x->world, 0, mine, *out);
out:
    return st;
}

static saf_status my_parts(saf__matmul *x, saf_buf *out) {
    saf_status st = SAF_OK;
    for (int64_t i = 0; i < saf_product_held(x->product); i++) {
        saf_product_part p;
        SAF_TRY(saf_product_held_at(x->product, i, &p, NULL));
        int64_t words[PART_WORDS] = {p.i, p.j, p.segment, p.segments, p.panels, p.elements};
        SAF_TRY(saf_buf_append(out, words, sizeof words));
    }
out:
    return st;
}

static void count(const saf__matmul *x, state *s) {
    const saf_product_tiles *t = &x->plan->tiles;
    s->total = t->tiles_m * t->tiles_n * t->panels;
    for (int r = 0; r < x->ranks; r++) {
        const int64_t *w = (const int64_t *)(const void *)s->parts[r].data;
        int64_t n = (int64_t)(s->parts[r].len / sizeof *w) / PART_WORDS;
        for (int64_t i = 0; i < n; i++, w += PART_WORDS) {
            s->values += w[5];
            s->done += w[4];
            for (int64_t g = 1; w[3] > 1 && g < w[3]; g++) {
                saf_span span = saf_product_segment(t, w[2] + g);
                s->done += span.end - span.begin;
            }
        }
        s->n_parts += n;
        const saf__done_tile *tile = (const saf__done_tile *)(const void *)s->tiles[r].data;
        n = (int64_t)(s->tiles[r].len / sizeof *tile);
        for (int64_t i = 0; i < n; i++)
            s->done_values += saf__tile_rows(x, tile[i].i) * saf__tile_cols(x, tile[i].j);
        s->n_tiles += n;
    }
    s->done = saf_i64_min(s->done, s->total);
}

static saf_status gather_state(saf__matmul *x, state *s) {
    saf_status st = SAF_OK;
    saf_buf parts = {0};
    const saf_product_tiles *t = &x->plan->tiles;
    st = my_parts(x, &parts);
    if (st == SAF_OK && x->rank == 0)
        st = saf_alloc((size_t)saf_i64_max(1, t->tile_m * t->tile_n),
                       (size_t)saf_dtype_block_bytes(x->shape.dtype), &s->tile);
    SAF_TRY(saf_comm_agree(x->world, st));
    SAF_TRY(gather(x, &parts, &s->parts));
    SAF_TRY(gather(x, &x->tiles, &s->tiles));
    if (x->rank == 0) count(x, s);
out:
    saf_buf_free(&parts);
    return st;
}

static void state_free(const saf__matmul *x, state *s) {
    saf_buf *const all[] = {s->parts, s->tiles};
    for (int k = 0; k < 2; k++)
        for (int r = 0; all[k] && r < x->ranks; r++) saf_buf_free(&all[k][r]);
    saf_free(&s->parts);
    saf_free(&s->tiles);
    saf_free(&s->tile);
}

/* ---- writing ---- */

/* The values of all parts, rank by rank; an error of writing is kept until all have come, for the
 * others send theirs. *at: how many came before. */
static saf_status put_values(saf__matmul *x, const state *s, saf_checkpoint_writer *w, int rank,
                             void *values, int64_t *at, saf_status *write) {
    saf_status st = SAF_OK;
    const int64_t *words = (const int64_t *)(const void *)s->parts[rank].data;
    int64_t n = (int64_t)(s->parts[rank].len / sizeof *words) / PART_WORDS;
    for (int64_t i = 0; i < n; i++, words += PART_WORDS) {
        const void *data = values;
        saf_product_part p;
        if (words[5] == 0) continue;
        if (rank == 0) {
            SAF_TRY(saf_product_held_at(x->product, i, &p, &data));
        } else {
            saf_tensor t = saf_tensor_1d(x->shape.dtype, values, 0);
            size_t bytes = (size_t)(words[5] * saf_dtype_block_bytes(x->shape.dtype));
            SAF_TRY(saf_comm_recv(x->world, rank, SAF_TAG_VALUES, bytes, &t));
        }
        if (*write == SAF_OK)
            *write =
                saf_checkpoint_put_some(w, "data", x->shape.dtype, s->values, *at, words[5], data);
        *at += words[5];
        saf_alive();
    }
out:
    return st;
}

/* Collective: row by row what all ranks have; rank 0 has *w. */
static saf_status put_sums(saf__matmul *x, saf_checkpoint_writer *w, saf_status *write) {
    enum { ROWS = 1 << 16 };
    saf_status st = SAF_OK;
    double *sums = NULL;
    SAF_TRY(saf_comm_agree(x->world, saf_alloc(ROWS, sizeof *sums, &sums)));
    for (int64_t row = 0, n; row < x->shape.m; row += n) {
        n = saf_i64_min(ROWS, x->shape.m - row);
        SAF_TRY(saf__matmul_all_sums(x, row, n, sums));
        if (w && *write == SAF_OK)
            *write =
                saf_checkpoint_put_some(w, "row_sums", SAF_DTYPE_F64, x->shape.m, row, n, sums);
    }
    if (w && *write == SAF_OK && x->shape.m == 0)
        *write = saf_checkpoint_put_some(w, "row_sums", SAF_DTYPE_F64, 0, 0, 0, sums);
out:
    saf_free(&sums);
    return st;
}

static saf_status send_values(saf__matmul *x) {
    saf_status st = SAF_OK, none = SAF_OK;
    for (int64_t i = 0; i < saf_product_held(x->product); i++) {
        saf_product_part p;
        const void *data;
        SAF_TRY(saf_product_held_at(x->product, i, &p, &data));
        if (p.elements == 0) continue;
        saf_tensor t = {.dtype = x->shape.dtype, .ndim = 1, .shape = {p.elements}};
        memcpy(&t.data, &data, sizeof data); /* it is only read */
        SAF_TRY(saf_comm_send(x->world, 0, SAF_TAG_VALUES, &t));
    }
    SAF_TRY(put_sums(x, NULL, &none));
out:
    return st;
}

static saf_status read_back(saf__matmul *x, const saf__done_tile *t, void *out) {
    int64_t row0 = t->i * x->plan->tiles.tile_m, col0 = t->j * x->plan->tiles.tile_n;
    int64_t rows = saf__tile_rows(x, t->i), cols = saf__tile_cols(x, t->j);
    return x->own ? saf_matrix_back(x->own, row0, rows, col0, cols, out, cols)
                  : saf_results_product_back(x->writer, row0, rows, col0, cols, out, cols);
}

/* The tiles that are done: places, sums and hashes, and their values as the results hold them. */
static saf_status put_tiles(saf__matmul *x, const state *s, saf_checkpoint_writer *w,
                            void *values) {
    saf_status st = SAF_OK;
    saf_buf places = {0}, hashes = {0};
    int64_t at = 0;
    if (x->job->output.store && s->done_values == 0)
        SAF_TRY(saf_checkpoint_put_some(w, "product", x->shape.dtype, 0, 0, 0, values));
    for (int r = 0; r < x->ranks; r++) {
        const saf__done_tile *t = (const saf__done_tile *)(const void *)s->tiles[r].data;
        for (size_t i = 0; i < s->tiles[r].len / sizeof *t; i++) {
            int64_t n = saf__tile_rows(x, t[i].i) * saf__tile_cols(x, t[i].j);
            SAF_TRY(saf_buf_append(&places, &t[i].i, 2 * sizeof t[i].i));
            SAF_TRY(saf_buf_append(&hashes, t[i].sha256, sizeof t[i].sha256));
            if (!x->job->output.store) continue;
            SAF_TRY(read_back(x, &t[i], values));
            SAF_TRY(saf_checkpoint_put_some(w, "product", x->shape.dtype, s->done_values, at, n,
                                            values));
            at += n;
        }
    }
    SAF_TRY(saf_checkpoint_put(w, "tiles", SAF_DTYPE_I64, 2 * s->n_tiles,
                               places.data ? places.data : ""));
    SAF_TRY(saf_checkpoint_put(w, "sha256", SAF_DTYPE_U8, 32 * s->n_tiles,
                               hashes.data ? hashes.data : ""));
out:
    saf_buf_free(&places);
    saf_buf_free(&hashes);
    return st;
}

static saf_status put_parts(saf__matmul *x, const state *s, saf_checkpoint_writer *w) {
    saf_status st = SAF_OK;
    saf_buf parts = {0};
    const char *core = saf_product_core();
    for (int r = 0; r < x->ranks; r++)
        SAF_TRY(saf_buf_append(&parts, s->parts[r].data ? s->parts[r].data : "", s->parts[r].len));
    const saf_product_tiles *t = &x->plan->tiles;
    const int64_t cut[SAF__CUT_WORDS] = {t->tile_m, t->tile_n, t->tile_k, t->segments};
    SAF_TRY(saf_checkpoint_put(w, "cut", SAF_DTYPE_I64, SAF__CUT_WORDS, cut));
    SAF_TRY(saf_checkpoint_put(w, "core", SAF_DTYPE_U8, (int64_t)strlen(core), core));
    st = saf_checkpoint_put(w, "parts", SAF_DTYPE_I64, PART_WORDS * s->n_parts,
                            parts.data ? parts.data : "");
out:
    saf_buf_free(&parts);
    return st;
}

/* Rank 0. */
static saf_status write_state(saf__matmul *x, const state *s, saf_status *write) {
    saf_status st = SAF_OK;
    saf_checkpoint_writer *w = NULL;
    void *values = s->tile;
    int64_t at = 0;
    *write = saf__steps_create(&x->steps, s->done, s->total, 0, &w);
    if (*write == SAF_OK && s->values == 0)
        *write = saf_checkpoint_put_some(w, "data", x->shape.dtype, 0, 0, 0, values);
    for (int r = 0; r < x->ranks; r++) SAF_TRY(put_values(x, s, w, r, values, &at, write));
    SAF_TRY(put_sums(x, w, write));
    if (*write == SAF_OK) *write = put_tiles(x, s, w, values);
    if (*write == SAF_OK) *write = put_parts(x, s, w);
    if (*write == SAF_OK) *write = saf_checkpoint_commit(w, NULL);
out:
    saf_checkpoint_writer_free(&w);
    return st;
}

saf_status saf__matmul_keep(void *matmul, saf_status *written) {
    saf_status st = SAF_OK;
    saf__matmul *x = matmul;
    state s = {0};
    /* What is written may still be under way to rank 0. */
    SAF_TRY(saf_comm_agree(x->world, saf__regions_over(x->regions)));
    SAF_TRY(gather_state(x, &s));
    /* Others wait for what a rank cannot send, or does not receive. */
    SAF_TRY(saf__matmul_alone(x, x->rank == 0 ? write_state(x, &s, written) : send_values(x)));
out:
    state_free(x, &s);
    return st;
}
