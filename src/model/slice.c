/* The layers of one pipeline stage: which tensors they are, and the memory for them. All matrices
 * lie in one block of large pages: a decoded token reads it from end to end. blocks.c fills it. */
#include "model/slice.h"

#include <stdio.h>

enum { ALIGNMENT = 64 };

/* Every tensor of a range, in the order of use, for loading and for counting alike. */
typedef enum {
    ROLE_EMBEDDING,
    ROLE_OUTPUT_NORM,
    ROLE_HEAD,
    ROLE_ATTN_NORM,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_O,
    ROLE_FFN_NORM,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    ROLE_COUNT
} tensor_role;

static const struct {
    const char *name; /* with %lld for the layer */
    bool per_layer;
} roles[ROLE_COUNT] = {
    [ROLE_EMBEDDING] = {"token_embd.weight", false},
    [ROLE_OUTPUT_NORM] = {"output_norm.weight", false},
    [ROLE_HEAD] = {"output.weight", false},
    [ROLE_ATTN_NORM] = {"blk.%lld.attn_norm.weight", true},
    [ROLE_Q] = {"blk.%lld.attn_q.weight", true},
    [ROLE_K] = {"blk.%lld.attn_k.weight", true},
    [ROLE_V] = {"blk.%lld.attn_v.weight", true},
    [ROLE_Q_BIAS] = {"blk.%lld.attn_q.bias", true},
    [ROLE_K_BIAS] = {"blk.%lld.attn_k.bias", true},
    [ROLE_V_BIAS] = {"blk.%lld.attn_v.bias", true},
    [ROLE_Q_NORM] = {"blk.%lld.attn_q_norm.weight", true},
    [ROLE_K_NORM] = {"blk.%lld.attn_k_norm.weight", true},
    [ROLE_O] = {"blk.%lld.attn_output.weight", true},
    [ROLE_FFN_NORM] = {"blk.%lld.ffn_norm.weight", true},
    [ROLE_GATE] = {"blk.%lld.ffn_gate.weight", true},
    [ROLE_UP] = {"blk.%lld.ffn_up.weight", true},
    [ROLE_DOWN] = {"blk.%lld.ffn_down.weight", true},
};

saf_slice_range saf_slice_range_whole(const saf_model_params *p, int64_t layer0, int64_t layer1,
                                      bool embedding, bool head) {
    return (saf_slice_range){.layer0 = layer0,
                             .layer1 = layer1,
                             .embedding = embedding,
                             .head = head,
                             .heads = {0, p->heads},
                             .width = {0, p->width},
                             .ff = {0, p->ff_width},
                             .vocab = {0, p->vocab}};
}

saf_span saf_slice_kv_heads(const saf_model_params *p, saf_slice_range range) {
    if (range.heads.begin == range.heads.end) return (saf_span){0, 0};
    return (saf_span){range.heads.begin * p->kv_heads / p->heads,
                      (range.heads.end - 1) * p->kv_heads / p->heads + 1};
}

/* Whether a stage of this range holds the role's tensor at all. */
static bool range_has(const saf_model_params *p, saf_slice_range range, tensor_role role) {
    switch (role) {
        case ROLE_EMBEDDING:
            return range.embedding || (range.head && p->tied);
        case ROLE_OUTPUT_NORM:
            return range.head;
        case ROLE_HEAD:
            return range.head && !p->tied;
        case ROLE_Q_BIAS:
        case ROLE_K_BIAS:
        case ROLE_V_BIAS:
            return p->qkv_bias;
        case ROLE_Q_NORM:
        case ROLE_K_NORM:
            return p->qk_norm;
        default:
            return true;
    }
}

static const saf_gguf_tensor *find(const saf_gguf *g, tensor_role role, int64_t layer) {
    char name[64];
    if (roles[role].per_layer)
        snprintf(name, sizeof name, roles[role].name, (long long)layer);
    else
        snprintf(name, sizeof name, "%s", roles[role].name);
    return saf_gguf_tensor_find(g, name);
}

/* Where a role's tensor goes: a matrix or a vector; `l` is its layer. */
static void target(saf_slice *s, saf__layer *l, tensor_role role, saf_weight **w, float ***v) {
    *w = NULL;
    *v = NULL;
    switch (role) {
        case ROLE_EMBEDDING:
            *w = &s->embedding;
            break;
        case ROLE_OUTPUT_NORM:
            *v = &s->output_norm;
            break;
        case ROLE_HEAD:
            *w = &s->head;
            break;
        case ROLE_ATTN_NORM:
            *v = &l->attn_norm;
            break;
        case ROLE_Q:
            *w = &l->q;
            break;
        case ROLE_K:
            *w = &l->k;
            break;
        case ROLE_V:
            *w = &l->v;
            break;
        case ROLE_Q_BIAS:
            *v = &l->q_bias;
            break;
        case ROLE_K_BIAS:
            *v = &l->k_bias;
            break;
        case ROLE_V_BIAS:
            *v = &l->v_bias;
            break;
        case ROLE_Q_NORM:
            *v = &l->q_norm;
            break;
        case ROLE_K_NORM:
            *v = &l->k_norm;
            break;
        case ROLE_O:
            *w = &l->o;
            break;
        case ROLE_FFN_NORM:
            *v = &l->ffn_norm;
            break;
        case ROLE_GATE:
            *w = &l->gate;
            break;
        case ROLE_UP:
            *w = &l->up;
            break;
        case ROLE_DOWN:
            *w = &l->down;
            break;
        case ROLE_COUNT:
            break;
    }
}

void saf__slice_target(saf_slice *s, const saf__slice_tensor *x, saf_weight **w, float ***v) {
    target(s, roles[x->role].per_layer ? &s->layers[x->layer] : NULL, (tensor_role)x->role, w, v);
}

static bool is_matrix(tensor_role role) {
    static saf_slice any;
    static saf__layer layer;
    saf_weight *w;
    float **v;
    target(&any, &layer, role, &w, &v);
    return w != NULL;
}

static saf_status list_role(const saf_gguf *g, tensor_role role, int64_t layer0, int64_t layer,
                            saf__slice_list *list) {
    const saf_gguf_tensor *t = find(g, role, layer0 + layer);
    if (t)
        list->items[list->n++] = (saf__slice_tensor){.t = t, .role = (int32_t)role, .layer = layer};
    else if (is_matrix(role))
        return saf_fail(SAF_DEFECT, "%s: %s was there when the model was checked", saf_gguf_path(g),
                        roles[role].name);
    return SAF_OK;
}

saf_status saf__slice_list_make(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                                saf__slice_list *out) {
    saf_status st = SAF_OK;
    int64_t layers = range.layer1 - range.layer0;
    *out = (saf__slice_list){0};
    SAF_TRY(saf_alloc((size_t)layers + 1, ROLE_COUNT * sizeof *out->items, &out->items));
    for (int role = 0; role < ROLE_COUNT; role++)
        if (!roles[role].per_layer && range_has(p, range, (tensor_role)role))
            SAF_TRY(list_role(g, (tensor_role)role, 0, 0, out));
    for (int64_t i = 0; i < layers; i++)
        for (int role = 0; role < ROLE_COUNT; role++)
            if (roles[role].per_layer && range_has(p, range, (tensor_role)role))
                SAF_TRY(list_role(g, (tensor_role)role, range.layer0, i, out));
out:
    if (st != SAF_OK) saf_free(&out->items);
    return st;
}

/* Shapes of the matrices, and where each lies among all of them. */
static saf_status plan_matrices(const saf_gguf *g, saf_slice *s, const saf__slice_list *list) {
    saf_status st = SAF_OK;
    size_t rounded;
    for (int64_t i = 0; i < list->n; i++) {
        const saf_gguf_tensor *t = list->items[i].t;
        saf_weight *w;
        float **v;
        saf__slice_target(s, &list->items[i], &w, &v);
        if (!w) continue;
        SAF_TRY(saf_weight_plan(t->dtype, t->ndim > 1 ? t->shape[1] : 1, t->shape[0], w));
        if (!saf_size_add(w->bytes, ALIGNMENT - 1, &rounded) ||
            !saf_size_add(s->memory_bytes, rounded / ALIGNMENT * ALIGNMENT, &s->memory_bytes)) {
            st = saf_fail(SAF_NO_MEMORY, "%s: the matrices are too large", saf_gguf_path(g));
            goto out;
        }
    }
out:
    return st;
}

saf_status saf_slice_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                         saf_slice **out) {
    saf_status st = SAF_OK;
    saf_slice *s = NULL;
    saf__slice_list list = {0};
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->params = p;
    s->range = range;
    SAF_TRY(saf_alloc((size_t)(range.layer1 - range.layer0), sizeof *s->layers, &s->layers));
    SAF_TRY(saf__slice_list_make(g, p, range, &list));
    SAF_TRY(plan_matrices(g, s, &list));
    SAF_TRY(saf_alloc_huge(s->memory_bytes, &s->matrices));
    char *at = s->matrices;
    for (int64_t i = 0; i < list.n; i++) {
        saf_weight *w;
        float **v;
        saf__slice_target(s, &list.items[i], &w, &v);
        if (w) {
            w->data = at;
            at += saf_round_up((int64_t)w->bytes, ALIGNMENT);
        } else {
            SAF_TRY(saf_alloc((size_t)list.items[i].t->shape[0], sizeof **v, v));
            s->memory_bytes += (size_t)list.items[i].t->shape[0] * sizeof **v;
        }
    }
    *out = s;
    s = NULL;
out:
    saf_free(&list.items);
    saf_slice_free(&s);
    return st;
}

void saf_slice_free(saf_slice **slice) {
    saf_slice *s = *slice;
    if (!s) return;
    for (int64_t i = 0; s->layers && i < s->range.layer1 - s->range.layer0; i++) {
        for (int role = 0; role < ROLE_COUNT; role++) {
            saf_weight *w;
            float **v;
            if (!roles[role].per_layer) continue;
            target(s, &s->layers[i], (tensor_role)role, &w, &v);
            if (v) saf_free(v);
        }
    }
    saf_free(&s->layers);
    saf_free(&s->matrices);
    saf_free(&s->output_norm);
    saf_free(slice);
}

const saf_weight *saf__slice_head(const saf_slice *s) {
    return s->params->tied ? &s->embedding : &s->head;
}

size_t saf_slice_file_bytes(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                            size_t *replicated) {
    size_t bytes = 0;
    *replicated = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!range_has(p, range, (tensor_role)role)) continue;
        int64_t first = roles[role].per_layer ? range.layer0 : 0;
        int64_t last = roles[role].per_layer ? range.layer1 : 1;
        for (int64_t layer = first; layer < last; layer++) {
            const saf_gguf_tensor *t = find(g, (tensor_role)role, layer);
            if (!t) continue;
            bytes += t->bytes;
            if (role == ROLE_EMBEDDING && !range.embedding) *replicated += t->bytes;
        }
    }
    /* The rotary factors are a few hundred bytes that every stage reads; the first one counts. */
    const saf_gguf_tensor *factors = saf_gguf_tensor_find(g, "rope_freqs.weight");
    if (factors && range.embedding) bytes += factors->bytes;
    return bytes;
}

size_t saf_slice_memory_bytes(const saf_slice *s) {
    return s->memory_bytes;
}
