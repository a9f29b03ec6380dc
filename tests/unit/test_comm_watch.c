/* The watchdog: this program runs itself under mpirun, with ranks that stop, hang or take long. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "comm/transport.h"
#include "saf/comm.h"

static const char *self;

/* ---- the ranks ------------------------------------------------------------------------------- */

enum { WATCH_S = 1 };

static void sleep_s(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&t, &t) != 0) continue;
}

/* Computes for longer than the watchdog's time, and says now and then that it gets on. */
static void compute(double seconds) {
    double end = saf_clock_s() + seconds;
    volatile double x = 1;
    while (saf_clock_s() < end) {
        for (int i = 0; i < 1000000; i++) x *= 1.0000001;
        saf_comm_progress();
    }
}

/* Of `rank`, while the others wait. */
static void misbehave(saf_comm *world, const char *what) {
    if (strcmp(what, "stop") == 0) raise(SIGSTOP);
    if (strcmp(what, "compute") == 0) compute(2.5 * WATCH_S);
    volatile bool forever = strcmp(what, "hang") == 0;
    while (forever) continue;
    /* Not at once: the watchdog's time begins when the last message was heard. */
    if (strcmp(what, "late") == 0) {
        for (int i = 0; i < 4; i++) {
            sleep_s(0.4 * WATCH_S);
            saf_comm_progress();
        }
        raise(SIGSTOP);
    }
    /* A disk that is slow, in pieces. */
    for (int i = 0; i < 5 && strcmp(what, "disk") == 0; i++) {
        sleep_s(0.5 * WATCH_S);
        saf_alive();
    }
    (void)world;
}

/* Another program suspends this rank, as all the others, and wakes it after more than the time. */
static void be_suspended(void) {
    pid_t me = getpid();
    if (fork() != 0) return;
    sleep_s(0.2);
    kill(me, SIGSTOP);
    sleep_s(2.5 * WATCH_S);
    kill(me, SIGCONT);
    _exit(0);
}

static int rank_main(const char *what, int culprit) {
    saf_comm *world = NULL, *part = NULL;
    if (saf_comm_start(NULL, NULL, &world) != SAF_OK) return 99;
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    if (saf_comm_watch(world, WATCH_S) != SAF_OK) return 98;
    saf_comm_watch_phase("testing");
    if (strcmp(what, "off") == 0 && saf_comm_watch(world, 0) != SAF_OK) return 97;
    if (strcmp(what, "again") == 0)
        for (int i = 0; i < 20; i++)
            if (saf_comm_watch(world, 60 - i) != SAF_OK) return 96;
    if (strcmp(what, "off") == 0) what = rank == culprit ? "disk" : "nothing";
    if (strcmp(what, "suspend") == 0) {
        be_suspended();
        sleep_s(0.5);
        compute(2 * WATCH_S);
    }
    if (rank == culprit) misbehave(world, what);
    if (strcmp(what, "part") == 0) { /* the others are inside MPI, and cannot hear of anything */
        if (rank == culprit) raise(SIGSTOP);
        saf__watch_inside("a call of MPI");
        sleep_s(60);
    }
    if (strcmp(what, "deadlock") == 0) {
        int32_t x = 0;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &x, 1);
        (void)saf_comm_recv(world, (rank + 1) % ranks, SAF_TAG_TEST, 4, &t);
        return 95;
    }
    if (saf_comm_split(world, rank % 2, 0, &part) != SAF_OK) return 94;
    if (saf_comm_barrier(world) != SAF_OK) return 93;
    saf_comm_free(&part);
    saf_comm_stop(&world);
    return 7;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static char said[65536];

/* What ranks say goes to `said`. */
static int run(int ranks, const char *what, int culprit, double *seconds) {
    char command[1024];
    snprintf(command, sizeof command,
             "timeout -k 1 30 mpirun -np %d --oversubscribe --bind-to none '%s' %s %d 2>&1", ranks,
             self, what, culprit);
    double start = saf_clock_s();
    FILE *f = popen(command, "r");  // NOLINT(cert-env33-c)
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    int status = pclose(f);
    *seconds = saf_clock_s() - start;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int times_said(const char *text) {
    int n = 0;
    for (const char *p = said; (p = strstr(p, text)) != NULL; p++) n++;
    return n;
}

static void skip_without_mpirun(void) {
    if (system("command -v mpirun >/dev/null") != 0) {  // NOLINT(cert-env33-c)
        print_message("# no mpirun on this machine\n");
        skip();
    }
}

/* The job ends with 124 and one message, with this in it. */
static void expect_bark(int ranks, const char *what, int culprit, const char *text) {
    char name[300], host[256] = "";
    double seconds;
    skip_without_mpirun();
    (void)gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "rank %d on %s %s", culprit, host, text);
    int code = run(ranks, what, culprit, &seconds);
    if (code != 124 || times_said("watchdog") != 1 || !strstr(said, culprit < 0 ? text : name))
        print_message("# exit %d after %.1f s, expected 124 and \"%s\":\n%s\n", code, seconds,
                      culprit < 0 ? text : name, said);
    assert_int_equal(code, 124);
    assert_int_equal(times_said("watchdog"), 1);
    assert_non_null(strstr(said, culprit < 0 ? text : name));
    assert_non_null(strstr(said, "while testing"));
    assert_true(seconds < 15);
}

static void expect_peace(int ranks, const char *what, int culprit) {
    double seconds;
    skip_without_mpirun();
    int code = run(ranks, what, culprit, &seconds);
    if (code != 7) print_message("# exit %d after %.1f s:\n%s\n", code, seconds, said);
    assert_int_equal(code, 7);
    assert_int_equal(times_said("watchdog"), 0);
}

static void test_watch_stopped_rank(void **state) {
    (void)state;
    for (int culprit = 0; culprit < 3; culprit++)
        expect_bark(3, "stop", culprit, "has not answered for 1 seconds");
    expect_bark(2, "late", 1, "has not answered for 1 seconds");
}

static void test_watch_rank_that_hangs(void **state) {
    (void)state;
    expect_bark(3, "hang", 0, "hangs");
    expect_bark(2, "hang", 1, "hangs");
}

static void test_watch_ranks_inside_mpi(void **state) {
    (void)state;
    skip_without_mpirun();
    double seconds;
    assert_int_equal(run(3, "part", 2, &seconds), 124);
    assert_non_null(strstr(said, "has waited in a call of MPI for 2 seconds"));
}

static void test_watch_all_wait_for_each_other(void **state) {
    (void)state;
    expect_bark(3, "deadlock", -1, "all 3 ranks have waited for each other");
}

static void test_watch_long_work_is_no_hanging(void **state) {
    (void)state;
    for (int culprit = 0; culprit < 2; culprit++) expect_peace(3, "compute", culprit);
    expect_peace(2, "disk", 0);
}

static void test_watch_suspended_job_goes_on(void **state) {
    (void)state;
    expect_peace(3, "suspend", -1);
}

static void test_watch_off_and_set_again(void **state) {
    (void)state;
    expect_peace(2, "off", 1);
    expect_peace(4, "again", -1);
    expect_peace(1, "disk", 0); /* nobody waits */
}

static int setup(void **state) {
    (void)state;
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch_stopped_rank),
        cmocka_unit_test(test_watch_rank_that_hangs),
        cmocka_unit_test(test_watch_ranks_inside_mpi),
        cmocka_unit_test(test_watch_all_wait_for_each_other),
        cmocka_unit_test(test_watch_long_work_is_no_hanging),
        cmocka_unit_test(test_watch_suspended_job_goes_on),
        cmocka_unit_test(test_watch_off_and_set_again),
    };
    self = argv[0];
    if (argc == 3) return rank_main(argv[1], atoi(argv[2]));
    return cmocka_run_group_tests(tests, setup, NULL);
}
