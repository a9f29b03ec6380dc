/* Regions that rank 0 reads and writes for the others while it waits for something else: every
 * value right, pieces larger than a message, and a read that fails. */
#include "job/matmul/regions.h"
#include "mpi/mpi_test.h"

enum { ROWS = 700, COLS = 1900, MATRIX = 1, BAD = 2, WRITTEN = 3 };

static double value(int64_t r, int64_t c) {
    return (double)(r * COLS + c) + 0.5;
}

/* What rank 0 has, and what was written. */
static struct {
    double *written;
    int64_t reads;
} at;

static saf_status read_piece(void *ctx, int32_t what, const saf__region *r, void *out) {
    (void)ctx;
    double *to = out;
    at.reads++;
    if (what == BAD) return saf_fail(SAF_BAD_INPUT, "a bad piece");
    for (int64_t i = 0; i < r->rows; i++)
        for (int64_t j = 0; j < r->cols; j++) to[i * r->cols + j] = value(r->row0 + i, r->col0 + j);
    return SAF_OK;
}

static saf_status write_piece(void *ctx, int32_t what, const saf__region *r, const void *in) {
    (void)ctx;
    (void)what;
    const double *from = in;
    for (int64_t i = 0; i < r->rows; i++)
        for (int64_t j = 0; j < r->cols; j++)
            at.written[(r->row0 + i) * COLS + r->col0 + j] += from[i * r->cols + j];
    return SAF_OK;
}

static void get(saf__regions *g, bool here, int64_t row0, int64_t rows, int64_t col0,
                int64_t cols) {
    saf__region r = {row0, rows, col0, cols};
    double *out = NULL;
    int64_t ld = cols + 5, wrong = 0;
    CHECK_OK(saf_alloc((size_t)(rows * ld) + 1, sizeof *out, &out));
    CHECK_OK(saf__regions_get(g, MATRIX, here, &r, out, ld));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < ld; j++)
            wrong += out[i * ld + j] != (j < cols ? value(row0 + i, col0 + j) : 0);
    CHECK_EQ(wrong, 0);
    saf_free(&out);
}

/* Each rank its rows; rank 0 waits in a broadcast, a barrier, or reads itself. */
static void test_regions_read_and_written(saf_comm *world) {
    saf__regions *g = NULL;
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    int64_t all = (int64_t)ROWS * COLS;
    CHECK_OK(saf_alloc((size_t)all, sizeof *at.written, &at.written));
    CHECK_OK(saf__regions_new(world, SAF_DTYPE_F64, read_piece, write_piece, NULL, &g));
    for (int round = 0; round < 3; round++) {
        int64_t word = 0, row0 = ROWS * rank / ranks, rows = ROWS * (rank + 1) / ranks - row0;
        saf_tensor t = saf_tensor_1d(SAF_DTYPE_I64, &word, 1);
        if (rank != 0 || round == 2) {
            get(g, round == 1, row0, rows, 0, COLS); /* several pieces */
            get(g, false, row0, 1, 7, 3);
            get(g, false, 0, 0, 0, COLS);
        }
        CHECK_OK(saf_comm_bcast(world, ranks - 1, &t));
        saf__region mine = {row0, rows, 0, COLS};
        double *in = NULL;
        CHECK_OK(saf_alloc((size_t)(rows * COLS) + 1, sizeof *in, &in));
        for (int64_t i = 0; i < rows * COLS; i++) in[i] = value(row0, i);
        CHECK_OK(saf__regions_put(g, WRITTEN, &mine, in, COLS));
        saf_free(&in);
        CHECK_OK(saf__regions_over(g));
        int64_t wrong = 0;
        for (int64_t i = 0; rank == 0 && i < all; i++)
            wrong += at.written[i] != (double)(round + 1) * value(i / COLS, i % COLS);
        CHECK_EQ(wrong, 0);
    }
    CHECK_OK(saf__regions_status(g));
    saf__regions_free(&g);
    saf_free(&at.written);
}

/* The one who asks is told, and rank 0 knows. */
static void test_regions_bad_read(saf_comm *world) {
    saf__regions *g = NULL;
    saf__region r = {0, 2, 0, 2};
    double out[4];
    int rank = saf_comm_rank(world), ranks = saf_comm_size(world);
    saf_log_setup(SAF_LOG_ERROR, rank);
    CHECK_OK(saf__regions_new(world, SAF_DTYPE_F64, read_piece, write_piece, NULL, &g));
    if (rank == ranks - 1)
        CHECK_STATUS(saf__regions_get(g, BAD, false, &r, out, 2), rank ? SAF_IO : SAF_BAD_INPUT);
    CHECK_OK(saf_comm_barrier(world));
    if (rank == 0 && ranks > 1) CHECK_STATUS(saf__regions_status(g), SAF_BAD_INPUT);
    saf__regions_free(&g);
}

int main(int argc, char **argv) {
    static const mpi_case cases[] = {
        MPI_CASE(test_regions_read_and_written),
        MPI_CASE(test_regions_bad_read),
    };
    return mpi_test_run(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
