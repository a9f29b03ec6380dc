#include "checkpoint_set.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "fuzz.h"
#include "job/state_columns.h"

const char *const set_endings[SET_FILES] = {"", ".kv-0", ".kv-1", ".kv"};

static const char *const head_attributes[] = {
    "checkpoint_schema", "saf_version", "job_kind", "model_name", "start_time",
    "written",           "total",       "done",     "tokens",     "resumes",
    "seconds",           NULL};
static const char *const state_objects[] = {"/state/row",
                                            "/state/request_tokens",
                                            "/state/request_text_bytes",
                                            "/state/request_logprobs",
                                            "/state/request_logits_rows",
                                            "/state/end",
                                            "/state/fault_layer",
                                            "/state/fault_position",
                                            "/state/replica",
                                            "/state/given",
                                            "/state/admitted_s",
                                            "/state/first_s",
                                            "/state/last_s",
                                            "/state/tokens",
                                            "/state/text",
                                            "/state/logprobs",
                                            "/state/top_ids",
                                            "/state/top_logprobs",
                                            "/state/logits",
                                            "/identity/names",
                                            "/identity/values",
                                            "/identity",
                                            "/state",
                                            NULL};
static const char *const source_attributes[] = {"kv_schema", "type", "layer0", "head0", NULL};
static const char *const source_objects[] = {"/kv/0", "/kv/2", "/kv", NULL};
static const char *const joined_attributes[] = {"kv_joined_schema", "type",      "layers",
                                                "kv_heads",         "row_bytes", NULL};
static const char *const joined_objects[] = {"/state/row",
                                             "/state/set",
                                             "/state/positions",
                                             "/state/source_rank",
                                             "/state/source_set",
                                             "/state/source_layer0",
                                             "/state/source_layers",
                                             "/state/source_head0",
                                             "/state/source_heads",
                                             "/state/source_bytes",
                                             "/state/source_sha256",
                                             "/state/checkpoint_sha256",
                                             "/state",
                                             "/kv/0",
                                             "/kv/2",
                                             "/kv",
                                             NULL};

const fuzz_h5_names *set_names(set_file file) {
    static const fuzz_h5_names names[SET_FILES] = {{head_attributes, state_objects},
                                                   {source_attributes, source_objects},
                                                   {source_attributes, source_objects},
                                                   {joined_attributes, joined_objects}};
    return &names[file];
}

/* ---- the caches ---- */

static char type[] = "f16";
static saf_kv_sequence sequences[] = {{0, 0, 3}, {2, 0, 5}};
static saf_kv_source sources[] = {{.rank = 0, .layers = 2, .heads = SET_HEADS},
                                  {.rank = 1, .layer0 = 2, .layers = 1, .heads = SET_HEADS}};
const saf_kv_saved set_saved = {type, SET_LAYERS, SET_HEADS, SET_ROW_BYTES,
                                2,    2,          sequences, sources};

static void make_caches(const char *checkpoint) {
    static const uint8_t rows[8 * SET_ROW_BYTES] = {1, 2, 3};
    for (int i = 0; i < 2; i++) {
        saf_kv_writer *w = NULL;
        saf_kv_source *s = &sources[i];
        FUZZ_CHECK(saf_kv_create(checkpoint, &set_saved, s, &w) == SAF_OK);
        for (int64_t k = 0; k < 4 * s->layers * s->heads; k++) {
            const saf_kv_place p = {
                k % 2, s->layer0 + k / 4 / s->heads, k / 4 % s->heads, k % 4 >= 2,
                0,     sequences[k % 2].positions};
            FUZZ_CHECK(saf_kv_put(w, &p, rows) == SAF_OK);
        }
        FUZZ_CHECK(saf_kv_commit(w, &s->bytes, s->sha256) == SAF_OK);
        saf_kv_writer_free(&w);
    }
    FUZZ_CHECK(saf_kv_join(checkpoint, &set_saved) == SAF_OK);
}

/* ---- the checkpoint ---- */

void set_head(saf_checkpoint_head *out) {
    static char kind[] = "generate", model[] = "seed", version[] = "0",
                time[] = "2026-01-31T12:00:00Z";
    *out = (saf_checkpoint_head){.kind = kind,
                                 .model_name = model,
                                 .version = version,
                                 .start_time = time,
                                 .written = time,
                                 .done = 1,
                                 .total = SET_REQUESTS,
                                 .tokens = 5,
                                 .seconds = 1.5,
                                 .resumes = 1};
    FUZZ_CHECK(saf_identity_add(&out->identity, "job", "generate") == SAF_OK);
    FUZZ_CHECK(saf_identity_add(&out->identity, "generate.max_tokens", "6") == SAF_OK);
    FUZZ_CHECK(saf_identity_add(&out->identity, "input", "\xC3\xA9") == SAF_OK);
}

/* One request that is done and one on its way; the third has nothing yet. */
static const saf__kept kept[] = {{.row = 0,
                                  .tokens = 3,
                                  .text_bytes = 4,
                                  .logprobs = 3,
                                  .logits_rows = 3,
                                  .end = SAF__ENDED_EOS,
                                  .fault_layer = -1,
                                  .fault_position = -1,
                                  .given = 1,
                                  .admitted_s = 0.5,
                                  .first_s = 1,
                                  .last_s = 2},
                                 {.row = 2,
                                  .tokens = 2,
                                  .logprobs = 2,
                                  .logits_rows = 2,
                                  .end = SAF__ENDED_NOT,
                                  .fault_layer = -1,
                                  .fault_position = -1,
                                  .given = 2,
                                  .admitted_s = 0.5,
                                  .first_s = 1,
                                  .last_s = 2}};
enum { KEPT = sizeof kept / sizeof *kept, TOKENS = 5 };

static void put(saf_checkpoint_writer *w, const char *name, saf_dtype dtype, int64_t n,
                const void *data) {
    FUZZ_CHECK(saf_checkpoint_put(w, name, dtype, n, data) == SAF_OK);
}

static void put_state(saf_checkpoint_writer *w, int32_t vocab) {
    static const int32_t ids[TOKENS * SET_TOP] = {65, 66, 67, 68, 69, 70, 71, 72, 73, 74};
    static const float logprobs[TOKENS * SET_TOP] = {-1, -2, -3, -4, -5, -6, -7, -8, -9, -10};
    float *logits = NULL;
    for (int i = 0; i < SAF__N_COLUMNS; i++) {
        const saf__column *c = &saf__columns[i];
        size_t each = (size_t)saf_dtype_block_bytes(c->dtype);
        char values[KEPT * sizeof(int64_t)];
        for (size_t k = 0; k < KEPT; k++)
            memcpy(values + k * each, (const char *)&kept[k] + c->offset, each);
        put(w, c->name, c->dtype, KEPT, values);
    }
    put(w, "tokens", SAF_DTYPE_I32, TOKENS, ids);
    put(w, "text", SAF_DTYPE_U8, 4, "abc\n");
    put(w, "logprobs", SAF_DTYPE_F32, TOKENS, logprobs);
    put(w, "top_ids", SAF_DTYPE_I32, TOKENS * SET_TOP, ids);
    put(w, "top_logprobs", SAF_DTYPE_F32, TOKENS * SET_TOP, logprobs);
    FUZZ_CHECK(saf_alloc((size_t)vocab * TOKENS, sizeof *logits, &logits) == SAF_OK);
    put(w, SAF__LOGITS, SAF_DTYPE_F32, (int64_t)vocab * TOKENS, logits);
    saf_free(&logits);
}

static saf_buf bytes[SET_FILES];

static void keep(const char *path, saf_buf *out) {
    char piece[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;)
        FUZZ_CHECK(saf_buf_append(out, piece, (size_t)n) == SAF_OK);
    close(fd);
}

void set_make(const char *output, int32_t vocab) {
    saf_checkpoint_head head;
    saf_checkpoint_writer *w = NULL;
    saf_buf checkpoint = {0}, path = {0};
    set_head(&head);
    FUZZ_CHECK(saf_checkpoints_remove(output) == SAF_OK);
    FUZZ_CHECK(saf_checkpoint_create(output, &head, &w) == SAF_OK);
    put_state(w, vocab);
    FUZZ_CHECK(saf_checkpoint_commit(w, NULL) == SAF_OK);
    saf_checkpoint_writer_free(&w);
    FUZZ_CHECK(saf_buf_printf(&checkpoint, "%s.ckpt-1", output) == SAF_OK);
    make_caches(checkpoint.data);
    for (int i = 0; i < SET_FILES; i++) {
        saf_buf_clear(&path);
        FUZZ_CHECK(saf_buf_printf(&path, "%s%s", checkpoint.data, set_endings[i]) == SAF_OK);
        keep(path.data, &bytes[i]);
    }
    FUZZ_CHECK(saf_checkpoints_remove(output) == SAF_OK);
    saf_identity_free(&head.identity);
    saf_buf_free(&checkpoint);
    saf_buf_free(&path);
}

const saf_buf *set_bytes(set_file file) {
    return &bytes[file];
}
