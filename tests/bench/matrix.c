/* Products over the ranks of one host, a thread each, against OpenBLAS with as many threads in one
 * process: by turns, so that what else the machine does meets both.
 *   mpirun -np P bench-matrix f32|f64 M N K [REPEATS]
 * Prints medians: of OpenBLAS, of ours from the first product of tiles to the last (what a library
 * that is given matrices in its own distribution would count), of ours with reading A and B from
 * arrays and writing C, the ratios of each pair of turns, and the rate at which the ranks together
 * read memory, beside that at which the product read its factors. */
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "saf/core_blas.h"
#include "saf/hw.h"
#include "saf/matrix.h"

enum { REPEATS_MOST = 101 };

typedef struct {
    saf_comm *world;
    int rank, ranks;
    saf_product_shape shape;
    size_t es;
    char *a, *b, *c; /* whole, on every rank */
    const saf_blas *blas;
    saf_product_plan *plan;
    cpu_set_t all, one;
} bench;

static void copy_rows(char *to, int64_t to_ld, const char *from, int64_t from_ld, int64_t rows,
                      int64_t cols, size_t es) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + (size_t)(r * to_ld) * es, from + (size_t)(r * from_ld) * es, (size_t)cols * es);
}

static saf_status read_a(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    const bench *b = ctx;
    copy_rows(out, ld, b->a + (size_t)(row0 * b->shape.k + col0) * b->es, b->shape.k, rows, cols,
              b->es);
    return SAF_OK;
}
static saf_status read_b(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    const bench *b = ctx;
    copy_rows(out, ld, b->b + (size_t)(row0 * b->shape.n + col0) * b->es, b->shape.n, rows, cols,
              b->es);
    return SAF_OK;
}
static saf_status write_c(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                          const void *in, int64_t ld) {
    const bench *b = ctx;
    copy_rows(b->c + (size_t)(row0 * b->shape.n + col0) * b->es, b->shape.n, in, ld, rows, cols,
              b->es);
    return SAF_OK;
}

static void fill(const bench *b, char *matrix, int64_t n) {
    for (int64_t e = 0; e < n; e++) {
        double v = (double)(e * 7919 % 1009) / 1009 - 0.5;
        if (b->es == 8)
            ((double *)(void *)matrix)[e] = v;
        else
            ((float *)(void *)matrix)[e] = (float)v;
    }
}

static saf_status set_up(bench *b) {
    saf_status st = SAF_OK;
    const saf_product_shape *s = &b->shape;
    saf_product_ranks ranks = {.ranks = b->ranks};
    int32_t *hosts = NULL;
    SAF_TRY(saf_blas_load(&b->blas));
    SAF_TRY(saf_alloc((size_t)b->ranks, sizeof *hosts, &hosts));
    SAF_TRY(saf_comm_hosts(b->world, hosts));
    ranks.host = hosts;
    SAF_TRY(saf_product_plan_new(s, &ranks, &b->plan));
    SAF_TRY(saf_alloc_huge((size_t)(s->m * s->k) * b->es, &b->a));
    SAF_TRY(saf_alloc_huge((size_t)(s->k * s->n) * b->es, &b->b));
    SAF_TRY(saf_alloc_huge((size_t)(s->m * s->n) * b->es, &b->c));
    fill(b, b->a, s->m * s->k);
    fill(b, b->b, s->k * s->n);
    fill(b, b->c, s->m * s->n);
    /* Each rank on a core of its own while it is one of several. */
    sched_getaffinity(0, sizeof b->all, &b->all);
    CPU_ZERO(&b->one);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &b->all) && seen++ == b->rank % CPU_COUNT(&b->all))
            CPU_SET(cpu, &b->one);
out:
    saf_free(&hosts);
    return st;
}

/* By the first rank, while the others wait. */
static saf_status their_turn(bench *b, double *seconds) {
    const saf_product_shape *s = &b->shape;
    int row = SAF_BLAS_ROW_MAJOR, no = SAF_BLAS_NO_TRANS, trans = SAF_BLAS_TRANS, m = (int)s->m,
        n = (int)s->n, k = (int)s->k;
    void *x = b->a, *y = b->b, *z = b->c;
    saf_status st = saf_comm_barrier(b->world);
    *seconds = 0;
    if (st != SAF_OK || b->rank > 0) return st == SAF_OK ? saf_comm_barrier(b->world) : st;
    sched_setaffinity(0, sizeof b->all, &b->all);
    b->blas->set_threads(b->ranks);
    double start = saf_clock_s();
    if (n == 1 && b->es == 8)
        b->blas->dgemv(row, no, m, k, 1, x, k, y, 1, 0, z, 1);
    else if (n == 1)
        b->blas->sgemv(row, no, m, k, 1, x, k, y, 1, 0, z, 1);
    else if (m == 1 && b->es == 8)
        b->blas->dgemv(row, trans, k, n, 1, y, n, x, 1, 0, z, 1);
    else if (m == 1)
        b->blas->sgemv(row, trans, k, n, 1, y, n, x, 1, 0, z, 1);
    else if (b->es == 8)
        b->blas->dgemm(row, no, no, m, n, k, 1, x, k, y, n, 0, z, n);
    else
        b->blas->sgemm(row, no, no, m, n, k, 1, x, k, y, n, 0, z, n);
    *seconds = saf_clock_s() - start;
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* its threads spin for a while */
    return saf_comm_barrier(b->world);
}

static saf_status our_turn(bench *b, double *product_s, double *whole_s) {
    saf_status st = SAF_OK;
    saf_product *p = NULL;
    saf_product_counters count;
    saf_product_io io = {.ctx = b, .read_a = read_a, .read_b = read_b, .write_c = write_c};
    bool done = false;
    double s[2];
    sched_setaffinity(0, sizeof b->one, &b->one);
    SAF_TRY(saf_product_new(b->world, b->plan, 1, 0, 1, &io, &p));
    SAF_TRY(saf_comm_barrier(b->world));
    double start = saf_clock_s();
    while (!done) SAF_TRY(saf_product_step(p, &done));
    SAF_TRY(saf_product_finish(p));
    s[1] = saf_clock_s() - start;
    saf_product_count(p, &count);
    s[0] = count.compute_s + count.wait_s;
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, s, 2);
    SAF_TRY(saf_comm_allreduce(b->world, SAF_OP_MAX, &t));
    *product_s = s[0];
    *whole_s = s[1];
out:
    saf_product_free(&p);
    sched_setaffinity(0, sizeof b->all, &b->all);
    return st;
}

static saf_status read_rate(bench *b, saf_hw_yardstick *y, double *bytes_s) {
    saf_status st = SAF_OK;
    saf_hw_rates rates;
    sched_setaffinity(0, sizeof b->one, &b->one);
    SAF_TRY(saf_comm_barrier(b->world));
    saf_hw_yardstick_sample(y, &rates);
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, &rates.read_bytes_s, 1);
    SAF_TRY(saf_comm_allreduce(b->world, SAF_OP_SUM, &t));
    *bytes_s = rates.read_bytes_s;
out:
    return st;
}

static saf_status measure(bench *b, int repeats) {
    saf_status st = SAF_OK;
    saf_hw_yardstick *y = NULL;
    double theirs[REPEATS_MOST], ours[REPEATS_MOST], whole[REPEATS_MOST], part[REPEATS_MOST],
        all[REPEATS_MOST], read[REPEATS_MOST];
    bool vector = b->shape.m == 1 || b->shape.n == 1;
    SAF_TRY(their_turn(b, &theirs[0])); /* its threads start */
    SAF_TRY(our_turn(b, &ours[0], &whole[0]));
    if (vector) SAF_TRY(saf_comm_agree(b->world, saf_hw_yardstick_new((size_t)512 << 20, &y)));
    for (int i = 0; i < repeats; i++) {
        SAF_TRY(their_turn(b, &theirs[i]));
        SAF_TRY(our_turn(b, &ours[i], &whole[i]));
        part[i] = theirs[i] / ours[i];
        all[i] = theirs[i] / whole[i];
        read[i] = 0;
        if (y) SAF_TRY(read_rate(b, y, &read[i]));
    }
    const saf_product_shape *s = &b->shape;
    double op = 2e-9 * (double)s->m * (double)s->n * (double)s->k;
    double bytes = 1e-9 * (double)b->es * (double)s->k * (double)(s->m + s->n);
    if (b->rank > 0) goto out;
    double r = saf_median(read, repeats), o = saf_median(ours, repeats);
    printf(
        "%s %6lld x %6lld x %6lld  tiles %lld x %lld x %lld, %lld segments, grid %d x %d x %d\n"
        "  OpenBLAS %7.1f GFLOP/s  ours %7.1f  (ratio %.3f)  with reading and writing %.3f\n",
        b->es == 8 ? "f64" : "f32", (long long)s->m, (long long)s->n, (long long)s->k,
        (long long)b->plan->tiles.tile_m, (long long)b->plan->tiles.tile_n,
        (long long)b->plan->tiles.tile_k, (long long)b->plan->tiles.segments, b->plan->grid_m,
        b->plan->grid_n, b->plan->grid_k, op / saf_median(theirs, repeats), op / o,
        saf_median(part, repeats), saf_median(all, repeats));
    if (vector)
        printf("  memory: %.1f GB/s of %.1f that the ranks read (ratio %.3f)\n", bytes / o,
               r * 1e-9, bytes / o / (r * 1e-9));
out:
    saf_hw_yardstick_free(&y);
    return st;
}

int main(int argc, char **argv) {
    bench b = {.a = NULL};
    saf_status st = SAF_OK;
    int repeats = argc > 5 ? atoi(argv[5]) : 9;
    if (argc < 5 || repeats < 1 || repeats > REPEATS_MOST) {
        fprintf(stderr, "usage: mpirun -np P %s f32|f64 M N K [REPEATS]\n", argv[0]);
        return 2;
    }
    omp_set_num_threads(1);
    b.es = strcmp(argv[1], "f64") == 0 ? 8 : 4;
    b.shape = (saf_product_shape){atoll(argv[2]), atoll(argv[3]), atoll(argv[4]),
                                  b.es == 8 ? SAF_DTYPE_F64 : SAF_DTYPE_F32};
    SAF_TRY(saf_comm_start(&argc, &argv, &b.world));
    b.rank = saf_comm_rank(b.world);
    b.ranks = saf_comm_size(b.world);
    SAF_TRY(saf_comm_agree(b.world, set_up(&b)));
    SAF_TRY(measure(&b, repeats));
out:
    if (st != SAF_OK) fprintf(stderr, "%s\n", saf_error_text());
    saf_product_plan_free(&b.plan);
    saf_free(&b.a);
    saf_free(&b.b);
    saf_free(&b.c);
    if (st != SAF_OK && b.world) saf_comm_abort(b.world, saf_status_exit_code(st));
    saf_comm_stop(&b.world);
    return saf_status_exit_code(st);
}
