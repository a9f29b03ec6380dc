/* Matrices in HDF5 files: regions and their transposes against a formula, whatever the chunks,
 * types and byte order; what leads elsewhere is refused; what is written is read back as it was. */
#include <hdf5.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
/* after what it needs */
#include <cmocka.h>

#include "saf/store_matrix.h"

enum { ROWS = 97, COLS = 131 };

static char folder[] = "/tmp/saf-matrix-XXXXXX";
static char path[64], name[80], other[64];

static void ok(saf_status st) {
    if (st != SAF_OK) fail_msg("%s: %s", saf_status_text(st), saf_error_text());
}

/* The call fails so, and its message has this in it. */
static void refused(saf_status st, saf_status expected, const char *words) {
    if (st != expected || !strstr(saf_error_text(), words))
        fail_msg("%s: %s; expected %s with \"%s\"", saf_status_text(st), saf_error_text(),
                 saf_status_text(expected), words);
}

static double value(int64_t r, int64_t c) {
    return (double)(r * 1000 + c) + 0.25;
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/m.h5", folder);
    snprintf(other, sizeof other, "%s/other.h5", folder);
    snprintf(name, sizeof name, "%s:/g/A", path);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    unlink(other);
    return rmdir(folder);
}

/* ---- files made by HDF5 itself ---- */

typedef struct {
    hid_t type;
    hsize_t chunk[2]; /* 0: contiguous */
    bool gzip;
    int ndim;
} form;

static double *values(int64_t n, int64_t cols) {
    double *v = calloc((size_t)n, sizeof *v);
    assert_non_null(v);
    for (int64_t i = 0; i < n; i++) v[i] = value(i / cols, i % cols);
    return v;
}

static void make(const char *file_path, const form *f) {
    hsize_t dims[2] = {ROWS, COLS};
    hid_t file = H5Fcreate(file_path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t group = H5Gcreate2(file, "/g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(f->ndim, dims, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    if (f->chunk[0]) assert_true(H5Pset_chunk(list, f->ndim, f->chunk) >= 0);
    if (f->gzip) assert_true(H5Pset_shuffle(list) >= 0 && H5Pset_deflate(list, 4) >= 0);
    hid_t set = H5Dcreate2(group, "A", f->type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    double *v = values(f->ndim == 2 ? (int64_t)ROWS * COLS : ROWS, f->ndim == 2 ? COLS : 1);
    assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
    free(v);
    H5Dclose(set);
    H5Pclose(list);
    H5Sclose(space);
    H5Gclose(group);
    assert_true(H5Fclose(file) >= 0);
}

static const form plain = {0, {0, 0}, false, 2};

static form doubles(void) {
    form f = plain;
    f.type = H5T_IEEE_F64LE;
    return f;
}

/* ---- reading ---- */

static double element(const void *at, saf_dtype dtype, int64_t i) {
    float f;
    double d;
    if (dtype == SAF_DTYPE_F64) {
        memcpy(&d, (const char *)at + i * 8, sizeof d);
        return d;
    }
    memcpy(&f, (const char *)at + i * 4, sizeof f);
    return (double)f;
}

static void check_region(saf_matrix *m, bool transposed, int64_t row0, int64_t rows, int64_t col0,
                         int64_t cols) {
    static const unsigned char mark = 0xA5;
    saf_dtype dtype = saf_matrix_shape_of(m).dtype;
    int64_t size = saf_dtype_block_bytes(dtype), ld = cols + 3;
    unsigned char *out = malloc((size_t)(rows * ld * size + 1));
    assert_non_null(out);
    memset(out, mark, (size_t)(rows * ld * size + 1));
    ok(saf_matrix_read(m, transposed, row0, rows, col0, cols, out, ld));
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            int64_t r = transposed ? col0 + j : row0 + i, c = transposed ? row0 + i : col0 + j;
            double expected = dtype == SAF_DTYPE_F64 ? value(r, c) : (double)(float)value(r, c);
            if (element(out, dtype, i * ld + j) != expected)
                fail_msg("(%lld, %lld)%s is %g, expected %g", (long long)r, (long long)c,
                         transposed ? " of the transpose" : "", element(out, dtype, i * ld + j),
                         expected);
        }
        for (int64_t b = (i * ld + cols) * size; b < (i + 1) * ld * size; b++)
            assert_int_equal(out[b], mark);
    }
    free(out);
}

static void check_regions(const form *f) {
    saf_matrix *m = NULL;
    make(path, f);
    ok(saf_matrix_open(name, &m));
    saf_matrix_shape s = saf_matrix_shape_of(m);
    assert_int_equal(s.rows, ROWS);
    assert_int_equal(s.cols, COLS);
    assert_int_equal(s.dtype, H5Tget_size(f->type) == 8 ? SAF_DTYPE_F64 : SAF_DTYPE_F32);
    check_region(m, false, 0, ROWS, 0, COLS);
    check_region(m, true, 0, COLS, 0, ROWS);
    check_region(m, false, 13, 40, 60, 71);
    check_region(m, true, 60, 71, 13, 40);
    check_region(m, false, ROWS - 1, 1, COLS - 1, 1);
    check_region(m, true, COLS, 0, 0, ROWS);
    check_region(m, false, 5, 7, COLS, 0);
    saf_matrix_close(&m);
    assert_null(m);
}

static void test_matrix_regions(void **state) {
    (void)state;
    const hid_t types[] = {H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE, H5T_IEEE_F64BE};
    const hsize_t chunks[][2] = {{0, 0}, {10, 7}, {ROWS, 1}, {1, COLS}, {ROWS, COLS}};
    for (size_t t = 0; t < 4; t++)
        for (size_t c = 0; c < 5; c++)
            for (int gzip = 0; gzip <= (chunks[c][0] != 0); gzip++) {
                form f = {types[t], {chunks[c][0], chunks[c][1]}, gzip != 0, 2};
                check_regions(&f);
            }
}

/* Larger than the memory that transposing goes through. */
static void test_matrix_large_transpose(void **state) {
    (void)state;
    enum { HIGH = 1500, WIDE = 1100 };
    saf_matrix_writer *w = NULL;
    saf_matrix *m = NULL;
    saf_matrix_shape shape = {HIGH, WIDE, SAF_DTYPE_F64};
    double *v = values((int64_t)HIGH * WIDE, WIDE);
    ok(saf_matrix_create(name, &shape, "a test", &w));
    ok(saf_matrix_put(w, 0, HIGH, 0, WIDE, v, WIDE));
    ok(saf_matrix_commit(w));
    saf_matrix_writer_free(&w);
    free(v);
    ok(saf_matrix_open(name, &m));
    check_region(m, true, 0, WIDE, 0, HIGH);
    check_region(m, false, 0, HIGH, 0, WIDE);
    saf_matrix_close(&m);
}

static void test_matrix_column(void **state) {
    (void)state;
    form f = doubles();
    saf_matrix *m = NULL;
    f.ndim = 1;
    make(path, &f);
    ok(saf_matrix_open(name, &m));
    assert_int_equal(saf_matrix_shape_of(m).rows, ROWS);
    assert_int_equal(saf_matrix_shape_of(m).cols, 1);
    check_region(m, false, 3, 50, 0, 1);
    check_region(m, true, 0, 1, 3, 50);
    saf_matrix_close(&m);
}

static void test_matrix_beyond_its_end(void **state) {
    (void)state;
    form f = doubles();
    saf_matrix *m = NULL;
    double v[4];
    make(path, &f);
    ok(saf_matrix_open(name, &m));
    refused(saf_matrix_read(m, false, ROWS - 1, 2, 0, 1, v, 1), SAF_DEFECT,
            "A (97 x 131, float64)");
    refused(saf_matrix_read(m, true, ROWS, 1, COLS - 1, 1, v, 1), SAF_DEFECT, "transpose");
    refused(saf_matrix_read(m, false, -1, 1, 0, 1, v, 1), SAF_DEFECT, "region");
    refused(saf_matrix_read(m, false, 0, 1, 0, 2, v, 1), SAF_DEFECT, "region");
    saf_matrix_close(&m);
}

static void test_matrix_fingerprint(void **state) {
    (void)state;
    form f = doubles();
    char first[33], second[33];
    saf_matrix *m = NULL;
    for (int i = 0; i < 2; i++) {
        make(path, &f);
        ok(saf_matrix_open(name, &m));
        ok(saf_matrix_fingerprint(m, i ? second : first));
        saf_matrix_close(&m);
    }
    assert_string_equal(first, second);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t set = H5Dopen2(file, "/g/A", H5P_DEFAULT), space = H5Dget_space(set);
    hsize_t at[2] = {ROWS - 1, COLS - 1}, one[2] = {1, 1};
    hid_t memory = H5Screate_simple(2, one, NULL);
    double changed = nextafter(value(ROWS - 1, COLS - 1), 0);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, at, NULL, one, NULL);
    assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, &changed) >= 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    ok(saf_matrix_open(name, &m));
    ok(saf_matrix_fingerprint(m, second));
    saf_matrix_close(&m);
    assert_string_not_equal(first, second);
}

/* ---- what is refused ---- */

static void open_refused(const char *dataset, saf_status expected, const char *words) {
    char full[160];
    saf_matrix *m = NULL;
    snprintf(full, sizeof full, "%s%s", path, dataset);
    refused(saf_matrix_open(full, &m), expected, words);
    assert_null(m);
}

static void test_matrix_links_refused(void **state) {
    (void)state;
    form f = doubles();
    make(path, &f);
    make(other, &f);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_external(other, "/g/A", file, "/outside", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external(other, "/g", file, "/group", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/g/A", file, "/soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    open_refused(":/outside", SAF_BAD_INPUT, "is a link");
    open_refused(":/group/A", SAF_BAD_INPUT, "/group is a link");
    open_refused(":/soft", SAF_BAD_INPUT, "is a link");
    open_refused(":/g/B", SAF_BAD_INPUT, "has no dataset /g/B");
    open_refused(":/h/A", SAF_BAD_INPUT, "has no dataset /h/A");
    open_refused(":/g/A/x", SAF_BAD_INPUT, "has no dataset");
    open_refused(":/g", SAF_BAD_INPUT, "/g is no dataset");
    open_refused(":/g/", SAF_BAD_INPUT, "empty name");
    open_refused(":", SAF_USAGE, "FILE.h5:/DATASET");
    open_refused("x:/g/A", SAF_NO_INPUT, "m.h5x");
}

static void add_dataset(const char *dataset, hid_t type, int ndim, hid_t list) {
    hsize_t dims[3] = {4, 5, 2};
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t space = ndim ? H5Screate_simple(ndim, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t set = H5Dcreate2(file, dataset, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
}

static void test_matrix_storage_elsewhere_refused(void **state) {
    (void)state;
    form f = doubles();
    hsize_t dims[2] = {ROWS, COLS};
    make(path, &f);
    make(other, &f);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(2, dims, NULL);
    H5Pset_external(list, "/etc/passwd", 0, (hsize_t)4 * 5 * 8);
    add_dataset("/external", H5T_IEEE_F64LE, 2, list);
    H5Pclose(list);
    list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(list, space, other, "/g/A", space);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t set = H5Dcreate2(file, "/virtual", H5T_IEEE_F64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Fclose(file);
    H5Sclose(space);
    H5Pclose(list);
    open_refused(":/external", SAF_BAD_INPUT, "external storage");
    open_refused(":/virtual", SAF_BAD_INPUT, "virtual dataset");
}

static size_t no_filter(unsigned flags, size_t n, const unsigned values_of[], size_t bytes,
                        size_t *size, void **data) {
    (void)flags, (void)n, (void)values_of, (void)size, (void)data;
    return bytes;
}

static void test_matrix_foreign_filter_refused(void **state) {
    (void)state;
    static const H5Z_class2_t foreign = {H5Z_CLASS_T_VERS, 32123, 1,    1,
                                         "a plugin",       NULL,  NULL, no_filter};
    form f = doubles();
    hsize_t chunk[2] = {2, 5};
    make(path, &f);
    assert_true(H5Zregister(&foreign) >= 0);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 2, chunk);
    assert_true(H5Pset_filter(list, 32123, 0, 0, NULL) >= 0);
    add_dataset("/filtered", H5T_IEEE_F64LE, 2, list);
    H5Pclose(list);
    H5Zunregister(32123);
    open_refused(":/filtered", SAF_BAD_INPUT, "filter 32123 (a plugin)");
}

static void test_matrix_types_refused(void **state) {
    (void)state;
    form f = doubles();
    make(path, &f);
    add_dataset("/whole", H5T_STD_I64LE, 2, H5P_DEFAULT);
    add_dataset("/cube", H5T_IEEE_F64LE, 3, H5P_DEFAULT);
    add_dataset("/scalar", H5T_IEEE_F64LE, 0, H5P_DEFAULT);
    open_refused(":/whole", SAF_BAD_INPUT, "expected float32 or float64");
    open_refused(":/cube", SAF_BAD_INPUT, "has 3 dimensions");
    open_refused(":/scalar", SAF_BAD_INPUT, "has 0 dimensions");
    FILE *text = fopen(path, "w");
    assert_non_null(text);
    fputs("no HDF5 at all", text);
    fclose(text);
    open_refused(":/g/A", SAF_BAD_INPUT, "is no HDF5 file");
}

/* Any size may be claimed; what is not there is an error and no overflow. */
static void test_matrix_claims(void **state) {
    (void)state;
    form f = doubles();
    make(path, &f);
    hsize_t dims[2] = {(hsize_t)1 << 58, (hsize_t)1 << 4}, chunk[2] = {1, 1};
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, dims, NULL);
    H5Pset_chunk(list, 2, chunk);
    hid_t set = H5Dcreate2(file, "/huge", H5T_IEEE_F64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(set >= 0);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(list);
    H5Fclose(file);
    open_refused(":/huge", SAF_BAD_INPUT, "too large");
}

/* ---- writing ---- */

static void write_tiles(const saf_matrix_shape *shape, int64_t tile_rows, int64_t tile_cols) {
    saf_matrix_writer *w = NULL;
    saf_matrix *m = NULL;
    unlink(path);
    ok(saf_matrix_create(name, shape, "a test", &w));
    assert_int_not_equal(access(path, F_OK), 0);
    for (int64_t i = 0; i < shape->rows; i += tile_rows)
        for (int64_t j = 0; j < shape->cols; j += tile_cols) {
            int64_t rows = saf_i64_min(tile_rows, shape->rows - i);
            int64_t cols = saf_i64_min(tile_cols, shape->cols - j), ld = cols + 2;
            double *v = calloc((size_t)(rows * ld), sizeof *v);
            assert_non_null(v);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < cols; c++) {
                    float f = (float)value(i + r, j + c);
                    if (shape->dtype == SAF_DTYPE_F64)
                        v[r * ld + c] = value(i + r, j + c);
                    else
                        memcpy((char *)v + (r * ld + c) * 4, &f, sizeof f);
                }
            ok(saf_matrix_put(w, i, rows, j, cols, v, ld));
            free(v);
        }
    ok(saf_matrix_commit(w));
    saf_matrix_writer_free(&w);
    ok(saf_matrix_open(name, &m));
    saf_matrix_shape s = saf_matrix_shape_of(m);
    assert_int_equal(s.rows, shape->rows);
    assert_int_equal(s.cols, shape->cols);
    assert_int_equal(s.dtype, shape->dtype);
    check_region(m, false, 0, s.rows, 0, s.cols);
    saf_matrix_close(&m);
    unlink(path);
}

static void test_matrix_written(void **state) {
    (void)state;
    const saf_matrix_shape shapes[] = {
        {700, 900, SAF_DTYPE_F32}, {700, 900, SAF_DTYPE_F64}, {1, 1, SAF_DTYPE_F32},
        {3000, 1, SAF_DTYPE_F64},  {1, 3000, SAF_DTYPE_F32},  {0, 7, SAF_DTYPE_F64},
        {7, 0, SAF_DTYPE_F32},     {0, 0, SAF_DTYPE_F64},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        write_tiles(&shapes[i], 128, 256);
        write_tiles(&shapes[i], 700, 100);
    }
}

static void test_matrix_incomplete_is_not_named(void **state) {
    (void)state;
    saf_matrix_writer *w = NULL;
    saf_matrix_shape shape = {10, 10, SAF_DTYPE_F64};
    double v[100] = {0};
    char part[96];
    snprintf(part, sizeof part, "%s.part", path);
    unlink(path);
    ok(saf_matrix_create(name, &shape, "a test", &w));
    ok(saf_matrix_put(w, 0, 10, 0, 9, v, 10));
    assert_int_equal(access(part, F_OK), 0);
    refused(saf_matrix_commit(w), SAF_DEFECT, "90 of 100");
    saf_matrix_writer_free(&w);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(part, F_OK), 0);
    ok(saf_matrix_create(name, &shape, "a test", &w));
    refused(saf_matrix_put(w, 0, 11, 0, 1, v, 1), SAF_DEFECT, "10 x 10");
    saf_matrix_writer_free(&w);
    assert_int_not_equal(access(part, F_OK), 0);
    refused(saf_matrix_create("/nowhere/at/all.h5:/A", &shape, "a test", &w), SAF_CANNOT_CREATE,
            "/nowhere/at/all.h5");
    assert_null(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrix_regions),
        cmocka_unit_test(test_matrix_large_transpose),
        cmocka_unit_test(test_matrix_column),
        cmocka_unit_test(test_matrix_beyond_its_end),
        cmocka_unit_test(test_matrix_fingerprint),
        cmocka_unit_test(test_matrix_links_refused),
        cmocka_unit_test(test_matrix_storage_elsewhere_refused),
        cmocka_unit_test(test_matrix_foreign_filter_refused),
        cmocka_unit_test(test_matrix_types_refused),
        cmocka_unit_test(test_matrix_claims),
        cmocka_unit_test(test_matrix_written),
        cmocka_unit_test(test_matrix_incomplete_is_not_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
