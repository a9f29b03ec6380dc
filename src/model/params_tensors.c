/* Which tensors each architecture has, and their shapes. */
#include <stdio.h>

#include "model/gguf.h"
#include "model/params.h"

/* Lengths a shape is made of. */
typedef enum { NONE, WIDTH, VOCAB, Q_ROWS, KV_ROWS, FEED, HEAD } length;

typedef enum { ALWAYS, IF_QK_NORM, BIAS, IF_UNTIED } condition;

typedef struct {
    const char *name;  /* of a layer: what follows "blk.N." */
    length cols, rows; /* rows NONE: a vector */
    condition when;
} tensor_rule;

static const tensor_rule whole_model[] = {
    {"token_embd.weight", WIDTH, VOCAB, ALWAYS},
    {"output_norm.weight", WIDTH, NONE, ALWAYS},
    {"output.weight", WIDTH, VOCAB, IF_UNTIED},
};

static const tensor_rule layer[] = {
    {"attn_norm.weight", WIDTH, NONE, ALWAYS},
    {"attn_q.weight", WIDTH, Q_ROWS, ALWAYS},
    {"attn_k.weight", WIDTH, KV_ROWS, ALWAYS},
    {"attn_v.weight", WIDTH, KV_ROWS, ALWAYS},
    {"attn_q.bias", Q_ROWS, NONE, BIAS},
    {"attn_k.bias", KV_ROWS, NONE, BIAS},
    {"attn_v.bias", KV_ROWS, NONE, BIAS},
    {"attn_q_norm.weight", HEAD, NONE, IF_QK_NORM},
    {"attn_k_norm.weight", HEAD, NONE, IF_QK_NORM},
    {"attn_output.weight", Q_ROWS, WIDTH, ALWAYS},
    {"ffn_norm.weight", WIDTH, NONE, ALWAYS},
    {"ffn_gate.weight", WIDTH, FEED, ALWAYS},
    {"ffn_up.weight", WIDTH, FEED, ALWAYS},
    {"ffn_down.weight", FEED, WIDTH, ALWAYS},
};

static int64_t length_of(const saf_model_params *p, length l) {
    switch (l) {
        case WIDTH:
            return p->width;
        case VOCAB:
            return p->vocab;
        case Q_ROWS:
            return p->heads * p->head_width; /* both bounded: fits */
        case KV_ROWS:
            return p->kv_heads * p->head_width;
        case FEED:
            return p->ff_width;
        case HEAD:
            return p->head_width;
        case NONE:
            break;
    }
    return 1;
}

static bool matrix_type(saf_dtype dtype) {
    return saf_dtype_is_quantised(dtype) || dtype == SAF_DTYPE_F32 || dtype == SAF_DTYPE_F16 ||
           dtype == SAF_DTYPE_BF16;
}

static bool vector_type(saf_dtype dtype) {
    return dtype == SAF_DTYPE_F32 || dtype == SAF_DTYPE_F16 || dtype == SAF_DTYPE_BF16;
}

static saf_status check_tensor(const saf_gguf *g, const saf_gguf_tensor *t, const tensor_rule *rule,
                               const saf_model_params *p) {
    int64_t cols = length_of(p, rule->cols), rows = length_of(p, rule->rows);
    bool matrix = rule->rows != NONE;
    if (t->shape[0] != cols || t->shape[1] != rows || t->shape[2] != 1 || t->shape[3] != 1)
        return saf_fail(
            SAF_BAD_INPUT, "%s: tensor \"%s\" is %lld x %lld x %lld x %lld, expected %lld x %lld",
            saf_gguf_path(g), t->name, (long long)t->shape[0], (long long)t->shape[1],
            (long long)t->shape[2], (long long)t->shape[3], (long long)cols, (long long)rows);
    if (!(matrix ? matrix_type(t->dtype) : vector_type(t->dtype)))
        return saf_fail(SAF_BAD_INPUT, "%s: tensor \"%s\" has type %s, expected %s",
                        saf_gguf_path(g), t->name, saf_dtype_name(t->dtype),
                        matrix ? "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 or Q2_K to Q6_K"
                               : "F32, F16 or BF16");
    return SAF_OK;
}

/* Checks one tensor and marks it in used[]; *there tells whether the file has it. */
static saf_status check_rule(const saf_gguf *g, const tensor_rule *rule, const char *name,
                             saf_model_params *p, bool *used, bool *there) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, name);
    bool necessary = rule->when == ALWAYS || (rule->when == IF_QK_NORM && p->qk_norm) ||
                     (rule->when == BIAS && p->arch == SAF_ARCH_QWEN2);
    *there = t != NULL;
    if (!t && necessary)
        return saf_fail(SAF_BAD_INPUT, "%s: tensor \"%s\" is missing", saf_gguf_path(g), name);
    if (!t || (rule->when == IF_QK_NORM && !p->qk_norm)) return SAF_OK; /* told as unexpected */
    used[t - g->tensors.items] = true;
    return check_tensor(g, t, rule, p);
}

static saf_status read_vocab(const saf_gguf *g, int64_t *out) {
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, "token_embd.weight");
    saf_gguf_kind element;
    int64_t tokens;
    bool found;
    if (!t)
        return saf_fail(SAF_BAD_INPUT, "%s: tensor \"token_embd.weight\" is missing%s",
                        saf_gguf_path(g),
                        saf_gguf_tensor_count(g) ? "" : ": a vocabulary without a model");
    if (t->shape[1] > INT32_MAX)
        return saf_fail(SAF_BAD_INPUT, "%s: a vocabulary of %lld does not fit token ids",
                        saf_gguf_path(g), (long long)t->shape[1]);
    saf_status st = saf_gguf_get_array(g, "tokenizer.ggml.tokens", &found, &element, &tokens);
    if (st == SAF_OK && found && tokens != t->shape[1])
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: the tokenizer has %lld tokens, but token_embd.weight %lld rows",
                      saf_gguf_path(g), (long long)tokens, (long long)t->shape[1]);
    *out = t->shape[1];
    return st;
}

saf_status saf__tensors_check(const saf_gguf *g, saf_model_params *p) {
    saf_status st = SAF_OK;
    char name[SAF__KEY_BYTES];
    bool *used = NULL, there;
    int64_t n = saf_gguf_tensor_count(g);
    SAF_TRY(saf_alloc((size_t)n, sizeof *used, &used));
    SAF_TRY(read_vocab(g, &p->vocab));
    for (size_t i = 0; i < sizeof whole_model / sizeof whole_model[0]; i++) {
        SAF_TRY(check_rule(g, &whole_model[i], whole_model[i].name, p, used, &there));
        if (whole_model[i].when == IF_UNTIED) p->tied = !there;
    }
    for (int64_t l = 0; l < p->layers; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            snprintf(name, sizeof name, "blk.%lld.%s", (long long)l, layer[i].name);
            SAF_TRY(check_rule(g, &layer[i], name, p, used, &there));
            if (layer[i].when == BIAS && there) p->qkv_bias = true;
        }
    }
    /* A tensor that is not in the tables would change the model's values if saf knew it. */
    for (int64_t i = 0; i < n; i++) {
        const char *extra = g->tensors.items[i].name;
        if (!used[i] && strcmp(extra, "rope_freqs.weight") != 0) {
            st = saf_fail(SAF_BAD_INPUT,
                          "%s: tensor \"%s\" is no part of %s with %lld layers as "
                          "saf computes it",
                          saf_gguf_path(g), extra, saf_arch_name(p->arch), (long long)p->layers);
            goto out;
        }
    }
out:
    saf_free(&used);
    return st;
}

static saf_status visit_rule(const saf_model_params *p, const tensor_rule *rule, const char *name,
                             saf__tensor_visit visit, void *user) {
    if ((rule->when == IF_QK_NORM && !p->qk_norm) || (rule->when == BIAS && !p->qkv_bias) ||
        (rule->when == IF_UNTIED && p->tied))
        return SAF_OK;
    return visit(user, name, length_of(p, rule->cols),
                 rule->rows == NONE ? 0 : length_of(p, rule->rows));
}

saf_status saf__tensors_each(const saf_model_params *p, saf__tensor_visit visit, void *user) {
    saf_status st = SAF_OK;
    char name[SAF__KEY_BYTES];
    for (size_t i = 0; i < sizeof whole_model / sizeof whole_model[0]; i++)
        SAF_TRY(visit_rule(p, &whole_model[i], whole_model[i].name, visit, user));
    for (int64_t l = 0; l < p->layers; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            snprintf(name, sizeof name, "blk.%lld.%s", (long long)l, layer[i].name);
            SAF_TRY(visit_rule(p, &layer[i], name, visit, user));
        }
    }
out:
    return st;
}
