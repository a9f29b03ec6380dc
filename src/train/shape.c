/* What can be trained, and where its tensors lie among the parameters. */
#include <math.h>
#include <stdio.h>

#include "train/train.h"

enum { LAYERS_MOST = 1024, LENGTH_MOST = 1 << 18, VOCAB_MOST = 1 << 21 };

static saf_status check_length(const char *name, int64_t v, int64_t least, int64_t most) {
    if (v >= least && v <= most) return SAF_OK;
    return saf_fail(SAF_USAGE, "cannot train a model with %s %lld: expected %lld to %lld", name,
                    (long long)v, (long long)least, (long long)most);
}

saf_status saf_train_shape_check(const saf_train_shape *s) {
    saf_status st = SAF_OK;
    if (s->arch != SAF_ARCH_LLAMA && s->arch != SAF_ARCH_QWEN3)
        return saf_fail(SAF_USAGE, "saf trains llama and qwen3, no %s",
                        (unsigned)s->arch <= SAF_ARCH_QWEN3 ? saf_arch_name(s->arch) : "other");
    SAF_TRY(check_length("layers", s->layers, 1, LAYERS_MOST));
    SAF_TRY(check_length("width", s->width, 1, LENGTH_MOST));
    SAF_TRY(check_length("heads", s->heads, 1, LENGTH_MOST));
    SAF_TRY(check_length("key-value heads", s->kv_heads, 1, s->heads));
    SAF_TRY(check_length("head width", s->head_width, 2, SAF_MAX_HEAD_WIDTH));
    SAF_TRY(check_length("heads times their width", s->heads * s->head_width, 2, LENGTH_MOST));
    SAF_TRY(check_length("feed-forward width", s->ff_width, 1, LENGTH_MOST));
    SAF_TRY(check_length("vocabulary", s->vocab, 2, VOCAB_MOST));
    SAF_TRY(check_length("context", s->context, 1, LENGTH_MOST));
    if (s->heads % s->kv_heads != 0 || s->head_width % 2 != 0)
        st = saf_fail(SAF_USAGE,
                      "cannot train %lld heads of width %lld with %lld key-value heads: expected a "
                      "multiple of the key-value heads, and an even width",
                      (long long)s->heads, (long long)s->head_width, (long long)s->kv_heads);
    else if (!(s->rope_base > 1 && s->rope_base <= 1e30) ||
             !(s->norm_eps >= 1e-12 && s->norm_eps <= 1))
        st = saf_fail(SAF_USAGE,
                      "cannot train with a rotary base of %g and a norm's epsilon of %g: expected "
                      "more than 1, and 1e-12 to 1",
                      s->rope_base, s->norm_eps);
out:
    return st;
}

/* ---- tensors --------------------------------------------------------------------------------- */

typedef struct {
    saf_train_tensor *tensors; /* NULL: only counted */
    int64_t n, values;
} listing;

static void list(listing *l, int64_t layer, const char *name, int64_t cols, int64_t rows,
                 bool decay) {
    int64_t count = cols * (rows ? rows : 1);
    if (l->tensors) {
        saf_train_tensor *t = &l->tensors[l->n];
        *t = (saf_train_tensor){
            .cols = cols, .rows = rows, .offset = l->values, .count = count, .decay = decay};
        if (layer < 0)
            (void)snprintf(t->name, sizeof t->name, "%s", name);
        else
            (void)snprintf(t->name, sizeof t->name, "blk.%lld.%s", (long long)layer, name);
    }
    l->n++;
    l->values += count;
}

static void list_layer(const saf_train_shape *s, int64_t i, listing *l) {
    int64_t q = s->heads * s->head_width, kv = s->kv_heads * s->head_width;
    list(l, i, "attn_norm.weight", s->width, 0, false);
    list(l, i, "attn_q.weight", s->width, q, true);
    list(l, i, "attn_k.weight", s->width, kv, true);
    list(l, i, "attn_v.weight", s->width, kv, true);
    if (s->arch == SAF_ARCH_QWEN3) {
        list(l, i, "attn_q_norm.weight", s->head_width, 0, false);
        list(l, i, "attn_k_norm.weight", s->head_width, 0, false);
    }
    list(l, i, "attn_output.weight", q, s->width, true);
    list(l, i, "ffn_norm.weight", s->width, 0, false);
    list(l, i, "ffn_gate.weight", s->width, s->ff_width, true);
    list(l, i, "ffn_up.weight", s->width, s->ff_width, true);
    list(l, i, "ffn_down.weight", s->ff_width, s->width, true);
}

static void list_all(const saf_train_shape *s, listing *l) {
    list(l, -1, "token_embd.weight", s->width, s->vocab, false);
    list(l, -1, "output_norm.weight", s->width, 0, false);
    if (!s->tied) list(l, -1, "output.weight", s->width, s->vocab, true);
    for (int64_t i = 0; i < s->layers; i++) list_layer(s, i, l);
}

saf_status saf_train_tensors(const saf_train_shape *shape, saf_train_tensor **tensors, int64_t *n) {
    saf_status st = saf_train_shape_check(shape);
    listing l = {.tensors = NULL};
    if (st != SAF_OK) return st;
    list_all(shape, &l);
    st = saf_alloc((size_t)l.n, sizeof *l.tensors, &l.tensors);
    if (st != SAF_OK) return st;
    l.n = l.values = 0;
    list_all(shape, &l);
    *tensors = l.tensors;
    *n = l.n;
    return SAF_OK;
}

int64_t saf_train_parameters(const saf_train_shape *shape) {
    listing l = {.tensors = NULL};
    list_all(shape, &l);
    return l.values;
}

void saf__dims_set(const saf_train_shape *shape, const saf_train_settings *settings, saf__dims *d) {
    listing layer = {.tensors = NULL};
    list_layer(shape, 0, &layer);
    *d = (saf__dims){.layers = shape->layers,
                     .width = shape->width,
                     .heads = shape->heads,
                     .kv_heads = shape->kv_heads,
                     .head_width = shape->head_width,
                     .ff_width = shape->ff_width,
                     .vocab = shape->vocab,
                     .context = shape->context,
                     .q_cols = shape->heads * shape->head_width,
                     .kv_cols = shape->kv_heads * shape->head_width,
                     .sequences = settings->batch / settings->micro_batches,
                     .qk_norm = shape->arch == SAF_ARCH_QWEN3,
                     .tied = shape->tied,
                     .norm_eps = (float)shape->norm_eps,
                     .scale = 1.0f / sqrtf((float)shape->head_width),
                     .layer_values = layer.values,
                     .values = saf_train_parameters(shape)};
    d->tokens = d->sequences * d->context;
    d->out_norm = d->vocab * d->width;
    d->out = d->tied ? d->embed : d->out_norm + d->width;
    d->layer0 = d->values - d->layers * d->layer_values;
}

saf__layer saf__layer_at(const saf__dims *d, float *values, int64_t layer) {
    float *at = values + d->layer0 + layer * d->layer_values;
    saf__layer l = {.attn_norm = at};
    l.q = l.attn_norm + d->width;
    l.k = l.q + d->width * d->q_cols;
    l.v = l.k + d->width * d->kv_cols;
    l.q_norm = l.v + d->width * d->kv_cols;
    l.k_norm = l.q_norm + (d->qk_norm ? d->head_width : 0);
    l.o = l.k_norm + (d->qk_norm ? d->head_width : 0);
    l.ffn_norm = l.o + d->width * d->q_cols;
    l.gate = l.ffn_norm + d->width;
    l.up = l.gate + d->width * d->ff_width;
    l.down = l.up + d->width * d->ff_width;
    return l;
}
