/* The forward pass of one pipeline stage: llama, qwen2 and qwen3 blocks.
 *
 * One parallel region spans all layers; the kernels share their work out inside it, and each call
 * of one is one meeting of the threads: ten a layer. Shapes, with T the rows of the batch: x[T,D]
 * --norm--> h[T,D] --> q[T,H*C] k,v[T,HKV*C] --rope, cache--> a[T,H*C] --o--> h, x += h x[T,D]
 * --norm--> h[T,D] --> gate,up[T,F] --silu--> gate --down--> h, x += h
 */
#include <stdlib.h>

#include "model/slice.h"
#include "model/stage.h"

struct saf_stage {
    const saf_model_params *p;
    saf_slice *slice;
    saf_kv_cache *kv;
    saf_profile *profile; /* NULL unless asked for */
    double since_s;       /* the end of the step before, where there is a profile */
    int64_t max_tokens, max_runs, max_logits;
    size_t bytes;
    saf_acts *acts;
    saf_attn_scratch *scratch;
    float *h; /* [T or max_logits, D] */
    float *q, *k, *v, *a, *gate, *up;
    float *rope;        /* [T, rope_half, 2] */
    float *last;        /* [max_logits, D] the rows that want logits */
    int32_t *positions; /* [T] */
    bool *finite;       /* [layers, T] whether each layer left each row so */
    saf_attn_seq *seqs; /* [layers, runs] */
};

static saf_status take(saf_stage *s, int64_t n, size_t size, void *out) {
    s->bytes += (size_t)n * size;
    return saf_alloc((size_t)n, size, out);
}

saf_status saf_stage_new(const saf_model_params *p, saf_slice *slice, saf_kv_cache *kv,
                         int64_t max_tokens, int64_t max_runs, int64_t max_logits,
                         const saf_stage_group *group, saf_stage **out) {
    saf_status st = SAF_OK;
    saf_stage *s = NULL;
    int64_t q_width = p->heads * p->head_width, kv_width = p->kv_heads * p->head_width;
    int64_t widest = saf_i64_max(saf_i64_max(p->width, p->ff_width), q_width);
    int64_t rows = saf_i64_max(max_tokens, max_logits);
    int64_t layers = slice->range.layer1 - slice->range.layer0;
    if (group) return saf_fail(SAF_DEFECT, "a stage of several ranks");
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->p = p;
    s->slice = slice;
    s->kv = kv;
    s->max_tokens = max_tokens;
    s->max_runs = max_runs;
    s->max_logits = max_logits;
    SAF_TRY(saf_acts_new(rows, widest, &s->acts));
    int64_t capacity = saf__kv_cache_capacity(kv);
    const saf_attn_shape shape = saf_attn_shape_whole(p->heads, p->kv_heads, p->head_width);
    SAF_TRY(saf_attn_scratch_new(&shape, capacity, &s->scratch));
    s->bytes = saf_acts_bytes(rows, widest) + saf_attn_scratch_bytes(&shape, capacity);
    SAF_TRY(take(s, rows * p->width, sizeof(float), &s->h));
    SAF_TRY(take(s, max_tokens * q_width, sizeof(float), &s->q));
    SAF_TRY(take(s, max_tokens * kv_width, sizeof(float), &s->k));
    SAF_TRY(take(s, max_tokens * kv_width, sizeof(float), &s->v));
    SAF_TRY(take(s, max_tokens * q_width, sizeof(float), &s->a));
    SAF_TRY(take(s, max_tokens * p->ff_width, sizeof(float), &s->gate));
    SAF_TRY(take(s, max_tokens * p->ff_width, sizeof(float), &s->up));
    SAF_TRY(take(s, max_tokens * p->rope_half * 2, sizeof(float), &s->rope));
    SAF_TRY(take(s, max_logits * p->width, sizeof(float), &s->last));
    SAF_TRY(take(s, max_tokens, sizeof *s->positions, &s->positions));
    SAF_TRY(take(s, layers * max_tokens, sizeof *s->finite, &s->finite));
    SAF_TRY(take(s, layers * max_runs, sizeof *s->seqs, &s->seqs));
    *out = s;
    s = NULL;
out:
    saf_stage_free(&s);
    return st;
}

void saf_stage_free(saf_stage **stage) {
    saf_stage *s = *stage;
    if (!s) return;
    saf_acts_free(&s->acts);
    saf_attn_scratch_free(&s->scratch);
    float **buffers[] = {&s->h, &s->q, &s->k, &s->v, &s->a, &s->gate, &s->up, &s->rope, &s->last};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) saf_free(buffers[i]);
    saf_free(&s->positions);
    saf_free(&s->finite);
    saf_free(&s->seqs);
    saf_free(stage);
}

size_t saf_stage_bytes(const saf_stage *s) {
    return s->bytes;
}

const saf_slice *saf__stage_slice(const saf_stage *s) {
    return s->slice;
}

const saf_kv_cache *saf__stage_kv_cache(const saf_stage *s) {
    return s->kv;
}

/* ---- profile ---- */

void saf_stage_profile(saf_stage *s, saf_profile *profile) {
    s->profile = profile;
}

/* A step is over for every thread of the team: each ends with a barrier, so that one thread's
 * clock tells. */
static void mark(saf_stage *s, saf_step step) {
    if (!s->profile) return;
#pragma omp master
    {
        double now = saf_clock_s();
        s->profile->seconds[step] += now - s->since_s;
        s->since_s = now;
    }
}

static void mark_begin(saf_stage *s) {
    if (s->profile) s->since_s = saf_clock_s();
}

/* ---- parts of a layer; called by every thread of the team --------------------------------------
 */

static bool quantised(const saf_weight *w) {
    return saf_dtype_is_quantised(w->dtype);
}

/* finite: of the layer before, or NULL. */
static void attention_block(saf_stage *s, const saf__layer *l, const saf_attn_seq *seqs,
                            const saf_batch *batch, float *x, bool *finite) {
    const saf_model_params *p = s->p;
    int64_t T = batch->tokens, D = p->width, C = p->head_width, H = p->heads, HKV = p->kv_heads;
    saf_kv_type type = saf__kv_cache_type(s->kv);
    const saf_attn_shape shape = saf_attn_shape_whole(H, HKV, C);
    const saf_product qkv[] = {{&l->q, s->q, H * C, NULL, 0},
                               {&l->k, s->k, HKV * C, NULL, 0},
                               {&l->v, s->v, HKV * C, NULL, 0}};
    const saf_product o = {&l->o, s->h, D, x, D};
    const saf_attn_heads heads = {.q_bias = l->q_bias,
                                  .k_bias = l->k_bias,
                                  .v_bias = l->v_bias,
                                  .q_norm = l->q_norm,
                                  .k_norm = l->k_norm,
                                  .norm_eps = p->norm_eps,
                                  .rope_pairs = p->rope_pairs,
                                  .rope_half = p->rope_half,
                                  .rope = s->rope};
    saf_acts_set_norm(s->acts, x, D, l->attn_norm, p->norm_eps, T, D,
                      quantised(&l->q) || quantised(&l->k) || quantised(&l->v), finite, s->h, D);
    mark(s, SAF_STEP_NORM);
    saf_matmul(qkv, 3, s->acts);
    mark(s, SAF_STEP_QKV);
    saf_attn_store(&heads, &shape, type, seqs, batch->n_runs, s->q, H * C, s->k, s->v, HKV * C);
    mark(s, SAF_STEP_HEADS);
    saf_attention(&shape, type, seqs, batch->n_runs, p->attention_scale, s->q, H * C, s->a, H * C,
                  s->scratch);
    mark(s, SAF_STEP_ATTENTION);
    saf_acts_set(s->acts, s->a, H * C, T, H * C, quantised(&l->o));
    mark(s, SAF_STEP_QUANTISE);
    saf_matmul(&o, 1, s->acts);
    mark(s, SAF_STEP_O);
}

static void feed_forward_block(saf_stage *s, const saf__layer *l, const saf_batch *batch,
                               float *x) {
    const saf_model_params *p = s->p;
    int64_t T = batch->tokens, D = p->width, F = p->ff_width;
    const saf_product gate_up[] = {{&l->gate, s->gate, F, NULL, 0}, {&l->up, s->up, F, NULL, 0}};
    const saf_product down = {&l->down, s->h, D, x, D};
    saf_acts_set_norm(s->acts, x, D, l->ffn_norm, p->norm_eps, T, D,
                      quantised(&l->gate) || quantised(&l->up), NULL, s->h, D);
    mark(s, SAF_STEP_NORM);
    saf_matmul(gate_up, 2, s->acts);
    mark(s, SAF_STEP_GATE_UP);
    saf_acts_set_silu(s->acts, s->gate, s->up, F, T, F, quantised(&l->down), s->gate, F);
    mark(s, SAF_STEP_SILU);
    saf_matmul(&down, 1, s->acts);
    mark(s, SAF_STEP_DOWN);
}

/* ---- before and after the layers; one thread ---------------------------------------------------
 */

/* Where each layer keeps keys and values of each run. */
static void find_sequences(saf_stage *s, const saf_batch *batch, int64_t layers) {
    for (int64_t layer = 0; layer < layers; layer++) {
        saf_attn_seq *seq = s->seqs + layer * batch->n_runs;
        int64_t row = 0;
        for (const saf_run *run = batch->runs; run < batch->runs + batch->n_runs; run++, seq++) {
            *seq = (saf_attn_seq){.stride = saf__kv_cache_stride(s->kv),
                                  .pos0 = run->pos0,
                                  .tokens = run->tokens,
                                  .row0 = row};
            saf__kv_cache_layer(s->kv, run->slot, layer, &seq->k, &seq->v);
            row += run->tokens;
        }
    }
}

/* Notes of each run the earliest row that is not finite, and the first layer that it left so: later
 * rows attend to it, but it never to them, so what is noted does not depend on where a prompt is
 * cut. */
static void note_faults(const saf_stage *s, const saf_batch *batch, int64_t layers,
                        saf_fault *faults) {
    int64_t row = 0;
    for (int32_t i = 0; i < batch->n_runs; i++) {
        const saf_run *run = &batch->runs[i];
        faults[i] = (saf_fault){-1, -1, -1};
        for (int32_t t = 0; t < run->tokens && faults[i].run < 0; t++)
            for (int64_t layer = layers - 1; layer >= 0; layer--)
                if (!s->finite[layer * batch->tokens + row + t])
                    faults[i] =
                        (saf_fault){i, (int32_t)(s->slice->range.layer0 + layer), run->pos0 + t};
        row += run->tokens;
    }
}

static void keep_last_rows(saf_stage *s, const saf_batch *batch, const float *x) {
    int64_t D = s->p->width, row = 0, n = 0;
    for (const saf_run *run = batch->runs; run < batch->runs + batch->n_runs; run++) {
        row += run->tokens;
        memcpy(s->last + n * D, x + (row - run->logits) * D, (size_t)(run->logits * D) * sizeof *x);
        n += run->logits;
    }
}

/* ---- the pass ----------------------------------------------------------------------------------
 */

saf_status saf_stage_logits(saf_stage *s, int64_t row0, int64_t n, float *logits, bool *finite) {
    const saf_weight *head = saf__slice_head(s->slice);
    int64_t D = s->p->width;
    const saf_product product = {head, logits, s->p->vocab, NULL, 0};
    for (int64_t i = 0; i < n; i++) finite[i] = true;
    mark_begin(s);
#pragma omp parallel
    {
        saf_acts_set_norm(s->acts, s->last + row0 * D, D, s->slice->output_norm, s->p->norm_eps, n,
                          D, quantised(head), NULL, s->h, D);
        mark(s, SAF_STEP_NORM);
        saf_matmul(&product, 1, s->acts);
        mark(s, SAF_STEP_HEAD);
        saf_rows_finite(logits, s->p->vocab, n, s->p->vocab, finite);
        mark(s, SAF_STEP_CHECK);
    }
    return SAF_OK;
}

saf_status saf_stage_forward(saf_stage *s, const saf_batch *batch, float *x, saf_fault *faults) {
    const saf_model_params *p = s->p;
    const saf_slice_range range = s->slice->range;
    int64_t T = batch->tokens, D = p->width, layers = range.layer1 - range.layer0;
    int64_t row = 0, wanted = 0;
    if (batch->tokens > s->max_tokens || batch->n_runs > s->max_runs)
        return saf_fail(SAF_DEFECT, "a batch of %d rows in %d runs exceeds %lld in %lld",
                        batch->tokens, batch->n_runs, (long long)s->max_tokens,
                        (long long)s->max_runs);
    for (int32_t i = 0; i < batch->n_runs; i++) {
        const saf_run *run = &batch->runs[i];
        for (int32_t t = 0; t < run->tokens; t++) s->positions[row++] = run->pos0 + t;
        wanted += run->logits;
    }
    if (range.head && wanted > s->max_logits)
        return saf_fail(SAF_DEFECT, "a batch wants %lld rows of logits, room for %lld",
                        (long long)wanted, (long long)s->max_logits);
    find_sequences(s, batch, layers);
    memset(s->finite, true, (size_t)(layers * T) * sizeof *s->finite);
    mark_begin(s);
#pragma omp parallel
    {
        bool *finite = NULL;
        if (range.embedding) {
#pragma omp for schedule(static) nowait
            for (int64_t t = 0; t < T; t++)
                saf_weight_row(&s->slice->embedding, batch->ids[t], x + t * D);
        }
        saf_rope_table(p->inv_freq, p->rope_half, p->rope_scale, s->positions, T, s->rope);
        mark(s, SAF_STEP_EMBED);
        for (int64_t layer = 0; layer < layers; layer++) {
            const saf__layer *l = &s->slice->layers[layer];
            attention_block(s, l, s->seqs + layer * batch->n_runs, batch, x, finite);
            feed_forward_block(s, l, batch, x);
            finite = s->finite + layer * T;
        }
        if (finite) saf_rows_finite(x, D, T, D, finite);
        mark(s, SAF_STEP_CHECK);
    }
    note_faults(s, batch, layers, faults);
    if (range.head) keep_last_rows(s, batch, x);
    return SAF_OK;
}
