/* Plans of ranks that stand already: as where they are only counted, where stages work by turns,
 * where hosts are unlike, and against the usual layout. */
#include "unit/plan_fixture.h"

/* Of equal hosts with a rank each, or two on each, a grid takes as long, and its ranks hold as
 * much, as where the hosts are only counted. */
static void test_plan_ranks_as_counted(void **state) {
    (void)state;
    static const int32_t grids[][3] = {{4, 1, 1}, {2, 2, 1}, {1, 4, 1}, {1, 2, 2}, {1, 1, 4}};
    model m;
    int32_t compared = 0;
    open_model(&small, &m);
    for (int32_t each = 1; each <= 4; each++)
        for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
            if (each == 3) continue;
            saf_plan_work work = i == 2 ? single : eight; /* a pipeline of four, by turns */
            saf_plan_host hosts[4], kind = host_of(4 / each, 64, 10);
            kind.core_read_bytes_s = 20e9;
            const int32_t *g = grids[i];
            int32_t host[4];
            double memory[4];
            saf_plan plan;
            work.replicas = g[0];
            work.stages = g[1];
            work.tensor = g[2];
            kind.ranks = each;
            for (int32_t r = 0; r < 4; r++) {
                host[r] = r / each;
                hosts[host[r]] = host_of(1, 64, 10);
                hosts[host[r]].core_read_bytes_s = kind.core_read_bytes_s;
            }
            saf_plan_ranks ranks = {.ranks = 4, .n_hosts = 4 / each, .host = host, .hosts = hosts};
            OK(saf_plan_of_ranks(&m.m, &ranks, &work, 4, &plan, memory));
            saf_plan counted = plan_of(&m, &kind, 1, &work);
            const saf_plan_choice *a = &plan.choices[0], *b = NULL;
            for (int32_t c = 0; c < counted.n; c++)
                if (counted.choices[c].ranks_per_host == each) b = &counted.choices[c];
            assert_int_equal(plan.n, 1);
            if (b) {
                compared += each > 1 && i == 2;
                assert_true(a->fits && b->fits);
                assert_float_equal(a->job_s / b->job_s, 1, 1e-6);
                assert_float_equal(a->token_s / b->token_s, 1, 1e-6);
                assert_float_equal(a->memory_bytes, b->memory_bytes, 1);
                assert_int_equal(a->schedule.sequences, b->schedule.sequences);
                assert_memory_equal(a->first, b->first, (size_t)(g[1] + 1) * sizeof *a->first);
            } else {
                assert_int_not_equal(each, 1); /* a search that has better places for them */
            }
            double most = 0;
            for (int32_t r = 0; r < 4; r++) most = fmax(most, memory[r]);
            assert_float_equal(most, a->memory_bytes, 1);
            saf_plan_free(&plan);
            saf_plan_free(&counted);
        }
    assert_true(compared > 0); /* stages that work by turns on one host */
    close_model(&m);
}

/* Hosts that are one machine read less when all of them do: alone one has the memory for itself,
 * and so have stages that work by turns; the ranks of a run have the same. */
static void test_plan_one_machine(void **state) {
    (void)state;
    static const int32_t grids[][3] = {{1, 1, 1}, {1, 2, 1}, {1, 1, 2}, {2, 1, 1}};
    model m;
    double token_s[2][4][2]; /* [apart, one machine][grid][one sequence, eight] */
    open_model(&usual, &m);
    for (int shared = 0; shared < 2; shared++)
        for (int g = 0; g < 4; g++)
            for (int many = 0; many < 2; many++) {
                const int32_t *grid = grids[g], host[2] = {0, 1};
                saf_plan_work work = many ? eight : single;
                if (!many) work.requests = grid[0];
                work.replicas = grid[0];
                work.stages = grid[1];
                work.tensor = grid[2];
                if (many && g == 1) work.micro_batch = 4;
                saf_plan_host kind = host_of(2, 64, 1e5), hosts[2];
                kind.link.latency_s = 0;
                kind.ranks = 1;
                if (shared) {
                    kind.machine_hosts = 2;
                    kind.machine_read_bytes_s = kind.read_bytes_s;
                }
                saf_plan plan = plan_of(&m, &kind, 1, &work), stand;
                token_s[shared][g][many] = plan.choices[0].token_s;
                hosts[0] = hosts[1] = kind;
                hosts[0].count = hosts[1].count = 1;
                saf_plan_ranks ranks = {.ranks = 2, .n_hosts = 2, .host = host, .hosts = hosts};
                if (g > 0) {
                    OK(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &stand, NULL));
                    assert_float_equal(stand.choices[0].token_s / token_s[shared][g][many], 1,
                                       1e-6);
                    saf_plan_free(&stand);
                }
                saf_plan_free(&plan);
            }
    saf_plan_host four = host_of(4, 64, 1e5); /* of which a layout uses two */
    saf_plan_work work = single;
    work.tensor = 2;
    four.ranks = 1;
    four.link.latency_s = 0;
    four.machine_hosts = 4;
    four.machine_read_bytes_s = four.read_bytes_s;
    saf_plan two = plan_of(&m, &four, 1, &work);
    assert_float_equal(two.choices[0].token_s / token_s[1][2][0], 1, 1e-6);
    saf_plan_free(&two);
    for (int g = 0; g < 4; g++) {
        double one = token_s[1][g][0] / token_s[0][g][0],
               many = token_s[1][g][1] / token_s[0][g][1];
        if (g <= 1) assert_float_equal(one, 1, 1e-9); /* by turns */
        if (g == 0) assert_float_equal(many, 1, 1e-9);
        if (g > 1) assert_true(one > 1.8 && one < 2.001); /* all the time */
        if (g > 0) assert_true(many > 1.5 && many < 2.001);
    }
    close_model(&m);
}

static saf_plan_choice two_stages(const model *m, const saf_plan_work *of, double core_bytes_s) {
    saf_plan_work work = *of;
    saf_plan_host h = host_of(1, 64, 10); /* eight cores that read 50 GB/s */
    work.stages = h.ranks = 2;
    h.core_read_bytes_s = core_bytes_s;
    saf_plan plan = plan_of(m, &h, 1, &work);
    saf_plan_choice c = plan.choices[0];
    saf_plan_free(&plan);
    return c;
}

/* Stages that work by turns have all that their cores can read; those that work at once share. */
static void test_plan_stages_alone(void **state) {
    (void)state;
    model m;
    saf_plan_work many = eight;
    many.sequences = 8;
    many.micro_batch = 4;
    open_model(&usual, &m);
    double shared_s = two_stages(&m, &single, 0).token_s, own_s = 0;
    own_s = two_stages(&m, &single, 10e9).token_s; /* four cores: 40 GB/s in place of 25 */
    assert_true(own_s > 0.62 * shared_s && own_s < 0.70 * shared_s);
    own_s = two_stages(&m, &single, 40e9).token_s; /* no more than the host's 50 */
    assert_true(own_s > 0.50 * shared_s && own_s < 0.60 * shared_s);
    own_s = two_stages(&m, &single, 1e9).token_s; /* a figure that cannot be is not believed */
    assert_float_equal(own_s, shared_s, 1e-12);
    assert_float_equal(two_stages(&m, &many, 40e9).token_s, two_stages(&m, &many, 0).token_s,
                       1e-12);
    /* two of eight cores, of 10 GB/s each: 20 in place of a quarter of 50 */
    saf_plan_work few = single;
    saf_plan_host h = host_of(1, 64, 10);
    few.threads = 2;
    saf_plan part = plan_of(&m, &h, 1, &few);
    h.core_read_bytes_s = 10e9;
    saf_plan own = plan_of(&m, &h, 1, &few);
    double gain = own.choices[0].token_s / part.choices[0].token_s;
    assert_true(gain > 0.62 && gain < 0.72);
    saf_plan_free(&part);
    saf_plan_free(&own);
    close_model(&m);
}

/* A stage that is too large for a small host goes to the large one; where speed differs, so do the
 * stages; shares and layers by hand are kept. */
static void test_plan_ranks_unlike(void **state) {
    (void)state;
    model m;
    open_model(&huge, &m);
    const int32_t host[2] = {0, 1};
    saf_plan_host hosts[2] = {host_of(1, 460, 25), host_of(1, 60, 25)};
    saf_plan_ranks ranks = {.ranks = 2, .n_hosts = 2, .host = host, .hosts = hosts};
    saf_plan_work work = single;
    saf_plan plan;
    double share[2];
    bool unlike;
    work.stages = 2;
    OK(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &plan, NULL));
    assert_true(plan.choices[0].fits && plan.choices[0].by_memory);
    assert_true(plan.choices[0].first[1] > 100);
    OK(saf_plan_shares(&m.m, &ranks, &work, true, share, &unlike));
    assert_true(unlike);
    assert_float_equal(share[0] / share[1], 460.0 / 60, 1e-9);
    saf_plan_free(&plan);
    hosts[1] = hosts[0];
    OK(saf_plan_shares(&m.m, &ranks, &work, false, share, &unlike));
    assert_false(unlike);
    hosts[1].read_bytes_s /= 3; /* one token at a time: bandwidth binds */
    OK(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &plan, NULL));
    assert_true(plan.choices[0].fits && !plan.choices[0].by_memory);
    assert_in_range(plan.choices[0].first[1], 91, 98);
    double by_speed = plan.choices[0].job_s;
    saf_plan_free(&plan);
    const double even[2] = {1, 1};
    ranks.share = even;
    OK(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &plan, NULL));
    assert_in_range(plan.choices[0].first[1], 61, 65);
    assert_true(plan.choices[0].job_s > 1.3 * by_speed);
    saf_plan_free(&plan);
    const int32_t layers[2] = {120, 6};
    work.layers = layers;
    OK(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &plan, NULL));
    assert_int_equal(plan.choices[0].first[1], 120);
    saf_plan_free(&plan);
    work.stages = 3;
    work.layers = NULL;
    assert_int_equal(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &plan, NULL), SAF_USAGE);
    hosts[0].read_bytes_s = 0;
    work.stages = 2;
    assert_int_equal(saf_plan_of_ranks(&m.m, &ranks, &work, 1, &plan, NULL), SAF_USAGE);
    close_model(&m);
}

/* The usual layout stays until another is better by more than it is allowed. */
static void test_plan_ranks_usual(void **state) {
    (void)state;
    model m;
    open_model(&small, &m);
    const int32_t host[2] = {0, 0};
    const saf_plan_host one = host_of(1, 64, 1);
    saf_plan plan;
    saf_plan_ranks ranks = {.ranks = 2, .n_hosts = 1, .host = host, .hosts = &one};
    OK(saf_plan_of_ranks(&m.m, &ranks, &eight, 8, &plan, NULL));
    assert_true(plan.n >= 3);
    const saf_plan_choice best = plan.choices[0], worst = plan.choices[plan.n - 1];
    saf_plan_free(&plan);
    ranks.usual[0] = worst.replicas;
    ranks.usual[1] = worst.stages;
    ranks.usual[2] = worst.tensor;
    for (int wide = 0; wide < 2; wide++) {
        ranks.usual_gain = 1 - best.job_s / worst.job_s + (wide ? 0.01 : -0.01);
        OK(saf_plan_of_ranks(&m.m, &ranks, &eight, 8, &plan, NULL));
        const saf_plan_choice *c = wide ? &worst : &best;
        assert_int_equal(plan.choices[0].replicas, c->replicas);
        assert_int_equal(plan.choices[0].stages, c->stages);
        saf_plan_free(&plan);
    }
    close_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_ranks_as_counted), cmocka_unit_test(test_plan_one_machine),
        cmocka_unit_test(test_plan_stages_alone),     cmocka_unit_test(test_plan_ranks_unlike),
        cmocka_unit_test(test_plan_ranks_usual),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
