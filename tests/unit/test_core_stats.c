/* The median. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "saf/core.h"

/* Half of the others lie on either side, whatever the order; the values stay the same ones. */
static void test_median(void **state) {
    (void)state;
    double odd[] = {9, -1, 4, 4, 100}, even[] = {8, 1, 2, 5}, one[] = {-3}, two[] = {6, 5};
    assert_true(saf_median(odd, 5) == 4);
    assert_true(odd[0] == -1 && odd[3] == 9 && odd[4] == 100);
    assert_true(saf_median(even, 4) == 3.5);
    assert_true(even[0] == 1 && even[3] == 8);
    assert_true(saf_median(one, 1) == -3);
    assert_true(saf_median(two, 2) == 5.5);
    assert_true(isnan(saf_median(NULL, 0)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_median)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
