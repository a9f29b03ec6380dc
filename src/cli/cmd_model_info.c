/* saf model info: what is in a model file, for people and (--json) for programs. */
#include <cjson/cJSON.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "saf/model.h"

static const char usage[] = "saf model info FILE.gguf [--tensors] [--keys] [--json]";

typedef struct {
    bool tensors, keys, json;
    saf_gguf *g;
    bool supported; /* params are filled */
    saf_model_params params;
    char reason[1024]; /* why not supported */
    struct {
        int64_t count, elements;
        uint64_t bytes;
    } types[SAF_DTYPE_COUNT];
    int64_t elements;
    uint64_t bytes;
} info;

static void count_types(info *in) {
    for (int64_t i = 0; i < saf_gguf_tensor_count(in->g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(in->g, i);
        int64_t n = t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3]; /* checked at open */
        in->types[t->dtype].count++;
        in->types[t->dtype].elements += n;
        in->types[t->dtype].bytes += t->bytes;
        in->elements += n;
        in->bytes += t->bytes;
    }
}

/* ---- values as text -------------------------------------------------------------------------- */

/* Bytes from a file for a terminal: valid UTF-8, no control characters, at most `max` bytes. */
static saf_status append_text(saf_buf *out, const char *text, size_t len, size_t max) {
    saf_status st = SAF_OK;
    size_t start = out->len, keep = len <= max ? len : saf_utf8_whole_prefix(text, max);
    SAF_TRY(saf_utf8_append_clean(out, text, keep));
    for (size_t i = start; i < out->len; i++) {
        unsigned char c = (unsigned char)out->data[i];
        if (c < 0x20 || c == 0x7F) out->data[i] = ' ';
    }
    if (keep < len) SAF_TRY(saf_buf_printf(out, "... (%zu bytes)", len));
out:
    return st;
}

/* The value of a key on one line. */
static saf_status append_value(const saf_gguf *g, const char *key, saf_gguf_kind kind,
                               saf_gguf_kind element, int64_t length, saf_buf *out) {
    saf_status st = SAF_OK;
    bool found, flag = false;
    int64_t v = 0;
    double x = 0;
    const char *text = "";
    size_t len = 0;
    switch (kind) {
        case SAF_GGUF_STRING:
            SAF_TRY(saf_gguf_get_string(g, key, &found, &text, &len));
            SAF_TRY(append_text(out, text, len, 100));
            break;
        case SAF_GGUF_ARRAY:
            SAF_TRY(
                saf_buf_printf(out, "%lld x %s", (long long)length, saf_gguf_kind_name(element)));
            break;
        case SAF_GGUF_BOOL:
            SAF_TRY(saf_gguf_get_bool(g, key, &found, &flag));
            SAF_TRY(saf_buf_printf(out, "%s", flag ? "true" : "false"));
            break;
        case SAF_GGUF_F32:
        case SAF_GGUF_F64:
            SAF_TRY(saf_gguf_get_f64(g, key, &found, &x));
            SAF_TRY(saf_buf_printf(out, "%.9g", x));
            break;
        default:
            if (saf_gguf_get_i64(g, key, &found, &v) == SAF_OK)
                SAF_TRY(saf_buf_printf(out, "%lld", (long long)v));
            else
                SAF_TRY(saf_buf_printf(out, "larger than 2^63 - 1"));
    }
out:
    return st;
}

/* A key that ought to be a short string or a number; "" when it is not there. */
static saf_status append_key(const saf_gguf *g, const char *before, const char *key, saf_buf *out) {
    saf_status st = SAF_OK;
    saf_gguf_kind kind, element;
    int64_t length;
    for (int64_t i = 0; i < saf_gguf_key_count(g); i++) {
        if (strcmp(saf_gguf_key(g, i, &kind, &element, &length), key) != 0) continue;
        SAF_TRY(saf_buf_printf(out, "%s", before));
        SAF_TRY(append_value(g, key, kind, element, length, out));
    }
out:
    return st;
}

static saf_status append_tokenizer(const saf_gguf *g, saf_buf *out) {
    static const char *const parts[][2] = {
        {"", "tokenizer.ggml.model"},
        {", splitting ", "tokenizer.ggml.pre"},
        {", tokens ", "tokenizer.ggml.tokens"},
        {", merges ", "tokenizer.ggml.merges"},
        {", bos ", "tokenizer.ggml.bos_token_id"},
        {", eos ", "tokenizer.ggml.eos_token_id"},
        {", adds bos ", "tokenizer.ggml.add_bos_token"},
    };
    saf_status st = SAF_OK;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        SAF_TRY(append_key(g, parts[i][0], parts[i][1], out));
    if (out->len == 0) SAF_TRY(saf_buf_printf(out, "none"));
out:
    return st;
}

/* ---- for people ------------------------------------------------------------------------------ */

static void print_model(const info *in) {
    const saf_model_params *p = &in->params;
    if (!in->supported) {
        printf("%-16s %s\n", "not usable", in->reason);
        return;
    }
    printf("%-16s %s\n", "name", p->name[0] ? p->name : "(none)");
    printf("%-16s %s\n", "architecture", saf_arch_name(p->arch));
    printf("%-16s %lld layers, width %lld, feed-forward %lld\n", "shape", (long long)p->layers,
           (long long)p->width, (long long)p->ff_width);
    printf("%-16s %lld heads of width %lld, %lld key-value heads%s%s\n", "attention",
           (long long)p->heads, (long long)p->head_width, (long long)p->kv_heads,
           p->qkv_bias ? ", biases" : "", p->qk_norm ? ", norms of q and k" : "");
    printf("%-16s %lld pairs a head, %s, scale %g\n", "rotary", (long long)p->rope_half,
           p->rope_pairs == SAF_ROPE_ADJACENT ? "adjacent" : "halves", p->rope_scale);
    printf("%-16s %lld tokens%s\n", "vocabulary", (long long)p->vocab,
           p->tied ? ", embedding tied to the output head" : "");
    printf("%-16s %lld tokens\n", "context", (long long)p->context);
}

static void print_types(const info *in) {
    printf("%-16s %" PRId64 " in %" PRId64 " tensors, %" PRIu64 " bytes\n", "parameters",
           in->elements, saf_gguf_tensor_count(in->g), in->bytes);
    for (int d = 0; d < SAF_DTYPE_COUNT; d++)
        if (in->types[d].count)
            printf("  %-14s %6" PRId64 " tensors %16" PRId64 " elements %16" PRIu64 " bytes\n",
                   saf_dtype_name((saf_dtype)d), in->types[d].count, in->types[d].elements,
                   in->types[d].bytes);
}

static void print_tensors(const saf_gguf *g) {
    printf("\n%-40s %-6s %-24s %14s %5s %16s\n", "tensor", "type", "shape", "bytes", "part",
           "offset");
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        char shape[96];
        int len = 0;
        for (int d = 0; d < t->ndim; d++)
            len += snprintf(shape + len, sizeof shape - (size_t)len, "%s%lld", d ? " x " : "",
                            (long long)t->shape[d]);
        printf("%-40s %-6s %-24s %14zu %5d %16" PRIu64 "\n", t->name, saf_dtype_name(t->dtype),
               shape, t->bytes, t->part + 1, t->offset);
    }
}

static saf_status print_keys(const saf_gguf *g) {
    saf_status st = SAF_OK;
    saf_buf value = {0};
    saf_gguf_kind kind, element;
    int64_t length;
    printf("\n%-48s %-6s %s\n", "key", "type", "value");
    for (int64_t i = 0; i < saf_gguf_key_count(g); i++) {
        const char *key = saf_gguf_key(g, i, &kind, &element, &length);
        saf_buf_clear(&value);
        SAF_TRY(append_value(g, key, kind, element, length, &value));
        printf("%-48s %-6s %s\n", key, saf_gguf_kind_name(kind), value.data ? value.data : "");
    }
out:
    saf_buf_free(&value);
    return st;
}

static saf_status print_text(const info *in) {
    saf_status st = SAF_OK;
    saf_buf tokenizer = {0};
    SAF_TRY(append_tokenizer(in->g, &tokenizer));
    printf("%-16s %s\n", "file", saf_gguf_path(in->g));
    printf("%-16s GGUF version %d, %" PRIu64 " bytes in %d part%s\n", "format",
           saf_gguf_version(in->g), saf_gguf_file_bytes(in->g), saf_gguf_parts(in->g),
           saf_gguf_parts(in->g) == 1 ? "" : "s");
    print_model(in);
    printf("%-16s %s\n", "tokenizer", tokenizer.data);
    print_types(in);
    if (in->tensors) print_tensors(in->g);
    if (in->keys) SAF_TRY(print_keys(in->g));
out:
    saf_buf_free(&tokenizer);
    return st;
}

/* ---- for programs ---------------------------------------------------------------------------- */

/* cJSON returns NULL when memory ends and then adds nothing: checked once, when all is printed. */
static void add_number(cJSON *to, const char *name, double v) {
    cJSON_AddNumberToObject(to, name, v);
}

static void add_model(const info *in, cJSON *root) {
    const saf_model_params *p = &in->params;
    cJSON_AddBoolToObject(root, "supported", in->supported);
    if (!in->supported) {
        cJSON_AddStringToObject(root, "reason", in->reason);
        return;
    }
    cJSON_AddStringToObject(root, "name", p->name);
    cJSON_AddStringToObject(root, "architecture", saf_arch_name(p->arch));
    add_number(root, "layers", (double)p->layers);
    add_number(root, "width", (double)p->width);
    add_number(root, "heads", (double)p->heads);
    add_number(root, "kv_heads", (double)p->kv_heads);
    add_number(root, "head_width", (double)p->head_width);
    add_number(root, "ff_width", (double)p->ff_width);
    add_number(root, "vocab", (double)p->vocab);
    add_number(root, "context", (double)p->context);
    add_number(root, "rope_half", (double)p->rope_half);
    add_number(root, "rope_scale", p->rope_scale);
    add_number(root, "norm_eps", (double)p->norm_eps);
    cJSON_AddBoolToObject(root, "qkv_bias", p->qkv_bias);
    cJSON_AddBoolToObject(root, "qk_norm", p->qk_norm);
    cJSON_AddBoolToObject(root, "tied", p->tied);
}

static void add_types(const info *in, cJSON *root) {
    cJSON *types = cJSON_AddObjectToObject(root, "types");
    for (int d = 0; d < SAF_DTYPE_COUNT; d++) {
        if (!in->types[d].count) continue;
        cJSON *type = cJSON_AddObjectToObject(types, saf_dtype_name((saf_dtype)d));
        add_number(type, "tensors", (double)in->types[d].count);
        add_number(type, "elements", (double)in->types[d].elements);
        add_number(type, "bytes", (double)in->types[d].bytes);
    }
}

static void add_tensors(const saf_gguf *g, cJSON *root) {
    cJSON *list = cJSON_AddArrayToObject(root, "tensors");
    for (int64_t i = 0; i < saf_gguf_tensor_count(g); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(g, i);
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", t->name);
        cJSON_AddStringToObject(item, "type", saf_dtype_name(t->dtype));
        cJSON *shape = cJSON_AddArrayToObject(item, "shape");
        for (int d = 0; d < t->ndim; d++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[d]));
        add_number(item, "bytes", (double)t->bytes);
        add_number(item, "part", t->part + 1);
        add_number(item, "offset", (double)t->offset);
        cJSON_AddItemToArray(list, item);
    }
}

static saf_status add_key(const saf_gguf *g, int64_t i, cJSON *keys) {
    saf_status st = SAF_OK;
    saf_buf clean = {0};
    saf_gguf_kind kind, element;
    int64_t length, v = 0;
    bool found, flag = false;
    double x = 0;
    const char *text = "", *key = saf_gguf_key(g, i, &kind, &element, &length);
    size_t len = 0;
    if (kind == SAF_GGUF_STRING) {
        SAF_TRY(saf_gguf_get_string(g, key, &found, &text, &len));
        SAF_TRY(saf_utf8_append_clean(&clean, text, len));
        cJSON_AddStringToObject(keys, key, clean.data ? clean.data : "");
    } else if (kind == SAF_GGUF_ARRAY) {
        cJSON *array = cJSON_AddObjectToObject(keys, key);
        cJSON_AddStringToObject(array, "array_of", saf_gguf_kind_name(element));
        add_number(array, "length", (double)length);
    } else if (kind == SAF_GGUF_BOOL) {
        SAF_TRY(saf_gguf_get_bool(g, key, &found, &flag));
        cJSON_AddBoolToObject(keys, key, flag);
    } else if (kind == SAF_GGUF_F32 || kind == SAF_GGUF_F64) {
        SAF_TRY(saf_gguf_get_f64(g, key, &found, &x));
        add_number(keys, key, x);
    } else if (saf_gguf_get_i64(g, key, &found, &v) == SAF_OK) {
        add_number(keys, key, (double)v);
    } else {
        cJSON_AddNullToObject(keys, key);
    }
out:
    saf_buf_free(&clean);
    return st;
}

static saf_status print_json(const info *in) {
    saf_status st = SAF_OK;
    saf_buf tokenizer = {0};
    char *text = NULL;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "file", saf_gguf_path(in->g));
    add_number(root, "version", saf_gguf_version(in->g));
    add_number(root, "file_bytes", (double)saf_gguf_file_bytes(in->g));
    add_number(root, "parts", saf_gguf_parts(in->g));
    add_model(in, root);
    SAF_TRY(append_tokenizer(in->g, &tokenizer));
    cJSON_AddStringToObject(root, "tokenizer", tokenizer.data);
    add_number(root, "tensor_count", (double)saf_gguf_tensor_count(in->g));
    add_number(root, "parameters", (double)in->elements);
    add_number(root, "tensor_bytes", (double)in->bytes);
    add_types(in, root);
    if (in->tensors) add_tensors(in->g, root);
    if (in->keys) {
        cJSON *keys = cJSON_AddObjectToObject(root, "keys");
        for (int64_t i = 0; i < saf_gguf_key_count(in->g); i++) SAF_TRY(add_key(in->g, i, keys));
    }
    text = cJSON_Print(root);
    if (text)
        printf("%s\n", text);
    else
        st = saf_fail(SAF_NO_MEMORY, "no memory to print as JSON");
out:
    free(text);
    cJSON_Delete(root);
    saf_buf_free(&tokenizer);
    return st;
}

int saf__cmd_model_info(int argc, char **argv) {
    static const struct option longs[] = {
        {"tensors", no_argument, NULL, 't'},
        {"keys", no_argument, NULL, 'k'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    saf_status st = SAF_OK;
    info in = {0};
    int c;
    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'h') {
            printf(
                "usage: %s\n\nPrints what a model file holds, and whether saf can run it.\n\n"
                "  --tensors  every tensor as well\n"
                "  --keys     every key of its header as well\n"
                "  --json     the same as JSON\n",
                usage);
            return 0;
        }
        if (c != 't' && c != 'k' && c != 'j')
            return saf__cli_usage(usage, "unknown option \"%s\"", argv[optind - 1]);
        in.tensors |= c == 't';
        in.keys |= c == 'k';
        in.json |= c == 'j';
    }
    if (optind != argc - 1) return saf__cli_usage(usage, "one model file is needed");
    SAF_TRY(saf_gguf_open(argv[optind], &in.g));
    count_types(&in);
    st = saf_model_params_read(in.g, &in.params);
    if (st == SAF_NO_MEMORY || st == SAF_IO) goto out; /* says nothing about the model */
    in.supported = st == SAF_OK;
    if (!in.supported) snprintf(in.reason, sizeof in.reason, "%s", saf_error_text());
    st = in.json ? print_json(&in) : print_text(&in);
    if (st == SAF_OK && (fflush(stdout) != 0 || ferror(stdout)))
        st = saf_fail(SAF_IO, "cannot write to standard output");
out:
    saf_model_params_free(&in.params);
    saf_gguf_close(&in.g);
    return saf__cli_exit(st);
}
