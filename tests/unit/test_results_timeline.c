/* /timeline comes back as it was written, and rows that cannot be are refused. */
#include <hdf5.h>

#include "results_fixture.h"

static char folder[256], file[300];

static int set_up(void **state) {
    (void)state;
    strcpy(folder, fixture_folder());
    snprintf(file, sizeof file, "%s/t.h5", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    return rmdir(folder);
}

static void test_results_timeline_of_many_rows(void **state) {
    (void)state;
    enum { ROWS = 5000 }; /* some blocks, and a part of one */
    saf_results r, back = {0};
    fixture_make(&r, 2, 1);
    saf_free(&r.timeline);
    r.n_entries = 0;
    fixture_ok(saf_alloc(ROWS, sizeof *r.timeline, &r.timeline));
    for (int i = 0; i < ROWS; i++)
        fixture_entry(&r, i * 2 / ROWS, i % 2 ? "compute" : "wait", i * 1e-3, 1e-6 * i,
                      (int64_t)i << 33, i);
    fixture_ok(fixture_write(file, &r, 0));
    fixture_ok(saf_results_read(file, &back));
    fixture_same(&r, &back);
    saf_results_free(&back);
    saf_results_free(&r);
}

static void test_results_without_a_timeline(void **state) {
    (void)state;
    saf_results r, back = {0};
    fixture_make(&r, 2, 1);
    r.n_entries = 0;
    fixture_ok(fixture_write(file, &r, 0));
    hid_t id = H5Fopen(file, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(H5Lexists(id, "/timeline", H5P_DEFAULT) == 0);
    H5Fclose(id);
    fixture_ok(saf_results_read(file, &back));
    assert_int_equal(back.n_entries, 0);
    assert_null(back.timeline);
    saf_results_free(&back);
    saf_results_free(&r);
}

static void test_results_timeline_that_cannot_be(void **state) {
    (void)state;
    for (int what = 0; what < 6; what++) {
        saf_results r, back = {0};
        saf_results_writer *w = NULL;
        fixture_make(&r, 2, 1);
        saf_result_entry *e = &r.timeline[5];
        if (what == 0) e->rank = -1;
        if (what == 1) e->rank = 2;
        if (what == 2) e->start_s = NAN;
        if (what == 3) e->end_s = INFINITY;
        if (what == 4) e->end_s = e->start_s - 1e-9;
        fixture_ok(saf_results_create(file, &w));
        fixture_ok(saf_results_hash(w, &r));
        /* the writer reads its file back, and so refuses it as well */
        assert_int_equal(saf_results_finish(w, &r), what == 5 ? SAF_OK : SAF_IO);
        if (what < 5) assert_non_null(strstr(saf_error_text(), "row 5 of /timeline"));
        saf_results_writer_free(&w);
        if (what == 5) fixture_ok(saf_results_read(file, &back));
        saf_results_free(&back);
        saf_results_free(&r);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_results_timeline_of_many_rows),
        TEST(test_results_without_a_timeline),
        TEST(test_results_timeline_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
