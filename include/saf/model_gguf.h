/* saf/model_gguf.h: GGUF files, read and written, and models made of synthetic weights.
 * Source: the GGUF specification, versions 2 and 3, little-endian.
 *
 * Everything that comes from a file is hostile until checked: counts, lengths, offsets, products
 * and types are bounded by what remains of the file before anything is allocated or read.
 */
#ifndef SAF_PUBLIC_MODEL_GGUF_H
#define SAF_PUBLIC_MODEL_GGUF_H

#include "saf/core.h"

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
/* XXH3-128 over the tensors in the order of the file: of each its name, its size, and pieces of
 * 4 KiB of its bytes, evenly spaced from the first to the last (all of them where it is small). So
 * a large file is not read whole. It tells models apart that were trained, converted or quantised
 * in another way, which differ all over; a change to some bytes between the pieces it does not
 * notice. Of a file, not of an image. Errors: IO, BAD_INPUT (the file has become shorter). */
saf_status saf_gguf_fingerprint(const saf_gguf *g, uint8_t out[16]);

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
/* Before any data: there will be none. The file is as long as it would be, and sparse. */
void saf_gguf_writer_header_only(saf_gguf_writer *w);
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
    bool header_only;       /* all weights are zeros that take no room: for plans, not for runs */
    uint64_t seed;
} saf_model_make_options;
/* "L:D:H:HKV:C:F" into the six numbers; false (and a part of them set) when it is something else.
 */
bool saf_model_shape_read(const char *text, saf_model_make_options *out);
/* Errors: USAGE (a shape that no model can have), NO_INPUT, BAD_INPUT (the vocabulary),
 * CANNOT_CREATE, IO. */
saf_status saf_model_make(const char *path, const saf_model_make_options *options);

#endif
