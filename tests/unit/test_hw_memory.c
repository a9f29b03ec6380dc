/* Memory yardsticks: what they write and copy is there afterwards, sums are right, and what no host
 * has is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "saf/hw.h"

static void test_hw_memory_gives_times(void **state) {
    (void)state;
    int32_t nodes = 0;
    assert_int_equal(saf_hw_memory_nodes(&nodes), SAF_OK);
    assert_true(nodes >= 1);
    for (int threads = 1; threads <= 3; threads++) {
        saf_hw_memory *m = NULL;
        assert_int_equal(saf_hw_memory_new(1, threads, nodes - 1, &m), SAF_OK);
        assert_true(saf_hw_memory_bytes(m) == (size_t)threads * SAF_HUGE_PAGE);
        for (int k = 0; k < SAF_MEMORY_KINDS; k++) {
            double s = saf_hw_memory_sample(m, (saf_memory_kind)k);
            assert_true(s > 0 && s < 10);
        }
        saf_hw_memory_free(&m);
        assert_null(m);
    }
}

static void test_hw_memory_kinds_have_names_and_traffic(void **state) {
    (void)state;
    static const int traffic[SAF_MEMORY_KINDS] = {1, 2, 1, 3, 2};
    for (int k = 0; k < SAF_MEMORY_KINDS; k++) {
        assert_int_equal(saf_memory_kind_traffic((saf_memory_kind)k), traffic[k]);
        assert_true(strlen(saf_memory_kind_name((saf_memory_kind)k)) >= 4);
    }
    assert_true(saf_memory_kind_there(SAF_MEMORY_READ));
    assert_true(saf_memory_kind_there(SAF_MEMORY_COPY));
}

static void test_hw_memory_touch_checks_its_sum(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes <= 1 << 20; bytes = bytes ? 2 * bytes + 8 : 8) {
        double touch = -1, sum = -1;
        bool right = false;
        assert_int_equal(saf_hw_memory_touch(bytes, 2, &touch, &sum, &right), SAF_OK);
        assert_true(right && touch >= 0 && sum >= 0);
    }
}

static void test_hw_memory_refuses_what_is_not_there(void **state) {
    (void)state;
    saf_hw_memory *m = NULL;
    double s;
    bool right;
    if (saf_hw_memory_available() > 0)
        assert_int_equal(saf_hw_memory_new((size_t)1 << 45, 1, 0, &m), SAF_NO_MEMORY);
    assert_null(m);
    assert_int_equal(saf_hw_memory_touch((size_t)1 << 60, 1, &s, &s, &right), SAF_NO_MEMORY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hw_memory_gives_times),
        cmocka_unit_test(test_hw_memory_kinds_have_names_and_traffic),
        cmocka_unit_test(test_hw_memory_touch_checks_its_sum),
        cmocka_unit_test(test_hw_memory_refuses_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
