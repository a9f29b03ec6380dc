/* The yardsticks: that their loops do the operations they are counted for, and nothing that depends
 * on how fast this machine is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <omp.h>

#include "hw/loops.h"
#include "saf/hw.h"

/* Every product is 1 x 1, so the sum is the number of products, and the operations are twice that.
 * Exact: 32-bit lanes and f32 hold what few rounds add up to. */
static void check_loops(const saf__hw_loops *loops) {
    static const int64_t rounds[] = {0, 1, 2, 3, 1000, 4097};
    for (size_t i = 0; i < sizeof rounds / sizeof rounds[0]; i++) {
        assert_int_equal(2 * loops->int8(rounds[i]), rounds[i] * loops->int8_ops);
        if (loops->tiles)
            assert_int_equal(2 * loops->tiles(rounds[i]), rounds[i] * loops->tile_ops);
        assert_true(2 * loops->f32(rounds[i]) == (double)(rounds[i] * loops->f32_ops));
        assert_true(2 * loops->f64(rounds[i]) == (double)(rounds[i] * loops->f64_ops));
    }
}

static void test_hw_loops_of_the_base_count_right(void **state) {
    (void)state;
    saf__hw_loops loops;
    saf__hw_loops_base(&loops);
    assert_non_null(loops.name);
    check_loops(&loops);
}

static void test_hw_loops_chosen_count_right(void **state) {
    (void)state;
    saf__hw_loops loops = saf__hw_loops_choose();
    check_loops(&loops);
}

#if defined(__x86_64__)
static void test_hw_loops_of_each_set_count_right(void **state) {
    (void)state;
    saf__hw_loops loops;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512bw")) {
        print_message("no AVX-512 here\n");
        skip();
    }
    saf__hw_loops_base(&loops);
    int64_t base = loops.f32_ops;
    saf__hw_loops_avx512(&loops);
    assert_string_equal(loops.name, "avx512");
    assert_int_equal(loops.f32_ops, 2 * base);
    check_loops(&loops);
    if (!__builtin_cpu_supports("avx512vnni")) return;
    saf__hw_loops_vnni(&loops);
    assert_string_equal(loops.name, "avx512-vnni");
    check_loops(&loops);
}
#endif

/* Every word is read, and each once: the sum of all words says so. */
static void test_hw_loops_read_everything_once(void **state) {
    (void)state;
    saf__hw_loops loops = saf__hw_loops_choose();
    enum { BYTES = 3 * SAF__READ_UNIT };
    uint64_t *words = NULL, sum = 0;
    assert_int_equal(saf_alloc(BYTES, 1, &words), SAF_OK);
    for (size_t i = 0; i < BYTES / sizeof *words; i++)
        sum += words[i] = i * UINT64_C(0x9E3779B97F4A7C15);
    assert_true(loops.read(words, BYTES) == sum);
    saf_free(&words);
}

static void test_hw_yardstick_gives_rates(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        saf_hw_yardstick *y = NULL;
        saf_hw_rates r = {0};
        omp_set_num_threads(threads);
        assert_int_equal(saf_hw_yardstick_new(5 << 20, &y), SAF_OK);
        saf_hw_yardstick_sample(y, &r);
        assert_true(isfinite(r.read_bytes_s) && r.read_bytes_s > 0);
        assert_true(isfinite(r.int8_ops_s) && r.int8_ops_s > 0);
        assert_true(isfinite(r.tile_ops_s) && r.tile_ops_s >= 0);
        assert_true(r.product_share >= 0.01 && r.product_share <= 1);
        assert_true(r.hidden_share >= 0.01 && r.hidden_share <= 1);
        assert_true(isfinite(saf_hw_yardstick_read_one(y)) && saf_hw_yardstick_read_one(y) > 0);
        assert_true(isfinite(r.f32_ops_s) && r.f32_ops_s > 0);
        assert_non_null(saf_hw_yardstick_name(y));
        saf_hw_yardstick_free(&y);
        assert_null(y);
    }
}

static void test_hw_sgemm_gives_a_rate_or_none(void **state) {
    (void)state;
    double rate = -1;
    assert_int_equal(saf_hw_sgemm_sample(2, 33, 65, 129, &rate), SAF_OK);
    assert_true(isfinite(rate) && rate >= 0);
}

static void test_hw_binding_tells_the_host(void **state) {
    (void)state;
    saf_hw_binding b;
    assert_int_equal(saf_hw_binding_read(&b), SAF_OK);
    assert_true(b.cores >= 1 && b.memory_bytes > 0 && b.cache_bytes >= 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hw_loops_of_the_base_count_right),
        cmocka_unit_test(test_hw_loops_chosen_count_right),
#if defined(__x86_64__)
        cmocka_unit_test(test_hw_loops_of_each_set_count_right),
#endif
        cmocka_unit_test(test_hw_loops_read_everything_once),
        cmocka_unit_test(test_hw_yardstick_gives_rates),
        cmocka_unit_test(test_hw_sgemm_gives_a_rate_or_none),
        cmocka_unit_test(test_hw_binding_tells_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
