/* Replicas, stages and parts: what is chosen where the wish leaves it open, and what is said when
 * numbers do not fit. */
#include <setjmp.h>
#include <stdio.h>
/* cmocka wants these before it */
#include <cmocka.h>

#include "parallel/layout.h"

enum { MAX_RANKS = 64 };

typedef struct {
    const char *hosts; /* a letter for each rank */
    int32_t replicas, stages, tensor;
    int64_t layers, parts;
    int32_t expected[3]; /* replicas, stages, tensor */
} chosen;

static const chosen choices[] = {
    {"a", 0, 0, 0, 28, 16, {1, 1, 1}},
    {"aaaa", 0, 0, 0, 28, 16, {1, 1, 4}},
    {"aaaabbbb", 0, 0, 0, 28, 16, {1, 2, 4}},
    {"aabbccdd", 0, 0, 0, 28, 16, {1, 4, 2}},
    {"aaabbbccc", 0, 0, 0, 28, 16, {1, 3, 3}},
    {"abcdefg", 0, 0, 0, 28, 16, {1, 7, 1}},
    /* hosts with other numbers of ranks: their greatest common divisor */
    {"aaaabb", 0, 0, 0, 28, 16, {1, 3, 2}},
    {"aaaaaabbbbbbbbb", 0, 0, 0, 28, 16, {1, 5, 3}},
    {"aaabb", 0, 0, 0, 28, 16, {1, 5, 1}},
    /* dealt out one by one */
    {"abab", 0, 0, 0, 28, 16, {1, 4, 1}},
    {"aabbaabb", 0, 0, 0, 28, 16, {1, 4, 2}},
    {"aba", 0, 0, 0, 28, 16, {1, 3, 1}},
    /* fewer parts than ranks of a host */
    {"aaaaaaaa", 0, 0, 0, 28, 7, {1, 2, 4}},
    {"aaaaaa", 0, 0, 0, 28, 3, {1, 2, 3}},
    {"aaaaaaa", 0, 0, 0, 28, 4, {1, 7, 1}},
    {"aaaa", 0, 0, 0, 28, 1, {1, 4, 1}},
    /* more hosts than layers */
    {"abcdef", 0, 0, 0, 3, 16, {2, 3, 1}},
    {"abcdef", 0, 0, 0, 2, 16, {3, 2, 1}},
    {"aabbccdd", 0, 0, 0, 2, 16, {2, 2, 2}},
    {"aaaaaa", 0, 0, 0, 2, 2, {3, 2, 1}}, /* three groups of two would make no two replicas */
    /* some given */
    {"aaaa", 0, 2, 0, 28, 16, {1, 2, 2}},
    {"aaaa", 2, 0, 0, 28, 16, {2, 1, 2}},
    {"aaaa", 4, 0, 0, 28, 16, {4, 1, 1}},
    {"aaaa", 0, 0, 2, 28, 16, {1, 2, 2}},
    {"aaaa", 0, 0, 1, 28, 16, {1, 4, 1}},
    {"aaaa", 1, 4, 0, 28, 16, {1, 4, 1}},
    {"abcd", 1, 2, 0, 28, 16, {1, 2, 2}}, /* over hosts, when nothing else is left */
    {"abcd", 0, 2, 0, 28, 16, {2, 2, 1}},
    {"abcd", 0, 0, 4, 28, 16, {1, 1, 4}},
    {"abcdef", 0, 1, 3, 28, 16, {2, 1, 3}},
    {"abcdef", 2, 0, 0, 28, 16, {2, 3, 1}},
    {"aaaaaa", 1, 1, 0, 28, 4, {1, 1, 6}}, /* more than have heads, as asked for */
    {"aaaaaaaaaaaa", 2, 3, 2, 28, 16, {2, 3, 2}},
    {"aaaaaa", 0, 0, 2, 2, 16, {0, 0, 0}}, /* three groups, two layers: two replicas, not even */
};

static saf_layout_wish wish_of(const chosen *c, int32_t *host) {
    int32_t n = (int32_t)strlen(c->hosts);
    for (int32_t i = 0; i < n; i++) host[i] = c->hosts[i];
    return (saf_layout_wish){.ranks = n,
                             .host = host,
                             .replicas = c->replicas,
                             .stages = c->stages,
                             .tensor = c->tensor};
}

static void test_grid_choices(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        const chosen *c = &choices[i];
        int32_t host[MAX_RANKS];
        saf_layout_wish wish = wish_of(c, host);
        saf_layout got = {0};
        saf_status st = saf__grid_choose(&wish, (saf__grid_limits){c->layers, c->parts}, &got);
        int32_t same[] = {got.replicas, got.stages, got.tensor};
        if ((st == SAF_OK) != (c->expected[0] > 0) || memcmp(same, c->expected, sizeof same) != 0)
            fail_msg("%s, wish %d %d %d: got %d %d %d (%s)", c->hosts, c->replicas, c->stages,
                     c->tensor, got.replicas, got.stages, got.tensor,
                     st == SAF_OK ? "" : saf_error_text());
    }
}

/* Any number of ranks on any hosts: the product is right, the limits are kept, groups are on one
 * host. */
static void test_grid_fits_whatever_there_is(void **state) {
    (void)state;
    for (int32_t ranks = 1; ranks <= 24; ranks++)
        for (int32_t per_host = 1; per_host <= ranks; per_host++)
            for (int32_t layers = 1; layers <= 9; layers++) {
                int32_t host[MAX_RANKS];
                for (int32_t i = 0; i < ranks; i++) host[i] = i / per_host;
                saf_layout_wish wish = {.ranks = ranks, .host = host};
                saf_layout got = {0};
                if (saf__grid_choose(&wish, (saf__grid_limits){layers, 5}, &got) != SAF_OK) {
                    assert_true(layers < ranks);
                    continue;
                }
                assert_int_equal(saf_layout_ranks(&got), ranks);
                assert_true(got.stages <= layers && got.tensor <= 5);
                for (int32_t i = 0; i < ranks; i++)
                    assert_int_equal(host[i], host[i - i % got.tensor]);
            }
}

typedef struct {
    saf_layout_wish wish;
    int64_t layers;
    const char *words[3];
} refused;

static void test_grid_errors(void **state) {
    (void)state;
    static const int32_t layers[] = {3, 3, 3};
    const refused all[] = {
        {{.ranks = 10, .replicas = 1, .tensor = 1},
         9,
         {"layout.tensor 1", "10 ranks", "start 9 ranks"}},
        {{.ranks = 4, .stages = 3}, 9, {"layout.pipeline 3", "4 ranks", "; start 3 or 6 ranks"}},
        {{.ranks = 2, .stages = 3}, 9, {"layout.pipeline 3", "2 ranks", "; start 3 ranks"}},
        {{.ranks = 7, .tensor = 3}, 9, {"layout.tensor 3", "7 ranks", "start 6 or 9 ranks"}},
        {{.ranks = 8, .replicas = 3, .tensor = 2},
         9,
         {"layout.replicas 3 x layout.tensor 2, but there are 8", "start 6 or 12 ranks"}},
        {{.ranks = 8, .replicas = 3, .stages = 2, .tensor = 2},
         9,
         {"layout.replicas 3 x layout.pipeline 2 x layout.tensor 2", "; start 12 ranks"}},
        {{.ranks = 12, .stages = 12}, 9, {"layout.pipeline 12", "9 layers", "at least one"}},
        {{.ranks = 4, .layers = layers, .n_layers = 3},
         9,
         {"layout.stages 3", "4 ranks", "; start 3 or 6 ranks"}},
        {{.ranks = 3, .layers = layers, .n_layers = 3, .stages = 2},
         9,
         {"layout.stages names 3", "layout.pipeline is 2", ""}},
        {{.ranks = 11, .tensor = 1}, 9, {"11 ranks", "start 10 or 12 ranks", ""}},
        {{.ranks = 1, .replicas = 4096, .stages = 9, .tensor = 4096},
         9,
         {"layout.replicas 4096", "there is 1 rank", ""}},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        saf_layout got = {0};
        assert_int_equal(
            saf__grid_choose(&all[i].wish, (saf__grid_limits){all[i].layers, 16}, &got), SAF_USAGE);
        for (int k = 0; k < 3; k++)
            if (all[i].words[k] && !strstr(saf_error_text(), all[i].words[k]))
                fail_msg("expected '%s' in '%s'", all[i].words[k], saf_error_text());
    }
}

static void test_grid_places(void **state) {
    (void)state;
    saf_layout layout = {.replicas = 2, .stages = 3, .tensor = 4};
    int32_t next = 0;
    for (int32_t r = 0; r < 2; r++)
        for (int32_t s = 0; s < 3; s++)
            for (int32_t t = 0; t < 4; t++, next++) {
                saf_place place = saf_layout_place(&layout, next);
                assert_int_equal(saf_layout_rank(&layout, (saf_place){r, s, t}), next);
                assert_true(place.replica == r && place.stage == s && place.part == t);
            }
    assert_int_equal(saf_layout_ranks(&layout), next);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid_choices),
        cmocka_unit_test(test_grid_fits_whatever_there_is),
        cmocka_unit_test(test_grid_errors),
        cmocka_unit_test(test_grid_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
