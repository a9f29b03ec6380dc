/* /C of a results file, region by region. */
#include "store/writer.h"

const char saf__product_path[] = "/C";
static const char about[] = "the product alpha op(A) op(B) + beta C, row-major";

saf_status saf_results_product(saf_results_writer *w, const saf_matrix_shape *shape) {
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__results_check_usable(w));
    if (w->product_begun) {
        st = saf_fail(SAF_DEFECT, "%s: a second product", w->h5.path);
        goto out;
    }
    w->broken = true;
    SAF_TRY(saf__matrix_out_create(&w->h5, saf__product_path, shape, about, &w->product));
    w->broken = false;
    w->product_begun = true;
out:
    saf__h5_leave();
    return st;
}

saf_status saf_results_product_put(saf_results_writer *w, int64_t row0, int64_t rows, int64_t col0,
                                   int64_t cols, const void *in, int64_t ld) {
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__results_check_usable(w));
    w->broken = true;
    SAF_TRY(saf__matrix_out_put(&w->h5, &w->product, row0, rows, col0, cols, in, ld));
    w->broken = false;
out:
    saf__h5_leave();
    return st;
}

saf_status saf_results_product_back(saf_results_writer *w, int64_t row0, int64_t rows, int64_t col0,
                                    int64_t cols, void *out, int64_t ld) {
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__results_check_usable(w));
    SAF_TRY(saf__matrix_out_back(&w->h5, &w->product, row0, rows, col0, cols, out, ld));
out:
    saf__h5_leave();
    return st;
}
