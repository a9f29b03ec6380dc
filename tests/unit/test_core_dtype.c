/* Data types; half precision against the processor's own conversion. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#if defined __x86_64__
#include <immintrin.h>
#endif

#include "saf/core.h"

static void test_dtype_names_and_numbers(void **state) {
    (void)state;
    for (int d = 0; d < SAF_DTYPE_COUNT; d++) {
        saf_dtype back = SAF_DTYPE_COUNT;
        const char *name = saf_dtype_name((saf_dtype)d);
        char lower[16] = "";
        for (size_t i = 0; name[i]; i++)
            lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
        assert_true(saf_dtype_from_name(name, &back) && back == (saf_dtype)d);
        back = SAF_DTYPE_COUNT;
        assert_true(saf_dtype_from_name(lower, &back) && back == (saf_dtype)d);
        int number = saf_dtype_to_gguf((saf_dtype)d);
        assert_true(number >= 0 || d == SAF_DTYPE_U8);
        if (number >= 0) {
            back = SAF_DTYPE_COUNT;
            assert_true(saf_dtype_from_gguf((uint32_t)number, &back) && back == (saf_dtype)d);
        }
        assert_int_equal(saf_dtype_is_quantised((saf_dtype)d), saf_dtype_block((saf_dtype)d) > 1);
    }
    saf_dtype untouched = SAF_DTYPE_F16;
    assert_false(saf_dtype_from_name("q9_9", &untouched));
    assert_false(saf_dtype_from_name("", &untouched));
    assert_false(saf_dtype_from_gguf(4, &untouched)); /* a type that was withdrawn */
    assert_false(saf_dtype_from_gguf(0xFFFFFFFF, &untouched));
    assert_int_equal(untouched, SAF_DTYPE_F16);
}

static void test_dtype_bytes(void **state) {
    (void)state;
    size_t bytes = 1;
    assert_true(saf_dtype_bytes(SAF_DTYPE_F32, 0, &bytes) && bytes == 0);
    assert_true(saf_dtype_bytes(SAF_DTYPE_BF16, 1001, &bytes) && bytes == 2002);
    assert_true(saf_dtype_bytes(SAF_DTYPE_Q8_0, 4096, &bytes) && bytes == 4352); /* 8.5 bits */
    assert_true(saf_dtype_bytes(SAF_DTYPE_Q4_K, 4096, &bytes) && bytes == 2304); /* 4.5 bits */
    assert_true(saf_dtype_bytes(SAF_DTYPE_Q6_K, 256, &bytes) && bytes == 210);
    bytes = 1;
    assert_false(saf_dtype_bytes(SAF_DTYPE_Q8_0, 33, &bytes));
    assert_false(saf_dtype_bytes(SAF_DTYPE_Q2_K, 32, &bytes));
    assert_false(saf_dtype_bytes(SAF_DTYPE_F32, -1, &bytes));
    assert_false(saf_dtype_bytes(SAF_DTYPE_F64, INT64_MAX / 2, &bytes));
    assert_int_equal(bytes, 1);
}

#if defined __x86_64__
static float hard_from_f16(uint16_t h) {
    return _cvtsh_ss(h);
}
static uint16_t hard_from_f32(float f) {
    return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else /* the compiler's own type */
static float hard_from_f16(uint16_t h) {
    _Float16 half;
    memcpy(&half, &h, sizeof half);
    return (float)half;
}
static uint16_t hard_from_f32(float f) {
    _Float16 half = (_Float16)f;
    uint16_t h;
    memcpy(&h, &half, sizeof h);
    return h;
}
#endif

static void test_f16_every_value_to_f32(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint32_t got = saf_f32_to_bits(saf_f32_from_f16((uint16_t)h));
        uint32_t expected = saf_f32_to_bits(hard_from_f16((uint16_t)h));
        bool nan = (h & 0x7FFF) > 0x7C00;
        if (nan) got |= 0x400000; /* the processor makes a signalling NaN a quiet one */
        if (got != expected) fail_msg("%04x: %08x, the processor says %08x", h, got, expected);
    }
}

static void check_f32(uint32_t bits) {
    float f = saf_f32_from_bits(bits);
    uint16_t got = saf_f16_from_f32(f), expected = hard_from_f32(f);
    if (got != expected) fail_msg("%08x: %04x, the processor says %04x", bits, got, expected);
}

static void test_f16_from_f32(void **state) {
    (void)state;
    /* Around every half and every middle between two: where rounding decides. */
    for (uint32_t h = 0; h < 0x7C00; h++) {
        uint32_t low = saf_f32_to_bits(hard_from_f16((uint16_t)h));
        uint32_t high = saf_f32_to_bits(hard_from_f16((uint16_t)(h + 1)));
        if (h == 0x7BFF) high = 0x47800000; /* 65536: where infinity begins to be nearest */
        float middle = (saf_f32_from_bits(low) + saf_f32_from_bits(high)) / 2;
        const uint32_t at[] = {low, saf_f32_to_bits(middle), high};
        for (int k = 0; k < 3; k++) {
            for (int32_t off = -2; off <= 2; off++) {
                uint32_t bits = at[k] + (uint32_t)off;
                check_f32(bits & 0x7FFFFFFF);
                check_f32(bits | 0x80000000);
            }
        }
    }
    for (uint64_t bits = 0; bits < 1ull << 32; bits += 997) check_f32((uint32_t)bits);
    for (uint32_t low = 0; low < 64; low++) { /* infinities, NaN, the largest, denormals */
        check_f32(0x7F800000 + low);
        check_f32(0xFF800000 + low);
        check_f32(0x7F800000 - low);
        check_f32(0x7FFFFFFF - low);
        check_f32(low);
        check_f32(0x80000000 + low);
    }
}

static void test_f16_round_trip(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t back = saf_f16_from_f32(saf_f32_from_f16((uint16_t)h));
        bool nan = (h & 0x7FFF) > 0x7C00;
        assert_int_equal(back, nan ? (h | 0x200) : h);
    }
}

/* The nearest of the two neighbours by distance in double, the even one of two equals. */
static uint16_t nearest_bf16(uint32_t bits) {
    uint16_t low = (uint16_t)(bits >> 16), high = (uint16_t)(low + 1);
    double x = saf_f32_from_bits(bits), a = saf_f32_from_bits((uint32_t)low << 16);
    double b = saf_f32_from_bits((uint32_t)high << 16);
    if ((high & 0x7FFF) == 0x7F80) b = low & 0x8000 ? -0x1p128 : 0x1p128;
    double to_a = x > a ? x - a : a - x, to_b = x > b ? x - b : b - x;
    if (to_a != to_b) return to_a < to_b ? low : high;
    return low & 1 ? high : low;
}

static void test_bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        static const uint32_t tails[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
        uint32_t wide = h << 16;
        assert_int_equal(saf_f32_to_bits(saf_f32_from_bf16((uint16_t)h)), wide);
        for (int k = 0; k < 6; k++) {
            uint32_t bits = wide | tails[k];
            uint16_t got = saf_bf16_from_f32(saf_f32_from_bits(bits));
            if ((bits & 0x7FFFFFFF) > 0x7F800000) /* a NaN, quiet, of the same sign */
                assert_int_equal(got & 0xFFC0, (h & 0x8000) | 0x7FC0);
            else if ((bits & 0x7FFFFFFF) == 0x7F800000)
                assert_int_equal(got, h);
            else
                assert_int_equal(got, nearest_bf16(bits));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtype_names_and_numbers),
        cmocka_unit_test(test_dtype_bytes),
        cmocka_unit_test(test_f16_every_value_to_f32),
        cmocka_unit_test(test_f16_from_f32),
        cmocka_unit_test(test_f16_round_trip),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
