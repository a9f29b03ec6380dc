/* Requests from every form of input, and what is refused, with file, line and cause. */
#include <hdf5.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/job.h"

static char folder[] = "/tmp/saf-test-prompts-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static char *write_bytes(const char *name, const char *bytes, size_t len) {
    char *path = path_of(name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* The settings a job has without a word of its own. */
static saf_job plain_job(saf_job_kind kind) {
    return (saf_job){
        .kind = kind,
        .generate = {.max_tokens = 128, .sampling = {.top_p = 1, .repeat_penalty = 1, .seed = 7}}};
}

static saf_status read_from(saf_job *job, char *path, saf_prompt **prompts, int64_t *n) {
    if (job->kind == SAF_JOB_SCORE)
        job->input.texts = path;
    else
        job->input.prompts = path;
    return saf_prompts_read(job, prompts, n);
}

static saf_status read_lines(const char *name, const char *bytes, size_t len, saf_prompt **prompts,
                             int64_t *n) {
    saf_job job = plain_job(SAF_JOB_GENERATE);
    return read_from(&job, write_bytes(name, bytes, len), prompts, n);
}

/* ---- what is read -------------------------------------------------------------------------- */

static void test_prompts_text_is_a_request_a_line(void **state) {
    (void)state;
    static const char text[] = "\xEF\xBB\xBF one \\n \r\n\n \t \nzw\xC3\xB6lf\r\r\nlast";
    saf_prompt *p = NULL;
    int64_t n = 0;
    assert_int_equal(read_lines("a.txt", text, sizeof text - 1, &p, &n), SAF_OK);
    assert_int_equal(n, 3);
    assert_string_equal(p[0].text, " one \\n ");
    assert_string_equal(p[1].text, "zw\xC3\xB6lf\r");
    assert_string_equal(p[2].text, "last");
    for (int i = 0; i < 3; i++) {
        char id[4];
        snprintf(id, sizeof id, "%d", i + 1);
        assert_string_equal(p[i].id, id);
        assert_int_equal(p[i].max_tokens, 128);
        assert_int_equal(p[i].sampling.seed, 7);
        assert_null(p[i].messages);
        assert_null(p[i].ids);
    }
    saf_prompts_free(&p, n);
    assert_null(p);
}

static void test_prompts_jsonl_overrides_by_line(void **state) {
    (void)state;
    static const char text[] =
        "\n{\"prompt\": \"a\\n\\u00e9\\ud83d\\ude00\\\\u0000\\\"\"}\r\n"
        "{\"id\": \"x\", \"prompt\": \"\", \"seed\": 9007199254740992, \"temperature\": 0.7, "
        "\"top_k\": 3, \"top_p\": 0.5, \"min_p\": 1, \"repeat_penalty\": 1.5, \"max_tokens\": 9}\n"
        "   \n"
        " { \"id\" : -12 , \"messages\" : [ {\"role\": \"system\", \"content\": \"be\"}, "
        "{\"content\": \"hi\", \"role\": \"user\"} ] } ";
    saf_prompt *p = NULL;
    int64_t n = 0;
    saf_status st = read_lines("a.jsonl", text, sizeof text - 1, &p, &n);
    if (st != SAF_OK) print_error("%s\n", saf_error_text());
    assert_int_equal(st, SAF_OK);
    assert_int_equal(n, 3);
    assert_string_equal(p[0].id, "1");
    assert_string_equal(p[0].text, "a\n\xC3\xA9\xF0\x9F\x98\x80\\u0000\"");
    assert_int_equal(p[0].sampling.seed, 7);
    assert_int_equal(p[0].max_tokens, 128);
    assert_string_equal(p[1].id, "x");
    assert_string_equal(p[1].text, "");
    assert_true(p[1].sampling.seed == 9007199254740992u);
    assert_true(p[1].sampling.temperature == 0.7);
    assert_int_equal(p[1].sampling.top_k, 3);
    assert_true(p[1].sampling.top_p == 0.5);
    assert_true(p[1].sampling.min_p == 1.0);
    assert_true(p[1].sampling.repeat_penalty == 1.5);
    assert_int_equal(p[1].max_tokens, 9);
    assert_string_equal(p[2].id, "-12");
    assert_null(p[2].text);
    assert_int_equal(p[2].n_messages, 2);
    assert_string_equal(p[2].messages[0].role, "system");
    assert_string_equal(p[2].messages[0].content, "be");
    assert_string_equal(p[2].messages[1].role, "user");
    assert_string_equal(p[2].messages[1].content, "hi");
    assert_int_equal(p[2].max_tokens, 128);
    saf_prompts_free(&p, n);
}

static void test_prompts_score_takes_texts(void **state) {
    (void)state;
    static const char text[] = "{\"text\": \"a\"}\n{\"prompt\": \"b\", \"id\": 0}\n";
    saf_job job = plain_job(SAF_JOB_SCORE);
    saf_prompt *p = NULL;
    int64_t n = 0;
    char *path = write_bytes("t.jsonl", text, sizeof text - 1);
    assert_int_equal(read_from(&job, path, &p, &n), SAF_OK);
    assert_int_equal(n, 2);
    assert_string_equal(p[0].text, "a");
    assert_string_equal(p[1].id, "0");
    saf_prompts_free(&p, n);
}

static void test_prompts_token_ids(void **state) {
    (void)state;
    static const char text[] = "1 2\t 3\r\n\n  2147483647 \n0";
    saf_job job = plain_job(SAF_JOB_GENERATE);
    saf_prompt *p = NULL;
    int64_t n = 0;
    job.input.tokens = write_bytes("ids", text, sizeof text - 1);
    assert_int_equal(saf_prompts_read(&job, &p, &n), SAF_OK);
    assert_int_equal(n, 3);
    assert_int_equal(p[0].n_ids, 3);
    assert_int_equal(p[0].ids[0] * 100 + p[0].ids[1] * 10 + p[0].ids[2], 123);
    assert_int_equal(p[1].n_ids, 1);
    assert_int_equal(p[1].ids[0], INT32_MAX);
    assert_int_equal(p[2].ids[0], 0);
    assert_null(p[2].text);
    saf_prompts_free(&p, n);
}

static void test_prompts_single_text(void **state) {
    (void)state;
    saf_job job = plain_job(SAF_JOB_GENERATE);
    saf_prompt *p = NULL;
    int64_t n = 0;
    job.input.prompt = (char[]){"Once\nupon"};
    assert_int_equal(saf_prompts_read(&job, &p, &n), SAF_OK);
    assert_int_equal(n, 1);
    assert_string_equal(p[0].id, "1");
    assert_string_equal(p[0].text, "Once\nupon");
    saf_prompts_free(&p, n);
}

static void write_dataset(const char *path, int n, const char *const *texts) {
    hsize_t dims[1] = {(hsize_t)n};
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, dims, NULL);
    assert_true(file >= 0 && space >= 0);
    assert_true(H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0);
    hid_t group = H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t set = H5Dcreate2(file, "/g/texts", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts) >= 0);
    H5Dclose(set);
    H5Gclose(group);
    H5Sclose(space);
    H5Tclose(type);
    assert_true(H5Fclose(file) >= 0);
}

static void test_prompts_from_a_dataset(void **state) {
    (void)state;
    const char *good[] = {"first\nline", "", "zw\xC3\xB6lf"}, *bad[] = {"a", "\xC3("};
    saf_job job = plain_job(SAF_JOB_GENERATE);
    saf_prompt *p = NULL;
    int64_t n = 0;
    char name[300];
    write_dataset(path_of("t.h5"), 3, good);
    snprintf(name, sizeof name, "%s:/g/texts", path_of("t.h5"));
    assert_int_equal(read_from(&job, name, &p, &n), SAF_OK);
    assert_int_equal(n, 3);
    assert_string_equal(p[0].text, "first\nline");
    assert_string_equal(p[1].text, "");
    assert_string_equal(p[2].text, "zw\xC3\xB6lf");
    assert_string_equal(p[2].id, "3");
    saf_prompts_free(&p, n);
    write_dataset(path_of("t.h5"), 2, bad);
    assert_int_equal(read_from(&job, name, &p, &n), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "UTF-8"));
    snprintf(name, sizeof name, "%s:/g/none", path_of("t.h5"));
    assert_int_not_equal(read_from(&job, name, &p, &n), SAF_OK);
    assert_non_null(strstr(saf_error_text(), "/g/none"));
    snprintf(name, sizeof name, "%s:/g/texts", path_of("missing.h5"));
    assert_int_equal(read_from(&job, name, &p, &n), SAF_NO_INPUT);
    assert_null(p);
}

static void test_prompts_many(void **state) {
    (void)state;
    saf_buf text = {0};
    saf_prompt *p = NULL;
    int64_t n = 0;
    for (int i = 1; i <= 20000; i++) assert_int_equal(saf_buf_printf(&text, "t%d\n", i), SAF_OK);
    assert_int_equal(read_lines("many.txt", text.data, text.len, &p, &n), SAF_OK);
    assert_int_equal(n, 20000);
    assert_string_equal(p[19999].id, "20000");
    assert_string_equal(p[12344].text, "t12345");
    saf_prompts_free(&p, n);
    saf_buf_free(&text);
}

/* Runs of requests that together are all of them, once each and in order, whatever their number. */
static void test_prompts_shards(void **state) {
    (void)state;
    char *path = write_bytes("shards.txt", "a\nb\nc\nd\ne\nf\ng\n", 14);
    for (int32_t shards = 1; shards <= 16; shards++) {
        int64_t next = 0;
        for (int32_t shard = 1; shard <= shards; shard++) {
            saf_job job = plain_job(SAF_JOB_GENERATE);
            saf_prompt *p = NULL;
            int64_t n = 0;
            job.input.shard = shard;
            job.input.shards = shards;
            assert_int_equal(read_from(&job, path, &p, &n), SAF_OK);
            assert_in_range(n, 7 / shards, (7 + shards - 1) / shards);
            for (int64_t i = 0; i < n; i++, next++) {
                assert_int_equal(p[i].text[0], 'a' + next);
                assert_int_equal(p[i].id[0], '1' + next);
            }
            saf_prompts_free(&p, n);
        }
        assert_int_equal(next, 7);
    }
}

/* ---- what is refused ----------------------------------------------------------------------- */

typedef struct {
    const char *name; /* decides the form */
    const char *text;
    const char *say[3];
} bad_case;

static const bad_case cases[] = {
    {"b.txt", "", {"b.txt: empty"}},
    {"b.txt", "\xEF\xBB\xBF", {"empty"}},
    {"b.txt", " \n\t\r\n\n", {"empty"}},
    {"b.txt", "good\nab\xFF\n", {"b.txt:2: invalid UTF-8 at byte 3"}},
    {"b.txt", "\xC3", {"b.txt:1: invalid UTF-8 at byte 1"}},
    {"b.txt", "\xED\xA0\x80", {"b.txt:1: invalid UTF-8"}},
    {"b.jsonl", "", {"b.jsonl: empty"}},
    {"b.jsonl", "{\"prompt\": \"\xC0\x80\"}", {":1: invalid UTF-8 at byte 13"}},
    {"b.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"a\"", {":2: not valid JSON near byte"}},
    {"b.jsonl", "{\"prompt\": \"a\"} x", {":1: not valid JSON near byte 17"}},
    {"b.jsonl", "{\"prompt\": \"a\"}{\"prompt\": \"a\"}", {":1: not valid JSON near byte 16"}},
    {"b.jsonl", "{'prompt': 'a'}", {":1: not valid JSON near byte"}},
    {"b.jsonl", "{\"prompt\": \"a\",}", {":1: not valid JSON"}},
    {"b.jsonl", "{\"prompt\": \"\\ud800\"}", {":1: not valid JSON"}},
    {"b.jsonl", "{\"prompt\": \"\\u0000\"}", {":1: \\u0000 at byte 13"}},
    {"b.jsonl", "{\"prompt\": \"a\tb\"}", {":1: a control character at byte 14", "\\u0009"}},
    {"b.jsonl", "[[[[[[[[[1]]]]]]]]]", {":1: nested more than 8", "byte 9"}},
    {"b.jsonl", "[\"a\"]", {":1: expected an object"}},
    {"b.jsonl", "\"a\"", {":1: expected an object"}},
    {"b.jsonl", "{}", {":1: prompt: missing"}},
    {"b.jsonl", "{\"id\": \"a\"}", {":1: prompt: missing"}},
    {"b.jsonl", "{\"prompt\": 1}", {":1: prompt: expected a string"}},
    {"b.jsonl", "{\"prompt\": null}", {":1: prompt: expected a string"}},
    {"b.jsonl", "{\"Prompt\": \"a\"}", {":1: unknown member \"Prompt\"", "messages", "top_p"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"stop\": []}", {":1: unknown member \"stop\""}},
    {"b.jsonl", "{\"prompt\": \"a\", \"text\": \"b\"}", {":1: unknown member \"text\""}},
    {"b.jsonl", "{\"prompt\": \"a\", \"prompt\": \"b\"}", {":1: prompt: given twice"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"id\": \"\"}", {":1: id: expected", "got \"\""}},
    {"b.jsonl", "{\"prompt\": \"a\", \"id\": 1.5}", {":1: id: expected", "1.5"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"id\": 9007199254740994}", {":1: id: expected", "2^53"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"id\": 1e400}", {":1: id: expected", "inf"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"id\": null}", {":1: id: expected"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"seed\": \"1\"}", {":1: seed: expected a number"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"seed\": -1}", {":1: seed: expected an integer, 0", "-1"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"seed\": 1.5}", {":1: seed: expected an integer"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"seed\": 9007199254740994}", {":1: seed", "2^53"}},
    {"b.jsonl",
     "{\"prompt\": \"a\", \"temperature\": 101}",
     {":1: temperature", "0 to 100", "101"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"top_p\": -0.5}", {":1: top_p", "0 to 1", "-0.5"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"top_k\": 2147483648}", {":1: top_k", "2147483647"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"min_p\": true}", {":1: min_p: expected a number"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"repeat_penalty\": 0}", {":1: repeat_penalty", "above 0"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"max_tokens\": 0}", {":1: max_tokens", "1 to", "got 0"}},
    {"b.jsonl", "{\"prompt\": \"a\", \"messages\": []}", {":1: messages: expected only one"}},
    {"b.jsonl", "{\"messages\": []}", {":1: messages: expected a list"}},
    {"b.jsonl", "{\"messages\": {\"role\": \"user\"}}", {":1: messages: expected a list"}},
    {"b.jsonl", "{\"messages\": [\"hi\"]}", {":1: messages: expected objects"}},
    {"b.jsonl", "{\"messages\": [{\"role\": \"user\"}]}", {":1: messages: ", "without content"}},
    {"b.jsonl", "{\"messages\": [{\"content\": \"\"}]}", {":1: messages: ", "without role"}},
    {"b.jsonl", "{\"messages\": [{\"role\": 1}]}", {":1: messages: role: expected a string"}},
    {"b.jsonl",
     "{\"messages\": [{\"role\": \"u\", \"content\": \"\", \"name\": \"\"}]}",
     {":1: messages: unknown member \"name\""}},
    {"b.jsonl",
     "{\"messages\": [{\"role\": \"u\", \"role\": \"v\", \"content\": \"\"}]}",
     {":1: role: given twice"}},
    {"b.jsonl",
     "{\"id\": \"x\", \"prompt\": \"a\"}\n\n{\"id\": \"y\", \"prompt\": \"a\"}\n"
     "{\"id\": \"x\", \"prompt\": \"a\"}\n{\"id\": \"x\", \"prompt\": \"a\"}\n",
     {":4: id \"x\"", "line 1"}},
    {"b.jsonl", "{\"id\": 2, \"prompt\": \"a\"}\n{\"prompt\": \"a\"}", {":2: id \"2\"", "line 1"}},
    {"b.jsonl",
     "{\"id\": \"1\", \"prompt\": \"a\"}\n{\"id\": 1, \"prompt\": \"a\"}",
     {":2: id \"1\""}},
    {"b.ids", "", {"b.ids: empty"}},
    {"b.ids", "1 2\n1 x 3\n", {":2: expected token ids", "\"x\""}},
    {"b.ids", "1 -2", {":1: expected token ids", "\"-2\""}},
    {"b.ids", "1,2", {":1: expected token ids", "\"1,2\""}},
    {"b.ids", "2147483648", {":1: expected token ids", "\"2147483648\""}},
    {"b.ids", "99999999999999999999999999999999", {":1: expected token ids"}},
    {"b.csv", "a", {"b.csv", ".jsonl"}},
};

static void test_prompts_wrong_input_is_explained(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bad_case *c = &cases[i];
        saf_job job = plain_job(SAF_JOB_GENERATE);
        saf_prompt *p = NULL;
        int64_t n = 0;
        char *path = write_bytes(c->name, c->text, strlen(c->text));
        if (strstr(c->name, ".ids"))
            job.input.tokens = path;
        else
            job.input.prompts = path;
        saf_status st = saf_prompts_read(&job, &p, &n);
        bool right = st == SAF_BAD_INPUT && !p && strstr(saf_error_text(), path);
        for (int k = 0; k < 3 && c->say[k]; k++)
            right = right && strstr(saf_error_text(), c->say[k]) != NULL;
        if (!right) {
            print_error("case %zu: %s\n  status %d: %s\n", i, c->text, (int)st, saf_error_text());
            wrong++;
        }
        if (st == SAF_OK) saf_prompts_free(&p, n);
    }
    assert_int_equal(wrong, 0);
}

static void test_prompts_zero_byte_is_refused(void **state) {
    (void)state;
    saf_prompt *p = NULL;
    int64_t n = 0;
    assert_int_equal(read_lines("z.txt", "ok\na\0b\n", 7, &p, &n), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), ":2: a zero byte at byte 2"));
    assert_int_equal(read_lines("z.jsonl", "{\"prompt\":\"a\"}\0", 15, &p, &n), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), ":1: a zero byte at byte 15"));
}

static void test_prompts_missing_file_is_no_input(void **state) {
    (void)state;
    saf_job job = plain_job(SAF_JOB_GENERATE);
    saf_prompt *p = NULL;
    int64_t n = 0;
    assert_int_equal(read_from(&job, path_of("none.txt"), &p, &n), SAF_NO_INPUT);
    assert_non_null(strstr(saf_error_text(), "none.txt"));
}

static void test_prompts_score_refuses_what_only_generates(void **state) {
    (void)state;
    static const char *const lines[] = {"{\"text\": \"a\", \"seed\": 1}",
                                        "{\"text\": \"a\", \"prompt\": \"b\"}",
                                        "{\"messages\": [{\"role\": \"u\", \"content\": \"\"}]}"};
    for (size_t i = 0; i < 3; i++) {
        saf_job job = plain_job(SAF_JOB_SCORE);
        saf_prompt *p = NULL;
        int64_t n = 0;
        char *path = write_bytes("s.jsonl", lines[i], strlen(lines[i]));
        assert_int_equal(read_from(&job, path, &p, &n), SAF_BAD_INPUT);
        assert_non_null(strstr(saf_error_text(), i == 1 ? "only one" : "unknown member"));
    }
}

static void test_prompts_object_size_is_bounded(void **state) {
    (void)state;
    saf_buf text = {0};
    saf_prompt *p = NULL;
    int64_t n = 0;
    assert_int_equal(saf_buf_printf(&text, "{\"prompt\": \"a\""), SAF_OK);
    for (int i = 0; i < 50000; i++)
        assert_int_equal(saf_buf_printf(&text, ", \"k%d\": 1", i), SAF_OK);
    assert_int_equal(saf_buf_printf(&text, "}"), SAF_OK);
    assert_int_equal(read_lines("big.jsonl", text.data, text.len, &p, &n), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "more than 32 members"));
    /* A value takes two bytes of a line, and 64 in memory. */
    saf_buf_clear(&text);
    assert_int_equal(saf_buf_printf(&text, "{\"prompt\": [1"), SAF_OK);
    for (int i = 0; i < 65536; i++) assert_int_equal(saf_buf_append(&text, ",1", 2), SAF_OK);
    assert_int_equal(saf_buf_printf(&text, "]}"), SAF_OK);
    assert_int_equal(read_lines("big.jsonl", text.data, text.len, &p, &n), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "more than 65536 values"));
    saf_buf_free(&text);
}

/* Whatever is done to a good file, the answer is requests or BAD_INPUT with a message. */
static void test_prompts_mangled_files_never_crash(void **state) {
    (void)state;
    static const char good[] =
        "{\"id\": 1, \"prompt\": \"a\\u00e9\", \"seed\": 3, \"top_p\": 0.5e0}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud83d\\ude00\"}], \"id\": \"x\"}\n";
    static const char bytes[] = "\"\\{}[]:,0123-+.eu\n\r\0\xFF\xC3 ";
    char text[sizeof good];
    for (uint64_t i = 0; i < 4000; i++) {
        uint32_t r[4];
        saf_philox(2, 0, i, r);
        memcpy(text, good, sizeof good);
        size_t len = sizeof good - 1;
        text[r[0] % len] = bytes[r[1] % (sizeof bytes - 1)];
        if (r[2] % 3 == 0) text[r[2] / 3 % len] = bytes[r[3] % (sizeof bytes - 1)];
        if (r[2] % 5 == 0) len = r[3] % len;
        saf_prompt *p = NULL;
        int64_t n = 0;
        saf_status st = read_lines("m.jsonl", text, len, &p, &n);
        assert_true(st == SAF_OK || st == SAF_BAD_INPUT);
        assert_true(st == SAF_OK ? n > 0 && p : !p && saf_error_text()[0] != 0);
        saf_prompts_free(&p, n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_text_is_a_request_a_line),
        cmocka_unit_test(test_prompts_jsonl_overrides_by_line),
        cmocka_unit_test(test_prompts_score_takes_texts),
        cmocka_unit_test(test_prompts_token_ids),
        cmocka_unit_test(test_prompts_single_text),
        cmocka_unit_test(test_prompts_from_a_dataset),
        cmocka_unit_test(test_prompts_many),
        cmocka_unit_test(test_prompts_shards),
        cmocka_unit_test(test_prompts_wrong_input_is_explained),
        cmocka_unit_test(test_prompts_zero_byte_is_refused),
        cmocka_unit_test(test_prompts_missing_file_is_no_input),
        cmocka_unit_test(test_prompts_score_refuses_what_only_generates),
        cmocka_unit_test(test_prompts_object_size_is_bounded),
        cmocka_unit_test(test_prompts_mangled_files_never_crash),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
