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

/* The thread sanitizer makes the end of a rank so slow that its neighbour, who grants it a third of
 * this time more, would speak as well. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SLOW
#endif
#endif
#ifdef SLOW
enum { WATCH_S = 4 };
#define WATCH_TEXT "4"
#define TWICE_TEXT "8"
#else
enum { WATCH_S = 1 };
#define WATCH_TEXT "1"
#define TWICE_TEXT "2"
#endif

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
    (void)x;
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
    if (strcmp(what, "part") ==
        0) { /* one does not come, the other is inside MPI and hears nothing */
        if (rank > 0) raise(SIGSTOP);
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

/* A job of its own. Those of a test run side by side: most of them wait for something. */
typedef struct {
    int ranks;
    const char *what;
    int culprit;
    const char *expected; /* in the one message, behind "rank CULPRIT on HOST " if there is one;
                             NULL: none */
    FILE *pipe;
} job;

static void start(job *j) {
    char command[1024];
    snprintf(command, sizeof command,
             "timeout -k 1 50 mpirun -np %d --oversubscribe --bind-to none '%s' %s %d 2>&1",
             j->ranks, self, j->what, j->culprit);
    j->pipe = popen(command, "r");  // NOLINT(cert-env33-c)
    assert_non_null(j->pipe);
}

static int times_said(const char *said, const char *text) {
    int n = 0;
    for (const char *p = said; (p = strstr(p, text)) != NULL; p++) n++;
    return n;
}

/* Whether it ended with its exit code and its messages. */
static bool end(job *j) {
    static char said[65536];
    char host[256] = "", message[600] = "";
    said[fread(said, 1, sizeof said - 1, j->pipe)] = 0;
    int status = pclose(j->pipe), code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    (void)gethostname(host, sizeof host - 1);
    if (j->expected && j->culprit >= 0)
        snprintf(message, sizeof message, "rank %d on %s %s", j->culprit, host, j->expected);
    else if (j->expected)
        snprintf(message, sizeof message, "%s", j->expected);
    bool good = j->expected ? code == 124 && times_said(said, "(watchdog)") == 1 &&
                                  strstr(said, message) && strstr(said, ", while testing")
                            : code == 7 && times_said(said, "(watchdog)") == 0;
    if (!good)
        print_message("# %s, %d ranks: exit %d, expected %s:\n%s\n", j->what, j->ranks, code,
                      j->expected ? message : "peace", said);
    return good;
}

static void run(job *jobs, size_t n) {
    bool good = true;
    if (system("command -v mpirun >/dev/null") != 0) {  // NOLINT(cert-env33-c)
        print_message("# no mpirun on this machine\n");
        skip();
    }
    for (size_t i = 0; i < n; i++) start(&jobs[i]);
    for (size_t i = 0; i < n; i++) good = end(&jobs[i]) && good;
    assert_true(good);
}

#define RUN(...)                               \
    do {                                       \
        job jobs[] = {__VA_ARGS__};            \
        run(jobs, sizeof jobs / sizeof *jobs); \
    } while (0)

#define SILENT "has not answered for " WATCH_TEXT " seconds"

static void test_watch_stopped_rank(void **state) {
    (void)state;
    RUN({3, "stop", 0, SILENT, NULL}, {3, "stop", 1, SILENT, NULL}, {3, "stop", 2, SILENT, NULL},
        {2, "late", 1, SILENT, NULL});
}

static void test_watch_rank_that_hangs(void **state) {
    (void)state;
    RUN({3, "hang", 0, "hangs", NULL}, {2, "hang", 1, "hangs", NULL});
}

static void test_watch_ranks_that_wait_for_ever(void **state) {
    (void)state;
    RUN({2, "part", -1, "has waited in a call of MPI for " TWICE_TEXT " seconds", NULL},
        {3, "deadlock", -1, "all 3 ranks have waited for each", NULL});
}

static void test_watch_long_work_is_no_hanging(void **state) {
    (void)state;
    RUN({3, "compute", 0, NULL, NULL}, {3, "compute", 1, NULL, NULL}, {2, "disk", 0, NULL, NULL});
}

static void test_watch_suspended_job_goes_on(void **state) {
    (void)state;
    RUN({3, "suspend", -1, NULL, NULL});
}

static void test_watch_off_and_set_again(void **state) {
    (void)state;
    RUN({2, "off", 1, NULL, NULL}, {4, "again", -1, NULL, NULL},
        {1, "disk", 0, NULL, NULL}); /* alone nobody waits */
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
        cmocka_unit_test(test_watch_ranks_that_wait_for_ever),
        cmocka_unit_test(test_watch_long_work_is_no_hanging),
        cmocka_unit_test(test_watch_suspended_job_goes_on),
        cmocka_unit_test(test_watch_off_and_set_again),
    };
    self = argv[0];
    if (argc == 3) return rank_main(argv[1], atoi(argv[2]));
    return cmocka_run_group_tests(tests, setup, NULL);
}
