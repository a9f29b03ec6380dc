/* Tokenizers against ids that the models' own tokenizers gave, and back from ids to text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

#define VOCAB "../shared/vocab/"
#define STORIES "jobs/models/stories260K.gguf"
#define NEED(path)                                            \
    do {                                                      \
        if (access(path, R_OK)) {                             \
            print_message("# no %s on this machine\n", path); \
            skip();                                           \
        }                                                     \
    } while (0)

static const char *const vocabularies[] = {"llama-spm", "gpt-2", "qwen2", "llama-bpe"};
enum { VOCABULARIES = 4 };

typedef struct {
    saf_gguf *g;
    saf_tokenizer *t;
} model;

static model open_ok(const char *path) {
    model m = {0};
    if (saf_gguf_open(path, &m.g) != SAF_OK) fail_msg("%s: %s", path, saf_error_text());
    if (saf_tokenizer_new(m.g, &m.t) != SAF_OK) fail_msg("%s: %s", path, saf_error_text());
    return m;
}

static model open_vocab(const char *name) {
    char path[256];
    snprintf(path, sizeof path, VOCAB "%s.gguf", name);
    return open_ok(path);
}

static void close_model(model *m) {
    saf_tokenizer_free(&m->t);
    saf_gguf_close(&m->g);
}

static saf_buf read_ok(const char *path) {
    saf_buf b = {0};
    if (saf_file_read(path, 1 << 30, &b) != SAF_OK) fail_msg("%s", saf_error_text());
    return b;
}

static saf_ids encode_ok(saf_tokenizer *t, const char *text, size_t len, bool bos, bool special) {
    saf_ids ids = {0};
    if (saf_tokenizer_encode(t, text, len, bos, special, &ids) != SAF_OK)
        fail_msg("%s", saf_error_text());
    return ids;
}

static void print_ids(const char *what, const int32_t *ids, int64_t n) {
    print_message("# %s:", what);
    for (int64_t i = 0; i < n; i++) print_message(" %d", ids[i]);
    print_message("\n");
}

static bool same_ids(const saf_ids *a, const int32_t *b, int64_t n) {
    return a->len == n && (n == 0 || memcmp(a->data, b, (size_t)n * sizeof *b) == 0);
}

/* Numbers up to the end of the line; *at moves behind it. */
static saf_ids parse_line(const char **at) {
    saf_ids ids = {0};
    while (**at && **at != '\n') {
        char *end;
        long id = strtol(*at, &end, 10);
        if (end == *at) break;
        assert_int_equal(saf_ids_append(&ids, (int32_t)id), SAF_OK);
        *at = end;
        while (**at == ' ' || **at == '\r') ++*at;
    }
    if (**at == '\n') ++*at;
    return ids;
}

static void check_vectors(const char *name) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[256];
    model m = open_vocab(name);
    snprintf(path, sizeof path, VOCAB "%s.inp", name);
    saf_buf in = read_ok(path);
    snprintf(path, sizeof path, VOCAB "%s.out", name);
    saf_buf out = read_ok(path);
    const char *line = out.data;
    int cases = 0, wrong = 0;
    for (const char *text = in.data, *end; (end = strstr(text, mark));
         text = end + sizeof mark - 1) {
        saf_ids want = parse_line(&line);
        saf_ids got = encode_ok(m.t, text, (size_t)(end - text), false, false);
        if (!same_ids(&got, want.data, want.len)) {
            print_message("# %s, case %d: \"%.*s\"\n", name, cases, (int)(end - text), text);
            print_ids("expected", want.data, want.len);
            print_ids("got     ", got.data, got.len);
            wrong++;
        }
        saf_ids_free(&want);
        saf_ids_free(&got);
        cases++;
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(cases, 46);
    saf_buf_free(&in);
    saf_buf_free(&out);
    close_model(&m);
}

static void test_tokenizer_gives_the_published_ids(void **state) {
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    for (int i = 0; i < VOCABULARIES; i++) check_vectors(vocabularies[i]);
}

/* Ids of a model that was trained with them: what they say, tokenized again, is the same ids. */
static void test_tokenizer_agrees_with_the_ids_of_a_trained_model(void **state) {
    (void)state;
    model m = open_ok(STORIES);
    saf_buf file = read_ok("tests/data/stories260K.tokens.txt"), text = {0};
    const char *at = file.data;
    saf_ids want = parse_line(&at);
    assert_true(want.len > 50);
    assert_int_equal(want.data[0], saf_tokenizer_bos(m.t));
    assert_int_equal(saf_tokenizer_decode(m.t, want.data, want.len, false, &text), SAF_OK);
    assert_ptr_equal(strstr(text.data, "Once upon a time"), text.data);
    saf_ids got = encode_ok(m.t, text.data, text.len, true, false);
    if (!same_ids(&got, want.data, want.len)) {
        print_ids("expected", want.data, want.len);
        print_ids("got     ", got.data, got.len);
        fail();
    }
    saf_ids_free(&want);
    saf_ids_free(&got);
    saf_buf_free(&file);
    saf_buf_free(&text);
    close_model(&m);
}

/* ---- there and back ---------------------------------------------------------------------------
 */

static void check_round_trip(saf_tokenizer *t, const char *what, const char *text, size_t len) {
    saf_ids ids = encode_ok(t, text, len, true, false);
    saf_buf back = {0};
    assert_int_equal(saf_tokenizer_decode(t, ids.data, ids.len, false, &back), SAF_OK);
    if (back.len != len || (len && memcmp(back.data, text, len) != 0)) {
        print_message("# %s: \"%.*s\"\n# came back as \"%s\"\n", what, (int)(len < 200 ? len : 200),
                      text, back.data ? back.data : "");
        print_ids("ids", ids.data, ids.len < 100 ? ids.len : 100);
        fail();
    }
    saf_ids_free(&ids);
    saf_buf_free(&back);
}

static void test_tokenizer_gives_a_book_back(void **state) {
    static const char *const books[] = {"bryant-stories", "burgess-busterbrown", "carroll-alice",
                                        "grimm"};
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    NEED("../shared/corpus/grimm.txt");
    for (int v = 0; v < VOCABULARIES; v++) {
        model m = open_vocab(vocabularies[v]);
        for (size_t i = 0; i < sizeof books / sizeof books[0]; i++) {
            char path[256];
            snprintf(path, sizeof path, "../shared/corpus/%s.txt", books[i]);
            saf_buf text = read_ok(path);
            check_round_trip(m.t, vocabularies[v], text.data, text.len);
            saf_buf_free(&text);
        }
        close_model(&m);
    }
}

/* A random text: runs from a few alphabets, so that words, numbers, space and rarities meet. */
static void random_text(uint64_t seed, saf_buf *out) {
    static const struct {
        uint32_t from, to;
    } ranges[] = {{'a', 'z'},        {'A', 'Z'},       {'0', '9'},       {' ', ' '},
                  {' ', '/'},        {'\t', '\r'},     {1, 0x7f},        {0x80, 0xff},
                  {0x300, 0x36f},    {0x370, 0x3ff},   {0x400, 0x4ff},   {0x600, 0x6ff},
                  {0x900, 0x97f},    {0x1680, 0x180f}, {0x2000, 0x206f}, {0x3000, 0x30ff},
                  {0x4e00, 0x9fff},  {0xac00, 0xd7a3}, {0xe000, 0xffff}, {0x10000, 0x10ffff},
                  {0x1f300, 0x1f9ff}};
    enum { RANGES = sizeof ranges / sizeof ranges[0] };
    uint32_t r[4];
    uint64_t n = 0;
    saf_buf_clear(out);
    saf_philox(seed, 0, n++, r);
    uint32_t runs = r[0] % 20;
    for (uint32_t i = 0; i < runs; i++) {
        saf_philox(seed, 1, n++, r);
        uint32_t range = r[0] % RANGES, chars = 1 + r[1] % (r[2] % 4 ? 4 : 40);
        for (uint32_t k = 0; k < chars; k++) {
            saf_philox(seed, 2, n++, r);
            uint32_t c = ranges[range].from + r[0] % (ranges[range].to - ranges[range].from + 1);
            char utf8[4];
            int len = c == 0x2581 ? 0 : saf_utf8_encode(c, utf8);
            assert_int_equal(saf_buf_append(out, utf8, (size_t)len), SAF_OK);
        }
    }
}

static void test_tokenizer_gives_random_texts_back(void **state) {
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    saf_buf text = {0};
    for (int v = 0; v < VOCABULARIES; v++) {
        model m = open_vocab(vocabularies[v]);
        for (uint64_t seed = 0; seed < 1500; seed++) {
            random_text(seed, &text);
            check_round_trip(m.t, vocabularies[v], text.data ? text.data : "", text.len);
        }
        close_model(&m);
    }
    saf_buf_free(&text);
}

static void test_tokenizer_gives_nasty_texts_back(void **state) {
    static const struct {
        const char *text;
        size_t len;
    } nasty[] = {
#define TEXT(s) {s, sizeof s - 1}
        TEXT(""),
        TEXT("\0"),
        TEXT("a\0b\0\0c"),
        TEXT(" "),
        TEXT("  leading and trailing  "),
        TEXT("\r\n\r\n \r\n\t\n"),
        TEXT("<s></s><unk><0x0A><0x41>"), /* plain text here, not tokens */
        TEXT("<|endoftext|><|im_start|>user<|im_end|><|eot_id|><|begin_of_text|>"),
        TEXT("\xc2\x85\xc2\xa0\xe1\x9a\x80\xe1\xa0\x8e\xe2\x80\xa8\xe3\x80\x80x"),
        TEXT("\xef\xbb\xbf"
             "byte order mark"),
        TEXT("\xf4\x8f\xbf\xbf\xef\xbf\xbf\xef\xbf\xbe"),
        TEXT("e\xcc\x81\xcc\x81\xcc\x81 \xcc\x81"),
        TEXT("'\xc5\xbf 'S 'LL ''"),
        TEXT("\xf0\x9f\x98\xb6\xe2\x80\x8d\xf0\x9f\x8c\xab\xef\xb8\x8f"),
        TEXT("\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 123\xd9\xa3\xd9\xa4"),
        TEXT("\xc4\xa0\xc4\x8a"), /* what bytes look like inside a byte-level vocabulary */
#undef TEXT
    };
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    for (int v = 0; v < VOCABULARIES; v++) {
        model m = open_vocab(vocabularies[v]);
        for (size_t i = 0; i < sizeof nasty / sizeof nasty[0]; i++)
            check_round_trip(m.t, vocabularies[v], nasty[i].text, nasty[i].len);
        close_model(&m);
    }
}

/* A megabyte of one word, of one character, of spaces: work grows with the length, not its square
 * (which would take hours). */
static void test_tokenizer_takes_long_runs(void **state) {
    static const char *const units[] = {"a",   " ",   "ab", "\n", "7", "-",       "\xe4\xb8\xad",
                                        " \n", "\t ", "A",  "'",  "<", "\xcc\x81"};
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    saf_buf text = {0};
    for (int v = 0; v < VOCABULARIES; v++) {
        model m = open_vocab(vocabularies[v]);
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
            size_t bytes = i < 3 ? 1 << 20 : 1 << 17;
            saf_buf_clear(&text);
            while (text.len < bytes)
                assert_int_equal(saf_buf_append(&text, units[i], strlen(units[i])), SAF_OK);
            check_round_trip(m.t, vocabularies[v], text.data, text.len);
        }
        close_model(&m);
    }
    saf_buf_free(&text);
}

/* ---- special tokens ---------------------------------------------------------------------------
 */

static int32_t find_ok(const saf_tokenizer *t, const char *text) {
    int32_t id = saf_tokenizer_find(t, text, strlen(text));
    if (id < 0) fail_msg("no token \"%s\"", text);
    return id;
}

static void test_tokenizer_takes_special_text_only_when_told(void **state) {
    static const char text[] = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>";
    (void)state;
    NEED(VOCAB "qwen2.gguf");
    model m = open_vocab("qwen2");
    saf_buf back = {0};
    int32_t start = find_ok(m.t, "<|im_start|>"), end = find_ok(m.t, "<|im_end|>");
    int32_t want[] = {start, 872, 198, 13048, end, 198, start}; /* user, newline, Hi */
    saf_ids ids = encode_ok(m.t, text, sizeof text - 1, true, true);
    if (!same_ids(&ids, want, 7)) {
        print_ids("expected", want, 7);
        print_ids("got     ", ids.data, ids.len);
        fail();
    }
    assert_int_equal(saf_tokenizer_decode(m.t, ids.data, ids.len, true, &back), SAF_OK);
    assert_string_equal(back.data, text);
    saf_buf_clear(&back);
    assert_int_equal(saf_tokenizer_decode(m.t, ids.data, ids.len, false, &back), SAF_OK);
    assert_string_equal(back.data, "user\nHi\n");
    ids.len = 0;
    assert_int_equal(saf_tokenizer_encode(m.t, text, sizeof text - 1, true, false, &ids), SAF_OK);
    for (int64_t i = 0; i < ids.len; i++) assert_true(ids.data[i] != start && ids.data[i] != end);
    saf_ids_free(&ids);
    saf_buf_free(&back);
    close_model(&m);
}

static void test_tokenizer_knows_what_begins_and_ends(void **state) {
    static const struct {
        const char *name;
        int32_t bos, eos;
        bool adds_bos;
        const char *ends[3], *others[2];
    } files[] = {
        {"llama-spm", 1, 2, true, {"</s>"}, {"<s>", "<unk>"}},
        {"gpt-2", 50256, 50256, false, {"<|endoftext|>"}, {"!"}},
        {"qwen2", 151643, 151645, false, {"<|im_end|>", "<|endoftext|>"}, {"<|im_start|>"}},
        {"llama-bpe",
         128000,
         128009,
         true,
         {"<|eot_id|>", "<|end_of_text|>"},
         {"<|begin_of_text|>", "<|start_header_id|>"}},
    };
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    for (int v = 0; v < VOCABULARIES; v++) {
        model m = open_vocab(files[v].name);
        assert_int_equal(saf_tokenizer_bos(m.t), files[v].bos);
        assert_int_equal(saf_tokenizer_eos(m.t), files[v].eos);
        assert_int_equal(saf_tokenizer_adds_bos(m.t), files[v].adds_bos);
        assert_false(saf_tokenizer_adds_eos(m.t));
        for (int i = 0; i < 3 && files[v].ends[i]; i++)
            assert_true(saf_tokenizer_is_end(m.t, find_ok(m.t, files[v].ends[i])));
        for (int i = 0; i < 2 && files[v].others[i]; i++)
            assert_false(saf_tokenizer_is_end(m.t, find_ok(m.t, files[v].others[i])));
        assert_false(saf_tokenizer_is_end(m.t, -1));
        assert_false(saf_tokenizer_is_end(m.t, saf_tokenizer_vocab(m.t)));
        saf_ids empty = encode_ok(m.t, "", 0, true, false);
        assert_int_equal(empty.len, files[v].adds_bos);
        if (empty.len) assert_int_equal(empty.data[0], files[v].bos);
        saf_ids_free(&empty);
        close_model(&m);
    }
}

static void test_tokenizer_refuses_what_it_cannot_take(void **state) {
    (void)state;
    NEED(VOCAB "qwen2.gguf");
    model m = open_vocab("qwen2");
    saf_ids ids = {0};
    saf_buf out = {0};
    assert_int_equal(saf_ids_append(&ids, 7), SAF_OK);
    assert_int_equal(saf_tokenizer_encode(m.t, "ab\xffz", 4, true, true, &ids), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "byte 2"));
    assert_int_equal(saf_tokenizer_encode(m.t, "ab\xe4\xb8", 4, true, true, &ids), SAF_BAD_INPUT);
    assert_int_equal(ids.len, 1); /* nothing was added */
    assert_int_equal(saf_tokenizer_piece(m.t, -1, false, false, &out), SAF_BAD_INPUT);
    assert_int_equal(saf_tokenizer_piece(m.t, saf_tokenizer_vocab(m.t), false, false, &out),
                     SAF_BAD_INPUT);
    int32_t bad[] = {0, 1, 999999};
    assert_int_equal(saf_tokenizer_decode(m.t, bad, 3, false, &out), SAF_BAD_INPUT);
    assert_int_equal(out.len, 0);
    saf_ids_free(&ids);
    saf_buf_free(&out);
    close_model(&m);
}

/* A text cut at any character decodes in pieces to the same bytes: what a stream shows. */
static void test_tokenizer_pieces_join(void **state) {
    static const char text[] =
        " \xf0\x9f\xa6\x99 na\xc3\xafve caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87";
    (void)state;
    NEED(VOCAB "llama-spm.gguf");
    for (int v = 0; v < VOCABULARIES; v++) {
        model m = open_vocab(vocabularies[v]);
        saf_ids ids = encode_ok(m.t, text, sizeof text - 1, false, false);
        saf_buf out = {0};
        for (int64_t i = 0; i < ids.len; i++)
            assert_int_equal(saf_tokenizer_piece(m.t, ids.data[i], i == 0, false, &out), SAF_OK);
        assert_string_equal(out.data, text);
        saf_ids_free(&ids);
        saf_buf_free(&out);
        close_model(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_gives_the_published_ids),
        cmocka_unit_test(test_tokenizer_agrees_with_the_ids_of_a_trained_model),
        cmocka_unit_test(test_tokenizer_gives_a_book_back),
        cmocka_unit_test(test_tokenizer_gives_random_texts_back),
        cmocka_unit_test(test_tokenizer_gives_nasty_texts_back),
        cmocka_unit_test(test_tokenizer_takes_long_runs),
        cmocka_unit_test(test_tokenizer_takes_special_text_only_when_told),
        cmocka_unit_test(test_tokenizer_knows_what_begins_and_ends),
        cmocka_unit_test(test_tokenizer_refuses_what_it_cannot_take),
        cmocka_unit_test(test_tokenizer_pieces_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
