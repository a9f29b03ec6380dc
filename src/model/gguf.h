/* Inside of a GGUF file, for the files of src/model that read and write it. */
#ifndef SAF_MODEL_GGUF_H
#define SAF_MODEL_GGUF_H

#include "saf/model.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are read as they lie");

enum {
    SAF__GGUF_ALIGNMENT = 32,  /* where `general.alignment` is absent */
    SAF__GGUF_NAME_MAX = 64,   /* bytes of a tensor's name */
    SAF__GGUF_KEY_MAX = 65535, /* bytes of a key */
    SAF__GGUF_PARTS_MAX = 99999,
    /* What is known of a key or a tensor takes more memory than the fewest bytes that say it: these
     * bound it, far above what models have. */
    SAF__GGUF_KEYS_MAX = 1 << 16,
    SAF__GGUF_TENSORS_MAX = 1 << 20, /* of all parts */
    SAF__GGUF_HEADER_MAX =
        1 << 30 /* offsets into a header fit 32 bits; real ones are below 32 MiB */
};

typedef struct {
    const char *name;
    saf_gguf_kind kind, element; /* element: SAF_GGUF_KINDS unless kind is SAF_GGUF_ARRAY */
    int64_t length;              /* 1 unless an array */
    uint32_t raw, raw_bytes;     /* in the header, from the kind's number to the value's end */
    uint32_t *strings;           /* [length] where each string of an array of strings starts (at its
                                    length), so that the i-th is found at once */
} saf__gguf_key;

/* Keys of one file. The values stay where the file has them: `header` is a copy of its bytes. */
typedef struct {
    saf_buf header, names;
    saf__gguf_key *items;
    int64_t n, cap;
    saf__gguf_key **by_name; /* [n] */
} saf__gguf_keys;

/* Tensors of all parts. */
typedef struct {
    saf_buf names;
    saf_gguf_tensor *items;
    int64_t n, cap;
    saf_gguf_tensor **by_name; /* [n] */
} saf__gguf_tensors;

/* Bytes [offset, offset + len) of a part. */
typedef struct {
    const char *bytes;
    uint64_t offset, len;
} saf__gguf_extent;

typedef struct {
    char *path;
    int fd;                   /* -1: there is no file here, but what `held` has */
    saf__gguf_extent held[2]; /* in the image: the header, and a tensor that all ranks read */
    uint64_t file_bytes, header_bytes;
} saf__gguf_part;

struct saf_gguf {
    saf__gguf_part *parts; /* [n_parts] */
    int n_parts, version;
    saf__gguf_keys keys; /* of the first part */
    saf__gguf_tensors tensors;
    saf_buf image; /* in place of files */
};

/* Bytes of a scalar of this kind; 0 for strings and arrays. */
size_t saf__gguf_kind_bytes(saf_gguf_kind kind);
/* Name of a tensor type's number as ggml calls it, also those that saf does not support;
 * NULL when it is none. */
const char *saf__gguf_type_name(uint32_t number);

/* Reads the header of an opened part; appends its tensors. On an error the outputs are to be
 * freed as they are. */
saf_status saf__gguf_parse(saf__gguf_part *part, int part_number, saf__gguf_keys *keys,
                           saf__gguf_tensors *tensors, int *version);
void saf__gguf_keys_free(saf__gguf_keys *keys);
const saf__gguf_key *saf__gguf_find(const saf__gguf_keys *keys, const char *name);
/* Any integer kind; `path` is for the message. */
saf_status saf__gguf_key_i64(const saf__gguf_keys *keys, const char *path, const char *name,
                             bool *found, int64_t *out);

/* Reads exactly [offset, offset + len) of a part. `what` is for the message. */
saf_status saf__gguf_pread(const saf__gguf_part *part, uint64_t offset, size_t len,
                           const char *what, void *out);

/* Number of parts that an image has; 0: it is none. */
int saf__gguf_image_parts(const saf_buf *image);
/* Fills file_bytes and held of a part from an image, which stays as it is as long as they are used.
 * False when it is no image, or has no such part. */
bool saf__gguf_image_part(const saf_buf *image, int number, saf__gguf_part *part);

/* Makes room for one more element of `size` bytes; moves them all when it must. */
saf_status saf__gguf_grow(void *items /* T ** */, int64_t n, int64_t *cap, size_t size);

/* Takes a path "PREFIX-00002-of-00003.gguf" apart; false when it has not this form. */
bool saf__gguf_split_name(const char *path, int *number, int *count, size_t *prefix_len);

#endif
