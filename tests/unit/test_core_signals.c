/* Signals, taken by a thread of their own: in children, because they end processes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/core_signals.h"

static void wait_a_little(double seconds) {
    double until = saf_clock_s() + seconds;
    while (saf_clock_s() < until) usleep(1000);
}

/* What a child comes to that does this: its exit code, or minus the signal that killed it. */
static int outcome(int (*what)(void), double *seconds) {
    double start = saf_clock_s();
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        saf_log_setup(SAF_LOG_ERROR, -1);
        fclose(stderr);
        _exit(what());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (seconds) *seconds = saf_clock_s() - start;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int asked_to_stop(void) {
    saf_signals_block();
    kill(getpid(), SIGUSR1); /* before anyone takes it: kept */
    if (saf_signals_start() != SAF_OK) return 99;
    for (int i = 0; i < 2000 && !saf_signals_stop_asked(); i++) wait_a_little(0.001);
    for (int i = 0; i < 5; i++) kill(getpid(), SIGUSR1);
    wait_a_little(0.02);
    return saf_signals_stop_asked() ? 42 : 98;
}

static int ended_at_once(void) {
    if (saf_signals_start() != SAF_OK) return 99;
    kill(getpid(), SIGHUP);
    wait_a_little(10);
    return 98;
}

static atomic_int told_of;
static void told(void *ctx, const char *name) {
    told_of = strcmp(name, "SIGTERM") == 0 && ctx != NULL;
    saf_signals_exit_code(told_of ? 75 : 97);
}

static int ended_after_grace(void) {
    if (saf_signals_start() != SAF_OK) return 99;
    saf_signals_tell(told, &told_of, 0.3);
    kill(getpid(), SIGTERM);
    wait_a_little(10);
    return 98;
}

static int ended_by_the_second(void) {
    if (saf_signals_start() != SAF_OK) return 99;
    saf_signals_tell(told, &told_of, 8);
    kill(getpid(), SIGTERM);
    while (!told_of) wait_a_little(0.001);
    kill(getpid(), SIGINT);
    wait_a_little(10);
    return 98;
}

static int ended_by_itself(void) {
    if (saf_signals_start() != SAF_OK) return 99;
    saf_signals_tell(told, &told_of, 8);
    kill(getpid(), SIGTERM);
    while (!told_of) wait_a_little(0.001);
    return 7;
}

static int child_mask(void) {
    sigset_t mask;
    if (saf_signals_start() != SAF_OK) return 99;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    int before = sigismember(&mask, SIGUSR1) + sigismember(&mask, SIGTERM) +
                 sigismember(&mask, SIGINT) + sigismember(&mask, SIGHUP);
    saf_signals_for_child(&mask);
    int after = sigismember(&mask, SIGUSR1) + sigismember(&mask, SIGTERM) +
                sigismember(&mask, SIGINT) + sigismember(&mask, SIGHUP);
    return 10 * before + after;
}

static void test_signals_stop_is_asked_for(void **state) {
    (void)state;
    assert_int_equal(outcome(asked_to_stop, NULL), 42);
}

static void test_signals_end(void **state) {
    (void)state;
    double seconds;
    assert_int_equal(outcome(ended_at_once, &seconds), 1);
    assert_int_equal(outcome(ended_after_grace, &seconds), 75);
    assert_true(seconds >= 0.3);
    assert_int_equal(outcome(ended_by_the_second, &seconds), 75);
    assert_true(seconds < 7);
    assert_int_equal(outcome(ended_by_itself, NULL), 7);
}

static void test_signals_of_children_are_free(void **state) {
    (void)state;
    assert_int_equal(outcome(child_mask, NULL), 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_signals_stop_is_asked_for),
                                       cmocka_unit_test(test_signals_end),
                                       cmocka_unit_test(test_signals_of_children_are_free)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
