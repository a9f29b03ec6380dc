/* saf_gguf_get_*: typed access to the keys. Values are decoded from the header's own bytes, which
 * saf__gguf_parse has checked: kinds are in range and every value lies inside. */
#include <stdlib.h>

#include "model/gguf.h"

static const struct {
    const char *name;
    size_t bytes;
} kinds[SAF_GGUF_KINDS] = {
    [SAF_GGUF_U8] = {"u8", 1},         [SAF_GGUF_I8] = {"i8", 1},
    [SAF_GGUF_U16] = {"u16", 2},       [SAF_GGUF_I16] = {"i16", 2},
    [SAF_GGUF_U32] = {"u32", 4},       [SAF_GGUF_I32] = {"i32", 4},
    [SAF_GGUF_F32] = {"f32", 4},       [SAF_GGUF_BOOL] = {"bool", 1},
    [SAF_GGUF_STRING] = {"string", 0}, [SAF_GGUF_ARRAY] = {"array", 0},
    [SAF_GGUF_U64] = {"u64", 8},       [SAF_GGUF_I64] = {"i64", 8},
    [SAF_GGUF_F64] = {"f64", 8},
};

const char *saf_gguf_kind_name(saf_gguf_kind kind) {
    return (unsigned)kind < SAF_GGUF_KINDS ? kinds[kind].name : "none";
}

size_t saf__gguf_kind_bytes(saf_gguf_kind kind) {
    return kinds[kind].bytes;
}

/* Source: the GGUF specification (ggml_type). */
const char *saf__gguf_type_name(uint32_t number) {
    static const char *const names[] = {
        [0] = "F32",         [1] = "F16",         [2] = "Q4_0",        [3] = "Q4_1",
        [4] = "Q4_2",        [5] = "Q4_3",        [6] = "Q5_0",        [7] = "Q5_1",
        [8] = "Q8_0",        [9] = "Q8_1",        [10] = "Q2_K",       [11] = "Q3_K",
        [12] = "Q4_K",       [13] = "Q5_K",       [14] = "Q6_K",       [15] = "Q8_K",
        [16] = "IQ2_XXS",    [17] = "IQ2_XS",     [18] = "IQ3_XXS",    [19] = "IQ1_S",
        [20] = "IQ4_NL",     [21] = "IQ3_S",      [22] = "IQ2_S",      [23] = "IQ4_XS",
        [24] = "I8",         [25] = "I16",        [26] = "I32",        [27] = "I64",
        [28] = "F64",        [29] = "IQ1_M",      [30] = "BF16",       [31] = "Q4_0_4_4",
        [32] = "Q4_0_4_8",   [33] = "Q4_0_8_8",   [34] = "TQ1_0",      [35] = "TQ2_0",
        [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8", [39] = "MXFP4",
    };
    return number < sizeof names / sizeof names[0] ? names[number] : NULL;
}

void saf__gguf_keys_free(saf__gguf_keys *keys) {
    for (int64_t i = 0; i < keys->n; i++) saf_free(&keys->items[i].strings);
    saf_free(&keys->items);
    saf_free(&keys->by_name);
    saf_buf_free(&keys->header);
    saf_buf_free(&keys->names);
    *keys = (saf__gguf_keys){0};
}

static int find_order(const void *name, const void *entry) {
    return strcmp(name, (*(saf__gguf_key *const *)entry)->name);
}

const saf__gguf_key *saf__gguf_find(const saf__gguf_keys *keys, const char *name) {
    if (!keys->by_name) return NULL;
    saf__gguf_key **hit = bsearch(name, keys->by_name, (size_t)keys->n, sizeof(void *), find_order);
    return hit ? *hit : NULL;
}

/* First byte of a scalar or string, or of an array's first element. */
static const char *value_of(const saf__gguf_keys *keys, const saf__gguf_key *key) {
    return keys->header.data + key->raw + 4 + (key->kind == SAF_GGUF_ARRAY ? 4 + 8 : 0);
}

static bool is_integer(saf_gguf_kind kind) {
    return kind <= SAF_GGUF_I32 || kind == SAF_GGUF_U64 || kind == SAF_GGUF_I64;
}

/* An integer (or boolean) at `at`; false when a u64 does not fit. */
static bool decode_i64(saf_gguf_kind kind, const char *at, int64_t *out) {
#define CASE(KIND, type)          \
    case SAF_GGUF_##KIND: {       \
        type v;                   \
        memcpy(&v, at, sizeof v); \
        *out = (int64_t)v;        \
        return true;              \
    }
    switch (kind) {
        CASE(U8, uint8_t)
        CASE(BOOL, uint8_t)
        CASE(I8, int8_t)
        CASE(U16, uint16_t)
        CASE(I16, int16_t)
        CASE(U32, uint32_t)
        CASE(I32, int32_t)
        CASE(I64, int64_t)
        case SAF_GGUF_U64: {
            uint64_t v;
            memcpy(&v, at, sizeof v);
            if (v > INT64_MAX) return false;
            *out = (int64_t)v;
            return true;
        }
        default:
            return false;
    }
#undef CASE
}

static bool decode_f64(saf_gguf_kind kind, const char *at, double *out) {
    if (kind == SAF_GGUF_F32) {
        float v;
        memcpy(&v, at, sizeof v);
        *out = (double)v;
        return true;
    }
    if (kind != SAF_GGUF_F64) return false;
    memcpy(out, at, sizeof *out);
    return true;
}

static saf_status wrong_kind(const char *path, const saf__gguf_key *key, const char *expected) {
    return saf_fail(SAF_BAD_INPUT, "%s: byte %u: key \"%.200s\" is %s, expected %s", path, key->raw,
                    key->name, saf_gguf_kind_name(key->kind), expected);
}

saf_status saf__gguf_key_i64(const saf__gguf_keys *keys, const char *path, const char *name,
                             bool *found, int64_t *out) {
    const saf__gguf_key *key = saf__gguf_find(keys, name);
    *found = key != NULL;
    if (!key) return SAF_OK;
    if (!is_integer(key->kind)) return wrong_kind(path, key, "an integer");
    if (!decode_i64(key->kind, value_of(keys, key), out))
        return saf_fail(SAF_BAD_INPUT, "%s: byte %u: key \"%.200s\" is larger than 2^63 - 1", path,
                        key->raw + 4, key->name);
    return SAF_OK;
}

int64_t saf_gguf_key_count(const saf_gguf *g) {
    return g->keys.n;
}

const char *saf_gguf_key(const saf_gguf *g, int64_t i, saf_gguf_kind *kind, saf_gguf_kind *element,
                         int64_t *length) {
    if (i < 0 || i >= g->keys.n) return NULL;
    const saf__gguf_key *key = &g->keys.items[i];
    *kind = key->kind;
    *element = key->element;
    *length = key->length;
    return key->name;
}

bool saf_gguf_has(const saf_gguf *g, const char *key) {
    return saf__gguf_find(&g->keys, key) != NULL;
}

saf_status saf_gguf_get_i64(const saf_gguf *g, const char *key, bool *found, int64_t *out) {
    return saf__gguf_key_i64(&g->keys, saf_gguf_path(g), key, found, out);
}

saf_status saf_gguf_get_f64(const saf_gguf *g, const char *key, bool *found, double *out) {
    const saf__gguf_key *k = saf__gguf_find(&g->keys, key);
    *found = k != NULL;
    if (!k || decode_f64(k->kind, value_of(&g->keys, k), out)) return SAF_OK;
    return wrong_kind(saf_gguf_path(g), k, "f32 or f64");
}

saf_status saf_gguf_get_bool(const saf_gguf *g, const char *key, bool *found, bool *out) {
    const saf__gguf_key *k = saf__gguf_find(&g->keys, key);
    *found = k != NULL;
    if (!k) return SAF_OK;
    if (k->kind != SAF_GGUF_BOOL) return wrong_kind(saf_gguf_path(g), k, "bool");
    *out = *value_of(&g->keys, k) != 0;
    return SAF_OK;
}

/* A length and its bytes, as strings lie in the file. */
static void decode_string(const char *at, const char **text, size_t *len) {
    uint64_t n;
    memcpy(&n, at, sizeof n);
    *text = at + sizeof n;
    *len = (size_t)n;
}

saf_status saf_gguf_get_string(const saf_gguf *g, const char *key, bool *found, const char **text,
                               size_t *len) {
    const saf__gguf_key *k = saf__gguf_find(&g->keys, key);
    *found = k != NULL;
    if (!k) return SAF_OK;
    if (k->kind != SAF_GGUF_STRING) return wrong_kind(saf_gguf_path(g), k, "string");
    decode_string(value_of(&g->keys, k), text, len);
    return SAF_OK;
}

saf_status saf_gguf_get_array(const saf_gguf *g, const char *key, bool *found,
                              saf_gguf_kind *element, int64_t *length) {
    const saf__gguf_key *k = saf__gguf_find(&g->keys, key);
    *found = k != NULL;
    if (!k) return SAF_OK;
    if (k->kind != SAF_GGUF_ARRAY) return wrong_kind(saf_gguf_path(g), k, "array");
    *element = k->element;
    *length = k->length;
    return SAF_OK;
}

/* Where the i-th element of an array lies, or NULL. */
static const char *element_of(const saf_gguf *g, const char *key, int64_t i, saf_gguf_kind *kind) {
    const saf__gguf_key *k = saf__gguf_find(&g->keys, key);
    if (!k || k->kind != SAF_GGUF_ARRAY || i < 0 || i >= k->length) return NULL;
    *kind = k->element;
    if (k->element == SAF_GGUF_STRING) return g->keys.header.data + k->strings[i];
    return value_of(&g->keys, k) + (size_t)i * saf__gguf_kind_bytes(k->element);
}

void saf_gguf_array_string(const saf_gguf *g, const char *key, int64_t i, const char **text,
                           size_t *len) {
    saf_gguf_kind kind;
    const char *at = element_of(g, key, i, &kind);
    *text = "";
    *len = 0;
    if (at && kind == SAF_GGUF_STRING) decode_string(at, text, len);
}

int64_t saf_gguf_array_i64(const saf_gguf *g, const char *key, int64_t i) {
    saf_gguf_kind kind;
    int64_t v = 0;
    const char *at = element_of(g, key, i, &kind);
    return at && decode_i64(kind, at, &v) ? v : 0;
}

double saf_gguf_array_f64(const saf_gguf *g, const char *key, int64_t i) {
    saf_gguf_kind kind;
    double v = 0;
    const char *at = element_of(g, key, i, &kind);
    return at && decode_f64(kind, at, &v) ? v : 0;
}
