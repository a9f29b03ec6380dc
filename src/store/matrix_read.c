/* Reading regions of a matrix, and of its transpose. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/matrix_read.h"

enum { SCRATCH_BYTES = SAF__MATRIX_SCRATCH_BYTES, BLOCK = 32, HASH_BYTES = 16 << 20 };

saf_status saf__matrix_select(const saf__h5 *f, hid_t dataset, int64_t row0, int64_t rows,
                              int64_t col0, int64_t cols, int64_t ld, hid_t *file_space,
                              hid_t *memory_space) {
    saf_status st = SAF_OK;
    hid_t file = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    const char *what = "a region of a matrix";
    hsize_t start[2] = {(hsize_t)row0, (hsize_t)col0}, count[2] = {(hsize_t)rows, (hsize_t)cols};
    hsize_t wide[2] = {(hsize_t)rows, (hsize_t)ld}, zero[2] = {0, 0};
    SAF_TRY(saf__h5_take(f, H5Dget_space(dataset), what, &file));
    SAF_TRY(saf__h5_check(f, H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, count, NULL),
                          what));
    SAF_TRY(saf__h5_take(f, H5Screate_simple(2, wide, NULL), what, &memory));
    SAF_TRY(saf__h5_check(f, H5Sselect_hyperslab(memory, H5S_SELECT_SET, zero, NULL, count, NULL),
                          what));
    *file_space = file;
    *memory_space = memory;
    file = memory = H5I_INVALID_HID;
out:
    saf__h5_close(&memory);
    saf__h5_close(&file);
    return st;
}

/* As it lies in the file. */
static saf_status read_region(const saf_matrix *m, int64_t row0, int64_t rows, int64_t col0,
                              int64_t cols, void *out, int64_t ld) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    if (rows == 0 || cols == 0) return SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__h5_room());
    SAF_TRY(
        saf__matrix_select(&m->h5, m->id, row0, rows, col0, cols, ld, &file_space, &memory_space));
    SAF_TRY(saf__h5_check(&m->h5,
                          H5Dread(m->id, saf__matrix_memory_type(m->shape.dtype), memory_space,
                                  file_space, H5P_DEFAULT, out),
                          m->dataset));
out:
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    saf__h5_leave();
    return st;
}

/* Regions of some MiB, so that the room is left now and then; each row is whole. */
static saf_status read_rows(const saf_matrix *m, int64_t row0, int64_t rows, int64_t col0,
                            int64_t cols, char *out, int64_t ld) {
    enum { PIECE_BYTES = 32 << 20 };
    saf_status st = SAF_OK;
    int64_t size = saf_dtype_block_bytes(m->shape.dtype);
    int64_t fit = saf_i64_max(1, PIECE_BYTES / (size * saf_i64_max(cols, 1)));
    /* Whole chunks, where they fit: none is decompressed twice for its two halves. */
    int64_t step = fit > m->chunk_rows ? fit / m->chunk_rows * m->chunk_rows : fit;
    for (int64_t i = 0, n; i < rows; i += n) {
        n = saf_i64_min(rows - i, step - (row0 + i) % step);
        saf_alive();
        SAF_TRY(read_region(m, row0 + i, n, col0, cols, out + i * ld * size, ld));
    }
out:
    return st;
}

/* ---- transposes ---- */

/* out[c, r] = in[r, c], in blocks that stay in the cache. */
#define TRANSPOSE(name, type)                                                             \
    static void name(const type *in, int64_t rows, int64_t cols, type *out, int64_t ld) { \
        for (int64_t r0 = 0; r0 < rows; r0 += BLOCK)                                      \
            for (int64_t c0 = 0; c0 < cols; c0 += BLOCK)                                  \
                for (int64_t c = c0; c < saf_i64_min(cols, c0 + BLOCK); c++)              \
                    for (int64_t r = r0; r < saf_i64_min(rows, r0 + BLOCK); r++)          \
                        out[c * ld + r] = in[r * cols + c];                               \
    }
TRANSPOSE(transpose_f32, float)
TRANSPOSE(transpose_f64, double)

/* out[i, j] of the transpose is element (j, i): the region's columns are rows in the file. */
static saf_status read_transposed(saf_matrix *m, int64_t row0, int64_t rows, int64_t col0,
                                  int64_t cols, char *out, int64_t ld) {
    saf_status st = SAF_OK;
    int64_t size = saf_dtype_block_bytes(m->shape.dtype), most = SCRATCH_BYTES / size;
    if (rows == 0 || cols == 0) return SAF_OK;
    if (!m->scratch) SAF_TRY(saf_alloc(SCRATCH_BYTES, 1, &m->scratch));
    int64_t wide = saf_i64_min(rows, most / saf_i64_min(cols, 512));
    int64_t high = saf_i64_min(cols, most / wide);
    for (int64_t i = 0; i < rows; i += wide)
        for (int64_t j = 0; j < cols; j += high) {
            int64_t n_i = saf_i64_min(wide, rows - i), n_j = saf_i64_min(high, cols - j);
            char *to = out + (i * ld + j) * size;
            saf_alive();
            SAF_TRY(read_region(m, col0 + j, n_j, row0 + i, n_i, m->scratch, n_i));
            if (size == 8)
                transpose_f64((double *)(void *)m->scratch, n_j, n_i, (double *)(void *)to, ld);
            else
                transpose_f32((float *)(void *)m->scratch, n_j, n_i, (float *)(void *)to, ld);
        }
out:
    return st;
}

/* ---- both ---- */

saf_status saf_matrix_read(saf_matrix *m, bool transposed, int64_t row0, int64_t rows, int64_t col0,
                           int64_t cols, void *out, int64_t ld) {
    int64_t all_rows = transposed ? m->shape.cols : m->shape.rows;
    int64_t all_cols = transposed ? m->shape.rows : m->shape.cols;
    if (row0 < 0 || rows < 0 || col0 < 0 || cols < 0 || row0 > all_rows - rows ||
        col0 > all_cols - cols || ld < cols)
        return saf_fail(SAF_DEFECT, "%s: region [%lld, +%lld) x [%lld, +%lld)%s", m->label,
                        (long long)row0, (long long)rows, (long long)col0, (long long)cols,
                        transposed ? " of its transpose" : "");
    return transposed ? read_transposed(m, row0, rows, col0, cols, out, ld)
                      : read_rows(m, row0, rows, col0, cols, out, ld);
}

/* Blocks of whole chunks, those of a band from left to right, or bands where a block is as wide as
 * the matrix; a chunk that is too large goes in parts. */
static void hash_blocks(const saf_matrix *m, int64_t most, int64_t *high, int64_t *wide) {
    int64_t cols = saf_i64_max(1, m->shape.cols);
    *high = saf_i64_min(m->chunk_rows, most);
    *wide = saf_i64_min(cols, most / *high);
    if (*wide == cols) {
        *high = most / cols;
        if (*high > m->chunk_rows) *high -= *high % m->chunk_rows;
    } else if (*wide > m->chunk_cols) {
        *wide -= *wide % m->chunk_cols;
    }
}

saf_status saf_matrix_fingerprint(saf_matrix *m, char hex[33]) {
    saf_status st = SAF_OK;
    XXH128_canonical_t bytes;
    XXH3_state_t *hash = NULL;
    char *block = NULL;
    const int64_t head[] = {m->shape.rows, m->shape.cols, (int64_t)m->shape.dtype};
    int64_t size = saf_dtype_block_bytes(m->shape.dtype), high, wide;
    hash_blocks(m, HASH_BYTES / size, &high, &wide);
    SAF_TRY(saf_alloc(1, sizeof *hash, &hash));
    SAF_TRY(saf_alloc((size_t)(high * wide), (size_t)size, &block));
    XXH3_128bits_reset(hash);
    XXH3_128bits_update(hash, head, sizeof head);
    for (int64_t i = 0; i < m->shape.rows; i += high)
        for (int64_t j = 0; j < m->shape.cols; j += wide) {
            int64_t rows = saf_i64_min(high, m->shape.rows - i);
            int64_t cols = saf_i64_min(wide, m->shape.cols - j);
            saf_alive();
            SAF_TRY(read_region(m, i, rows, j, cols, block, cols));
            XXH3_128bits_update(hash, block, (size_t)(rows * cols * size));
        }
    XXH128_canonicalFromHash(&bytes, XXH3_128bits_digest(hash));
    saf_hex(bytes.digest, sizeof bytes.digest, hex);
out:
    saf_free(&block);
    saf_free(&hash);
    return st;
}

saf_status saf_matrix_sample(saf_matrix *m, char hex[33]) {
    enum { PIECES = 16, MOST = 4096 };
    saf_status st = SAF_OK;
    XXH128_canonical_t bytes;
    XXH3_state_t *hash = NULL;
    double piece[MOST];
    int64_t cols = saf_i64_min(m->shape.cols, MOST), size = saf_dtype_block_bytes(m->shape.dtype);
    SAF_TRY(saf_alloc(1, sizeof *hash, &hash));
    XXH3_128bits_reset(hash);
    for (int64_t i = 0; i < PIECES && m->shape.rows > 0 && cols > 0; i++) {
        int64_t row = (m->shape.rows - 1) * i / (PIECES - 1);
        int64_t col = (m->shape.cols - cols) * i / (PIECES - 1);
        SAF_TRY(read_region(m, row, 1, col, cols, piece, cols));
        XXH3_128bits_update(hash, piece, (size_t)(cols * size));
    }
    XXH128_canonicalFromHash(&bytes, XXH3_128bits_digest(hash));
    saf_hex(bytes.digest, sizeof bytes.digest, hex);
out:
    saf_free(&hash);
    return st;
}
