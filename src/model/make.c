/* saf_model_make: a model file of a given shape, to size a cluster with before anything real is
 * downloaded. */
#include "model/make.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/gguf.h"
#include "model/params.h"
#include "saf/kernel.h"

enum { CHUNK_BYTES = 8 << 20, DEFAULT_CONTEXT = 4096, VOCAB_MAX = 1 << 21, LAYERS_MAX = 1 << 16 };
#define WIDTH_MAX (INT64_C(1) << 24)

typedef struct {
    saf_gguf_writer *w;
    const saf_model_make_options *options;
    uint64_t tensor; /* number of the next one */
    uint8_t *chunk;  /* [CHUNK_BYTES] */
} maker;

bool saf_model_shape_read(const char *text, saf_model_make_options *out) {
    int64_t *const fields[] = {&out->layers,   &out->width,      &out->heads,
                               &out->kv_heads, &out->head_width, &out->ff_width};
    enum { FIELDS = sizeof fields / sizeof fields[0] };
    for (int i = 0; i < FIELDS; i++) {
        char *end;
        errno = 0;
        if (*text < '0' || *text > '9') return false;
        long long v = strtoll(text, &end, 10);
        if (errno != 0 || *end != (i == FIELDS - 1 ? 0 : ':')) return false;
        *fields[i] = v;
        text = end + 1;
    }
    return true;
}

static saf_status check_range(const char *what, int64_t v, int64_t min, int64_t max) {
    if (v >= min && v <= max) return SAF_OK;
    return saf_fail(SAF_USAGE, "%s is %lld, expected %lld to %lld", what, (long long)v,
                    (long long)min, (long long)max);
}

/* The parameters that a reader of the file will find. */
static saf_status check_options(const saf_model_make_options *o, saf_model_params *p) {
    saf_status st = SAF_OK;
    int arch = 0;
    while (arch <= SAF_ARCH_QWEN3 && strcmp(saf_arch_name((saf_arch)arch), o->arch) != 0) arch++;
    if (arch > SAF_ARCH_QWEN3)
        return saf_fail(SAF_USAGE, "architecture \"%s\" is not one of llama, qwen2, qwen3",
                        o->arch);
    if (!saf__synthetic_supports(o->dtype))
        return saf_fail(SAF_USAGE, "no weights of type %s can be made", saf_dtype_name(o->dtype));
    SAF_TRY(check_range("the number of layers", o->layers, 1, LAYERS_MAX));
    SAF_TRY(check_range("the width", o->width, 1, WIDTH_MAX));
    SAF_TRY(check_range("the number of heads", o->heads, 1, LAYERS_MAX));
    SAF_TRY(check_range("the number of key-value heads", o->kv_heads, 1, o->heads));
    SAF_TRY(check_range("the head width", o->head_width, 2, SAF_MAX_HEAD_WIDTH));
    SAF_TRY(check_range("the feed-forward width", o->ff_width, 1, WIDTH_MAX));
    SAF_TRY(check_range("the context", o->context, 0, INT32_MAX));
    SAF_TRY(check_range("the vocabulary", o->vocab_size, 0, VOCAB_MAX));
    if (o->head_width % 2 != 0 || o->heads % o->kv_heads != 0) {
        st = saf_fail(SAF_USAGE,
                      "%lld heads of width %lld with %lld key-value heads: the width must be even "
                      "and the heads a multiple of the key-value heads",
                      (long long)o->heads, (long long)o->head_width, (long long)o->kv_heads);
        goto out;
    }
    *p = (saf_model_params){.arch = (saf_arch)arch,
                            .layers = o->layers,
                            .width = o->width,
                            .heads = o->heads,
                            .kv_heads = o->kv_heads,
                            .head_width = o->head_width,
                            .ff_width = o->ff_width,
                            .context = o->context ? o->context : DEFAULT_CONTEXT,
                            .norm_eps = arch == SAF_ARCH_LLAMA ? 1e-5f : 1e-6f,
                            .qkv_bias = arch == SAF_ARCH_QWEN2,
                            .qk_norm = arch == SAF_ARCH_QWEN3,
                            .tied = o->tied};
out:
    return st;
}

static saf_status write_general(saf_gguf_writer *w, const saf_model_make_options *o) {
    char name[160];
    snprintf(name, sizeof name, "synthetic %s %lld:%lld:%lld:%lld:%lld:%lld %s seed %llu", o->arch,
             (long long)o->layers, (long long)o->width, (long long)o->heads, (long long)o->kv_heads,
             (long long)o->head_width, (long long)o->ff_width, saf_dtype_name(o->dtype),
             (unsigned long long)o->seed);
    return saf__write_general(w, o->arch, name, o->dtype);
}

static saf_status declare(void *user, const char *name, int64_t cols, int64_t rows) {
    maker *m = user;
    const int64_t shape[2] = {cols, rows};
    return saf_gguf_declare(m->w, name, saf__type_of(m->options->dtype, cols, rows), rows ? 2 : 1,
                            shape);
}

static saf_status write_values(void *user, const char *name, int64_t cols, int64_t rows) {
    saf_status st = SAF_OK;
    maker *m = user;
    bool norm = strstr(name, "norm") != NULL;
    saf__synthetic s = {.dtype = saf__type_of(m->options->dtype, cols, rows),
                        .mean = norm ? 1 : 0,
                        .std = rows ? 1 / sqrt((double)cols) : 0.05,
                        .seed = m->options->seed,
                        .tensor = m->tensor++};
    int64_t total = rows ? cols * rows : cols, step = CHUNK_BYTES / 4 / SAF__UNIT * SAF__UNIT;
    for (int64_t at = 0; at < total; at += step) {
        int64_t n = saf_i64_min(step, total - at);
        size_t bytes;
        if (!saf_dtype_bytes(s.dtype, n, &bytes) || bytes > CHUNK_BYTES)
            return saf_fail(SAF_DEFECT, "tensor \"%s\": a ragged piece", name);
        saf__synthetic_fill(&s, at, n, m->chunk);
        SAF_TRY(saf_gguf_write_data(m->w, m->chunk, bytes));
    }
out:
    return st;
}

saf_status saf_model_make(const char *path, const saf_model_make_options *options) {
    saf_status st = SAF_OK;
    maker m = {.options = options};
    saf_model_params p;
    SAF_TRY(check_options(options, &p));
    /* Weights are to be the same everywhere; and threads that cannot start end the process, which
     * must not leave half a file. */
    SAF_TRY(saf_kernels_check_float_state());
    SAF_TRY(saf_alloc(CHUNK_BYTES, 1, &m.chunk));
    SAF_TRY(saf_gguf_writer_open(path, &m.w));
    SAF_TRY(write_general(m.w, options));
    SAF_TRY(saf__make_vocab(m.w, options->vocab_path, options->vocab_size, &p.vocab));
    SAF_TRY(saf__write_arch(m.w, &p, p.arch == SAF_ARCH_LLAMA ? 10000 : 1000000));
    SAF_TRY(saf__tensors_each(&p, declare, &m));
    if (options->header_only)
        saf_gguf_writer_header_only(m.w);
    else
        SAF_TRY(saf__tensors_each(&p, write_values, &m));
    SAF_TRY(saf_gguf_writer_finish(m.w));
out:
    saf_gguf_writer_free(&m.w);
    saf_free(&m.chunk);
    return st;
}
