/* Products over ranks: the bits are those of the same calls on one rank, on every grid and host
 * table, and what travels is what the plan says. */
#include "matrix_fixture.h"

/* On every host table; of many cases each takes the next one, where there are more than two ranks.
 */
static void run_on_all_hosts(saf_comm *world, matrix_case *x, int32_t m, int32_t n, int32_t k,
                             int64_t cap) {
    static int turn;
    int32_t hosts[64];
    for (int which = 0; which < host_tables(); which++) {
        if (m > 0 && saf_comm_size(world) > 2 && turn++ % HOST_TABLES != 0) continue;
        saf_product_plan *plan = NULL;
        saf_product_ranks ranks = {.ranks = saf_comm_size(world), .memory_bytes = cap};
        host_table(world, which, hosts);
        ranks.host = hosts;
        saf_status st = m > 0 ? saf__plan_grid(&x->shape, &ranks, m, n, k, &plan)
                              : saf_product_plan_new(&x->shape, &ranks, &plan);
        if (!CHECK_OK(st)) continue;
        case_run_whole(world, x, plan, 1 + which);
        saf_product_plan_free(&plan);
    }
}

static void run_shape(saf_comm *world, saf_dtype dtype, int64_t m, int64_t n, int64_t k,
                      double alpha, double beta) {
    matrix_case x;
    if (CHECK_OK(case_new(&x, dtype, m, n, k, alpha, beta)))
        run_on_all_hosts(world, &x, 0, 0, 0, 0);
    case_free(&x);
}

static void test_matrix_small_sizes(saf_comm *world) {
    static const int64_t sizes[] = {0, 1, 3, 31, 32, 33};
    static const double factors[][2] = {{1, 0}, {1, 1}, {0, 0.5}, {-0.75, 0}, {2.5, -1.25}, {0, 0}};
    enum { N = sizeof sizes / sizeof sizes[0] };
    /* Other ones on other ranks: test_matrix_sizes.c has more. */
    int which = saf_comm_size(world), step = every() > 1 ? every() : 5;
    for (int a = 0; a < N; a++)
        for (int b = 0; b < N; b++)
            for (int c = 0; c < N; c++, which++)
                if (which % step == 0)
                    run_shape(world, which % 2 ? SAF_DTYPE_F64 : SAF_DTYPE_F32, sizes[a], sizes[b],
                              sizes[c], factors[which % 6][0], factors[which % 6][1]);
}

static void test_matrix_many_tiles(saf_comm *world) {
    static const int64_t shapes[][3] = {{1021, 515, 257}, {513, 1023, 600}, {2048, 256, 128},
                                        {255, 2049, 513}, {1, 5000, 700},   {5000, 1, 3001},
                                        {127, 131, 4999}};
    size_t ranks = (size_t)saf_comm_size(world), step = ranks > 1 ? 3 : 1; /* all by all sizes */
    for (size_t i = ranks % step; i < sizeof shapes / sizeof shapes[0]; i += step)
        run_shape(world, i % 2 ? SAF_DTYPE_F64 : SAF_DTYPE_F32, shapes[i][0], shapes[i][1],
                  shapes[i][2], 1, i % 3 ? 0 : 0.5);
}

/* Every grid that the ranks can make; over real hosts those in which all have a part. */
static void test_matrix_all_grids(saf_comm *world) {
    int ranks = saf_comm_size(world);
    matrix_case x;
    if (CHECK_OK(case_new(&x, SAF_DTYPE_F32, 530, 272, 8200, 1.5, 0.25)))
        for (int32_t m = 1; m <= ranks; m++)
            for (int32_t n = 1; m * n <= ranks; n++)
                for (int32_t k = 1; m * n * k <= ranks; k++)
                    if (m <= 3 && n <= 3 && (every() == 1 || m * n * k == ranks))
                        run_on_all_hosts(world, &x, m, n, k, 0);
    case_free(&x);
}

/* In MiB: on one rank and on several A and B stay in memory or do not, with many rounds over C and
 * few. */
static void test_matrix_under_a_cap(saf_comm *world) {
    static const int64_t caps[] = {7, 9, 16};
    matrix_case x;
    if (CHECK_OK(case_new(&x, SAF_DTYPE_F64, 1030, 1100, 620, 1, 1)))
        for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
            run_on_all_hosts(world, &x, 0, 0, 0, caps[i] << 20);
    case_free(&x);
}

/* The largest resident size begins anew. */
static bool forget_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    bool good = f && fputs("5", f) >= 0;
    return f && fclose(f) == 0 && good;
}

/* The cap is kept: what the process grows by is what the plan says; what MPI and OpenBLAS take at
 * their first use has been before. Each rank by itself, as shared memory counts in full
 * for all that use it. */
static void test_matrix_memory(saf_comm *world) {
    static const size_t MESSAGES = (size_t)16 << 20;
    matrix_case x;
    int32_t hosts[64];
    saf_product_plan *plan = NULL;
    saf_product_ranks ranks = {.ranks = saf_comm_size(world), .host = hosts};
#if defined(__SANITIZE_ADDRESS__)
    SKIP("the sanitizer takes memory of its own");
    return;
#endif
    if (!CHECK_OK(case_new(&x, SAF_DTYPE_F32, 2000, 2000, 2000, 1, 0))) goto out;
    case_clear(&x); /* what it is to write is there */
    memset(x.c, 1, case_bytes(&x, 2000, 2000));
    memset(x.times, 1, 2000 * 2000);
    host_table(world, 1, hosts);
    for (int64_t mib = 14; mib <= 38; mib += 12) {
        ranks.memory_bytes = mib << 20;
        if (!CHECK_OK(saf_product_plan_new(&x.shape, &ranks, &plan))) goto out;
        CHECK(forget_peak());
        size_t before = saf_peak_memory_bytes();
        case_run_whole(world, &x, plan, 1);
        size_t grown = saf_peak_memory_bytes() - before,
               most = (size_t)plan->memory_bytes[saf_comm_rank(world)] + MESSAGES;
        if (!CHECK(grown <= most)) fprintf(stderr, "# grown by %zu bytes, of %zu\n", grown, most);
        saf_product_plan_free(&plan);
    }
out:
    case_free(&x);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_matrix_memory),      MPI_CASE(test_matrix_small_sizes),
        MPI_CASE(test_matrix_many_tiles),  MPI_CASE(test_matrix_all_grids),
        MPI_CASE(test_matrix_under_a_cap),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
