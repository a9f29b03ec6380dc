/* SHA-256 against the vectors of FIPS 180-2, appendix B, and NIST's short messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "saf/core.h"

static void check(const uint8_t digest[32], const char *expected) {
    char text[65];
    saf_hex(digest, 32, text);
    assert_string_equal(text, expected);
}

static void test_sha256_known_answers(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } known[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    uint8_t digest[32];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_int_equal(saf_sha256_of(known[i].text, strlen(known[i].text), digest), SAF_OK);
        check(digest, known[i].hex);
    }
}

static void test_sha256_in_pieces(void **state) {
    (void)state;
    static char as[1000000];
    uint8_t digest[32];
    saf_sha256 *sha = NULL;
    memset(as, 'a', sizeof as);
    assert_int_equal(saf_sha256_new(&sha), SAF_OK);
    for (size_t at = 0, n = 0; at < sizeof as; at += n) { /* pieces of 0, 1, 2, ... bytes */
        static size_t step;
        n = step++ < sizeof as - at ? step - 1 : sizeof as - at;
        assert_int_equal(saf_sha256_add(sha, as + at, n), SAF_OK);
    }
    assert_int_equal(saf_sha256_final(sha, digest), SAF_OK);
    check(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    saf_sha256_free(&sha);
    assert_null(sha);
    saf_sha256_free(&sha);
}

static void test_sha256_prefixed(void **state) {
    (void)state;
    static const char plain[] = "\3\0\0\0\0\0\0\0abc\0\1\0\0\0\0\0\0";
    static char zeros[256];
    uint8_t a[32], b[32];
    saf_sha256 *sha = NULL;
    assert_int_equal(saf_sha256_new(&sha), SAF_OK);
    assert_int_equal(saf_sha256_add_prefixed(sha, "abc", 3), SAF_OK);
    assert_int_equal(saf_sha256_add_prefixed(sha, zeros, 256), SAF_OK);
    assert_int_equal(saf_sha256_final(sha, a), SAF_OK);
    saf_sha256_free(&sha);
    char whole[sizeof plain - 1 + sizeof zeros] = {0};
    memcpy(whole, plain, sizeof plain - 1);
    assert_int_equal(saf_sha256_of(whole, sizeof whole, b), SAF_OK);
    assert_memory_equal(a, b, 32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_known_answers),
        cmocka_unit_test(test_sha256_in_pieces),
        cmocka_unit_test(test_sha256_prefixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
