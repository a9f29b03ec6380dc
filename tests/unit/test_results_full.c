/* A disk that fills up at any moment of writing a results file: the job hears of it, an older
 * file stays as it was, and nothing half-written stays behind. Two stand-ins for a full disk: a
 * limit on the size of files (at every size up to the whole), and a small file system of its own
 * where the tests may mount one. */
#include <errno.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "results_fixture.h"
#include "small_files.h"

static char folder[256], file[300], part[320];

static int set_up(void **state) {
    (void)state;
    strcpy(folder, fixture_folder());
    snprintf(file, sizeof file, "%s/r.h5", folder);
    snprintf(part, sizeof part, "%s.part", file);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    unlink(part);
    return rmdir(folder);
}

/* Writes a results file in a process of its own, as HDF5's work at exit belongs to the test, and
 * a limit cannot be taken back. */
static int write_limited(rlim_t limit, int64_t n_requests, int64_t rows_each) {
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        saf_results r;
        fixture_make(&r, 2, n_requests);
        small_files_only(limit);
        saf_status st = fixture_write(file, &r, rows_each);
        const char *text = saf_error_text();
        saf_results_free(&r);
        if (st == SAF_OK) exit(CHILD_DONE); /* HDF5 cleans up here */
        if (st != SAF_IO) {
            fprintf(stderr, "limit %llu: %s: %s\n", (unsigned long long)limit, saf_status_text(st),
                    text);
            exit(CHILD_OTHER);
        }
        bool clear = strstr(text, part) && strstr(text, "bytes") &&
                     (strstr(text, strerror(EFBIG)) || strstr(text, strerror(ENOSPC)));
        if (!clear) fprintf(stderr, "limit %llu: %s\n", (unsigned long long)limit, text);
        exit(clear ? CHILD_FULL : CHILD_UNCLEAR);
    }
    return small_files_result(child, limit);
}

static void read_file(saf_buf *out) {
    saf_buf_clear(out);
    fixture_ok(saf_file_read(file, 1 << 28, out));
}

/* An older file with other content, and the size of the new one written without any limit. */
static off_t write_older(int64_t n_requests, int64_t rows_each, saf_buf *older) {
    struct stat st;
    assert_int_equal(write_limited(RLIM_INFINITY, n_requests, rows_each), CHILD_DONE);
    assert_int_equal(stat(file, &st), 0);
    off_t whole = st.st_size;
    assert_int_equal(write_limited(RLIM_INFINITY, 1, 0), CHILD_DONE);
    read_file(older);
    return whole;
}

static void expect_untouched(const saf_buf *older) {
    saf_buf now = {0};
    read_file(&now);
    assert_int_equal(now.len, older->len);
    assert_memory_equal(now.data, older->data, now.len);
    assert_false(fixture_exists(part));
    saf_buf_free(&now);
}

static void sweep(int64_t n_requests, int64_t rows_each, int steps) {
    saf_buf older = {0};
    off_t whole = write_older(n_requests, rows_each, &older);
    for (int i = 0; i < steps; i++) {
        rlim_t limit = (rlim_t)(whole * i / steps);
        int rc = write_limited(limit, n_requests, rows_each);
        if (rc != CHILD_FULL)
            fail_msg("limit %llu of %lld: %d", (unsigned long long)limit, (long long)whole, rc);
        expect_untouched(&older);
    }
    assert_int_equal(write_limited((rlim_t)whole - 1, n_requests, rows_each), CHILD_FULL);
    expect_untouched(&older);
    /* and the whole file fits into its own size */
    assert_int_equal(write_limited((rlim_t)whole, n_requests, rows_each), CHILD_DONE);
    saf_buf_free(&older);
}

static void test_results_full_limit_tables(void **state) {
    (void)state;
    sweep(40, 0, 60);
}

static void test_results_full_limit_logits(void **state) {
    (void)state;
    sweep(8, 900, 40); /* 8 MB of logits */
}

/* ---- a file system of its own ---- */

static bool mount_small(const char *bytes) {
    char options[64];
    snprintf(options, sizeof options, "size=%s", bytes);
    return mount("saf-test", folder, "tmpfs", 0, options) == 0;
}

static void fill_disk(const char *size, int64_t n_requests, int64_t rows_each) {
    saf_buf older = {0};
    if (!mount_small(size)) {
        print_message("may not mount a file system here: %s\n", strerror(errno));
        skip();
    }
    int rc = write_limited(RLIM_INFINITY, 1, 0);
    if (rc == CHILD_DONE) {
        read_file(&older);
        rc = write_limited(RLIM_INFINITY, n_requests, rows_each);
        if (rc == CHILD_FULL) expect_untouched(&older);
        /* what the failed job held of the disk is free again */
        if (rc == CHILD_FULL) rc += write_limited(RLIM_INFINITY, 1, 0);
    }
    saf_buf_free(&older);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rc, CHILD_FULL);
}

static void test_results_full_disk(void **state) {
    (void)state;
    fill_disk("512k", 3000, 0);
    fill_disk("256k", 3000, 0);
    fill_disk("1m", 2, 900);
    fill_disk("3m", 8, 900);
    fill_disk("8m", 8, 900);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_results_full_limit_tables),
        TEST(test_results_full_limit_logits),
        TEST(test_results_full_disk),
    };
    small_files_start();
    return cmocka_run_group_tests_name("results on a full disk", tests, NULL, NULL);
}
