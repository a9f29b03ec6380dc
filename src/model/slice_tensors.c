/* Which tensors a slice has, which of their rows, and where they go; and which of these bytes
 * another slice of the same model counts as its own. */
#include <stddef.h>
#include <stdio.h>

#include "model/slice.h"

/* In the order of use: all that a stage may hold once, then what each of its layers has. */
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

/* What says which rows of a matrix, or entries of a vector, a part holds. */
typedef enum { NOT_CUT, BY_HEADS, BY_KEY_HEADS, BY_WIDTH, BY_FF, BY_VOCAB } cutting;

typedef struct {
    const char *name; /* of a layer: what follows "blk.N." */
    bool per_layer, matrix;
    cutting cut;
    size_t at; /* of its saf_weight or float *, in saf_slice or saf__layer */
} role_entry;

#define OF_SLICE(matrix, cut, member, name) \
    { name, false, matrix, cut, offsetof(struct saf_slice, member) }
#define OF_LAYER(matrix, cut, member, name) \
    { name, true, matrix, cut, offsetof(saf__layer, member) }

static const role_entry roles[ROLE_COUNT] = {
    [ROLE_EMBEDDING] = OF_SLICE(true, BY_VOCAB, embedding, "token_embd.weight"),
    [ROLE_OUTPUT_NORM] = OF_SLICE(false, NOT_CUT, output_norm, "output_norm.weight"),
    [ROLE_HEAD] = OF_SLICE(true, BY_VOCAB, head, "output.weight"),
    [ROLE_ATTN_NORM] = OF_LAYER(false, NOT_CUT, attn_norm, "attn_norm.weight"),
    [ROLE_Q] = OF_LAYER(true, BY_HEADS, q, "attn_q.weight"),
    [ROLE_K] = OF_LAYER(true, BY_KEY_HEADS, k, "attn_k.weight"),
    [ROLE_V] = OF_LAYER(true, BY_KEY_HEADS, v, "attn_v.weight"),
    [ROLE_Q_BIAS] = OF_LAYER(false, BY_HEADS, q_bias, "attn_q.bias"),
    [ROLE_K_BIAS] = OF_LAYER(false, BY_KEY_HEADS, k_bias, "attn_k.bias"),
    [ROLE_V_BIAS] = OF_LAYER(false, BY_KEY_HEADS, v_bias, "attn_v.bias"),
    [ROLE_Q_NORM] = OF_LAYER(false, NOT_CUT, q_norm, "attn_q_norm.weight"),
    [ROLE_K_NORM] = OF_LAYER(false, NOT_CUT, k_norm, "attn_k_norm.weight"),
    [ROLE_O] = OF_LAYER(true, BY_WIDTH, o, "attn_output.weight"),
    [ROLE_FFN_NORM] = OF_LAYER(false, NOT_CUT, ffn_norm, "ffn_norm.weight"),
    [ROLE_GATE] = OF_LAYER(true, BY_FF, gate, "ffn_gate.weight"),
    [ROLE_UP] = OF_LAYER(true, BY_FF, up, "ffn_up.weight"),
    [ROLE_DOWN] = OF_LAYER(true, BY_WIDTH, down, "ffn_down.weight"),
};

/* ---- ranges ---------------------------------------------------------------------------------- */

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

static bool inside(saf_span s, int64_t n) {
    return 0 <= s.begin && s.begin <= s.end && s.end <= n;
}

static saf_status check_range(const saf_model_params *p, saf_slice_range r) {
    if (inside((saf_span){r.layer0, r.layer1}, p->layers) && inside(r.heads, p->heads) &&
        inside(r.width, p->width) && inside(r.ff, p->ff_width) && inside(r.vocab, p->vocab))
        return SAF_OK;
    return saf_fail(SAF_DEFECT, "a slice of layers %lld to %lld with rows that the model has not",
                    (long long)r.layer0, (long long)r.layer1);
}

/* Whether a stage of this range has the role's tensor at all. */
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

static saf_span scaled(saf_span s, int64_t by) {
    return (saf_span){s.begin * by, s.end * by};
}

/* The rows, or entries, that a part holds; n: of the whole tensor. */
static saf_span held(const saf_model_params *p, saf_slice_range range, tensor_role role,
                     int64_t n) {
    switch (roles[role].cut) {
        case BY_HEADS:
            return scaled(range.heads, p->head_width);
        case BY_KEY_HEADS:
            return scaled(saf_slice_kv_heads(p, range), p->head_width);
        case BY_WIDTH:
            return range.width;
        case BY_FF:
            return range.ff;
        case BY_VOCAB:
            return range.vocab;
        case NOT_CUT:
            break;
    }
    return (saf_span){0, n};
}

/* Of the parts of a stage the one that counts what all of them hold: where the width begins. */
static bool counts_for_all(saf_slice_range range) {
    return range.width.begin == 0 && range.width.end > 0;
}

/* Those of the held rows that another slice counts:
 *   of a tied embedding   all, where this is the output head of a later stage than the first
 *   of what is not cut    all, but on the part that counts for all
 *   of keys and values    those of the first key head, where an earlier part has the first of the
 *                         heads that read it */
static saf_span replicated(const saf_model_params *p, saf_slice_range range, tensor_role role,
                           int64_t n) {
    const saf_span none = {0, 0}, all = held(p, range, role, n);
    if (role == ROLE_EMBEDDING) return range.embedding ? none : all;
    if (roles[role].cut == NOT_CUT) return counts_for_all(range) ? none : all;
    if (roles[role].cut != BY_KEY_HEADS || all.begin == all.end) return none;
    int64_t first = saf_slice_kv_heads(p, range).begin;
    if (saf_ceil_div(first * p->heads, p->kv_heads) >= range.heads.begin) return none;
    return scaled((saf_span){first, first + 1}, p->head_width);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const saf_gguf_tensor *find(const saf_gguf *g, tensor_role role, int64_t layer) {
    char name[64];
    if (!roles[role].per_layer) return saf_gguf_tensor_find(g, roles[role].name);
    snprintf(name, sizeof name, "blk.%lld.%s", (long long)layer, roles[role].name);
    return saf_gguf_tensor_find(g, name);
}

/* Rows of a matrix, entries of a vector. */
static int64_t count_of(const saf_gguf_tensor *t, tensor_role role) {
    return roles[role].matrix ? t->shape[1] : t->shape[0];
}

static saf_status list_role(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                            tensor_role role, int64_t layer, saf__slice_list *list) {
    const saf_gguf_tensor *t = find(g, role, range.layer0 + layer);
    if (!t && roles[role].matrix)
        return saf_fail(SAF_DEFECT, "%s: %s was there when the model was checked", saf_gguf_path(g),
                        roles[role].name);
    if (!t) return SAF_OK;
    int64_t n = count_of(t, role);
    size_t each = t->bytes / (size_t)n;
    saf_span span = held(p, range, role, n);
    saf__slice_tensor *x = &list->items[list->n++];
    *x = (saf__slice_tensor){.t = t,
                             .role = (int32_t)role,
                             .layer = layer,
                             .rows = span.end - span.begin,
                             .cols = t->shape[0],
                             .offset = (size_t)span.begin * each,
                             .row_bytes = each};
    if (roles[role].matrix) return SAF_OK;
    x->cols = x->rows;
    x->rows = x->cols > 0;
    x->row_bytes = (size_t)x->cols * each;
    return SAF_OK;
}

saf_status saf__slice_list_make(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                                saf__slice_list *out) {
    saf_status st = SAF_OK;
    int64_t layers = range.layer1 - range.layer0;
    *out = (saf__slice_list){0};
    SAF_TRY(check_range(p, range));
    SAF_TRY(saf_alloc((size_t)layers + 1, ROLE_COUNT * sizeof *out->items, &out->items));
    for (int role = 0; role < ROLE_COUNT; role++)
        if (!roles[role].per_layer && range_has(p, range, (tensor_role)role))
            SAF_TRY(list_role(g, p, range, (tensor_role)role, 0, out));
    for (int64_t i = 0; i < layers; i++)
        for (int role = 0; role < ROLE_COUNT; role++)
            if (roles[role].per_layer && range_has(p, range, (tensor_role)role))
                SAF_TRY(list_role(g, p, range, (tensor_role)role, i, out));
out:
    if (st != SAF_OK) saf_free(&out->items);
    return st;
}

bool saf__slice_is_matrix(const saf__slice_tensor *x) {
    return roles[x->role].matrix;
}

void saf__slice_target(saf_slice *s, const saf__slice_tensor *x, saf_weight **w, float ***v) {
    const role_entry *r = &roles[x->role];
    char *in = r->per_layer ? (char *)&s->layers[x->layer] : (char *)s;
    *w = r->matrix ? (saf_weight *)(void *)(in + r->at) : NULL;
    *v = r->matrix ? NULL : (float **)(void *)(in + r->at);
}

void saf__slice_free_vectors(saf_slice *s) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        int64_t layers = s->layers ? s->range.layer1 - s->range.layer0 : 0;
        for (int64_t i = 0; i < (roles[role].per_layer ? layers : 1); i++) {
            const saf__slice_tensor x = {.role = role, .layer = i};
            saf_weight *w;
            float **v;
            saf__slice_target(s, &x, &w, &v);
            if (v) saf_free(v);
        }
    }
}

/* ---- bytes ----------------------------------------------------------------------------------- */

size_t saf_slice_file_bytes(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                            size_t *replicated_bytes) {
    size_t bytes = 0, others = 0;
    for (int i = 0; i < ROLE_COUNT; i++) {
        tensor_role role = (tensor_role)i;
        if (!range_has(p, range, role)) continue;
        int64_t first = roles[role].per_layer ? range.layer0 : 0;
        int64_t last = roles[role].per_layer ? range.layer1 : 1;
        for (int64_t layer = first; layer < last; layer++) {
            const saf_gguf_tensor *t = find(g, role, layer);
            if (!t) continue;
            int64_t n = count_of(t, role);
            size_t each = t->bytes / (size_t)n;
            saf_span mine = held(p, range, role, n), other = replicated(p, range, role, n);
            bytes += (size_t)(mine.end - mine.begin) * each;
            others += (size_t)(other.end - other.begin) * each;
        }
    }
    /* The rotary factors are a few hundred bytes that every rank reads; the first one counts. */
    const saf_gguf_tensor *factors = saf_gguf_tensor_find(g, "rope_freqs.weight");
    if (factors && range.embedding && counts_for_all(range)) bytes += factors->bytes;
    *replicated_bytes = others;
    return bytes;
}

void saf_slice_ops(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                   int64_t *int8_ops, int64_t *float_ops) {
    *int8_ops = *float_ops = 0;
    for (int i = 0; i < ROLE_COUNT; i++) {
        tensor_role role = (tensor_role)i;
        bool looked_up = role == ROLE_EMBEDDING && !(range.head && p->tied);
        if (!roles[role].matrix || looked_up || !range_has(p, range, role)) continue;
        int64_t first = roles[role].per_layer ? range.layer0 : 0;
        int64_t last = roles[role].per_layer ? range.layer1 : 1;
        for (int64_t layer = first; layer < last; layer++) {
            const saf_gguf_tensor *t = find(g, role, layer);
            if (!t) continue;
            saf_span mine = held(p, range, role, count_of(t, role));
            *(saf_dtype_is_quantised(t->dtype) ? int8_ops : float_ops) +=
                2 * (mine.end - mine.begin) * t->shape[0];
        }
    }
}

/* One role's entry in the list of names, with the rows where they are not all of the tensor's. */
static saf_status name_role(const saf_gguf_tensor *t, tensor_role role, saf_span span,
                            saf_buf *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_buf_printf(out, "%s%s%s", out->len > 0 ? ", " : "",
                           roles[role].per_layer ? "blk.*." : "", roles[role].name));
    if (span.end - span.begin < count_of(t, role))
        st = saf_buf_printf(out, " (%s %lld-%lld)", roles[role].matrix ? "rows" : "entries",
                            (long long)span.begin, (long long)span.end - 1);
out:
    return st;
}

saf_status saf_slice_replicated_names(const saf_gguf *g, const saf_model_params *p,
                                      saf_slice_range range, saf_buf *out) {
    saf_status st = SAF_OK;
    saf_buf_clear(out);
    SAF_TRY(saf_buf_append(out, "", 0)); /* a text, be it empty */
    for (int i = 0; i < ROLE_COUNT; i++) {
        tensor_role role = (tensor_role)i;
        const saf_gguf_tensor *t = NULL;
        if (!range_has(p, range, role)) continue;
        int64_t first = roles[role].per_layer ? range.layer0 : 0;
        int64_t last = roles[role].per_layer ? range.layer1 : 1;
        for (int64_t layer = first; !t && layer < last; layer++) t = find(g, role, layer);
        if (!t) continue;
        saf_span span = replicated(p, range, role, count_of(t, role));
        if (span.begin < span.end) SAF_TRY(name_role(t, role, span, out));
    }
out:
    return st;
}
