/* In place of the arithmetic of src/matrix: it takes the time that the plan has for it, at the end
 * of each slice, as a rank does not let others run in the middle of one. */
#include "sim.h"

#include "matrix/calls.h"
#include "matrix/product.h"

/* Operations of the slice at hand, of the one rank that is at one. */
static double operations;

saf_status __wrap_saf_blas_load(const saf_blas **out);
void __wrap_saf__call_multiply(const saf_blas *blas, const saf_product_plan *plan, int64_t i,
                               int64_t j, int64_t panel, const void *a, const void *b, bool first,
                               void *acc);
void __wrap_saf__call_add(saf_dtype dtype, int64_t n, const void *x, void *sum);
void __wrap_saf__call_end(saf_dtype dtype, int64_t n, double alpha, double beta, const void *acc,
                          void *c);
saf_status __real_saf__multiply_slice(saf_product *p, int64_t number);
saf_status __wrap_saf__multiply_slice(saf_product *p, int64_t number);

static void set_threads(int threads) {
    (void)threads;
}

saf_status __wrap_saf_blas_load(const saf_blas **out) {
    static const saf_blas none = {.set_threads = set_threads, .core = "simulated"};
    *out = &none;
    return SAF_OK;
}

void __wrap_saf__call_multiply(const saf_blas *blas, const saf_product_plan *plan, int64_t i,
                               int64_t j, int64_t panel, const void *a, const void *b, bool first,
                               void *acc) {
    (void)blas;
    (void)a;
    (void)b;
    (void)first;
    (void)acc;
    operations += 2.0 * (double)saf__tile_rows(plan, i) * (double)saf__tile_cols(plan, j) *
                  (double)saf__tile_depth(plan, panel);
}

/* Beside the products these are nothing. */
void __wrap_saf__call_add(saf_dtype dtype, int64_t n, const void *x, void *sum) {
    (void)dtype;
    (void)n;
    (void)x;
    (void)sum;
}
void __wrap_saf__call_end(saf_dtype dtype, int64_t n, double alpha, double beta, const void *acc,
                          void *c) {
    (void)dtype;
    (void)n;
    (void)alpha;
    (void)beta;
    (void)acc;
    (void)c;
}

saf_status __wrap_saf__multiply_slice(saf_product *p, int64_t number) {
    operations = 0;
    saf_status st = __real_saf__multiply_slice(p, number);
    sim_compute(operations / sim_class_of(sim_host_of(saf_comm_rank(p->comm)))->f32_ops_s *
                sim.ranks_per_host);
    return st;
}
