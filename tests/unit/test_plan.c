/* Plans: the roofline against sums worked out by hand, what the header says against a loaded slice
 * and stage, and what must hold for any cluster: a slower link never makes a split look better,
 * more memory never makes a fit vanish. */
#include "unit/plan_fixture.h"

/* A plan for a thousand hosts: five seconds, more where the compiler checks what it does. */
#ifdef __SANITIZE_ADDRESS__
enum { LIMIT_S = 50 };
#else
enum { LIMIT_S = 5 };
#endif

/* ---- by hand ---- */

/* 10 GB/s, 100 Gop/s of int8, 20 of f32, one thread, Q8_0: 0.96 of the bandwidth, 0.64 of
 * int8, and 0.70 by tiles from 48 rows on; three fifths of the shorter hide, a tenth by tiles. */
static void test_plan_roofline(void **state) {
    (void)state;
    const double few = 0.64;
    saf_plan_rates r = {10e9, 100e9, 20e9, false, 1, SAF_DTYPE_Q8_0, 0, 0};
    saf_plan_flight read = {.weight_bytes = 0.96e9, .rows = 1};
    assert_float_equal(saf_plan_flight_s(&r, &read), 0.1, 1e-6);
    saf_plan_flight both = {.weight_bytes = 0.96e9, .int8_ops = 57e9, .rows = 64};
    assert_float_equal(saf_plan_flight_s(&r, &both), 0.57 / few + 0.1 * 0.4, 1e-6);
    r.tiles = true;
    assert_float_equal(saf_plan_flight_s(&r, &both), 57 / 70.0 + 0.1 * 0.9, 1e-6);
    both.rows = 47; /* three nearly full tiles */
    assert_float_equal(saf_plan_flight_s(&r, &both), 57 / 77.0 + 0.1 * 0.9, 1e-6);
    both.rows = 36;
    assert_float_equal(saf_plan_flight_s(&r, &both), 0.57 / few + 0.1 * 0.4, 1e-6);
    r.threads = 2;
    assert_float_equal(saf_plan_flight_s(&r, &read), 0.1, 1e-6);
    /* the cache at 0.8 of the bandwidth, attention at 0.68 of f32: the longer */
    saf_plan_flight cache = {.kv_bytes = 8e9, .attention_ops = 6.8e9, .rows = 1};
    assert_float_equal(saf_plan_flight_s(&r, &cache), 1, 1e-6);
    cache.attention_ops = 27.2e9;
    assert_float_equal(saf_plan_flight_s(&r, &cache), 2, 1e-6);
    /* a processor whose products reach more of the peak, and hide more: of attention nothing; of
     * Q4_K 0.97 of that, and from two rows on half a row's time to unpack, but not by tiles */
    r.product_share = 0.76;
    r.hidden_share = 0.9;
    assert_float_equal(saf_plan_flight_s(&r, &cache), 2, 1e-6);
    const double rate = 0.76;
    assert_float_equal(saf_plan_flight_s(&r, &both), 0.57 / rate + 0.1 * 0.1, 1e-6);
    r.dtype = SAF_DTYPE_Q4_K;
    assert_float_equal(saf_plan_flight_s(&r, &both),
                       0.57 / rate / 0.97 * 36.5 / 36 + 0.96 / 9.5 * 0.1, 1e-6);
    both.rows = 1;
    assert_float_equal(saf_plan_flight_s(&r, &both), 0.57 / rate / 0.97 + 0.96 / 9.5 * 0.1, 1e-6);
    both.rows = 47;
    assert_float_equal(saf_plan_flight_s(&r, &both), 57 / 65.0 + 0.96 / 9.5 * 0.9, 1e-6);
    both.rows = 50; /* four tiles, the last one far from full, but many */
    assert_float_equal(saf_plan_flight_s(&r, &both), 57 / 56.0 + 0.96 / 9.5 * 0.9, 1e-6);
    r.dtype = SAF_DTYPE_Q6_K; /* few of these take no tiles */
    both.rows = 16;
    assert_float_equal(saf_plan_flight_s(&r, &both),
                       0.57 / rate / 0.80 * 16.5 / 16 + 0.96 / 9.5 * 0.1, 1e-6);
    r.dtype = SAF_DTYPE_F32; /* 0.8 of 20 Gop/s */
    saf_plan_flight plain = {.weight_bytes = 0.95e9, .float_ops = 16e9, .rows = 16};
    assert_float_equal(saf_plan_flight_s(&r, &plain), 1 + 0.1 * 0.1, 1e-6);
}

static void test_plan_links(void **state) {
    (void)state;
    saf_plan_host h = host_of(2, 1, 1); /* 125 MB/s, 30 us */
    assert_float_equal(saf_plan_message_s(&h, 125e3), 1030e-6, 1e-9);
    /* of 250 KB each of two hosts sends half */
    assert_float_equal(saf_plan_meeting_s(&h, 1, 2, 250e3, 125e3), 1030e-6, 1e-9);
    /* of four a quarter to three, one message after the other */
    assert_float_equal(saf_plan_overhead_s(&h), 3.2e-6, 1e-12);
    assert_float_equal(saf_plan_meeting_s(&h, 1, 4, 500e3, 125e3), 3036.4e-6, 1e-9);
    /* one of four all of it to three */
    assert_float_equal(saf_plan_meeting_s(&h, 1, 4, 500e3, 500e3), 12036.4e-6, 1e-9);
    /* of 64 each has 63 to send, and 63 to take */
    assert_float_equal(saf_plan_meeting_s(&h, 1, 64, 0, 0), 403.2e-6, 1e-9);
    assert_float_equal(saf_plan_meeting_s(&h, 1, 1, 500e3, 500e3), 0, 1e-12);
    assert_true(saf_plan_meeting_s(&h, 4, 1, 4096, 4096) <
                saf_plan_meeting_s(&h, 4, 2, 4096, 2048));
    h.link.latency_s = 2e-6;
    assert_float_equal(saf_plan_overhead_s(&h), 0.25e-6, 1e-12);
    /* 2 KiB were seen to take 10 us more than a byte */
    h.link.short_s = 12e-6;
    assert_float_equal(saf_plan_message_s(&h, 0), 2e-6, 1e-12);
    assert_float_equal(saf_plan_message_s(&h, 512), 4.5e-6, 1e-12);
    assert_float_equal(saf_plan_message_s(&h, 2048 + 125), 13e-6, 1e-12);
    assert_float_equal(saf_plan_meeting_s(&h, 1, 2, 4096, 2048), 12e-6, 1e-12);
    h.link.short_s = 1e-6; /* no less than a byte */
    assert_float_equal(saf_plan_message_s(&h, 2048 + 125), 3e-6, 1e-12);
    saf_plan_link slower =
        saf_plan_slower_link(&(saf_plan_link){1e9, 3e-6, 4e-6}, &(saf_plan_link){2e9, 2e-6, 5e-6});
    assert_float_equal(slower.bytes_s, 1e9, 0);
    assert_float_equal(slower.latency_s, 3e-6, 0);
    assert_float_equal(slower.short_s, 5e-6, 0);
    slower = saf_plan_slower_link(&slower, &(saf_plan_link){1e9, 9e-6, 0});
    assert_float_equal(slower.short_s, 0, 0);
}

static void test_plan_model_numbers(void **state) {
    (void)state;
    model m;
    open_model(&usual, &m);
    const saf_plan_part *all = &m.m.sums[28];
    assert_float_equal(all->bytes + m.m.head.bytes, 633e6, 1e6);
    assert_float_equal(all->int8_ops + m.m.head.int8_ops, 1.19e9, 0.01e9);
    assert_float_equal(m.m.kv_position_bytes, 28 * 2 * 8 * 128 * 2, 0);
    assert_float_equal(m.m.pair_ops, 4 * 16 * 128, 0);
    /* 7.6 KB a layer each way, of two */
    assert_float_equal(m.m.share_row_bytes / 2, 7616, 0);
    close_model(&m);
}

/* ---- against what is loaded ---- */

static void test_plan_against_stage(void **state) {
    (void)state;
    enum { CAPACITY = 300, TOKENS = 64, RUNS = 4 };
    const saf_stage_room room = {TOKENS, RUNS, RUNS, 7};
    model m;
    saf_slice *slice = NULL;
    saf_kv_cache *kv = NULL;
    saf_stage *stage = NULL;
    size_t packed;
    open_model(&small, &m);
    saf_slice_range whole = saf_slice_range_whole(&m.p, 0, 6, true, true);
    OK(saf_slice_load(m.g, &m.p, whole, &slice));
    OK(saf_slice_plan_bytes(m.g, &m.p, whole, &packed));
    assert_int_equal(packed, saf_slice_memory_bytes(slice));
    assert_float_equal(m.m.sums[6].packed_bytes + m.m.tied_packed, (double)packed, 0);
    OK(saf_kv_cache_new(&m.p, whole, SAF_KV_F16, RUNS, CAPACITY, &kv));
    OK(saf_stage_new(&m.p, slice, kv, room, NULL, &stage));
    assert_int_equal(saf_stage_plan_bytes(&m.p, whole, CAPACITY, room, false),
                     saf_stage_bytes(stage));
    /* one token: what the stage itself counts */
    const saf_run run = {.tokens = 1, .logits = 1};
    const int32_t id = 5;
    const saf_batch batch = {1, 1, &run, &id};
    saf_cost cost[SAF_STEP_COUNT];
    int64_t bytes = 0, ops = 0;
    saf_stage_cost(stage, &batch, cost);
    for (int i = 0; i < SAF_STEP_COUNT; i++) {
        if (i != SAF_STEP_EMBED) bytes += cost[i].weight_bytes;
        ops += cost[i].int8_ops;
    }
    assert_float_equal(m.m.sums[6].bytes + m.m.head.bytes, (double)bytes, 0);
    assert_float_equal(m.m.sums[6].int8_ops + m.m.head.int8_ops, (double)ops, 0);
    assert_float_equal(m.m.pair_ops * 6, (double)cost[SAF_STEP_ATTENTION].float_ops, 0);
    saf_stage_free(&stage);
    saf_kv_cache_free(&kv);
    saf_slice_free(&slice);
    close_model(&m);
}

/* ---- what must hold ---- */

static double job_s(const model *m, saf_plan_work work, saf_plan_host host, int32_t stages,
                    int32_t tensor) {
    work.replicas = 1;
    work.stages = stages;
    work.tensor = tensor;
    saf_plan plan = plan_of(m, &host, 1, &work);
    double s = plan.choices[0].job_s;
    saf_plan_free(&plan);
    return s;
}

/* A host of two sends half of V logits for each token that is drawn, else 8 bytes for 512 of them.
 */
static void test_plan_whole_rows(void **state) {
    (void)state;
    model m;
    open_model(&usual, &m);
    saf_plan_work drawn = single;
    drawn.whole_rows = true;
    saf_plan_host h = host_of(2, 64, 1);
    double rows = single.completion_tokens * (double)single.requests, V = (double)m.p.vocab;
    double more = job_s(&m, drawn, h, 1, 2) - job_s(&m, single, h, 1, 2);
    double bytes = (4 * V - 8 * V / SAF_LOGIT_SEGMENT) / 2;
    assert_true(more > 0.9 * rows * bytes / h.link.bytes_s);
    assert_true(more < 1.3 * rows * (bytes / h.link.bytes_s + h.link.latency_s + 1e-9 * V));
    /* and of each of 200 tokens that are told of 12 bytes */
    saf_plan_work told = single;
    told.candidates = 200;
    more = job_s(&m, told, h, 1, 2) - job_s(&m, single, h, 1, 2);
    bytes = 200 * 12;
    assert_true(more > 0.9 * rows * bytes / h.link.bytes_s);
    assert_true(more < 1.1 * rows * bytes / h.link.bytes_s);
    close_model(&m);
}

/* All logits are needed where they are kept, or no list of the likeliest will do. */
static void test_plan_rows_of_requests(void **state) {
    (void)state;
    const saf_sampling greedy = {.top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
    saf_request r = {.sampling = greedy};
    saf_work work = {.n_requests = 1, .requests = &r};
    assert_false(saf_work_whole_rows(&work, &r));
    assert_int_equal(saf_work_candidates(&work), 1);
    r.sampling.temperature = 0.5;
    assert_true(saf_work_whole_rows(&work, &r)); /* drawn from all */
    assert_int_equal(saf_work_candidates(&work), 0);
    r.sampling.top_p = 0.9;
    assert_false(saf_work_whole_rows(&work, &r));
    assert_int_equal(saf_work_candidates(&work), SAF_NUCLEUS);
    r.sampling.top_k = 40;
    work.n_top = 3;
    assert_false(saf_work_whole_rows(&work, &r));
    assert_int_equal(saf_work_candidates(&work), 43);
    r.sampling.top_k = SAF_CANDIDATES - 2;
    assert_true(saf_work_whole_rows(&work, &r)); /* three more than there is room for */
    r.sampling.top_k = 40;
    r.sampling.repeat_penalty = 1.1;
    assert_false(saf_work_whole_rows(&work, &r));
    r.sampling.repeat_last = -1;
    assert_true(saf_work_whole_rows(&work, &r)); /* any number is penalised */
    r.sampling.repeat_penalty = 1;
    assert_false(saf_work_whole_rows(&work, &r));
    work.logits = true;
    assert_true(saf_work_whole_rows(&work, &r));
    work = (saf_work){.score = true, .n_requests = 1, .requests = &r};
    assert_false(saf_work_whole_rows(&work, &r));
    assert_int_equal(saf_work_candidates(&work), 0);
}

static void test_plan_slower_link_is_never_better(void **state) {
    (void)state;
    model m;
    open_model(&huge, &m);
    const double gbit[] = {100, 25, 10, 1, 0.1, 0.01};
    const int32_t cuts[][2] = {{4, 1}, {1, 4}, {2, 2}, {8, 1}};
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++)
        for (int w = 0; w < 2; w++) {
            double before = 0;
            for (size_t i = 0; i < sizeof gbit / sizeof gbit[0]; i++) {
                double now =
                    job_s(&m, w ? eight : single, host_of(8, 512, gbit[i]), cuts[c][0], cuts[c][1]);
                assert_true(now >= before);
                before = now;
            }
            saf_plan_host late = host_of(8, 512, 100);
            late.link.latency_s = 1;
            assert_true(
                job_s(&m, w ? eight : single, late, cuts[c][0], cuts[c][1]) >
                job_s(&m, w ? eight : single, host_of(8, 512, 100), cuts[c][0], cuts[c][1]));
        }
    /* a link as slow as that: one host, and the sentence says so */
    saf_plan_host slow = host_of(4, 1000, 0.001);
    saf_plan plan = plan_of(&m, &slow, 1, &single);
    assert_int_equal(plan.choices[0].hosts, 1);
    assert_non_null(strstr(plan.why, "one host alone is"));
    if (!strstr(plan.why, "the link would take")) fail_msg("%s", plan.why);
    saf_plan_free(&plan);
    close_model(&m);
}

static void test_plan_more_memory_never_stops_fitting(void **state) {
    (void)state;
    model m;
    open_model(&huge, &m);
    for (int32_t hosts = 1; hosts <= 8; hosts *= 2) {
        bool fitted = false;
        double short_before = INFINITY;
        for (double gb = 16; gb < 1200; gb *= 1.15) {
            saf_plan_host host = host_of(hosts, gb, 10);
            saf_plan plan = plan_of(&m, &host, 1, &eight);
            const saf_plan_choice *best = &plan.choices[0];
            assert_true(best->fits || !fitted);
            assert_true(best->short_bytes <= short_before);
            if (best->fits) assert_true(best->host_bytes <= best->room_bytes);
            if (!best->fits) assert_non_null(strstr(plan.why, "does not fit"));
            fitted = best->fits;
            short_before = best->short_bytes;
            saf_plan_free(&plan);
        }
        assert_true(fitted);
    }
    close_model(&m);
}

/* 431 GB: on 512 GB hosts one is enough, on those of 128 GB it takes four. */
static void test_plan_fewest_hosts(void **state) {
    (void)state;
    model m;
    open_model(&huge, &m);
    saf_plan_host big = host_of(2, 512, 10), little = host_of(8, 128, 10);
    saf_plan plan = plan_of(&m, &big, 1, &eight);
    assert_non_null(plan.one_host);
    assert_true(plan.one_host->fits);
    saf_plan_free(&plan);
    plan = plan_of(&m, &little, 1, &eight);
    assert_true(plan.choices[0].fits);
    assert_non_null(strstr(plan.why, "does not fit on fewer than 4 hosts: short of"));
    saf_plan_free(&plan);
    close_model(&m);
}

/* Hosts of unlike memory: equal shares do not fit, those by memory do. */
static void test_plan_unlike_memory(void **state) {
    (void)state;
    model m;
    open_model(&huge, &m);
    saf_plan_host hosts[2] = {host_of(1, 460, 10), host_of(1, 60, 10)};
    saf_plan plan = plan_of(&m, hosts, 2, &eight);
    const saf_plan_choice *best = &plan.choices[0];
    assert_true(best->fits);
    assert_int_equal(best->hosts, 2);
    assert_true(best->by_memory);
    assert_true(best->first[1] > 100);
    saf_plan_free(&plan);
    close_model(&m);
}

static void test_plan_thousands_of_hosts(void **state) {
    (void)state;
    model m;
    open_model(&huge, &m);
    saf_plan_host hosts[3] = {host_of(400, 512, 100), host_of(300, 256, 100),
                              host_of(300, 128, 100)};
    hosts[1].read_bytes_s /= 2;
    hosts[2].read_bytes_s /= 4;
    saf_plan_work work = eight;
    work.requests = 1000;
    clock_t start = clock(); /* of this process: others may keep the cores busy */
    saf_plan plan = plan_of(&m, hosts, 3, &work);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < LIMIT_S);
    assert_true(plan.choices[0].fits);
    double alone = plan.choices[0].job_s;
    saf_plan_free(&plan);
    hosts[0].count = 10000;
    plan = plan_of(&m, hosts, 1, &work);
    assert_true(plan.choices[0].job_s <= alone);
    assert_true(plan.choices[0].hosts <= 10000);
    saf_plan_free(&plan);
    close_model(&m);
}

static void refused(const model *m, saf_plan_cluster cluster, saf_plan_work work) {
    saf_plan plan;
    assert_int_equal(saf_plan_make(&m->m, &cluster, &work, 8, &plan), SAF_USAGE);
    assert_null(plan.choices);
}

static void test_plan_refuses(void **state) {
    (void)state;
    model m;
    open_model(&small, &m);
    saf_plan_host host = host_of(2, 16, 1);
    saf_plan_work work = eight;
    refused(&m, (saf_plan_cluster){0, &host, 0}, work);
    work.stages = 7; /* of 6 layers */
    refused(&m, (saf_plan_cluster){1, &host, 0}, work);
    work = eight;
    work.tensor = 3; /* of two hosts */
    refused(&m, (saf_plan_cluster){1, &host, 0}, work);
    work = eight;
    work.requests = 0;
    refused(&m, (saf_plan_cluster){1, &host, 0}, work);
    host.read_bytes_s = 0;
    refused(&m, (saf_plan_cluster){1, &host, 0}, eight);
    host = host_of(2, 16, 1);
    host.count = SAF_PLAN_HOSTS_MAX + 1;
    refused(&m, (saf_plan_cluster){1, &host, 0}, eight);
    close_model(&m);
}

/* Every layout of what was asked for, and no more ranks than that. */
static void test_plan_keeps_to_the_numbers(void **state) {
    (void)state;
    model m;
    open_model(&small, &m);
    saf_plan_host host = host_of(6, 16, 1);
    host.ranks = 2;
    saf_plan_cluster cluster = {1, &host, 5};
    saf_plan plan;
    OK(saf_plan_make(&m.m, &cluster, &eight, 16, &plan));
    for (int32_t i = 0; i < plan.n; i++) {
        const saf_plan_choice *c = &plan.choices[i];
        assert_true(c->replicas * c->stages * c->tensor <= 5);
        assert_int_equal(c->first[0], 0);
        assert_int_equal(c->first[c->stages], 6);
        for (int32_t s = 0; s < c->stages; s++) assert_true(c->first[s] < c->first[s + 1]);
        if (i > 0) assert_true(c->job_s >= plan.choices[0].job_s * 0.99);
        assert_true(c->network_share >= 0 && c->network_share < 1);
        if (c->hosts == 1) assert_true(c->network_share < 1e-9);
    }
    saf_plan_free(&plan);
    close_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_roofline),
        cmocka_unit_test(test_plan_links),
        cmocka_unit_test(test_plan_model_numbers),
        cmocka_unit_test(test_plan_against_stage),
        cmocka_unit_test(test_plan_whole_rows),
        cmocka_unit_test(test_plan_rows_of_requests),
        cmocka_unit_test(test_plan_slower_link_is_never_better),
        cmocka_unit_test(test_plan_more_memory_never_stops_fitting),
        cmocka_unit_test(test_plan_fewest_hosts),
        cmocka_unit_test(test_plan_unlike_memory),
        cmocka_unit_test(test_plan_thousands_of_hosts),
        cmocka_unit_test(test_plan_refuses),
        cmocka_unit_test(test_plan_keeps_to_the_numbers),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
