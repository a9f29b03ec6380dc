/* Checked integers, blocks of memory, the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "saf/core.h"

static void test_integers_overflow_is_seen(void **state) {
    (void)state;
    size_t z = 7;
    int64_t i = 7;
    int n = 7;
    assert_false(saf_size_mul(SIZE_MAX / 2 + 1, 2, &z));
    assert_false(saf_size_add(SIZE_MAX, 1, &z));
    assert_int_equal(z, 7);
    assert_true(saf_size_mul(SIZE_MAX, 1, &z));
    assert_true(z == SIZE_MAX);
    assert_true(saf_size_add(SIZE_MAX - 1, 1, &z));
    assert_true(z == SIZE_MAX);
    assert_false(saf_i64_mul(INT64_MAX, 2, &i));
    assert_false(saf_i64_mul(INT64_MIN, -1, &i));
    assert_int_equal(i, 7);
    assert_true(saf_i64_mul(INT64_MIN, 1, &i));
    assert_true(i == INT64_MIN);
    assert_false(saf_int_from_i64((int64_t)INT_MAX + 1, &n));
    assert_false(saf_int_from_i64((int64_t)INT_MIN - 1, &n));
    assert_int_equal(n, 7);
    assert_true(saf_int_from_i64(INT_MIN, &n));
    assert_int_equal(n, INT_MIN);
}

static void test_integers_rounding(void **state) {
    (void)state;
    for (int64_t b = 1; b < 40; b++) {
        for (int64_t a = 0; a < 200; a++) {
            int64_t up = a;
            while (up % b != 0) up++;
            assert_int_equal(saf_round_up(a, b), up);
            assert_int_equal(saf_ceil_div(a, b), up / b);
        }
    }
    assert_true(saf_ceil_div(INT64_MAX, 2) == INT64_MAX / 2 + 1);
    assert_int_equal(saf_i64_min(-3, 4), -3);
    assert_int_equal(saf_i64_max(-3, 4), 4);
}

/* Small blocks come from the heap, large ones from fresh pages: both sides of the border. */
static void test_memory_is_aligned_and_zero(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1048511, 1048512, 1048513, 5000001};
    for (int round = 0; round < 3; round++) {
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            unsigned char *p = NULL;
            assert_int_equal(saf_alloc(sizes[k], 1, &p), SAF_OK);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            for (size_t i = 0; i < sizes[k]; i++)
                if (p[i] != 0) fail_msg("byte %zu of %zu is %d", i, sizes[k], p[i]);
            memset(p, 0xEE, sizes[k]); /* so that the next round may be given dirty memory */
            saf_free(&p);
            assert_null(p);
            saf_free(&p);
        }
    }
}

/* A block that begins at a large page, zeroed, its last byte usable; what cannot be is refused. */
static void test_memory_in_huge_pages(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, SAF_HUGE_PAGE - 1, SAF_HUGE_PAGE, 3 * SAF_HUGE_PAGE + 1};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        unsigned char *p = NULL;
        assert_int_equal(saf_alloc_huge(sizes[k], &p), SAF_OK);
        assert_int_equal((uintptr_t)p % SAF_HUGE_PAGE, 0);
        for (size_t i = 0; i < sizes[k]; i += 997) assert_int_equal(p[i], 0);
        if (sizes[k] > 0) p[sizes[k] - 1] = 7;
        saf_free(&p);
        assert_null(p);
    }
    char *q = NULL;
    assert_int_equal(saf_alloc_huge(SIZE_MAX, &q), SAF_NO_MEMORY);
    assert_int_equal(saf_alloc_huge(SIZE_MAX / 2, &q), SAF_NO_MEMORY);
    assert_null(q);
}

/* Large pages for what is as long as one, by elements; a count that was negative is refused. */
static void test_memory_large_where_it_is_large(void **state) {
    (void)state;
    static const size_t counts[] = {0, 3, SAF_HUGE_PAGE / 4 - 1, SAF_HUGE_PAGE / 4, SAF_HUGE_PAGE};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        float *p = NULL;
        size_t alignment = counts[k] * sizeof *p < SAF_HUGE_PAGE ? 64 : SAF_HUGE_PAGE;
        assert_int_equal(saf_alloc_large(counts[k], sizeof *p, &p), SAF_OK);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % alignment, 0);
        for (size_t i = 0; i < counts[k]; i++) assert_true(p[i] == 0.0f);
        if (counts[k] > 0) p[counts[k] - 1] = 7;
        saf_free(&p);
        assert_null(p);
    }
    float *q = NULL;
    assert_int_equal(saf_alloc_large((size_t)-1, sizeof *q, &q), SAF_NO_MEMORY);
    assert_null(q);
}

static void test_memory_refuses_what_cannot_be(void **state) {
    (void)state;
    char *p = (char *)0x10;
    assert_int_equal(saf_alloc(SIZE_MAX / 2, 3, &p), SAF_NO_MEMORY);
    assert_int_equal(saf_alloc(SIZE_MAX, 1, &p), SAF_NO_MEMORY);
    assert_int_equal(saf_alloc(SIZE_MAX - 100, 1, &p), SAF_NO_MEMORY);
    assert_int_equal(saf_alloc((size_t)1 << 60, 1, &p), SAF_NO_MEMORY);
    assert_ptr_equal(p, (char *)0x10);
    assert_non_null(strstr(saf_error_text(), "cannot allocate"));
}

static void test_memory_copies_a_string(void **state) {
    (void)state;
    char text[] = "a text", *copy = NULL;
    assert_int_equal(saf_strdup(text, &copy), SAF_OK);
    text[0] = 'x';
    assert_string_equal(copy, "a text");
    saf_free(&copy);
    assert_null(copy);
}

/* Untouched memory costs nothing; what is touched shows in the peak. */
static void test_memory_peak(void **state) {
    (void)state;
    enum { BYTES = 256 << 20, TOUCHED = 64 << 20 };
    char *p = NULL;
    size_t before = saf_peak_memory_bytes();
    assert_true(before > 100000);
    assert_int_equal(saf_alloc(BYTES, 1, &p), SAF_OK);
    assert_true(saf_peak_memory_bytes() < before + TOUCHED / 2);
    memset(p, 1, TOUCHED);
    size_t after = saf_peak_memory_bytes();
    assert_true(after > TOUCHED && after > before + TOUCHED / 2);
    assert_true(after < before + BYTES / 2);
    saf_free(&p);
    assert_true(saf_peak_memory_bytes() >= after - (1 << 20)); /* a peak stays */
}

static void test_clock(void **state) {
    (void)state;
    double a = saf_clock_s();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    double b = saf_clock_s();
    assert_true(b - a >= 0.0199 && b - a < 5);
    char text[32];
    struct tm parsed = {0};
    time_t now = time(NULL);
    saf_clock_iso8601(text);
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &parsed);
    assert_non_null(end);
    assert_int_equal(*end, 0);
    double apart = difftime(timegm(&parsed), now);
    assert_true(apart >= -1 && apart <= 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_overflow_is_seen),
        cmocka_unit_test(test_integers_rounding),
        cmocka_unit_test(test_memory_is_aligned_and_zero),
        cmocka_unit_test(test_memory_in_huge_pages),
        cmocka_unit_test(test_memory_large_where_it_is_large),
        cmocka_unit_test(test_memory_refuses_what_cannot_be),
        cmocka_unit_test(test_memory_copies_a_string),
        cmocka_unit_test(test_memory_peak),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
