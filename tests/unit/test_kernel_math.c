/* Elementary functions against the C library's long double. */
#include "unit/kernel_util.h"

/* |got - want| in units of the last place of a double at `want`. */
static double ulps(double got, long double want) {
    int e;
    if ((long double)got == want) return 0;
    frexpl(want, &e);
    if (e < -1021) e = -1021;
    return (double)fabsl(((long double)got - want) / ldexpl(1, e - 53));
}
static double float_ulps(float got, double want) {
    int e;
    if ((double)got == want) return 0;
    frexp(want, &e);
    if (e < -125) e = -125;
    return fabs(((double)got - want) / ldexp(1, e - 24));
}
static double uniform(double lo, double hi) {
    return lo + (hi - lo) * saf_philox_uniform(7, 7, util_seed++);
}

static void test_math_expf_is_within_one_ulp(void **state) {
    (void)state;
    double worst = 0;
    /* every 641st float of the range where the result is neither 0 nor infinity */
    for (int sign = 0; sign < 2; sign++) {
        float end = sign ? 103.9f : 88.72f;
        for (uint32_t bits = 0; bits < saf_f32_to_bits(end); bits += 641) {
            float x = saf_f32_from_bits(bits);
            if (sign) x = -x;
            worst = fmax(worst, float_ulps(saf_math_expf(x), exp((double)x)));
        }
    }
    print_message("# expf: %.3f ulp\n", worst);
    assert_true(worst < 1.0);
}

static void test_math_expf_keeps_the_ends(void **state) {
    (void)state;
    assert_true(saf_math_expf(0.0f) == 1.0f);
    assert_true(saf_math_expf(-0.0f) == 1.0f);
    assert_true(saf_math_expf(-103.98f) == 0.0f);
    assert_true(saf_math_expf(-1e30f) == 0.0f);
    assert_true(saf_math_expf(-INFINITY) == 0.0f);
    assert_true(saf_math_expf(-103.9f) == 0x1p-149f);
    assert_true(saf_math_expf(88.73f) == INFINITY);
    assert_true(saf_math_expf(1e30f) == INFINITY);
    assert_true(saf_math_expf(INFINITY) == INFINITY);
    assert_true(isnan(saf_math_expf(NAN)));
    assert_true(isfinite(saf_math_expf(88.72f)));
}

static void test_math_exp_and_log_are_close(void **state) {
    (void)state;
    double worst_exp = 0, worst_log = 0, worst_near_one = 0;
    for (int i = 0; i < 300000; i++) {
        double x = uniform(-745, 709.7), small = uniform(-1, 1);
        worst_exp = fmax(worst_exp, ulps(saf_math_exp(x), expl(x)));
        worst_exp = fmax(worst_exp, ulps(saf_math_exp(small), expl(small)));
        double y = ldexp(uniform(1, 2), util_below(2040) - 1040);
        worst_log = fmax(worst_log, ulps(saf_math_log(y), logl(y)));
        double near = 1 + ldexp(uniform(-1, 1), -util_below(50) - 1);
        worst_near_one = fmax(worst_near_one, ulps(saf_math_log(near), logl(near)));
    }
    print_message("# exp %.3f, log %.3f, log near one %.3f ulp\n", worst_exp, worst_log,
                  worst_near_one);
    assert_true(worst_exp < 1.0);
    assert_true(worst_log < 1.0);
    assert_true(worst_near_one < 1.0);
}

static void test_math_exp_and_log_keep_the_ends(void **state) {
    (void)state;
    assert_true(saf_math_exp(0) == 1 && saf_math_exp(-INFINITY) == 0 && saf_math_exp(-746) == 0);
    assert_true(saf_math_exp(710) == INFINITY && saf_math_exp(INFINITY) == INFINITY);
    assert_true(isnan(saf_math_exp(NAN)));
    assert_true(saf_math_exp(-745) == 0x1p-1074);
    assert_true(saf_math_log(1) == 0 && saf_math_log(INFINITY) == INFINITY);
    assert_true(saf_math_log(0) == -INFINITY && isnan(saf_math_log(-1)) &&
                isnan(saf_math_log(NAN)));
    assert_true(ulps(saf_math_log(0x1p-1074), logl(0x1p-1074L)) < 1);
}

static void test_math_pow_follows_its_exponent(void **state) {
    (void)state;
    /* the rounding of y log x grows with its size: half an ulp of up to 16 is 8 ulps of e^it */
    for (int i = 0; i < 100000; i++) {
        double x = uniform(0.01, 1e6), y = uniform(-1, 1);
        assert_true(ulps(saf_math_pow(x, y), powl(x, y)) < 20);
    }
    assert_true(saf_math_pow(3, 0) == 1);
    assert_true(saf_math_pow(1, 12345) == 1);
}

static void test_math_sincos_is_within_one_ulp(void **state) {
    (void)state;
    double worst = 0, s, c;
    for (int i = 0; i < 400000; i++) {
        double x = uniform(-4, 4);
        if (i % 4 == 1) x = uniform(-1e5, 1e5);
        if (i % 4 == 2) x = uniform(-0x1p31, 0x1p31);
        if (i % 4 == 3) x = (double)util_below(1 << 30) * 1.5707963267948966; /* near a zero */
        saf_math_sincos(x, &s, &c);
        worst = fmax(worst, fmax(ulps(s, sinl(x)), ulps(c, cosl(x))));
    }
    print_message("# sincos %.3f ulp\n", worst);
    assert_true(worst < 1.0);
    saf_math_sincos(0, &s, &c);
    assert_true(s == 0 && c == 1);
    saf_math_sincos(INFINITY, &s, &c);
    assert_true(isnan(s) && isnan(c));
    saf_math_sincos(NAN, &s, &c);
    assert_true(isnan(s) && isnan(c));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_math_expf_is_within_one_ulp),
        cmocka_unit_test(test_math_expf_keeps_the_ends),
        cmocka_unit_test(test_math_exp_and_log_are_close),
        cmocka_unit_test(test_math_exp_and_log_keep_the_ends),
        cmocka_unit_test(test_math_pow_follows_its_exponent),
        cmocka_unit_test(test_math_sincos_is_within_one_ulp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
