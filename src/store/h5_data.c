/* Datasets: arrays of numbers and lists of strings. */
#include <stdlib.h>

#include "store/h5.h"

enum { CHUNK_BYTES = 1 << 20, CACHE_BYTES = 32 << 20, STRING_BLOCK = 1024 };

/* ---- writing ---- */

int64_t saf__h5_chunk_rows(int64_t rows, size_t row_bytes) {
    int64_t fit = CHUNK_BYTES / (int64_t)(row_bytes ? row_bytes : 1);
    /* What is created empty grows. */
    return saf_i64_max(1, rows > 0 ? saf_i64_min(rows, fit) : fit);
}

/* HDF5 has no checksums for strings of variable length. */
static saf_status creation_list(const saf__h5 *f, const char *path, hid_t file_type,
                                const float *fill, int ndim, const hsize_t *chunk, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t list = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_CREATE), path, &list));
    SAF_TRY(saf__h5_check(f, H5Pset_chunk(list, ndim, chunk), path));
    htri_t strings = H5Tis_variable_str(file_type);
    SAF_TRY(saf__h5_check(f, strings, path));
    if (!strings) SAF_TRY(saf__h5_check(f, H5Pset_fletcher32(list), path));
    if (fill) SAF_TRY(saf__h5_check(f, H5Pset_fill_value(list, H5T_NATIVE_FLOAT, fill), path));
    *out = list;
out:
    if (st != SAF_OK) saf__h5_close(&list);
    return st;
}

/* Folders of the path are made on the way; the cache holds some chunks of the largest kind, so
 * that rows written one by one, of several requests at a time, fill a chunk before it leaves. */
static saf_status link_and_access_lists(const saf__h5 *f, const char *path, size_t chunk_bytes,
                                        hid_t *link, hid_t *access) {
    saf_status st = SAF_OK;
    size_t bytes = chunk_bytes > CACHE_BYTES / 4 ? 4 * chunk_bytes : CACHE_BYTES;
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_LINK_CREATE), path, link));
    SAF_TRY(saf__h5_check(f, H5Pset_create_intermediate_group(*link, 1), path));
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_ACCESS), path, access));
    SAF_TRY(saf__h5_check(f, H5Pset_chunk_cache(*access, 521, bytes, 1.0), path));
out:
    return st;
}

saf_status saf__h5_create(const saf__h5 *f, const saf__h5_label *label, hid_t file_type,
                          const float *fill, int64_t rows, int64_t cols, hid_t *out) {
    saf_status st = SAF_OK;
    int ndim = cols > 0 ? 2 : 1;
    hid_t space = H5I_INVALID_HID, creation = H5I_INVALID_HID, link = H5I_INVALID_HID,
          access = H5I_INVALID_HID, dataset = H5I_INVALID_HID;
    size_t row_bytes = H5Tget_size(file_type), chunk_bytes;
    if (!saf_size_mul(row_bytes, ndim == 2 ? (size_t)cols : 1, &row_bytes) || row_bytes == 0 ||
        row_bytes > UINT32_MAX)
        return saf_fail(SAF_DEFECT, "%s: a row of %s is too large", f->path, label->path);
    hsize_t dims[2] = {(hsize_t)rows, (hsize_t)cols};
    hsize_t most[2] = {H5S_UNLIMITED, (hsize_t)cols};
    hsize_t chunk[2] = {(hsize_t)saf__h5_chunk_rows(rows, row_bytes), (hsize_t)cols};
    chunk_bytes = (size_t)chunk[0] * row_bytes;
    SAF_TRY(saf__h5_room());
    SAF_TRY(saf__h5_take(f, H5Screate_simple(ndim, dims, most), label->path, &space));
    SAF_TRY(creation_list(f, label->path, file_type, fill, ndim, chunk, &creation));
    SAF_TRY(link_and_access_lists(f, label->path, chunk_bytes, &link, &access));
    SAF_TRY(saf__h5_take(f,
                         H5Dcreate2(f->id, label->path, file_type, space, link, creation, access),
                         label->path, &dataset));
    if (label->units) SAF_TRY(saf__h5_put_text(f, dataset, "units", label->units));
    SAF_TRY(saf__h5_put_text(f, dataset, "description", label->description));
    *out = dataset;
out:
    if (st != SAF_OK) saf__h5_close(&dataset);
    saf__h5_close(&access);
    saf__h5_close(&link);
    saf__h5_close(&creation);
    saf__h5_close(&space);
    return st;
}

saf_status saf__h5_put_array(const saf__h5 *f, const saf__h5_label *label, hid_t file_type,
                             hid_t memory_type, int64_t rows, int64_t cols, const void *data) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID;
    SAF_TRY(saf__h5_create(f, label, file_type, NULL, rows, cols, &dataset));
    if (rows > 0)
        SAF_TRY(saf__h5_check(
            f, H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), label->path));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&dataset), label->path));
out:
    saf__h5_close(&dataset);
    return st;
}

saf_status saf__h5_put_strings(const saf__h5 *f, const saf__h5_label *label, int64_t n,
                               const char *const *texts) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID;
    const char **clean = NULL;
    char **owned = NULL;
    SAF_TRY(saf_alloc((size_t)n, sizeof *clean, &clean));
    SAF_TRY(saf_alloc((size_t)n, sizeof *owned, &owned));
    for (int64_t i = 0; i < n; i++)
        if (texts[i]) SAF_TRY(saf__h5_clean(texts[i], &owned[i], &clean[i]));
    SAF_TRY(saf__h5_string_type(f, H5T_VARIABLE, H5T_CSET_UTF8, &type));
    SAF_TRY(saf__h5_put_array(f, label, type, type, n, 0, clean));
out:
    for (int64_t i = 0; owned && i < n; i++) saf_free(&owned[i]);
    saf_free(&owned);
    saf_free(&clean);
    saf__h5_close(&type);
    return st;
}

/* ---- reading ---- */

saf_status saf__h5_has(const saf__h5 *f, const char *path, bool *out) {
    saf_status st = SAF_OK;
    saf_buf prefix = {0};
    htri_t there = 1;
    /* H5Lexists fails, rather than says no, when a folder on the way is missing. */
    for (const char *end = path; there > 0 && *end;) {
        end = strchr(end + 1, '/');
        if (!end) end = path + strlen(path);
        saf_buf_clear(&prefix);
        SAF_TRY(saf_buf_append(&prefix, path, (size_t)(end - path)));
        there = H5Lexists(f->id, prefix.data, H5P_DEFAULT);
        SAF_TRY(saf__h5_check(f, there, path)); /* not to be known is not to be missing */
    }
    *out = there > 0;
out:
    saf_buf_free(&prefix);
    return st;
}

/* A few bytes of a file can claim any shape. What is stored plainly must be there in full; of
 * compressed data (a file repacked by somebody) deflate can shrink by 1032 at most. */
static saf_status check_stored(const saf__h5 *f, const char *path, hid_t dataset, hid_t type,
                               const int64_t shape[2]) {
    saf_status st = SAF_OK;
    hid_t creation = H5I_INVALID_HID;
    hsize_t stored = H5Dget_storage_size(dataset), file_bytes = 0;
    size_t bytes = 0;
    /* 0 also where it could not be read: then there is an error on record. */
    if (stored == 0 && H5Eget_num(H5E_DEFAULT) > 0) SAF_TRY(saf__h5_check(f, -1, path));
    SAF_TRY(saf__h5_check(f, H5Fget_filesize(f->id, &file_bytes), path));
    SAF_TRY(saf__h5_take(f, H5Dget_create_plist(dataset), path, &creation));
    int filters = H5Pget_nfilters(creation);
    SAF_TRY(saf__h5_check(f, filters, path));
    bool plain = true;
    for (int i = 0; i < filters; i++) {
        unsigned flags, config;
        size_t none = 0;
        plain = plain && H5Pget_filter2(creation, (unsigned)i, &flags, &none, NULL, 0, NULL,
                                        &config) == H5Z_FILTER_FLETCHER32;
    }
    hsize_t most = stored > file_bytes ? 0 : plain ? stored : stored * 1032;
    if (!saf_size_mul((size_t)shape[0], (size_t)shape[1], &bytes) ||
        !saf_size_mul(bytes, H5Tget_size(type), &bytes) || bytes > most)
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: %s claims %lld x %lld values, but only %llu bytes are stored", f->path,
                      path, (long long)shape[0], (long long)shape[1], (unsigned long long)stored);
out:
    saf__h5_close(&creation);
    return st;
}

saf_status saf__h5_open(const saf__h5 *f, const char *path, H5T_class_t type_class, int ndim,
                        hid_t *out, int64_t shape[2]) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID, type = H5I_INVALID_HID, space = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 1};
    SAF_TRY(saf__h5_room());
    SAF_TRY(saf__h5_take(f, H5Dopen2(f->id, path, H5P_DEFAULT), path, &dataset));
    SAF_TRY(saf__h5_take(f, H5Dget_type(dataset), path, &type));
    SAF_TRY(saf__h5_take(f, H5Dget_space(dataset), path, &space));
    if (H5Tget_class(type) != type_class) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %s has another type of values than expected", f->path,
                      path);
        goto out;
    }
    if (H5Sget_simple_extent_ndims(space) != ndim ||
        H5Sget_simple_extent_dims(space, dims, NULL) != ndim) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %s has not %d dimension(s)", f->path, path, ndim);
        goto out;
    }
    if (dims[0] > INT64_MAX || dims[1] > INT64_MAX) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %s is too large", f->path, path);
        goto out;
    }
    shape[0] = (int64_t)dims[0];
    shape[1] = (int64_t)dims[1];
    SAF_TRY(check_stored(f, path, dataset, type, shape));
    *out = dataset;
out:
    if (st != SAF_OK) saf__h5_close(&dataset);
    saf__h5_close(&space);
    saf__h5_close(&type);
    return st;
}

saf_status saf__h5_get_array(const saf__h5 *f, const char *path, H5T_class_t type_class, int ndim,
                             hid_t memory_type, size_t size, void *out, int64_t shape[2]) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID;
    void *values = NULL;
    size_t count = 0;
    SAF_TRY(saf__h5_open(f, path, type_class, ndim, &dataset, shape));
    if (!saf_size_mul((size_t)shape[0], (size_t)shape[1], &count)) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %s is too large", f->path, path);
        goto out;
    }
    SAF_TRY(saf_alloc(count, size, &values));
    if (count > 0)
        SAF_TRY(saf__h5_check(
            f, H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), path));
    memcpy(out, &values, sizeof values);
    values = NULL;
out:
    saf_free(&values);
    saf__h5_close(&dataset);
    return st;
}

saf_status saf__h5_select_rows(const saf__h5 *f, hid_t dataset, int64_t row0, int64_t rows,
                               hid_t *file_space, hid_t *memory_space) {
    saf_status st = SAF_OK;
    hid_t file = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    hsize_t start[2] = {(hsize_t)row0, 0}, count[2] = {0, 0};
    SAF_TRY(saf__h5_take(f, H5Dget_space(dataset), "its shape", &file));
    int ndim = H5Sget_simple_extent_ndims(file);
    if (ndim < 1 || ndim > 2) {
        st = saf_fail(SAF_DEFECT, "%s: rows of a dataset of %d dimensions", f->path, ndim);
        goto out;
    }
    SAF_TRY(saf__h5_check(f, H5Sget_simple_extent_dims(file, count, NULL), "its shape"));
    count[0] = (hsize_t)rows;
    SAF_TRY(saf__h5_check(f, H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, count, NULL),
                          "some of its rows"));
    SAF_TRY(saf__h5_take(f, H5Screate_simple(ndim, count, NULL), "some of its rows", &memory));
    *file_space = file;
    *memory_space = memory;
    file = H5I_INVALID_HID;
out:
    saf__h5_close(&file);
    return st;
}

/* Reads rows [row0, row0 + rows) of a dataset of strings into out[0..rows). */
static saf_status get_string_block(const saf__h5 *f, const char *path, hid_t dataset, hid_t type,
                                   size_t fixed, int64_t row0, int64_t rows, void *block,
                                   char **out) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    bool reclaim = false;
    SAF_TRY(saf__h5_select_rows(f, dataset, row0, rows, &file_space, &memory_space));
    if (!fixed) memset(block, 0, (size_t)rows * sizeof(char *));
    reclaim = !fixed;
    SAF_TRY(saf__h5_check(f, H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, block),
                          path));
    for (int64_t i = 0; i < rows; i++) {
        const char *text = fixed ? (char *)block + (size_t)i * fixed : ((char **)block)[i];
        SAF_TRY(saf_strdup(text ? text : "", &out[i]));
    }
out:
    if (reclaim) (void)H5Dvlen_reclaim(type, memory_space, H5P_DEFAULT, block);
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    return st;
}

/* *fixed: bytes of a string of fixed length with its closing zero; 0 for variable length. */
static saf_status string_memory_type(const saf__h5 *f, const char *path, hid_t dataset, hid_t *out,
                                     size_t *fixed) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Dget_type(dataset), path, &type));
    htri_t variable = H5Tis_variable_str(type);
    SAF_TRY(saf__h5_check(f, variable, path));
    *fixed = variable ? 0 : H5Tget_size(type) + 1;
    SAF_TRY(saf__h5_string_type(f, variable ? H5T_VARIABLE : *fixed, H5Tget_cset(type), &memory));
    *out = memory;
out:
    if (st != SAF_OK) saf__h5_close(&memory);
    saf__h5_close(&type);
    return st;
}

saf_status saf__h5_get_strings(const saf__h5 *f, const char *path, char ***out, int64_t *n) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID, type = H5I_INVALID_HID;
    void *block = NULL;
    char **texts = NULL;
    int64_t shape[2] = {0, 1};
    size_t fixed = 0;
    SAF_TRY(saf__h5_open(f, path, H5T_STRING, 1, &dataset, shape));
    SAF_TRY(string_memory_type(f, path, dataset, &type, &fixed));
    SAF_TRY(saf_alloc((size_t)shape[0], sizeof *texts, &texts));
    SAF_TRY(saf_alloc((size_t)saf_i64_min(shape[0], STRING_BLOCK), fixed ? fixed : sizeof(char *),
                      &block));
    for (int64_t i = 0; i < shape[0]; i += STRING_BLOCK)
        SAF_TRY(get_string_block(f, path, dataset, type, fixed, i,
                                 saf_i64_min(STRING_BLOCK, shape[0] - i), block, texts + i));
    *out = texts;
    *n = shape[0];
    texts = NULL;
out:
    for (int64_t i = 0; texts && i < shape[0]; i++) saf_free(&texts[i]);
    saf_free(&texts);
    saf_free(&block);
    saf__h5_close(&type);
    saf__h5_close(&dataset);
    return st;
}
