/* Splitting rules against the splits of the library that the vocabularies were made with (Hugging
 * Face tokenizers 0.23.2, given each model's pre_tokenizer), as bytes of each word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "model/pretok.h"

static const char *const texts[] = {
    "I'LL we'Ve 'd 's'S n't '\305\277",
    "HTTPServer iPhoneX McDONALD's \307\205ep caf\303\251 cafe\314\201",
    "1 12 123 1234 12345.678 \331\241\331\242\331\243\331\244 \302\275\302\262 x9y",
    "a  b   c\011\011d \012 e\015\012\015\012f   \012\012  ",
    "!!! ...--- (x) <=> += ^~|` $5 //*/ _a ?!\012",
    "\344\270\255\346\226\207abc\343\201\202\343\202\253\355\225\234\352\265\255\354\226\264\343"
    "\200\202\357\274\201 \343\200\214\344\270\255\343\200\215",
    "\360\237\230\200\360\237\232\200 \342\235\244\357\270\217 \342\202\2549 \302\251\342\204\242",
    "\320\275\320\265\321\211\320\276 \316\221\316\270\316\256\316\275\316\261 "
    "\331\205\330\261\330\255\330\250\330\247\330\214 "
    "\340\244\250\340\244\256\340\244\270\340\245\215\340\244\244\340\245\207\340\245\244 "
    "\340\270\252\340\270\247\340\270\261\340\270\252\340\270\224\340\270\265",
    "\302\240x\342\200\203y\343\200\200z\302\205w\341\240\216q\342\200\250",
};
enum { TEXTS = sizeof texts / sizeof texts[0] };

static const struct {
    const char *name, *words[TEXTS];
} splits[] = {
    {"gpt-2",
     {"1 1 2 3 1 2 2 1 2 1 1 1 2 2 2 2", "10 8 9 2 5 6 5 2", "1 3 4 5 6 1 3 9 5 2 1 1",
      "1 1 2 2 2 1 1 1 2 2 3 1 1 7", "3 7 2 1 1 4 3 5 2 1 5 2 1 3 1", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 3 3 6 7 3 6 3", "2 1 3 1 3 1 2 1 3 1 3"}},
    {"starcoder",
     {"1 1 2 3 1 2 2 1 2 1 1 1 2 2 2 2", "10 8 9 2 5 6 5 2",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 1 1 2 2 3 1 1 7", "3 7 2 1 1 4 3 5 2 1 5 2 1 3 1", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 3 3 6 7 3 6 3", "2 1 3 1 3 1 2 1 3 1 3"}},
    {"smollm",
     {"1 1 2 3 1 2 2 1 2 1 1 1 2 2 2 2", "10 8 9 2 5 6 5 2",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 1 1 2 2 3 1 1 7", "3 7 2 1 1 4 3 5 2 1 5 2 1 3 1", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 3 3 6 7 3 6 3", "2 1 3 1 3 1 2 1 3 1 3"}},
    {"llama-bpe",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 8 9 2 5 6 5 2", "1 1 2 1 3 1 3 1 1 3 2 1 3 1 6 2 1 4 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 6 6 7 9 3", "3 4 4 3 4 3"}},
    {"qwen2",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 8 9 2 5 6 5 2",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 6 6 7 9 3", "3 4 4 3 4 3"}},
    {"qwen35",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 8 9 2 5 6 7",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "24 6 4 3 3", "8 4 3 4 1 6",
      "8 11 11 2 19 3 19", "3 4 4 3 4 3"}},
    {"gpt-4o",
     {"4 6 2 1 2 3 4 2 2", "10 2 5 1 3 8 5 6 7", "1 1 2 1 3 1 3 1 1 3 2 1 3 1 6 2 1 4 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 19 3 19", "3 4 4 3 4 3"}},
    {"tekken",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 2 5 1 3 6 2 5 6 7",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 19 3 19", "3 4 4 3 4 3"}},
    {"seed-coder",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 8 9 2 5 6 5 2",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 3 1", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 6 6 7 9 3", "3 4 4 3 4 3"}},
    {"bailingmoe",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 8 9 2 5 6 5 2",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "24 6 4 3 3", "8 7 4 1 6",
      "8 11 11 2 10 6 6 7 9 3", "3 4 4 3 4 3"}},
    {"bloom",
     {"4 6 3 5 4 4", "10 8 11 5 6 7", "1 3 4 5 6 1 3 9 5 4", "1 1 2 2 2 2 1 2 2 4 1 7",
      "7 3 2 1 1 4 3 3 1 1 3 5 3 4", "24 3 3 10", "8 7 5 6", "8 11 11 2 19 3 19",
      "2 1 3 1 3 1 2 5 3"}},
    {"deepseek-v3",
     {"1 3 3 3 2 1 2 1 2 2 2 2 2", "10 8 9 2 5 6 7", "1 1 2 1 3 1 3 1 1 3 2 1 3 1 6 2 1 4 2 1 1",
      "1 1 2 2 2 1 2 2 2 4 1 5 2", "3 7 2 1 1 4 3 5 2 1 5 2 1 4", "6 3 6 9 6 4 3 3", "8 4 3 4 1 6",
      "8 11 11 2 19 3 19", "3 4 4 3 4 3"}},
    {"deepseek-coder",
     {"1 1 2 3 1 2 2 1 2 1 1 1 2 1 1 2 2", "10 8 9 1 1 5 6 5 2",
      "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2 2 2 2 1 2 2 2 1 1",
      "1 1 2 2 2 1 2 1 1 2 1 1 1 1 1 3 1 1 2", "3 7 2 1 1 14 1 5 2 1 3 1", "6 3 15 3 3 1 3 3 3",
      "9 3 4 3 1 3 3", "8 11 11 2 1 9 3 3 3 3 1 6 3 6 3", "3 3 1 3 1 3 3 1 3"}},
    {"deepseek-llm",
     {"1 1 2 3 1 2 2 1 2 1 1 1 2 1 1 2 2", "10 8 9 1 1 3 2 4 2 5 2",
      "1 1 2 1 3 1 4 1 5 1 3 1 8 1 4 2 1 1", "1 1 2 2 2 1 2 1 1 2 1 1 1 1 1 3 1 1 2",
      "3 7 2 1 1 4 3 5 2 1 5 2 1 3 1", "6 3 15 3 3 1 9", "9 3 4 3 1 3 3", "8 11 14 21 1 18",
      "3 3 1 3 1 3 3 1 3"}},
};

static saf__pretok *open_ok(const char *name) {
    saf__pretok *p = NULL;
    const saf__pretok_name *found = saf__pretok_find(name, strlen(name));
    if (!found) fail_msg("%s is not known", name);
    if (saf__pretok_new(found->rule, &p) != SAF_OK) fail_msg("%s: %s", name, saf_error_text());
    return p;
}

static saf_status print_length(void *context, const char *word, size_t len) {
    (void)word;
    saf_buf *out = context;
    return saf_buf_printf(out, "%s%zu", out->len ? " " : "", len);
}

static void test_pretok_splits_as_published(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        saf__pretok *p = open_ok(splits[i].name);
        for (int k = 0; k < TEXTS; k++) {
            saf_buf got = {0};
            assert_int_equal(saf__pretok_split(p, texts[k], strlen(texts[k]), print_length, &got),
                             SAF_OK);
            if (strcmp(got.data, splits[i].words[k]) != 0) {
                print_message("# %s, \"%s\"\n# expected %s\n# got      %s\n", splits[i].name,
                              texts[k], splits[i].words[k], got.data);
                wrong++;
            }
            saf_buf_free(&got);
        }
        saf__pretok_free(&p);
    }
    assert_int_equal(wrong, 0);
}

typedef struct {
    const char *at;
    size_t left;
} rest;

/* Words follow one another without a gap. */
static saf_status take(void *context, const char *word, size_t len) {
    rest *r = context;
    if (word != r->at || len == 0 || len > r->left) return SAF_DEFECT;
    r->at += len;
    r->left -= len;
    return SAF_OK;
}

static void test_pretok_every_name_loses_nothing(void **state) {
    (void)state;
    saf_buf names = {0};
    assert_int_equal(saf__pretok_list(&names), SAF_OK);
    int n = 0;
    for (char *save = NULL, *name = strtok_r(names.data, ", ", &save); name;
         name = strtok_r(NULL, ", ", &save), n++) {
        saf__pretok *p = open_ok(name);
        for (int k = 0; k < TEXTS; k++) {
            rest r = {texts[k], strlen(texts[k])};
            assert_int_equal(saf__pretok_split(p, r.at, r.left, take, &r), SAF_OK);
            assert_int_equal(r.left, 0);
        }
        saf__pretok_free(&p);
    }
    assert_true(n > 60);
    saf_buf_free(&names);
}

static saf_status stop(void *context, const char *word, size_t len) {
    (void)word;
    (void)len;
    return ++*(int *)context == 3 ? SAF_FAILED : SAF_OK;
}

static void test_pretok_stops_when_told(void **state) {
    (void)state;
    saf__pretok *p = open_ok("llama-bpe");
    int words = 0;
    assert_int_equal(saf__pretok_split(p, "a b c d e", 9, stop, &words), SAF_FAILED);
    assert_int_equal(words, 3);
    assert_null(saf__pretok_find("llama", 5));
    assert_null(saf__pretok_find("", 0));
    saf__pretok_free(&p);
    saf__pretok_free(&p);
}

static void test_pretok_refuses_a_bad_rule(void **state) {
    (void)state;
    saf__pretok *p = NULL;
    assert_int_equal(saf__pretok_new(&(saf__pretok_rule){.passes = {"a("}}, &p), SAF_DEFECT);
    assert_null(p);
}

static saf_status count(void *context, const char *word, size_t len) {
    (void)word;
    *(size_t *)context += len;
    return SAF_OK;
}

/* More backtracking than the stack of compiled rules holds: the interpreter goes on. */
static void test_pretok_outgrows_the_stack(void **state) {
    enum { LEN = 1 << 20 };
    (void)state;
    saf__pretok *p = NULL;
    char *text = malloc(LEN);
    size_t bytes = 0;
    assert_non_null(text);
    for (int i = 0; i < LEN; i++) text[i] = 'a';
    assert_int_equal(saf__pretok_new(&(saf__pretok_rule){.passes = {"(?:(a)|b)+$"}}, &p), SAF_OK);
    assert_int_equal(saf__pretok_split(p, text, LEN, count, &bytes), SAF_OK);
    assert_int_equal(bytes, LEN);
    saf__pretok_free(&p);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pretok_splits_as_published),
        cmocka_unit_test(test_pretok_every_name_loses_nothing),
        cmocka_unit_test(test_pretok_stops_when_told),
        cmocka_unit_test(test_pretok_refuses_a_bad_rule),
        cmocka_unit_test(test_pretok_outgrows_the_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
