/* How products are cut, and who is to compute what. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "matrix/pool.h"

static const saf_dtype F32 = SAF_DTYPE_F32, F64 = SAF_DTYPE_F64;

static saf_product_plan *plan_of(int64_t m, int64_t n, int64_t k, saf_dtype dtype,
                                 const saf_product_ranks *ranks) {
    saf_product_shape shape = {m, n, k, dtype};
    saf_product_plan *p = NULL;
    saf_status st = saf_product_plan_new(&shape, ranks, &p);
    if (st != SAF_OK) print_message("# %s\n", saf_error_text());
    assert_int_equal(st, SAF_OK);
    return p;
}

static int32_t places(const saf_product_plan *p) {
    return p->grid_m * p->grid_n * p->grid_k;
}

/* Tiles and segments cover everything once, and are no smaller than they must be. */
static void check_tiles(int64_t m, int64_t n, int64_t k, saf_dtype dtype) {
    saf_product_shape s = {m, n, k, dtype};
    saf_product_tiles t;
    assert_int_equal(saf_product_tiles_of(&s, &t), SAF_OK);
    assert_true(t.tile_m >= 1 && t.tile_n >= 1 && t.tile_k >= 1);
    assert_true(t.tile_m <= 1024 && t.tile_n <= 1024 && t.tile_k <= 1024);
    assert_true(t.tiles_m * t.tile_m >= m && (t.tiles_m - 1) * t.tile_m < saf_i64_max(m, 1));
    assert_true(t.tiles_n * t.tile_n >= n && (t.tiles_n - 1) * t.tile_n < saf_i64_max(n, 1));
    assert_true(t.panels * t.tile_k >= k && (t.panels - 1) * t.tile_k < saf_i64_max(k, 1));
    assert_int_equal(t.segments & (t.segments - 1), 0);
    assert_true(t.segments <= SAF__SUMS_MOST);
    assert_true((t.segments == 0) == (k == 0));
    int64_t at = 0;
    for (int64_t g = 0; g < t.segments; g++) {
        saf_span span = saf_product_segment(&t, g);
        assert_int_equal(span.begin, at);
        assert_true(span.end > span.begin);
        for (int64_t p = span.begin; p < span.end; p++) assert_int_equal(saf__segment_of(&t, p), g);
        at = span.end;
    }
    assert_int_equal(at, t.panels);
}

static void test_matrix_tiles_cover(void **unused) {
    static const int64_t lengths[] = {0,   1,    2,    15,   16,   17,   255,   256,
                                      257, 1009, 1023, 1024, 1025, 4096, 100000};
    enum { N = sizeof lengths / sizeof lengths[0] };
    (void)unused;
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++)
            for (int c = 0; c < N; c++)
                check_tiles(lengths[a], lengths[b], lengths[c], (a + b + c) % 2 ? F32 : F64);
}

/* What makes results the same from one version to the next: a change here is a change of numbers.
 */
static void test_matrix_tiles_stay(void **unused) {
    static const struct {
        saf_product_shape shape;
        saf_product_tiles tiles;
    } known[] = {
        {{1024, 1024, 1024, SAF_DTYPE_F32}, {512, 256, 512, 2, 4, 2, 1}},
        {{1024, 1024, 1024, SAF_DTYPE_F64}, {256, 512, 512, 4, 2, 2, 1}},
        {{4096, 4096, 4096, SAF_DTYPE_F32}, {1024, 1024, 512, 4, 4, 8, 2}},
        {{256, 256, 100000, SAF_DTYPE_F32}, {256, 256, 512, 1, 1, 196, 32}},
        {{50000, 128, 128, SAF_DTYPE_F64}, {1024, 128, 128, 49, 1, 1, 1}},
        {{1, 5000, 9000, SAF_DTYPE_F32}, {1, 1008, 1008, 1, 5, 9, 2}},
        {{1, 5000, 9000, SAF_DTYPE_F64}, {1, 512, 1008, 1, 10, 9, 2}},
        {{5000, 1, 9000, SAF_DTYPE_F64}, {1008, 1, 512, 5, 1, 18, 4}},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        saf_product_tiles t;
        assert_int_equal(saf_product_tiles_of(&known[i].shape, &t), SAF_OK);
        assert_memory_equal(&t, &known[i].tiles, sizeof t);
    }
}

/* Every place has one rank; spans cover all tiles. */
static void check_plan(const saf_product_plan *p) {
    assert_true(places(p) >= 1 && places(p) <= p->ranks);
    for (int32_t x = 0; x < places(p); x++) assert_int_equal(p->place[p->rank[x]], x);
    int32_t idle = 0;
    for (int32_t r = 0; r < p->ranks; r++) idle += p->place[r] < 0;
    assert_int_equal(idle, p->ranks - places(p));
    assert_int_equal(p->row0[0], 0);
    assert_int_equal(p->col0[0], 0);
    assert_int_equal(p->seg0[0], 0);
    assert_int_equal(p->row0[p->grid_m], p->tiles.tiles_m);
    assert_int_equal(p->col0[p->grid_n], p->tiles.tiles_n);
    assert_int_equal(p->seg0[p->grid_k], p->tiles.segments);
}

static void test_matrix_grid_follows_shape(void **unused) {
    static const int32_t one_host[16] = {0};
    saf_product_ranks near = {.ranks = 16, .host = one_host}, far = {.ranks = 16};
    (void)unused;
    saf_product_plan *p = plan_of(256, 256, 1000000, F32, &near);
    check_plan(p);
    assert_int_equal(p->grid_m * p->grid_n, 1);
    assert_int_equal(p->grid_k, 16);
    saf_product_plan_free(&p);
    p = plan_of(500000, 128, 128, F32, &near);
    check_plan(p);
    assert_int_equal(p->grid_m, 16);
    saf_product_plan_free(&p);
    /* A square over a network: the grid is one, so that rows and columns travel less. */
    p = plan_of(16384, 16384, 16384, F64, &far);
    check_plan(p);
    assert_int_equal(p->grid_m, 4);
    assert_int_equal(p->grid_n, 4);
    assert_int_equal(p->grid_k, 1);
    saf_product_plan_free(&p);
    /* Too little work to be worth a network: everybody else is idle. */
    p = plan_of(200, 200, 200, F32, &far);
    check_plan(p);
    assert_int_equal(places(p), 1);
    saf_product_plan_free(&p);
}

static void test_matrix_shares_follow_speed(void **unused) {
    static const double speed[3] = {60e9, 20e9, 20e9};
    saf_product_ranks ranks = {.ranks = 3, .speed = speed, .link_bytes_s = 1e12};
    (void)unused;
    saf_product_plan *p = plan_of(20480, 1000, 2000, F32, &ranks);
    check_plan(p);
    assert_int_equal(p->grid_m, 3);
    assert_int_equal(p->row0[1], 12);
    assert_int_equal(p->row0[2], 16);
    saf_product_plan_free(&p);
}

/* Primes, and more ranks than there are tiles. */
static void test_matrix_any_ranks(void **unused) {
    (void)unused;
    for (int32_t n = 1; n <= 40; n++) {
        saf_product_ranks ranks = {.ranks = n, .link_bytes_s = 1e10};
        saf_product_plan *p = plan_of(3000, 2000, 5000, F64, &ranks);
        check_plan(p);
        saf_product_plan_free(&p);
        p = plan_of(n, 0, 7, F64, &ranks);
        check_plan(p);
        saf_product_plan_free(&p);
    }
}

static void test_matrix_keeps_the_cap(void **unused) {
    saf_product_ranks ranks = {.ranks = 4};
    bool streamed = false, rounds = false;
    (void)unused;
    double before = 0;
    for (int64_t mib = 2048; mib >= 52; mib = mib * 3 / 4) {
        ranks.memory_bytes = mib << 20;
        saf_product_plan *p = plan_of(8192, 8192, 8192, F64, &ranks);
        check_plan(p);
        for (int r = 0; r < 4; r++) assert_true(p->memory_bytes[r] <= ranks.memory_bytes);
        int64_t read = 0;
        for (int r = 0; r < 4; r++) read += p->bytes_read[r];
        if (p->resident) assert_int_equal(read, 2 * 8192LL * 8192 * 8); /* each once */
        assert_true(p->seconds >= before);                              /* less memory is no gain */
        before = p->seconds;
        streamed = streamed || !p->resident;
        rounds = rounds || p->rounds > 1;
        saf_product_plan_free(&p);
    }
    assert_true(streamed && rounds);
}

/* Panels of a 2 x 2 grid on four hosts: each rank receives half of its rows of A and columns of B.
 */
static void test_matrix_models_panels(void **unused) {
    saf_product_shape shape = {4096, 4096, 4096, SAF_DTYPE_F32};
    saf_product_ranks ranks = {.ranks = 4};
    saf_product_plan *p = NULL;
    (void)unused;
    assert_int_equal(saf__plan_grid(&shape, &ranks, 2, 2, 1, &p), SAF_OK);
    for (int r = 0; r < 4; r++) {
        assert_int_equal(p->bytes_received[r], 2 * 2048LL * 4096 * 4 / 2);
        assert_int_equal(p->bytes_read[r], 2 * 2048LL * 4096 * 4 / 2);
    }
    saf_product_plan_free(&p);
    static const int32_t rows[4] = {0, 0, 1, 1}; /* A stays on a host, B does not */
    ranks.host = rows;
    assert_int_equal(saf__plan_grid(&shape, &ranks, 2, 2, 1, &p), SAF_OK);
    int64_t sum = 0;
    for (int r = 0; r < 4; r++) sum += p->bytes_received[r];
    assert_int_equal(sum, 2 * 4096LL * 4096 * 4 / 2);
    saf_product_plan_free(&p);
}

/* Tiles of one factor that each of a group owns, of so many panels from `begin` on: the most. */
static int64_t most_owned(const saf_product_plan *p, int f, int32_t place, int64_t begin,
                          int64_t panels) {
    saf__share s = saf__share_of(p, place);
    int64_t owned[64] = {0}, most = 0;
    for (int64_t line = s.line[f].begin; line < s.line[f].end; line++)
        for (int64_t x = begin; x < begin + panels; x++) owned[saf__owner(p, f, line, x)]++;
    for (int i = 0; i < 64; i++) most = saf_i64_max(most, owned[i]);
    return most;
}

/* What each of a group sends is the same in every batch. */
static void test_matrix_owners_are_even(void **unused) {
    saf_product_shape shape = {16384, 16384, 16384, SAF_DTYPE_F32};
    saf_product_ranks ranks = {.ranks = 64};
    saf_product_plan *p = NULL;
    (void)unused;
    assert_int_equal(saf__plan_grid(&shape, &ranks, 8, 8, 1, &p), SAF_OK);
    assert_int_equal(p->batch, 4);
    for (int64_t begin = 0; begin < 32; begin += 4)
        for (int f = 0; f < SAF__FACTORS; f++)
            assert_int_equal(most_owned(p, f, 27, begin, 4), 1); /* 2 lines, 4 panels, 8 members */
    saf_product_plan_free(&p);
    /* One line for each of 32 columns of the grid, and 8 of 64 panels at a time, over 16 members:
     * of all groups together each row of the grid owns 16 tiles. */
    ranks.ranks = 512;
    shape = (saf_product_shape){32768, 32768, 32768, SAF_DTYPE_F32};
    assert_int_equal(saf__plan_grid(&shape, &ranks, 16, 32, 1, &p), SAF_OK);
    for (int64_t begin = 0; begin < 64; begin += 8) {
        int owned[16] = {0};
        for (int64_t line = 0; line < 32; line++)
            for (int64_t x = begin; x < begin + 8; x++) owned[saf__owner(p, SAF__B, line, x)]++;
        for (int row = 0; row < 16; row++) assert_int_equal(owned[row], 16);
    }
    saf_product_plan_free(&p);
}

/* As many as are loaded, whatever the lengths. */
static void test_matrix_owned_are_counted(void **unused) {
    static const int32_t grids[][3] = {{1, 4, 1}, {4, 1, 1}, {2, 3, 1}, {3, 2, 2}, {5, 2, 1}};
    (void)unused;
    for (size_t g = 0; g < sizeof grids / sizeof grids[0]; g++) {
        saf_product_shape shape = {2048 + 700 * (int64_t)g, 3000, 1024 * ((int64_t)g + 1), F64};
        saf_product_ranks ranks = {.ranks = 12};
        saf_product_plan *p = NULL;
        assert_int_equal(saf__plan_grid(&shape, &ranks, grids[g][0], grids[g][1], grids[g][2], &p),
                         SAF_OK);
        for (int32_t x = 0; x < places(p); x++) {
            saf__pool pool = {.plan = p, .place = x, .share = saf__share_of(p, x)};
            int64_t owned = 0;
            for (int f = 0; f < SAF__FACTORS; f++)
                for (int64_t l = pool.share.line[f].begin; l < pool.share.line[f].end; l++)
                    for (int64_t k = pool.share.panels.begin; k < pool.share.panels.end; k++)
                        owned += saf__member_place(p, f, saf__group_of(p, f, x),
                                                   saf__owner(p, f, l, k)) == x;
            assert_int_equal(saf__pool_owned(&pool), owned);
        }
        saf_product_plan_free(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrix_tiles_cover),
        cmocka_unit_test(test_matrix_tiles_stay),
        cmocka_unit_test(test_matrix_grid_follows_shape),
        cmocka_unit_test(test_matrix_shares_follow_speed),
        cmocka_unit_test(test_matrix_any_ranks),
        cmocka_unit_test(test_matrix_keeps_the_cap),
        cmocka_unit_test(test_matrix_models_panels),
        cmocka_unit_test(test_matrix_owners_are_even),
        cmocka_unit_test(test_matrix_owned_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
