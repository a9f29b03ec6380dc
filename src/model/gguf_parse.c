/* The header of one GGUF file, read as hostile input. Every count and length is held against what
 * remains of the file before memory is taken for it, and memory grows with the bytes really read.
 */
#include <stdio.h>
#include <stdlib.h>

#include "model/gguf.h"

enum {
    CHUNK_BYTES = 65536,
    KEY_BYTES_MIN = 8 + 1 + 4 + 1,
    TENSOR_BYTES_MIN = 8 + 1 + 4 + 8 + 4 + 8
};

typedef struct {
    const saf__gguf_part *part;
    saf_buf *bytes; /* the header's bytes read so far, from the start of the file */
    uint64_t pos;
} parser;

static saf_status bad(const parser *p, uint64_t at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static saf_status bad(const parser *p, uint64_t at, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return saf_fail(SAF_BAD_INPUT, "%s: byte %llu: %s", p->part->path, (unsigned long long)at,
                    text);
}

static uint64_t left(const parser *p) {
    return p->part->file_bytes - p->pos;
}

/* Up to where the file can be read: without one, up to the end of what came of its header. */
static uint64_t readable(const parser *p) {
    return p->part->fd < 0 ? p->part->held[0].len : p->part->file_bytes;
}

/* Has the next `len` bytes in p->bytes. */
static saf_status need(parser *p, uint64_t len, const char *what) {
    saf_status st = SAF_OK;
    if (len > left(p)) {
        st = bad(p, p->pos, "%s needs %llu bytes, but the file ends after %llu", what,
                 (unsigned long long)len, (unsigned long long)left(p));
        goto out;
    }
    if (p->pos + len > SAF__GGUF_HEADER_MAX) {
        st = bad(p, p->pos, "%s of %llu bytes would make the header larger than %d MiB", what,
                 (unsigned long long)len, SAF__GGUF_HEADER_MAX >> 20);
        goto out;
    }
    if (p->pos + len > readable(p)) {
        st = bad(p, p->pos, "%s needs %llu bytes, but of the header only %llu came", what,
                 (unsigned long long)len, (unsigned long long)readable(p));
        goto out;
    }
    while (p->bytes->len < p->pos + len) {
        char chunk[CHUNK_BYTES];
        uint64_t rest = readable(p) - p->bytes->len;
        size_t n = rest < sizeof chunk ? (size_t)rest : sizeof chunk;
        SAF_TRY(saf__gguf_pread(p->part, p->bytes->len, n, "the header", chunk));
        SAF_TRY(saf_buf_append(p->bytes, chunk, n));
    }
out:
    return st;
}

static saf_status read_u32(parser *p, const char *what, uint32_t *out) {
    saf_status st = need(p, sizeof *out, what);
    if (st != SAF_OK) return st;
    memcpy(out, p->bytes->data + p->pos, sizeof *out);
    p->pos += sizeof *out;
    return SAF_OK;
}

static saf_status read_u64(parser *p, const char *what, uint64_t *out) {
    saf_status st = need(p, sizeof *out, what);
    if (st != SAF_OK) return st;
    memcpy(out, p->bytes->data + p->pos, sizeof *out);
    p->pos += sizeof *out;
    return SAF_OK;
}

/* Skips a string's length and bytes; *at is where the bytes start. */
static saf_status read_string(parser *p, const char *what, uint64_t *at, uint64_t *len) {
    saf_status st = SAF_OK;
    uint64_t start = p->pos;
    SAF_TRY(read_u64(p, what, len));
    if (*len > left(p)) {
        st = bad(p, start, "%s claims a length of %llu bytes, but only %llu are left", what,
                 (unsigned long long)*len, (unsigned long long)left(p));
        goto out;
    }
    SAF_TRY(need(p, *len, what));
    *at = p->pos;
    p->pos += *len;
out:
    return st;
}

/* A key or a tensor's name: appended to `names` with a zero byte behind. */
static saf_status read_name(parser *p, const char *what, uint64_t max_bytes, saf_buf *names) {
    saf_status st = SAF_OK;
    uint64_t start = p->pos, at = 0, len = 0;
    SAF_TRY(read_string(p, what, &at, &len));
    if (len == 0 || len > max_bytes) {
        st = bad(p, start, "%s is %llu bytes long, expected 1 to %llu", what,
                 (unsigned long long)len, (unsigned long long)max_bytes);
        goto out;
    }
    const char *text = p->bytes->data + at;
    for (uint64_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7F) {
            st = bad(p, at + i, "%s contains the byte 0x%02x", what, c);
            goto out;
        }
    }
    size_t valid = saf_utf8_valid_prefix(text, len);
    if (valid != len) {
        st = bad(p, at + valid, "%s is not valid UTF-8", what);
        goto out;
    }
    SAF_TRY(saf_buf_append(names, text, len));
    SAF_TRY(saf_buf_append(names, "", 1));
out:
    return st;
}

static saf_status check_bools(const parser *p, uint64_t at, uint64_t n, const char *name) {
    for (uint64_t i = 0; i < n; i++) {
        unsigned char v = (unsigned char)p->bytes->data[at + i];
        if (v > 1)
            return bad(p, at + i, "key \"%.80s\": the boolean is %u, expected 0 or 1", name, v);
    }
    return SAF_OK;
}

static saf_status read_array(parser *p, const char *name, saf__gguf_key *key) {
    saf_status st = SAF_OK;
    uint64_t start = p->pos, length = 0, at, len;
    uint32_t element;
    SAF_TRY(read_u32(p, "an array's element type", &element));
    if (element == SAF_GGUF_ARRAY) {
        st = bad(p, start, "key \"%.80s\": an array of arrays is not supported", name);
        goto out;
    }
    if (element >= SAF_GGUF_KINDS) {
        st = bad(p, start, "key \"%.80s\": element type %u is out of range 0 to %d", name, element,
                 SAF_GGUF_KINDS - 1);
        goto out;
    }
    key->element = (saf_gguf_kind)element;
    start = p->pos;
    SAF_TRY(read_u64(p, "an array's length", &length));
    size_t size = element == SAF_GGUF_STRING ? 8 : saf__gguf_kind_bytes(key->element);
    if (length > left(p) / size) {
        st = bad(p, start, "key \"%.80s\": an array of %llu elements, but only %llu bytes are left",
                 name, (unsigned long long)length, (unsigned long long)left(p));
        goto out;
    }
    if (length * size > SAF__GGUF_HEADER_MAX - p->pos) {
        st = bad(p, start, "key \"%.80s\": an array of %llu elements is too long for a header",
                 name, (unsigned long long)length);
        goto out;
    }
    SAF_TRY(need(p, length * size, "an array")); /* of strings: their lengths, at least */
    key->length = (int64_t)length;
    if (element == SAF_GGUF_STRING) {
        SAF_TRY(saf_alloc(length, sizeof *key->strings, &key->strings));
        for (uint64_t i = 0; i < length; i++) {
            key->strings[i] = (uint32_t)p->pos;
            SAF_TRY(read_string(p, "a string of an array", &at, &len));
        }
    } else {
        if (element == SAF_GGUF_BOOL) SAF_TRY(check_bools(p, p->pos, length, name));
        p->pos += length * size;
    }
out:
    return st;
}

static saf_status read_key(parser *p, saf__gguf_keys *keys) {
    saf_status st = SAF_OK;
    uint64_t at, len;
    uint32_t kind;
    size_t name_at = keys->names.len;
    SAF_TRY(read_name(p, "a key", SAF__GGUF_KEY_MAX, &keys->names));
    SAF_TRY(saf__gguf_grow(&keys->items, keys->n, &keys->cap, sizeof *keys->items));
    const char *name = keys->names.data + name_at;
    saf__gguf_key *key = &keys->items[keys->n++];
    *key = (saf__gguf_key){.element = SAF_GGUF_KINDS, .length = 1, .raw = (uint32_t)p->pos};
    SAF_TRY(read_u32(p, "a key's type", &kind));
    if (kind >= SAF_GGUF_KINDS) {
        st = bad(p, key->raw, "key \"%.80s\": type %u is out of range 0 to %d", name, kind,
                 SAF_GGUF_KINDS - 1);
        goto out;
    }
    key->kind = (saf_gguf_kind)kind;
    if (kind == SAF_GGUF_ARRAY) {
        SAF_TRY(read_array(p, name, key));
    } else if (kind == SAF_GGUF_STRING) {
        SAF_TRY(read_string(p, "a string value", &at, &len));
    } else {
        size_t size = saf__gguf_kind_bytes(key->kind);
        SAF_TRY(need(p, size, "a value"));
        if (kind == SAF_GGUF_BOOL) SAF_TRY(check_bools(p, p->pos, 1, name));
        p->pos += size;
    }
    key->raw_bytes = (uint32_t)(p->pos - key->raw);
out:
    return st;
}

static int key_order(const void *a, const void *b) {
    const saf__gguf_key *x = *(saf__gguf_key *const *)a, *y = *(saf__gguf_key *const *)b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->raw > y->raw) - (x->raw < y->raw);
}

static saf_status read_keys(parser *p, uint64_t count, saf__gguf_keys *keys) {
    saf_status st = SAF_OK;
    for (uint64_t i = 0; i < count; i++) SAF_TRY(read_key(p, keys));
    SAF_TRY(saf_alloc((size_t)keys->n, sizeof(void *), &keys->by_name));
    const char *name = keys->names.data;
    for (int64_t i = 0; i < keys->n; i++) {
        keys->items[i].name = name;
        keys->by_name[i] = &keys->items[i];
        name += strlen(name) + 1;
    }
    qsort(keys->by_name, (size_t)keys->n, sizeof(void *), key_order);
    for (int64_t i = 1; i < keys->n; i++) {
        if (strcmp(keys->by_name[i - 1]->name, keys->by_name[i]->name) == 0) {
            st = bad(p, keys->by_name[i]->raw, "key \"%.80s\" is there twice",
                     keys->by_name[i]->name);
            goto out;
        }
    }
out:
    return st;
}

static saf_status read_alignment(const parser *p, const saf__gguf_keys *keys, uint64_t *out) {
    const saf__gguf_key *key = saf__gguf_find(keys, "general.alignment");
    uint32_t v;
    *out = SAF__GGUF_ALIGNMENT;
    if (!key) return SAF_OK;
    if (key->kind != SAF_GGUF_U32)
        return bad(p, key->raw, "general.alignment is %s, expected u32",
                   saf_gguf_kind_name(key->kind));
    memcpy(&v, p->bytes->data + key->raw + 4, sizeof v);
    if (v == 0 || (v & (v - 1)) != 0)
        return bad(p, key->raw + 4, "general.alignment is %u, expected a power of two", v);
    *out = v;
    return SAF_OK;
}

/* Dimensions, type and size of a tensor whose name was read. */
static saf_status read_shape(parser *p, const char *name, saf_gguf_tensor *t) {
    saf_status st = SAF_OK;
    uint64_t at = p->pos;
    uint32_t ndim, type;
    int64_t elements = 1;
    SAF_TRY(read_u32(p, "a tensor's number of dimensions", &ndim));
    if (ndim < 1 || ndim > 4) {
        st = bad(p, at, "tensor \"%s\" has %u dimensions, expected 1 to 4", name, ndim);
        goto out;
    }
    t->ndim = (int)ndim;
    for (int d = 0; d < 4; d++) t->shape[d] = 1;
    for (uint32_t d = 0; d < ndim; d++) {
        uint64_t v;
        at = p->pos;
        SAF_TRY(read_u64(p, "a tensor's dimension", &v));
        if (v == 0 || v > INT64_MAX || !saf_i64_mul(elements, (int64_t)v, &elements)) {
            st = bad(p, at, "tensor \"%s\": dimension %u is %llu, which is 0 or too large", name, d,
                     (unsigned long long)v);
            goto out;
        }
        t->shape[d] = (int64_t)v;
    }
    at = p->pos;
    SAF_TRY(read_u32(p, "a tensor's type", &type));
    if (!saf_dtype_from_gguf(type, &t->dtype)) {
        const char *known = saf__gguf_type_name(type);
        st = bad(p, at, "tensor \"%s\" has type number %u (%s), which saf does not support", name,
                 type, known ? known : "unknown");
        goto out;
    }
    if (t->shape[0] % saf_dtype_block(t->dtype) != 0) {
        st = bad(p, at, "tensor \"%s\": rows of %lld elements are no multiple of %s's block of %d",
                 name, (long long)t->shape[0], saf_dtype_name(t->dtype), saf_dtype_block(t->dtype));
        goto out;
    }
    if (!saf_dtype_bytes(t->dtype, elements, &t->bytes))
        st = bad(p, at, "tensor \"%s\": its size in bytes overflows", name);
out:
    return st;
}

static saf_status read_tensor(parser *p, uint64_t alignment, int part, saf__gguf_tensors *tensors) {
    saf_status st = SAF_OK;
    size_t name_at = tensors->names.len;
    SAF_TRY(read_name(p, "a tensor's name", SAF__GGUF_NAME_MAX, &tensors->names));
    SAF_TRY(saf__gguf_grow(&tensors->items, tensors->n, &tensors->cap, sizeof *tensors->items));
    const char *name = tensors->names.data + name_at;
    saf_gguf_tensor *t = &tensors->items[tensors->n++];
    *t = (saf_gguf_tensor){.part = part};
    SAF_TRY(read_shape(p, name, t));
    uint64_t at = p->pos;
    SAF_TRY(read_u64(p, "a tensor's offset", &t->offset));
    if (t->offset % alignment != 0)
        st = bad(p, at, "tensor \"%s\": offset %llu is no multiple of the alignment %llu", name,
                 (unsigned long long)t->offset, (unsigned long long)alignment);
out:
    return st;
}

static int offset_order(const void *a, const void *b) {
    const saf_gguf_tensor *x = *(saf_gguf_tensor *const *)a, *y = *(saf_gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Turns offsets within the data into offsets within the file; checks that each tensor lies inside
 * and that no two overlap. */
static saf_status place_tensors(const parser *p, uint64_t data, saf_gguf_tensor *items, int64_t n) {
    saf_status st = SAF_OK;
    saf_gguf_tensor **order = NULL;
    SAF_TRY(saf_alloc((size_t)n, sizeof(void *), &order));
    for (int64_t i = 0; i < n; i++) {
        saf_gguf_tensor *t = order[i] = &items[i];
        uint64_t room = p->part->file_bytes > data ? p->part->file_bytes - data : 0;
        if (t->offset > room || t->bytes > room - t->offset) {
            st = bad(p, data,
                     "tensor \"%s\": %zu bytes at offset %llu of the data go past the end "
                     "of the file (%llu bytes of data)",
                     t->name, t->bytes, (unsigned long long)t->offset, (unsigned long long)room);
            goto out;
        }
        t->offset += data;
    }
    qsort(order, (size_t)n, sizeof(void *), offset_order);
    for (int64_t i = 1; i < n; i++) {
        if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset) {
            st = bad(p, order[i]->offset, "tensors \"%s\" and \"%s\" overlap", order[i - 1]->name,
                     order[i]->name);
            goto out;
        }
    }
out:
    saf_free(&order);
    return st;
}

static saf_status read_start(parser *p, int *version, uint64_t *tensors, uint64_t *keys) {
    saf_status st = SAF_OK;
    uint32_t v;
    SAF_TRY(need(p, 4, "the magic \"GGUF\""));
    if (memcmp(p->bytes->data, "GGUF", 4) != 0) {
        st = bad(p, 0, "does not start with \"GGUF\": not a GGUF file");
        goto out;
    }
    p->pos = 4;
    SAF_TRY(read_u32(p, "the version", &v));
    if (v != 2 && v != 3) {
        bool swapped = v != 0 && (v & 0xFFFF) == 0;
        st = bad(p, 4, "GGUF version %u, expected 2 or 3%s", v,
                 swapped ? " (it looks big-endian, which saf does not read)" : "");
        goto out;
    }
    *version = (int)v;
    SAF_TRY(read_u64(p, "the number of tensors", tensors));
    SAF_TRY(read_u64(p, "the number of keys", keys));
    if (*tensors > left(p) / TENSOR_BYTES_MIN)
        st = bad(p, 8, "claims %llu tensors, but only %llu bytes follow",
                 (unsigned long long)*tensors, (unsigned long long)left(p));
    else if (*keys > left(p) / KEY_BYTES_MIN)
        st = bad(p, 16, "claims %llu keys, but only %llu bytes follow", (unsigned long long)*keys,
                 (unsigned long long)left(p));
    else if (*tensors > SAF__GGUF_TENSORS_MAX || *keys > SAF__GGUF_KEYS_MAX)
        st = bad(p, 8, "claims %llu tensors and %llu keys, expected at most %d and %d",
                 (unsigned long long)*tensors, (unsigned long long)*keys, SAF__GGUF_TENSORS_MAX,
                 SAF__GGUF_KEYS_MAX);
out:
    return st;
}

saf_status saf__gguf_parse(saf__gguf_part *part, int part_number, saf__gguf_keys *keys,
                           saf__gguf_tensors *tensors, int *version) {
    saf_status st = SAF_OK;
    parser p = {part, &keys->header, 0};
    uint64_t n_tensors = 0, n_keys = 0, alignment;
    int64_t first = tensors->n;
    size_t first_name = tensors->names.len;
    SAF_TRY(read_start(&p, version, &n_tensors, &n_keys));
    SAF_TRY(read_keys(&p, n_keys, keys));
    SAF_TRY(read_alignment(&p, keys, &alignment));
    if (n_tensors > SAF__GGUF_TENSORS_MAX - (uint64_t)first) {
        st =
            bad(&p, 8, "claims %llu tensors and the parts before it have %lld, expected at most %d",
                (unsigned long long)n_tensors, (long long)first, SAF__GGUF_TENSORS_MAX);
        goto out;
    }
    for (uint64_t i = 0; i < n_tensors; i++)
        SAF_TRY(read_tensor(&p, alignment, part_number, tensors));
    const char *name = n_tensors ? tensors->names.data + first_name : NULL;
    for (int64_t i = first; i < tensors->n; i++) {
        tensors->items[i].name = name; /* until the names of the next part move them */
        name += strlen(name) + 1;
    }
    uint64_t data = (p.pos + alignment - 1) & ~(alignment - 1);
    if (n_tensors) SAF_TRY(place_tensors(&p, data, tensors->items + first, tensors->n - first));
    part->header_bytes = n_tensors ? data : p.pos;
out:
    return st;
}
