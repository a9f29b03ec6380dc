/* saf/model.h: a language model on one rank: GGUF files, tokenizer, chat template, architecture,
 * the slice of layers that this rank holds, key-value cache, sampler. No MPI.
 *
 * Everything that comes from a file is hostile until checked: counts, lengths, offsets, products
 * and types are bounded by what remains of the file before anything is allocated or read.
 */
#ifndef SAF_MODEL_H
#define SAF_MODEL_H

#include "saf/core.h"
#include "saf/kernel.h"

/* ==== GGUF ===================================================================================
 * Source: the GGUF specification, versions 2 and 3, little-endian. */

typedef struct saf_gguf saf_gguf;

typedef enum {
    SAF_GGUF_U8,
    SAF_GGUF_I8,
    SAF_GGUF_U16,
    SAF_GGUF_I16,
    SAF_GGUF_U32,
    SAF_GGUF_I32,
    SAF_GGUF_F32,
    SAF_GGUF_BOOL,
    SAF_GGUF_STRING,
    SAF_GGUF_ARRAY,
    SAF_GGUF_U64,
    SAF_GGUF_I64,
    SAF_GGUF_F64,
    SAF_GGUF_KINDS
} saf_gguf_kind;

typedef struct {
    const char *name; /* owned by the file, zero-terminated, no zero byte inside */
    int ndim;         /* 1..4 */
    int64_t shape[4]; /* ne[0] first: the fastest dimension, as in the file (a matrix: [K, R]) */
    saf_dtype dtype;
    int part;        /* which split file holds it */
    uint64_t offset; /* of its first byte in that file */
    size_t bytes;
} saf_gguf_tensor;

/* Opens and checks the header of a file; a split file ("-00001-of-00003.gguf") opens all parts.
 * Only the header is read. Errors: NO_INPUT, IO, BAD_INPUT with file, byte offset and cause. */
saf_status saf_gguf_open(const char *path, saf_gguf **out);
void saf_gguf_close(saf_gguf **g);

/* For a rank that has no such file: the headers of all parts, and the tensor that every rank reads
 * (rope_freqs.weight), as bytes. out is replaced. Errors: IO, BAD_INPUT, NO_MEMORY. */
saf_status saf_gguf_image_write(const saf_gguf *g, saf_buf *out);
/* Opens what another rank wrote, with the same checks as a file. Reading other tensor data is a
 * DEFECT, and after saf_gguf_drop_keys any data. Takes the image over, also on an error. */
saf_status saf_gguf_image_open(const char *path, saf_buf *image, saf_gguf **out);

const char *saf_gguf_path(const saf_gguf *g);
int saf_gguf_version(const saf_gguf *g);
int saf_gguf_parts(const saf_gguf *g);
uint64_t saf_gguf_file_bytes(const saf_gguf *g); /* of all parts */
/* SHA-256 of the header bytes of every part (all that precedes the tensor data). */
saf_status saf_gguf_header_sha256(const saf_gguf *g, uint8_t out[32]);

const char *saf_gguf_kind_name(saf_gguf_kind kind); /* "u32", "string", ... */

int64_t saf_gguf_key_count(const saf_gguf *g);
/* name and kind of the i-th key; for an array *element is its element kind and *length its length
 * (else SAF_GGUF_KINDS and 1). */
const char *saf_gguf_key(const saf_gguf *g, int64_t i, saf_gguf_kind *kind, saf_gguf_kind *element,
                         int64_t *length);
bool saf_gguf_has(const saf_gguf *g, const char *key);
/* Typed getters. *found tells whether the key is there (out untouched if not); a key of another
 * kind is BAD_INPUT. Any integer kind converts if the value fits; f32 and f64 both to double. */
saf_status saf_gguf_get_i64(const saf_gguf *g, const char *key, bool *found, int64_t *out);
saf_status saf_gguf_get_f64(const saf_gguf *g, const char *key, bool *found, double *out);
saf_status saf_gguf_get_bool(const saf_gguf *g, const char *key, bool *found, bool *out);
/* Text is borrowed from g and not zero-terminated. */
saf_status saf_gguf_get_string(const saf_gguf *g, const char *key, bool *found, const char **text,
                               size_t *len);
/* Arrays: length first, then elements one by one. */
saf_status saf_gguf_get_array(const saf_gguf *g, const char *key, bool *found,
                              saf_gguf_kind *element, int64_t *length);
/* Of an array that saf_gguf_get_array found; i in [0, length). Strings are borrowed. Constant time.
 * Another kind of element, or i out of range, gives "" or 0; a u64 beyond 2^63 - 1 gives 0. */
void saf_gguf_array_string(const saf_gguf *g, const char *key, int64_t i, const char **text,
                           size_t *len);
int64_t saf_gguf_array_i64(const saf_gguf *g, const char *key, int64_t i);
double saf_gguf_array_f64(const saf_gguf *g, const char *key, int64_t i);

int64_t saf_gguf_tensor_count(const saf_gguf *g);
const saf_gguf_tensor *saf_gguf_tensor_at(const saf_gguf *g, int64_t i);
/* NULL when there is none of this name. */
const saf_gguf_tensor *saf_gguf_tensor_find(const saf_gguf *g, const char *name);
/* Reads [offset, offset + len) of a tensor's bytes with pread; from any thread.
 * Errors: IO, BAD_INPUT (the file has become shorter). */
saf_status saf_gguf_tensor_read(const saf_gguf *g, const saf_gguf_tensor *t, size_t offset,
                                size_t len, void *out);

/* Frees what only the tokenizer needs (key values and strings); tensors stay. Afterwards key
 * lookups find nothing. Keeps a rank's memory to its slice. */
void saf_gguf_drop_keys(saf_gguf *g);

/* Writing, for `saf model make`, tests and training. Keys and declarations in any order, then the
 * data of the tensors in the order they were declared, whole. Writes to PATH.part and renames at
 * the end, when everything is on disk. A call out of order, a key or tensor twice, or more data
 * than declared is a DEFECT. The key general.alignment sets the alignment. */
typedef struct saf_gguf_writer saf_gguf_writer;
/* Errors: CANNOT_CREATE. */
saf_status saf_gguf_writer_open(const char *path, saf_gguf_writer **out);
saf_status saf_gguf_write_u32(saf_gguf_writer *w, const char *key, uint32_t v);
/* Any integer kind; v must fit it. */
saf_status saf_gguf_write_int(saf_gguf_writer *w, const char *key, saf_gguf_kind kind, int64_t v);
saf_status saf_gguf_write_f32(saf_gguf_writer *w, const char *key, float v);
saf_status saf_gguf_write_bool(saf_gguf_writer *w, const char *key, bool v);
saf_status saf_gguf_write_string(saf_gguf_writer *w, const char *key, const char *text);
/* An array of n elements as they lie in a file: numbers side by side, strings each as its length
 * (8 bytes) and its bytes. */
saf_status saf_gguf_write_array(saf_gguf_writer *w, const char *key, saf_gguf_kind element,
                                int64_t n, const void *bytes, size_t len);
/* Copies one key and its value from another file, bit for bit. */
saf_status saf_gguf_write_copy(saf_gguf_writer *w, const saf_gguf *from, const char *key);
saf_status saf_gguf_declare(saf_gguf_writer *w, const char *name, saf_dtype dtype, int ndim,
                            const int64_t *shape);
/* The next bytes of the current tensor, any number up to its end. The first call ends the header
 * and reserves the room of the whole file. Errors: IO (disk full, with the bytes needed). */
saf_status saf_gguf_write_data(saf_gguf_writer *w, const void *bytes, size_t len);
saf_status saf_gguf_writer_finish(saf_gguf_writer *w);
void saf_gguf_writer_free(saf_gguf_writer **w); /* removes an unfinished file */

/* A loadable model with synthetic weights (mean zero, standard deviation 1 / sqrt(K), so that
 * activations stay moderate; norms about 1), in bounded memory. The same options give the same
 * bytes on any machine, with any number of threads. */
typedef struct {
    const char *arch; /* "llama", "qwen2", "qwen3" */
    int64_t layers, width, heads, kv_heads, head_width, ff_width, context;
    const char *vocab_path; /* a GGUF file whose tokenizer keys are copied; NULL: the 256 bytes and
                               an end of text, nothing merged */
    int64_t vocab_size;     /* padded with unused tokens up to this many; 0: as it is */
    saf_dtype dtype;        /* of the matrices; norms and biases are F32; K types fall back to Q8_0
                               where a row is no multiple of 256, all to F16 where none of 32 */
    bool tied;              /* no output.weight */
    uint64_t seed;
} saf_model_make_options;
/* "L:D:H:HKV:C:F" into the six numbers; false (and a part of them set) when it is something else.
 */
bool saf_model_shape_read(const char *text, saf_model_make_options *out);
/* Errors: USAGE (a shape that no model can have), NO_INPUT, BAD_INPUT (the vocabulary),
 * CANNOT_CREATE, IO. */
saf_status saf_model_make(const char *path, const saf_model_make_options *options);

/* ==== tokenizer ==============================================================================*/

typedef struct saf_tokenizer saf_tokenizer;

/* From the file's tokenizer.* keys. Models:
 *   llama   SentencePiece's BPE: space becomes U+2581, neighbours whose text together is a token
 *           merge, best score first, the leftmost among equals; the rest becomes byte tokens
 *           (<0x0A>), or the unknown token where there are none
 *   gpt2    byte-level BPE: a text is cut into words by the published splitting rule that
 *           `tokenizer.ggml.pre` names, and in a word neighbours merge by rank. A merge that names
 *           what is no plain token is left out; a rule that is not known is refused, never guessed.
 * Which tokens come from where: plain ones (and model llama's user-defined ones) from merges;
 * user-defined, control and unknown ones where their text stands in the input, the longest first
 * (see encode). Of two tokens with the same text the first counts.
 * Phi-3 models (by general.name) drop white space after a special token, as their own tokenizer.
 * Owner   the tokenizer borrows from g: g stays open, with its keys, as long as it lives
 * Thread  encoding uses scratch of the tokenizer: one thread at a time
 * Errors  BAD_INPUT: a model or `pre` that is not supported, by name; inconsistent arrays; an id
 *         that is no token. */
saf_status saf_tokenizer_new(const saf_gguf *g, saf_tokenizer **out);
void saf_tokenizer_free(saf_tokenizer **t);

int32_t saf_tokenizer_vocab(const saf_tokenizer *t);
/* Special ids; -1 where the file has none (model llama: <s> and </s> at 1 and 2 count without
 * keys). */
int32_t saf_tokenizer_bos(const saf_tokenizer *t);
int32_t saf_tokenizer_eos(const saf_tokenizer *t);
/* Whether BOS / EOS go around a text: add_bos_token and add_eos_token, else the model's habit (BOS
 * for llama and for gpt2 with the rules of Llama 3 and Tekken; no EOS). Never without the id. */
bool saf_tokenizer_adds_bos(const saf_tokenizer *t);
bool saf_tokenizer_adds_eos(const saf_tokenizer *t);
/* EOS, EOT, EOM and the well-known end-of-turn pieces (where the file says that they are control or
 * user-defined): any of them ends a completion. */
bool saf_tokenizer_is_end(const saf_tokenizer *t, int32_t id);
/* The id of the token with exactly this text, or -1. */
int32_t saf_tokenizer_find(const saf_tokenizer *t, const char *text, size_t len);

typedef struct {
    int32_t *data;
    int64_t len, cap;
} saf_ids;
saf_status saf_ids_append(saf_ids *ids, int32_t id);
void saf_ids_free(saf_ids *ids);

/* Appends the ids of a text. `special`: the text of special tokens (control, user-defined, unknown)
 * stands for the token; otherwise control tokens' text is plain text (user-defined tokens always
 * match). `add_bos`: put BOS (and EOS) where the file's rules say so.
 * Model llama puts a space before the text and after every special token, unless
 * add_space_prefix is false. On an error nothing is appended.
 * Cost    O(n log n) in bytes, also for one long word
 * Errors: BAD_INPUT for invalid UTF-8, with its byte offset; a byte that no token stands for. */
saf_status saf_tokenizer_encode(saf_tokenizer *t, const char *text, size_t len, bool add_bos,
                                bool special, saf_ids *out);
/* Appends the bytes that one token stands for; control and unknown tokens give nothing unless
 * `special`. `first`: it begins a text (where the `llama` rules drop the added space).
 * Bytes are not always whole characters: see saf_utf8_whole_prefix.
 * Errors: BAD_INPUT (no such token). */
saf_status saf_tokenizer_piece(const saf_tokenizer *t, int32_t id, bool first, bool special,
                               saf_buf *out);
/* All of them. A BOS at the start is no piece where the file's rules put one; what follows a
 * special token begins a text. So the ids of any text decode to it, byte for byte (model llama: but
 * for U+2581, which becomes a space). */
saf_status saf_tokenizer_decode(const saf_tokenizer *t, const int32_t *ids, int64_t n, bool special,
                                saf_buf *out);

/* ==== chat ===================================================================================*/

/* One family per way of rendering; those of a group differ in details (see chat_formats.c). */
typedef enum {
    SAF_CHAT_NONE,
    SAF_CHAT_CHATML,         /* <|im_start|> */
    SAF_CHAT_QWEN2,          /* with this model's own system text where none is given */
    SAF_CHAT_QWEN25,         /* likewise */
    SAF_CHAT_SMOLLM2,        /* likewise */
    SAF_CHAT_QWEN3,          /* leaves out the thoughts of earlier answers */
    SAF_CHAT_QWEN3_THINKING, /* and begins the answer with <think> */
    SAF_CHAT_PHI4,           /* <|im_sep|> */
    SAF_CHAT_LLAMA3,         /* <|start_header_id|> */
    SAF_CHAT_LLAMA31,        /* with the dates that its template has (26 Jul 2024, not today's) */
    SAF_CHAT_LLAMA2,         /* [INST], <<SYS>> */
    SAF_CHAT_MISTRAL,        /* [INST]; 0.1 and 0.2 */
    SAF_CHAT_MISTRAL_V1,
    SAF_CHAT_MISTRAL_V3,
    SAF_CHAT_MISTRAL_V3_TRIM,
    SAF_CHAT_MISTRAL_TEKKEN,
    SAF_CHAT_MINISTRAL,
    SAF_CHAT_GEMMA, /* <start_of_turn>; a system message joins the first user turn */
    SAF_CHAT_PHI3,  /* <|user|>, <|end|> */
    SAF_CHAT_PHI4_MINI,
    SAF_CHAT_ZEPHYR, /* <|user|>, </s>; TinyLlama */
    SAF_CHAT_FAMILIES
} saf_chat_family;

typedef struct {
    const char *role, *content; /* zero-terminated UTF-8 */
} saf_chat_message;

/* Recognised from `tokenizer.chat_template`; NONE when the file has none or none known. */
saf_status saf_chat_family_of(const saf_gguf *g, saf_chat_family *out);
/* The same from a template's text. */
saf_chat_family saf_chat_recognise(const char *text, size_t len);
const char *saf_chat_family_name(saf_chat_family family);
/* The prompt up to where the assistant's answer begins, to be encoded with special = true.
 * BOS is left to the encoder's rules. Appends; on an error `out` holds a part.
 * Errors: BAD_INPUT (no template; a role other than system, user, assistant; an order of roles that
 * the family's template refuses). */
saf_status saf_chat_render(saf_chat_family family, const saf_chat_message *messages, int n,
                           saf_buf *out);

/* ==== architecture ===========================================================================*/

typedef enum { SAF_ARCH_LLAMA, SAF_ARCH_QWEN2, SAF_ARCH_QWEN3 } saf_arch;

typedef struct {
    saf_arch arch;
    char name[128]; /* general.name */
    int64_t layers, width, heads, kv_heads, head_width, ff_width, vocab, context;
    float norm_eps;
    float attention_scale; /* 1 / sqrt(C), or the file's attention.scale */
    bool qkv_bias;         /* any of the q, k, v biases is there */
    bool qk_norm;          /* a norm for each head of q and k */
    bool tied;             /* no output.weight: the token embedding is the output head */
    saf_rope_pairs rope_pairs;
    int64_t rope_half; /* pairs rotated in a head */
    double rope_scale; /* on cos and sin (yarn) */
    double *inv_freq;  /* [rope_half], scaling and rope_freqs included */
} saf_model_params;

/* Reads and checks the keys, and that every tensor the architecture needs is there with the right
 * shape and a supported type. Anything not supported is refused by name (BAD_INPUT). */
saf_status saf_model_params_read(const saf_gguf *g, saf_model_params *out);
void saf_model_params_free(saf_model_params *p);
const char *saf_arch_name(saf_arch arch);

/* ==== slice: the part of a model that one rank holds ===========================================*/

/* What one rank holds: of the layers [layer0, layer1) and, on the first stage, of the embedding, on
 * the last, of the output head, the output rows of its part of the stage. The parts of a stage are
 * cut at multiples of SAF_TILE_ROWS (heads: where their columns are such a multiple), the last one
 * takes what is left; a part may be empty. Vectors are held whole, but for the biases; of a tensor
 * with no rows in a part there is a weight of 0 rows. */
typedef struct {
    int64_t layer0, layer1;
    bool embedding, head;
    saf_span heads; /* of H: rows of q, and of k and v those of the key heads that they read */
    saf_span width; /* of D: rows of attention's output and of down */
    saf_span ff;    /* of F: rows of gate and up */
    saf_span vocab; /* of V: rows of the embedding and of the output head */
} saf_slice_range;

/* Layers with all their rows. */
saf_slice_range saf_slice_range_whole(const saf_model_params *p, int64_t layer0, int64_t layer1,
                                      bool embedding, bool head);
/* The key heads that the range's heads read: another rank may hold some of them as well. */
saf_span saf_slice_kv_heads(const saf_model_params *p, saf_slice_range range);

typedef struct saf_slice saf_slice;

/* All memory of a slice, filled with nothing. `p` must outlive it. Errors: NO_MEMORY, BAD_INPUT. */
saf_status saf_slice_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                         saf_slice **out);
void saf_slice_free(saf_slice **s);

/* File bytes of what a range holds, without loading. *replicated are those of them that another
 * slice counts as its own, so that over all parts of all stages (result - *replicated) adds up to
 * every tensor of the model once:
 *   a tied embedding on another stage than the first
 *   norms, on all parts of a stage but the one that has the first row of `width`
 *   keys' and values' rows (and biases) of a key head, on all parts but the one that has the first
 *   of the heads that read it
 * The rotary factors count where the first stage's norms do. */
size_t saf_slice_file_bytes(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                            size_t *replicated);
/* Operations of all products for one token that wants logits, by the kind of weights. */
void saf_slice_ops(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                   int64_t *int8_ops, int64_t *float_ops);
/* What *replicated counts, by kinds of tensors: "token_embd.weight, blk.*.attn_norm.weight,
 * blk.*.attn_k.weight (rows 128-255)". out is replaced. Errors: NO_MEMORY. */
saf_status saf_slice_replicated_names(const saf_gguf *g, const saf_model_params *p,
                                      saf_slice_range range, saf_buf *out);
size_t saf_slice_memory_bytes(const saf_slice *s); /* as packed */

/* ---- the bytes of a slice ----
 * A slice is filled in blocks: what the file has of its tensors, in the order of the file, about
 * SAF_BLOCK_BYTES at a time (a tile of rows and a vector are never cut). The blocks follow from the
 * header and the range alone, so a rank that reads the file and another that has none of it mean
 * the same by block i. */
enum { SAF_BLOCK_BYTES = 2 << 20 };
typedef struct saf_blocks saf_blocks;
/* g must outlive them. */
saf_status saf_blocks_new(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_blocks **out);
void saf_blocks_free(saf_blocks **b);
int64_t saf_blocks_count(const saf_blocks *b);
size_t saf_blocks_bytes(const saf_blocks *b, int64_t block);
size_t saf_blocks_largest(const saf_blocks *b); /* bytes of the largest one */
size_t saf_blocks_total(const saf_blocks *b);   /* of all */
/* From the file, into saf_blocks_bytes bytes at a multiple of 64. Errors: IO, BAD_INPUT. */
saf_status saf_blocks_read(const saf_blocks *b, int64_t block, void *out);

/* Repacks a block into its place, with all threads. Every block once, in any order. */
void saf_slice_put(saf_slice *s, const saf_blocks *b, int64_t block, const void *bytes);
/* Now and then, by the calling thread alone, while others go on: `bytes` of the slice are there. A
 * status other than SAF_OK ends the reading. */
typedef saf_status (*saf_slice_tick)(void *ctx, size_t bytes);
/* Reads all blocks from the file, each thread one at a time. tick may be NULL.
 * Errors: IO, NO_MEMORY, BAD_INPUT, the tick's. */
saf_status saf_slice_read(saf_slice *s, const saf_blocks *b, saf_slice_tick tick, void *ctx);
/* All of these for one rank by itself. */
saf_status saf_slice_load(const saf_gguf *g, const saf_model_params *p, saf_slice_range range,
                          saf_slice **out);

/* ==== key-value cache ==========================================================================*/

typedef struct saf_kv_cache saf_kv_cache;

/* `slots` sequences of `capacity` positions for the layers of a range, of the key heads that its
 * heads read. Memory is only taken when positions are written. */
saf_status saf_kv_cache_new(const saf_model_params *p, saf_slice_range range, saf_kv_type type,
                            int64_t slots, int64_t capacity, saf_kv_cache **out);
void saf_kv_cache_free(saf_kv_cache **kv);
/* Bytes of one slot at full use, without making one; SIZE_MAX where that overflows. */
size_t saf_kv_cache_slot_bytes(const saf_model_params *p, saf_slice_range range, saf_kv_type type,
                               int64_t capacity);
/* Bytes of the cache at full use. */
size_t saf_kv_cache_bytes(const saf_kv_cache *kv);

/* ==== forward pass
 * ===============================================================================*/

/* A micro-batch: rows of one or more sequences, each a run of consecutive positions. */
typedef struct {
    int32_t slot;   /* of the cache */
    int32_t pos0;   /* position of the first row */
    int32_t tokens; /* rows; the runs of a batch follow one another */
    int32_t logits; /* how many of the last rows want logits: 0, 1 or tokens */
} saf_run;

typedef struct {
    int32_t n_runs, tokens; /* tokens = sum over runs */
    const saf_run *runs;
    const int32_t *ids; /* [T], only read by the first stage */
} saf_batch;

/* The ranks that hold the parts of one stage. Each works out its own rows and heads; what others
 * need of it, it writes into memory that all of them see, and they meet in `share`: four times a
 * layer, for the rows that feed the two norms (f32) and those that feed the two products after
 * attention and SiLU (as the products take them: quantised blocks, or f32 for float weights). */
typedef struct {
    void *ctx;
    int32_t rank, ranks;
    const saf_slice_range *ranges; /* [ranks], rank's own among them */
    char *memory;                  /* saf_stage_shared_bytes of it are the stages' own */
    bool parts;                    /* whether share looks at what was written */
    bool by_token;                 /* saf_kernels_by_token on every rank */
    /* All ranks meet: what each wrote before, all others read afterwards. parts[n]: what was
     * written since they last met, the same list on every rank. By one thread. An error is
     * final: no rank meets another any more. */
    saf_status (*share)(void *ctx, const saf_part *parts, int64_t n);
} saf_stage_group;
/* Bytes at the beginning of `memory`, a multiple of 64, that the stages of a group of so many ranks
 * need, the same on all of them; what comes after is the caller's. SIZE_MAX where it overflows. */
size_t saf_stage_shared_bytes(const saf_model_params *p, int64_t max_tokens, int64_t max_logits,
                              int32_t ranks);

/* Working memory of a stage for batches up to max_tokens rows and max_logits logit rows. With a
 * group, which must outlive the stage, its ranks make the same calls with the same batches, and all
 * get the same results; x and logits then lie in the group's memory, at the same place on each
 * rank. A rank may still read them when another is done with the call: before they are written
 * again all must have met, or the next call uses others. group NULL: alone. */
typedef struct saf_stage saf_stage;
saf_status saf_stage_new(const saf_model_params *p, saf_slice *slice, saf_kv_cache *kv,
                         int64_t max_tokens, int64_t max_runs, int64_t max_logits,
                         const saf_stage_group *group, saf_stage **out);
void saf_stage_free(saf_stage **s);
size_t saf_stage_bytes(const saf_stage *s);

/* A value that is not finite leaving a layer: the first of a run. */
typedef struct {
    int32_t run, layer, position; /* run -1: none */
} saf_fault;

/* Runs the slice's layers over a batch, with all threads of this rank.
 *   x       [T, D] activations: in (unless this is the first stage, which looks up ids) and out
 *   faults  [n_runs]: set for every run: its earliest position that is not finite, and the first
 *           layer that it left so
 * The last stage keeps the rows that want logits, in order of the batch, until the next call.
 * Errors: DEFECT (a batch beyond what the stage was made for); those of the group's share; none
 * that depend on values. */
saf_status saf_stage_forward(saf_stage *s, const saf_batch *batch, float *x, saf_fault *faults);

/* logits[n, V] of the kept rows [row0, row0 + n): a large vocabulary goes in blocks. finite[n]:
 * whether all logits of a row are. Errors: those of the group's share. */
saf_status saf_stage_logits(saf_stage *s, int64_t row0, int64_t n, float *logits, bool *finite);

/* From now on the calling thread does this after every layer, while the others go on, for what
 * cannot wait until the end of a pass; NULL: no more. It calls nothing of the stage. */
void saf_stage_tick(saf_stage *s, void (*tick)(void *ctx), void *ctx);

/* ---- where the time of a forward pass goes, and what it must do at least ---- */

/* name, what it says in tables */
#define SAF_STEP_LIST(X)      \
    X(EMBED, "embedding")     \
    X(NORM, "norms")          \
    X(QKV, "q, k, v")         \
    X(HEADS, "heads, cache")  \
    X(ATTENTION, "attention") \
    X(QUANTISE, "quantising") \
    X(O, "output")            \
    X(GATE_UP, "gate, up")    \
    X(SILU, "silu")           \
    X(DOWN, "down")           \
    X(CHECK, "checks")        \
    X(HEAD, "head")           \
    X(EXCHANGE, "exchange")

/* Kinds of step, each up to a meeting of the threads: looking up tokens and the angles of their
 * positions (EMBED); norms, what comes out of attention (QUANTISE) and SiLU, each with quantising
 * for the products that follow (QKV, O, GATE_UP, DOWN, HEAD); O and DOWN with adding to the rows;
 * biases, norms and rotation of heads, and storing keys and values (HEADS); whether the last
 * layer's rows and the logits are finite (CHECK); meetings with the other ranks of a stage
 * (EXCHANGE), waiting for them included. */
typedef enum {
#define X(name, text) SAF_STEP_##name,
    SAF_STEP_LIST(X)
#undef X
        SAF_STEP_COUNT
} saf_step;
const char *saf_step_name(saf_step step);

typedef struct {
    double seconds[SAF_STEP_COUNT]; /* of the whole team: barriers included */
} saf_profile;

/* From now on every pass adds its time to *profile, which stays the caller's; NULL: no more. Off
 * unless asked for. */
void saf_stage_profile(saf_stage *s, saf_profile *profile);

/* What steps cannot do without. Nothing that stays in a cache counts. */
typedef struct {
    int64_t weight_bytes; /* weights read once, as large as in the file (vectors: as f32) */
    int64_t kv_bytes;     /* keys and values read once for each sequence */
    int64_t int8_ops;     /* of products with quantised weights: 2 rows cols for each token */
    int64_t float_ops;    /* of products with float weights, and of attention's two */
} saf_cost;
/* Of each kind, for one saf_stage_forward of this batch and the saf_stage_logits of all rows that
 * want them; of several ranks, what this one's part does. */
void saf_stage_cost(const saf_stage *s, const saf_batch *batch, saf_cost out[SAF_STEP_COUNT]);

/* ==== sampler
 * ====================================================================================*/

typedef struct {
    double temperature;    /* 0: greedy */
    int32_t top_k;         /* 0: off */
    double top_p, min_p;   /* 1.0 and 0.0: off */
    double repeat_penalty; /* 1.0: off */
    int32_t repeat_last;   /* how many last tokens count; 0: none, -1: all */
    uint64_t seed;
} saf_sampling;

typedef struct {
    int32_t id;
    float logprob; /* of id under the plain softmax of the logits (penalties and temperature left
                      out) */
} saf_sampled;

typedef struct saf_sampler saf_sampler; /* scratch for one vocabulary; one thread */
saf_status saf_sampler_new(int64_t vocab, saf_sampler **out);
void saf_sampler_free(saf_sampler **s);
/* One token from logits[V] (not changed). The order of the steps is that of llama.cpp's default
 * chain; R, K, P, M, T are repeat_penalty, top_k, top_p, min_p, temperature.
 *   1  x[i] = logits[i]; for every id among the last repeat_last of history, once:
 *      x[i] = x[i] > 0 ? x[i] / R : x[i] * R, in double, rounded to f32
 *   2  T = 0: the largest x, the smallest id among equals. Done.
 *   3  Candidates in the order x descending, id ascending: c[0], c[1], ...; m = x[c[0]].
 *      w_t(i) = expf(f32((x[i] - m) / t)), the inner part in double, expf = saf_math_expf
 *   4  K > 0: the first K stay.
 *   5  P < 1: the fewest first whose w_1, added in order, reach P * (sum of w_1 over step 4's)
 *   6  M > 0: those before the first with w_1 < M
 *   7  u = saf_philox_uniform(seed, request, position): the first whose w_T, added in order,
 *      exceed u * (sum of w_T over step 6's). At least one candidate stays in every step.
 *   Sums are double. Over the whole vocabulary lane j of 8 adds ids j, j + 8, ... and the lanes
 *   are added from 0 to 7; over fewer candidates they are added in order.
 * `request` is the first 64 bits of SHA-256 of the request's id, `position` the position of the
 * token to be sampled. Logits that are not finite do no harm but mean nothing (NaN is least).
 *   history   the sequence so far, prompt included
 *   top       NULL, or room for n_top: the n_top likeliest (id, logprob) under the plain softmax,
 *             logprob descending, id ascending
 *   logprob   f32(logits[id] - saf_log_sum_exp(logits, V))
 * Cost    a few passes over V; sorts only as many candidates as the steps look at
 * Errors  DEFECT (n_top outside [0, V]) */
saf_status saf_sampler_pick(saf_sampler *s, const float *logits, const saf_sampling *settings,
                            const int32_t *history, int64_t n_history, uint64_t request,
                            int64_t position, saf_sampled *out, int n_top, saf_sampled *top);

#endif
