/* Status codes, the record of the newest error, and the log. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/core.h"

static void test_status_exit_codes(void **state) {
    (void)state;
    /* What the manual promises; launchers act on 75, and 110, 126 and above mean other things. */
    static const struct {
        saf_status status;
        int code;
    } promised[] = {
        {SAF_OK, 0},        {SAF_FAILED, 1},   {SAF_NO_MEMORY, 1},
        {SAF_COMM, 1},      {SAF_USAGE, 2},    {SAF_BAD_INPUT, 65},
        {SAF_NO_INPUT, 66}, {SAF_DEFECT, 70},  {SAF_CANNOT_CREATE, 73},
        {SAF_IO, 74},       {SAF_STOPPED, 75}, {SAF_WATCHDOG, 124},
    };
    for (size_t i = 0; i < sizeof promised / sizeof promised[0]; i++) {
        assert_int_equal(saf_status_exit_code(promised[i].status), promised[i].code);
        assert_true(strlen(saf_status_text(promised[i].status)) > 3);
    }
    assert_int_equal(saf_status_exit_code((saf_status)1000), 70);
    assert_non_null(saf_status_text((saf_status)1000));
}

static saf_status may_fail(saf_status wanted, int *passed) {
    saf_status st = SAF_OK;
    SAF_TRY(wanted);
    *passed += 1;
out:
    return st;
}

static void test_status_try_leaves(void **state) {
    (void)state;
    int passed = 0;
    assert_int_equal(may_fail(SAF_OK, &passed), SAF_OK);
    assert_int_equal(may_fail(SAF_IO, &passed), SAF_IO);
    assert_int_equal(passed, 1);
}

static void test_status_newest_error_is_kept(void **state) {
    (void)state;
    assert_int_equal(saf_fail(SAF_IO, "first %d", 1), SAF_IO);
    assert_string_equal(saf_error_text(), "first 1");
    /* The text may be built from the one before. */
    assert_int_equal(saf_fail(SAF_BAD_INPUT, "second: %s", saf_error_text()), SAF_BAD_INPUT);
    assert_string_equal(saf_error_text(), "second: first 1");
    static char longest[10000];
    memset(longest, 'y', sizeof longest - 1);
    (void)saf_fail(SAF_IO, "%s", longest);
    size_t len = strlen(saf_error_text());
    assert_true(len > 1000 && len < sizeof longest - 1);
}

/* A file's own text is part of many messages. */
static void test_status_messages_are_printable(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"\x1B[2J\x1B]0;title\a", "?[2J?]0;title?"},
        {"a\nsaf: done\tb\r", "a saf: done b?"},
        {"\x7F\xC2\x9B"
         "31m\xC2\x80",
         "??31m?"},
        {"caf\xC3\xA9 \xE4\xB8\xAD", "caf\xC3\xA9 \xE4\xB8\xAD"},
        {"\xC3(\xFF\xED\xA0\x80", "?(????"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        (void)saf_fail(SAF_BAD_INPUT, "%s", pairs[i][0]);
        assert_string_equal(saf_error_text(), pairs[i][1]);
    }
    /* Cut in the middle of a character, by a precision or by the length of the record. */
    (void)saf_fail(SAF_BAD_INPUT, "%.*s.", 2, "\xE4\xB8\xAD");
    assert_string_equal(saf_error_text(), "??.");
    static char longest[10001];
    for (size_t i = 0; i + 2 < sizeof longest; i += 2) memcpy(longest + i, "\xC3\xA9", 2);
    (void)saf_fail(SAF_IO, "-%s", longest);
    assert_int_equal(saf_utf8_valid_prefix(saf_error_text(), strlen(saf_error_text())),
                     strlen(saf_error_text()));
}

enum { THREADS = 4 };

static void *fail_often(void *letter) {
    char text[1500];
    memset(text, *(char *)letter, sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (int i = 0; i < 2000; i++) (void)saf_fail(SAF_IO, "%s", text);
    return NULL;
}

static void test_status_threads_do_not_mix_errors(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    char letters[THREADS];
    for (int i = 0; i < THREADS; i++) {
        letters[i] = (char)('a' + i);
        assert_int_equal(pthread_create(&threads[i], NULL, fail_often, &letters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    const char *text = saf_error_text();
    assert_int_equal(strlen(text), 1499);
    for (size_t i = 1; i < 1499; i++) assert_int_equal(text[i], text[0]);
}

/* What a call of saf_log writes to stderr. */
static void logged(char *out, size_t size, saf_log_level level, const char *text) {
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    assert_true(kept >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    saf_log(level, "%s", text);
    fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    rewind(file);
    size_t n = fread(out, 1, size - 1, file);
    out[n] = 0;
    fclose(file);
}

static void test_log_levels_and_prefixes(void **state) {
    (void)state;
    char line[8192];
    saf_log_setup(SAF_LOG_WARNING, -1);
    logged(line, sizeof line, SAF_LOG_ERROR, "no such file");
    assert_string_equal(line, "saf: error: no such file\n");
    logged(line, sizeof line, SAF_LOG_INFO, "loading");
    assert_string_equal(line, "");
    saf_log_setup(SAF_LOG_DEBUG, 3);
    logged(line, sizeof line, SAF_LOG_DEBUG, "x");
    assert_string_equal(line, "saf[3]: debug: x\n");
    static char longest[6000];
    memset(longest, 'z', sizeof longest - 1);
    logged(line, sizeof line, SAF_LOG_INFO, longest); /* cut, and still one line */
    assert_true(strlen(line) > 3000 && strlen(line) < 5000);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    saf_log_setup(SAF_LOG_INFO, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_exit_codes),
        cmocka_unit_test(test_status_try_leaves),
        cmocka_unit_test(test_status_newest_error_is_kept),
        cmocka_unit_test(test_status_messages_are_printable),
        cmocka_unit_test(test_status_threads_do_not_mix_errors),
        cmocka_unit_test(test_log_levels_and_prefixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
