/* saf/core.h: what every room uses: status, log, checked integers, memory, buffers, UTF-8,
 * data types, hashes, random numbers, clock.
 *
 * Everything here is local (no MPI). Functions return saf_status; zero is success. The function
 * that first decides an error calls saf_fail() with what was wrong, where, and what was expected;
 * callers pass the status on with SAF_TRY and say nothing more.
 *
 * Dimension letters used in every header:
 *   B sequences   T tokens of one batch   D model width   H heads   HKV key-value heads
 *   C head width  F feed-forward width    V vocabulary    L layers  P ranks
 *   R output rows of a matrix             K input columns of a matrix
 */
#ifndef SAF_CORE_H
#define SAF_CORE_H

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SAF_VERSION "0.1.0"
/* Of the arithmetic (doc/numbers.md): one more with whatever changes a bit of logits,
 * log-probabilities, tokens or sampled text. A job that another one began is not gone on with: its
 * first half would not fit its second. */
enum { SAF_NUMBERS = 3 };

/* ---- status ------------------------------------------------------------------------------ */

/* name, exit code of the process, message */
#define SAF_STATUS_LIST(X)                              \
    X(OK, 0, "done")                                    \
    X(FAILED, 1, "failed at run time")                  \
    X(NO_MEMORY, 1, "out of memory")                    \
    X(COMM, 1, "communication failed")                  \
    X(USAGE, 2, "wrong usage or job file")              \
    X(BAD_INPUT, 65, "bad input file")                  \
    X(NO_INPUT, 66, "missing input")                    \
    X(DEFECT, 70, "a defect in saf")                    \
    X(CANNOT_CREATE, 73, "cannot create output")        \
    X(IO, 74, "input or output error")                  \
    X(STOPPED, 75, "stopped early, run again to go on") \
    X(WATCHDOG, 124, "no progress within the watchdog's time")

typedef enum {
#define X(name, code, text) SAF_##name,
    SAF_STATUS_LIST(X)
#undef X
} saf_status;

int saf_status_exit_code(saf_status status);
const char *saf_status_text(saf_status status);
/* Of an input that could not be opened: NO_INPUT where there is nothing that this user may read,
 * NO_MEMORY, IO where the machine is at fault (a bad disk, too many open files). */
saf_status saf_status_of_errno(int error);

/* Records the message of an error (what, where, what was expected) and returns `status`.
 * One record per process; the newest replaces the one before. Safe from any thread. What no
 * terminal should be sent of it (control characters, invalid UTF-8) is recorded as '?' or ' '. */
saf_status saf_fail(saf_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__ /* what it cannot see: a failure is never SAF_OK */
#define saf_fail(status, ...) (saf_fail(status, __VA_ARGS__), (status))
#endif

/* The message of the newest saf_fail; "" when there was none. Owned by core, valid until the
 * next saf_fail. */
const char *saf_error_text(void);

/* Every function with cleanup declares `saf_status st = SAF_OK;` and one label `out:`. */
#define SAF_TRY(expr)               \
    do {                            \
        st = (expr);                \
        if (st != SAF_OK) goto out; \
    } while (0)

/* ---- log (stderr) ------------------------------------------------------------------------- */

typedef enum { SAF_LOG_ERROR, SAF_LOG_WARNING, SAF_LOG_INFO, SAF_LOG_DEBUG } saf_log_level;

/* Messages above `level` are dropped; `rank` < 0 leaves the rank out of the prefix. */
void saf_log_setup(saf_log_level level, int rank);
void saf_log(saf_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- checked integers: false (and *out untouched) on overflow ------------------------------ */

static inline bool saf_size_mul(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool saf_size_add(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
static inline bool saf_i64_mul(int64_t a, int64_t b, int64_t *out) {
    int64_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}
/* The one function that narrows to int (MPI counts, array indices of libraries). */
static inline bool saf_int_from_i64(int64_t v, int *out) {
    if (v < INT_MIN || v > INT_MAX) return false;
    *out = (int)v;
    return true;
}
static inline int64_t saf_i64_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t saf_i64_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
/* ceil(a / b) and a rounded up to a multiple of b; a >= 0, b > 0 */
static inline int64_t saf_ceil_div(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}
static inline int64_t saf_round_up(int64_t a, int64_t b) {
    return saf_ceil_div(a, b) * b;
}

/* Sorts them, none of which may be NaN. Of an even number the mean of both in the middle; NaN of
 * none. */
double saf_median(double *values, int64_t n);

/* ---- parts ---------------------------------------------------------------------------------- */

typedef struct {
    int64_t begin, end; /* [begin, end) */
} saf_span;

/* Bytes that one rank writes of a block of memory that several share: rows, a stride apart. */
typedef struct {
    int32_t owner; /* a rank of those that share it */
    int64_t rows;
    size_t offset, bytes, stride; /* of the first row, of each row, from one row to the next */
} saf_part;

/* ---- memory -------------------------------------------------------------------------------- */

/* `count` elements of `size` bytes, zeroed, aligned to 64 bytes. *out is set only on success.
 * A count of 0 gives a valid pointer. Large blocks come from zero pages: untouched memory costs
 * nothing. Errors: SAF_NO_MEMORY (product overflow included). */
saf_status saf_alloc(size_t count, size_t size, void *out /* T ** */);
/* Whether `bytes` more could be had now: asked before a library is called that crashes, or does
 * part of its work, where an allocation fails. Errors: SAF_NO_MEMORY. */
saf_status saf_memory_spare(size_t bytes, const char *what_for);
/* A large block that is read from end to end over and over: it begins at a page of SAF_HUGE_PAGE
 * bytes, and the system is asked for such pages, with which a processor finds its memory sooner.
 * Zeroed, as above; a refusal only costs time. Errors: SAF_NO_MEMORY. */
enum { SAF_HUGE_PAGE = 2 << 20 };
saf_status saf_alloc_huge(size_t bytes, void *out /* T ** */);
/* As saf_alloc, but a block as long as such a page, or longer, is as saf_alloc_huge's: it takes
 * memory by whole such pages as it is touched. Errors: SAF_NO_MEMORY. */
saf_status saf_alloc_large(size_t count, size_t size, void *out /* T ** */);
/* Takes T **, accepts NULL inside, and nulls it. */
void saf_free(void *pointer_to_pointer);
/* A copy of a string, to be released by saf_free. */
saf_status saf_strdup(const char *text, char **out);

/* ---- growable bytes ------------------------------------------------------------------------ */

/* Starts as {0}. `data` is always followed by a zero byte that `len` does not count. */
typedef struct {
    char *data;
    size_t len, cap;
} saf_buf;

saf_status saf_buf_append(saf_buf *buf, const void *bytes, size_t len);
saf_status saf_buf_printf(saf_buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Sets the length; bytes beyond the old one are zero. */
saf_status saf_buf_resize(saf_buf *buf, size_t len);
void saf_buf_clear(saf_buf *buf); /* keeps the memory */
void saf_buf_free(saf_buf *buf);

/* Reads a whole file. `max_bytes` bounds it. Errors: NO_INPUT (missing, a folder), IO, BAD_INPUT
 * (larger than max_bytes). */
saf_status saf_file_read(const char *path, size_t max_bytes, saf_buf *out);
/* Whether both are there and are one file, by whatever names. */
bool saf_file_is_same(const char *a, const char *b);

/* ---- UTF-8 --------------------------------------------------------------------------------- */

/* Decodes one character at text[0..len). Returns its length in bytes (1..4), or 0 when the bytes
 * are not a whole valid character (overlong forms, surrogates and > U+10FFFF are invalid). */
int saf_utf8_decode(const char *text, size_t len, uint32_t *out);
/* Writes 1..4 bytes; returns their number, 0 for an invalid code point. */
int saf_utf8_encode(uint32_t code_point, char out[4]);
/* Offset of the first byte that is not valid UTF-8, or len. */
size_t saf_utf8_valid_prefix(const char *text, size_t len);
/* Length of the longest prefix that ends on a whole character: what may be shown of a text still
 * growing. Bytes that can never become valid count as whole. */
size_t saf_utf8_whole_prefix(const char *text, size_t len);
/* Appends `text` with every invalid byte replaced by U+FFFD. */
saf_status saf_utf8_append_clean(saf_buf *out, const char *text, size_t len);

/* ---- data types ---------------------------------------------------------------------------- */

/* name, elements per block, bytes per block, GGUF type number (-1: not a GGUF tensor type)
 * Source: the GGUF specification and ggml's block layouts. */
#define SAF_DTYPE_LIST(X) \
    X(F32, 1, 4, 0)       \
    X(F16, 1, 2, 1)       \
    X(BF16, 1, 2, 30)     \
    X(F64, 1, 8, 28)      \
    X(I8, 1, 1, 24)       \
    X(I16, 1, 2, 25)      \
    X(I32, 1, 4, 26)      \
    X(I64, 1, 8, 27)      \
    X(U8, 1, 1, -1)       \
    X(Q8_0, 32, 34, 8)    \
    X(Q4_0, 32, 18, 2)    \
    X(Q4_1, 32, 20, 3)    \
    X(Q5_0, 32, 22, 6)    \
    X(Q5_1, 32, 24, 7)    \
    X(Q2_K, 256, 84, 10)  \
    X(Q3_K, 256, 110, 11) \
    X(Q4_K, 256, 144, 12) \
    X(Q5_K, 256, 176, 13) \
    X(Q6_K, 256, 210, 14)

typedef enum {
#define X(name, block, bytes, gguf) SAF_DTYPE_##name,
    SAF_DTYPE_LIST(X)
#undef X
        SAF_DTYPE_COUNT
} saf_dtype;

const char *saf_dtype_name(saf_dtype dtype);
int saf_dtype_block(saf_dtype dtype);         /* elements per block */
int saf_dtype_block_bytes(saf_dtype dtype);   /* bytes per block */
bool saf_dtype_is_quantised(saf_dtype dtype); /* block > 1 */
/* Bytes of `elements` values; false on overflow or when elements is no multiple of the block. */
bool saf_dtype_bytes(saf_dtype dtype, int64_t elements, size_t *out);
/* From a GGUF type number or a name in either case ("q8_0"); false when unknown. */
bool saf_dtype_from_gguf(uint32_t number, saf_dtype *out);
bool saf_dtype_from_name(const char *name, saf_dtype *out);
int saf_dtype_to_gguf(saf_dtype dtype);

/* IEEE half and bfloat16, exact one way and round-to-nearest-even the other; NaN stays NaN. */
static inline float saf_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t saf_f32_to_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static inline float saf_f32_from_bf16(uint16_t h) {
    return saf_f32_from_bits((uint32_t)h << 16);
}
float saf_f32_from_f16(uint16_t h);
uint16_t saf_f16_from_f32(float f);
uint16_t saf_bf16_from_f32(float f);

/* ---- SHA-256 (libcrypto) --------------------------------------------------------------------*/

typedef struct saf_sha256 saf_sha256;
saf_status saf_sha256_new(saf_sha256 **out);
saf_status saf_sha256_add(saf_sha256 *sha, const void *bytes, size_t len);
/* The length as 8 bytes, little-endian, then the bytes. */
saf_status saf_sha256_add_prefixed(saf_sha256 *sha, const void *bytes, size_t len);
saf_status saf_sha256_final(saf_sha256 *sha, uint8_t out[32]); /* then only free it */
void saf_sha256_free(saf_sha256 **sha);
saf_status saf_sha256_of(const void *bytes, size_t len, uint8_t out[32]);
void saf_hex(const uint8_t *bytes, size_t len, char *out /* 2 * len + 1 */);

/* ---- random numbers -------------------------------------------------------------------------*/

/* Philox4x32-10 (Salmon et al., SC 2011; through Random123): four 32-bit words that are a pure
 * function of key and counter. */
void saf_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4]);
/* out[4 i + j] = word j of counter (counter_hi, counter_lo + i), i < n. */
void saf_philox_fill(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, size_t n,
                     uint32_t *out);
/* One counter as a number in [0, 1) with 53 bits, from the first two words. */
double saf_philox_uniform(uint64_t key, uint64_t counter_hi, uint64_t counter_lo);

/* ---- clock and process ----------------------------------------------------------------------*/

double saf_clock_s(void); /* monotonic, seconds */
/* "2026-01-31T12:00:00Z" of the current time. */
void saf_clock_iso8601(char out[32]);
size_t saf_peak_memory_bytes(void); /* largest resident size of this process so far */

/* What takes long and cannot be seen from outside (reading back gigabytes, waiting for a disk)
 * calls saf_alive between its parts, on the thread that was given the work; whoever watches that
 * the process gets on sets what that calls (NULL: nothing, as at first). On any thread but the one
 * that set it nothing is called: work beside the job's says nothing of the job. Set it while no
 * other thread calls. */
void saf_alive(void);
void saf_alive_calls(void (*what)(void));

#endif
