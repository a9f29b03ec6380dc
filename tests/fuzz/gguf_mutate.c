/* Mutations of GGUF files that keep what they do not change: behind the header there is only
 * something to find if most of it is right. */
#include <stdlib.h>

#include "fuzz.h"
#include "gguf_fields.h"

enum { TENSORS_AT = 8, KEYS_AT = 16, HEAD_BYTES = 24, WORD_MAX = 256 };

typedef struct {
    uint8_t *data;
    size_t size, max;
    fuzz_random *r;
    field_map *map;
} file;

static const char *const words[] = {"general.architecture",
                                    "general.alignment",
                                    "general.name",
                                    "general.type",
                                    "model",
                                    "llama",
                                    "qwen2",
                                    "qwen3",
                                    "gpt2",
                                    "tokenizer.ggml.model",
                                    "tokenizer.ggml.pre",
                                    "tokenizer.ggml.tokens",
                                    "tokenizer.ggml.token_type",
                                    "tokenizer.ggml.scores",
                                    "tokenizer.ggml.merges",
                                    "tokenizer.ggml.bos_token_id",
                                    "tokenizer.ggml.eos_token_id",
                                    "tokenizer.ggml.eot_token_id",
                                    "tokenizer.ggml.eom_token_id",
                                    "tokenizer.ggml.unknown_token_id",
                                    "tokenizer.ggml.add_bos_token",
                                    "tokenizer.ggml.add_eos_token",
                                    "tokenizer.ggml.add_space_prefix",
                                    "tokenizer.chat_template",
                                    "split.no",
                                    "split.count",
                                    "split.tensors.count",
                                    "llama.context_length",
                                    "llama.block_count",
                                    "llama.embedding_length",
                                    "llama.feed_forward_length",
                                    "llama.attention.head_count",
                                    "llama.attention.head_count_kv",
                                    "llama.attention.key_length",
                                    "llama.attention.value_length",
                                    "llama.attention.layer_norm_rms_epsilon",
                                    "llama.attention.scale",
                                    "llama.attention.causal",
                                    "llama.attention.sliding_window",
                                    "llama.rope.freq_base",
                                    "llama.rope.dimension_count",
                                    "llama.rope.scaling.type",
                                    "llama.rope.scaling.factor",
                                    "llama.rope.scale_linear",
                                    "llama.rope.scaling.original_context_length",
                                    "llama.rope.scaling.attn_factor",
                                    "llama.rope.scaling.yarn_ext_factor",
                                    "llama.rope.scaling.yarn_beta_fast",
                                    "llama.rope.scaling.yarn_beta_slow",
                                    "llama.vocab_size",
                                    "llama.expert_count",
                                    "none",
                                    "linear",
                                    "yarn",
                                    "token_embd.weight",
                                    "output_norm.weight",
                                    "output.weight",
                                    "rope_freqs.weight",
                                    "blk.0.attn_norm.weight",
                                    "blk.0.attn_q.weight",
                                    "blk.0.attn_k.weight",
                                    "blk.0.attn_v.weight",
                                    "blk.0.attn_q.bias",
                                    "blk.0.attn_k.bias",
                                    "blk.0.attn_v.bias",
                                    "blk.0.attn_q_norm.weight",
                                    "blk.0.attn_k_norm.weight",
                                    "blk.0.attn_output.weight",
                                    "blk.0.ffn_norm.weight",
                                    "blk.0.ffn_gate.weight",
                                    "blk.0.ffn_up.weight",
                                    "blk.0.ffn_down.weight",
                                    "blk.1.ffn_down.weight",
                                    "blk.1.attn_norm.weight",
                                    "<s>",
                                    "</s>",
                                    "<unk>",
                                    "<0x00>",
                                    "<0x0A>",
                                    "<0xFF>",
                                    "<0xGG>",
                                    "\u2581",
                                    "\u2581a",
                                    "a\u2581",
                                    "\u0120",
                                    "\u0120a",
                                    "\u010a",
                                    "a",
                                    "b",
                                    "ab",
                                    "a b",
                                    "ab a",
                                    " a",
                                    "a ",
                                    "<|im_start|>",
                                    "<|im_end|>",
                                    "<|endoftext|>",
                                    "<|eot_id|>",
                                    "<|end|>",
                                    "phi-3",
                                    "default",
                                    "gpt-2",
                                    "llama-bpe",
                                    "qwen2",
                                    "smollm",
                                    "tekken",
                                    "deepseek-llm",
                                    "\xff\xfe",
                                    "\xc3",
                                    "\x1b[31m",
                                    "%s%n",
                                    "",
                                    "\n",
                                    "\u4e2d",
                                    "<think>",
                                    "[INST]",
                                    "<|start_header_id|>"};
enum { WORDS = sizeof words / sizeof words[0] };

static const char *any_word(file *f) {
    return words[fuzz_below(f->r, WORDS)];
}

/* ---- numbers --------------------------------------------------------------------------------- */

static uint64_t any_integer(file *f, uint64_t old) {
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     3,
                                     4,
                                     8,
                                     16,
                                     31,
                                     32,
                                     33,
                                     64,
                                     127,
                                     128,
                                     255,
                                     256,
                                     257,
                                     512,
                                     1024,
                                     32767,
                                     65535,
                                     65536,
                                     1 << 24,
                                     INT32_MAX,
                                     UINT64_C(1) << 31,
                                     UINT32_MAX,
                                     UINT64_C(1) << 32,
                                     UINT64_C(1) << 59,
                                     UINT64_C(1) << 60,
                                     UINT64_C(1) << 61,
                                     UINT64_C(1) << 62,
                                     INT64_MAX,
                                     UINT64_C(1) << 63,
                                     UINT64_MAX,
                                     UINT64_MAX - 31,
                                     UINT64_MAX - 7};
    switch (fuzz_below(f->r, 6)) {
        case 0:
            return old + 1;
        case 1:
            return old - 1;
        case 2:
            return old ^ UINT64_C(1) << fuzz_below(f->r, 64);
        case 3:
            return f->size + fuzz_below(f->r, 64) - 32;
        case 4:
            return fuzz_below(f->r, 64);
        default:
            return edges[fuzz_below(f->r, sizeof edges / sizeof edges[0])];
    }
}

static double any_float(file *f, double old) {
    static const double edges[] = {0.0, -0.0, 1.0,  -1.0, 0.5,   2.0,   1e-6,   1e-5,  1e-30, 1e4,
                                   1e6, 1e9,  1e30, 1e38, -1e38, 1e300, 5e-324, 1e-45, 1e10,  64.0};
    switch (fuzz_below(f->r, 5)) {
        case 0:
            return (double)saf_f32_from_bits(0x7F800000u | fuzz_below(f->r, 4)
                                                               << 30); /* inf, -inf */
        case 1:
            return (double)saf_f32_from_bits(0x7FC00000u); /* NaN */
        case 2:
            return old * 2;
        default:
            return edges[fuzz_below(f->r, sizeof edges / sizeof edges[0])];
    }
}

static void put(file *f, size_t at, uint64_t v, size_t bytes) {
    memcpy(f->data + at, &v, bytes);
}

static void set_number(file *f, const field *n) {
    if (n->kind == SAF_GGUF_F32) {
        float v = saf_f32_from_bits((uint32_t)gguf_number(f->data, n->at, 4));
        v = (float)any_float(f, (double)v);
        memcpy(f->data + n->at, &v, sizeof v);
    } else if (n->kind == SAF_GGUF_F64) {
        double v = any_float(f, 3.0);
        memcpy(f->data + n->at, &v, sizeof v);
    } else {
        put(f, n->at, any_integer(f, gguf_number(f->data, n->at, n->bytes)), n->bytes);
    }
}

/* ---- changes that move what follows ---------------------------------------------------------- */

/* Replaces `del` bytes; false, and nothing done, where the file would become too large. */
static bool splice(file *f, size_t at, size_t del, const void *with, size_t len) {
    if (at > f->size || del > f->size - at || f->size - del + len > f->max) return false;
    memmove(f->data + at + len, f->data + at + del, f->size - at - del);
    memcpy(f->data + at, with, len);
    f->size = f->size - del + len;
    return true;
}

static void add_to(file *f, size_t at, int n) {
    if (at + 8 <= f->size) put(f, at, gguf_number(f->data, at, 8) + (uint64_t)(int64_t)n, 8);
}

static void add_to_count(file *f, bool tensors, int n) {
    add_to(f, tensors ? TENSORS_AT : KEYS_AT, n);
}

/* Another text, with its right length. */
static void set_text(file *f, const field *length) {
    uint8_t text[WORD_MAX];
    uint64_t old = gguf_number(f->data, length->at, 8);
    size_t at = length->at + 8, n;
    if (old > f->size - at) return;
    if (fuzz_below(f->r, 2)) {
        const char *word = any_word(f);
        n = strlen(word);
        memcpy(text, word, n);
    } else {
        n = old < WORD_MAX ? (size_t)old : WORD_MAX;
        memcpy(text, f->data + at, n);
        n = LLVMFuzzerMutate(text, n, WORD_MAX);
    }
    if (splice(f, at, (size_t)old, text, n)) put(f, length->at, n, 8);
}

/* One element more or less, with the right length. */
static void change_array(file *f, const field *length) {
    uint8_t element[8 + WORD_MAX] = {0};
    uint64_t n = gguf_number(f->data, length->at, 8);
    size_t at = length->at + 8, bytes = gguf_kind_bytes(length->kind);
    if (length->kind == SAF_GGUF_STRING) {
        const char *word = any_word(f);
        bytes = 8 + strlen(word);
        element[0] = (uint8_t)(bytes - 8);
        memcpy(element + 8, word, bytes - 8);
        if (n > 0 && fuzz_below(f->r, 2)) {
            if (at + 8 <= f->size && splice(f, at, 8 + (size_t)gguf_number(f->data, at, 8), "", 0))
                add_to(f, length->at, -1);
            return;
        }
    } else if (n > 0 && fuzz_below(f->r, 2)) {
        if (splice(f, at, bytes, "", 0)) add_to(f, length->at, -1);
        return;
    }
    if (splice(f, at, 0, element, bytes)) add_to(f, length->at, 1);
}

/* A record again, without it, or in another place; mostly counted. */
static void move_record(file *f) {
    uint8_t copy[4096];
    const field_map *m = f->map;
    if (m->n_records == 0) return;
    const record *from = &m->records[fuzz_below(f->r, (uint32_t)m->n_records)];
    const record *to = &m->records[fuzz_below(f->r, (uint32_t)m->n_records)];
    size_t len = from->end - from->at;
    bool again = fuzz_below(f->r, 2);
    if (!again || len > sizeof copy) {
        if (splice(f, from->at, len, "", 0) && fuzz_below(f->r, 8))
            add_to_count(f, from->is_tensor, -1);
        return;
    }
    memcpy(copy, f->data + from->at, len);
    if (from->is_tensor == to->is_tensor && splice(f, to->at, 0, copy, len) && fuzz_below(f->r, 8))
        add_to_count(f, from->is_tensor, 1);
}

static size_t make_text(file *f, uint8_t *out) {
    const char *word = any_word(f);
    uint64_t n = strlen(word);
    memcpy(out, &n, 8);
    memcpy(out + 8, word, n);
    return 8 + n;
}

static size_t make_number(file *f, uint32_t kind, uint8_t *out) {
    uint64_t v = kind == SAF_GGUF_BOOL ? fuzz_below(f->r, 2) : any_integer(f, 0);
    float single = (float)any_float(f, 1);
    double wide = any_float(f, 1);
    if (kind == SAF_GGUF_F32) memcpy(&v, &single, sizeof single);
    if (kind == SAF_GGUF_F64) memcpy(&v, &wide, sizeof wide);
    memcpy(out, &v, gguf_kind_bytes(kind));
    return gguf_kind_bytes(kind);
}

static size_t make_key(file *f, uint8_t *out) {
    size_t len = make_text(f, out);
    uint32_t kind = fuzz_below(f->r, SAF_GGUF_KINDS), element;
    memcpy(out + len, &kind, 4);
    len += 4;
    if (kind == SAF_GGUF_STRING) return len + make_text(f, out + len);
    if (kind != SAF_GGUF_ARRAY) return len + make_number(f, kind, out + len);
    uint64_t n = fuzz_below(f->r, 6);
    do element = fuzz_below(f->r, SAF_GGUF_KINDS);
    while (element == SAF_GGUF_ARRAY);
    memcpy(out + len, &element, 4);
    memcpy(out + len + 4, &n, 8);
    len += 12;
    for (uint64_t i = 0; i < n; i++)
        len += element == SAF_GGUF_STRING ? make_text(f, out + len)
                                          : make_number(f, element, out + len);
    return len;
}

static size_t make_tensor(file *f, uint8_t *out) {
    static const uint64_t sizes[] = {1, 2, 4, 8, 16, 32, 33, 64, 256};
    size_t len = make_text(f, out);
    uint32_t n = 1 + fuzz_below(f->r, 4), type = fuzz_below(f->r, 40);
    uint64_t offset = 0;
    memcpy(out + len, &n, 4);
    len += 4;
    for (uint32_t i = 0; i < n; i++, len += 8)
        memcpy(out + len, &sizes[i < 2 ? fuzz_below(f->r, 9) : 0], 8);
    memcpy(out + len, &type, 4);
    memcpy(out + len + 4, &offset, 8);
    return len + 12;
}

static void insert_record(file *f) {
    uint8_t made[4096];
    const field_map *m = f->map;
    bool tensor = fuzz_below(f->r, 3) == 0;
    size_t len = tensor ? make_tensor(f, made) : make_key(f, made), at = HEAD_BYTES;
    for (int i = 0; i < m->n_records && tensor; i++)
        if (!m->records[i].is_tensor) at = m->records[i].end;
    if (splice(f, at, 0, made, len)) add_to_count(f, tensor, 1);
}

/* ---- a file whose data is there ------------------------------------------------------------- */

static size_t alignment_of(const file *f) {
    static const char name[] = "general.alignment";
    for (int i = 0; i < f->map->n_records; i++) {
        const record *r = &f->map->records[i];
        size_t n = sizeof name - 1;
        if (r->end - r->at != 8 + n + 8 || memcmp(f->data + r->at + 8, name, n) != 0) continue;
        uint64_t v = gguf_number(f->data, r->end - 4, 4);
        return v && v <= 4096 && !(v & (v - 1)) ? (size_t)v : 32;
    }
    return 32;
}

/* Data offsets one behind the other, and a file as long as they say. */
static void lay_out(file *f) {
    const field_map *m = f->map;
    size_t alignment = alignment_of(f), at = 0, bytes;
    for (int i = 0; i < m->n_records; i++) {
        const record *r = &m->records[i];
        int64_t elements = 1;
        saf_dtype type;
        if (!r->is_tensor) continue;
        put(f, r->end - 8, at, 8);
        for (int k = r->first_field; k < r->end_field; k++) {
            if (m->fields[k].role == FIELD_DIMENSION &&
                !saf_i64_mul(elements, (int64_t)gguf_number(f->data, m->fields[k].at, 8),
                             &elements))
                return;
        }
        if (!saf_dtype_from_gguf((uint32_t)gguf_number(f->data, r->end - 12, 4), &type) ||
            elements < 0 || !saf_dtype_bytes(type, elements, &bytes) || bytes > f->max)
            return;
        at += (bytes + alignment - 1) & ~(alignment - 1);
        if (at > f->max) return;
    }
    size_t end = ((m->end + alignment - 1) & ~(alignment - 1)) + at;
    if (end > f->max) return;
    if (end > f->size) memset(f->data + f->size, 0, end - f->size);
    f->size = end;
}

/* ---- one mutation ---------------------------------------------------------------------------- */

static void change_field(file *f, const field *n) {
    switch (n->role) {
        case FIELD_LENGTH:
            if (fuzz_below(f->r, 6)) {
                set_text(f, n);
                break;
            }
            put(f, n->at, any_integer(f, gguf_number(f->data, n->at, 8)), 8);
            break;
        case FIELD_ARRAY_LENGTH:
            if (fuzz_below(f->r, 4)) {
                change_array(f, n);
                break;
            }
            put(f, n->at, any_integer(f, gguf_number(f->data, n->at, 8)), 8);
            break;
        case FIELD_KIND:
            put(f, n->at, fuzz_below(f->r, SAF_GGUF_KINDS + 2), 4);
            break;
        case FIELD_DIMENSIONS:
            put(f, n->at, fuzz_below(f->r, 7), 4);
            break;
        case FIELD_TYPE:
            put(f, n->at, fuzz_below(f->r, 42), 4);
            break;
        case FIELD_NUMBER:
        case FIELD_DIMENSION:
        case FIELD_OFFSET:
            set_number(f, n);
            break;
    }
}

static void mutate_once(file *f) {
    gguf_map(f->data, f->size, f->map);
    uint32_t what = fuzz_below(f->r, 16);
    if (f->map->n_fields < 3 || what == 0) {
        f->size = LLVMFuzzerMutate(f->data, f->size, f->max);
    } else if (what == 1) {
        f->size = f->map->fields[fuzz_below(f->r, (uint32_t)f->map->n_fields)].at;
    } else if (what < 4) {
        move_record(f);
    } else if (what < 6) {
        insert_record(f);
    } else {
        const field_map *m = f->map;
        int i = (int)fuzz_below(f->r, (uint32_t)m->n_fields);
        if (m->n_records && fuzz_below(f->r, 2)) { /* long arrays must not have all the luck */
            const record *r = &m->records[fuzz_below(f->r, (uint32_t)m->n_records)];
            int few = r->end_field - r->first_field;
            i = r->first_field + (int)fuzz_below(f->r, (uint32_t)(few < 8 ? few : 8));
        }
        change_field(f, &m->fields[i]);
    }
}

size_t fuzz_gguf_mutate(uint8_t *data, size_t size, size_t max_size, fuzz_random *r) {
    static field_map map;
    file f = {data, size, max_size, r, &map};
    for (uint32_t n = 1 + fuzz_below(r, 3); n > 0; n--) mutate_once(&f);
    if (fuzz_below(r, 4)) {
        gguf_map(f.data, f.size, &map);
        lay_out(&f);
    }
    return f.size ? f.size : 1;
}
