/* The results of a product: its hash, what each rank did, the file. */
#include <assert.h>
#include <stdio.h>

#include "job/matmul/matmul.h"
#include "saf/core_signals.h"

/* ---- the hash ---- */

/* Rank 0: SHA-256 over those of the tiles, tile rows first; there must be each tile once. */
static saf_status hash_tiles(saf__matmul *x, const saf_buf *tiles) {
    saf_status st = SAF_OK;
    const saf_product_tiles *p = &x->plan->tiles;
    int64_t all = p->tiles_m * p->tiles_n, n = 0;
    uint8_t *hashes = NULL, digest[32];
    char hex[65];
    saf_buf seen = {0};
    SAF_TRY(saf_alloc((size_t)all, 32, &hashes));
    SAF_TRY(saf_buf_resize(&seen, (size_t)all));
    for (int r = 0; r < x->ranks; r++) {
        const saf__done_tile *t = (const saf__done_tile *)(const void *)tiles[r].data;
        for (size_t i = 0; i < tiles[r].len / sizeof *t; i++) {
            int64_t at = t[i].i * p->tiles_n + t[i].j;
            if (at < 0 || at >= all || seen.data[at]++) n = all;
            if (at >= 0 && at < all) memcpy(hashes + 32 * at, t[i].sha256, 32);
            n++;
        }
    }
    if (n != all) {
        st = saf_fail(SAF_DEFECT, "tiles of the product are missing, or there twice: %lld for %lld",
                      (long long)n, (long long)all);
        goto out;
    }
    SAF_TRY(saf_sha256_of(hashes, (size_t)all * 32, digest));
    saf_hex(digest, sizeof digest, hex);
    st = saf_strdup(hex, &x->results.product.sha256);
out:
    saf_buf_free(&seen);
    saf_free(&hashes);
    return st;
}

/* ---- ranks ---- */

typedef struct {
    saf_result_rank rank;
    saf_result_share share;
} row;

static int64_t span_of(const int64_t *begin, int64_t at, int64_t tile, int64_t all) {
    return saf_i64_min(begin[at + 1] * tile, all) - saf_i64_min(begin[at] * tile, all);
}

static void fill_place(const saf__matmul *x, saf_result_share *s) {
    const saf_product_plan *p = x->plan;
    const saf_product_tiles *t = &p->tiles;
    int32_t place = p->place[x->rank];
    s->row = s->col = s->segment = -1;
    if (place < 0) return;
    s->row = place / p->grid_k / p->grid_n;
    s->col = place / p->grid_k % p->grid_n;
    s->segment = place % p->grid_k;
    s->rows = span_of(p->row0, s->row, t->tile_m, x->shape.m);
    s->cols = span_of(p->col0, s->col, t->tile_n, x->shape.n);
    for (int64_t g = p->seg0[s->segment]; g < p->seg0[s->segment + 1]; g++) {
        saf_span panels = saf_product_segment(t, g);
        s->depth += saf_i64_min(panels.end * t->tile_k, x->shape.k) - panels.begin * t->tile_k;
    }
}

static void fill_row(const saf__matmul *x, double run_s, row *out) {
    saf_product_counters c;
    saf_product_count(x->product, &c);
    memset(out, 0, sizeof *out);
    out->share = (saf_result_share){.rank = x->rank,
                                    .bytes_modelled = x->plan->bytes_received[x->rank],
                                    .bytes_received = c.bytes_received,
                                    .read_modelled = x->plan->bytes_read[x->rank],
                                    .bytes_read = c.bytes_read,
                                    .memory_modelled = x->plan->memory_bytes[x->rank],
                                    .compute_s = c.compute_s,
                                    .wait_s = c.wait_s,
                                    .io_s = c.io_s,
                                    .operations = c.operations};
    fill_place(x, &out->share);
    out->rank.rank = x->rank;
    out->rank.threads = x->host_share.threads;
    out->rank.cores = x->host_share.binding.cores;
    snprintf(out->rank.host, sizeof out->rank.host, "%s", saf_comm_host(x->world));
    snprintf(out->rank.kernels, sizeof out->rank.kernels, "%s", saf_product_core());
    out->rank.peak_memory_bytes = (int64_t)saf_peak_memory_bytes();
    out->rank.load_s = x->read_s;
    out->rank.compute_s = c.compute_s;
    out->rank.wait_s = c.wait_s;
    out->rank.busy = run_s > 0 ? c.compute_s / run_s : 0;
    saf__calls_fill(&out->rank);
}

static saf_status take_rows(saf__matmul *x, const saf_buf *rows) {
    saf_status st = SAF_OK;
    saf_results *r = &x->results;
    SAF_TRY(saf_alloc((size_t)x->ranks, sizeof *r->ranks, &r->ranks));
    SAF_TRY(saf_alloc((size_t)x->ranks, sizeof *r->product.shares, &r->product.shares));
    r->n_ranks = r->product.n_shares = x->ranks;
    for (int i = 0; i < x->ranks; i++) {
        row one;
        memcpy(&one, rows[i].data, sizeof one);
        r->ranks[i] = one.rank;
        r->product.shares[i] = one.share;
        r->product.bytes_modelled += one.share.bytes_modelled;
        r->product.bytes_received += one.share.bytes_received;
    }
out:
    return st;
}

static saf_status gather(saf__matmul *x) {
    saf_status st = SAF_OK;
    saf_buf mine = {0}, *rows = NULL, *tiles = NULL;
    row one;
    double run_s = x->results.run_s - x->steps.before_s;
    fill_row(x, run_s, &one);
    st = saf_buf_append(&mine, &one, sizeof one);
    if (st == SAF_OK) st = saf_alloc((size_t)x->ranks, sizeof *rows, &rows);
    if (st == SAF_OK) st = saf_alloc((size_t)x->ranks, sizeof *tiles, &tiles);
    SAF_TRY(saf_comm_agree(x->world, st));
    assert(rows && tiles);
    SAF_TRY(saf_comm_gather_buf(x->world, 0, &mine, rows));
    SAF_TRY(saf_comm_gather_buf(x->world, 0, &x->tiles, tiles));
    if (x->rank == 0) st = take_rows(x, rows);
    if (x->rank == 0 && st == SAF_OK) st = hash_tiles(x, tiles);
    SAF_TRY(saf_comm_agree(x->world, st));
out:
    for (int i = 0; i < x->ranks; i++) {
        if (rows) saf_buf_free(&rows[i]);
        if (tiles) saf_buf_free(&tiles[i]);
    }
    saf_free(&rows);
    saf_free(&tiles);
    saf_buf_free(&mine);
    return st;
}

/* ---- the file ---- */

static saf_status fill_product(saf__matmul *x) {
    saf_status st = SAF_OK;
    saf_result_product *p = &x->results.product;
    const saf_job *job = x->job;
    const saf_product_tiles *t = &x->plan->tiles;
    const char *made = x->operands[SAF__MATRIX_A].wanted ? "made" : "";
    saf_buf grid = {0};
    p->there = true;
    p->m = x->shape.m;
    p->n = x->shape.n;
    p->k = x->shape.k;
    p->alpha = job->matmul.alpha;
    p->beta = job->matmul.beta;
    p->transpose_a = job->matmul.transpose_a;
    p->transpose_b = job->matmul.transpose_b;
    p->transpose_c = job->matmul.transpose_c;
    p->tile_m = t->tile_m;
    p->tile_n = t->tile_n;
    p->tile_k = t->tile_k;
    p->segments = t->segments;
    p->memory_cap_bytes = x->memory_bytes;
    double run_s = x->results.run_s;
    if (run_s > 0) p->flops_per_s = 2 * (double)p->m * (double)p->n * (double)p->k / run_s;
    SAF_TRY(saf_strdup(x->shape.dtype == SAF_DTYPE_F64 ? "float64" : "float32", &p->dtype));
    const char *a = x->chain ? x->chain->order : job->matmul.a, *b = x->chain ? "" : job->matmul.b;
    SAF_TRY(saf_strdup(a ? a : made, &p->a));
    SAF_TRY(saf_strdup(b ? b : made, &p->b));
    bool with_c = x->operands[SAF__MATRIX_C].wanted;
    SAF_TRY(saf_strdup(!with_c ? "" : job->matmul.c ? job->matmul.c : "made", &p->c));
    SAF_TRY(saf_strdup(job->output.product ? job->output.product
                       : job->output.store ? "/C"
                                           : "",
                       &p->stored));
    SAF_TRY(saf_strdup(saf_product_core(), &p->core));
    SAF_TRY(saf__matmul_grid_text(x->plan, &grid));
    SAF_TRY(saf_strdup(grid.data, &p->grid));
    SAF_TRY(saf_strdup(grid.data, &x->results.layout));
    st = saf_strdup(saf_product_core(), &x->results.kernels);
out:
    saf_buf_free(&grid);
    return st;
}

static saf_status write_file(saf__matmul *x) {
    saf_status st = SAF_OK;
    saf__steps_fill(&x->steps);
    SAF_TRY(fill_product(x));
    SAF_TRY(saf__header_fill(&x->results, x->chain ? x->chain->job : x->job, x->options));
    /* The product first: results without it would count as done. */
    if (x->own) SAF_TRY(saf_matrix_commit(x->own));
    SAF_TRY(saf_results_finish(x->writer, &x->results));
    st = saf_checkpoints_remove(x->job->output.file);
out:
    return st;
}

saf_status saf__matmul_finish(saf__matmul *x) {
    saf_status st = SAF_OK;
    saf_comm_watch_phase("writing");
    SAF_TRY(gather(x));
    SAF_TRY(saf_comm_agree(x->world, x->rank == 0 ? write_file(x) : SAF_OK));
    saf__steps_say(&x->steps);
out:
    return st;
}
