/* Products of square matrices over the ranks of one host, a thread each, by saf and by ScaLAPACK
 * (pdgemm, psgemm), in turn in one program. `make bench-peers-matrix`.
 *   mpirun -np P --bind-to core bench-peer_matrix f32|f64 N [REPEATS]
 * ScaLAPACK is given its matrices in its own distribution: every grid of the ranks and block sizes
 * from 64 to 1024 are tried once each after a first call, and the best goes on, by turns with
 * saf's product. Of that two times are taken: from the first product of tiles to the last, with A
 * and B in the memory of the ranks as it keeps them, which is what ScaLAPACK is timed at, and with
 * reading A and B from arrays and writing C. Prints medians, and those of the ratios of turns. */
#include <stdio.h>
#include <stdlib.h>

#include "saf/matrix.h"

/* Of ScaLAPACK and its BLACS; Fortran, integers of 32 bits. */
void Cblacs_get(int context, int what, int *value);
void Cblacs_gridinit(int *context, const char *order, int rows, int cols);
void Cblacs_gridinfo(int context, int *rows, int *cols, int *row, int *col);
void Cblacs_gridexit(int context);
int numroc_(const int *n, const int *block, const int *at, const int *first, const int *count);
void descinit_(int *desc, const int *m, const int *n, const int *mb, const int *nb, const int *row,
               const int *col, const int *context, const int *ld, int *info);
void pdgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k,
             const double *alpha, const double *a, const int *ia, const int *ja, const int *da,
             const double *b, const int *ib, const int *jb, const int *db, const double *beta,
             double *c, const int *ic, const int *jc, const int *dc);
void psgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k,
             const float *alpha, const float *a, const int *ia, const int *ja, const int *da,
             const float *b, const int *ib, const int *jb, const int *db, const float *beta,
             float *c, const int *ic, const int *jc, const int *dc);

enum { REPEATS_MOST = 101, BLOCK_LEAST = 64, BLOCK_MOST = 1024 };

typedef struct {
    saf_comm *world;
    int rank, ranks, n;
    size_t es;
    char *a, *b, *c; /* of ours: whole, on every rank */
    saf_product_plan *plan;
} bench;

/* A grid of ScaLAPACK, and the matrices as it has them. */
typedef struct {
    int context, rows, cols, row, col, block;
    int local_rows, local_cols, ld, desc[9];
    char *a, *b, *c;
} peer;

static double value(int64_t row, int64_t col, int which) {
    return (double)((row * 7919 + col * 104729 + which * 31) % 1009) / 1009 - 0.5;
}

static void put(char *matrix, size_t es, int64_t at, double v) {
    float narrow = (float)v;
    if (es == 8)
        memcpy(matrix + at * 8, &v, sizeof v);
    else
        memcpy(matrix + at * 4, &narrow, sizeof narrow);
}

static double get(const char *matrix, size_t es, int64_t at) {
    double v;
    float narrow;
    if (es == 8) {
        memcpy(&v, matrix + at * 8, sizeof v);
        return v;
    }
    memcpy(&narrow, matrix + at * 4, sizeof narrow);
    return (double)narrow;
}

static saf_status slowest(const bench *b, double *seconds) {
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_F64, seconds, 1);
    return saf_comm_allreduce(b->world, SAF_OP_MAX, &t);
}

/* ---- ScaLAPACK --------------------------------------------------------------------------------*/

static int64_t global_of(int local, int block, int at, int count) {
    return ((int64_t)(local / block) * count + at) * block + local % block;
}

static void peer_free(peer *p) {
    saf_free(&p->a);
    saf_free(&p->b);
    saf_free(&p->c);
    if (p->context >= 0) Cblacs_gridexit(p->context);
    p->context = -1;
}

static saf_status peer_new(const bench *b, int rows, int block, peer *p) {
    saf_status st = SAF_OK;
    int zero = 0, info = 0;
    *p = (peer){.rows = rows, .cols = b->ranks / rows, .block = block};
    Cblacs_get(-1, 0, &p->context);
    Cblacs_gridinit(&p->context, "Row", p->rows, p->cols);
    Cblacs_gridinfo(p->context, &p->rows, &p->cols, &p->row, &p->col);
    p->local_rows = numroc_(&b->n, &block, &p->row, &zero, &p->rows);
    p->local_cols = numroc_(&b->n, &block, &p->col, &zero, &p->cols);
    p->ld = p->local_rows > 0 ? p->local_rows : 1;
    descinit_(p->desc, &b->n, &b->n, &block, &block, &zero, &zero, &p->context, &p->ld, &info);
    if (info != 0) SAF_TRY(saf_fail(SAF_FAILED, "descinit says %d", info));
    size_t elements = (size_t)p->ld * (size_t)(p->local_cols > 0 ? p->local_cols : 1);
    SAF_TRY(saf_alloc_huge(elements * b->es, &p->a));
    SAF_TRY(saf_alloc_huge(elements * b->es, &p->b));
    SAF_TRY(saf_alloc_huge(elements * b->es, &p->c));
    for (int j = 0; j < p->local_cols; j++)
        for (int i = 0; i < p->local_rows; i++) {
            int64_t row = global_of(i, block, p->row, p->rows),
                    col = global_of(j, block, p->col, p->cols), at = (int64_t)j * p->ld + i;
            put(p->a, b->es, at, value(row, col, 0));
            put(p->b, b->es, at, value(row, col, 1));
            put(p->c, b->es, at, 0);
        }
out:
    return st;
}

static saf_status peer_turn(const bench *b, peer *p, double *seconds) {
    saf_status st = SAF_OK;
    int one = 1;
    double unit = 1, none = 0;
    float unit_f = 1, none_f = 0;
    SAF_TRY(saf_comm_barrier(b->world));
    double start = saf_clock_s();
    if (b->es == 8)
        pdgemm_("N", "N", &b->n, &b->n, &b->n, &unit, (const double *)(const void *)p->a, &one,
                &one, p->desc, (const double *)(const void *)p->b, &one, &one, p->desc, &none,
                (double *)(void *)p->c, &one, &one, p->desc);
    else
        psgemm_("N", "N", &b->n, &b->n, &b->n, &unit_f, (const float *)(const void *)p->a, &one,
                &one, p->desc, (const float *)(const void *)p->b, &one, &one, p->desc, &none_f,
                (float *)(void *)p->c, &one, &one, p->desc);
    *seconds = saf_clock_s() - start;
    st = slowest(b, seconds);
out:
    return st;
}

/* Some elements of each rank, so that nothing else is measured than a product. */
static saf_status peer_check(const bench *b, const peer *p) {
    for (int x = 0; x < 8 && p->local_rows > 0 && p->local_cols > 0; x++) {
        int i = (int)((int64_t)p->local_rows * x / 8), j = (int)((int64_t)p->local_cols * x / 8);
        int64_t row = global_of(i, p->block, p->row, p->rows),
                col = global_of(j, p->block, p->col, p->cols);
        double sum = 0, got = get(p->c, b->es, (int64_t)j * p->ld + i);
        for (int64_t l = 0; l < b->n; l++) sum += value(row, l, 0) * value(l, col, 1);
        if (!(got - sum < 1e-2 && sum - got < 1e-2))
            return saf_fail(SAF_FAILED, "ScaLAPACK has %g where %g is right", got, sum);
    }
    return SAF_OK;
}

static saf_status choose_peer(const bench *b, peer *best) {
    saf_status st = SAF_OK;
    peer p = {.context = -1};
    double least = 0, seconds;
    for (int rows = 1; rows <= b->ranks; rows++)
        for (int block = BLOCK_LEAST; b->ranks % rows == 0 && block <= BLOCK_MOST; block *= 2) {
            if (block > b->n / b->ranks) continue;
            SAF_TRY(peer_new(b, rows, block, &p));
            SAF_TRY(peer_turn(b, &p, &seconds));
            SAF_TRY(peer_turn(b, &p, &seconds));
            SAF_TRY(saf_comm_agree(b->world, peer_check(b, &p)));
            if (best->context < 0 || seconds < least) {
                least = seconds;
                peer_free(best);
                *best = p;
                p = (peer){.context = -1};
            }
            peer_free(&p);
        }
out:
    peer_free(&p);
    return st;
}

/* ---- ours -------------------------------------------------------------------------------------*/

static saf_status copy(const bench *b, char *to, int64_t to_ld, const char *from, int64_t from_ld,
                       int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + (size_t)(r * to_ld) * b->es, from + (size_t)(r * from_ld) * b->es,
               (size_t)cols * b->es);
    return SAF_OK;
}
static saf_status read_a(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    const bench *b = ctx;
    return copy(b, out, ld, b->a + (size_t)(row0 * b->n + col0) * b->es, b->n, rows, cols);
}
static saf_status read_b(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld) {
    const bench *b = ctx;
    return copy(b, out, ld, b->b + (size_t)(row0 * b->n + col0) * b->es, b->n, rows, cols);
}
static saf_status write_c(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                          const void *in, int64_t ld) {
    const bench *b = ctx;
    return copy(b, b->c + (size_t)(row0 * b->n + col0) * b->es, b->n, in, ld, rows, cols);
}

static saf_status ours_new(bench *b) {
    saf_status st = SAF_OK;
    saf_product_shape shape = {b->n, b->n, b->n, b->es == 8 ? SAF_DTYPE_F64 : SAF_DTYPE_F32};
    saf_product_ranks ranks = {.ranks = b->ranks};
    int32_t *hosts = NULL;
    size_t bytes = (size_t)b->n * (size_t)b->n * b->es;
    SAF_TRY(saf_alloc((size_t)b->ranks, sizeof *hosts, &hosts));
    SAF_TRY(saf_comm_hosts(b->world, hosts));
    ranks.host = hosts;
    SAF_TRY(saf_product_plan_new(&shape, &ranks, &b->plan));
    SAF_TRY(saf_alloc_huge(bytes, &b->a));
    SAF_TRY(saf_alloc_huge(bytes, &b->b));
    SAF_TRY(saf_alloc_huge(bytes, &b->c));
    for (int64_t i = 0; i < b->n; i++)
        for (int64_t j = 0; j < b->n; j++) {
            put(b->a, b->es, i * b->n + j, value(i, j, 0));
            put(b->b, b->es, i * b->n + j, value(i, j, 1));
            put(b->c, b->es, i * b->n + j, 0);
        }
out:
    saf_free(&hosts);
    return st;
}

static saf_status our_turn(bench *b, double *product_s, double *whole_s) {
    saf_status st = SAF_OK;
    saf_product *p = NULL;
    saf_product_counters count;
    saf_product_io io = {.ctx = b, .read_a = read_a, .read_b = read_b, .write_c = write_c};
    bool done = false;
    SAF_TRY(saf_product_new(b->world, b->plan, 1, 0, 1, &io, &p));
    SAF_TRY(saf_comm_barrier(b->world));
    double start = saf_clock_s();
    while (!done) SAF_TRY(saf_product_step(p, &done));
    SAF_TRY(saf_product_finish(p));
    *whole_s = saf_clock_s() - start;
    saf_product_count(p, &count);
    *product_s = count.compute_s + count.wait_s;
    SAF_TRY(slowest(b, product_s));
    st = slowest(b, whole_s);
out:
    saf_product_free(&p);
    return st;
}

/* ---- both -------------------------------------------------------------------------------------*/

static saf_status measure(bench *b, int repeats) {
    saf_status st = SAF_OK;
    peer best = {.context = -1};
    double theirs[REPEATS_MOST], ours[REPEATS_MOST], whole[REPEATS_MOST], ratio[REPEATS_MOST],
        with[REPEATS_MOST];
    SAF_TRY(choose_peer(b, &best));
    if (best.context < 0) SAF_TRY(saf_fail(SAF_USAGE, "no block of %d fits", b->n));
    SAF_TRY(our_turn(b, &ours[0], &whole[0]));
    for (int i = 0; i < repeats; i++) {
        SAF_TRY(peer_turn(b, &best, &theirs[i]));
        SAF_TRY(our_turn(b, &ours[i], &whole[i]));
        ratio[i] = theirs[i] / ours[i];
        with[i] = theirs[i] / whole[i];
    }
    double op = 2e-9 * (double)b->n * (double)b->n * (double)b->n;
    double r = saf_median(ratio, repeats), least = ratio[0], most = ratio[repeats - 1];
    if (b->rank == 0)
        printf(
            "%s %5d  ScaLAPACK %6.1f GFLOP/s (blocks of %d, grid %d x %d)  saf %6.1f  ratio "
            "%.2f (%.2f to %.2f)  with reading and writing %.2f\n",
            b->es == 8 ? "f64" : "f32", b->n, op / saf_median(theirs, repeats), best.block,
            best.rows, best.cols, op / saf_median(ours, repeats), r, least, most,
            saf_median(with, repeats));
out:
    peer_free(&best);
    return st;
}

int main(int argc, char **argv) {
    bench b = {.a = NULL};
    saf_status st = SAF_OK;
    int repeats = argc > 3 ? atoi(argv[3]) : 9;
    b.n = argc > 2 ? atoi(argv[2]) : 0;
    if (b.n < BLOCK_LEAST || repeats < 1 || repeats > REPEATS_MOST) {
        fprintf(stderr, "usage: mpirun -np P %s f32|f64 N [REPEATS]\n", argv[0]);
        return 2;
    }
    b.es = strcmp(argv[1], "f64") == 0 ? 8 : 4;
    SAF_TRY(saf_comm_start(&argc, &argv, &b.world));
    b.rank = saf_comm_rank(b.world);
    b.ranks = saf_comm_size(b.world);
    SAF_TRY(saf_comm_agree(b.world, ours_new(&b)));
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
