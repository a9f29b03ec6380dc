/* Where the fields of a GGUF file lie, of a file that may be wrong in any of them. */
#ifndef SAF_TESTS_FUZZ_GGUF_FIELDS_H
#define SAF_TESTS_FUZZ_GGUF_FIELDS_H

#include "saf/model.h"

typedef enum {
    FIELD_NUMBER,       /* of the header, or a value: an integer, a float, a boolean */
    FIELD_LENGTH,       /* of a text, which follows */
    FIELD_KIND,         /* of a value or of elements */
    FIELD_ARRAY_LENGTH, /* of an array, whose elements follow */
    FIELD_DIMENSIONS,   /* of a tensor: how many */
    FIELD_DIMENSION,
    FIELD_TYPE,  /* of a tensor */
    FIELD_OFFSET /* of a tensor's data */
} field_role;

typedef struct {
    field_role role;
    saf_gguf_kind kind; /* FIELD_NUMBER: what it is; FIELD_ARRAY_LENGTH: of its elements */
    size_t at, bytes;
} field;

/* A key with its value, or the description of a tensor. */
typedef struct {
    size_t at, end;
    bool is_tensor;
    int first_field, end_field;
} record;

enum { FIELDS_MAX = 4096, RECORDS_MAX = 512 };

typedef struct {
    field fields[FIELDS_MAX];
    record records[RECORDS_MAX];
    int n_fields, n_records;
    size_t end; /* of the header, or of what could be understood of it */
} field_map;

uint64_t gguf_number(const uint8_t *data, size_t at, size_t bytes);
/* Bytes of a number of this kind; 0 for others. */
size_t gguf_kind_bytes(uint64_t kind);

void gguf_map(const uint8_t *data, size_t size, field_map *out);

#endif
