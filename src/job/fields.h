/* The table of a job file's keys, and what is done with one entry of it. */
#ifndef SAF_JOB_FIELDS_H
#define SAF_JOB_FIELDS_H

#include <libconfig.h>

#include "job/where.h"
#include "saf/job.h"

/* What a bench job measures. */
typedef enum {
    SAF__SUITE_MODEL,
    SAF__SUITE_COMM,
    SAF__SUITE_MEMORY,
    SAF__SUITE_COMPUTE,
    SAF__SUITE_MATMUL,
    SAF__SUITE_STORAGE,
    SAF__SUITE_KINDS
} saf__suite_kind;
const char *saf__suite_name(saf__suite_kind kind);
/* 1 << kind of each that the job wants. */
uint32_t saf__suites_of(const saf_job *job);

/* "f16" of a saf_kv_type. */
const char *saf__kv_type_name(int32_t type);

typedef enum {
    SAF__FIELD_INT,     /* int32_t */
    SAF__FIELD_INT64,   /* uint64_t, up to 2^63 - 1 */
    SAF__FIELD_FLOAT,   /* double */
    SAF__FIELD_BOOL,    /* bool */
    SAF__FIELD_ENUM,    /* an enum: the place among `choices` */
    SAF__FIELD_STRING,  /* char *, not empty */
    SAF__FIELD_STRINGS, /* char ** and int32_t count */
    SAF__FIELD_INTS,    /* int32_t * and int32_t count */
    SAF__FIELD_FLOATS   /* double * and int32_t count */
} saf__field_type;

enum {
    SAF__FOR_GENERATE = 1 << SAF_JOB_GENERATE,
    SAF__FOR_SCORE = 1 << SAF_JOB_SCORE,
    SAF__FOR_BENCH = 1 << SAF_JOB_BENCH,
    SAF__FOR_MATMUL = 1 << SAF_JOB_MATMUL,
    SAF__FOR_TRAIN = 1 << SAF_JOB_TRAIN
};

enum { SAF__CHAIN_MOST = 64 };   /* matrices of matmul.chain */
enum { SAF__TEXTS_MOST = 4096 }; /* files of input.text */

typedef struct {
    const char *key; /* full path, a group and a name; "job" alone has no group */
    unsigned kinds;  /* SAF__FOR_... bits */
    saf__field_type type;
    size_t offset, count_offset; /* in saf_job */
    double min, max;             /* of numbers and of list elements; exact below 2^53 */
    const char *initial;         /* the default as libconfig text; NULL: none */
    const char *absent;          /* what its absence means, when there is no default */
    const char *const *choices;  /* of enums, and of strings or NULL; ends with NULL */
    const char *unit;            /* or NULL */
    const char *help;
    int32_t max_count;    /* of lists */
    bool required, input; /* input: exactly one of these must be given */
    bool above_min;       /* min itself is out of range */
    bool may_be_empty;    /* of strings */
    bool identity;        /* another value makes it another job */
} saf__field;

static inline bool saf__field_is_list(const saf__field *f) {
    return f->type == SAF__FIELD_STRINGS || f->type == SAF__FIELD_INTS ||
           f->type == SAF__FIELD_FLOATS;
}

enum { SAF__FIELDS_MAX = 128 };
extern const saf__field saf__fields[];
extern const int saf__field_count;

/* The key of this kind of job; NULL when there is none. */
const saf__field *saf__field_find(saf_job_kind kind, const char *key);
/* Whether jobs of this kind have an input. */
bool saf__kind_has_input(saf_job_kind kind);
/* Whether some key of the kind begins with "NAME.". */
bool saf__field_is_group(saf_job_kind kind, const char *name);
/* "unknown key", with the nearest one or where to look. */
saf_status saf__field_unknown(saf_job_kind kind, const char *key, const saf__where *at);

/* ---- field_value.c: setting, writing ------------------------------------------------------- */

/* Whether there is memory for libconfig to read so much text: it crashes where there is none.
 * Errors: NO_MEMORY. */
saf_status saf__libconfig_room(size_t text_bytes);
/* Checks a value and stores it in place of the one before. */
saf_status saf__field_set(saf_job *job, const saf__field *f, const config_setting_t *value,
                          const saf__where *at);
/* The same from a word of the command line, or from a default: libconfig text, but strings and
 * enums need no quotes. */
saf_status saf__field_set_text(saf_job *job, const saf__field *f, const char *text,
                               const saf__where *at);
/* The same for numbers that come from elsewhere; `name` is what errors call it. */
saf_status saf__field_set_number(saf_job *job, const saf__field *f, double value, const char *name,
                                 const saf__where *at);
/* Frees and empties a string or list. */
void saf__field_clear(saf_job *job, const saf__field *f);
/* Whether a string or list holds something; true for all others. */
bool saf__field_has_value(const saf_job *job, const saf__field *f);
/* Appends the value as libconfig text that reads back as the very same value. */
saf_status saf__field_write(const saf_job *job, const saf__field *f, saf_buf *out);

/* ---- field_text.c: words about a field ----------------------------------------------------- */

/* "an integer from 0 to 64", "one of f16, f32", ... */
saf_status saf__field_expected(const saf__field *f, saf_buf *out);
/* For the manual: "integer", "list of strings", ... and the range alone ("" when there is none). */
const char *saf__field_type_name(saf__field_type type);
saf_status saf__field_range(const saf__field *f, saf_buf *out);

/* ---- matmul/keys.c ---- */

/* Names of matrices; two files, or lengths from which both are made. given[]: where each field's
 * value came from. Errors: USAGE. */
saf_status saf__matmul_keys_check(const saf_job *job, const saf__where *given,
                                  const saf__where *whole);

/* ---- train/keys.c ---- */

/* The shape, and numbers that must fit each other. Likewise. */
saf_status saf__train_keys_check(const saf_job *job, const saf__where *given,
                                 const saf__where *whole);

#endif
