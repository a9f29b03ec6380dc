/* /state/NAME of a checkpoint. The datasets are contiguous: nothing of them stays in a cache of
 * HDF5's, so a disk that is full shows at the write itself; the seal is what tells damage. */
#include <stdio.h>

#include "store/checkpoint.h"

enum { MOST_NAME = 128, PIECE_BYTES = 4 << 20 };

/* ---- types ---- */

/* IEEE half precision, which HDF5 1.10 has no name for. */
static saf_status half_type(const saf__h5 *f, hid_t type) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__h5_check(f, H5Tset_fields(type, 15, 10, 5, 0, 10), "a type"));
    SAF_TRY(saf__h5_check(f, H5Tset_size(type, 2), "a type"));
    SAF_TRY(saf__h5_check(f, H5Tset_ebias(type, 15), "a type"));
out:
    return st;
}

/* The same in the file and in memory; H5I_INVALID_HID for what has no form of HDF5's own. */
static hid_t plain_type(saf_dtype dtype) {
    switch (dtype) {
        case SAF_DTYPE_F32:
        case SAF_DTYPE_F16:
            return H5T_IEEE_F32LE;
        case SAF_DTYPE_F64:
            return H5T_IEEE_F64LE;
        case SAF_DTYPE_I8:
            return H5T_STD_I8LE;
        case SAF_DTYPE_I16:
            return H5T_STD_I16LE;
        case SAF_DTYPE_I32:
            return H5T_STD_I32LE;
        case SAF_DTYPE_I64:
            return H5T_STD_I64LE;
        case SAF_DTYPE_U8:
            return H5T_STD_U8LE;
        case SAF_DTYPE_BF16:
            return H5T_STD_U16LE;
        default:
            return H5I_INVALID_HID;
    }
}

static saf_status value_type(const saf__h5 *f, saf_dtype dtype, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID, plain = plain_type(dtype);
    if (plain < 0)
        return saf_fail(SAF_DEFECT, "%s: values of type %s in a checkpoint", f->path,
                        saf_dtype_name(dtype));
    SAF_TRY(saf__h5_take(f, H5Tcopy(plain), "a type", &type));
    if (dtype == SAF_DTYPE_F16) SAF_TRY(half_type(f, type));
    *out = type;
out:
    if (st != SAF_OK) saf__h5_close(&type);
    return st;
}

/* ---- names ---- */

static saf_status state_path(const saf__h5 *f, const char *name, char out[MOST_NAME + 16]) {
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    if (good == 0 || name[good] != '\0' || good > MOST_NAME)
        return saf_fail(SAF_DEFECT, "%s: \"%s\" is no name of a checkpoint's state", f->path, name);
    snprintf(out, MOST_NAME + 16, "/state/%s", name);
    return SAF_OK;
}

saf_status saf__state_check(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t n) {
    saf_status st = SAF_OK;
    char path[MOST_NAME + 16];
    size_t bytes;
    SAF_TRY(state_path(f, name, path));
    if (plain_type(dtype) < 0 || !saf_dtype_bytes(dtype, n, &bytes) || bytes > INT64_MAX / 2)
        return saf_fail(SAF_DEFECT, "%s: %lld values of type %s as %s", f->path, (long long)n,
                        saf_dtype_name(dtype), path);
    bool there = false;
    SAF_TRY(saf__h5_has(f, path, &there));
    if (there) st = saf_fail(SAF_DEFECT, "%s: %s is written twice", f->path, path);
out:
    return st;
}

/* ---- datasets ---- */

saf_status saf__state_create(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t n,
                             hid_t *out) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID, space = H5I_INVALID_HID, creation = H5I_INVALID_HID,
          dataset = H5I_INVALID_HID;
    char path[MOST_NAME + 16];
    hsize_t dim = (hsize_t)n;
    SAF_TRY(state_path(f, name, path));
    SAF_TRY(value_type(f, dtype, &type));
    SAF_TRY(saf__h5_take(f, H5Screate_simple(1, &dim, NULL), path, &space));
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_CREATE), path, &creation));
    SAF_TRY(saf__h5_check(f, H5Pset_layout(creation, H5D_CONTIGUOUS), path));
    SAF_TRY(saf__h5_check(f, H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), path));
    SAF_TRY(saf__h5_take(f,
                         H5Dcreate2(f->id, path, type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                         path, &dataset));
    SAF_TRY(saf__h5_put_text(f, dataset, "dtype", saf_dtype_name(dtype)));
    *out = dataset;
    dataset = H5I_INVALID_HID;
out:
    saf__h5_close(&dataset);
    saf__h5_close(&creation);
    saf__h5_close(&space);
    saf__h5_close(&type);
    return st;
}

static saf_status check_type(const saf__h5 *f, const char *path, hid_t dataset, saf_dtype dtype) {
    saf_status st = SAF_OK;
    hid_t expected = H5I_INVALID_HID, type = H5I_INVALID_HID;
    char *label = NULL;
    SAF_TRY(value_type(f, dtype, &expected));
    SAF_TRY(saf__h5_take(f, H5Dget_type(dataset), path, &type));
    SAF_TRY(saf__h5_get_text(f, dataset, "dtype", &label));
    htri_t same = H5Tequal(type, expected);
    SAF_TRY(saf__h5_check(f, same, path));
    if (!same || !label || strcmp(label, saf_dtype_name(dtype)) != 0)
        st = saf_fail(SAF_BAD_INPUT, "%s: %s has values of type %s, expected %s", f->path, path,
                      label && strlen(label) < 32 ? label : "unknown", saf_dtype_name(dtype));
out:
    saf_free(&label);
    saf__h5_close(&type);
    saf__h5_close(&expected);
    return st;
}

saf_status saf__state_open(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t *n,
                           hid_t *out) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID;
    char path[MOST_NAME + 16];
    int64_t shape[2] = {0, 1};
    bool real = dtype == SAF_DTYPE_F32 || dtype == SAF_DTYPE_F64 || dtype == SAF_DTYPE_F16;
    SAF_TRY(state_path(f, name, path));
    SAF_TRY(saf__h5_check_inside(f, "/state", path));
    SAF_TRY(saf__h5_open(f, path, real ? H5T_FLOAT : H5T_INTEGER, 1, &dataset, shape));
    SAF_TRY(saf__h5_check_contiguous(f, path, dataset));
    SAF_TRY(check_type(f, path, dataset, dtype));
    *n = shape[0];
    *out = dataset;
    dataset = H5I_INVALID_HID;
out:
    saf__h5_close(&dataset);
    return st;
}

/* ---- values ---- */

static saf_status move_piece(const saf__h5 *f, hid_t dataset, saf_dtype dtype, int64_t at,
                             int64_t count, const void *from, void *to) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID, file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID;
    saf__h5_enter();
    SAF_TRY(value_type(f, dtype, &type));
    SAF_TRY(saf__h5_select_rows(f, dataset, at, count, &file_space, &memory_space));
    herr_t rc = from ? H5Dwrite(dataset, type, memory_space, file_space, H5P_DEFAULT, from)
                     : H5Dread(dataset, type, memory_space, file_space, H5P_DEFAULT, to);
    SAF_TRY(saf__h5_check(f, rc, "its state"));
out:
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    saf__h5_close(&type);
    saf__h5_leave();
    return st;
}

static saf_status move_pieces(const saf__h5 *f, hid_t dataset, saf_dtype dtype, int64_t at,
                              int64_t count, const char *from, char *to) {
    saf_status st = SAF_OK;
    int64_t size = saf_dtype_block_bytes(dtype), step = PIECE_BYTES / size;
    for (int64_t i = 0; i < count; i += step) {
        size_t skip = (size_t)(i * size);
        saf_alive();
        SAF_TRY(move_piece(f, dataset, dtype, at + i, saf_i64_min(step, count - i),
                           from ? from + skip : NULL, to ? to + skip : NULL));
    }
out:
    return st;
}

saf_status saf__state_write(const saf__h5 *f, hid_t dataset, saf_dtype dtype, int64_t at,
                            int64_t count, const void *data) {
    return move_pieces(f, dataset, dtype, at, count, data, NULL);
}

saf_status saf__state_read(const saf__h5 *f, hid_t dataset, saf_dtype dtype, int64_t at,
                           int64_t count, void *data) {
    return move_pieces(f, dataset, dtype, at, count, NULL, data);
}

saf_status saf__state_get(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t most,
                          int64_t *n, void *data) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID;
    char *values = NULL;
    int64_t count = 0;
    saf__h5_enter();
    st = saf__state_open(f, name, dtype, &count, &dataset);
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    if (count > most) {
        st = saf_fail(SAF_BAD_INPUT, "%s: /state/%s has %lld values, expected at most %lld",
                      f->path, name, (long long)count, (long long)most);
        goto out;
    }
    SAF_TRY(saf_alloc((size_t)count, (size_t)saf_dtype_block_bytes(dtype), &values));
    SAF_TRY(saf__state_read(f, dataset, dtype, 0, count, values));
    memcpy(data, &values, sizeof values);
    *n = count;
    values = NULL;
out:
    saf_free(&values);
    saf__h5_enter();
    saf__h5_close(&dataset);
    saf__h5_leave();
    return st;
}
