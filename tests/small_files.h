/* A process that may write only small files, in place of a full disk. */
#ifndef SAF_TESTS_SMALL_FILES_H
#define SAF_TESTS_SMALL_FILES_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { CHILD_DONE = 0, CHILD_FULL = 10, CHILD_UNCLEAR = 11, CHILD_OTHER = 12 };

static void files_of_any_size(void) {
    struct rlimit sizes = {RLIM_INFINITY, RLIM_INFINITY};
    (void)setrlimit(RLIMIT_FSIZE, &sizes);
}

/* First thing in main: HDF5's work at exit is under the limit still, but the counters of a coverage
 * build, which come after it, are not cut. */
static void small_files_start(void) {
    assert_int_equal(atexit(files_of_any_size), 0);
}

/* In a child of its own. */
static void small_files_only(rlim_t limit) {
    struct rlimit sizes = {limit, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGSEGV, SIG_DFL); /* not cmocka's: it would go on with the next test */
    signal(SIGABRT, SIG_DFL);
    alarm(60);
    if (limit != RLIM_INFINITY && setrlimit(RLIMIT_FSIZE, &sizes) != 0) _exit(CHILD_OTHER);
}

/* How the child ended. */
static int small_files_result(pid_t child, rlim_t limit) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("limit %llu: signal %d", (unsigned long long)limit, WTERMSIG(status));
    return WEXITSTATUS(status);
}

#endif
