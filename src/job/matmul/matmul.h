/* A matmul job on its way: what the files matmul_*.c share. It has nothing of a model in it. */
#ifndef SAF_JOB_MATMUL_H
#define SAF_JOB_MATMUL_H

#include "job/hosts.h"
#include "job/matmul/regions.h"
#include "job/session.h"
#include "job/steps.h"
#include "saf/matrix.h"
#include "saf/store.h"

/* What regions are of: three matrices that are read, the data of a checkpoint's parts (a row), and
 * the product. */
enum { SAF__MATRIX_A, SAF__MATRIX_B, SAF__MATRIX_C, SAF__MATRIX_KEPT, SAF__MATRIX_PRODUCT };
enum { SAF__OPERANDS = 3 };
/* Of the check, which takes this much at a time: of k, of rows, of the values of a matrix. */
enum { SAF__CHECK_DEPTH = 1 << 18, SAF__CHECK_ROWS = 1 << 18, SAF__CHECK_VALUES = 1 << 19 };

/* A matrix that is read, in the form that the product wants: transposed where it is. */
typedef struct {
    bool wanted, here; /* this rank can read it itself */
    bool transposed;
    saf_matrix *file;   /* NULL: made, or another rank's */
    int64_t rows, cols; /* of op() */
} saf__operand;

/* What the last product of a chain is made of; rank 0's. */
typedef struct {
    int32_t n;
    char (*fingerprint)[33]; /* [n] of its matrices */
    const char *order;       /* "((a.h5:/A b.h5:/B) c.h5:/C)" */
    const saf_job *job;      /* as it was given */
    bool replaces;           /* the results of another job, as --fresh said when it was begun */
} saf__chain;

/* A tile of the product that is done. */
typedef struct {
    int64_t i, j;
    uint8_t sha256[32];
} saf__done_tile;

typedef struct {
    saf_comm *world;
    const saf_job *job; /* everybody's own copy of rank 0's */
    saf_job given_job;
    const saf_run_options *options;
    const saf__chain *chain; /* NULL: a product of A and B */
    int rank, ranks;
    double start_s;
    int32_t dry_run;
    saf__host_share host_share;
    int32_t *host;        /* [ranks] */
    double *share;        /* [ranks] NULL: all alike */
    int64_t memory_bytes; /* that a rank may take */
    saf__operand operands[SAF__OPERANDS];
    saf_product_shape shape;
    saf_product_plan *plan;
    saf__regions *regions;
    saf_product *product;
    saf_buf tiles; /* saf__done_tile each: those of this rank, and at rank 0 those restored */
    double **sums; /* [tiles_m] of each row of these, its values with the signs of the check */
    saf__steps steps;
    double read_s, write_s;
    /* what an earlier run left, known everywhere */
    saf_product_part *parts; /* [n_parts] */
    int64_t *part_at;        /* [n_parts] where each one's data begins */
    int64_t n_parts;
    /* rank 0 */
    saf_results results;
    saf_results_writer *writer;
    saf_matrix_writer *own; /* of a product in a file of its own */
    bool watched;
} saf__matmul;

/* Of tiles of the product in this row; in this column. */
static inline int64_t saf__tile_rows(const saf__matmul *x, int64_t i) {
    return saf_i64_min(x->plan->tiles.tile_m, x->shape.m - i * x->plan->tiles.tile_m);
}
static inline int64_t saf__tile_cols(const saf__matmul *x, int64_t j) {
    return saf_i64_min(x->plan->tiles.tile_n, x->shape.n - j * x->plan->tiles.tile_n);
}

/* Element i of a contiguous row of float64 or float32, aligned or not. */
static inline double saf__value_of(const void *row, int64_t i, bool wide) {
    double d;
    float f;
    if (wide) {
        memcpy(&d, (const char *)row + i * 8, sizeof d);
        return d;
    }
    memcpy(&f, (const char *)row + i * 4, sizeof f);
    return (double)f;
}

/* keys.c: no product, but C by itself, transposed perhaps. */
bool saf__matmul_c_alone(const saf_job *job);
/* open.c: the job on every rank, its matrices, the plan. Collective. */
saf_status saf__matmul_open(saf__matmul *x);
/* That C, where there is a file of it, is as the product. Errors: BAD_INPUT. */
saf_status saf__matmul_check_c(const saf__matmul *x);
/* That no output takes the place of the file of FILE.h5:/DATASET, or NULL. Errors: USAGE. */
saf_status saf__matmul_check_output(const saf_job *job, const char *name);
/* source.c: a region of A, B or C, or of kept data; what the product reads and writes. */
saf_status saf__matmul_region(void *ctx, int32_t what, const saf__region *r, void *out);
saf_status saf__matmul_store(void *ctx, int32_t what, const saf__region *r, const void *in);
saf_product_io saf__matmul_io(saf__matmul *x);
saf_status saf__matmul_get(saf__matmul *x, int32_t what, int64_t row0, int64_t rows, int64_t col0,
                           int64_t cols, void *out, int64_t ld);
/* Those of rows of tile row i, zeros at first. Errors: NO_MEMORY. */
saf_status saf__matmul_sums(saf__matmul *x, int64_t i, double **out);
/* Of rows [row0, row0 + n) those of all ranks together. Collective. */
saf_status saf__matmul_all_sums(saf__matmul *x, int64_t row0, int64_t n, double *out);
/* The signs that columns [col0, col0 + n) of the product are added with: 1 or -1. */
void saf__matmul_signs(int64_t col0, int64_t n, double *out);
/* again.c, rank 0: the identity of x->results, of which x knows the shape and has the files. */
saf_status saf__matmul_identity(saf__matmul *x);
/* Whether the product is where it was to be written, if that is a file of its own; of saf__matmul.
 */
bool saf__matmul_is_there(const void *x);
/* With an identity: whether there are results of this job. Errors: BAD_INPUT (of another one). */
saf_status saf__matmul_is_over(const saf__matmul *x, bool *over);
/* With an identity: whether there is anything of this job, results or a checkpoint, that is later
 * than this moment (ISO 8601). */
bool saf__matmul_is_begun(const saf__matmul *x, const char *since);
/* keep.c: a checkpoint of what all ranks hold; of saf__matmul (saf__steps). Collective. */
enum {
    SAF__PART_WORDS = 6, /* of a part in /state/parts */
    SAF__CUT_WORDS = 4   /* of /state/cut: lengths of tiles, and segments */
};
saf_status saf__matmul_keep(void *x, saf_status *written);
/* restore.c: what one holds goes to the ranks. Collective. */
saf_status saf__matmul_restore(saf__matmul *x);
/* check.c: the product against another way to its rows' sums. Collective. Errors: DEFECT
 * (it is wrong). */
saf_status saf__matmul_check(saf__matmul *x);
/* finish.c: the results. Collective. */
saf_status saf__matmul_finish(saf__matmul *x);
/* memory.c: what each rank takes beside what the product does. Collective. */
saf_status saf__matmul_other_bytes(saf__matmul *x, int64_t **out /* [ranks] */);
/* plan.c: --dry-run; the grid in words. */
void saf__matmul_print(const saf__matmul *x);
saf_status saf__matmul_grid_text(const saf_product_plan *plan, saf_buf *out);

/* chain.c: the product of many matrices, one product after another. Collective. */
saf_status saf__matmul_chain(saf_comm *world, const saf_job *job, const saf_run_options *options);
/* matmul.c: one product. Collective. */
saf_status saf__matmul_one(saf_comm *world, const saf_job *job, const saf_run_options *options,
                           const saf__chain *chain);
/* matmul.c: an error of this rank alone, which cannot be agreed on, ends all ranks: others may be
 * waiting in a step. */
saf_status saf__matmul_alone(const saf__matmul *x, saf_status st);
/* The whole job. Collective; every rank gives the same kind. */
saf_status saf__matmul_run(saf_comm *world, const saf_job *job, const saf_run_options *options);

#endif
