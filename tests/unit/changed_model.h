/* A whole small model of architecture llama, and copies of it with one thing changed. */
#ifndef SAF_TESTS_CHANGED_MODEL_H
#define SAF_TESTS_CHANGED_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

#define OK(expr)                                                           \
    do {                                                                   \
        if ((expr) != SAF_OK) fail_msg("%s: %s", #expr, saf_error_text()); \
    } while (0)

static char folder[] = "/tmp/saf-params-XXXXXX";
static char base_path[64], path[64]; /* a whole small model, and what a test makes of it */

static inline int make_models(void **state) {
    const saf_model_make_options o = {.arch = "llama",
                                      .layers = 2,
                                      .width = 64,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_width = 16,
                                      .ff_width = 96,
                                      .context = 256,
                                      .dtype = SAF_DTYPE_F16,
                                      .seed = 1};
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(base_path, sizeof base_path, "%s/base.gguf", folder);
    snprintf(path, sizeof path, "%s/changed.gguf", folder);
    return saf_model_make(base_path, &o) != SAF_OK;
}

static inline int remove_folder(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* ---- changed copies of the base model ---------------------------------------------------------
 */

typedef enum { ADD_NOTHING, ADD_INT, ADD_FLOAT, ADD_BOOL, ADD_STRING, ADD_INTS } addition_kind;

typedef struct {
    addition_kind kind;
    const char *key; /* takes the place of the base model's */
    double number;   /* ADD_INTS: three of them, the last one larger by `spread` */
    const char *text;
    int spread;
} addition;

typedef struct {
    addition add[8];
    const char *drop_key, *drop_tensor;
    const char *tensor; /* added, or in place of the base model's, filled with zeros or `values` */
    saf_dtype dtype;
    int64_t shape[2];
    const float *values;
} change;

static inline bool replaced(const change *c, const char *key) {
    if (c->drop_key && strcmp(key, c->drop_key) == 0) return true;
    for (int i = 0; i < 8; i++)
        if (c->add[i].key && strcmp(key, c->add[i].key) == 0) return true;
    return false;
}

static inline void write_addition(saf_gguf_writer *w, const addition *a) {
    int32_t three[3];
    switch (a->kind) {
        case ADD_INT:
            OK(saf_gguf_write_int(w, a->key, SAF_GGUF_I64, (int64_t)a->number));
            break;
        case ADD_FLOAT:
            OK(saf_gguf_write_f32(w, a->key, (float)a->number));
            break;
        case ADD_BOOL:
            OK(saf_gguf_write_bool(w, a->key, a->number != 0));
            break;
        case ADD_STRING:
            OK(saf_gguf_write_string(w, a->key, a->text));
            break;
        case ADD_INTS:
            three[0] = three[1] = (int32_t)a->number;
            three[2] = three[0] + a->spread;
            OK(saf_gguf_write_array(w, a->key, SAF_GGUF_I32, 3, three, sizeof three));
            break;
        case ADD_NOTHING:
            break;
    }
}

static inline void declare_tensors(saf_gguf_writer *w, const saf_gguf *from, const change *c) {
    for (int64_t i = 0; i < saf_gguf_tensor_count(from); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(from, i);
        if (c->tensor && strcmp(t->name, c->tensor) == 0) continue;
        if (c->drop_tensor && strcmp(t->name, c->drop_tensor) == 0) continue;
        OK(saf_gguf_declare(w, t->name, t->dtype, t->ndim, t->shape));
    }
    if (c->tensor) OK(saf_gguf_declare(w, c->tensor, c->dtype, c->shape[1] ? 2 : 1, c->shape));
}

/* Writes the base model with a change to `path`. */
static inline void write_changed(const change *c) {
    static char zeros[1 << 20];
    saf_gguf *from = NULL;
    saf_gguf_writer *w = NULL;
    saf_gguf_kind kind, element;
    int64_t length;
    size_t bytes;
    OK(saf_gguf_open(base_path, &from));
    OK(saf_gguf_writer_open(path, &w));
    for (int64_t i = 0; i < saf_gguf_key_count(from); i++) {
        const char *key = saf_gguf_key(from, i, &kind, &element, &length);
        if (!replaced(c, key)) OK(saf_gguf_write_copy(w, from, key));
    }
    for (int i = 0; i < 8; i++) write_addition(w, &c->add[i]);
    declare_tensors(w, from, c);
    for (int64_t i = 0; i < saf_gguf_tensor_count(from); i++) {
        const saf_gguf_tensor *t = saf_gguf_tensor_at(from, i);
        if (c->tensor && strcmp(t->name, c->tensor) == 0) continue;
        if (c->drop_tensor && strcmp(t->name, c->drop_tensor) == 0) continue;
        OK(saf_gguf_write_data(w, zeros, t->bytes));
    }
    if (c->tensor) {
        int64_t n = c->shape[0] * (c->shape[1] ? c->shape[1] : 1);
        assert_true(saf_dtype_bytes(c->dtype, n, &bytes));
        OK(saf_gguf_write_data(w, c->values ? (const void *)c->values : zeros, bytes));
    }
    OK(saf_gguf_writer_finish(w));
    saf_gguf_writer_free(&w);
    saf_gguf_close(&from);
}

#endif
