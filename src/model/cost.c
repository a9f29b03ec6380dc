/* What a forward pass cannot do without: bytes from memory and operations, counted from shapes. */
#include "model/stage.h"

const char *saf_step_name(saf_step step) {
    static const char *const names[SAF_STEP_COUNT] = {
#define X(name, text) text,
        SAF_STEP_LIST(X)
#undef X
    };
    return (unsigned)step < SAF_STEP_COUNT ? names[step] : "unknown";
}

static int64_t matrix_bytes(const saf_weight *w, int64_t rows) {
    size_t bytes = 0;
    (void)saf_dtype_bytes(w->dtype, rows * w->cols, &bytes); /* fits, or it could not be loaded */
    return (int64_t)bytes;
}

/* A matrix is read once however many rows it is multiplied with. */
static void add_product(saf_cost *c, const saf_weight *w, int64_t tokens) {
    int64_t ops = 2 * w->rows * w->cols * tokens;
    if (tokens == 0) return;
    c->weight_bytes += matrix_bytes(w, w->rows);
    *(saf_dtype_is_quantised(w->dtype) ? &c->int8_ops : &c->float_ops) += ops;
}

static void add_vector(saf_cost *c, const float *v, int64_t n) {
    if (v) c->weight_bytes += n * (int64_t)sizeof *v;
}

static void add_layer(const saf_model_params *p, const saf__layer *l, int64_t tokens,
                      saf_cost *out) {
    add_vector(&out[SAF_STEP_NORM], l->attn_norm, p->width);
    add_vector(&out[SAF_STEP_NORM], l->ffn_norm, p->width);
    add_vector(&out[SAF_STEP_HEADS], l->q_norm, p->head_width);
    add_vector(&out[SAF_STEP_HEADS], l->k_norm, p->head_width);
    add_vector(&out[SAF_STEP_HEADS], l->q_bias, l->q.rows);
    add_vector(&out[SAF_STEP_HEADS], l->k_bias, l->k.rows);
    add_vector(&out[SAF_STEP_HEADS], l->v_bias, l->v.rows);
    add_product(&out[SAF_STEP_QKV], &l->q, tokens);
    add_product(&out[SAF_STEP_QKV], &l->k, tokens);
    add_product(&out[SAF_STEP_QKV], &l->v, tokens);
    add_product(&out[SAF_STEP_O], &l->o, tokens);
    add_product(&out[SAF_STEP_GATE_UP], &l->gate, tokens);
    add_product(&out[SAF_STEP_GATE_UP], &l->up, tokens);
    add_product(&out[SAF_STEP_DOWN], &l->down, tokens);
}

/* One layer's: a row at position p reads p + 1 keys and values, but the rows of a run share them.
 */
static void add_attention(const saf_stage *s, const saf_run *run, saf_cost *c) {
    const saf_slice *slice = s->slice;
    int64_t width = slice->params->head_width;
    saf_span q = slice->range.heads, kv = saf_slice_kv_heads(slice->params, slice->range);
    saf_kv_type type = saf__kv_cache_type(s->kv);
    int64_t end = (int64_t)run->pos0 + run->tokens;
    /* the sum of p + 1 over p in [pos0, end) */
    int64_t pairs = (end * (end + 1) - (int64_t)run->pos0 * (run->pos0 + 1)) / 2;
    c->kv_bytes += 2 * (int64_t)saf_kv_bytes(type, end, kv.end - kv.begin, width);
    c->float_ops += 2 * 2 * (q.end - q.begin) * width * pairs;
}

void saf_stage_cost(const saf_stage *s, const saf_batch *batch, saf_cost out[SAF_STEP_COUNT]) {
    const saf_slice *slice = s->slice;
    const saf_model_params *p = slice->params;
    int64_t layers = slice->range.layer1 - slice->range.layer0, wanted = 0;
    memset(out, 0, SAF_STEP_COUNT * sizeof *out);
    if (slice->range.embedding) {
        saf_span vocab = slice->range.vocab;
        for (int32_t t = 0; t < batch->tokens; t++)
            if (batch->ids[t] >= vocab.begin && batch->ids[t] < vocab.end)
                out[SAF_STEP_EMBED].weight_bytes += matrix_bytes(&slice->embedding, 1);
    }
    for (int64_t i = 0; i < layers; i++) add_layer(p, &slice->layers[i], batch->tokens, out);
    for (int32_t i = 0; i < batch->n_runs; i++) {
        saf_cost one = {0};
        add_attention(s, &batch->runs[i], &one);
        out[SAF_STEP_ATTENTION].kv_bytes += layers * one.kv_bytes;
        out[SAF_STEP_ATTENTION].float_ops += layers * one.float_ops;
        wanted += batch->runs[i].logits;
    }
    if (!slice->range.head || wanted == 0) return;
    add_vector(&out[SAF_STEP_NORM], slice->output_norm, p->width);
    add_product(&out[SAF_STEP_HEAD], saf__slice_head(slice), wanted);
}
