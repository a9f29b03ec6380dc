/* A product of two matrices on a simulated cluster: on stdout one line of JSON with the plan's
 * seconds and those that it took there. Rates are what OpenBLAS reaches: f32 is of the product's
 * type. */
#include <omp.h>
#include <stdio.h>

#include "saf/matrix.h"
#include "sim.h"

static saf_product_plan *plan;
static double start_s, end_s;

/* Nobody looks at what is multiplied. */
static saf_status read_none(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                            void *out, int64_t ld) {
    (void)ctx;
    (void)row0;
    (void)rows;
    (void)col0;
    (void)cols;
    (void)out;
    (void)ld;
    return SAF_OK;
}
static saf_status write_none(void *ctx, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                             const void *in, int64_t ld) {
    (void)ctx;
    (void)row0;
    (void)rows;
    (void)col0;
    (void)cols;
    (void)in;
    (void)ld;
    return SAF_OK;
}

static void rank(saf_comm *world) {
    static const saf_product_io io = {
        .read_a = read_none, .read_b = read_none, .write_c = write_none};
    saf_product *product = NULL;
    bool done = false;
    sim_check(saf_product_new(world, plan, 1, 0, 1, &io, &product));
    sim_barrier(world);
    if (saf_comm_rank(world) == 0) start_s = sim_now();
    while (!done) sim_check(saf_product_step(product, &done));
    sim_check(saf_product_finish(product));
    if (sim_now() > end_s) end_s = sim_now();
    sim_barrier(world);
    saf_product_free(&product);
}

int main(int argc, char **argv) {
    int32_t *host = NULL;
    double *speed = NULL;
    omp_set_num_threads(1);
    sim_read_cluster(argc, argv);
    saf_product_shape shape = {.m = (int64_t)sim_number(argc, argv, "m"),
                               .n = (int64_t)sim_number(argc, argv, "n"),
                               .k = (int64_t)sim_number(argc, argv, "k"),
                               .dtype = SAF_DTYPE_F32};
    sim_check(saf_alloc((size_t)sim.ranks, sizeof *host, &host));
    sim_check(saf_alloc((size_t)sim.ranks, sizeof *speed, &speed));
    for (int32_t r = 0; r < sim.ranks; r++) {
        host[r] = sim_host_of(r);
        speed[r] = sim_class_of(host[r])->f32_ops_s / sim.ranks_per_host;
    }
    saf_product_ranks ranks = {.ranks = sim.ranks,
                               .host = host,
                               .speed = speed,
                               .link_bytes_s = sim.classes[0].link.bytes_s};
    sim_check(saf_product_plan_new(&shape, &ranks, &plan));
    int code = sim_run(sim_text(argc, argv, "folder"), rank);
    printf("{\"grid\": [%d, %d, %d], \"plan_s\": %.9g, \"sim_s\": %.9g}\n", plan->grid_m,
           plan->grid_n, plan->grid_k, plan->seconds, end_s - start_s);
    saf_product_plan_free(&plan);
    saf_free(&host);
    saf_free(&speed);
    return code;
}
