/* How a launched job starts and ends: this program runs itself under mpirun. */
#include <pthread.h>
#include <setjmp.h>
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

static void *abort_later(void *comm) {
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    saf_comm_abort(comm, 42);
}

static int rank_main(const char *what, int code) {
    saf_comm *world = NULL;
    if (saf_comm_start(NULL, NULL, &world) != SAF_OK) return 99;
    int rank = saf_comm_rank(world);
    if (world->transport->alone) {
        saf_comm_stop(&world);
        return 98;
    }
    if (strcmp(what, "end") == 0) {
        saf_comm_stop(&world);
        saf_comm *again = NULL; /* MPI cannot start twice, and says so */
        return saf_comm_start(NULL, NULL, &again) == SAF_DEFECT ? code : 97;
    }
    if (strcmp(what, "abort") == 0 && rank == 0) saf_comm_abort(world, code);
    pthread_t thread;
    if (strcmp(what, "thread") == 0 && rank == 1 &&
        pthread_create(&thread, NULL, abort_later, world) != 0)
        return 96;
    /* All others wait for a message that never comes. */
    int32_t x = 0;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, &x, 1);
    (void)saf_comm_recv(world, rank, SAF_TAG_TEST, 4, &t);
    return 95;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static int run(const char *launcher, const char *what, int code) {
    char command[1024];
    snprintf(command, sizeof command, "timeout 30 %s '%s' %s %d >/dev/null 2>&1", launcher, self,
             what, code);
    int status = system(command);  // NOLINT(cert-env33-c)
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define MPIRUN "mpirun -np 3 --oversubscribe --bind-to none"

static int need_mpirun(void **state) {
    (void)state;
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    return 0;
}

static void skip_without_mpirun(void) {
    if (system("command -v mpirun >/dev/null") != 0) {  // NOLINT(cert-env33-c)
        print_message("# no mpirun on this machine\n");
        skip();
    }
}

static void test_launch_and_end(void **state) {
    (void)state;
    skip_without_mpirun();
    assert_int_equal(run(MPIRUN, "end", 0), 0);
    assert_int_equal(run(MPIRUN, "end", 75), 75);
    assert_int_equal(run("mpirun -np 1", "end", 0), 0);
}

static void test_launch_abort_code_reaches_the_shell(void **state) {
    (void)state;
    skip_without_mpirun();
    double t0 = saf_clock_s();
    assert_int_equal(run(MPIRUN, "abort", 74), 74);
    assert_int_equal(run(MPIRUN, "abort", 0), 70); /* a failed job never looks fine */
    assert_true(saf_clock_s() - t0 < 25);
}

/* A watchdog is a thread of its own. */
static void test_launch_abort_from_another_thread(void **state) {
    (void)state;
    skip_without_mpirun();
    assert_int_equal(run(MPIRUN, "thread", 0), 42);
}

static void test_launch_without_a_launcher(void **state) {
    (void)state;
    assert_int_equal(run("", "end", 0), 98);
    /* What a batch script of Slurm has in its environment is no launcher. */
    assert_int_equal(run("env SLURM_JOB_ID=1 SLURM_PROCID=0 SLURM_NTASKS=4", "end", 0), 98);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launch_and_end),
        cmocka_unit_test(test_launch_abort_code_reaches_the_shell),
        cmocka_unit_test(test_launch_abort_from_another_thread),
        cmocka_unit_test(test_launch_without_a_launcher),
    };
    self = argv[0];
    if (argc == 3) return rank_main(argv[1], atoi(argv[2]));
    return cmocka_run_group_tests(tests, need_mpirun, NULL);
}
