#include "gguf_fields.h"

typedef struct {
    const uint8_t *data;
    size_t size, at;
    field_map *map;
} walker;

uint64_t gguf_number(const uint8_t *data, size_t at, size_t bytes) {
    uint64_t v = 0;
    memcpy(&v, data + at, bytes);
    return v;
}

size_t gguf_kind_bytes(uint64_t kind) {
    static const uint8_t bytes[SAF_GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return kind < SAF_GGUF_KINDS ? bytes[kind] : 0;
}

/* Notes a field and steps over it; false where the file ends before. */
static bool step(walker *w, field_role role, saf_gguf_kind kind, size_t bytes) {
    if (bytes > w->size - w->at || w->map->n_fields == FIELDS_MAX) return false;
    w->map->fields[w->map->n_fields++] = (field){role, kind, w->at, bytes};
    w->at += bytes;
    return true;
}

static uint64_t last(const walker *w) {
    const field *f = &w->map->fields[w->map->n_fields - 1];
    return gguf_number(w->data, f->at, f->bytes);
}

static bool step_text(walker *w) {
    if (!step(w, FIELD_LENGTH, SAF_GGUF_U64, 8) || last(w) > w->size - w->at) return false;
    w->at += last(w);
    return true;
}

static bool step_value(walker *w, uint64_t kind) {
    if (kind == SAF_GGUF_STRING) return step_text(w);
    size_t bytes = gguf_kind_bytes(kind);
    return bytes && step(w, FIELD_NUMBER, (saf_gguf_kind)kind, bytes);
}

static bool step_array(walker *w) {
    if (!step(w, FIELD_KIND, SAF_GGUF_U32, 4)) return false;
    uint64_t element = last(w);
    if (element >= SAF_GGUF_KINDS || element == SAF_GGUF_ARRAY ||
        !step(w, FIELD_ARRAY_LENGTH, (saf_gguf_kind)element, 8))
        return false;
    uint64_t n = last(w);
    for (uint64_t i = 0; i < n; i++)
        if (!step_value(w, element)) return false;
    return true;
}

static bool step_key(walker *w) {
    if (!step_text(w) || !step(w, FIELD_KIND, SAF_GGUF_U32, 4)) return false;
    uint64_t kind = last(w);
    return kind == SAF_GGUF_ARRAY ? step_array(w) : step_value(w, kind);
}

static bool step_tensor(walker *w) {
    if (!step_text(w) || !step(w, FIELD_DIMENSIONS, SAF_GGUF_U32, 4)) return false;
    uint64_t n = last(w);
    for (uint64_t i = 0; i < n; i++)
        if (!step(w, FIELD_DIMENSION, SAF_GGUF_U64, 8)) return false;
    return step(w, FIELD_TYPE, SAF_GGUF_U32, 4) && step(w, FIELD_OFFSET, SAF_GGUF_U64, 8);
}

static bool step_records(walker *w, uint64_t n, bool tensors) {
    field_map *m = w->map;
    for (uint64_t i = 0; i < n; i++) {
        record r = {.at = w->at, .is_tensor = tensors, .first_field = m->n_fields};
        if (m->n_records == RECORDS_MAX || !(tensors ? step_tensor(w) : step_key(w))) return false;
        r.end = w->at;
        r.end_field = m->n_fields;
        m->records[m->n_records++] = r;
    }
    return true;
}

void gguf_map(const uint8_t *data, size_t size, field_map *out) {
    walker w = {data, size, 4, out};
    out->n_fields = out->n_records = 0;
    out->end = 0;
    if (size < 4) return;
    if (step(&w, FIELD_NUMBER, SAF_GGUF_U32, 4) && step(&w, FIELD_NUMBER, SAF_GGUF_U64, 8) &&
        step(&w, FIELD_NUMBER, SAF_GGUF_U64, 8))
        (void)(step_records(&w, gguf_number(data, 16, 8), false) &&
               step_records(&w, gguf_number(data, 8, 8), true));
    out->end = w.at;
}
