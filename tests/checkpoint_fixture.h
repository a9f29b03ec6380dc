/* A checkpoint's content made from its number, and its comparison, for the tests of the store. */
#ifndef TESTS_CHECKPOINT_FIXTURE_H
#define TESTS_CHECKPOINT_FIXTURE_H

#include "results_fixture.h"

static inline void checkpoint_head(saf_checkpoint_head *h, int64_t number) {
    char text[32];
    memset(h, 0, sizeof *h);
    snprintf(text, sizeof text, "%lld", (long long)number);
    fixture_text(&h->kind, "generate");
    fixture_text(&h->version, SAF_VERSION);
    fixture_text(&h->model_name, "tiny");
    fixture_text(&h->start_time, "2026-01-31T12:00:00Z");
    fixture_text(&h->written, "2026-01-31T12:34:56Z");
    h->done = number;
    h->total = number + 100;
    h->tokens = 17 * number;
    h->seconds = 0.125 * (double)number;
    h->resumes = (int32_t)(number % 5);
    fixture_ok(saf_identity_add(&h->identity, "model",
                                "Gr\xC3\xBC\xC3\x9F"
                                "e"));
    fixture_ok(saf_identity_add(&h->identity, "generate.max_tokens", "12"));
    fixture_ok(saf_identity_add(&h->identity, "input.prompts", ""));
    fixture_ok(saf_identity_add(&h->identity, "number", text));
}

/* Every type, one of them without values; `scale` makes them longer. */
static const saf_dtype checkpoint_types[] = {SAF_DTYPE_F32, SAF_DTYPE_F16, SAF_DTYPE_BF16,
                                             SAF_DTYPE_F64, SAF_DTYPE_I8,  SAF_DTYPE_I16,
                                             SAF_DTYPE_I32, SAF_DTYPE_I64, SAF_DTYPE_U8};
enum { CHECKPOINT_TYPES = sizeof checkpoint_types / sizeof checkpoint_types[0] };

/* Any bits: NaNs of every kind must come back as they were. */
static inline void checkpoint_values(saf_dtype dtype, int64_t n, int64_t number, void **out) {
    size_t bytes;
    uint8_t *to = NULL;
    assert_true(saf_dtype_bytes(dtype, n, &bytes));
    fixture_ok(saf_alloc(bytes, 1, &to));
    uint64_t x = 88172645463325252u + (uint64_t)number * 977 + (uint64_t)dtype;
    for (size_t i = 0; i < bytes; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        to[i] = (uint8_t)(x >> 32);
    }
    *out = to;
}

static inline int64_t checkpoint_count(int type, int64_t number, int64_t scale) {
    return type == 7 ? 0 : scale * (3 + type) + number % 7;
}

static inline void checkpoint_name(int type, char out[24]) {
    snprintf(out, 24, "values_%d", type);
}

/* Not through cmocka: the caller may be a child whose disk is full. */
static inline saf_status checkpoint_write(const char *output, int64_t number, int64_t scale,
                                          int64_t *bytes) {
    saf_checkpoint_head head;
    saf_checkpoint_writer *w = NULL;
    checkpoint_head(&head, number);
    saf_status st = saf_checkpoint_create(output, &head, &w);
    for (int i = 0; st == SAF_OK && i < CHECKPOINT_TYPES; i++) {
        void *values = NULL;
        char name[24];
        int64_t n = checkpoint_count(i, number, scale);
        checkpoint_name(i, name);
        checkpoint_values(checkpoint_types[i], n, number, &values);
        st = saf_checkpoint_put(w, name, checkpoint_types[i], n, values);
        saf_free(&values);
    }
    if (st == SAF_OK) st = saf_checkpoint_commit(w, bytes);
    saf_checkpoint_writer_free(&w);
    saf_checkpoint_head_free(&head);
    return st;
}

/* True if it holds what checkpoint_write wrote with the number that it names itself. */
static inline bool checkpoint_is_whole(const saf_checkpoint *c, int64_t scale) {
    const saf_checkpoint_head *head = saf_checkpoint_head_of(c);
    saf_checkpoint_head expected;
    int64_t number = head->done;
    checkpoint_head(&expected, number);
    bool good = head->total == expected.total && head->tokens == expected.tokens &&
                head->seconds == expected.seconds && head->resumes == expected.resumes &&
                strcmp(head->kind, expected.kind) == 0 &&
                strcmp(head->version, expected.version) == 0 &&
                strcmp(head->start_time, expected.start_time) == 0 &&
                strcmp(head->written, expected.written) == 0 &&
                saf_identity_check(&head->identity, &expected.identity, "x") == SAF_OK;
    for (int i = 0; good && i < CHECKPOINT_TYPES; i++) {
        void *values = NULL, *wanted = NULL;
        int64_t n = -1, m = checkpoint_count(i, number, scale);
        size_t bytes;
        char name[24];
        checkpoint_name(i, name);
        checkpoint_values(checkpoint_types[i], m, number, &wanted);
        good = saf_checkpoint_get(c, name, checkpoint_types[i], m, &n, &values) == SAF_OK &&
               n == m && saf_dtype_bytes(checkpoint_types[i], m, &bytes) &&
               memcmp(values, wanted, bytes) == 0;
        saf_free(&values);
        saf_free(&wanted);
    }
    saf_checkpoint_head_free(&expected);
    return good;
}

static inline int64_t checkpoint_number(const saf_checkpoint *c) {
    return saf_checkpoint_head_of(c)->done;
}

#endif
