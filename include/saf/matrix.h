/* saf/matrix.h: dense products over ranks: C[m, n] = alpha A[m, k] B[k, n] + beta C[m, n].
 *
 * What the caller keeps: where the matrices are, transposes (it reads regions of op(A) and op(B)),
 * checkpoints, and who may ask the job to stop. What is here: who computes which part, what moves
 * between ranks, and the arithmetic.
 *
 * Numbers. The same bits on any number of ranks, grid, host table, memory cap and thread count, and
 * after any resume, on one core type of OpenBLAS (saf_product_core):
 *   - Tiles of C, the panels of k and the segments of panels follow from m, n, k and the type alone
 *     (saf_product_tiles_of).
 *   - acc = A(i, p) B(p, j) for the first panel p of a segment, acc += A(i, p) B(p, j) for the
 *     others, ascending: each a call of gemm of one thread on tiles that lie contiguous, row-major,
 *     64-byte aligned. Where m or n is 1: loops of saf's own, whose order does not depend on the
 *     processor (matrix/vector.h).
 *   - Segments are summed element by element in a binary tree of their numbers: 0 + 1, 2 + 3, then
 *     the sums likewise.
 *   - c = fma(alpha, acc, beta * c); where beta is 0, c = alpha * acc and C is not read; where
 *     alpha or k is 0, c = beta * c (0 where beta is 0 too) and A and B are not read. alpha and
 *     beta are rounded to the type first.
 *
 * Letters: i, j: tile row and column of C; p: panel of k; s: segment.
 */
#ifndef SAF_MATRIX_H
#define SAF_MATRIX_H

#include "saf/comm.h"

/* ---- the parts of a product -------------------------------------------------------------------*/

typedef struct {
    int64_t m, n, k; /* >= 0 */
    saf_dtype dtype; /* F32 or F64 */
} saf_product_shape;

typedef struct {
    int64_t tile_m, tile_n, tile_k; /* of a whole tile; the last ones may be smaller */
    int64_t tiles_m, tiles_n;       /* 0 where m or n is 0 */
    int64_t panels;                 /* of tile_k each; 0 where k is 0 */
    int64_t segments;               /* a power of two; 0 where k is 0 */
} saf_product_tiles;

/* Local. Errors: USAGE (a negative length, another type, or more elements than 2^62). */
saf_status saf_product_tiles_of(const saf_product_shape *shape, saf_product_tiles *out);
/* Panels of segment s: [begin, end), at least one. */
saf_span saf_product_segment(const saf_product_tiles *tiles, int64_t s);

/* ---- who computes what ------------------------------------------------------------------------*/

typedef struct {
    int32_t ranks;
    const int32_t *host;  /* [ranks] whose ranks share memory, as saf_comm_hosts numbers them;
                             NULL: each rank by itself */
    const double *speed;  /* [ranks] operations a second, > 0; NULL: 50e9 each */
    double link_bytes_s;  /* that a host receives from others; 0: 125e6 */
    int64_t memory_bytes; /* that a rank may take, 0: no cap. What a host shares counts once, in
                             equal shares of its ranks. */
    const int64_t *other_bytes; /* [ranks] of that, what each takes for anything else: its program
                                   and libraries, what the caller needs; NULL: nothing */
} saf_product_ranks;

/* The grid: rank r is at place (a, b, c) = (place / grid_k / grid_n, place / grid_k % grid_n,
 * place % grid_k) and computes tiles row0[a] .. row0[a + 1] - 1 by col0[b] .. col0[b + 1] - 1 of C,
 * of segments seg0[c] .. seg0[c + 1] - 1. Spans may be empty. */
typedef struct {
    saf_product_shape shape;
    saf_product_tiles tiles;
    int32_t ranks, grid_m, grid_n, grid_k;
    int32_t *place;              /* [ranks] -1: idle */
    int32_t *rank;               /* [grid_m * grid_n * grid_k] of each place */
    int32_t *host;               /* [ranks] */
    int64_t *row0, *col0, *seg0; /* [grid_m + 1], [grid_n + 1], [grid_k + 1] */
    bool resident;  /* A and B stay in memory, or are read a batch of panels at a time */
    int64_t rounds; /* over the largest share of C; A and B are read in each when not resident */
    int64_t round_m, round_n; /* tiles of C that a rank holds at a time */
    int64_t batch;            /* panels that are read or received at a time */
    int64_t *bytes_received;  /* [ranks] by messages: modelled */
    int64_t *bytes_read;      /* [ranks] of A and B through the caller: modelled */
    int64_t *other_bytes;     /* [ranks] as they were given */
    int64_t *memory_bytes;    /* [ranks] modelled, with these; what a host shares in equal shares */
    double seconds;           /* modelled, of the slowest rank */
} saf_product_plan;

/* The cheapest grid that keeps the cap. Local, and the same for the same arguments. Errors: USAGE
 * (as saf_product_tiles_of; no ranks, a speed that is no positive number; no grid keeps the cap:
 * the text says what the smallest needs), NO_MEMORY. */
saf_status saf_product_plan_new(const saf_product_shape *shape, const saf_product_ranks *ranks,
                                saf_product_plan **out);
void saf_product_plan_free(saf_product_plan **plan);

/* ---- a product under way ----------------------------------------------------------------------*/

/* Regions in coordinates of op(A) [m, k], op(B) [k, n] and C [m, n], of elements of the product's
 * type; `out` and `in` are row-major with `ld` elements from row to row. Called by one thread of a
 * rank at a time, by several ranks at once; no element is written twice, and each is read from C
 * before it is written. A product that may be resumed reads C from where nobody writes it. */
typedef struct {
    void *ctx;
    saf_status (*read_a)(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld);
    saf_status (*read_b)(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld);
    saf_status (*read_c)(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                         void *out, int64_t ld); /* NULL where beta is 0 */
    saf_status (*write_c)(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                          const void *in, int64_t ld);
} saf_product_io;

typedef struct saf_product saf_product;

/* comm and plan stay the caller's and outlive the product; plan->ranks is the size of comm; plan,
 * alpha and beta are the same on all ranks. Sets the OpenMP team of this product to `threads` and
 * OpenBLAS to one thread. Collective. Errors: NO_INPUT (no OpenBLAS), NO_MEMORY, USAGE. */
saf_status saf_product_new(saf_comm *comm, const saf_product_plan *plan, double alpha, double beta,
                           int threads, const saf_product_io *io, saf_product **out);
void saf_product_free(saf_product **product); /* collective */

/* Some tenths of a second of work at most; the first one reads what stays in memory. Collective,
 * and every rank is done at the same step; but ranks wait for each other only where they need what
 * others send, so that a stop or a checkpoint is for the caller to agree on. An error is of this
 * rank alone, and others may be left waiting: end such a run with saf_comm_abort. */
saf_status saf_product_step(saf_product *product, bool *done);
/* Share of the steps that are behind, 0 to 1. Local. */
double saf_product_progress(const saf_product *product);
/* After the last step: sums segments, and writes what has not been written. Collective. An error is
 * everybody's. */
saf_status saf_product_finish(saf_product *product);

/* What this rank did, since saf_product_new. */
typedef struct {
    double compute_s, wait_s, io_s;     /* of the calling thread */
    double operations;                  /* 2 m n k of the calls */
    int64_t bytes_received, bytes_sent; /* by messages between ranks */
    int64_t bytes_read;                 /* of A and B through the caller */
} saf_product_counters;
void saf_product_count(const saf_product *product, saf_product_counters *out);

/* "SkylakeX": the core type whose kernels OpenBLAS runs; "" before saf_product_new. */
const char *saf_product_core(void);

/* ---- state between steps ----------------------------------------------------------------------*/

/* Of tile (i, j), what some segments add up to: `segments` (a power of two, which divides
 * `segment`) whole ones from `segment` on, or of one segment its first `panels` panels. No two
 * parts have a segment of a tile in common, whichever ranks hold them. A tile that write_c was
 * given is one part of all segments without data. */
typedef struct {
    int64_t i, j, segment, segments;
    int64_t panels;   /* that went in */
    int64_t elements; /* rows * cols of the tile; 0: written */
} saf_product_part;

/* The parts that this rank holds, between two steps (before the first, what it is to go on from).
 * A state is what all ranks hold after the same number of steps. Local; valid until the next step.
 */
int64_t saf_product_held(saf_product *product);
/* The data of part `index`, [rows, cols] contiguous (NULL where there is none), stays until the
 * next call of this room; `data` may be NULL. Errors: those of the reader of saf_product_resume. */
saf_status saf_product_held_at(saf_product *product, int64_t index, saf_product_part *out,
                               const void **data);
/* Before the first step: all parts of all ranks of an earlier run, of the same shape, alpha and
 * beta, on any grid; parts[n] is the same on all ranks. `read` gives the data of parts[index]; each
 * part is read by one rank, when its tile is begun, so it is there until saf_product_finish.
 * Collective. Errors: BAD_INPUT (parts that cannot be, or that overlap), NO_MEMORY. */
typedef saf_status (*saf_product_read)(void *ctx, int64_t index, void *out);
saf_status saf_product_resume(saf_product *product, const saf_product_part *parts, int64_t n,
                              saf_product_read read, void *ctx);

#endif
