/* Tokenizers of files made here: small vocabularies that show one rule each, random ones, and
 * hostile ones, which are refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5, BYTE = 6 };

/* ---- a GGUF file, key by key ------------------------------------------------------------------
 */

typedef struct {
    saf_buf keys;
    uint64_t n_keys;
    char path[64];
} file;

static void add(saf_buf *b, const void *bytes, size_t len) {
    assert_int_equal(saf_buf_append(b, bytes, len), SAF_OK);
}
static void add_u32(saf_buf *b, uint32_t v) {
    add(b, &v, sizeof v);
}
static void add_u64(saf_buf *b, uint64_t v) {
    add(b, &v, sizeof v);
}
static void add_text(saf_buf *b, const char *text, size_t len) {
    add_u64(b, len);
    add(b, text, len);
}

static void begin_key(file *f, const char *key, saf_gguf_kind kind) {
    char full[80];
    int n = snprintf(full, sizeof full, "%s%s", strchr(key, '.') ? "" : "tokenizer.ggml.", key);
    add_text(&f->keys, full, (size_t)n);
    add_u32(&f->keys, kind);
    f->n_keys++;
}
static void key_text(file *f, const char *key, const char *text) {
    begin_key(f, key, SAF_GGUF_STRING);
    add_text(&f->keys, text, strlen(text));
}
static void key_u32(file *f, const char *key, uint32_t v) {
    begin_key(f, key, SAF_GGUF_U32);
    add_u32(&f->keys, v);
}
static void key_bool(file *f, const char *key, bool v) {
    begin_key(f, key, SAF_GGUF_BOOL);
    add(&f->keys, &v, 1);
}
static void key_array(file *f, const char *key, saf_gguf_kind element, uint64_t n) {
    begin_key(f, key, SAF_GGUF_ARRAY);
    add_u32(&f->keys, element);
    add_u64(&f->keys, n);
}

static saf_gguf *finish(file *f) {
    saf_buf all = {0};
    saf_gguf *g = NULL;
    add(&all, "GGUF", 4);
    add_u32(&all, 3);
    add_u64(&all, 0);
    add_u64(&all, f->n_keys);
    add(&all, f->keys.data, f->keys.len);
    snprintf(f->path, sizeof f->path, "/tmp/saf-tokenizer-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, all.data, all.len), (ssize_t)all.len);
    close(fd);
    if (saf_gguf_open(f->path, &g) != SAF_OK) fail_msg("%s", saf_error_text());
    unlink(f->path);
    saf_buf_free(&all);
    saf_buf_free(&f->keys);
    *f = (file){0};
    return g;
}

/* ---- a vocabulary -----------------------------------------------------------------------------
 */

typedef struct {
    char text[64];
    uint32_t len;
    int32_t type;
    float score;
} token;

typedef struct {
    token tokens[2000];
    int n;
    char merges[1000][64];
    int n_merges;
} vocabulary;

static int put(vocabulary *v, const char *text, int type, float score) {
    token *t = &v->tokens[v->n];
    t->len = (uint32_t)snprintf(t->text, sizeof t->text, "%s", text);
    t->type = type;
    t->score = score;
    return v->n++;
}

static void put_merge(vocabulary *v, const char *text) {
    snprintf(v->merges[v->n_merges++], sizeof v->merges[0], "%s", text);
}

/* <unk>, <s>, </s> and all bytes: ids 0 to 258. */
static void llama_basis(vocabulary *v) {
    put(v, "<unk>", UNKNOWN, 0);
    put(v, "<s>", CONTROL, 0);
    put(v, "</s>", CONTROL, 0);
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        put(v, text, BYTE, 0);
    }
}

/* The 256 characters of a byte-level vocabulary: id b is byte b. */
static void gpt2_basis(vocabulary *v) {
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 255 && b != 173);
        char text[8] = {0};
        saf_utf8_encode(printable ? b : next++, text);
        put(v, text, NORMAL, 0);
    }
}

static void write_tokens(file *f, const vocabulary *v) {
    key_array(f, "tokens", SAF_GGUF_STRING, (uint64_t)v->n);
    for (int i = 0; i < v->n; i++) add_text(&f->keys, v->tokens[i].text, v->tokens[i].len);
}
static void write_types(file *f, const vocabulary *v) {
    key_array(f, "token_type", SAF_GGUF_I32, (uint64_t)v->n);
    for (int i = 0; i < v->n; i++) add_u32(&f->keys, (uint32_t)v->tokens[i].type);
}
static void write_scores(file *f, const vocabulary *v) {
    key_array(f, "scores", SAF_GGUF_F32, (uint64_t)v->n);
    for (int i = 0; i < v->n; i++) add(&f->keys, &v->tokens[i].score, 4);
}
static void write_merges(file *f, const vocabulary *v) {
    key_array(f, "merges", SAF_GGUF_STRING, (uint64_t)v->n_merges);
    for (int i = 0; i < v->n_merges; i++) add_text(&f->keys, v->merges[i], strlen(v->merges[i]));
}

static void write_llama(file *f, const vocabulary *v) {
    key_text(f, "model", "llama");
    write_tokens(f, v);
    write_types(f, v);
    write_scores(f, v);
}
static void write_gpt2(file *f, const vocabulary *v) {
    key_text(f, "model", "gpt2");
    key_text(f, "pre", "gpt-2");
    write_tokens(f, v);
    write_types(f, v);
    write_merges(f, v);
}

typedef struct {
    saf_gguf *g;
    saf_tokenizer *t;
} model;

static model open_ok(file *f) {
    model m = {finish(f), NULL};
    if (saf_tokenizer_new(m.g, &m.t) != SAF_OK) fail_msg("%s", saf_error_text());
    return m;
}
static void close_model(model *m) {
    saf_tokenizer_free(&m->t);
    saf_gguf_close(&m->g);
}

static void check_ids(saf_tokenizer *t, const char *text, bool special, const int32_t *want,
                      int64_t n) {
    saf_ids ids = {0};
    if (saf_tokenizer_encode(t, text, strlen(text), false, special, &ids) != SAF_OK)
        fail_msg("%s", saf_error_text());
    if (ids.len != n || (n && memcmp(ids.data, want, (size_t)n * sizeof *want) != 0)) {
        print_message("# \"%s\":", text);
        for (int64_t i = 0; i < ids.len; i++) print_message(" %d", ids.data[i]);
        print_message(", expected");
        for (int64_t i = 0; i < n; i++) print_message(" %d", want[i]);
        print_message("\n");
        fail();
    }
    saf_ids_free(&ids);
}
#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void check_back(saf_tokenizer *t, const char *text, size_t len, bool special) {
    saf_ids ids = {0};
    saf_buf back = {0};
    if (saf_tokenizer_encode(t, text, len, true, special, &ids) != SAF_OK ||
        saf_tokenizer_decode(t, ids.data, ids.len, special, &back) != SAF_OK)
        fail_msg("\"%s\": %s", text, saf_error_text());
    if (back.len != len || (len && memcmp(back.data, text, len) != 0)) {
        print_message("# ids:");
        for (int64_t i = 0; i < ids.len; i++) print_message(" %d", ids.data[i]);
        fail_msg("\"%s\" came back as \"%s\"", text, back.data ? back.data : "");
    }
    saf_ids_free(&ids);
    saf_buf_free(&back);
}

/* ---- rules ------------------------------------------------------------------------------------
 */

static vocabulary v; /* large: not on the stack; tests begin with {0} */

static void test_tokenizer_files_merge_by_score_then_from_the_left(void **state) {
    (void)state;
    v = (vocabulary){0};
    llama_basis(&v);
    int a = put(&v, "a", NORMAL, -9), b = put(&v, "b", NORMAL, -9);
    int aa = put(&v, "aa", NORMAL, -2), ab = put(&v, "ab", NORMAL, -1);
    int aaa = put(&v, "aaa", NORMAL, -3), space = put(&v, "\u2581", NORMAL, -4);
    int space_a = put(&v, "\u2581a", NORMAL, -5);
    file f = {0};
    write_llama(&f, &v);
    model m = open_ok(&f);
    check_ids(m.t, "", false, NULL, 0);
    check_ids(m.t, "ab", false, IDS(space, ab));   /* before the space and a */
    check_ids(m.t, "aaa", false, IDS(space, aaa)); /* aa, then aaa */
    check_ids(m.t, "aaaa", false, IDS(space, aa, aa));
    check_ids(m.t, "a", false, IDS(space_a));
    check_ids(m.t, "aab", false, IDS(space_a, ab));
    check_ids(m.t, "b  a", false, IDS(space, b, space, space_a));
    check_ids(m.t, "aXb", false, IDS(space_a, 3 + 'X', b)); /* byte fallback */
    check_ids(m.t, "\u00e9", false, IDS(space, 3 + 0xc3, 3 + 0xa9));
    check_ids(m.t, "<s>", false, IDS(space, 3 + '<', 3 + 's', 3 + '>')); /* not the token */
    check_ids(m.t, "a<s>a</s>", true, IDS(space_a, 1, space_a, 2));
    assert_int_equal(saf_tokenizer_find(m.t, "a", 1), a);
    close_model(&m);
}

static void test_tokenizer_files_put_a_space_where_the_file_says(void **state) {
    (void)state;
    for (int with = 0; with < 2; with++) {
        v = (vocabulary){0};
        llama_basis(&v);
        int space = put(&v, "\u2581", NORMAL, -1), a = put(&v, "a", NORMAL, -2);
        int mark = put(&v, "<m>", USER, 0), wide = put(&v, "  ", USER, 0);
        file f = {0};
        write_llama(&f, &v);
        key_bool(&f, "add_space_prefix", with);
        model m = open_ok(&f);
        if (with) {
            check_ids(m.t, "a<m>a", false, IDS(space, a, mark, space, a));
            check_ids(m.t, " <m> a", false, IDS(space, space, mark, space, space, a));
            check_ids(m.t, "  a", false, IDS(wide, space, a));
        } else {
            check_ids(m.t, "a<m>a", false, IDS(a, mark, a));
            check_ids(m.t, " <m> a", false, IDS(space, mark, space, a));
            check_ids(m.t, "  a   a", false, IDS(wide, a, wide, space, a));
        }
        static const char *const texts[] = {"a<m>a",   " a<m> a", "<m>",  "<m><m> ",   "  a",
                                            " <m>  a", "   ",     "a  a", "<s>a</s> a"};
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
            for (int special = 0; special < 2; special++)
                check_back(m.t, texts[i], strlen(texts[i]), special);
        close_model(&m);
    }
}

static void test_tokenizer_files_take_the_longest_special_token(void **state) {
    (void)state;
    v = (vocabulary){0};
    gpt2_basis(&v);
    int a = put(&v, "<a>", USER, 0), ab = put(&v, "<a>b", USER, 0),
        abc = put(&v, "<a>bc", CONTROL, 0);
    int again = put(&v, "<a>", CONTROL, 0), lone = put(&v, "<", UNKNOWN, 0);
    put(&v, "", CONTROL, 0);
    put(&v, "\xff", USER, 0); /* inside a character it would cut it */
    file f = {0};
    write_gpt2(&f, &v);
    model m = open_ok(&f);
    check_ids(m.t, "<a>", false, IDS(a));
    check_ids(m.t, "<a>bc", false, IDS(ab, 'c'));
    check_ids(m.t, "<a>bc", true, IDS(abc));
    check_ids(m.t, "<a><a>bd", true, IDS(a, ab, 'd'));
    check_ids(m.t, "<<a", false, IDS('<', '<', 'a'));
    check_ids(m.t, "<<a", true, IDS(lone, lone, 'a'));
    check_ids(m.t, "\u00ff", false, IDS(0xc3, 0xbf));
    assert_int_not_equal(saf_tokenizer_find(m.t, "<a>", 3), again);
    assert_int_equal(saf_tokenizer_find(m.t, "", 0), -1);
    close_model(&m);
}

static void test_tokenizer_files_merge_by_rank(void **state) {
    (void)state;
    v = (vocabulary){0};
    gpt2_basis(&v);
    int bc = put(&v, "bc", NORMAL, 0), ab = put(&v, "ab", NORMAL, 0),
        abc = put(&v, "abc", NORMAL, 0);
    int gap_a = put(&v, "\u0120a", NORMAL, 0), cc = put(&v, "cc", CONTROL, 0);
    put_merge(&v, "b c");
    put_merge(&v, "a b");
    put_merge(&v, "\u0120 a"); /* U+0120 stands for a space */
    put_merge(&v, "a bc");
    put_merge(&v, "b c");  /* twice: the first counts */
    put_merge(&v, "c c");  /* gives a control token: never from text */
    put_merge(&v, "x y");  /* gives no token */
    put_merge(&v, "zz q"); /* of no token */
    put_merge(&v, "nogap");
    put_merge(&v, " ");
    put_merge(&v, "");
    file f = {0};
    write_gpt2(&f, &v);
    model m = open_ok(&f);
    check_ids(m.t, "abc", false, IDS(abc)); /* bc first, then a and bc */
    check_ids(m.t, "abab", false, IDS(ab, ab));
    check_ids(m.t, "bbc abc", false, IDS('b', bc, gap_a, bc)); /* U+0120 a ranks before a bc */
    check_ids(m.t, "cc xy", false, IDS('c', 'c', ' ', 'x', 'y'));
    check_ids(m.t, "cc", true, IDS(cc));
    close_model(&m);
}

/* Phi-3's tokenizer takes the white space after a special token with it. */
static void test_tokenizer_files_of_phi3_strip_after_special_tokens(void **state) {
    (void)state;
    v = (vocabulary){0};
    llama_basis(&v);
    int space = put(&v, "\u2581", NORMAL, -1), a = put(&v, "a", NORMAL, -2);
    int user = put(&v, "<|user|>", CONTROL, 0);
    file f = {0};
    key_text(&f, "general.name", "Phi-3 Mini 4k");
    write_llama(&f, &v);
    model m = open_ok(&f);
    check_ids(m.t, "<|user|>\n \ta", true, IDS(user, space, a));
    check_ids(m.t, "<s> a", true, IDS(1, space, space, a));
    close_model(&m);
}

static void test_tokenizer_files_without_keys_have_defaults(void **state) {
    (void)state;
    v = (vocabulary){0};
    llama_basis(&v);
    put(&v, "<|im_end|>", NORMAL, 0);
    int end = put(&v, "<|eot_id|>", CONTROL, 0), turn = put(&v, "[stop]", CONTROL, 0);
    file f = {0};
    write_llama(&f, &v);
    key_u32(&f, "eot_token_id", (uint32_t)turn);
    model m = open_ok(&f);
    assert_int_equal(saf_tokenizer_bos(m.t), 1);
    assert_int_equal(saf_tokenizer_eos(m.t), 2);
    assert_true(saf_tokenizer_adds_bos(m.t));
    assert_true(saf_tokenizer_is_end(m.t, 2));
    assert_true(saf_tokenizer_is_end(m.t, end));
    assert_true(saf_tokenizer_is_end(m.t, turn));
    assert_false(saf_tokenizer_is_end(m.t, end - 1)); /* plain text that looks like it */
    close_model(&m);
    v = (vocabulary){0};
    gpt2_basis(&v);
    f = (file){0};
    write_gpt2(&f, &v);
    key_u32(&f, "bos_token_id", UINT32_MAX); /* how some files say "none" */
    m = open_ok(&f);
    assert_int_equal(saf_tokenizer_bos(m.t), -1);
    assert_int_equal(saf_tokenizer_eos(m.t), -1);
    assert_false(saf_tokenizer_adds_bos(m.t));
    close_model(&m);
    f = (file){0};
    write_gpt2(&f, &v);
    key_u32(&f, "bos_token_id", 5);
    key_u32(&f, "eos_token_id", 6);
    key_bool(&f, "add_bos_token", true);
    key_bool(&f, "add_eos_token", true);
    m = open_ok(&f);
    saf_ids ids = {0};
    saf_buf text = {0};
    assert_int_equal(saf_tokenizer_encode(m.t, "x", 1, true, false, &ids), SAF_OK);
    assert_int_equal(ids.len, 3);
    assert_int_equal(ids.data[0], 5);
    assert_int_equal(ids.data[2], 6);
    saf_ids_free(&ids);
    saf_buf_free(&text);
    close_model(&m);
}

/* ---- random files -----------------------------------------------------------------------------
 */

static uint32_t draw(uint64_t *at, uint32_t below) {
    uint32_t r[4];
    saf_philox(99, 1, (*at)++, r);
    return r[0] % below;
}

static const char *const letters[] = {"a", "b", "c", " ", "<", ">", "\u00e9", "\u4e2d", "1", "\n"};
enum { LETTERS = sizeof letters / sizeof letters[0] };

static void random_text(uint64_t *at, uint32_t most, const char *space, char out[64]) {
    uint32_t n = 1 + draw(at, most);
    size_t len = 0;
    for (uint32_t i = 0; i < n; i++) {
        const char *c = letters[draw(at, LETTERS)];
        len += (size_t)snprintf(out + len, 64 - len, "%s", c[0] == ' ' ? space : c);
    }
}

/* Whatever the vocabulary, the ids of any text say the text. */
static void test_tokenizer_files_of_any_make_give_texts_back(void **state) {
    (void)state;
    uint64_t at = 0;
    for (int round = 0; round < 300; round++) {
        bool llama = round & 1;
        char text[64], other[80];
        v = (vocabulary){0};
        if (llama)
            llama_basis(&v);
        else
            gpt2_basis(&v);
        if (llama) put(&v, "\u2581", NORMAL, -1); /* without, spaces would be three bytes */
        for (int i = 0; i < 120; i++) {
            uint32_t kind = draw(&at, 12);
            int type = kind == 0 ? CONTROL : kind == 1 ? USER : kind == 2 ? UNUSED : NORMAL;
            bool raw = type == CONTROL || type == USER;
            random_text(&at, raw ? 4 : 6, raw ? " " : llama ? "\u2581" : "\u0120", text);
            if (!llama && !raw && strpbrk(text, "\n\xc3\xe4")) continue; /* not byte-level */
            put(&v, text, type, -(float)draw(&at, 50));
        }
        for (int i = 0; !llama && i < 200; i++) {
            random_text(&at, 3, "\u0120", text);
            random_text(&at, 3, "\u0120", other);
            char merge[160];
            snprintf(merge, sizeof merge, "%s %s", text, other);
            if (strlen(merge) < sizeof v.merges[0]) put_merge(&v, merge);
        }
        file f = {0};
        if (llama)
            write_llama(&f, &v);
        else
            write_gpt2(&f, &v);
        if (round & 2) key_bool(&f, "add_space_prefix", false);
        model m = open_ok(&f);
        for (int i = 0; i < 60; i++) {
            random_text(&at, 15, " ", text);
            check_back(m.t, text, strlen(text), false);
            check_back(m.t, text, strlen(text), true);
        }
        close_model(&m);
    }
}

/* ---- hostile files ----------------------------------------------------------------------------
 */

static void refused(file *f, const char *why) {
    saf_gguf *g = finish(f);
    saf_tokenizer *t = NULL;
    assert_int_equal(saf_tokenizer_new(g, &t), SAF_BAD_INPUT);
    assert_null(t);
    if (!strstr(saf_error_text(), why))
        fail_msg("\"%s\" does not say \"%s\"", saf_error_text(), why);
    saf_gguf_close(&g);
}

static void test_tokenizer_files_are_refused_by_name(void **state) {
    (void)state;
    file f = {0};
    v = (vocabulary){0};
    gpt2_basis(&v);
    write_tokens(&f, &v);
    refused(&f, "no tokenizer.ggml.model");
    key_text(&f, "model", "t5");
    refused(&f, "\"t5\" is not supported");
    key_u32(&f, "model", 3);
    refused(&f, "tokenizer.ggml.model");
    key_text(&f, "model", "gpt2");
    refused(&f, "tokenizer.ggml.tokens");
    key_text(&f, "model", "gpt2");
    key_array(&f, "tokens", SAF_GGUF_STRING, 0);
    refused(&f, "tokenizer.ggml.tokens");
    key_text(&f, "model", "gpt2");
    key_array(&f, "tokens", SAF_GGUF_U32, 1);
    add_u32(&f.keys, 1);
    refused(&f, "tokenizer.ggml.tokens");
    key_text(&f, "model", "gpt2");
    write_tokens(&f, &v);
    refused(&f, "tokenizer.ggml.pre is missing");
    key_text(&f, "model", "gpt2");
    key_text(&f, "pre", "made-up");
    write_tokens(&f, &v);
    refused(&f, "\"made-up\" is not supported; known are default, gpt-2,");
    key_text(&f, "model", "gpt2");
    key_text(&f, "pre", "gpt-2");
    write_tokens(&f, &v);
    refused(&f, "tokenizer.ggml.merges");
    key_text(&f, "model", "llama");
    write_tokens(&f, &v);
    refused(&f, "tokenizer.ggml.scores");
}

static void test_tokenizer_files_with_bad_arrays_are_refused(void **state) {
    (void)state;
    file f = {0};
    v = (vocabulary){0};
    gpt2_basis(&v);
    v.n--;
    key_text(&f, "model", "gpt2");
    write_types(&f, &v); /* one too few */
    v.n++;
    key_text(&f, "pre", "gpt-2");
    write_tokens(&f, &v);
    refused(&f, "tokenizer.ggml.token_type must be 256 integers");
    v.tokens[7].type = 7;
    write_gpt2(&f, &v);
    refused(&f, "token_type[7] is 7");
    v.tokens[7].type = -1;
    write_gpt2(&f, &v);
    refused(&f, "token_type[7] is -1");
    v.tokens[7].type = BYTE;
    write_gpt2(&f, &v);
    refused(&f, "tokens[7] is of type byte");
    v.tokens[7].type = NORMAL;
    key_text(&f, "model", "llama");
    write_tokens(&f, &v);
    key_array(&f, "scores", SAF_GGUF_F32, 256);
    for (int i = 0; i < 256; i++) add_u32(&f.keys, i == 9 ? 0x7fc00000 : 0);
    refused(&f, "scores[9] is not a number");
    key_text(&f, "model", "llama");
    write_tokens(&f, &v);
    key_array(&f, "scores", SAF_GGUF_F32, 1);
    add_u32(&f.keys, 0);
    refused(&f, "scores must be 256 floats");
}

static void test_tokenizer_files_with_bad_ids_are_refused(void **state) {
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "unknown_token_id",
                                       "eot_token_id", "eom_token_id"};
    (void)state;
    file f = {0};
    v = (vocabulary){0};
    gpt2_basis(&v);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        write_gpt2(&f, &v);
        key_u32(&f, keys[i], 256);
        refused(&f, keys[i]);
        write_gpt2(&f, &v);
        key_text(&f, keys[i], "1");
        refused(&f, keys[i]);
    }
    write_gpt2(&f, &v);
    key_bool(&f, "add_bos_token", true);
    refused(&f, "add_bos_token is true but there is no BOS token");
    write_gpt2(&f, &v);
    key_bool(&f, "add_eos_token", true);
    refused(&f, "add_eos_token is true but there is no EOS token");
}

static void test_tokenizer_files_that_miss_bytes_say_so(void **state) {
    (void)state;
    for (int with_unknown = 0; with_unknown < 2; with_unknown++) {
        file f = {0};
        v = (vocabulary){0};
        put(&v, "a", NORMAL, 0);
        int unknown = put(&v, "<unk>", UNKNOWN, 0);
        write_gpt2(&f, &v);
        if (with_unknown) key_u32(&f, "unknown_token_id", (uint32_t)unknown);
        model m = open_ok(&f);
        if (with_unknown) {
            check_ids(m.t, "ab", false, IDS(0, unknown));
            check_ids(m.t, "b", false, IDS(unknown));
        } else {
            saf_ids ids = {0};
            assert_int_equal(saf_tokenizer_encode(m.t, "ab", 2, false, false, &ids), SAF_BAD_INPUT);
            assert_non_null(strstr(saf_error_text(), "byte 0x62"));
            assert_int_equal(ids.len, 0);
            saf_ids_free(&ids);
        }
        close_model(&m);
    }
    file f = {0};
    v = (vocabulary){0};
    put(&v, "<unk>", UNKNOWN, 0);
    int a = put(&v, "a", NORMAL, 0), space = put(&v, "\u2581", NORMAL, 0);
    write_llama(&f, &v);
    model m = open_ok(&f);
    check_ids(m.t, "a\u4e2da", false, IDS(space, a, 0, a)); /* one for the character */
    close_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_files_merge_by_score_then_from_the_left),
        cmocka_unit_test(test_tokenizer_files_put_a_space_where_the_file_says),
        cmocka_unit_test(test_tokenizer_files_take_the_longest_special_token),
        cmocka_unit_test(test_tokenizer_files_merge_by_rank),
        cmocka_unit_test(test_tokenizer_files_of_phi3_strip_after_special_tokens),
        cmocka_unit_test(test_tokenizer_files_without_keys_have_defaults),
        cmocka_unit_test(test_tokenizer_files_of_any_make_give_texts_back),
        cmocka_unit_test(test_tokenizer_files_are_refused_by_name),
        cmocka_unit_test(test_tokenizer_files_with_bad_arrays_are_refused),
        cmocka_unit_test(test_tokenizer_files_with_bad_ids_are_refused),
        cmocka_unit_test(test_tokenizer_files_that_miss_bytes_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
