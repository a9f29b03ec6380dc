/* Job files that are right: values, defaults, overrides, includes, the text as it runs. */
#include <float.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "job/fields.h"
#include "saf/job.h"

static const char *const minimal =
    "job = \"generate\"; model: { path = \"m.gguf\"; }; input: { prompts = \"p.txt\"; };\n";

static char folder[] = "/tmp/saf-test-job-XXXXXX";

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

static const char *write_file(const char *name, const char *text) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

static void read_ok(const char *text, int n, const char *const *words, saf_job *job) {
    saf_status st = saf_job_read(write_file("job.cfg", text), n, words, job);
    if (st != SAF_OK) print_error("%s\n", saf_error_text());
    assert_int_equal(st, SAF_OK);
}

static void test_job_minimal_has_documented_defaults(void **state) {
    (void)state;
    saf_job j = {0};
    read_ok(minimal, 0, NULL, &j);
    assert_int_equal(j.kind, SAF_JOB_GENERATE);
    assert_string_equal(j.model.path, "m.gguf");
    assert_int_equal(j.model.kv_type, SAF_KV_F16);
    assert_int_equal(j.layout.pipeline + j.layout.tensor + j.layout.replicas + j.layout.threads, 0);
    assert_int_equal(j.layout.n_stages + j.layout.n_share, 0);
    assert_string_equal(j.input.prompts, "p.txt");
    assert_null(j.input.texts);
    assert_null(j.input.tokens);
    assert_null(j.input.prompt);
    assert_false(j.input.special);
    assert_int_equal(j.generate.max_tokens, 128);
    assert_true(j.generate.sampling.temperature == 0.0);
    assert_int_equal(j.generate.sampling.top_k, 0);
    assert_true(j.generate.sampling.top_p == 1.0);
    assert_true(j.generate.sampling.min_p == 0.0);
    assert_true(j.generate.sampling.repeat_penalty == 1.0);
    assert_int_equal(j.generate.sampling.repeat_last, 64);
    assert_int_equal(j.generate.sampling.seed, 1);
    assert_int_equal(j.generate.n_stop + j.generate.n_stop_ids + j.generate.logprobs, 0);
    assert_false(j.generate.ignore_eos || j.generate.logits || j.score.logits);
    assert_int_equal(j.run.context + j.run.sequences + j.run.micro_batch + j.run.chunk, 0);
    assert_string_equal(j.output.file, "results/job.h5");
    saf_job_free(&j);
    assert_null(j.text);
}

static void test_job_every_key_is_read(void **state) {
    (void)state;
    saf_job j = {0};
    read_ok(
        "job = \"generate\";\n"
        "model: { path = \"a b/m.gguf\"; kv_type = \"f32\"; };\n"
        "layout: { pipeline = 3; tensor = 4; replicas = 2; stages = [4, 5, 6]; threads = 7;\n"
        "  share = (512, 0.1); };\n"
        "input: { tokens = \"ids\"; special = true; };\n"
        "generate: { max_tokens = 9; temperature = 0.7; top_k = 40; top_p = 0.95;\n"
        "  min_p = 0.05; repeat_penalty = 1.1; repeat_last = -1; seed = 9223372036854775807;\n"
        "  stop = [\"\\n\\n\", \"END\"]; stop_ids = (2, 3); logprobs = 5; ignore_eos = TRUE;\n"
        "  logits = true; };\n"
        "run: { context = 4096; sequences = 16; micro_batch = 4; chunk = 256; };\n"
        "output: { file = \"/tmp/x.h5\"; };\n",
        0, NULL, &j);
    assert_string_equal(j.model.path, "a b/m.gguf");
    assert_int_equal(j.model.kv_type, SAF_KV_F32);
    assert_int_equal(j.layout.pipeline, 3);
    assert_int_equal(j.layout.n_stages, 3);
    assert_int_equal(j.layout.stages[0] * 100 + j.layout.stages[1] * 10 + j.layout.stages[2], 456);
    assert_int_equal(j.layout.tensor * 10 + j.layout.replicas, 42);
    assert_int_equal(j.layout.threads, 7);
    assert_int_equal(j.layout.n_share, 2);
    assert_true(j.layout.share[0] == 512 && j.layout.share[1] == 0.1);
    assert_string_equal(j.input.tokens, "ids");
    assert_true(j.input.special);
    assert_int_equal(j.generate.max_tokens, 9);
    assert_true(j.generate.sampling.temperature == 0.7);
    assert_int_equal(j.generate.sampling.top_k, 40);
    assert_true(j.generate.sampling.top_p == 0.95);
    assert_true(j.generate.sampling.min_p == 0.05);
    assert_true(j.generate.sampling.repeat_penalty == 1.1);
    assert_int_equal(j.generate.sampling.repeat_last, -1);
    assert_true(j.generate.sampling.seed == INT64_MAX);
    assert_int_equal(j.generate.n_stop, 2);
    assert_string_equal(j.generate.stop[0], "\n\n");
    assert_string_equal(j.generate.stop[1], "END");
    assert_int_equal(j.generate.n_stop_ids, 2);
    assert_int_equal(j.generate.stop_ids[1], 3);
    assert_int_equal(j.generate.logprobs, 5);
    assert_true(j.generate.ignore_eos && j.generate.logits);
    assert_int_equal(j.run.context, 4096);
    assert_int_equal(j.run.sequences, 16);
    assert_int_equal(j.run.micro_batch, 4);
    assert_int_equal(j.run.chunk, 256);
    assert_string_equal(j.output.file, "/tmp/x.h5");
    saf_job_free(&j);
}

/* libconfig 1.5 alone reads 3000000000 as -1294967296, without a word. */
static void test_job_large_integers_are_whole(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {{"0", 0},
                 {"2147483648", 2147483648u},
                 {"3000000000", 3000000000u},
                 {"3000000000L", 3000000000u},
                 {"4294967297", 4294967297u},
                 {"9007199254740993", 9007199254740993u},
                 {"9223372036854775807", INT64_MAX},
                 {"9223372036854775807LL", INT64_MAX},
                 {"0xFFFFFFFF", 4294967295u},
                 {"0x7fffffffffffffff", INT64_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        saf_job j = {0};
        char text[256], word[64];
        snprintf(text, sizeof text, "%sgenerate: { seed = %s; };", minimal, cases[i].text);
        read_ok(text, 0, NULL, &j);
        assert_true(j.generate.sampling.seed == cases[i].value);
        saf_job_free(&j);
        snprintf(word, sizeof word, "generate.seed=%s", cases[i].text);
        const char *words[] = {word};
        read_ok(minimal, 1, words, &j);
        assert_true(j.generate.sampling.seed == cases[i].value);
        saf_job_free(&j);
    }
}

static void test_job_integers_serve_as_floats(void **state) {
    (void)state;
    saf_job j = {0};
    const char *words[] = {"generate.temperature=2"};
    read_ok(
        "job = \"generate\"; model: { path = \"m\"; }; input: { prompt = \"x\"; };"
        "generate: { top_p = 1; min_p = 0; repeat_penalty = 1e-3; };",
        1, words, &j);
    assert_true(j.generate.sampling.temperature == 2.0);
    assert_true(j.generate.sampling.top_p == 1.0);
    assert_true(j.generate.sampling.repeat_penalty == 1e-3);
    saf_job_free(&j);
}

static void test_job_overrides_win_and_need_no_quotes(void **state) {
    (void)state;
    saf_job j = {0};
    const char *words[] = {
        "model.path=other model.gguf",    "generate.max_tokens=1", "generate.max_tokens=2",
        "generate.stop=[\"a\", \"b=c\"]", "model.kv_type=q8_0",    "input.special=true",
        "output.file=\"quoted\\t.h5\"",   "layout.stages=[3,4]",   "layout.share=[0.5]"};
    read_ok(minimal, 9, words, &j);
    assert_string_equal(j.model.path, "other model.gguf");
    assert_int_equal(j.generate.max_tokens, 2);
    assert_int_equal(j.generate.n_stop, 2);
    assert_string_equal(j.generate.stop[1], "b=c");
    assert_int_equal(j.model.kv_type, SAF_KV_Q8_0);
    assert_true(j.input.special);
    assert_string_equal(j.output.file, "quoted\t.h5");
    assert_int_equal(j.layout.stages[1], 4);
    assert_true(j.layout.n_share == 1 && j.layout.share[0] == 0.5);
    saf_job_free(&j);
}

static void test_job_input_on_command_line_replaces_the_files(void **state) {
    (void)state;
    saf_job j = {0};
    const char *words[] = {"input.prompt=\"Hello\" she said"};
    read_ok(minimal, 1, words, &j);
    assert_null(j.input.prompts);
    assert_string_equal(j.input.prompt, "\"Hello\" she said");
    assert_null(strstr(j.text, "p.txt"));
    saf_job_free(&j);
}

static void test_job_kind_can_be_overridden(void **state) {
    (void)state;
    saf_job j = {0};
    const char *words[] = {"job=score", "input.texts=t.txt", "score.logits=true"};
    read_ok("job = \"generate\"; model: { path = \"m\"; };", 3, words, &j);
    assert_int_equal(j.kind, SAF_JOB_SCORE);
    assert_true(j.score.logits);
    assert_string_equal(j.input.texts, "t.txt");
    assert_null(strstr(j.text, "generate"));
    saf_job_free(&j);
}

static void test_job_output_is_named_after_the_file(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a.b.cfg", "results/a.b.h5"}, {"plain", "results/plain.h5"}, {".cfg", "results/.cfg.h5"}};
    for (size_t i = 0; i < 3; i++) {
        saf_job j = {0};
        assert_int_equal(saf_job_read(write_file(cases[i][0], minimal), 0, NULL, &j), SAF_OK);
        assert_string_equal(j.output.file, cases[i][1]);
        saf_job_free(&j);
    }
}

static void test_job_includes_are_relative_to_the_including_file(void **state) {
    (void)state;
    saf_job j = {0};
    char sub[256];
    snprintf(sub, sizeof sub, "mkdir -p '%s/sub'", folder);
    assert_int_equal(system(sub), 0);
    write_file("sub/model.inc", "\xEF\xBB\xBF@include \"deep.inc\"\nkv_type = \"f32\"");
    write_file("sub/deep.inc", "path = \"deep.gguf\";");
    write_file("empty.inc", "");
    read_ok(
        "@include \"empty.inc\"\njob = \"generate\";\nmodel: {\n"
        "  @include \"sub/model.inc\" // why not\n};\ninput: { prompt = \"x\"; };\n"
        "/* @include \"missing\"\n@include \"missing\" */ run: { chunk = 5; };\n",
        0, NULL, &j);
    assert_string_equal(j.model.path, "deep.gguf");
    assert_int_equal(j.model.kv_type, SAF_KV_F32);
    assert_int_equal(j.run.chunk, 5);
    assert_null(strstr(j.text, "@include"));
    saf_job_free(&j);
}

/* text -> job -> text -> job: the same text, the same values. */
static void check_round_trip(const char *text, int n, const char *const *words) {
    saf_job a = {0}, b = {0};
    read_ok(text, n, words, &a);
    read_ok(a.text, 0, NULL, &b);
    assert_string_equal(a.text, b.text);
    assert_int_equal(a.kind, b.kind);
    assert_memory_equal(&a.generate.sampling, &b.generate.sampling, sizeof a.generate.sampling);
    assert_int_equal(a.generate.n_stop, b.generate.n_stop);
    for (int32_t i = 0; i < a.generate.n_stop; i++)
        assert_string_equal(a.generate.stop[i], b.generate.stop[i]);
    if (a.input.prompt) assert_string_equal(a.input.prompt, b.input.prompt);
    assert_string_equal(a.output.file, b.output.file);
    saf_job_free(&a);
    saf_job_free(&b);
}

static void test_job_text_round_trips(void **state) {
    (void)state;
    const char *stop =
        "generate.stop=[\"\\\"\", \"\\\\n\", \"\\n\\r\\t\\f\", \"\\x01\\x7f\", \"é\xE2\x82\xAC\", "
        "\"L1\"]";
    const char *words[] = {stop, "generate.stop_ids=[0, 2147483647]",
                           "generate.seed=9223372036854775807",
                           "input.prompt=It said: \"a\\b\" # // /* @include"};
    check_round_trip(minimal, 0, NULL);
    check_round_trip(minimal, 4, words);
    check_round_trip(
        "job = \"score\"; model: { path = \"m\"; }; input: { tokens = \"t\"; };"
        "layout: { stages = [1, 2]; };",
        0, NULL);
}

static void test_job_text_keeps_every_bit_of_a_float(void **state) {
    (void)state;
    double values[64] = {0.1, 1.0 / 3, DBL_MIN, DBL_EPSILON, 4.9e-324, 100.0, 99.999999999999986,
                         64,  1e-5};
    for (int i = 9; i < 64; i++) values[i] = 100 * saf_philox_uniform(7, 0, (uint64_t)i);
    for (int i = 0; i < 64; i++) {
        char word[64];
        const char *words[] = {word};
        saf_job a = {0}, b = {0};
        snprintf(word, sizeof word, "generate.temperature=%.25e", values[i]);
        read_ok(minimal, 1, words, &a);
        assert_true(a.generate.sampling.temperature == values[i]);
        read_ok(a.text, 0, NULL, &b);
        assert_memory_equal(&a.generate.sampling, &b.generate.sampling, sizeof a.generate.sampling);
        saf_job_free(&a);
        saf_job_free(&b);
    }
}

static void test_job_text_has_every_key(void **state) {
    (void)state;
    saf_job j = {0};
    read_ok(minimal, 0, NULL, &j);
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (!(f->kinds & SAF__FOR_GENERATE) || f->input) continue;
        char want[64];
        const char *dot = strchr(f->key, '.');
        snprintf(want, sizeof want, "%s = ", dot ? dot + 1 : f->key);
        if (!strstr(j.text, want)) print_error("no %s in:\n%s", want, j.text);
        assert_non_null(strstr(j.text, want));
    }
    saf_job_free(&j);
}

/* ---- help ---------------------------------------------------------------------------------- */

static char *help_of(saf_job_kind kind, bool markdown) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    saf_job_help(kind, markdown, out);
    fclose(out);
    return text;
}

/* A key parses if and only if the help has it. */
static void test_job_help_lists_the_keys_that_parse(void **state) {
    (void)state;
    for (int kind = 0; kind < SAF_JOB_KINDS; kind++) {
        char *text = help_of((saf_job_kind)kind, false), *rows = help_of((saf_job_kind)kind, true);
        for (int i = 0; i < saf__field_count; i++) {
            char line[80], row[80], word[80], job[80];
            const char *words[] = {job, word};
            saf_job j = {0};
            snprintf(line, sizeof line, "\n  %s\n", saf__fields[i].key);
            snprintf(row, sizeof row, "\n| `%s` |", saf__fields[i].key);
            snprintf(job, sizeof job, "job=%s", saf_job_kind_name((saf_job_kind)kind));
            snprintf(word, sizeof word, "%s=*", saf__fields[i].key);
            assert_int_equal(strstr(text, line) != NULL, strstr(rows, row) != NULL);
            saf_status st = saf_job_read(write_file("job.cfg", ""), 2, words, &j);
            /* the value, or what else is missing; a bench job needs no more than a path */
            assert_true(st == SAF_USAGE || (st == SAF_OK && kind == SAF_JOB_BENCH));
            bool unknown = st != SAF_OK && (strstr(saf_error_text(), "unknown key") ||
                                            strstr(saf_error_text(), "a key of"));
            assert_int_equal(strstr(text, line) != NULL, !unknown);
            saf_job_free(&j);
        }
        free(text);
        free(rows);
    }
}

static void test_job_manual_has_the_rows_of_the_table(void **state) {
    (void)state;
    saf_buf page = {0};
    assert_int_equal(saf_file_read("doc/job-file.md", 1 << 20, &page), SAF_OK);
    for (int kind = 0; kind < SAF_JOB_KINDS; kind++) {
        char *rows = help_of((saf_job_kind)kind, true);
        if (!strstr(page.data, rows))
            print_error("doc/job-file.md lacks the rows that `saf help %s --markdown` prints\n",
                        saf_job_kind_name((saf_job_kind)kind));
        assert_non_null(strstr(page.data, rows));
        free(rows);
    }
    saf_buf_free(&page);
}

static void test_job_bench_has_documented_defaults(void **state) {
    (void)state;
    saf_job j = {0};
    read_ok("job = \"bench\"; model: { shape = \"1:2:3:4:5:6\"; type = \"q4_k\"; };\n", 0, NULL,
            &j);
    assert_int_equal(j.kind, SAF_JOB_BENCH);
    assert_null(j.model.path);
    assert_string_equal(j.model.shape, "1:2:3:4:5:6");
    assert_int_equal(j.model.arch, SAF_ARCH_QWEN3);
    assert_int_equal(saf_job_made_type(&j), SAF_DTYPE_Q4_K);
    assert_int_equal(j.model.vocab, 0);
    assert_false(j.model.tied);
    assert_int_equal(j.bench.repeats, 9);
    assert_int_equal(j.bench.prompt_tokens, 512);
    assert_int_equal(j.bench.decode_tokens, 16);
    assert_int_equal(j.bench.context, 4096);
    assert_int_equal(j.bench.sequences, 16);
    assert_int_equal(j.bench.read_mib, 0);
    saf_job_free(&j);
}

/* Each name of a type gives that type. */
static void test_job_bench_types_are_themselves(void **state) {
    (void)state;
    const saf__field *f = saf__field_find(SAF_JOB_BENCH, "model.type");
    assert_non_null(f);
    for (int i = 0; f->choices[i]; i++) {
        char word[32];
        const char *words[] = {word};
        saf_dtype type;
        saf_job j = {0};
        snprintf(word, sizeof word, "model.type=%s", f->choices[i]);
        read_ok("job = \"bench\"; model: { path = \"m\"; };\n", 1, words, &j);
        assert_true(saf_dtype_from_name(f->choices[i], &type));
        assert_int_equal(saf_job_made_type(&j), type);
        saf_job_free(&j);
    }
    f = saf__field_find(SAF_JOB_BENCH, "model.arch");
    assert_non_null(f);
    for (int i = 0; f->choices[i]; i++)
        assert_string_equal(f->choices[i], saf_arch_name((saf_arch)i));
}

static void test_job_examples_are_right(void **state) {
    (void)state;
    static const char *const files[] = {"jobs/generate.cfg", "jobs/score.cfg", "jobs/demo.cfg"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        saf_job j = {0};
        saf_status st = saf_job_read(files[i], 0, NULL, &j);
        if (st != SAF_OK) print_error("%s\n", saf_error_text());
        assert_int_equal(st, SAF_OK);
        saf_prompt *prompts = NULL;
        int64_t n = 0;
        st = saf_prompts_read(&j, &prompts, &n);
        if (st != SAF_OK) print_error("%s\n", saf_error_text());
        assert_int_equal(st, SAF_OK);
        assert_true(n > 0);
        saf_prompts_free(&prompts, n);
        saf_job_free(&j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_minimal_has_documented_defaults),
        cmocka_unit_test(test_job_every_key_is_read),
        cmocka_unit_test(test_job_large_integers_are_whole),
        cmocka_unit_test(test_job_integers_serve_as_floats),
        cmocka_unit_test(test_job_overrides_win_and_need_no_quotes),
        cmocka_unit_test(test_job_input_on_command_line_replaces_the_files),
        cmocka_unit_test(test_job_kind_can_be_overridden),
        cmocka_unit_test(test_job_output_is_named_after_the_file),
        cmocka_unit_test(test_job_includes_are_relative_to_the_including_file),
        cmocka_unit_test(test_job_text_round_trips),
        cmocka_unit_test(test_job_text_keeps_every_bit_of_a_float),
        cmocka_unit_test(test_job_text_has_every_key),
        cmocka_unit_test(test_job_help_lists_the_keys_that_parse),
        cmocka_unit_test(test_job_manual_has_the_rows_of_the_table),
        cmocka_unit_test(test_job_bench_has_documented_defaults),
        cmocka_unit_test(test_job_bench_types_are_themselves),
        cmocka_unit_test(test_job_examples_are_right),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
