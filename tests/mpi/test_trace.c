/* The clocks of ranks, compared by messages: on one host they are one clock. */
#include "mpi/mpi_test.h"
#include "parallel/trace.h"

static void test_trace_one_host_has_one_clock(saf_comm *world) {
    saf_trace *t = NULL;
    double before = saf_clock_s();
    if (!CHECK_OK(saf_trace_new(saf_comm_size(world), &t))) return;
    for (int i = 0; i < 3; i++) CHECK_OK(saf_trace_meet(world, t));
    double after = saf_clock_s();
    CHECK_EQ(t->meetings, 3);
    CHECK(before <= t->first.at_s && t->first.at_s < t->last.at_s && t->last.at_s <= after);
    /* Half of the shortest of sixteen round trips, on a machine that is busy with other things. */
    CHECK(t->first.ahead_s > -5e-3 && t->first.ahead_s < 5e-3);
    CHECK(t->last.ahead_s > -5e-3 && t->last.ahead_s < 5e-3);
    if (saf_comm_rank(world) == 0) CHECK(t->first.ahead_s == 0 && t->last.ahead_s == 0);
    saf_trace_free(&t);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {MPI_CASE(test_trace_one_host_has_one_clock)};
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
