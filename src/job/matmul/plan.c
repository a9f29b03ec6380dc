/* --dry-run of a product: who would compute what, and what that takes. */
#include <stdio.h>

#include "job/matmul/matmul.h"

static double mib(int64_t bytes) {
    return (double)bytes / 0x1p20;
}

saf_status saf__matmul_grid_text(const saf_product_plan *plan, saf_buf *out) {
    int32_t used = plan->grid_m * plan->grid_n * plan->grid_k;
    saf_status st = saf_buf_printf(out, "%d x %d x %d", plan->grid_m, plan->grid_n, plan->grid_k);
    if (st == SAF_OK && used < plan->ranks)
        st = saf_buf_printf(out, ", %d of %d ranks idle", plan->ranks - used, plan->ranks);
    return st;
}

void saf__matmul_print(const saf__matmul *x) {
    const saf_product_plan *p = x->plan;
    const saf_product_tiles *t = &p->tiles;
    int64_t moved = 0, most = 0;
    printf("C = alpha op(A) op(B)%s: m %lld, n %lld, k %lld, float%d, %.1f MiB of matrices\n",
           x->operands[SAF__MATRIX_C].wanted ? " + beta C" : "", (long long)x->shape.m,
           (long long)x->shape.n, (long long)x->shape.k, x->shape.dtype == SAF_DTYPE_F64 ? 64 : 32,
           mib((x->shape.m * x->shape.k + x->shape.k * x->shape.n + x->shape.m * x->shape.n) *
               saf_dtype_block_bytes(x->shape.dtype)));
    printf("tiles of %lld x %lld, panels of %lld, %lld segment%s of k\n", (long long)t->tile_m,
           (long long)t->tile_n, (long long)t->tile_k, (long long)t->segments,
           t->segments == 1 ? "" : "s");
    printf("grid %d x %d x %d (rows, columns, segments); A and B %s%s\n", p->grid_m, p->grid_n,
           p->grid_k, p->resident ? "stay in memory" : "are read panel by panel",
           p->rounds > 1 ? ", C in rounds" : "");
    if (p->rounds > 1) printf("%lld rounds over C\n", (long long)p->rounds);
    printf("%5s %5s %5s %7s %8s %12s %14s %12s\n", "rank", "row", "col", "segment", "host",
           "memory MiB", "received MiB", "read MiB");
    for (int r = 0; r < x->ranks; r++) {
        int32_t place = p->place[r];
        moved += p->bytes_received[r];
        most = saf_i64_max(most, p->memory_bytes[r]);
        if (place < 0)
            printf("%5d %5s %5s %7s %8d %12.1f %14.1f %12.1f\n", r, "idle", "", "", x->host[r],
                   mib(p->memory_bytes[r]), mib(p->bytes_received[r]), mib(p->bytes_read[r]));
        else
            printf("%5d %5d %5d %7d %8d %12.1f %14.1f %12.1f\n", r, place / p->grid_k / p->grid_n,
                   place / p->grid_k % p->grid_n, place % p->grid_k, x->host[r],
                   mib(p->memory_bytes[r]), mib(p->bytes_received[r]), mib(p->bytes_read[r]));
    }
    printf(
        "memory of a rank: %.1f MiB at most, of %.1f; %.1f MiB between ranks by messages; %.3g s "
        "modelled\n",
        mib(most), mib(x->memory_bytes), mib(moved), p->seconds);
}
