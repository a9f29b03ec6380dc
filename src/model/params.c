/* saf_model_params_*: what a file says about its model. Whatever would change the arithmetic in a
 * way that saf does not compute is refused by name, never ignored. */
#include "model/params.h"

#include <math.h>
#include <stdio.h>

#include "model/gguf.h"

static const struct {
    const char *name;
    saf_rope_pairs pairs;
    bool qk_norm;
} archs[] = {
    [SAF_ARCH_LLAMA] = {"llama", SAF_ROPE_ADJACENT, false},
    [SAF_ARCH_QWEN2] = {"qwen2", SAF_ROPE_HALVES, false},
    [SAF_ARCH_QWEN3] = {"qwen3", SAF_ROPE_HALVES, true},
};
enum { ARCHS = sizeof archs / sizeof archs[0], LAYERS_MAX = 1 << 16, HEADS_MAX = 1 << 16 };
#define WIDTH_MAX (INT64_C(1) << 24)

const char *saf_arch_name(saf_arch arch) {
    return (unsigned)arch < ARCHS ? archs[arch].name : "unknown";
}

void saf__arch_key(const saf__arch_keys *k, const char *suffix, char out[SAF__KEY_BYTES]) {
    snprintf(out, SAF__KEY_BYTES, "%s.%s", k->arch, suffix);
}

static saf_status missing(const saf__arch_keys *k, const char *key) {
    return saf_fail(SAF_BAD_INPUT, "%s: key \"%s\" is missing", saf_gguf_path(k->g), key);
}

/* The one value of an array of integers. */
static saf_status equal_values(const saf__arch_keys *k, const char *key, int64_t *out) {
    saf_gguf_kind element;
    int64_t n;
    bool found;
    saf_status st = saf_gguf_get_array(k->g, key, &found, &element, &n);
    if (st != SAF_OK) return st;
    bool integers = element <= SAF_GGUF_I32 || element == SAF_GGUF_U64 || element == SAF_GGUF_I64;
    if (n == 0 || !integers)
        return saf_fail(SAF_BAD_INPUT, "%s: key \"%s\" is an array of %lld %s, expected integers",
                        saf_gguf_path(k->g), key, (long long)n, saf_gguf_kind_name(element));
    *out = saf_gguf_array_i64(k->g, key, 0);
    for (int64_t i = 1; i < n; i++)
        if (saf_gguf_array_i64(k->g, key, i) != *out)
            return saf_fail(
                SAF_BAD_INPUT,
                "%s: key \"%s\" differs from layer to layer, which saf does not support",
                saf_gguf_path(k->g), key);
    return SAF_OK;
}

saf_status saf__arch_int(const saf__arch_keys *k, const char *suffix, int64_t min, int64_t max,
                         bool *found, int64_t *out) {
    saf_status st = SAF_OK;
    char key[SAF__KEY_BYTES];
    bool here;
    int64_t v = 0;
    saf__arch_key(k, suffix, key);
    const saf__gguf_key *entry = saf__gguf_find(&k->g->keys, key);
    here = entry != NULL;
    if (found) *found = here;
    if (!here) return found ? SAF_OK : missing(k, key);
    if (entry->kind == SAF_GGUF_ARRAY)
        SAF_TRY(equal_values(k, key, &v));
    else
        SAF_TRY(saf_gguf_get_i64(k->g, key, &here, &v));
    if (v < min || v > max) {
        st = saf_fail(SAF_BAD_INPUT, "%s: key \"%s\" is %lld, expected %lld to %lld",
                      saf_gguf_path(k->g), key, (long long)v, (long long)min, (long long)max);
        goto out;
    }
    *out = v;
out:
    return st;
}

saf_status saf__arch_float(const saf__arch_keys *k, const char *suffix, double min, double max,
                           bool *found, double *out) {
    saf_status st = SAF_OK;
    char key[SAF__KEY_BYTES];
    bool here;
    double v = 0;
    saf__arch_key(k, suffix, key);
    SAF_TRY(saf_gguf_get_f64(k->g, key, &here, &v));
    if (found) *found = here;
    if (!here) return found ? SAF_OK : missing(k, key);
    if (!(v >= min && v <= max)) { /* NaN is refused too */
        st = saf_fail(SAF_BAD_INPUT, "%s: key \"%s\" is %g, expected %g to %g", saf_gguf_path(k->g),
                      key, v, min, max);
        goto out;
    }
    *out = v;
out:
    return st;
}

/* general.name for people: valid UTF-8, no control characters, cut at a whole character. */
static saf_status read_name(const saf_gguf *g, char out[128]) {
    saf_status st = SAF_OK;
    saf_buf clean = {0};
    const char *text;
    size_t len;
    bool found;
    out[0] = 0;
    SAF_TRY(saf_gguf_get_string(g, "general.name", &found, &text, &len));
    if (!found) goto out;
    SAF_TRY(saf_utf8_append_clean(&clean, text, len < 512 ? len : 512));
    size_t keep = saf_utf8_whole_prefix(clean.data, clean.len < 127 ? clean.len : 127);
    for (size_t i = 0; i < keep; i++) {
        unsigned char c = (unsigned char)clean.data[i];
        out[i] = (char)(c < 0x20 || c == 0x7F ? ' ' : c);
    }
    out[keep] = 0;
out:
    saf_buf_free(&clean);
    return st;
}

static saf_status read_arch(const saf_gguf *g, saf_arch *out) {
    const char *text = NULL;
    size_t len = 0;
    bool found;
    saf_status st = saf_gguf_get_string(g, "general.type", &found, &text, &len);
    if (st != SAF_OK) return st;
    if (found && !(len == 5 && memcmp(text, "model", 5) == 0))
        return saf_fail(SAF_BAD_INPUT, "%s: general.type is \"%.*s\", expected \"model\"",
                        saf_gguf_path(g), (int)(len < 40 ? len : 40), text);
    st = saf_gguf_get_string(g, "general.architecture", &found, &text, &len);
    if (st != SAF_OK) return st;
    if (!found)
        return saf_fail(SAF_BAD_INPUT, "%s: key \"general.architecture\" is missing",
                        saf_gguf_path(g));
    for (int i = 0; i < ARCHS; i++) {
        if (strlen(archs[i].name) == len && memcmp(archs[i].name, text, len) == 0) {
            *out = (saf_arch)i;
            return SAF_OK;
        }
    }
    return saf_fail(SAF_BAD_INPUT,
                    "%s: architecture \"%.*s\" is not supported; saf knows llama, qwen2, qwen3",
                    saf_gguf_path(g), (int)(len < 40 ? len : 40), text);
}

static saf_status refuse(const saf__arch_keys *k, const char *suffix, const char *what) {
    return saf_fail(SAF_BAD_INPUT, "%s: key \"%s.%s\": %s not supported", saf_gguf_path(k->g),
                    k->arch, suffix, what);
}

/* Features that some files of these architectures ask for and saf does not compute. */
static saf_status refuse_unknown_features(const saf__arch_keys *k, int64_t context) {
    static const struct {
        const char *suffix, *what;
    } integers[] =
        {
            {"expert_count", "a mixture of experts is"},
            {"expert_used_count", "a mixture of experts is"},
            {"nextn_predict_layers", "layers that predict several tokens are"},
            {"attention.temperature_length", "a temperature of attention is"},
        },
      numbers[] = {
          {"attn_logit_softcapping", "soft-capping of attention logits is"},
          {"final_logit_softcapping", "soft-capping of logits is"},
          {"attention.clamp_kqv", "clamping of q, k and v is"},
          {"attention.max_alibi_bias", "ALiBi is"},
          {"attention.temperature_scale", "a temperature of attention is"},
          {"logit_scale", "a scale of the logits is"},
          {"residual_scale", "a scale of the residual is"},
          {"embedding_scale", "a scale of the embedding is"},
      };
    saf_status st = SAF_OK;
    char key[SAF__KEY_BYTES];
    bool found, causal = true;
    int64_t n = 0;
    double v = 0;
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        SAF_TRY(saf__arch_int(k, integers[i].suffix, 0, INT64_MAX, &found, &n));
        if (found && n != 0) return refuse(k, integers[i].suffix, integers[i].what);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        bool neutral_one = strstr(numbers[i].suffix, "_scale") != NULL;
        SAF_TRY(saf__arch_float(k, numbers[i].suffix, -HUGE_VAL, HUGE_VAL, &found, &v));
        if (found && v != 0 && !(neutral_one && v == 1))
            return refuse(k, numbers[i].suffix, numbers[i].what);
    }
    SAF_TRY(saf__arch_int(k, "attention.sliding_window", 0, INT64_MAX, &found, &n));
    if (found && n != 0 && n < context)
        return refuse(k, "attention.sliding_window", "sliding-window attention is");
    saf__arch_key(k, "attention.causal", key);
    SAF_TRY(saf_gguf_get_bool(k->g, key, &found, &causal));
    if (!causal) return refuse(k, "attention.causal", "attention that is not causal is");
    saf__arch_key(k, "rope.dimension_sections", key);
    if (saf_gguf_has(k->g, key))
        return refuse(k, "rope.dimension_sections", "rotary positions of several axes are");
out:
    return st;
}

static saf_status read_attention(const saf__arch_keys *k, saf_model_params *p) {
    saf_status st = SAF_OK;
    bool found, found_v;
    int64_t value_width;
    double scale = 0;
    const char *path = saf_gguf_path(k->g);
    p->heads = p->kv_heads = 1; /* until read */
    SAF_TRY(saf__arch_int(k, "attention.head_count", 1, HEADS_MAX, NULL, &p->heads));
    p->kv_heads = p->heads;
    SAF_TRY(saf__arch_int(k, "attention.head_count_kv", 1, p->heads, &found, &p->kv_heads));
    if (p->heads % p->kv_heads != 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld heads cannot share %lld key-value heads evenly",
                      path, (long long)p->heads, (long long)p->kv_heads);
        goto out;
    }
    SAF_TRY(
        saf__arch_int(k, "attention.key_length", 1, SAF_MAX_HEAD_WIDTH, &found, &p->head_width));
    if (!found && (p->width % p->heads != 0 || p->width / p->heads > SAF_MAX_HEAD_WIDTH)) {
        st = saf_fail(SAF_BAD_INPUT, "%s: a width of %lld makes no %lld heads of at most %d", path,
                      (long long)p->width, (long long)p->heads, SAF_MAX_HEAD_WIDTH);
        goto out;
    }
    if (!found) p->head_width = p->width / p->heads;
    value_width = found ? p->width / p->heads : p->head_width;
    SAF_TRY(
        saf__arch_int(k, "attention.value_length", 1, SAF_MAX_HEAD_WIDTH, &found_v, &value_width));
    if (value_width != p->head_width) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: keys of %lld and values of %lld per head: saf needs them equal", path,
                      (long long)p->head_width, (long long)value_width);
        goto out;
    }
    p->attention_scale = (float)(1.0 / sqrt((double)p->head_width));
    SAF_TRY(saf__arch_float(k, "attention.scale", 0, 1e3, &found, &scale));
    if (found && scale != 0) p->attention_scale = (float)scale;
out:
    return st;
}

saf_status saf_model_params_read(const saf_gguf *g, saf_model_params *out) {
    saf_status st = SAF_OK;
    saf_model_params p = {0};
    double eps = 0;
    SAF_TRY(read_arch(g, &p.arch));
    saf__arch_keys k = {g, archs[p.arch].name};
    p.rope_pairs = archs[p.arch].pairs;
    p.qk_norm = archs[p.arch].qk_norm;
    SAF_TRY(read_name(g, p.name));
    SAF_TRY(saf__arch_int(&k, "context_length", 1, INT32_MAX, NULL, &p.context));
    SAF_TRY(refuse_unknown_features(&k, p.context));
    SAF_TRY(saf__arch_int(&k, "block_count", 1, LAYERS_MAX, NULL, &p.layers));
    SAF_TRY(saf__arch_int(&k, "embedding_length", 1, WIDTH_MAX, NULL, &p.width));
    SAF_TRY(saf__arch_int(&k, "feed_forward_length", 1, WIDTH_MAX, NULL, &p.ff_width));
    SAF_TRY(saf__arch_float(&k, "attention.layer_norm_rms_epsilon", 1e-30, 1, NULL, &eps));
    p.norm_eps = (float)eps;
    SAF_TRY(read_attention(&k, &p));
    SAF_TRY(saf__tensors_check(g, &p));
    SAF_TRY(saf__rope_read(&k, &p));
    *out = p;
    p = (saf_model_params){0};
out:
    saf_model_params_free(&p);
    return st;
}

void saf_model_params_free(saf_model_params *p) {
    saf_free(&p->inv_freq);
    *p = (saf_model_params){0};
}
