/* Checkpoints on a system that refuses: sealing a file that cannot be read, written or is no
 * checkpoint's length; folders that cannot be listed; files that cannot be removed. */
#include <fcntl.h>

#include "checkpoint_folder.h"
#include "store/checkpoint.h"

static void expect_io(saf_status st, const char *text) {
    assert_int_equal(st, SAF_IO);
    if (!strstr(saf_error_text(), text)) fail_msg("%s", saf_error_text());
}

/* A file of so many bytes, opened so. */
static int file_of(off_t bytes, int flags) {
    int fd = open(output, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, bytes), 0);
    assert_int_equal(close(fd), 0);
    fd = open(output, flags);
    assert_true(fd >= 0);
    return fd;
}

static void test_seal_that_cannot_be_written(void **state) {
    (void)state;
    int fd = file_of(4096, O_RDONLY);
    expect_io(saf__seal_write(fd, output), "all of its 4096 bytes");
    close(fd);
}

static void test_seal_of_what_cannot_be_read(void **state) {
    (void)state;
    int fd = file_of(4096, O_WRONLY);
    expect_io(saf__seal_write(fd, output), "cannot read");
    expect_io(saf__seal_check(fd, output), "cannot read");
    close(fd);
}

static void test_seal_of_a_cut_file(void **state) {
    (void)state;
    int fd = file_of(SAF__SEAL_BYTES - 1, O_RDWR);
    expect_io(saf__seal_write(fd, output), "was cut");
    close(fd);
}

static void test_seal_of_a_sound_file(void **state) {
    (void)state;
    int fd = file_of(4096, O_RDWR);
    fixture_ok(saf__seal_write(fd, output));
    fixture_ok(saf__seal_check(fd, output));
    close(fd);
}

/* A name that no system takes is neither a folder that is not there nor a file in its place. */
static void test_list_of_a_folder_that_cannot_be_opened(void **state) {
    (void)state;
    static char name[5000];
    saf__checkpoint_list list;
    memset(name, 'x', sizeof name - 1);
    memcpy(name + sizeof name - 4, "/o", 2);
    expect_io(saf__checkpoint_list_read(name, &list), "cannot list the folder of");
}

static void test_prune_of_what_cannot_be_removed(void **state) {
    (void)state;
    char path[400];
    close(file_of(1, O_RDONLY));
    snprintf(path, sizeof path, "%s/below-a-file", output);
    saf__checkpoint_file file = {.number = 1, .regular = true, .path = path};
    saf__checkpoint_list list = {1, &file};
    expect_io(saf__checkpoint_list_prune(&list, 0), "cannot remove");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, checkpoint_set_up, checkpoint_tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_seal_that_cannot_be_written),
        TEST(test_seal_of_what_cannot_be_read),
        TEST(test_seal_of_a_cut_file),
        TEST(test_seal_of_a_sound_file),
        TEST(test_list_of_a_folder_that_cannot_be_opened),
        TEST(test_prune_of_what_cannot_be_removed),
    };
    return cmocka_run_group_tests_name("checkpoints and the system", tests, NULL, NULL);
}
