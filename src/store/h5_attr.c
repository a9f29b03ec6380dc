/* Attributes: texts and numbers on a file or a dataset. */
#include "store/h5.h"

/* n < 0: one value; otherwise an array of n. */
static saf_status put(const saf__h5 *f, hid_t object, const char *name, hid_t file_type,
                      hid_t memory_type, int n, const void *value) {
    saf_status st = SAF_OK;
    hid_t space = H5I_INVALID_HID, attr = H5I_INVALID_HID;
    hsize_t dim = n < 0 ? 1 : (hsize_t)n;
    SAF_TRY(saf__h5_take(f, n < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dim, NULL), name,
                         &space));
    SAF_TRY(saf__h5_take(f, H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT),
                         name, &attr));
    SAF_TRY(saf__h5_check(f, H5Awrite(attr, memory_type, value), name));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&attr), name));
out:
    saf__h5_close(&attr);
    saf__h5_close(&space);
    return st;
}

saf_status saf__h5_put_text(const saf__h5 *f, hid_t object, const char *name, const char *text) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID;
    char *owned = NULL;
    const char *clean = NULL;
    SAF_TRY(saf__h5_clean(text, &owned, &clean));
    SAF_TRY(saf__h5_string_type(f, H5T_VARIABLE, H5T_CSET_UTF8, &type));
    SAF_TRY(put(f, object, name, type, type, -1, &clean));
out:
    saf__h5_close(&type);
    saf_free(&owned);
    return st;
}

saf_status saf__h5_put_texts(const saf__h5 *f, hid_t object, const char *name, int n,
                             const char *const *texts) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID;
    SAF_TRY(saf__h5_string_type(f, H5T_VARIABLE, H5T_CSET_UTF8, &type));
    SAF_TRY(put(f, object, name, type, type, n, texts));
out:
    saf__h5_close(&type);
    return st;
}

saf_status saf__h5_put_i64(const saf__h5 *f, hid_t object, const char *name, int64_t value) {
    return put(f, object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, -1, &value);
}

saf_status saf__h5_put_f64(const saf__h5 *f, hid_t object, const char *name, double value) {
    return put(f, object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, -1, &value);
}

/* Opens an attribute of one value and this class; *attr stays invalid when there is none. */
static saf_status open_scalar(const saf__h5 *f, hid_t object, const char *name,
                              H5T_class_t type_class, hid_t *attr, hid_t *type) {
    saf_status st = SAF_OK;
    hid_t space = H5I_INVALID_HID;
    htri_t there = H5Aexists(object, name);
    SAF_TRY(saf__h5_check(f, there, name));
    if (!there) goto out;
    SAF_TRY(saf__h5_take(f, H5Aopen(object, name, H5P_DEFAULT), name, attr));
    SAF_TRY(saf__h5_take(f, H5Aget_type(*attr), name, type));
    SAF_TRY(saf__h5_take(f, H5Aget_space(*attr), name, &space));
    H5T_class_t is = H5Tget_class(*type);
    /* A whole number is a number too. */
    bool fits = is == type_class || (type_class == H5T_FLOAT && is == H5T_INTEGER);
    if (!fits || H5Sget_simple_extent_npoints(space) != 1)
        st = saf_fail(SAF_BAD_INPUT, "%s: attribute %s is not one %s", f->path, name,
                      type_class == H5T_STRING    ? "text"
                      : type_class == H5T_INTEGER ? "whole number"
                                                  : "number");
out:
    saf__h5_close(&space);
    return st;
}

saf_status saf__h5_get_text(const saf__h5 *f, hid_t object, const char *name, char **out) {
    saf_status st = SAF_OK;
    hid_t attr = H5I_INVALID_HID, type = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    char *text = NULL;
    SAF_TRY(open_scalar(f, object, name, H5T_STRING, &attr, &type));
    if (attr < 0) goto out;
    htri_t variable = H5Tis_variable_str(type);
    SAF_TRY(saf__h5_check(f, variable, name));
    if (!variable) {
        st = saf_fail(SAF_BAD_INPUT, "%s: attribute %s is no text of variable length", f->path,
                      name);
        goto out;
    }
    SAF_TRY(saf__h5_string_type(f, H5T_VARIABLE, H5Tget_cset(type), &memory));
    SAF_TRY(saf__h5_check(f, H5Aread(attr, memory, &text), name));
    SAF_TRY(saf_strdup(text ? text : "", out));
out:
    if (text) (void)H5free_memory(text);
    saf__h5_close(&memory);
    saf__h5_close(&type);
    saf__h5_close(&attr);
    return st;
}

static saf_status get_number(const saf__h5 *f, hid_t object, const char *name,
                             H5T_class_t type_class, hid_t memory_type, void *out) {
    saf_status st = SAF_OK;
    hid_t attr = H5I_INVALID_HID, type = H5I_INVALID_HID;
    SAF_TRY(open_scalar(f, object, name, type_class, &attr, &type));
    if (attr < 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: attribute %s is missing", f->path, name);
        goto out;
    }
    SAF_TRY(saf__h5_check(f, H5Aread(attr, memory_type, out), name));
out:
    saf__h5_close(&type);
    saf__h5_close(&attr);
    return st;
}

saf_status saf__h5_get_i64(const saf__h5 *f, hid_t object, const char *name, int64_t *out) {
    return get_number(f, object, name, H5T_INTEGER, H5T_NATIVE_INT64, out);
}

saf_status saf__h5_get_f64(const saf__h5 *f, hid_t object, const char *name, double *out) {
    return get_number(f, object, name, H5T_FLOAT, H5T_NATIVE_DOUBLE, out);
}
