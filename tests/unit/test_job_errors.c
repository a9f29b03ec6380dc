/* Job files and command lines that are wrong: status and what the message must say. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/job.h"

/* libconfig 1.5 loses the string it was reading when it meets a syntax error. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:strbuf_append";
}

static char path[] = "/tmp/saf-test-bad-job-XXXXXX";

typedef struct {
    const char *text;
    const char *words[3]; /* of the command line */
    const char *say[4];   /* pieces of the message */
} bad_case;

#define HEAD "job = \"generate\";\nmodel: { path = \"m\"; };\n"
#define JOB HEAD "input: { prompt = \"x\"; };\n"
#define SCORE "job = \"score\";\nmodel: { path = \"m\"; };\ninput: { texts = \"t.txt\"; };\n"

static const bad_case cases[] = {
    /* syntax: libconfig's own, and what libconfig lets through */
    {"job = ;\n", {0}, {":1: ", "syntax error"}},
    {JOB "run: {\n chunk = 1;\n", {0}, {"syntax error"}},
    {JOB "run: { chunk = 1; chunk = 2; };", {0}, {":4: ", "duplicate"}},
    {JOB "generate: { stop = [\"a\", 1]; };", {0}, {":4: ", "mismatched"}},
    {JOB "layout: { share = [4.0, 1]; };", {0}, {":4: ", "mismatched", "all with a decimal point"}},
    {JOB "x = \"abc\n\n", {0}, {":4: ", "string", "no end"}},
    {JOB "/* abc\n\n", {0}, {":4: ", "comment", "no end"}},
    {JOB "generate: {\n stop = [\"\\q\"]; };", {0}, {":5: ", "backslash"}},
    {JOB "generate: { stop = [\"\\x00\"]; };", {0}, {":4: ", "backslash"}},
    {JOB "generate: { stop = [\"\\u000a\"]; };", {0}, {":4: ", "backslash"}},
    {JOB "generate: { seed = 9223372036854775808; };", {0}, {":4: ", "64 bits"}},
    {JOB "generate: { seed = 0xFFFFFFFFFFFFFFFF; };", {0}, {":4: ", "64 bits"}},
    {JOB "generate: { top_p = 1e999; };", {0}, {":4: ", "1e999", "not a number"}},
    {JOB "generate: { top_p = .; };", {0}, {":4: ", "not a number"}},
    {JOB "generate: { top_k = 12abc; };", {0}, {":4: ", "12abc", "not a number"}},
    {JOB "model.path = \"m\";", {0}, {":4: ", "dots", "command line"}},
    {JOB "@include \"/no/such/file\"\n", {0}, {":4: ", "cannot include", "/no/such/file"}},
    {JOB "@include \"unfinished\n", {0}, {":4: ", "@include"}},
    {"job = \"gen\xFF\";", {0}, {":1: ", "UTF-8"}},
    /* kind and required keys */
    {"", {0}, {"job: ", "missing", "generate", "score"}},
    {"job = \"serve\";", {0}, {":1: job", "generate, score", "\"serve\""}},
    {"job = 1;", {0}, {":1: job", "generate, score", "got 1"}},
    {"job = \"generate\";\ninput: { prompt = \"x\"; };", {0}, {"model.path", "missing", "GGUF"}},
    {HEAD, {0}, {"input", "missing", "input.prompts, input.tokens, input.prompt"}},
    {"job = \"score\"; model: { path = \"m\"; };", {0}, {"input", "input.texts, input.tokens"}},
    {HEAD "input: {\n prompt = \"x\";\n tokens = \"t\"; };",
     {0},
     {"input.", "given as well", "only one"}},
    {JOB, {"input.tokens=t", "input.prompt=x"}, {"command line", "only one"}},
    {HEAD "input: { prompts = \"p.csv\"; };", {0}, {":3: input.prompts", ".jsonl", "p.csv"}},
    {HEAD "input: { prompts = \"p.h5\"; };", {0}, {":3: input.prompts", ".h5:/DATASET"}},
    {HEAD "input: { prompts = \".txt\"; };", {0}, {"input.prompts", "got \".txt\""}},
    {SCORE, {"input.texts=t.json"}, {"command line: input.texts", ".jsonl"}},
    /* unknown keys, and the nearest */
    {JOB "generate: {\n max_token = 1; };",
     {0},
     {":5: generate.max_token: ", "unknown key", "generate.max_tokens?"}},
    {JOB "generate: { tempreature = 1.0; };", {0}, {"generate.temperature?"}},
    {JOB "max_tokens = 1;", {0}, {":4: max_tokens", "generate.max_tokens?"}},
    {JOB "run: { seed = 1; };", {0}, {"run.seed", "generate.seed?"}},
    {JOB "wibblewobble = 1;", {0}, {":4: wibblewobble", "saf help generate"}},
    {JOB "checkpoint: { every_second = 60; };",
     {0},
     {":4: checkpoint", "checkpoint.every_seconds?"}},
    {JOB "checkpoint: { every_seconds = -1; };",
     {0},
     {"checkpoint.every_seconds", "0 to 1000000000"}},
    {JOB "run: { watchdog_seconds = -1; };", {0}, {"run.watchdog_seconds", "0 to 86400"}},
    {JOB "run: { time_limit = \"1:00h\"; };", {0}, {"run.time_limit", "HH:MM:SS", "1:00h"}},
    {SCORE "generate: { seed = 1; };", {0}, {":4: generate", "unknown key"}},
    {SCORE, {"generate.seed=1"}, {"generate.seed", "generate jobs", "score job"}},
    {JOB, {"score.logits=true"}, {"score.logits", "score jobs"}},
    {"job = \"score\"; model: { path = \"m\"; }; input: { prompts = \"p.txt\"; };",
     {0},
     {"input.prompts", "generate jobs"}},
    {JOB "model2: { a = { b = 1; }; };", {0}, {":4: model2", "unknown key"}},
    {"job = \"generate\"; model = \"m\";", {0}, {":1: model", "group of keys"}},
    {JOB "generate: { seed = { a = 1; }; };", {0}, {"generate.seed", "an integer", "a group"}},
    /* types */
    {JOB "generate: {\n\n max_tokens = \"1\"; };",
     {0},
     {":6: generate.max_tokens", "an integer", "\"1\""}},
    {JOB "generate: { max_tokens = 1.0; };", {0}, {"an integer, 1 to 2147483647", "got 1"}},
    {JOB "generate: { max_tokens = true; };", {0}, {"an integer", "got true"}},
    {JOB "generate: { max_tokens = [1]; };", {0}, {"an integer", "a list of 1"}},
    {JOB "generate: { temperature = \"hot\"; };", {0}, {"a number, 0 to 100", "\"hot\""}},
    {JOB "generate: { ignore_eos = 0; };", {0}, {"true or false", "got 0"}},
    {JOB "generate: { ignore_eos = \"true\"; };", {0}, {"true or false", "\"true\""}},
    {JOB "output: { file = 5; };", {0}, {":4: output.file", "a string", "got 5"}},
    {JOB "output: { file = \"\"; };", {0}, {"output.file", "not empty"}},
    {JOB "generate: { stop = \"a\"; };", {0}, {"generate.stop", "a list of strings", "\"a\""}},
    {JOB "generate: { stop = [\"\"]; };", {0}, {"generate.stop", "none empty"}},
    {JOB "generate: { stop = (\"a\", 1); };", {0}, {"generate.stop", "a list of strings", "got 1"}},
    {JOB "generate: { stop_ids = [1.5]; };", {0}, {"generate.stop_ids", "integers", "got 1.5"}},
    {JOB "generate: { stop_ids = [-1]; };", {0}, {"generate.stop_ids", "0 to 2147483647", "-1"}},
    {JOB "layout: { stages = [1, 0]; };", {0}, {"layout.stages", "each 1 to", "got 0"}},
    /* ranges */
    {JOB "generate: { max_tokens = 0; };",
     {0},
     {"generate.max_tokens", "1 to 2147483647", "got 0"}},
    {JOB "generate: { max_tokens = 2147483648; };", {0}, {"got 2147483648"}},
    {JOB "generate: { max_tokens = 4294967297; };", {0}, {"got 4294967297"}},
    {JOB "generate: { temperature = -0.1; };", {0}, {"0 to 100", "got -0.1"}},
    {JOB "generate: { temperature = 100.5; };", {0}, {"0 to 100", "got 100.5"}},
    {JOB "generate: { top_p = 1.01; };", {0}, {"generate.top_p", "0 to 1", "got 1.01"}},
    {JOB "generate: { min_p = 2; };", {0}, {"generate.min_p", "0 to 1", "got 2"}},
    {JOB "generate: { repeat_penalty = 0; };",
     {0},
     {"generate.repeat_penalty", "above 0", "got 0"}},
    {JOB "generate: { repeat_last = -2; };", {0}, {"generate.repeat_last", "-1 to", "got -2"}},
    {JOB "generate: { seed = -1; };", {0}, {"generate.seed", "2^63 - 1", "got -1"}},
    {JOB "generate: { logprobs = 65; };", {0}, {"generate.logprobs", "0 to 64", "got 65"}},
    {JOB "layout: { tensor = 4097; };", {0}, {"layout.tensor", "0 to 4096", "got 4097"}},
    {JOB "layout: { replicas = -1; };", {0}, {"layout.replicas", "0 to 4096", "got -1"}},
    {JOB "layout: { share = [1.0, 0.0]; };", {0}, {"layout.share", "each 0.001 to", "got 0"}},
    {JOB "layout: { share = (1, \"2\"); };", {0}, {"layout.share", "list of numbers", "\"2\""}},
    {JOB "layout: { share = 3; };", {0}, {"layout.share", "[1.0, 2.5]", "got 3"}},
    {JOB, {"layout.share=[1e10]"}, {"command line", "layout.share", "1000000000", "got 1e+10"}},
    {JOB "layout: { threads = 1025; };", {0}, {"layout.threads", "0 to 1024"}},
    {JOB "layout: { pipeline = 4097; };", {0}, {"layout.pipeline", "0 to 4096"}},
    {JOB "run: { sequences = 4097; };", {0}, {"run.sequences", "0 to 4096"}},
    {JOB "model: { kv_type = \"q8_0\"; };", {0}, {"duplicate"}},
    {JOB, {"model.kv_type=q4_0"}, {"model.kv_type", "f16, f32, q8_0", "\"q4_0\""}},
    {JOB "layout: {\n pipeline = 2; stages = [1, 2, 3]; };",
     {0},
     {":5: layout.stages", "layout.pipeline", "2", "got 3"}},
    {JOB, {"input.shards=0"}, {"input.shards", "1 to 65536", "got 0"}},
    {JOB,
     {"input.shards=3", "input.shard=4"},
     {"command line: input.shard: ", "input.shards, which is 3", "got 4"}},
    {JOB, {"input.shard=2"}, {"input.shard: ", "input.shards, which is 1", "got 2"}},
    /* command line */
    {JOB, {"nonsense"}, {"command line: ", "key=value", "\"nonsense\""}},
    {JOB, {"=1"}, {"command line: ", "key=value"}},
    {JOB, {"generate.seed="}, {"command line: generate.seed", "an integer", "\"\""}},
    {JOB, {"generate.seed=x"}, {"command line: generate.seed", "an integer", "\"x\""}},
    {JOB, {"generate.seed=1; top_k = 2"}, {"generate.seed", "an integer"}},
    {JOB,
     {"generate.seed=9223372036854775808"},
     {"generate.seed", "2^63 - 1", "9223372036854775808"}},
    {JOB, {"generate.stop=a"}, {"generate.stop", "a list of strings"}},
    {JOB, {"generate.stop=[\"a]"}, {"generate.stop", "a list of strings"}},
    {JOB, {"generate.sead=1"}, {"command line: generate.sead", "generate.seed?"}},
    {JOB, {"generate=1"}, {"generate", "generate.KEY=VALUE"}},
    {JOB, {"job=serve"}, {"command line: job", "generate, score, bench", "serve"}},
    {JOB, {"model.path="}, {"model.path", "not empty"}},
    {JOB, {"model.path=\xC3("}, {"model.path", "UTF-8"}},
    {JOB, {"generate.ignore_eos=yes"}, {"generate.ignore_eos", "true or false", "\"yes\""}},
    {JOB, {"generate.ignore_eos=@include \"/etc/passwd\""}, {"generate.ignore_eos", "true or"}},
};

static int make_file(void **state) {
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(path);
}

static void write_bytes(const char *bytes, size_t len) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void test_job_wrong_files_are_explained(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bad_case *c = &cases[i];
        saf_job job = {0};
        int n = 0;
        while (n < 3 && c->words[n]) n++;
        write_bytes(c->text, strlen(c->text));
        saf_status st = saf_job_read(path, n, c->words, &job);
        bool right = st == SAF_USAGE && job.text == NULL && job.path == NULL;
        for (int k = 0; k < 4 && c->say[k]; k++)
            right = right && strstr(saf_error_text(), c->say[k]) != NULL;
        if (n == 0 && !strstr(saf_error_text(), path)) right = false;
        if (!right) {
            print_error("case %zu: %s\n  %s\n  status %d: %s\n", i, c->text, n ? c->words[0] : "",
                        (int)st, saf_error_text());
            wrong++;
        }
        saf_job_free(&job);
    }
    assert_int_equal(wrong, 0);
}

static void test_job_missing_file_is_no_input(void **state) {
    (void)state;
    saf_job job = {0};
    assert_int_equal(saf_job_read("/no/such/job.cfg", 0, NULL, &job), SAF_NO_INPUT);
    assert_non_null(strstr(saf_error_text(), "/no/such/job.cfg"));
    assert_int_equal(saf_job_read("/tmp", 0, NULL, &job), SAF_NO_INPUT);
}

static void test_job_zero_byte_is_refused(void **state) {
    (void)state;
    static const char text[] = JOB "# a\0b\n";
    saf_job job = {0};
    write_bytes(text, sizeof text - 1);
    assert_int_equal(saf_job_read(path, 0, NULL, &job), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), ":4: a zero byte"));
}

static void test_job_includes_are_bounded(void **state) {
    (void)state;
    char text[128];
    saf_job job = {0};
    snprintf(text, sizeof text, "\n@include \"%s\"\n", path);
    write_bytes(text, strlen(text));
    assert_int_equal(saf_job_read(path, 0, NULL, &job), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), ":2: more than 10 includes"));
}

static void test_job_size_is_bounded(void **state) {
    (void)state;
    saf_buf text = {0};
    saf_job job = {0};
    for (int i = 0; i < 40000; i++)
        assert_int_equal(saf_buf_printf(&text, "# a comment that is long enough\n"), SAF_OK);
    write_bytes(text.data, text.len);
    assert_int_equal(saf_job_read(path, 0, NULL, &job), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "larger than"));
    saf_buf_free(&text);
}

/* libconfig takes a second for ten thousand settings of one group, and minutes for a file full. */
static void test_job_settings_are_bounded(void **state) {
    (void)state;
    saf_buf text = {0};
    saf_job job = {0};
    assert_int_equal(saf_buf_printf(&text, JOB "x: {\n"), SAF_OK);
    for (int i = 0; i < 80000; i++) assert_int_equal(saf_buf_printf(&text, "a%d=1;\n", i), SAF_OK);
    assert_int_equal(saf_buf_printf(&text, "};\n"), SAF_OK);
    write_bytes(text.data, text.len);
    assert_int_equal(saf_job_read(path, 0, NULL, &job), SAF_USAGE);
    assert_non_null(strstr(saf_error_text(), "more than 4096 settings"));
    saf_buf_free(&text);
}

/* 70 stops, 65 of them one too many. */
static void test_job_lists_are_bounded(void **state) {
    (void)state;
    saf_buf text = {0};
    saf_job job = {0};
    for (int n = 64; n <= 65; n++) {
        saf_buf_clear(&text);
        assert_int_equal(saf_buf_printf(&text, "%sgenerate: { stop = [\"0\"", JOB), SAF_OK);
        for (int i = 1; i < n; i++) assert_int_equal(saf_buf_printf(&text, ", \"%d\"", i), SAF_OK);
        assert_int_equal(saf_buf_printf(&text, "]; };"), SAF_OK);
        write_bytes(text.data, text.len);
        assert_int_equal(saf_job_read(path, 0, NULL, &job), n == 64 ? SAF_OK : SAF_USAGE);
        if (n == 65) assert_non_null(strstr(saf_error_text(), "up to 64, got a list of 65"));
        saf_job_free(&job);
    }
    saf_buf_free(&text);
}

/* Whatever is done to a good file, the answer is a job or USAGE with a message. */
static void test_job_mangled_files_never_crash(void **state) {
    (void)state;
    static const char good[] = JOB
        "generate: { stop = [\"a\\n\", \"b\"]; seed = 12345678901; top_p = 0.5; };\n"
        "layout: { stages = (1, 2L, 0x3); share = (1, 2.5, 3e2); }; /* c */ # d\n";
    static const char bytes[] = "\"\\{}[]();:=,./*#@-+eEL\n\0\xFF 0x";
    char text[sizeof good];
    for (uint64_t i = 0; i < 4000; i++) {
        uint32_t r[4];
        saf_philox(1, 0, i, r);
        memcpy(text, good, sizeof good);
        size_t len = sizeof good - 1;
        text[r[0] % len] = bytes[r[1] % (sizeof bytes - 1)];
        if (r[2] % 3 == 0) text[r[2] / 3 % len] = bytes[r[3] % (sizeof bytes - 1)];
        if (r[2] % 5 == 0) len = r[3] % len;
        saf_job job = {0};
        write_bytes(text, len);
        saf_status st = saf_job_read(path, 0, NULL, &job);
        assert_true(st == SAF_OK || st == SAF_USAGE);
        assert_true(st == SAF_OK ? job.text != NULL : saf_error_text()[0] != 0);
        saf_job_free(&job);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_wrong_files_are_explained),
        cmocka_unit_test(test_job_missing_file_is_no_input),
        cmocka_unit_test(test_job_zero_byte_is_refused),
        cmocka_unit_test(test_job_includes_are_bounded),
        cmocka_unit_test(test_job_size_is_bounded),
        cmocka_unit_test(test_job_settings_are_bounded),
        cmocka_unit_test(test_job_lists_are_bounded),
        cmocka_unit_test(test_job_mangled_files_never_crash),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
