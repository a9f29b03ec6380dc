/* mpi_test.h: the frame of a test program that runs on several ranks.
 *
 *     static void test_comm_something(saf_comm *world) { CHECK(1 + 1 == 2); }
 *     int main(int argc, char **argv) {
 *         static const mpi_case cases[] = {MPI_CASE(test_comm_something)};
 *         return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
 *     }
 *
 * Every rank runs every case; a failed CHECK does not jump out, so that the ranks stay together.
 * Each case ends with an agreement: it is "ok" when it was so on every rank. Rank 0 speaks TAP,
 * the stdout of the others is closed; what failed is told on stderr by the rank where it did. */
#ifndef MPI_TEST_H
#define MPI_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "saf/comm.h"

typedef struct {
    const char *name;
    void (*run)(saf_comm *world);
} mpi_case;

#define MPI_CASE(function) \
    { #function, function }

static int mpi_test_failures;
static const char *mpi_test_skipped; /* why, on every rank alike */
static int mpi_test_rank;

static inline bool mpi_test_check(bool good, const char *what, const char *file, int line) {
    if (!good) {
        mpi_test_failures++;
        if (mpi_test_failures <= 20)
            fprintf(stderr, "# rank %d: %s:%d: %s\n", mpi_test_rank, file, line, what);
    }
    return good;
}

static inline bool mpi_test_status(saf_status got, saf_status expected, const char *what,
                                   const char *file, int line) {
    if (got == expected) return true;
    if (mpi_test_failures < 20)
        fprintf(stderr, "# rank %d: status %d, expected %d: %s\n", mpi_test_rank, (int)got,
                (int)expected, saf_error_text());
    return mpi_test_check(false, what, file, line);
}

static inline bool mpi_test_i64(int64_t got, int64_t expected, const char *what, const char *file,
                                int line) {
    if (got == expected) return true;
    if (mpi_test_failures < 20)
        fprintf(stderr, "# rank %d: got %lld, expected %lld\n", mpi_test_rank, (long long)got,
                (long long)expected);
    return mpi_test_check(false, what, file, line);
}

/* Each is an expression whose value says whether it held. */
#define CHECK(condition) mpi_test_check((condition), #condition, __FILE__, __LINE__)
#define CHECK_OK(call) mpi_test_status((call), SAF_OK, #call, __FILE__, __LINE__)
#define CHECK_STATUS(call, expected) mpi_test_status((call), (expected), #call, __FILE__, __LINE__)
#define CHECK_EQ(got, expected) \
    mpi_test_i64((int64_t)(got), (int64_t)(expected), #got " == " #expected, __FILE__, __LINE__)
#define CHECK_TEXT(part)                                                                         \
    mpi_test_check(strstr(saf_error_text(), (part)) != NULL, "error text with: " part, __FILE__, \
                   __LINE__)
/* On every rank, with the same outcome. */
#define SKIP(why) (mpi_test_skipped = (why))

static inline int mpi_test_run(int argc, char **argv, const mpi_case *cases, size_t n) {
    saf_comm *world = NULL;
    bool good = true;
    if (saf_comm_start(&argc, &argv, &world) != SAF_OK) {
        fprintf(stderr, "# %s\n", saf_error_text());
        return 1;
    }
    mpi_test_rank = saf_comm_rank(world);
    if (mpi_test_rank > 0 && !freopen("/dev/null", "w", stdout)) return 1;
    printf("1..%zu\n", n);
    for (size_t i = 0; i < n; i++) {
        mpi_test_failures = 0;
        mpi_test_skipped = NULL;
        cases[i].run(world);
        saf_status st = SAF_OK;
        if (mpi_test_failures > 0)
            st = saf_fail(SAF_FAILED, "%d checks failed in %s", mpi_test_failures, cases[i].name);
        st = saf_comm_agree(world, st);
        good = good && st == SAF_OK;
        printf("%sok %zu - %s%s%s\n", st == SAF_OK ? "" : "not ", i + 1, cases[i].name,
               mpi_test_skipped && st == SAF_OK ? " # SKIP " : "",
               mpi_test_skipped && st == SAF_OK ? mpi_test_skipped : "");
        if (st != SAF_OK) printf("# %s\n", saf_error_text());
        fflush(stdout);
    }
    saf_comm_stop(&world);
    return good ? 0 : 1;
}

#endif
