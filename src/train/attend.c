/* Causal attention inside sequences, forwards and backwards, a block of queries at a time: a thread
 * has a head of a sequence to itself (backwards a key head, with the heads that read it), so that
 * every sum has one order. Weights are made again on the way back; what is kept of a row is its
 * largest product and the inverse of the sum of its weights. */
#include <omp.h>

#include "train/train.h"

enum { LANES = 16 };

int64_t saf__attend_scratch(const saf__dims *d) {
    int64_t queries = saf_i64_min(SAF__QUERIES, d->context);
    return 2 * queries * d->context;
}

/* A block of queries of a head: rows [first, first + rows) of a sequence see `keys` positions. */
typedef struct {
    int64_t row0; /* of the sequence in the micro-batch */
    int64_t head, first, rows, keys;
} block;

static block block_at(const saf__dims *d, int64_t sequence, int64_t head, int64_t first) {
    int64_t rows = saf_i64_min(SAF__QUERIES, d->context - first);
    return (block){.row0 = sequence * d->context,
                   .head = head,
                   .first = first,
                   .rows = rows,
                   .keys = first + rows};
}

/* Where its queries begin, and its keys, and what is kept of a row. */
static int64_t queries_at(const saf__dims *d, const block *b) {
    return (b->row0 + b->first) * d->q_cols + b->head * d->head_width;
}

static int64_t keys_at(const saf__dims *d, const block *b) {
    return b->row0 * d->kv_cols + b->head * d->kv_heads / d->heads * d->head_width;
}

static int64_t stats_at(const saf__dims *d, const block *b, int64_t row) {
    return ((b->row0 + b->first + row) * d->heads + b->head) * 2;
}

/* s[rows, keys] = alpha q x^T */
static void against_keys(const saf_blas *blas, const saf__dims *d, const block *b, float alpha,
                         const float *q, const float *x, float *s) {
    blas->sgemm(SAF_BLAS_ROW_MAJOR, SAF_BLAS_NO_TRANS, SAF_BLAS_TRANS, (int)b->rows, (int)b->keys,
                (int)d->head_width, alpha, q + queries_at(d, b), (int)d->q_cols, x + keys_at(d, b),
                (int)d->kv_cols, 0, s, (int)b->keys);
}

/* out[rows, C] = alpha s x */
static void over_keys(const saf_blas *blas, const saf__dims *d, const block *b, float alpha,
                      const float *s, const float *x, float *out) {
    blas->sgemm(SAF_BLAS_ROW_MAJOR, SAF_BLAS_NO_TRANS, SAF_BLAS_NO_TRANS, (int)b->rows,
                (int)d->head_width, (int)b->keys, alpha, s, (int)b->keys, x + keys_at(d, b),
                (int)d->kv_cols, 0, out + queries_at(d, b), (int)d->q_cols);
}

/* dx[keys, C] += alpha s^T q */
static void to_keys(const saf_blas *blas, const saf__dims *d, const block *b, float alpha,
                    const float *s, const float *q, float *dx) {
    blas->sgemm(SAF_BLAS_ROW_MAJOR, SAF_BLAS_TRANS, SAF_BLAS_NO_TRANS, (int)b->keys,
                (int)d->head_width, (int)b->rows, alpha, s, (int)b->keys, q + queries_at(d, b),
                (int)d->q_cols, 1, dx + keys_at(d, b), (int)d->kv_cols);
}

static float sum(const float *x, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += x[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += x[i + j];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* ---- forwards -------------------------------------------------------------------------------- */

static void attend_block(const saf_blas *blas, const saf__dims *d, const block *b, const float *q,
                         const float *k, const float *v, float *s, float *stats, float *out) {
    against_keys(blas, d, b, d->scale, q, k, s);
    for (int64_t r = 0; r < b->rows; r++) {
        float *row = s + r * b->keys, *kept = stats + stats_at(d, b, r);
        int64_t seen = b->first + r + 1;
        float most = saf__largest(row, seen);
        saf_exp_shifted(row, most, seen, row);
        kept[0] = most;
        kept[1] = 1.0f / sum(row, seen);
        memset(row + seen, 0, (size_t)(b->keys - seen) * sizeof *row);
    }
    over_keys(blas, d, b, 1, s, v, out);
    float *to = out + queries_at(d, b);
    for (int64_t r = 0; r < b->rows; r++) {
        float inverse = stats[stats_at(d, b, r) + 1];
        for (int64_t c = 0; c < d->head_width; c++) to[r * d->q_cols + c] *= inverse;
    }
}

void saf__attend(saf__team *team, const saf__dims *d, const float *q, const float *k,
                 const float *v, float *scratch, float *stats, float *out) {
    int64_t each = saf__attend_scratch(d), items = d->sequences * d->heads;
#pragma omp parallel for schedule(dynamic) num_threads(team->threads)
    for (int64_t item = 0; item < items; item++) {
        float *s = scratch + omp_get_thread_num() * each;
        for (int64_t first = 0; first < d->context; first += SAF__QUERIES) {
            block b = block_at(d, item / d->heads, item % d->heads, first);
            attend_block(team->blas, d, &b, q, k, v, s, stats, out);
        }
    }
    saf_comm_progress();
}

/* ---- backwards ------------------------------------------------------------------------------- */

typedef struct {
    const float *q, *k, *v, *out, *dout, *stats;
    float *dq, *dk, *dv;
} back;

/* s: the weights, from the products; ds: their gradient by dout, becomes that of the products. */
static void back_rows(const saf__dims *d, const block *b, const back *x, float *s, float *ds) {
    const float *out = x->out + queries_at(d, b), *dout = x->dout + queries_at(d, b);
    for (int64_t r = 0; r < b->rows; r++) {
        float *row = s + r * b->keys, *drow = ds + r * b->keys, common = 0;
        const float *kept = x->stats + stats_at(d, b, r);
        int64_t seen = b->first + r + 1;
        saf_exp_shifted(row, kept[0], seen, row);
        for (int64_t c = 0; c < d->head_width; c++)
            common = __builtin_fmaf(out[r * d->q_cols + c], dout[r * d->q_cols + c], common);
        for (int64_t i = 0; i < seen; i++) {
            row[i] *= kept[1];
            drow[i] = row[i] * (drow[i] - common);
        }
        memset(row + seen, 0, (size_t)(b->keys - seen) * sizeof *row);
        memset(drow + seen, 0, (size_t)(b->keys - seen) * sizeof *drow);
    }
}

static void back_block(const saf_blas *blas, const saf__dims *d, const block *b, const back *x,
                       float *scratch) {
    float *s = scratch, *ds = scratch + b->rows * b->keys;
    against_keys(blas, d, b, d->scale, x->q, x->k, s);
    against_keys(blas, d, b, 1, x->dout, x->v, ds);
    back_rows(d, b, x, s, ds);
    to_keys(blas, d, b, 1, s, x->dout, x->dv);
    over_keys(blas, d, b, d->scale, ds, x->k, x->dq);
    to_keys(blas, d, b, d->scale, ds, x->q, x->dk);
}

/* A key head of a sequence: the heads that read it, ascending, and their queries. */
static void back_item(const saf_blas *blas, const saf__dims *d, int64_t sequence, int64_t kv_head,
                      const back *x, float *scratch) {
    int64_t group = d->heads / d->kv_heads;
    for (int64_t t = 0; t < d->context; t++) {
        int64_t at = (sequence * d->context + t) * d->kv_cols + kv_head * d->head_width;
        memset(x->dk + at, 0, (size_t)d->head_width * sizeof(float));
        memset(x->dv + at, 0, (size_t)d->head_width * sizeof(float));
    }
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
        for (int64_t first = 0; first < d->context; first += SAF__QUERIES) {
            block b = block_at(d, sequence, h, first);
            back_block(blas, d, &b, x, scratch);
        }
}

void saf__attend_back(saf__team *team, const saf__dims *d, const float *q, const float *k,
                      const float *v, const float *out, const float *dout, const float *stats,
                      float *scratch, float *dq, float *dk, float *dv) {
    const back x = {q, k, v, out, dout, stats, dq, dk, dv};
    int64_t each = saf__attend_scratch(d), items = d->sequences * d->kv_heads;
#pragma omp parallel for schedule(dynamic) num_threads(team->threads)
    for (int64_t item = 0; item < items; item++)
        back_item(team->blas, d, item / d->kv_heads, item % d->kv_heads, &x,
                  scratch + omp_get_thread_num() * each);
    saf_comm_progress();
}
