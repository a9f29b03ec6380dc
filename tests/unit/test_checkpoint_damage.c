/* Checkpoints that were cut, damaged or killed while they were written: what opens is whole, or
 * nothing opens. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "checkpoint_folder.h"

static char first[320], second[320];

static int set_up(void **state) {
    if (checkpoint_set_up(state) != 0) return -1;
    snprintf(first, sizeof first, "%s.ckpt-1", output);
    snprintf(second, sizeof second, "%s.ckpt-2", output);
    return 0;
}

static void write_bytes(const char *path, const void *bytes, size_t len) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

/* The first is good, the second is not: going on is from the first. */
static void expect_first(const char *what, size_t where) {
    saf_checkpoint *c = NULL;
    saf_status st = saf_checkpoint_open(second, &c);
    if (st != SAF_BAD_INPUT) fail_msg("%s %zu: %s", what, where, saf_status_text(st));
    if (!strstr(saf_error_text(), second)) fail_msg("%s %zu: %s", what, where, saf_error_text());
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_string_equal(saf_checkpoint_path(c), first);
    if (!checkpoint_is_whole(c, 3) || checkpoint_number(c) != 11)
        fail_msg("%s %zu: other content", what, where);
    saf_checkpoint_free(&c);
}

static void test_checkpoint_cut(void **state) {
    (void)state;
    saf_buf whole = {0};
    fixture_ok(checkpoint_write(output, 11, 3, NULL));
    fixture_ok(checkpoint_write(output, 12, 3, NULL));
    fixture_ok(saf_file_read(second, 1 << 20, &whole));
    for (int i = 0; i < 200; i++) {
        size_t len = i < 20 ? whole.len - 1 - (size_t)i : whole.len * (size_t)(i - 20) / 180;
        write_bytes(second, whole.data, len);
        expect_first("cut at", len);
    }
    /* longer than it was written */
    fixture_ok(saf_buf_append(&whole, "x", 1));
    write_bytes(second, whole.data, whole.len);
    expect_first("longer", whole.len);
    write_bytes(second, whole.data, whole.len - 1);
    saf_checkpoint *c = NULL;
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_int_equal(checkpoint_number(c), 12);
    saf_checkpoint_free(&c);
    saf_buf_free(&whole);
}

static void test_checkpoint_bits(void **state) {
    (void)state;
    saf_buf whole = {0};
    fixture_ok(checkpoint_write(output, 11, 3, NULL));
    fixture_ok(checkpoint_write(output, 12, 3, NULL));
    fixture_ok(saf_file_read(second, 1 << 20, &whole));
    for (size_t i = 0; i < 1000; i++) {
        uint32_t words[4];
        saf_philox(1, 2, i, words);
        /* every bit that means something in the block, then anywhere */
        size_t bit = i < 448 ? i : words[0] % (8 * whole.len);
        whole.data[bit / 8] ^= (char)(1 << bit % 8);
        write_bytes(second, whole.data, whole.len);
        expect_first("bit", bit);
        whole.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    saf_buf_free(&whole);
}

/* A warning names the damaged one; with none left the error says what helps. */
static void test_checkpoint_told(void **state) {
    (void)state;
    saf_checkpoint *c = NULL;
    char log[400], text[2000] = "";
    fixture_ok(checkpoint_write(output, 1, 3, NULL));
    fixture_ok(checkpoint_write(output, 2, 3, NULL));
    assert_int_equal(truncate(second, 3000), 0);
    snprintf(log, sizeof log, "%s/log", folder);
    saf_log_setup(SAF_LOG_WARNING, -1);
    fflush(stderr);
    int saved = dup(2), fd = open(log, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(saved >= 0 && fd >= 0 && dup2(fd, 2) == 2);
    saf_status st = saf_checkpoint_open_newest(output, &c);
    fflush(stderr);
    assert_int_equal(dup2(saved, 2), 2);
    close(saved);
    assert_true(pread(fd, text, sizeof text - 1, 0) > 0);
    close(fd);
    fixture_ok(st);
    saf_checkpoint_free(&c);
    if (!strstr(text, second) || !strstr(text, "3000 bytes")) fail_msg("%s", text);
    saf_log_setup(SAF_LOG_ERROR, -1);
    assert_int_equal(truncate(first, 0), 0);
    assert_int_equal(saf_checkpoint_open_newest(output, &c), SAF_BAD_INPUT);
    assert_null(c);
    assert_non_null(strstr(saf_error_text(), output));
    assert_non_null(strstr(saf_error_text(), "--fresh"));
    /* and the next one is written all the same */
    fixture_ok(checkpoint_write(output, 3, 3, NULL));
    fixture_ok(saf_checkpoint_open_newest(output, &c));
    assert_int_equal(checkpoint_number(c), 3);
    saf_checkpoint_free(&c);
}

/* ---- kill -9 ---- */

/* Writes one checkpoint after the other, saying through the pipe which are there. */
static void write_until_killed(int64_t from, int fd) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    for (int64_t i = from;; i++) {
        if (checkpoint_write(output, i, 100, NULL) != SAF_OK) {
            fprintf(stderr, "%s\n", saf_error_text());
            _exit(1);
        }
        if (write(fd, &i, sizeof i) != sizeof i) _exit(1);
    }
}

static void test_checkpoint_killed(void **state) {
    (void)state;
    int64_t newest = 0;
    double first_s = 0; /* that a checkpoint takes here, starting included */
    for (int i = 0; i < 100; i++) {
        int ends[2], status;
        int64_t told;
        uint32_t words[4];
        saf_checkpoint *c = NULL;
        assert_int_equal(pipe(ends), 0);
        fflush(stdout);
        double start_s = saf_clock_s();
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) write_until_killed(newest + 1, ends[1]);
        close(ends[1]);
        if (i == 0) {
            assert_int_equal(read(ends[0], &told, sizeof told), sizeof told);
            first_s = saf_clock_s() - start_s;
            newest = told;
        }
        /* a moment within the next two of them */
        saf_philox(3, 4, (uint64_t)i, words);
        double wait_s = 2 * first_s * (double)words[0] / 4294967296.0;
        struct timespec wait = {(time_t)wait_s, (long)(1e9 * (wait_s - (double)(time_t)wait_s))};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(ends[0], &told, sizeof told) == sizeof told) newest = told;
        close(ends[0]);
        fixture_ok(saf_checkpoint_open_newest(output, &c));
        assert_non_null(c);
        /* what was said to be there is, and the one after may be */
        int64_t number = checkpoint_number(c);
        if (number != newest && number != newest + 1)
            fail_msg("kill %d: %lld, not %lld", i, (long long)number, (long long)newest);
        if (!checkpoint_is_whole(c, 100)) fail_msg("kill %d: other content", i);
        saf_checkpoint_free(&c);
        newest = number;
    }
    /* what the dead left goes with the next one */
    fixture_ok(checkpoint_write(output, newest + 1, 100, NULL));
    char command[400];
    snprintf(command, sizeof command, "test $(ls '%s' | wc -l) -eq 2", folder);
    assert_int_equal(system(command), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, checkpoint_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_checkpoint_cut),
        TEST(test_checkpoint_bits),
        TEST(test_checkpoint_told),
        TEST(test_checkpoint_killed),
    };
    return cmocka_run_group_tests_name("damaged checkpoints", tests, NULL, NULL);
}
