#include "hw/product.h"

#include "saf/kernel.h"

/* Rows of activations that no tile units take (src/kernel/amx), in whole tiles of them, so that it
 * is the vector instructions' products that are measured; weights of each thread that stay in its
 * caches. */
enum { ROWS = 25, FEWER_ROWS = 8, COLS = 1024, THREAD_OUTPUTS = 4 * SAF_TILE_ROWS };

struct saf__hw_product {
    int threads;
    saf_weight weight, far; /* in the caches, in memory */
    saf_acts *acts;
    float *x, *y; /* [ROWS, COLS]; [ROWS, outputs of the one] or [FEWER_ROWS, those of the other] */
};

static saf_status fill_weight(saf_weight *w) {
    saf_status st = SAF_OK;
    uint8_t *raw = NULL;
    size_t bytes = 0;
    if (!saf_dtype_bytes(w->dtype, w->rows * w->cols, &bytes)) bytes = SIZE_MAX;
    SAF_TRY(saf_alloc(bytes, 1, &raw));
    SAF_TRY(saf_alloc_huge(w->bytes, &w->data));
    memset(raw, 0x11, bytes); /* scales and codes are small finite numbers */
    saf_weight_pack(w, 0, w->rows, raw);
out:
    saf_free(&raw);
    return st;
}

saf_status saf__hw_product_new(int threads, void *memory, size_t bytes, saf__hw_product **out) {
    saf_status st = SAF_OK;
    saf__hw_product *p = NULL;
    int64_t outputs = (int64_t)threads * THREAD_OUTPUTS;
    if (strcmp(saf_kernels_name(), "none") == 0) SAF_TRY(saf_kernels_init(NULL));
    SAF_TRY(saf_alloc(1, sizeof *p, &p));
    p->threads = threads;
    SAF_TRY(saf_weight_plan(SAF_DTYPE_Q8_0, outputs, COLS, &p->weight));
    SAF_TRY(fill_weight(&p->weight));
    SAF_TRY(saf_alloc(ROWS * COLS, sizeof *p->x, &p->x));
    SAF_TRY(saf_weight_plan(SAF_DTYPE_Q8_0, SAF_TILE_ROWS, COLS, &p->far));
    int64_t tiles = (int64_t)(bytes / p->far.bytes);
    SAF_TRY(saf_weight_plan(SAF_DTYPE_Q8_0, tiles * SAF_TILE_ROWS, COLS, &p->far));
    p->far.data = memory;
    int64_t values = saf_i64_max(ROWS * outputs, FEWER_ROWS * p->far.rows);
    SAF_TRY(saf_alloc((size_t)values, sizeof *p->y, &p->y));
    SAF_TRY(saf_acts_new(ROWS, COLS, &p->acts));
    for (int i = 0; i < ROWS * COLS; i++) p->x[i] = (float)(i % 1009) / 512 - 1;
    *out = p;
    p = NULL;
out:
    saf__hw_product_free(&p);
    return st;
}

void saf__hw_product_free(saf__hw_product **product) {
    saf__hw_product *p = *product;
    if (!p) return;
    saf_free(&p->weight.data);
    saf_free(&p->x);
    saf_free(&p->y);
    saf_acts_free(&p->acts);
    saf_free(product);
}

double saf__hw_product_ops(const saf__hw_product *p) {
    return 2.0 * ROWS * COLS * (double)p->weight.rows;
}

static double run(saf__hw_product *p, const saf_row_product *product, int64_t rows,
                  int64_t rounds) {
    const saf_acts_form form = saf_acts_form_of(p->acts, product, 1, rows);
    double start = 0, end = 0;
#pragma omp parallel num_threads(p->threads)
    {
        saf_acts_set(p->acts, p->x, COLS, rows, COLS, form);
#pragma omp master
        start = saf_clock_s();
        for (int64_t i = 0; i < rounds; i++) saf_matmul(product, 1, p->acts);
#pragma omp master
        end = saf_clock_s();
    }
    return end > start ? end - start : 1e-9;
}

double saf__hw_product_run(saf__hw_product *p, int64_t rounds) {
    const saf_row_product product = {.w = &p->weight, .y = p->y, .ldy = p->weight.rows};
    return run(p, &product, ROWS, rounds);
}

saf__hw_passage saf__hw_product_pass(saf__hw_product *p) {
    const saf_row_product product = {.w = &p->far, .y = p->y, .ldy = p->far.rows};
    return (saf__hw_passage){.seconds = run(p, &product, FEWER_ROWS, 1),
                             .bytes = (double)p->far.bytes,
                             .ops = 2.0 * FEWER_ROWS * COLS * (double)p->far.rows};
}
