/* Where a value came from, and errors that say so. */
#ifndef SAF_JOB_WHERE_H
#define SAF_JOB_WHERE_H

#include "saf/core.h"

typedef struct {
    const char *file;  /* borrowed: a path, or "command line" */
    int64_t line;      /* 0: no line */
    saf_status status; /* of errors here: USAGE in job files, BAD_INPUT in inputs */
} saf__where;

/* Records "FILE:LINE: KEY: message" (a NULL key is left out) and returns at->status. */
saf_status saf__fail_at(const saf__where *at, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum { SAF__QUOTE_BYTES = 80 };
/* text in double quotes for a message: control characters, and bytes that are no characters, as
 * '?'; cut when long. Returns out. */
const char *saf__quote(const char *text, char out[SAF__QUOTE_BYTES]);

#endif
