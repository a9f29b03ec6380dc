/* What a rank of a product takes beside the matrices, so that its whole resident size stays below
 * run.memory_mib. The first two were measured (doc/matrix.md); the rest is counted. */
#include "job/matmul/matmul.h"

enum {
    PROGRAM =
        72 << 20,     /* saf, MPI, HDF5 and the other libraries, regions and messages on the way */
    THREAD = 8 << 20, /* OpenBLAS's packed panels of A and B, of each thread */
    SERVED = 16 << 20 /* rank 0's buffers for what others ask for */
};

static int64_t check_bytes(const saf__matmul *x) {
    int64_t rows = saf_ceil_div(x->shape.m, x->ranks),
            depth = saf_i64_min(x->shape.k, SAF__CHECK_DEPTH);
    return 8 * (2 * rows + x->shape.n + 2 * depth + saf_i64_min(x->shape.m, SAF__CHECK_ROWS)) +
           SAF__CHECK_VALUES * saf_dtype_block_bytes(x->shape.dtype);
}

static int64_t my_bytes(const saf__matmul *x, const saf_product_tiles *t) {
    saf_matrix_shape product = {x->shape.m, x->shape.n, x->shape.dtype};
    int64_t tile = t->tile_m * t->tile_n * saf_dtype_block_bytes(x->shape.dtype),
            tiles = t->tiles_m * t->tiles_n * (int64_t)sizeof(saf__done_tile);
    int64_t bytes =
        PROGRAM + (int64_t)THREAD * x->host_share.threads + 8 * x->shape.m + tiles + check_bytes(x);
    for (int w = 0; w < SAF__OPERANDS; w++)
        if (x->operands[w].file)
            bytes += saf_matrix_memory_bytes(x->operands[w].file, x->operands[w].transposed);
    if (x->rank != 0) return bytes;
    if (x->ranks > 1) bytes += SERVED;
    if (x->job->output.store) bytes += saf_matrix_writer_bytes(&product);
    return bytes + tile + 2 * tiles; /* of a checkpoint, and the hash */
}

saf_status saf__matmul_other_bytes(saf__matmul *x, int64_t **out) {
    saf_status st = SAF_OK;
    saf_product_tiles t;
    st = saf_product_tiles_of(&x->shape, &t);
    if (st == SAF_OK) st = saf_alloc((size_t)x->ranks, sizeof **out, out);
    SAF_TRY(saf_comm_agree(x->world, st));
    (*out)[x->rank] = my_bytes(x, &t); /* zeros elsewhere */
    saf_tensor all = saf_tensor_1d(SAF_DTYPE_I64, *out, x->ranks);
    st = saf_comm_allreduce(x->world, SAF_OP_SUM, &all);
out:
    return st;
}
