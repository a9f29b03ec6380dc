/* GGUF files made by others: everything the format's own tools wrote is read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

#define STORIES "jobs/models/stories260K.gguf"
#define NEED(path)                                            \
    do {                                                      \
        if (access(path, R_OK)) {                             \
            print_message("# no %s on this machine\n", path); \
            skip();                                           \
        }                                                     \
    } while (0)

static saf_gguf *open_ok(const char *path) {
    saf_gguf *g = NULL;
    if (saf_gguf_open(path, &g) != SAF_OK) fail_msg("%s: %s", path, saf_error_text());
    return g;
}

/* Counts by a reader written from the specification alone, in another language. */
static void test_gguf_opens_every_file(void **state) {
    static const struct {
        const char *path;
        int version, keys, tensors;
        long header;
    } files[] = {
        {STORIES, 3, 22, 48, 14242},
        {"../shared/models/tiny-llama-Q4_K_M.gguf", 3, 24, 30, 181550},
        {"../shared/models/tiny-llama-Q5_0.gguf", 3, 24, 30, 181550},
        {"../shared/models/tiny-qwen2-BF16.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-F16.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q2_K.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q3_K_M.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q4_1.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q4_K_S.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q5_0.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q5_1.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q5_K_M.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-Q8_0.gguf", 3, 24, 38, 125720},
        {"../shared/models/tiny-qwen2-f32.gguf", 3, 23, 38, 125676},
        {"../shared/models/tiny-qwen3-Q4_0.gguf", 3, 24, 47, 126310},
        {"../shared/models/tiny-qwen3-Q4_K_M.gguf", 3, 24, 47, 126310},
        {"../shared/models/tiny-qwen3-Q6_K.gguf", 3, 24, 47, 126310},
        {"../shared/models/tiny-qwen3-Q8_0.gguf", 3, 24, 47, 126310},
        {"../shared/vocab/gpt-2.gguf", 3, 16, 0, 1766807},
        {"../shared/vocab/llama-bpe.gguf", 3, 19, 0, 7818118},
        {"../shared/vocab/llama-spm.gguf", 3, 22, 0, 723869},
        {"../shared/vocab/qwen2.gguf", 3, 19, 0, 5922227},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        NEED(files[i].path);
        saf_gguf *g = open_ok(files[i].path);
        assert_int_equal(saf_gguf_version(g), files[i].version);
        assert_int_equal(saf_gguf_key_count(g), files[i].keys);
        assert_int_equal(saf_gguf_tensor_count(g), files[i].tensors);
        assert_int_equal(saf_gguf_parts(g), 1);
        for (int64_t t = 0; t < files[i].tensors; t++) {
            const saf_gguf_tensor *tensor = saf_gguf_tensor_at(g, t);
            assert_ptr_equal(saf_gguf_tensor_find(g, tensor->name), tensor);
            if (t == 0) assert_int_equal(tensor->offset, (files[i].header + 31) / 32 * 32);
        }
        saf_gguf_close(&g);
        assert_null(g);
    }
}

static void test_gguf_values_of_stories(void **state) {
    bool found, flag;
    int64_t n, v = -7;
    double x;
    const char *text;
    size_t len;
    saf_gguf_kind kind, element;
    (void)state;
    saf_gguf *g = open_ok(STORIES);
    assert_string_equal(saf_gguf_path(g), STORIES);
    assert_int_equal(saf_gguf_file_bytes(g), 1185472);
    assert_int_equal(saf_gguf_get_i64(g, "llama.feed_forward_length", &found, &v), SAF_OK);
    assert_true(found);
    assert_int_equal(v, 172);
    assert_int_equal(saf_gguf_get_i64(g, "llama.nothing", &found, &v), SAF_OK);
    assert_false(found);
    assert_int_equal(v, 172);
    assert_int_equal(saf_gguf_get_f64(g, "llama.rope.freq_base", &found, &x), SAF_OK);
    assert_true(x == 10000.0);
    assert_int_equal(saf_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &found, &flag), SAF_OK);
    assert_true(found && flag);
    assert_int_equal(saf_gguf_get_string(g, "general.license", &found, &text, &len), SAF_OK);
    assert_true(len == 3 && memcmp(text, "mit", 3) == 0);
    assert_int_equal(saf_gguf_get_array(g, "tokenizer.ggml.tokens", &found, &element, &n), SAF_OK);
    assert_int_equal(element, SAF_GGUF_STRING);
    assert_int_equal(n, 512);
    saf_gguf_array_string(g, "tokenizer.ggml.tokens", 3, &text, &len);
    assert_true(len == 6 && memcmp(text, "<0x00>", 6) == 0);
    saf_gguf_array_string(g, "tokenizer.ggml.tokens", 512, &text, &len);
    assert_int_equal(len, 0);
    assert_int_equal(saf_gguf_array_i64(g, "tokenizer.ggml.token_type", 3), 6);
    assert_true(saf_gguf_array_f64(g, "tokenizer.ggml.scores", 511) < 0);
    assert_string_equal(saf_gguf_key(g, 0, &kind, &element, &n), "general.architecture");
    assert_true(kind == SAF_GGUF_STRING && element == SAF_GGUF_KINDS && n == 1);
    assert_null(saf_gguf_key(g, 22, &kind, &element, &n));
    assert_int_equal(saf_gguf_get_i64(g, "general.license", &found, &v), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "\"general.license\" is string, expected an integer"));
    assert_int_equal(saf_gguf_get_f64(g, "general.file_type", &found, &x), SAF_BAD_INPUT);
    assert_int_equal(saf_gguf_get_bool(g, "general.file_type", &found, &flag), SAF_BAD_INPUT);
    assert_int_equal(saf_gguf_get_array(g, "general.file_type", &found, &element, &n),
                     SAF_BAD_INPUT);
    assert_int_equal(saf_gguf_get_string(g, "general.file_type", &found, &text, &len),
                     SAF_BAD_INPUT);
    saf_gguf_close(&g);
}

static void test_gguf_tensors_of_stories(void **state) {
    float row[64];
    (void)state;
    saf_gguf *g = open_ok(STORIES);
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, "blk.0.ffn_down.weight");
    assert_non_null(t);
    assert_int_equal(t->ndim, 2);
    assert_int_equal(t->shape[0], 172);
    assert_int_equal(t->shape[1], 64);
    assert_int_equal(t->dtype, SAF_DTYPE_F32);
    assert_int_equal(t->bytes, 172 * 64 * 4);
    assert_int_equal(t->offset, 14272 + 224768);
    assert_null(saf_gguf_tensor_find(g, "blk.0.ffn_down"));
    assert_null(saf_gguf_tensor_at(g, 48));
    t = saf_gguf_tensor_find(g, "blk.0.attn_norm.weight");
    assert_int_equal(saf_gguf_tensor_read(g, t, 0, t->bytes, row), SAF_OK);
    for (int i = 0; i < 64; i++) assert_true(row[i] > 0 && row[i] < 10);
    assert_int_equal(saf_gguf_tensor_read(g, t, t->bytes - 3, 4, row), SAF_DEFECT);
    saf_gguf_close(&g);
}

static void test_gguf_drop_keys_keeps_tensors(void **state) {
    uint8_t before[32], after[32];
    bool found;
    int64_t v;
    float row[64];
    (void)state;
    saf_gguf *g = open_ok(STORIES);
    assert_int_equal(saf_gguf_header_sha256(g, before), SAF_OK);
    saf_gguf_drop_keys(g);
    assert_int_equal(saf_gguf_header_sha256(g, after), SAF_OK);
    assert_memory_equal(before, after, 32);
    assert_int_equal(saf_gguf_key_count(g), 0);
    assert_false(saf_gguf_has(g, "general.name"));
    assert_int_equal(saf_gguf_get_i64(g, "llama.block_count", &found, &v), SAF_OK);
    assert_false(found);
    const saf_gguf_tensor *t = saf_gguf_tensor_find(g, "blk.0.attn_norm.weight");
    assert_int_equal(saf_gguf_tensor_read(g, t, 0, sizeof row, row), SAF_OK);
    saf_gguf_drop_keys(g);
    saf_gguf_close(&g);
}

static void test_gguf_header_sha256_is_of_the_bytes(void **state) {
    uint8_t sha[32], expected[32];
    saf_buf file = {0};
    (void)state;
    saf_gguf *g = open_ok(STORIES);
    assert_int_equal(saf_file_read(STORIES, 1 << 22, &file), SAF_OK);
    assert_int_equal(saf_sha256_of(file.data, saf_gguf_tensor_at(g, 0)->offset, expected), SAF_OK);
    assert_int_equal(saf_gguf_header_sha256(g, sha), SAF_OK);
    assert_memory_equal(sha, expected, 32);
    saf_buf_free(&file);
    saf_gguf_close(&g);
}

static void test_gguf_missing_file(void **state) {
    saf_gguf *g = NULL;
    (void)state;
    assert_int_equal(saf_gguf_open("tests/no-such-file.gguf", &g), SAF_NO_INPUT);
    assert_non_null(strstr(saf_error_text(), "tests/no-such-file.gguf"));
    assert_int_equal(saf_gguf_open("tests", &g), SAF_NO_INPUT);
    assert_null(g);
    saf_gguf_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_opens_every_file),
        cmocka_unit_test(test_gguf_values_of_stories),
        cmocka_unit_test(test_gguf_tensors_of_stories),
        cmocka_unit_test(test_gguf_drop_keys_keeps_tensors),
        cmocka_unit_test(test_gguf_header_sha256_is_of_the_bytes),
        cmocka_unit_test(test_gguf_missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
