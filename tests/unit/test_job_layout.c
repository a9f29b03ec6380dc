/* What the job says of hosts, for their ranks. */
#include <setjmp.h>
#include <stdio.h>
/* cmocka wants these before it */
#include <cmocka.h>

#include "job/session.h"

static void test_shares_of_hosts_and_of_ranks(void **state) {
    (void)state;
    const int32_t host[] = {0, 0, 1, 2, 0, 1};
    const double hosts[] = {6, 5, 0.5}, ranks[] = {1, 2, 3, 4, 5, 6};
    const double of_hosts[] = {2, 2, 2.5, 0.5, 2, 2.5};
    double share[6];
    assert_int_equal(saf__shares_spread(hosts, 3, host, 6, share), SAF_OK);
    assert_memory_equal(share, of_hosts, sizeof share);
    assert_int_equal(saf__shares_spread(ranks, 6, host, 6, share), SAF_OK);
    assert_memory_equal(share, ranks, sizeof share);
    for (int32_t n = 1; n < 8; n++) {
        if (n == 3 || n == 6) continue;
        assert_int_equal(saf__shares_spread(ranks, n, host, 6, share), SAF_USAGE);
        assert_non_null(strstr(saf_error_text(), "3, one for each host, or 6, one for each rank"));
    }
}

/* The wish that a session makes of its settings. */
static void test_wish_of_a_session(void **state) {
    (void)state;
    int32_t layers[] = {3, 4}, host[] = {0, 1};
    double share[] = {1, 2};
    saf__session s = {.ranks = 2,
                      .settings = {.replicas = 1, .pipeline = 2, .tensor = 3, .n_stages = 2},
                      .given_stages = layers,
                      .host = host,
                      .share = share};
    saf_layout_wish wish = saf__layout_wish(&s);
    assert_true(wish.ranks == 2 && wish.replicas == 1 && wish.stages == 2 && wish.tensor == 3);
    assert_true(wish.layers == layers && wish.n_layers == 2);
    assert_true(wish.host == host && wish.share == share);
    s.settings.n_stages = 0;
    assert_null(saf__layout_wish(&s).layers);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_of_hosts_and_of_ranks),
        cmocka_unit_test(test_wish_of_a_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
