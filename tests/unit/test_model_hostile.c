/* Bad model files whose header is right as GGUF: what they say about a model or a tokenizer is not.
 * Each is refused as a bad file, with its name and what is wrong. And files that are large for
 * nothing: they take no more memory than they may. */
#include <math.h>
#include <sys/wait.h>

#include "unit/changed_model.h"

#define A(suffix) "llama." suffix
#define T(suffix) "tokenizer.ggml." suffix

static const struct {
    const char *message;
    change c;
} table[] = {
    /* numbers of the architecture */
    {"head_count\" is 0, expected 1", {.add = {{ADD_INT, A("attention.head_count"), .number = 0}}}},
    {"head_count\" is -4, expected 1",
     {.add = {{ADD_INT, A("attention.head_count"), .number = -4}}}},
    {"head_count\" is 1099511627776",
     {.add = {{ADD_INT, A("attention.head_count"), .number = 0x1p40}}}},
    {"head_count\" is f32, expected an integer",
     {.add = {{ADD_FLOAT, A("attention.head_count"), .number = 4}}}},
    {"head_count\" is bool, expected an integer",
     {.add = {{ADD_BOOL, A("attention.head_count"), .number = 1}}}},
    {"head_count\" differs from layer to layer",
     {.add = {{ADD_INTS, A("attention.head_count"), .number = 4, .spread = 4}}}},
    {"5 heads cannot share 2 key-value heads",
     {.add = {{ADD_INT, A("attention.head_count"), .number = 5}}}},
    {"head_count_kv\" is 0, expected 1",
     {.add = {{ADD_INT, A("attention.head_count_kv"), .number = 0}}}},
    {"head_count_kv\" is -2, expected 1",
     {.add = {{ADD_INT, A("attention.head_count_kv"), .number = -2}}}},
    {"embedding_length\" is 0, expected 1",
     {.add = {{ADD_INT, A("embedding_length"), .number = 0}}}},
    {"embedding_length\" is -64, expected 1",
     {.add = {{ADD_INT, A("embedding_length"), .number = -64}}}},
    {"embedding_length\" is 16777217",
     {.add = {{ADD_INT, A("embedding_length"), .number = 16777217}}}},
    {"\"token_embd.weight\" is 64 x 257 x 1 x 1, expected 65 x 257",
     {.add = {{ADD_INT, A("embedding_length"), .number = 65}}}},
    {"feed_forward_length\" is 0, expected 1",
     {.add = {{ADD_INT, A("feed_forward_length"), .number = 0}}}},
    {"feed_forward_length\" is 4611686018427387904",
     {.add = {{ADD_INT, A("feed_forward_length"), .number = 0x1p62}}}},
    {"\"blk.0.ffn_gate.weight\" is 64 x 96 x 1 x 1, expected 64 x 97",
     {.add = {{ADD_INT, A("feed_forward_length"), .number = 97}}}},
    {"context_length\" is 0, expected 1", {.add = {{ADD_INT, A("context_length"), .number = 0}}}},
    {"context_length\" is -1, expected 1", {.add = {{ADD_INT, A("context_length"), .number = -1}}}},
    {"block_count\" is 65537, expected 1", {.add = {{ADD_INT, A("block_count"), .number = 65537}}}},
    {"block_count\" is f32, expected an integer",
     {.add = {{ADD_FLOAT, A("block_count"), .number = 2}}}},
    {"key_length\" is 0, expected 1", {.add = {{ADD_INT, A("attention.key_length"), .number = 0}}}},
    {"key_length\" is -16, expected 1",
     {.add = {{ADD_INT, A("attention.key_length"), .number = -16}}}},
    {"keys of 15 and values of 16 per head",
     {.add = {{ADD_INT, A("attention.key_length"), .number = 15}}}},
    {"\"blk.0.attn_q.weight\" is 64 x 64 x 1 x 1, expected 64 x 56",
     {.add = {{ADD_INT, A("attention.key_length"), .number = 14},
              {ADD_INT, A("attention.value_length"), .number = 14},
              {ADD_INT, A("rope.dimension_count"), .number = 14}}}},
    {"rms_epsilon\" is -1",
     {.add = {{ADD_FLOAT, A("attention.layer_norm_rms_epsilon"), .number = -1}}}},
    {"rms_epsilon\" is inf",
     {.add = {{ADD_FLOAT, A("attention.layer_norm_rms_epsilon"), .number = INFINITY}}}},
    {"rms_epsilon\" is i64, expected f32",
     {.add = {{ADD_INT, A("attention.layer_norm_rms_epsilon"), .number = 1}}}},
    {"attention.scale\" is nan", {.add = {{ADD_FLOAT, A("attention.scale"), .number = NAN}}}},
    {"attention.scale\" is -1", {.add = {{ADD_FLOAT, A("attention.scale"), .number = -1}}}},
    {"attention.causal\" is i64, expected bool",
     {.add = {{ADD_INT, A("attention.causal"), .number = 1}}}},
    {"expert_count\" is -1, expected 0", {.add = {{ADD_INT, A("expert_count"), .number = -1}}}},
    /* rotary positions */
    {"dimension_count\" is 0, expected 2",
     {.add = {{ADD_INT, A("rope.dimension_count"), .number = 0}}}},
    {"dimension_count\" is -2, expected 2",
     {.add = {{ADD_INT, A("rope.dimension_count"), .number = -2}}}},
    {"freq_base\" is nan", {.add = {{ADD_FLOAT, A("rope.freq_base"), .number = NAN}}}},
    {"freq_base\" is -10000", {.add = {{ADD_FLOAT, A("rope.freq_base"), .number = -10000}}}},
    {"freq_base\" is 1,", {.add = {{ADD_FLOAT, A("rope.freq_base"), .number = 1}}}},
    {"scaling.factor\" is nan", {.add = {{ADD_FLOAT, A("rope.scaling.factor"), .number = NAN}}}},
    {"scaling.factor\" is inf",
     {.add = {{ADD_FLOAT, A("rope.scaling.factor"), .number = INFINITY}}}},
    {"scale_linear\" is -2", {.add = {{ADD_FLOAT, A("rope.scale_linear"), .number = -2}}}},
    {"attn_factor\" is 0", {.add = {{ADD_FLOAT, A("rope.scaling.attn_factor"), .number = 0}}}},
    {"original_context_length\" is -1",
     {.add = {{ADD_INT, A("rope.scaling.original_context_length"), .number = -1}}}},
    {"scaling.type\" is i64, expected string",
     {.add = {{ADD_INT, A("rope.scaling.type"), .number = 1}}}},
    {"yarn_ext_factor\" is 2",
     {.add = {{ADD_STRING, A("rope.scaling.type"), .text = "yarn"},
              {ADD_FLOAT, A("rope.scaling.yarn_ext_factor"), .number = 2}}}},
    {"yarn_beta_fast\" is 0",
     {.add = {{ADD_STRING, A("rope.scaling.type"), .text = "yarn"},
              {ADD_FLOAT, A("rope.scaling.yarn_beta_fast"), .number = 0}}}},
    {"yarn_beta_slow\" is nan",
     {.add = {{ADD_STRING, A("rope.scaling.type"), .text = "yarn"},
              {ADD_FLOAT, A("rope.scaling.yarn_beta_slow"), .number = NAN}}}},
    /* tensors */
    {"\"blk.0.attn_norm.weight\" is missing", {.drop_tensor = "blk.0.attn_norm.weight"}},
    {"\"blk.1.attn_v.weight\" is missing", {.drop_tensor = "blk.1.attn_v.weight"}},
    {"\"blk.0.attn_norm.weight\" is 1 x 64 x 1 x 1, expected 64 x 1",
     {.tensor = "blk.0.attn_norm.weight", .dtype = SAF_DTYPE_F32, .shape = {1, 64}}},
    {"\"token_embd.weight\" is 32 x 257 x 1 x 1, expected 64 x 257",
     {.tensor = "token_embd.weight", .dtype = SAF_DTYPE_F16, .shape = {32, 257}}},
    {"token_embd.weight 1 rows",
     {.tensor = "token_embd.weight", .dtype = SAF_DTYPE_F16, .shape = {257}}},
    {"\"blk.2.attn_q.weight\" is no part of llama",
     {.tensor = "blk.2.attn_q.weight", .dtype = SAF_DTYPE_F16, .shape = {64, 64}}},
    {"\"blk.00.attn_q.weight\" is no part of llama",
     {.tensor = "blk.00.attn_q.weight", .dtype = SAF_DTYPE_F16, .shape = {64, 64}}},
    {"\"blk.0.?31mattn_q\" is no part of llama",
     {.tensor = "blk.0.\xC2\x9B"
                "31mattn_q",
      .dtype = SAF_DTYPE_F32,
      .shape = {64}}},
    /* tokenizer */
    {"tokenizer.ggml.model \"?[2J\" is not supported",
     {.add = {{ADD_STRING, T("model"), .text = "\x1B[2J"}}}},
    {"\"tokenizer.ggml.model\" is i64, expected string",
     {.add = {{ADD_INT, T("model"), .number = 1}}}},
    {"no tokenizer.ggml.model", {.drop_key = T("model")}},
    {"tokenizer.ggml.pre is missing", {.drop_key = T("pre")}},
    {"tokenizer.ggml.pre \"no-such\" is not supported",
     {.add = {{ADD_STRING, T("pre"), .text = "no-such"}}}},
    {"the tokenizer has 3 tokens, but token_embd.weight 257 rows",
     {.add = {{ADD_INTS, T("tokens"), .number = 1}}}},
    {"\"tokenizer.ggml.tokens\" is string, expected array",
     {.add = {{ADD_STRING, T("tokens"), .text = "a"}}}},
    {"tokenizer.ggml.tokens must be 1 to", {.drop_key = T("tokens")}},
    {"token_type must be 257 integers, one a token, not 3",
     {.add = {{ADD_INTS, T("token_type"), .number = 1}}}},
    {"\"tokenizer.ggml.token_type\" is i64, expected array",
     {.add = {{ADD_INT, T("token_type"), .number = 1}}}},
    {"tokenizer.ggml.merges must be up to", {.drop_key = T("merges")}},
    {"tokenizer.ggml.merges must be up to", {.add = {{ADD_INTS, T("merges"), .number = 1}}}},
    {"tokenizer.ggml.scores must be 257 floats",
     {.add = {{ADD_STRING, T("model"), .text = "llama"}}}},
    {"tokenizer.ggml.scores must be 257 floats",
     {.add = {{ADD_STRING, T("model"), .text = "llama"}, {ADD_INTS, T("scores"), .number = 1}}}},
    {"bos_token_id is 257, expected a token below 257",
     {.add = {{ADD_INT, T("bos_token_id"), .number = 257}}}},
    {"bos_token_id is -2,", {.add = {{ADD_INT, T("bos_token_id"), .number = -2}}}},
    {"eos_token_id is 1099511627776,", {.add = {{ADD_INT, T("eos_token_id"), .number = 0x1p40}}}},
    {"eot_token_id is 257,", {.add = {{ADD_INT, T("eot_token_id"), .number = 257}}}},
    {"unknown_token_id\" is string", {.add = {{ADD_STRING, T("unknown_token_id"), .text = "0"}}}},
    {"add_bos_token\" is i64, expected bool",
     {.add = {{ADD_INT, T("add_bos_token"), .number = 1}}}},
    {"add_eos_token is true but there is no EOS token",
     {.add = {{ADD_BOOL, T("add_eos_token"), .number = 1}}, .drop_key = T("eos_token_id")}},
    {"\"tokenizer.chat_template\" is i64, expected string",
     {.add = {{ADD_INT, "tokenizer.chat_template", .number = 1}}}},
};

/* All that a job reads of a model before it loads it. */
static saf_status read_model(const char *name) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    saf_tokenizer *t = NULL;
    saf_chat_family family;
    SAF_TRY(saf_gguf_open(name, &g));
    SAF_TRY(saf_model_params_read(g, &p));
    SAF_TRY(saf_tokenizer_new(g, &t));
    SAF_TRY(saf_chat_family_of(g, &family));
out:
    saf_tokenizer_free(&t);
    saf_model_params_free(&p);
    saf_gguf_close(&g);
    return st;
}

static void test_model_hostile_files_are_refused(void **state) {
    int failures = 0;
    (void)state;
    OK(read_model(base_path));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        write_changed(&table[i].c);
        (void)saf_fail(SAF_FAILED, "no message");
        saf_status st = read_model(path);
        const char *text = saf_error_text();
        if (saf_status_exit_code(st) == 65 && strstr(text, table[i].message) && strstr(text, path))
            continue;
        print_error("status %d, message \"%s\", expected \"%s\"\n", st, text, table[i].message);
        failures++;
    }
    assert_int_equal(failures, 0);
}

#if defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#elif defined __SANITIZE_ADDRESS__
#define SANITIZED 1
#endif

/* ---- files that are large for nothing ---------------------------------------------------------
 */

static saf_buf big;

static void add(const void *bytes, size_t len) {
    OK(saf_buf_append(&big, bytes, len));
}
static void add_number(uint64_t v, size_t bytes) {
    add(&v, bytes);
}
static void add_text(const char *text) {
    add_number(strlen(text), 8);
    add(text, strlen(text));
}
static void begin(uint64_t tensors, uint64_t keys) {
    saf_buf_clear(&big);
    add("GGUF\3\0\0", 8);
    add_number(tensors, 8);
    add_number(keys, 8);
}
static void add_array(const char *key, saf_gguf_kind element, uint64_t n) {
    add_text(key);
    add_number(SAF_GGUF_ARRAY, 4);
    add_number(element, 4);
    add_number(n, 8);
}
static void add_key(const char *key, const char *text) {
    add_text(key);
    add_number(SAF_GGUF_STRING, 4);
    add_text(text);
}

static void many_keys(uint64_t n) {
    char name[16];
    begin(0, n);
    for (uint64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%x", (unsigned)i);
        add_text(name);
        add_number(SAF_GGUF_U8, 4);
        add_number(0, 1);
    }
}

/* One byte of data each, side by side. */
static void many_tensors(uint64_t n) {
    char name[16];
    begin(n, 1);
    add_text("general.alignment");
    add_number(SAF_GGUF_U32, 4);
    add_number(1, 4);
    for (uint64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%x", (unsigned)i);
        add_text(name);
        add_number(1, 4);
        add_number(1, 8);
        add_number(24, 4); /* I8 */
        add_number(i, 8);
    }
    OK(saf_buf_resize(&big, big.len + n));
}

/* Each special, of one letter, and as many merges of one line. */
static void many_tokens(uint64_t n, uint64_t merges) {
    begin(0, 5);
    add_key("tokenizer.ggml.model", "gpt2");
    add_key("tokenizer.ggml.pre", "gpt-2");
    add_array("tokenizer.ggml.tokens", SAF_GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) add_text("a");
    add_array("tokenizer.ggml.token_type", SAF_GGUF_U8, n);
    for (uint64_t i = 0; i < n; i++) add_number(3, 1);
    add_array("tokenizer.ggml.merges", SAF_GGUF_STRING, merges);
    for (uint64_t i = 0; i < merges; i++) add_text("a b");
}

static void write_big(void) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(big.data, 1, big.len, f), big.len);
    assert_int_equal(fclose(f), 0);
    saf_buf_free(&big);
}

/* In a process of its own: does `path` open, with a tokenizer, within 4 times the file and 64 MiB?
 */
static void check_memory(size_t file_bytes, bool tokenizer) {
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        saf_gguf *g = NULL;
        saf_tokenizer *t = NULL;
        size_t before = saf_peak_memory_bytes();
        saf_status st = saf_gguf_open(path, &g);
        if (st == SAF_OK && tokenizer) st = saf_tokenizer_new(g, &t);
        if (st != SAF_OK) (void)fprintf(stderr, "%s\n", saf_error_text());
        size_t grown = saf_peak_memory_bytes() - before;
        if (grown > 4 * file_bytes + (64 << 20))
            (void)fprintf(stderr, "%zu bytes for a file of %zu\n", grown, file_bytes);
        _exit(st != SAF_OK || grown > 4 * file_bytes + (64 << 20));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
#if SANITIZED
    print_message("# sanitized: what memory it takes is not saf's\n");
    skip();
#endif
    assert_int_equal(status, 0);
}

static saf_status read_tokenizer(void) {
    saf_gguf *g = NULL;
    saf_tokenizer *t = NULL;
    OK(saf_gguf_open(path, &g));
    saf_status st = saf_tokenizer_new(g, &t);
    saf_tokenizer_free(&t);
    saf_gguf_close(&g);
    return st;
}

static void test_model_hostile_sizes_take_bounded_memory(void **state) {
    static const uint64_t tokens[][2] = {{1400000, 1400000}, {1 << 21, 0}, {1, 1 << 21}};
    (void)state;
    many_tensors(1 << 20);
    size_t bytes = big.len;
    write_big();
    check_memory(bytes, false);
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        many_tokens(tokens[i][0], tokens[i][1]);
        bytes = big.len;
        write_big();
        check_memory(bytes, true);
    }
}

static void test_model_hostile_counts_are_bounded(void **state) {
    saf_gguf *g = NULL;
    (void)state;
    many_keys(1 << 16);
    write_big();
    OK(saf_gguf_open(path, &g));
    saf_gguf_close(&g);
    many_keys((1 << 16) + 1);
    write_big();
    assert_int_equal(saf_gguf_open(path, &g), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "and 65537 keys, expected at most"));
    many_tensors((1 << 20) + 1);
    write_big();
    assert_int_equal(saf_gguf_open(path, &g), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "claims 1048577 tensors"));
    for (int i = 0; i < 2; i++) {
        many_tokens(i ? 1 : (1 << 21) + 1, i ? (1 << 21) + 1 : 0);
        write_big();
        assert_int_equal(read_tokenizer(), SAF_BAD_INPUT);
        assert_non_null(
            strstr(saf_error_text(), i ? "merges must be up to" : "tokens must be 1 to"));
    }
}

/* A special token is looked for at every place of a text: a long one of the text's own letters
 * would take as many steps at each. */
static void test_model_hostile_special_tokens_are_short(void **state) {
    static char text[258];
    (void)state;
    memset(text, 'a', 257);
    for (int i = 0; i < 2; i++) {
        begin(0, 5);
        add_key("tokenizer.ggml.model", "gpt2");
        add_key("tokenizer.ggml.pre", "gpt-2");
        add_array("tokenizer.ggml.tokens", SAF_GGUF_STRING, 1);
        add_text(text + i);
        add_array("tokenizer.ggml.token_type", SAF_GGUF_U8, 1);
        add_number(4, 1);
        add_array("tokenizer.ggml.merges", SAF_GGUF_STRING, 0);
        write_big();
        assert_int_equal(read_tokenizer(), i ? SAF_OK : SAF_BAD_INPUT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_hostile_files_are_refused),
        cmocka_unit_test(test_model_hostile_sizes_take_bounded_memory),
        cmocka_unit_test(test_model_hostile_counts_are_bounded),
        cmocka_unit_test(test_model_hostile_special_tokens_are_short),
    };
    return cmocka_run_group_tests(tests, make_models, remove_folder);
}
