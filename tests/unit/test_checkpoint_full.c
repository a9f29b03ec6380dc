/* A disk that fills up at any moment of writing a checkpoint: IO with the bytes that were needed,
 * the checkpoint before stays and opens, and nothing half-written stays. */
#include <errno.h>
#include <sys/mount.h>

#include "checkpoint_folder.h"
#include "small_files.h"

static char first[320], part[320];

static int set_up(void **state) {
    if (checkpoint_set_up(state) != 0) return -1;
    snprintf(first, sizeof first, "%s.ckpt-1", output);
    snprintf(part, sizeof part, "%s.ckpt-2.part", output);
    return 0;
}

/* In a process of its own: HDF5's work at exit belongs to the test, and a limit cannot be taken
 * back. `times`: as a job that goes on computing tries again. */
static int write_limited(rlim_t limit, int64_t scale, int times) {
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        saf_status st = SAF_OK;
        small_files_only(limit);
        for (int i = 0; i < times; i++) st = checkpoint_write(output, 2, scale, NULL);
        const char *text = saf_error_text();
        if (st == SAF_OK) exit(CHILD_DONE); /* HDF5 cleans up here */
        bool clear = st == SAF_IO && saf_status_exit_code(st) == 74 && strstr(text, part) &&
                     strstr(text, "bytes") &&
                     (strstr(text, strerror(EFBIG)) || strstr(text, strerror(ENOSPC)));
        if (!clear) fprintf(stderr, "limit %llu: %s\n", (unsigned long long)limit, text);
        int code = clear ? CHILD_FULL : CHILD_UNCLEAR;
        /* HDF5 keeps each file that it could not write, which a leak checker would find at exit. */
        if (times > 1) _exit(code);
        exit(code);
    }
    return small_files_result(child, limit);
}

static void expect_first(int64_t scale) {
    saf_checkpoint *c = NULL;
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_non_null(c);
    assert_string_equal(saf_checkpoint_path(c), first);
    assert_int_equal(checkpoint_number(c), 1);
    assert_true(checkpoint_is_whole(c, scale));
    saf_checkpoint_free(&c);
    assert_false(fixture_exists(part));
}

static void sweep(int64_t scale, int steps) {
    int64_t whole = 0;
    fixture_ok(checkpoint_write(output, 2, scale, &whole));
    fixture_ok(saf_checkpoints_remove(output));
    fixture_ok(checkpoint_write(output, 1, 3, NULL));
    for (int i = 0; i < steps; i++) {
        rlim_t limit = (rlim_t)(whole * i / steps);
        int rc = write_limited(limit, scale, 1);
        if (rc != CHILD_FULL)
            fail_msg("limit %llu of %lld: %d", (unsigned long long)limit, (long long)whole, rc);
        expect_first(3);
    }
    assert_int_equal(write_limited((rlim_t)whole - 1, scale, 1), CHILD_FULL);
    assert_int_equal(write_limited((rlim_t)whole / 2, scale, 20), CHILD_FULL);
    expect_first(3);
    /* and all of it fits into its own size */
    assert_int_equal(write_limited((rlim_t)whole, scale, 1), CHILD_DONE);
}

static void test_checkpoint_full_small(void **state) {
    (void)state;
    sweep(3, 50);
}

static void test_checkpoint_full_large(void **state) {
    (void)state;
    sweep(30000, 50); /* 6 MB */
}

/* ---- a file system of its own ---- */

static void fill_disk(const char *size, int64_t scale) {
    char options[64];
    snprintf(options, sizeof options, "size=%s", size);
    if (mount("saf-test", folder, "tmpfs", 0, options) != 0) {
        print_message("may not mount a file system here: %s\n", strerror(errno));
        skip();
    }
    fixture_ok(checkpoint_write(output, 1, 3, NULL));
    int rc = write_limited(RLIM_INFINITY, scale, 3);
    if (rc == CHILD_FULL) expect_first(3);
    /* what the failed ones held of the disk is free again */
    if (rc == CHILD_FULL) rc += write_limited(RLIM_INFINITY, 3, 1);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rc, CHILD_FULL);
}

static void test_checkpoint_full_disk(void **state) {
    (void)state;
    fill_disk("128k", 2000);
    fill_disk("1m", 30000);
    fill_disk("4m", 30000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, checkpoint_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_checkpoint_full_small),
        TEST(test_checkpoint_full_large),
        TEST(test_checkpoint_full_disk),
    };
    small_files_start();
    return cmocka_run_group_tests_name("checkpoints on a full disk", tests, NULL, NULL);
}
