/* Going on from a checkpoint of a product (keep.c): rank 0 puts the tiles that are done
 * where they were, and gives the parts' values to the ranks that ask for them. */
#include "job/matmul/matmul.h"

enum { PART_WORDS = SAF__PART_WORDS };
static const int64_t parts_most = (int64_t)1 << 32;

static saf_status bad(const saf__matmul *x, const char *what) {
    return saf_fail(SAF_BAD_INPUT, "%s: %s", saf_checkpoint_path(x->steps.restored), what);
}

/* Another saf may cut products in another way: then its tiles and parts are none of this one's. */
static saf_status check_cut(const saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_product_tiles *t = &x->plan->tiles;
    const int64_t now[SAF__CUT_WORDS] = {t->tile_m, t->tile_n, t->tile_k, t->segments};
    int64_t *cut = NULL, n = 0;
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "cut", SAF_DTYPE_I64, parts_most, &n, &cut));
    if (n != SAF__CUT_WORDS || memcmp(cut, now, sizeof now) != 0)
        st = bad(
            x,
            "its product is cut into other tiles than this saf would cut it; --fresh starts over");
out:
    saf_free(&cut);
    return st;
}

/* Rank 0: the tiles that are done go where they were. */
static saf_status restore_tiles(saf__matmul *x) {
    saf_status st = SAF_OK;
    const saf_product_tiles *p = &x->plan->tiles;
    int64_t *places = NULL, n_places = 0, n_hash = 0, n_sums = 0, at = 0;
    double *sums = NULL;
    uint8_t *hashes = NULL;
    char *values = NULL;
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "tiles", SAF_DTYPE_I64, parts_most, &n_places,
                               &places));
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "sha256", SAF_DTYPE_U8, parts_most, &n_hash,
                               &hashes));
    SAF_TRY(saf_alloc((size_t)saf_i64_max(1, p->tile_m * p->tile_n),
                      (size_t)saf_dtype_block_bytes(x->shape.dtype), &values));
    if (n_hash != 16 * n_places) SAF_TRY(bad(x, "tiles and hashes do not fit"));
    SAF_TRY(saf_checkpoint_count(x->steps.restored, "row_sums", SAF_DTYPE_F64, &n_sums));
    if (n_sums != x->shape.m) SAF_TRY(bad(x, "there is not one sum for each row of the product"));
    for (int64_t t = 0; t < n_places / 2; t++) {
        saf__done_tile tile = {places[2 * t], places[2 * t + 1], {0}};
        if (tile.i < 0 || tile.i >= p->tiles_m || tile.j < 0 || tile.j >= p->tiles_n)
            SAF_TRY(bad(x, "a tile that there is not"));
        saf__region r = {tile.i * p->tile_m, saf__tile_rows(x, tile.i), tile.j * p->tile_n,
                         saf__tile_cols(x, tile.j)};
        SAF_TRY(saf__matmul_sums(x, tile.i, &sums));
        SAF_TRY(saf_checkpoint_get_some(x->steps.restored, "row_sums", SAF_DTYPE_F64, r.row0,
                                        r.rows, sums));
        memcpy(tile.sha256, hashes + 32 * t, sizeof tile.sha256);
        SAF_TRY(saf_buf_append(&x->tiles, &tile, sizeof tile));
        if (!x->job->output.store) continue;
        SAF_TRY(saf_checkpoint_get_some(x->steps.restored, "product", x->shape.dtype, at,
                                        r.rows * r.cols, values));
        SAF_TRY(saf__matmul_store(x, SAF__MATRIX_PRODUCT, &r, values));
        at += r.rows * r.cols;
        saf_alive();
    }
out:
    saf_free(&values);
    saf_free(&hashes);
    saf_free(&places);
    return st;
}

/* Rank 0: the parts, as words; whose kernels made them. */
static saf_status read_parts(saf__matmul *x, saf_buf *out) {
    saf_status st = SAF_OK;
    int64_t *words = NULL, n = 0, core_len = 0;
    char *core = NULL;
    SAF_TRY(check_cut(x));
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "parts", SAF_DTYPE_I64, parts_most, &n, &words));
    SAF_TRY(saf_checkpoint_get(x->steps.restored, "core", SAF_DTYPE_U8, 256, &core_len, &core));
    if (n % PART_WORDS != 0) SAF_TRY(bad(x, "a part is cut short"));
    if ((size_t)core_len != strlen(saf_product_core()) ||
        memcmp(core, saf_product_core(), (size_t)core_len) != 0)
        saf_log(
            SAF_LOG_WARNING,
            "the checkpoint was computed by OpenBLAS's kernels for %.*s, and goes on with those "
            "for %s: the product will be right, but to the last bit that of neither",
            (int)core_len, core, saf_product_core());
    SAF_TRY(saf_buf_append(out, n ? (const void *)words : "", (size_t)n * sizeof *words));
    st = restore_tiles(x);
out:
    saf_free(&core);
    saf_free(&words);
    return st;
}

static saf_status read_part(void *ctx, int64_t index, void *out) {
    saf__matmul *x = ctx;
    return saf__matmul_get(x, SAF__MATRIX_KEPT, 0, 1, x->part_at[index], x->parts[index].elements,
                           out, x->parts[index].elements);
}

saf_status saf__matmul_restore(saf__matmul *x) {
    saf_status st = SAF_OK;
    saf_buf words = {0};
    int64_t at = 0;
    if (x->rank == 0) st = read_parts(x, &words);
    SAF_TRY(saf_comm_agree(x->world, st));
    SAF_TRY(saf_comm_bcast_buf(x->world, 0, &words));
    x->n_parts = (int64_t)(words.len / sizeof(int64_t)) / PART_WORDS;
    st = saf_alloc((size_t)x->n_parts, sizeof *x->parts, &x->parts);
    if (st == SAF_OK) st = saf_alloc((size_t)x->n_parts, sizeof *x->part_at, &x->part_at);
    SAF_TRY(saf_comm_agree(x->world, st));
    for (int64_t i = 0; i < x->n_parts; i++) {
        const int64_t *w = (const int64_t *)(const void *)words.data + PART_WORDS * i;
        x->parts[i] = (saf_product_part){w[0], w[1], w[2], w[3], w[4], w[5]};
        x->part_at[i] = at;
        if (w[5] < 0 || __builtin_add_overflow(at, w[5], &at))
            st = saf_fail(SAF_BAD_INPUT, "the checkpoint has a part of %lld values",
                          (long long)w[5]);
    }
    SAF_TRY(saf_comm_agree(x->world, st));
    st = saf_product_resume(x->product, x->parts, x->n_parts, read_part, x);
out:
    saf_buf_free(&words);
    return st;
}
