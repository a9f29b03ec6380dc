/* Changes of HDF5 files by HDF5's own means, one a record of the input: what comes out is a file
 * that libhdf5 could have written, with values, shapes, types and links that saf would not have. */
#ifndef SAF_TESTS_H5_EDIT_H
#define SAF_TESTS_H5_EDIT_H

#include <hdf5.h>
#include <stdint.h>

enum { FUZZ_H5_RECORD = 12 };

typedef enum {
    FUZZ_H5_ATTRIBUTE_DELETED,
    FUZZ_H5_ATTRIBUTE_I64,  /* value */
    FUZZ_H5_ATTRIBUTE_F64,  /* bits of value */
    FUZZ_H5_ATTRIBUTE_TEXT, /* how: bytes, 255: many; value: which */
    FUZZ_H5_ATTRIBUTE_ODD,  /* how: of which type and shape */
    FUZZ_H5_DELETED,        /* the link to a dataset or group */
    FUZZ_H5_VALUE,          /* how: which one becomes `value` */
    FUZZ_H5_MADE_AGAIN,     /* how: type, dimensions, layout; value: size and content */
    FUZZ_H5_TEXTS,          /* how: number of texts; value: of them */
    FUZZ_H5_LINK,           /* how: to what */
    FUZZ_H5_DTYPE,          /* how: which name of a type its attribute has */
    FUZZ_H5_ELSEWHERE,      /* how: values are in another file */
    FUZZ_H5_KINDS
} fuzz_h5_kind;

/* The bytes of a record, in this order; `value` little-endian. */
typedef struct {
    uint8_t file;  /* which of the caller's */
    uint8_t what;  /* fuzz_h5_kind, modulo their number */
    uint8_t which; /* attribute or object, modulo their number */
    uint8_t how;
    uint64_t value;
} fuzz_h5_record;

/* What a file has that can be changed. */
typedef struct {
    const char *const *attributes; /* of the root; NULL at the end */
    const char *const *objects;    /* paths; NULL at the end */
} fuzz_h5_names;

fuzz_h5_record fuzz_h5_record_of(const uint8_t bytes[FUZZ_H5_RECORD]);
/* What cannot be done is not done. */
void fuzz_h5_edit(hid_t file, const fuzz_h5_names *names, const fuzz_h5_record *record);

#endif
