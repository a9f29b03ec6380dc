/* The layers of a stage, or of the part of it that one of several ranks has: llama, qwen2 and qwen3
 * blocks.
 *
 * The kernels share their work out among the threads, and each call of one is one meeting of
 * theirs: ten a layer. Shapes, with T the rows of the batch: x[T,D]
 * --norm--> h[T,D] --> q[T,H*C] k,v[T,HKV*C] --rope, cache--> a[T,H*C] --o--> h, x += h x[T,D]
 * --norm--> h[T,D] --> gate,up[T,F] --silu--> gate --down--> h, x += h
 *
 * Ranks. A rank that has a part works out the columns of its rows of each matrix, and the heads of
 * its rows of q: q, k, v, a, gate, up and what is added to x have these columns alone. It norms all
 * of x, for itself. The ranks meet (meetings.c) where all columns are needed: of x, by the norms,
 * and of what o and down multiply.
 */
#include "model/stage.h"

void saf__stage_mark(saf_stage *s, saf_step step) {
    if (!s->profile) return;
#pragma omp master
    {
        double now = saf_clock_s();
        s->profile->seconds[step] += now - s->since_s;
        s->since_s = now;
    }
}

void saf__stage_meet(saf_stage *s, saf__meeting what) {
    if (!s->meetings) return;
    saf__meetings_meet(s->meetings, what);
    saf__stage_mark(s, SAF_STEP_EXCHANGE);
}

bool saf__stage_apart(const saf_stage *s) {
    return s->meetings && s->meetings->status != SAF_OK;
}

/* finite: of the layer before, or NULL. */
static void attention_block(saf_stage *s, const saf__layer *l, const saf_attn_seq *seqs,
                            const saf_batch *batch, float *x, bool *finite) {
    const saf_model_params *p = s->p;
    const saf_slice_range *r = &s->slice->range;
    int64_t T = batch->tokens, D = p->width, C = p->head_width;
    saf_kv_type type = saf__kv_cache_type(s->kv);
    const saf_row_product qkv[] = {{&l->q, s->q, s->q_width, NULL, 0},
                                   {&l->k, s->k, s->kv_width, NULL, 0},
                                   {&l->v, s->v, s->kv_width, NULL, 0}};
    const saf_row_product o = {&l->o, s->h, s->width, x + r->width.begin, D};
    const saf_attn_heads heads = {.q_bias = l->q_bias,
                                  .k_bias = l->k_bias,
                                  .v_bias = l->v_bias,
                                  .q_norm = l->q_norm,
                                  .k_norm = l->k_norm,
                                  .norm_eps = p->norm_eps,
                                  .rope_pairs = p->rope_pairs,
                                  .rope_half = p->rope_half,
                                  .rope = s->rope};
    saf_acts *acts = s->meetings ? s->meetings->acts : s->acts;
    saf_acts_form form = saf_acts_form_of(acts, &o, 1, T);
    saf_acts_set_norm(s->acts, x, D, l->attn_norm, p->norm_eps, T, D,
                      saf_acts_form_of(s->acts, qkv, 3, T), finite, s->h, D);
    saf__stage_mark(s, SAF_STEP_NORM);
    saf_matmul(qkv, 3, s->acts);
    saf__stage_mark(s, SAF_STEP_QKV);
    saf_attn_store(&heads, &s->shape, type, seqs, batch->n_runs, s->q, s->q_width, s->k, s->v,
                   s->kv_width);
    saf__stage_mark(s, SAF_STEP_HEADS);
    saf_attention(&s->shape, type, seqs, batch->n_runs, p->attention_scale, s->q, s->q_width, s->a,
                  s->q_width, s->scratch);
    saf__stage_mark(s, SAF_STEP_ATTENTION);
    if (s->meetings)
        saf_acts_set_part(acts, s->a, s->q_width, T, p->heads * C,
                          (saf_span){r->heads.begin * C, r->heads.end * C}, form);
    else
        saf_acts_set(acts, s->a, s->q_width, T, s->q_width, form);
    saf__stage_mark(s, SAF_STEP_QUANTISE);
    saf__stage_meet(s, (saf__meeting)(SAF__MEET_ATTENTION + form));
    saf_matmul(&o, 1, acts);
    saf__stage_mark(s, SAF_STEP_O);
    saf__stage_meet(s, SAF__MEET_COLUMNS);
}

static void feed_forward_block(saf_stage *s, const saf__layer *l, const saf_batch *batch,
                               float *x) {
    const saf_model_params *p = s->p;
    const saf_slice_range *r = &s->slice->range;
    int64_t T = batch->tokens, D = p->width, F = s->ff_width;
    const saf_row_product gate_up[] = {{&l->gate, s->gate, F, NULL, 0},
                                       {&l->up, s->up, F, NULL, 0}};
    const saf_row_product down = {&l->down, s->h, s->width, x + r->width.begin, D};
    saf_acts *acts = s->meetings ? s->meetings->acts : s->acts;
    saf_acts_form form = saf_acts_form_of(acts, &down, 1, T);
    saf_acts_set_norm(s->acts, x, D, l->ffn_norm, p->norm_eps, T, D,
                      saf_acts_form_of(s->acts, gate_up, 2, T), NULL, s->h, D);
    saf__stage_mark(s, SAF_STEP_NORM);
    saf_matmul(gate_up, 2, s->acts);
    saf__stage_mark(s, SAF_STEP_GATE_UP);
    if (s->meetings)
        saf_acts_set_silu_part(acts, s->gate, s->up, F, T, p->ff_width, r->ff, form);
    else
        saf_acts_set_silu(acts, s->gate, s->up, F, T, F, form, s->gate, F);
    saf__stage_mark(s, SAF_STEP_SILU);
    saf__stage_meet(s, (saf__meeting)(SAF__MEET_FF + form));
    saf_matmul(&down, 1, acts);
    saf__stage_mark(s, SAF_STEP_DOWN);
    saf__stage_meet(s, SAF__MEET_COLUMNS);
}

void saf__stage_embed(saf_stage *s, const saf_batch *batch, float *x) {
    const saf_model_params *p = s->p;
    const saf_slice_range *r = &s->slice->range;
    if (r->embedding) {
#pragma omp for schedule(static) nowait
        for (int64_t t = 0; t < batch->tokens; t++)
            if (batch->ids[t] >= r->vocab.begin && batch->ids[t] < r->vocab.end)
                saf_weight_row(&s->slice->embedding, batch->ids[t] - r->vocab.begin,
                               x + t * p->width);
    }
    saf_rope_table(p->inv_freq, p->rope_half, p->rope_scale, s->positions, batch->tokens, s->rope);
    saf__stage_mark(s, SAF_STEP_EMBED);
    if (r->embedding) saf__stage_meet(s, SAF__MEET_ROWS);
}

void saf__stage_layer(saf_stage *s, int64_t layer, const saf_batch *batch, float *x, bool *finite) {
    const saf__layer *l = &s->slice->layers[layer];
    attention_block(s, l, s->seqs + layer * batch->n_runs, batch, x, finite);
    feed_forward_block(s, l, batch, x);
}
