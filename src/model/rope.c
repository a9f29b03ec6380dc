/* Rotary frequencies and the methods that stretch them to longer contexts.
 *
 * Pair i of n = 2 * rope_half rotated channels turns by position * inv_freq[i]:
 *   plain      f = base^(-2i/n)
 *   factors    f / rope_freqs[i] (how Llama 3's scaling arrives in a file)
 *   linear     f / s
 *   yarn       f/s * (1 - r) + f * r: fast pairs keep their frequency, slow ones are stretched.
 *              r falls from e to 0 between the pairs that turn beta_fast and beta_slow times within
 *              the original context; cos and sin grow by 0.1 ln(s) + 1.
 * Source: Peng et al., "YaRN", 2023, sections 3.2 to 3.4, with the ramp over pairs instead of
 * wavelengths and its ends rounded outwards to whole pairs, as llama.cpp applies it. */
#include <math.h>

#include "model/params.h"

typedef enum { ROPE_NONE, ROPE_LINEAR, ROPE_YARN } rope_type;

typedef struct {
    rope_type type;
    double base, factor, attn_factor, ext_factor, beta_fast, beta_slow;
    int64_t original_context;
} rope_settings;

static saf_status read_type(const saf__arch_keys *k, rope_type *out) {
    static const char *const names[] = {"none", "linear", "yarn"};
    char key[SAF__KEY_BYTES];
    const char *text;
    size_t len;
    bool found;
    saf__arch_key(k, "rope.scaling.type", key);
    saf_status st = saf_gguf_get_string(k->g, key, &found, &text, &len);
    *out = ROPE_LINEAR; /* a file may give a factor alone */
    if (st != SAF_OK || !found) return st;
    for (int i = 0; i < 3; i++) {
        if (strlen(names[i]) == len && memcmp(names[i], text, len) == 0) {
            *out = (rope_type)i;
            return SAF_OK;
        }
    }
    return saf_fail(SAF_BAD_INPUT,
                    "%s: rope scaling \"%.*s\" is not supported; saf knows none, linear, yarn",
                    saf_gguf_path(k->g), (int)(len < 40 ? len : 40), text);
}

static saf_status read_settings(const saf__arch_keys *k, const saf_model_params *p,
                                rope_settings *s) {
    saf_status st = SAF_OK;
    bool found;
    double yarn_attn_factor = 1, log_multiplier = 0;
    *s = (rope_settings){.base = 10000,
                         .factor = 0,
                         .attn_factor = 1,
                         .ext_factor = 1,
                         .beta_fast = 32,
                         .beta_slow = 1,
                         .original_context = p->context};
    SAF_TRY(read_type(k, &s->type));
    SAF_TRY(saf__arch_float(k, "rope.freq_base", 1.001, 1e30, &found, &s->base));
    SAF_TRY(saf__arch_float(k, "rope.scaling.factor", 0, 1e9, &found, &s->factor));
    if (!found) SAF_TRY(saf__arch_float(k, "rope.scale_linear", 0, 1e9, &found, &s->factor));
    if (s->factor == 0) s->factor = 1;
    SAF_TRY(saf__arch_float(k, "rope.scaling.attn_factor", 1e-9, 1e9, &found, &s->attn_factor));
    SAF_TRY(saf__arch_int(k, "rope.scaling.original_context_length", 0, INT32_MAX, &found,
                          &s->original_context));
    if (s->original_context == 0) s->original_context = p->context;
    SAF_TRY(
        saf__arch_float(k, "rope.scaling.yarn_log_multiplier", -1e9, 1e9, &found, &log_multiplier));
    if (log_multiplier != 0) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: key \"%s.rope.scaling.yarn_log_multiplier\" is not "
                      "supported",
                      saf_gguf_path(k->g), k->arch);
        goto out;
    }
    if (s->type != ROPE_YARN) goto out;
    SAF_TRY(saf__arch_float(k, "rope.scaling.yarn_ext_factor", -1, 1, &found, &s->ext_factor));
    if (s->ext_factor < 0) s->ext_factor = 1; /* "not set" */
    SAF_TRY(
        saf__arch_float(k, "rope.scaling.yarn_attn_factor", 1e-9, 1e9, &found, &yarn_attn_factor));
    s->attn_factor *= yarn_attn_factor;
    SAF_TRY(saf__arch_float(k, "rope.scaling.yarn_beta_fast", 1e-6, 1e6, &found, &s->beta_fast));
    SAF_TRY(saf__arch_float(k, "rope.scaling.yarn_beta_slow", 1e-6, 1e6, &found, &s->beta_slow));
out:
    return st;
}

/* Divides by rope_freqs.weight where the file has it. */
static saf_status apply_factors(const saf_gguf *g, int64_t half, double *inv_freq) {
    saf_status st = SAF_OK;
    float *factors = NULL;
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, "rope_freqs.weight");
    if (!t) return SAF_OK;
    if (t->dtype != SAF_DTYPE_F32 || t->shape[0] != half || t->shape[1] != 1 || t->shape[2] != 1 ||
        t->shape[3] != 1)
        return saf_fail(SAF_BAD_INPUT,
                        "%s: tensor \"rope_freqs.weight\" is %s with rows of %lld, expected F32 "
                        "and one row of %lld",
                        saf_gguf_path(g), saf_dtype_name(t->dtype), (long long)t->shape[0],
                        (long long)half);
    SAF_TRY(saf_alloc((size_t)half, sizeof *factors, &factors));
    SAF_TRY(saf_gguf_tensor_read(g, t, 0, t->bytes, factors));
    for (int64_t i = 0; i < half; i++) {
        if (!(factors[i] >= 1e-6f && factors[i] <= 1e9f)) {
            st = saf_fail(SAF_BAD_INPUT,
                          "%s: tensor \"rope_freqs.weight\": element %lld is %g, expected a "
                          "positive divisor",
                          saf_gguf_path(g), (long long)i, (double)factors[i]);
            goto out;
        }
        inv_freq[i] /= (double)factors[i];
    }
out:
    saf_free(&factors);
    return st;
}

/* The (fractional) pair that turns `turns` times within the original context. */
static double pair_of_turns(const rope_settings *s, int64_t n, double turns) {
    const double two_pi = 6.283185307179586;
    return (double)n * saf_math_log((double)s->original_context / (turns * two_pi)) /
           (2 * saf_math_log(s->base));
}

static void apply_yarn(const rope_settings *s, int64_t half, double *inv_freq, double *scale) {
    int64_t n = 2 * half;
    double low = fmax(0, floor(pair_of_turns(s, n, s->beta_fast)));
    double high = fmin((double)(n - 1), ceil(pair_of_turns(s, n, s->beta_slow)));
    for (int64_t i = 0; i < half; i++) {
        double ramp = ((double)i - low) / fmax(0.001, high - low);
        double keep = (1 - fmin(1, fmax(0, ramp))) * s->ext_factor;
        inv_freq[i] = inv_freq[i] / s->factor * (1 - keep) + inv_freq[i] * keep;
    }
    if (s->ext_factor != 0 && s->factor > 1) *scale *= 1 + 0.1 * saf_math_log(s->factor);
}

saf_status saf__rope_read(const saf__arch_keys *k, saf_model_params *p) {
    saf_status st = SAF_OK;
    rope_settings s;
    bool found;
    int64_t n = p->head_width;
    SAF_TRY(read_settings(k, p, &s));
    SAF_TRY(saf__arch_int(k, "rope.dimension_count", 2, p->head_width, &found, &n));
    if (n % 2 != 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld rotary dimensions make no pairs",
                      saf_gguf_path(k->g), (long long)n);
        goto out;
    }
    p->rope_half = n / 2;
    p->rope_scale = s.attn_factor;
    SAF_TRY(saf_alloc((size_t)p->rope_half, sizeof *p->inv_freq, &p->inv_freq));
    for (int64_t i = 0; i < p->rope_half; i++)
        p->inv_freq[i] = saf_math_pow(s.base, -2.0 * (double)i / (double)n);
    SAF_TRY(apply_factors(k->g, p->rope_half, p->inv_freq));
    if (s.type == ROPE_LINEAR)
        for (int64_t i = 0; i < p->rope_half; i++) p->inv_freq[i] /= s.factor;
    if (s.type == ROPE_YARN) apply_yarn(&s, p->rope_half, p->inv_freq, &p->rope_scale);
out:
    return st;
}
