/* Loads the layers of one pipeline stage: each tensor read in large pieces and repacked as it
 * comes, so that no second copy of a matrix ever exists. All matrices lie in one block of large
 * pages: a decoded token reads it from end to end. */
#include "model/slice.h"

#include <assert.h>
#include <omp.h>
#include <stdio.h>

enum { PIECE_BYTES = 2 << 20, ALIGNMENT = 64 };

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

/* ---- one tensor ---------------------------------------------------------------------------- */

/* A norm or bias: [n] in f32, whatever float type the file has. NULL when the file has none. */
static saf_status load_vector(const saf_gguf *g, const saf_gguf_tensor *t, float **out) {
    saf_status st = SAF_OK;
    uint16_t *half = NULL;
    float *v = NULL;
    if (!t) return SAF_OK;
    int64_t n = t->shape[0];
    SAF_TRY(saf_alloc((size_t)n, sizeof *v, &v));
    if (t->dtype == SAF_DTYPE_F32) {
        SAF_TRY(saf_gguf_tensor_read(g, t, 0, t->bytes, v));
    } else {
        SAF_TRY(saf_alloc((size_t)n, sizeof *half, &half));
        SAF_TRY(saf_gguf_tensor_read(g, t, 0, t->bytes, half));
        for (int64_t i = 0; i < n; i++)
            v[i] =
                t->dtype == SAF_DTYPE_F16 ? saf_f32_from_f16(half[i]) : saf_f32_from_bf16(half[i]);
    }
    *out = v;
    v = NULL;
out:
    saf_free(&half);
    saf_free(&v);
    return st;
}

/* A matrix: pieces of whole tiles are read and packed by all threads, in file order. */
static saf_status load_matrix(const saf_gguf *g, const saf_gguf_tensor *t, saf_weight *w) {
    int64_t R = w->rows;
    saf_status st = SAF_OK;
    size_t row_bytes = t->bytes / (size_t)R;
    int64_t tiles = (int64_t)(PIECE_BYTES / (row_bytes * SAF_TILE_ROWS));
    int64_t piece = saf_i64_max(1, tiles) * SAF_TILE_ROWS; /* rows */
#pragma omp parallel
    {
        char *raw = NULL;
        saf_status mine = saf_alloc((size_t)saf_i64_min(piece, R), row_bytes, &raw);
#pragma omp for schedule(static, 1)
        for (int64_t row = 0; row < R; row += piece) {
            int64_t rows = saf_i64_min(piece, R - row);
            if (mine != SAF_OK) continue;
            mine =
                saf_gguf_tensor_read(g, t, (size_t)row * row_bytes, (size_t)rows * row_bytes, raw);
            if (mine == SAF_OK) saf_weight_pack(w, row, rows, raw);
        }
        saf_free(&raw);
        if (mine != SAF_OK) {
#pragma omp critical(saf_load_status)
            st = mine;
        }
    }
    return st;
}

/* Where a role's tensor goes: a matrix or a vector. */
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

/* Calls `visit` for every tensor of the slice. */
typedef saf_status (*role_visitor)(const saf_gguf *g, saf_slice *s, saf__layer *l, tensor_role role,
                                   int64_t layer);
static saf_status each_role(const saf_gguf *g, saf_slice *s, role_visitor visit) {
    saf_status st = SAF_OK;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (!roles[role].per_layer) SAF_TRY(visit(g, s, NULL, (tensor_role)role, 0));
    for (int64_t i = 0; i < s->range.layer1 - s->range.layer0; i++)
        for (int role = 0; role < ROLE_COUNT; role++)
            if (roles[role].per_layer)
                SAF_TRY(visit(g, s, &s->layers[i], (tensor_role)role, s->range.layer0 + i));
out:
    return st;
}

/* Shapes of a matrix; the bytes of all add up. */
static saf_status plan_role(const saf_gguf *g, saf_slice *s, saf__layer *l, tensor_role role,
                            int64_t layer) {
    saf_status st = SAF_OK;
    const saf_gguf_tensor *t = find(g, role, layer);
    saf_weight *w;
    float **v;
    target(s, l, role, &w, &v);
    if (!w || !t || !range_has(s->params, s->range, role)) return SAF_OK;
    SAF_TRY(saf_weight_plan(t->dtype, t->ndim > 1 ? t->shape[1] : 1, t->shape[0], w));
    size_t rounded;
    if (!saf_size_add(w->bytes, ALIGNMENT - 1, &rounded) ||
        !saf_size_add(s->matrix_bytes, rounded / ALIGNMENT * ALIGNMENT, &s->matrix_bytes))
        st = saf_fail(SAF_NO_MEMORY, "%s: the matrices are too large", saf_gguf_path(g));
out:
    return st;
}

static saf_status load_role(const saf_gguf *g, saf_slice *s, saf__layer *l, tensor_role role,
                            int64_t layer) {
    if (!range_has(s->params, s->range, role)) return SAF_OK;
    const saf_gguf_tensor *t = find(g, role, layer);
    saf_weight *w;
    float **v;
    target(s, l, role, &w, &v);
    if (v) {
        s->memory_bytes += t ? (size_t)t->shape[0] * sizeof(float) : 0;
        return load_vector(g, t, v);
    }
    if (!t)
        return saf_fail(SAF_DEFECT, "%s: %s was there when the model was checked", saf_gguf_path(g),
                        roles[role].name);
    assert(w);
    w->data = s->matrices + s->matrix_bytes;
    s->matrix_bytes += (size_t)saf_round_up((int64_t)w->bytes, ALIGNMENT);
    return load_matrix(g, t, w);
}

/* ---- the slice ------------------------------------------------------------------------------- */

saf_status saf_slice_load(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_slice **out) {
    saf_status st = SAF_OK;
    saf_slice *s = NULL;
    SAF_TRY(saf_alloc(1, sizeof *s, &s));
    s->params = p;
    s->range = range;
    SAF_TRY(saf_alloc((size_t)(range.layer1 - range.layer0), sizeof *s->layers, &s->layers));
    SAF_TRY(each_role(g, s, plan_role));
    SAF_TRY(saf_alloc_huge(s->matrix_bytes, &s->matrices));
    s->matrix_bytes = 0;
    SAF_TRY(each_role(g, s, load_role));
    s->memory_bytes += s->matrix_bytes;
    *out = s;
    s = NULL;
out:
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
