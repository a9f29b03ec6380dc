#include <omp.h>

#include "hw/loops.h"
#include "hw/product.h"
#include "saf/hw.h"

enum { LEAST_READ_BYTES = 256 << 20, CACHES = 4, MEMORY_PART = 8 };
#define PEAK_S 0.02 /* of one sample of a register loop */

struct saf_hw_yardstick {
    saf__hw_loops loops;
    char *memory;
    size_t part_bytes; /* of each thread */
    int threads;
    saf__hw_product *product;
    int64_t int8_rounds, tile_rounds, f32_rounds, f64_rounds, product_rounds; /* of PEAK_S */
    uint64_t sink; /* of all results, so that none is without use */
};

typedef enum { READ, INT8, TILES, F32, F64, PRODUCT } loop_kind;

/* Seconds of one loop run by the whole team at once. */
static double run_team(saf_hw_yardstick *y, loop_kind kind, int64_t rounds) {
    double start = 0, end = 0;
    uint64_t sink = 0;
    if (kind == PRODUCT) return saf__hw_product_run(y->product, rounds);
#pragma omp parallel num_threads(y->threads) reduction(+ : sink)
    {
        const char *part = y->memory + (size_t)omp_get_thread_num() * y->part_bytes;
#pragma omp barrier
#pragma omp master
        start = saf_clock_s();
        if (kind == READ)
            sink += y->loops.read(part, y->part_bytes);
        else if (kind == INT8)
            sink += (uint64_t)y->loops.int8(rounds);
        else if (kind == TILES)
            sink += (uint64_t)y->loops.tiles(rounds);
        else if (kind == F32)
            sink += (uint64_t)y->loops.f32(rounds);
        else
            sink += (uint64_t)y->loops.f64(rounds);
#pragma omp barrier
#pragma omp master
        end = saf_clock_s();
    }
    y->sink += sink;
    return end > start ? end - start : 1e-9;
}

/* Rounds that take about PEAK_S. */
static int64_t calibrate(saf_hw_yardstick *y, loop_kind kind) {
    int64_t rounds = kind == PRODUCT ? 1 : 1000;
    for (;;) {
        double s = run_team(y, kind, rounds);
        if (s >= PEAK_S / 4 || rounds > INT64_C(1) << 40)
            return (int64_t)((double)rounds * PEAK_S / s) + 1;
        rounds *= 2;
    }
}

/* What is written to must be there: the system would sooner end the process than refuse. */
static saf_status choose_bytes(size_t asked, size_t *out) {
    saf_hw_binding host;
    saf_status st = saf_hw_binding_read(&host);
    if (st != SAF_OK) return st;
    if (asked > (size_t)host.memory_bytes / 2)
        return saf_fail(SAF_NO_MEMORY, "a read bandwidth over %zu MiB: the host has %lld MiB",
                        asked >> 20, (long long)host.memory_bytes >> 20);
    *out = asked;
    if (asked > 0) return SAF_OK;
    int64_t bytes = saf_i64_max(LEAST_READ_BYTES, CACHES * host.cache_bytes);
    *out = (size_t)saf_i64_min(bytes, saf_i64_max(SAF_HUGE_PAGE, host.memory_bytes / MEMORY_PART));
    return SAF_OK;
}

saf_status saf_hw_yardstick_new(size_t read_bytes, saf_hw_yardstick **out) {
    saf_status st = SAF_OK;
    saf_hw_yardstick *y = NULL;
    SAF_TRY(saf_alloc(1, sizeof *y, &y));
    y->loops = saf__hw_loops_choose();
#pragma omp parallel
#pragma omp single
    y->threads = omp_get_num_threads();
    SAF_TRY(choose_bytes(read_bytes, &read_bytes));
    size_t pages =
        (size_t)saf_ceil_div((int64_t)(read_bytes / (size_t)y->threads) + 1, SAF_HUGE_PAGE);
    y->part_bytes = pages * SAF_HUGE_PAGE;
    size_t total = y->part_bytes * (size_t)y->threads;
    SAF_TRY(saf_alloc_huge(total, &y->memory));
#pragma omp parallel num_threads(y->threads)
    memset(y->memory + (size_t)omp_get_thread_num() * y->part_bytes, 1, y->part_bytes);
    y->int8_rounds = calibrate(y, INT8);
    if (y->loops.tiles) y->tile_rounds = calibrate(y, TILES);
    y->f32_rounds = calibrate(y, F32);
    y->f64_rounds = calibrate(y, F64);
    SAF_TRY(saf__hw_product_new(y->threads, y->memory, total, &y->product));
    y->product_rounds = calibrate(y, PRODUCT);
    (void)run_team(y, READ, 0);
    *out = y;
    y = NULL;
out:
    saf_hw_yardstick_free(&y);
    return st;
}

void saf_hw_yardstick_free(saf_hw_yardstick **y) {
    if (!*y) return;
    saf__hw_product_free(&(*y)->product);
    saf_free(&(*y)->memory);
    saf_free(y);
}

/* 0 is what nobody has measured. */
static double share(double measured) {
    return measured < 0.01 ? 0.01 : measured > 1 ? 1 : measured;
}

/* Of the shorter of reading and computing, what a pass that does both hides behind the longer. */
static double hidden_share(const saf__hw_passage *p, double read_bytes_s, double ops_s) {
    double read = p->bytes / read_bytes_s, compute = p->ops / ops_s;
    double longer = read > compute ? read : compute, shorter = read > compute ? compute : read;
    double hidden = 1 - (p->seconds - longer) / shorter;
    return share(hidden);
}

void saf_hw_yardstick_sample(saf_hw_yardstick *y, saf_hw_rates *out) {
    double team = (double)y->threads;
    double read = run_team(y, READ, 0);
    double int8 = run_team(y, INT8, y->int8_rounds);
    double tiles = y->loops.tiles ? run_team(y, TILES, y->tile_rounds) : 1;
    double product = run_team(y, PRODUCT, y->product_rounds);
    saf__hw_passage pass = saf__hw_product_pass(y->product);
    double f32 = run_team(y, F32, y->f32_rounds);
    *out = (saf_hw_rates){
        .read_bytes_s = team * (double)y->part_bytes / read,
        .int8_ops_s = team * (double)y->int8_rounds * (double)y->loops.int8_ops / int8,
        .tile_ops_s = team * (double)y->tile_rounds * (double)y->loops.tile_ops / tiles,
        .f32_ops_s = team * (double)y->f32_rounds * (double)y->loops.f32_ops / f32,
    };
    double products = (double)y->product_rounds * saf__hw_product_ops(y->product) / product;
    out->product_share = share(products / out->int8_ops_s);
    out->hidden_share = hidden_share(&pass, out->read_bytes_s, products);
}

double saf_hw_yardstick_read_one(saf_hw_yardstick *y) {
    size_t bytes = y->part_bytes * (size_t)y->threads;
    if (bytes > LEAST_READ_BYTES) bytes = LEAST_READ_BYTES;
    double start = saf_clock_s();
    y->sink += y->loops.read(y->memory, bytes);
    double took = saf_clock_s() - start;
    return (double)bytes / (took > 0 ? took : 1e-9);
}

double saf_hw_yardstick_f64(saf_hw_yardstick *y) {
    double seconds = run_team(y, F64, y->f64_rounds);
    return (double)y->threads * (double)y->f64_rounds * (double)y->loops.f64_ops / seconds;
}

const char *saf_hw_yardstick_name(const saf_hw_yardstick *y) {
    return y->loops.name;
}
