/* Philox4x32-10 against the known answers that its authors publish with Random123. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "saf/core.h"

static void test_philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t key, hi, lo;
        uint32_t out[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        /* the digits of pi, words in order: counter, then key */
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t r[4];
        saf_philox(known[i].key, known[i].hi, known[i].lo, r);
        for (int k = 0; k < 4; k++) assert_int_equal(r[k], known[i].out[k]);
    }
}

static void test_philox_every_input_counts(void **state) {
    (void)state;
    uint32_t base[4], r[4];
    saf_philox(1, 2, 3, base);
    for (int bit = 0; bit < 192; bit++) {
        uint64_t in[3] = {1, 2, 3};
        in[bit / 64] ^= (uint64_t)1 << bit % 64;
        saf_philox(in[0], in[1], in[2], r);
        int flipped = 0;
        for (int k = 0; k < 4; k++) flipped += __builtin_popcount(r[k] ^ base[k]);
        assert_in_range(flipped, 30, 98); /* 64 +- 6 standard deviations */
    }
}

static void test_philox_uniform(void **state) {
    (void)state;
    enum { N = 100000, BINS = 16 };
    int bins[BINS] = {0};
    double sum = 0;
    for (uint64_t i = 0; i < N; i++) {
        uint32_t r[4];
        double u = saf_philox_uniform(42, 7, i);
        saf_philox(42, 7, i, r);
        assert_true(u >= 0 && u < 1);
        assert_true(u * 0x1p53 == (double)(uint64_t)(u * 0x1p53)); /* 53 bits, exactly */
        assert_true(u - (double)r[0] * 0x1p-32 >= 0 && u - (double)r[0] * 0x1p-32 < 0x1p-32);
        sum += u;
        bins[(int)(u * BINS)]++;
    }
    assert_true(sum / N > 0.5 - 0.0055 && sum / N < 0.5 + 0.0055); /* 6 standard deviations */
    double chi2 = 0, expected = (double)N / BINS;
    for (int i = 0; i < BINS; i++) chi2 += (bins[i] - expected) * (bins[i] - expected) / expected;
    assert_true(chi2 < 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_philox_every_input_counts),
        cmocka_unit_test(test_philox_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
