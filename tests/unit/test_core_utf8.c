/* UTF-8, against the C library's own decoder. */
#include <iconv.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "saf/core.h"

static iconv_t decoder;

static int open_decoder(void **state) {
    (void)state;
    /* UTF-16 as the target: what it cannot hold is not Unicode. */
    decoder = iconv_open("UTF-16LE", "UTF-8");
    return decoder == (iconv_t)-1;
}
static int close_decoder(void **state) {
    (void)state;
    return iconv_close(decoder);
}

/* Bytes of text that the C library can read. */
static size_t libc_valid_prefix(const char *text, size_t len) {
    char in[64], out[256], *from = in, *to = out;
    size_t left = len, room = sizeof out;
    assert_true(len <= sizeof in);
    memcpy(in, text, len);
    iconv(decoder, NULL, NULL, NULL, NULL);
    (void)iconv(decoder, &from, &left, &to, &room);
    return len - left;
}

static void check_prefix(const char *text, size_t len) {
    size_t got = saf_utf8_valid_prefix(text, len), expected = libc_valid_prefix(text, len);
    if (got == expected) return;
    fail_msg("valid prefix %zu, the C library says %zu: %02x %02x %02x %02x", got, expected,
             (unsigned char)text[0], (unsigned char)text[1], (unsigned char)text[2],
             (unsigned char)text[3]);
}

static void test_utf8_every_code_point(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x120000; c++) {
        char text[4] = {0};
        uint32_t back = 0xFFFFFFFF;
        int n = saf_utf8_encode(c, text);
        bool valid = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
        assert_int_equal(n > 0, valid);
        if (!valid) continue;
        assert_int_equal(saf_utf8_decode(text, (size_t)n, &back), n);
        assert_int_equal(back, c);
        for (int k = 0; k < n; k++) assert_int_equal(saf_utf8_decode(text, (size_t)k, &back), 0);
        assert_int_equal(libc_valid_prefix(text, (size_t)n), n);
    }
    char text[4];
    assert_int_equal(saf_utf8_encode(0xFFFFFFFF, text), 0);
}

static void test_utf8_agrees_with_libc(void **state) {
    (void)state;
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) check_prefix((char[4]){(char)a, (char)b, 'x', 'y'}, 4);
    /* Every lead with the interesting bytes behind it. */
    static const unsigned char edge[] = {0x00, 0x41, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x9F,
                                         0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xFF};
    for (unsigned a = 0xC0; a < 256; a++)
        for (int b = 0; b < 16; b++)
            for (int c = 0; c < 16; c++)
                for (int d = 0; d < 16; d++)
                    check_prefix((char[4]){(char)a, (char)edge[b], (char)edge[c], (char)edge[d]},
                                 4);
    uint32_t r[4];
    for (uint64_t i = 0; i < 20000; i++) { /* whole texts with one byte spoilt */
        char text[48];
        size_t len = 0;
        for (uint64_t k = 0; k < 10; k++) {
            saf_philox(1, i, k, r);
            uint32_t c = r[0] >> (11 + r[1] % 16);
            int n = saf_utf8_encode(c > 0x10FFFF ? 0x10FFFF : c, text + len);
            len += (size_t)n;
        }
        text[r[2] % len] = (char)r[3];
        check_prefix(text, len);
    }
}

/* By trying all continuations: can text[0..len) become one valid character? */
static bool can_become_whole(const char *text, size_t len, size_t missing) {
    char t[4];
    uint32_t c;
    memcpy(t, text, len);
    for (uint32_t i = 0; i < 1u << (6 * missing); i++) {
        for (size_t k = 0; k < missing; k++) t[len + k] = (char)(0x80 | (i >> (6 * k) & 0x3F));
        if (saf_utf8_decode(t, len + missing, &c) == (int)(len + missing)) return true;
    }
    return false;
}

static void check_whole(const char *text, size_t len) {
    size_t expected = len;
    for (size_t tail = 1; tail <= 3 && tail <= len && expected == len; tail++)
        for (size_t missing = 1; tail + missing <= 4; missing++)
            if ((unsigned char)text[len - tail] >= 0xC0 && expected == len &&
                can_become_whole(text + len - tail, tail, missing))
                expected = len - tail;
    assert_int_equal(saf_utf8_whole_prefix(text, len), expected);
}

static void test_utf8_whole_prefix(void **state) {
    (void)state;
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
    static const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    for (size_t n = 0; n < sizeof whole / sizeof whole[0]; n++)
        assert_int_equal(saf_utf8_whole_prefix(text, n), whole[n]);
    for (unsigned a = 0x70; a < 256; a++) {
        check_whole((char[2]){'q', (char)a}, 2);
        for (unsigned b = 0x70; b < 256; b += a < 0xE0 ? 16 : 1)
            check_whole((char[3]){'q', (char)a, (char)b}, 3);
    }
    static const unsigned char edge[] = {0x41, 0x7F, 0x80, 0x8F, 0x90,
                                         0x9F, 0xA0, 0xBF, 0xC0, 0xC2};
    for (unsigned a = 0xEE; a < 256; a++)
        for (int b = 0; b < 10; b++)
            for (int c = 0; c < 10; c++)
                check_whole((char[4]){'q', (char)a, (char)edge[b], (char)edge[c]}, 4);
}

static void test_utf8_append_clean(void **state) {
    (void)state;
    saf_buf out = {0};
    assert_int_equal(saf_utf8_append_clean(&out, "ok \xC3\xA9", 5), SAF_OK);
    assert_string_equal(out.data, "ok \xC3\xA9");
    saf_buf_clear(&out);
    assert_int_equal(saf_utf8_append_clean(&out,
                                           "\xFF"
                                           "a\xE2\x82"
                                           "b\0c\xC3",
                                           8),
                     SAF_OK);
    static const char expected[] =
        "\xEF\xBF\xBD"
        "a"
        "\xEF\xBF\xBD\xEF\xBF\xBD"
        "b\0c"
        "\xEF\xBF\xBD";
    assert_int_equal(out.len, sizeof expected - 1);
    assert_memory_equal(out.data, expected, sizeof expected - 1);
    saf_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_every_code_point),
        cmocka_unit_test(test_utf8_agrees_with_libc),
        cmocka_unit_test(test_utf8_whole_prefix),
        cmocka_unit_test(test_utf8_append_clean),
    };
    return cmocka_run_group_tests(tests, open_decoder, close_decoder);
}
