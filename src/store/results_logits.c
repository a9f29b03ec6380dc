/* /logits of a results file: rows as they come, and back again. */
#include <math.h>

#include "store/writer.h"

/* ---- writing ---- */

static saf_status create_logits(saf_results_writer *w, int64_t vocab) {
    const float nobody = NAN; /* rows of a request that failed */
    w->vocab = vocab;
    w->chunk_rows = saf__h5_chunk_rows(0, (size_t)vocab * sizeof(float));
    return saf__h5_create(&w->h5, &saf__logits, H5T_IEEE_F32LE, &nobody, 0, vocab, &w->logits);
}

/* Which chunks must be in the file in the end. */
static saf_status touch_chunks(saf_results_writer *w, int64_t row0, int64_t rows) {
    saf_status st = SAF_OK;
    static const char zeros[4096];
    int64_t first = row0 / w->chunk_rows, last = (row0 + rows - 1) / w->chunk_rows;
    while ((int64_t)w->touched.len <= last)
        SAF_TRY(saf_buf_append(
            &w->touched, zeros,
            (size_t)saf_i64_min(last + 1 - (int64_t)w->touched.len, (int64_t)sizeof zeros)));
    for (int64_t i = first; i <= last; i++) {
        w->chunks += w->touched.data[i] == 0;
        w->touched.data[i] = 1;
    }
out:
    return st;
}

static saf_status write_rows(saf_results_writer *w, int64_t row0, int64_t rows,
                             const float *logits) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    hsize_t extent[2] = {(hsize_t)saf_i64_max(w->rows, row0 + rows), (hsize_t)w->vocab};
    SAF_TRY(saf__h5_check(&w->h5, H5Dset_extent(w->logits, extent), saf__logits.path));
    SAF_TRY(saf__h5_select_rows(&w->h5, w->logits, row0, rows, &file_space, &memory_space));
    SAF_TRY(saf__h5_check(
        &w->h5,
        H5Dwrite(w->logits, H5T_NATIVE_FLOAT, memory_space, file_space, H5P_DEFAULT, logits),
        saf__logits.path));
out:
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    return st;
}

saf_status saf_results_logits(saf_results_writer *w, int64_t vocab, int64_t row0, int64_t rows,
                              const float *logits) {
    saf_status st = SAF_OK;
    int64_t total, bytes;
    saf__h5_enter();
    SAF_TRY(saf__results_check_usable(w));
    if (vocab <= 0 || rows < 0 || row0 < 0 || (w->logits >= 0 && vocab != w->vocab) ||
        __builtin_add_overflow(row0, rows, &total) ||
        !saf_i64_mul(vocab, (int64_t)sizeof(float), &bytes) || !saf_i64_mul(bytes, total, &bytes)) {
        st = saf_fail(SAF_DEFECT, "%s: rows [%lld, +%lld) of %lld logits after rows of %lld",
                      w->h5.path, (long long)row0, (long long)rows, (long long)vocab,
                      (long long)w->vocab);
        goto out;
    }
    w->h5.needed_bytes = saf_i64_max(w->h5.needed_bytes, bytes);
    w->broken = true;
    if (w->logits < 0) SAF_TRY(create_logits(w, vocab));
    if (rows > 0) {
        SAF_TRY(touch_chunks(w, row0, rows));
        SAF_TRY(write_rows(w, row0, rows, logits));
    }
    w->broken = false;
    w->rows = saf_i64_max(w->rows, total);
out:
    saf__h5_leave();
    return st;
}

/* ---- reading back ---- */

saf_status saf__results_read_rows(const saf_results_writer *w, int64_t row0, int64_t rows,
                                  float *logits) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    saf__h5_enter();
    SAF_TRY(saf__h5_select_rows(&w->h5, w->logits, row0, rows, &file_space, &memory_space));
    SAF_TRY(saf__h5_check(
        &w->h5, H5Dread(w->logits, H5T_NATIVE_FLOAT, memory_space, file_space, H5P_DEFAULT, logits),
        "reading back its logits"));
out:
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    saf__h5_leave();
    return st;
}

int64_t saf__results_block_rows(const saf_results_writer *w) {
    enum { BLOCK_BYTES = 4 << 20 };
    return saf_i64_max(1, BLOCK_BYTES / (w->vocab * (int64_t)sizeof(float)));
}

saf_status saf_results_logits_back(saf_results_writer *w, int64_t row0, int64_t rows,
                                   float *logits) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__results_check_usable(w));
    if (row0 < 0 || rows < 0 || row0 > w->rows - rows)
        return saf_fail(SAF_DEFECT, "%s: rows [%lld, +%lld) of %lld logits are read back",
                        w->h5.path, (long long)row0, (long long)rows, (long long)w->rows);
    int64_t step = rows > 0 ? saf__results_block_rows(w) : 1;
    for (int64_t i = 0; i < rows; i += step)
        SAF_TRY(saf__results_read_rows(w, row0 + i, saf_i64_min(step, rows - i),
                                       logits + (size_t)(i * w->vocab)));
out:
    return st;
}
