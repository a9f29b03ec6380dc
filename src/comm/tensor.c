#include "saf/comm.h"

saf_tensor saf_tensor_1d(saf_dtype dtype, void *data, int64_t n) {
    return (saf_tensor){.dtype = dtype, .ndim = 1, .shape = {n}, .data = data};
}

saf_tensor saf_tensor_2d(saf_dtype dtype, void *data, int64_t rows, int64_t cols) {
    return (saf_tensor){.dtype = dtype, .ndim = 2, .shape = {rows, cols}, .data = data};
}

int64_t saf_tensor_elements(const saf_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

saf_status saf_tensor_bytes(const saf_tensor *t, size_t *out) {
    if ((unsigned)t->dtype >= SAF_DTYPE_COUNT)
        return saf_fail(SAF_DEFECT, "a tensor of unknown type %d", (int)t->dtype);
    if (t->ndim < 0 || t->ndim > SAF_MAX_DIMS)
        return saf_fail(SAF_DEFECT, "a tensor of %d dimensions, expected 0 to %d", t->ndim,
                        SAF_MAX_DIMS);
    int64_t row = t->ndim > 0 ? t->shape[t->ndim - 1] : 1, rows = 1;
    bool empty = false;
    for (int i = 0; i < t->ndim; i++) {
        if (t->shape[i] < 0)
            return saf_fail(SAF_DEFECT, "a tensor whose dimension %d is %lld", i,
                            (long long)t->shape[i]);
        empty = empty || t->shape[i] == 0;
    }
    if (row % saf_dtype_block(t->dtype) != 0)
        return saf_fail(SAF_DEFECT, "a row of %lld elements is no multiple of the %d of %s",
                        (long long)row, saf_dtype_block(t->dtype), saf_dtype_name(t->dtype));
    if (empty) {
        *out = 0;
        return SAF_OK;
    }
    for (int i = 0; i + 1 < t->ndim; i++)
        if (!saf_i64_mul(rows, t->shape[i], &rows)) goto overflow;
    if (!saf_i64_mul(rows, row, &rows) || !saf_dtype_bytes(t->dtype, rows, out)) goto overflow;
    return SAF_OK;
overflow:
    return saf_fail(SAF_DEFECT, "the size of a tensor of %d dimensions overflows", t->ndim);
}
