/* The memory of a micro-batch's pass, and its way through the layers. */
#include "train/train.h"

/* ---- memory ---------------------------------------------------------------------------------- */

/* Hands out places of a block, or only counts them (base NULL). */
typedef struct {
    float *base;
    int64_t used; /* -1: too many to count */
} taker;

static float *take(taker *t, int64_t rows, int64_t cols) {
    int64_t count = 0, at = t->used;
    if (at < 0 || !saf_i64_mul(rows, cols, &count) || count > INT64_MAX / 64 - at) {
        t->used = -1;
        return NULL;
    }
    t->used = saf_round_up(at + count, 16);
    return t->base ? t->base + at : NULL;
}

static void take_layer(const saf__dims *d, taker *t, saf__kept *k) {
    int64_t n = d->tokens, norms = d->qk_norm ? n : 0;
    k->x = take(t, n, d->width);
    k->attn_in = take(t, n, d->width);
    k->q = take(t, n, d->q_cols);
    k->k = take(t, n, d->kv_cols);
    k->v = take(t, n, d->kv_cols);
    k->raw_q = d->qk_norm ? take(t, n, d->q_cols) : k->q;
    k->raw_k = d->qk_norm ? take(t, n, d->kv_cols) : k->k;
    k->stats = take(t, n, 2 * d->heads);
    k->heads = take(t, n, d->q_cols);
    k->mid = take(t, n, d->width);
    k->ffn_in = take(t, n, d->width);
    k->gate = take(t, n, d->ff_width);
    k->up = take(t, n, d->ff_width);
    k->attn_inverse = take(t, n, 1);
    k->ffn_inverse = take(t, n, 1);
    k->q_inverse = take(t, norms, d->heads);
    k->k_inverse = take(t, norms, d->kv_heads);
}

static void take_all(const saf__dims *d, int threads, taker *t, saf__pass *p) {
    int64_t n = d->tokens;
    saf__kept none;
    for (int64_t i = 0; i < d->layers && t->used >= 0; i++)
        take_layer(d, t, t->base ? &p->kept[i] : &none);
    p->x = take(t, n, d->width);
    p->normed = take(t, n, d->width);
    p->inverse = take(t, n, 1);
    p->logits = take(t, saf_i64_min(n, SAF__HEAD_ROWS), d->vocab);
    p->h = take(t, n, d->ff_width);
    p->dx = take(t, n, d->width);
    p->dnormed = take(t, n, d->width);
    p->dh = take(t, n, d->ff_width);
    p->dgate = take(t, n, d->ff_width);
    p->dup = take(t, n, d->ff_width);
    p->dheads = take(t, n, d->q_cols);
    p->dq = take(t, n, d->q_cols);
    p->dk = take(t, n, d->kv_cols);
    p->dv = take(t, n, d->kv_cols);
    p->draw_q = d->qk_norm ? p->dheads : p->dq; /* dheads has been read by then */
    p->draw_k = d->qk_norm ? take(t, n, d->kv_cols) : p->dk;
    p->scratch = take(t, threads, saf__attend_scratch(d));
    p->rope = take(t, d->context, d->head_width);
}

int64_t saf__pass_values(const saf__dims *d, int threads) {
    taker t = {.base = NULL};
    saf__pass none;
    take_all(d, threads, &t, &none);
    return t.used;
}

/* The angles of positions 0 to T - 1, as saf's own forward pass takes them. */
static saf_status make_rope(saf__pass *p, double base) {
    saf_status st = SAF_OK;
    int64_t half = p->d.head_width / 2;
    double *frequencies = NULL;
    int32_t *positions = NULL;
    SAF_TRY(saf_alloc((size_t)half, sizeof *frequencies, &frequencies));
    SAF_TRY(saf_alloc((size_t)p->d.context, sizeof *positions, &positions));
    for (int64_t i = 0; i < half; i++)
        frequencies[i] = saf_math_pow(base, -2.0 * (double)i / (double)p->d.head_width);
    for (int64_t t = 0; t < p->d.context; t++) positions[t] = (int32_t)t;
    saf_rope_table(frequencies, half, 1, positions, p->d.context, p->rope);
out:
    saf_free(&frequencies);
    saf_free(&positions);
    return st;
}

saf_status saf__pass_new(const saf__dims *d, const saf_train_shape *shape, int threads,
                         saf__pass **out) {
    saf_status st = SAF_OK;
    saf__pass *p = NULL;
    taker t = {.base = NULL};
    int64_t values = saf__pass_values(d, threads);
    if (values < 0)
        return saf_fail(SAF_NO_MEMORY, "cannot train with micro-batches of %lld tokens",
                        (long long)d->tokens);
    SAF_TRY(saf_alloc(1, sizeof *p, &p));
    p->d = *d;
    p->pairs = shape->arch == SAF_ARCH_LLAMA ? SAF_ROPE_ADJACENT : SAF_ROPE_HALVES;
    SAF_TRY(saf_alloc_large((size_t)values, sizeof(float), &p->memory));
    SAF_TRY(saf_alloc((size_t)d->layers, sizeof *p->kept, &p->kept));
    SAF_TRY(saf_alloc((size_t)d->tokens, sizeof *p->row_loss, &p->row_loss));
    t.base = p->memory;
    take_all(d, threads, &t, p);
    SAF_TRY(make_rope(p, shape->rope_base));
    *out = p;
    p = NULL;
out:
    saf__pass_free(&p);
    return st;
}

void saf__pass_free(saf__pass **pass) {
    saf__pass *p = *pass;
    if (p) {
        saf_free(&p->memory);
        saf_free(&p->kept);
        saf_free(&p->row_loss);
    }
    saf_free(pass);
}

/* ---- forwards -------------------------------------------------------------------------------- */

static int64_t id_at(const saf__dims *d, const saf__sequences *in, int64_t row) {
    return in->ids[row / d->context * (d->context + 1) + row % d->context];
}

static void look_up(const saf__pass *p, const saf__team *team, const float *embedding,
                    const saf__sequences *in, float *x) {
    const saf__dims *d = &p->d;
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t t = 0; t < d->tokens; t++)
        memcpy(x + t * d->width, embedding + id_at(d, in, t) * d->width,
               (size_t)d->width * sizeof *x);
}

/* q, k and v as attention takes them. */
static void make_heads(const saf__pass *p, saf__team *team, const saf__layer *w,
                       const saf__kept *k) {
    const saf__dims *d = &p->d;
    const saf__product products[] = {
        saf__product_forward(k->attn_in, w->q, k->raw_q, d->tokens, d->q_cols, d->width),
        saf__product_forward(k->attn_in, w->k, k->raw_k, d->tokens, d->kv_cols, d->width),
        saf__product_forward(k->attn_in, w->v, k->v, d->tokens, d->kv_cols, d->width)};
    saf__products(team, products, 3);
    if (d->qk_norm) {
        saf__norm(team, k->raw_q, w->q_norm, d->norm_eps, d->tokens * d->heads, d->head_width,
                  k->q_inverse, k->q);
        saf__norm(team, k->raw_k, w->k_norm, d->norm_eps, d->tokens * d->kv_heads, d->head_width,
                  k->k_inverse, k->k);
    }
    saf__rope(team, d, p->pairs, p->rope, d->heads, false, k->q);
    saf__rope(team, d, p->pairs, p->rope, d->kv_heads, false, k->k);
}

/* y[N, D] = x + what the product made of it. */
static void multiply_and_add(const saf__dims *d, saf__team *team, const float *in, const float *w,
                             int64_t cols, const float *x, float *y) {
    saf__product product = saf__product_forward(in, w, y, d->tokens, d->width, cols);
    saf__products(team, &product, 1);
    saf__add(team, x, d->tokens * d->width, y);
}

static void forward_layer(saf__pass *p, saf__team *team, const saf__layer *w, const saf__kept *k,
                          float *out) {
    const saf__dims *d = &p->d;
    saf__norm(team, k->x, w->attn_norm, d->norm_eps, d->tokens, d->width, k->attn_inverse,
              k->attn_in);
    make_heads(p, team, w, k);
    saf__attend(team, d, k->q, k->k, k->v, p->scratch, k->stats, k->heads);
    multiply_and_add(d, team, k->heads, w->o, d->q_cols, k->x, k->mid);
    saf__norm(team, k->mid, w->ffn_norm, d->norm_eps, d->tokens, d->width, k->ffn_inverse,
              k->ffn_in);
    const saf__product products[] = {
        saf__product_forward(k->ffn_in, w->gate, k->gate, d->tokens, d->ff_width, d->width),
        saf__product_forward(k->ffn_in, w->up, k->up, d->tokens, d->ff_width, d->width)};
    saf__products(team, products, 2);
    saf__silu(team, k->gate, k->up, d->tokens * d->ff_width, p->h);
    multiply_and_add(d, team, p->h, w->down, d->ff_width, k->mid, out);
}

void saf__pass_forward(saf__pass *p, saf__team *team, float *values, const saf__sequences *in) {
    const saf__dims *d = &p->d;
    look_up(p, team, values + d->embed, in, p->kept[0].x);
    for (int64_t i = 0; i < d->layers; i++) {
        saf__layer w = saf__layer_at(d, values, i);
        forward_layer(p, team, &w, &p->kept[i], i + 1 < d->layers ? p->kept[i + 1].x : p->x);
    }
    saf__norm(team, p->x, values + d->out_norm, d->norm_eps, d->tokens, d->width, p->inverse,
              p->normed);
}
