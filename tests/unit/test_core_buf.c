/* Growable bytes, and whole files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/core.h"

static void test_buf_append_and_printf(void **state) {
    (void)state;
    saf_buf buf = {0};
    char expected[60000] = "";
    size_t len = 0;
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(saf_buf_printf(&buf, "%d,", i), SAF_OK);
        len += (size_t)snprintf(expected + len, sizeof expected - len, "%d,", i);
        assert_int_equal(buf.len, len);
        assert_int_equal(buf.data[len], 0);
    }
    assert_string_equal(buf.data, expected);
    assert_int_equal(saf_buf_append(&buf, "\0z\0", 3), SAF_OK); /* any bytes */
    assert_int_equal(buf.len, len + 3);
    assert_memory_equal(buf.data + len, "\0z\0", 4);
    assert_int_equal(saf_buf_append(&buf, NULL, 0), SAF_OK);
    const char *data = buf.data;
    saf_buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf.data[0], 0);
    assert_ptr_equal(buf.data, data);
    saf_buf_free(&buf);
    assert_null(buf.data);
    saf_buf_clear(&buf);
    saf_buf_free(&buf);
}

static void test_buf_resize(void **state) {
    (void)state;
    saf_buf buf = {0};
    assert_int_equal(saf_buf_resize(&buf, 0), SAF_OK);
    assert_non_null(buf.data);
    assert_int_equal(buf.data[0], 0);
    assert_int_equal(saf_buf_append(&buf, "abcdef", 6), SAF_OK);
    assert_int_equal(saf_buf_resize(&buf, 2), SAF_OK);
    assert_string_equal(buf.data, "ab");
    assert_int_equal(saf_buf_resize(&buf, 100000), SAF_OK);
    assert_int_equal(buf.len, 100000);
    assert_memory_equal(buf.data, "ab", 2);
    for (size_t i = 2; i <= buf.len; i++) assert_int_equal(buf.data[i], 0); /* no old "cdef" */
    assert_int_equal(saf_buf_resize(&buf, SIZE_MAX), SAF_NO_MEMORY);
    assert_int_equal(saf_buf_resize(&buf, SIZE_MAX / 2), SAF_NO_MEMORY);
    assert_int_equal(buf.len, 100000); /* as before */
    assert_memory_equal(buf.data, "ab", 2);
    saf_buf_free(&buf);
}

static void test_buf_reads_a_file(void **state) {
    (void)state;
    char path[] = "/tmp/saf_test_buf_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static char bytes[200000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 7 + i / 256);
    saf_buf buf = {0};
    assert_int_equal(saf_file_read(path, 10, &buf), SAF_OK); /* empty */
    assert_int_equal(buf.len, 0);
    assert_non_null(buf.data);
    assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
    close(fd);
    assert_int_equal(saf_buf_append(&buf, "old", 3), SAF_OK);
    assert_int_equal(saf_file_read(path, sizeof bytes, &buf), SAF_OK);
    assert_int_equal(buf.len, sizeof bytes);
    assert_memory_equal(buf.data, bytes, sizeof bytes);
    assert_int_equal(saf_file_read(path, sizeof bytes - 1, &buf), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), path));
    assert_non_null(strstr(saf_error_text(), "199999"));
    unlink(path);
    assert_int_equal(saf_file_read(path, 1, &buf), SAF_NO_INPUT);
    assert_non_null(strstr(saf_error_text(), path));
    assert_int_equal(saf_file_read("/tmp", 1, &buf), SAF_NO_INPUT);
    assert_non_null(strstr(saf_error_text(), "folder"));
    saf_buf_free(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_append_and_printf),
        cmocka_unit_test(test_buf_resize),
        cmocka_unit_test(test_buf_reads_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
