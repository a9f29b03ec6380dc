/* Checkpoints: what is written comes back; which files count, stay and go; what makes two runs the
 * same job; a results file written at the same time. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "checkpoint_folder.h"

static const char *beside(const char *ending) {
    static char path[8][400];
    static int at = 0;
    at = (at + 1) % 8;
    snprintf(path[at], sizeof path[at], "%s%s", output, ending);
    return path[at];
}

static void write_numbers(int64_t from, int64_t to) {
    for (int64_t i = from; i <= to; i++) fixture_ok(checkpoint_write(output, i, 3, NULL));
}

static void expect_newest(int64_t number, const char *ending) {
    saf_checkpoint *c = NULL;
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_non_null(c);
    assert_int_equal(checkpoint_number(c), number);
    assert_true(checkpoint_is_whole(c, 3));
    assert_string_equal(saf_checkpoint_path(c), beside(ending));
    saf_checkpoint_free(&c);
}

static void touch(const char *ending, const char *content) {
    FILE *f = fopen(beside(ending), "w");
    assert_non_null(f);
    fputs(content, f);
    fclose(f);
}

/* ---- contents ---- */

static void test_checkpoint_round_trip(void **state) {
    (void)state;
    for (int64_t i = 1; i <= 8; i++) {
        saf_checkpoint *c = NULL;
        int64_t bytes = 0;
        int64_t scale = i < 8 ? i * i * 10 : 100000; /* the last: several pieces of each */
        struct stat s;
        char ending[32];
        snprintf(ending, sizeof ending, ".ckpt-%d", (int)i);
        fixture_ok(checkpoint_write(output, i, scale, &bytes));
        assert_int_equal(stat(beside(ending), &s), 0);
        assert_int_equal(s.st_size, bytes);
        assert_int_equal(s.st_mode & 07777, 0600);
        fixture_ok(saf_checkpoint_open(beside(ending), &c));
        assert_int_equal(checkpoint_number(c), i);
        assert_true(checkpoint_is_whole(c, scale));
        saf_checkpoint_free(&c);
    }
}

static void test_checkpoint_pieces(void **state) {
    (void)state;
    enum { N = 5000 };
    saf_checkpoint_head head;
    saf_checkpoint_writer *w = NULL;
    saf_checkpoint *c = NULL;
    int64_t values[N], back[N], n = 0, *all = NULL;
    for (int i = 0; i < N; i++) values[i] = (int64_t)i * i - 77;
    checkpoint_head(&head, 1);
    fixture_ok(saf_checkpoint_create(output, &head, &w));
    for (int at = 0, step = 1; at < N; at += step, step = 2 * step + 1) {
        if (step > N - at) step = N - at;
        fixture_ok(saf_checkpoint_put_some(w, "a", SAF_DTYPE_I64, N, at, step, values + at));
    }
    fixture_ok(saf_checkpoint_put_some(w, "none", SAF_DTYPE_F32, 0, 0, 0, NULL));
    fixture_ok(saf_checkpoint_put(w, "nothing", SAF_DTYPE_U8, 0, NULL));
    fixture_ok(saf_checkpoint_commit(w, NULL));
    saf_checkpoint_writer_free(&w);
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    fixture_ok(saf_checkpoint_get(c, "a", SAF_DTYPE_I64, N, &n, &all));
    assert_int_equal(n, N);
    assert_memory_equal(all, values, sizeof values);
    fixture_ok(saf_checkpoint_get_some(c, "a", SAF_DTYPE_I64, 100, N - 101, back));
    assert_memory_equal(back, values + 100, (N - 101) * sizeof *back);
    fixture_ok(saf_checkpoint_get_some(c, "a", SAF_DTYPE_I64, N, 0, back));
    /* what is not so */
    assert_int_equal(saf_checkpoint_get_some(c, "a", SAF_DTYPE_I64, N, 1, back), SAF_BAD_INPUT);
    assert_int_equal(saf_checkpoint_get_some(c, "a", SAF_DTYPE_I64, -1, 1, back), SAF_BAD_INPUT);
    assert_int_equal(saf_checkpoint_get_some(c, "a", SAF_DTYPE_F64, 0, 1, back), SAF_BAD_INPUT);
    saf_free(&all);
    assert_int_equal(saf_checkpoint_get(c, "a", SAF_DTYPE_I64, N - 1, &n, &all), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "5000 values, expected at most 4999"));
    assert_int_equal(saf_checkpoint_get(c, "b", SAF_DTYPE_I64, N, &n, &all), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "has no /state/b"));
    assert_null(all);
    saf_checkpoint_free(&c);
    saf_checkpoint_head_free(&head);
}

/* Defects of the caller: said, and nothing takes a name. */
static void test_checkpoint_misuse(void **state) {
    (void)state;
    static const char *const names[] = {"", "/a", "a/b", "..", "A", "a.b", "\xC3\xA9"};
    saf_checkpoint_head head;
    saf_checkpoint_writer *w = NULL;
    int32_t v[4] = {1, 2, 3, 4};
    checkpoint_head(&head, 1);
    fixture_ok(saf_checkpoint_create(output, &head, &w));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(saf_checkpoint_put(w, names[i], SAF_DTYPE_I32, 4, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put(w, "a", SAF_DTYPE_Q8_0, 32, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put(w, "a", SAF_DTYPE_I32, -1, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put(w, "a", SAF_DTYPE_I32, INT64_MAX, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put_some(w, "a", SAF_DTYPE_I32, 4, 1, 1, v), SAF_DEFECT);
    fixture_ok(saf_checkpoint_put(w, "a", SAF_DTYPE_I32, 4, v));
    assert_int_equal(saf_checkpoint_put(w, "a", SAF_DTYPE_I32, 4, v), SAF_DEFECT);
    fixture_ok(saf_checkpoint_put_some(w, "b", SAF_DTYPE_I32, 4, 0, 2, v));
    assert_int_equal(saf_checkpoint_put(w, "c", SAF_DTYPE_I32, 4, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put_some(w, "b", SAF_DTYPE_I32, 4, 3, 1, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put_some(w, "b", SAF_DTYPE_I32, 5, 2, 2, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put_some(w, "b", SAF_DTYPE_I32, 4, 2, 3, v), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_commit(w, NULL), SAF_DEFECT);
    assert_int_equal(saf_checkpoint_put(w, "d", SAF_DTYPE_I32, 4, v), SAF_DEFECT);
    saf_checkpoint_writer_free(&w);
    saf_checkpoint_head_free(&head);
    assert_false(fixture_exists(beside(".ckpt-1")));
    assert_false(fixture_exists(beside(".ckpt-1.part")));
}

/* ---- which files ---- */

static void test_checkpoint_newest_two(void **state) {
    (void)state;
    saf_checkpoint *c = (saf_checkpoint *)output;
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_null(c);
    fixture_ok(saf_checkpoint_open_newest("/nowhere/at/all.h5", &c));
    assert_null(c);
    write_numbers(1, 12); /* 9, 10: the largest number, not the last name */
    expect_newest(12, ".ckpt-12");
    for (int i = 1; i <= 12; i++) {
        char ending[32];
        snprintf(ending, sizeof ending, ".ckpt-%d", i);
        assert_int_equal(fixture_exists(beside(ending)), i > 10);
    }
    fixture_ok(saf_checkpoints_remove(output));
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_null(c);
    fixture_ok(saf_checkpoints_remove(output));
}

static void test_checkpoint_relative_names(void **state) {
    (void)state;
    char before[400];
    saf_checkpoint *c = NULL;
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    fixture_ok(checkpoint_write("r.h5", 5, 3, NULL));
    fixture_ok(saf_checkpoint_open_newest("r.h5", &c));
    assert_string_equal(saf_checkpoint_path(c), "r.h5.ckpt-1");
    saf_checkpoint_free(&c);
    fixture_ok(saf_checkpoint_open_newest("./r.h5", &c));
    assert_string_equal(saf_checkpoint_path(c), "./r.h5.ckpt-1");
    saf_checkpoint_free(&c);
    assert_int_equal(chdir(before), 0);
}

static void test_checkpoint_names_of_others(void **state) {
    (void)state;
    static const char *const others[] = {
        ".ckpt-1.h5",   ".ckpt-01",    "2.ckpt-1", ".ckpt-+1", ".ckpt-99999999999999999999",
        ".ckpt-",       ".ckpt--1",    ".ckpt-1 ", ".ckpt-0",  ".ckpt-1.part.part",
        ".ckpt-1x",     ".ckpt-.part", "",         ".part",    ".ckpt-01.part",
        ".ckpt-7.PART", ".ckpt-1e1",   ".ckpt-0x1"};
    enum { N = sizeof others / sizeof others[0] };
    for (int i = 0; i < N; i++) touch(others[i], "somebody's");
    write_numbers(1, 4);
    expect_newest(4, ".ckpt-4");
    fixture_ok(saf_checkpoints_remove(output));
    for (int i = 0; i < N; i++) {
        saf_buf content = {0};
        fixture_ok(saf_file_read(beside(others[i]), 100, &content));
        assert_string_equal(content.data, "somebody's");
        saf_buf_free(&content);
    }
    assert_false(fixture_exists(beside(".ckpt-3")));
    assert_false(fixture_exists(beside(".ckpt-4")));
}

static void test_checkpoint_leftovers(void **state) {
    (void)state;
    saf_checkpoint *c = NULL;
    touch(".ckpt-1.part", "of a dead writer");
    touch(".ckpt-7.part", "of another");
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_null(c);
    write_numbers(3, 3);
    assert_false(fixture_exists(beside(".ckpt-1.part")));
    assert_false(fixture_exists(beside(".ckpt-7.part")));
    expect_newest(3, ".ckpt-8"); /* a number is used once */
    touch(".ckpt-9.part", "of a third");
    fixture_ok(saf_checkpoints_remove(output));
    assert_false(fixture_exists(beside(".ckpt-9.part")));
    touch(".ckpt-999999999999999999", "the last number");
    assert_int_equal(checkpoint_write(output, 1, 3, NULL), SAF_CANNOT_CREATE);
}

/* What is no regular file is neither followed nor removed. */
static void test_checkpoint_no_regular_file(void **state) {
    (void)state;
    saf_checkpoint *c = NULL;
    char real[400];
    write_numbers(1, 1);
    snprintf(real, sizeof real, "%s/precious", folder);
    assert_int_equal(rename(beside(".ckpt-1"), real), 0);
    assert_int_equal(symlink("precious", beside(".ckpt-1")), 0);
    assert_int_equal(mkdir(beside(".ckpt-2"), 0700), 0);
    assert_int_equal(mkfifo(beside(".ckpt-3"), 0600), 0);
    assert_int_equal(symlink("precious", beside(".ckpt-4.part")), 0);
    assert_int_equal(mkfifo(beside(".ckpt-5.part"), 0600), 0);
    assert_int_equal(saf_checkpoint_open_newest(output, &c), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "none of its 3 checkpoints"));
    assert_non_null(strstr(saf_error_text(), "--fresh"));
    assert_int_equal(saf_checkpoint_open(beside(".ckpt-1"), &c), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "symbolic link"));
    write_numbers(6, 8);
    expect_newest(8, ".ckpt-8");
    fixture_ok(saf_checkpoints_remove(output));
    fixture_ok(saf_checkpoint_open(real, &c));
    saf_checkpoint_free(&c);
    assert_true(fixture_exists(beside(".ckpt-1")));
    assert_true(fixture_exists(beside(".ckpt-2")));
    assert_true(fixture_exists(beside(".ckpt-3")));
    assert_true(fixture_exists(beside(".ckpt-4.part")));
    assert_true(fixture_exists(beside(".ckpt-5.part")));
}

/* A second process that writes the same output is told so, and disturbs nothing. */
static void test_checkpoint_two_writers(void **state) {
    (void)state;
    saf_checkpoint_head head;
    saf_checkpoint_writer *w = NULL;
    int status;
    checkpoint_head(&head, 0);
    fixture_ok(saf_checkpoint_create(output, &head, &w));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        saf_checkpoint_writer *mine = NULL;
        bool told = saf_checkpoint_create(output, &head, &mine) == SAF_CANNOT_CREATE &&
                    strstr(saf_error_text(), "another process is writing it");
        told = told && saf_checkpoints_remove(output) == SAF_CANNOT_CREATE;
        _exit(told ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    fixture_ok(saf_checkpoint_commit(w, NULL));
    saf_checkpoint_writer_free(&w);
    saf_checkpoint_head_free(&head);
    assert_true(fixture_exists(beside(".ckpt-1")));
}

static void test_checkpoint_no_folder(void **state) {
    (void)state;
    assert_int_equal(checkpoint_write("/nowhere/at/all.h5", 1, 3, NULL), SAF_CANNOT_CREATE);
    assert_non_null(strstr(saf_error_text(), "/nowhere/at/all.h5.ckpt-1.part"));
}

/* ---- identity ---- */

static void expect_differs(const saf_identity *now, const saf_identity *then, const char *text) {
    assert_int_equal(saf_identity_check(now, then, "g.h5"), SAF_BAD_INPUT);
    if (!strstr(saf_error_text(), text)) fail_msg("%s", saf_error_text());
}

static void test_checkpoint_identity(void **state) {
    (void)state;
    saf_identity a = {0}, b = {0};
    char longest[300];
    fixture_ok(saf_identity_check(&a, &b, "g.h5"));
    fixture_ok(saf_identity_add(&a, "model", "m"));
    fixture_ok(saf_identity_add(&a, "generate.max_tokens", "64"));
    fixture_ok(saf_identity_add(&b, "generate.max_tokens", "12"));
    expect_differs(&b, &a, "g.h5 is of another job: generate.max_tokens was 64 and is 12; --fresh");
    expect_differs(&a, &b, "model was not given and is m");
    fixture_ok(saf_identity_add(&b, "model", "m"));
    expect_differs(&a, &b, "generate.max_tokens was 12 and is 64");
    saf_identity_free(&b);
    assert_int_equal(b.n, 0);
    fixture_ok(saf_identity_add(&b, "generate.max_tokens", "64"));
    fixture_ok(saf_identity_add(&b, "model", "m"));
    fixture_ok(saf_identity_check(&a, &b, "g.h5")); /* in any order */
    fixture_ok(saf_identity_add(&b, "generate.seed", ""));
    expect_differs(&a, &b, "generate.seed was empty and is not given");
    expect_differs(&b, &a, "generate.seed was not given and is empty");
    assert_int_equal(saf_identity_add(&b, "model", "again"), SAF_DEFECT);
    assert_int_equal(saf_identity_add(&b, "", "no name"), SAF_DEFECT);
    /* a path that is not UTF-8 compares equal to what a file made of it */
    fixture_ok(saf_identity_add(&a, "generate.seed", ""));
    fixture_ok(saf_identity_add(&a, "input", "caf\xE9"));
    assert_string_equal(a.items[3].value, "caf\xEF\xBF\xBD");
    memset(longest, 'x', sizeof longest);
    longest[100] = '\n', longest[299] = '\0';
    fixture_ok(saf_identity_add(&b, "input", longest));
    expect_differs(&b, &a, "xxx...; --fresh");
    saf_identity_free(&a);
    saf_identity_free(&b);
}

/* ---- beside a results file ---- */

static atomic_bool stop;

static void *write_checkpoints(void *arg) {
    int64_t *written = arg;
    while (!stop || *written < 3) {
        if (checkpoint_write(output, *written + 1, 20000, NULL) != SAF_OK) return NULL;
        ++*written;
    }
    return arg;
}

static void test_checkpoint_beside_results(void **state) {
    (void)state;
    saf_results r, back;
    saf_results_writer *w = NULL;
    saf_checkpoint *c = NULL;
    int64_t written = 0;
    void *good = NULL;
    pthread_t thread;
    float *rows = NULL;
    fixture_make(&r, 2, 30);
    fixture_ok(saf_results_create(output, &w));
    assert_int_equal(pthread_create(&thread, NULL, write_checkpoints, &written), 0);
    fixture_ok(fixture_logits(w, &r, 200));
    fixture_ok(saf_alloc(1000 * FIXTURE_VOCAB, sizeof *rows, &rows));
    fixture_ok(saf_results_logits_back(w, 500, 1000, rows));
    for (int64_t i = 0; i < 1000; i++)
        for (int64_t k = 0; k < FIXTURE_VOCAB; k++)
            assert_true(rows[i * FIXTURE_VOCAB + k] == fixture_logit(500 + i, k));
    assert_int_equal(saf_results_logits_back(w, 5999, 1000, rows), SAF_DEFECT);
    fixture_ok(saf_results_hash(w, &r));
    fixture_ok(saf_results_finish(w, &r));
    stop = true;
    assert_int_equal(pthread_join(thread, &good), 0);
    assert_ptr_equal(good, &written);
    saf_results_writer_free(&w);
    fixture_ok(saf_results_read(output, &back));
    fixture_same(&r, &back);
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_int_equal(checkpoint_number(c), written);
    assert_true(checkpoint_is_whole(c, 20000));
    saf_checkpoint_free(&c);
    saf_free(&rows);
    saf_results_free(&r);
    saf_results_free(&back);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, checkpoint_set_up, checkpoint_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_checkpoint_round_trip),     TEST(test_checkpoint_pieces),
        TEST(test_checkpoint_misuse),         TEST(test_checkpoint_newest_two),
        TEST(test_checkpoint_relative_names), TEST(test_checkpoint_names_of_others),
        TEST(test_checkpoint_leftovers),      TEST(test_checkpoint_no_regular_file),
        TEST(test_checkpoint_two_writers),    TEST(test_checkpoint_no_folder),
        TEST(test_checkpoint_identity),       TEST(test_checkpoint_beside_results),
    };
    return cmocka_run_group_tests_name("checkpoints", tests, NULL, NULL);
}
