/* The way back through the layers. */
#include "train/train.h"

/* From dx, the gradient of what leaves the layer, to that of what came out of attention's half. */
static void back_ffn(saf__pass *p, saf__team *team, const saf__layer *w, const saf__kept *k,
                     const saf__layer *g) {
    const saf__dims *d = &p->d;
    int64_t n = d->tokens, f = d->ff_width;
    saf__product products[SAF__PRODUCTS];
    products[0] = saf__product_inputs(p->dx, w->down, p->dh, n, d->width, f);
    saf__products(team, products, 1);
    saf__silu_back(team, k->gate, k->up, p->dh, n * f, p->h, p->dgate, p->dup);
    products[0] = saf__product_inputs(p->dgate, w->gate, p->dnormed, n, f, d->width);
    saf__product_also(&products[0], p->dup, w->up, f);
    products[1] = saf__product_weights(p->dx, p->h, g->down, n, d->width, f);
    products[2] = saf__product_weights(p->dgate, k->ffn_in, g->gate, n, f, d->width);
    products[3] = saf__product_weights(p->dup, k->ffn_in, g->up, n, f, d->width);
    saf__products(team, products, 4);
    saf__norm_back(team, k->mid, w->ffn_norm, k->ffn_inverse, p->dnormed, n, d->width, true, p->dx,
                   g->ffn_norm);
}

/* From the gradients of q and k as attention takes them to those of the products. */
static void back_heads(saf__pass *p, saf__team *team, const saf__layer *w, const saf__kept *k,
                       const saf__layer *g) {
    const saf__dims *d = &p->d;
    saf__rope(team, d, p->pairs, p->rope, d->heads, true, p->dq);
    saf__rope(team, d, p->pairs, p->rope, d->kv_heads, true, p->dk);
    if (!d->qk_norm) return;
    saf__norm_back(team, k->raw_q, w->q_norm, k->q_inverse, p->dq, d->tokens * d->heads,
                   d->head_width, false, p->draw_q, g->q_norm);
    saf__norm_back(team, k->raw_k, w->k_norm, k->k_inverse, p->dk, d->tokens * d->kv_heads,
                   d->head_width, false, p->draw_k, g->k_norm);
}

static void back_attention(saf__pass *p, saf__team *team, const saf__layer *w, const saf__kept *k,
                           const saf__layer *g) {
    const saf__dims *d = &p->d;
    int64_t n = d->tokens;
    saf__product products[SAF__PRODUCTS];
    products[0] = saf__product_inputs(p->dx, w->o, p->dheads, n, d->width, d->q_cols);
    products[1] = saf__product_weights(p->dx, k->heads, g->o, n, d->width, d->q_cols);
    saf__products(team, products, 2);
    saf__attend_back(team, d, k->q, k->k, k->v, k->heads, p->dheads, k->stats, p->scratch, p->dq,
                     p->dk, p->dv);
    back_heads(p, team, w, k, g);
    products[0] = saf__product_inputs(p->draw_q, w->q, p->dnormed, n, d->q_cols, d->width);
    saf__product_also(&products[0], p->draw_k, w->k, d->kv_cols);
    saf__product_also(&products[0], p->dv, w->v, d->kv_cols);
    products[1] = saf__product_weights(p->draw_q, k->attn_in, g->q, n, d->q_cols, d->width);
    products[2] = saf__product_weights(p->draw_k, k->attn_in, g->k, n, d->kv_cols, d->width);
    products[3] = saf__product_weights(p->dv, k->attn_in, g->v, n, d->kv_cols, d->width);
    saf__products(team, products, 4);
    saf__norm_back(team, k->x, w->attn_norm, k->attn_inverse, p->dnormed, n, d->width, true, p->dx,
                   g->attn_norm);
}

/* Rows of the embedding's gradient, tokens ascending; a thread has whole columns. Tied, the head's
 * is there already. */
static void back_embedding(const saf__pass *p, const saf__team *team, const saf__sequences *in,
                           float *gradient) {
    const saf__dims *d = &p->d;
    enum { COLUMNS = 64 };
    if (!d->tied) memset(gradient, 0, (size_t)(d->vocab * d->width) * sizeof *gradient);
#pragma omp parallel for schedule(static) num_threads(team->threads)
    for (int64_t c = 0; c < d->width; c += COLUMNS) {
        int64_t cols = saf_i64_min(COLUMNS, d->width - c);
        for (int64_t t = 0; t < d->tokens; t++) {
            int64_t id = in->ids[t / d->context * (d->context + 1) + t % d->context];
            float *to = gradient + id * d->width + c;
            const float *from = p->dx + t * d->width + c;
            for (int64_t i = 0; i < cols; i++) to[i] += from[i];
        }
    }
}

saf_status saf__pass_back(saf__pass *p, saf__team *team, float *values, const saf__sequences *in,
                          const saf__back *back, float *gradients) {
    saf_status st = SAF_OK;
    const saf__dims *d = &p->d;
    saf__norm_back(team, p->x, values + d->out_norm, p->inverse, p->dnormed, d->tokens, d->width,
                   false, p->dx, gradients + d->out_norm);
    SAF_TRY(back->ready(back->ctx, d->layers));
    for (int64_t i = d->layers - 1; i >= 0; i--) {
        saf__layer w = saf__layer_at(d, values, i), g = saf__layer_at(d, gradients, i);
        back_ffn(p, team, &w, &p->kept[i], &g);
        back_attention(p, team, &w, &p->kept[i], &g);
        SAF_TRY(back->ready(back->ctx, i));
    }
    back_embedding(p, team, in, gradients + d->embed);
    SAF_TRY(back->ready(back->ctx, -1));
out:
    return st;
}
