#include "h5_edit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

fuzz_h5_record fuzz_h5_record_of(const uint8_t bytes[FUZZ_H5_RECORD]) {
    fuzz_h5_record r = {bytes[0], bytes[1], bytes[2], bytes[3], 0};
    for (int i = 0; i < 8; i++) r.value |= (uint64_t)bytes[4 + i] << (8 * i);
    return r;
}

static const char *chosen(const char *const *names, uint8_t which) {
    int n = 0;
    while (names[n]) n++;
    return names[which % n];
}

static hid_t text_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

/* ---- attributes ---- */

static void put_attribute(hid_t object, const char *name, hid_t type, hid_t space,
                          const void *value) {
    if (H5Aexists(object, name) > 0) H5Adelete(object, name);
    hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (a >= 0 && value) H5Awrite(a, type, value);
    if (a >= 0) H5Aclose(a);
}

static void put_scalar(hid_t object, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    put_attribute(object, name, type, space, value);
    H5Sclose(space);
}

/* `how` bytes of `value` over and over, or tens of thousands. */
static void fill_text(char *out, size_t room, const fuzz_h5_record *r) {
    size_t len = r->how == 255 ? room - 1 : r->how;
    for (size_t i = 0; i < len; i++) out[i] = (char)(r->value >> (8 * (i % 8)));
    out[len] = 0;
}

static void put_text(hid_t object, const char *name, const fuzz_h5_record *r) {
    enum { MANY = 40000 };
    static char text[MANY + 1];
    const char *pointer = text;
    fill_text(text, sizeof text, r);
    bool fixed = r->how % 2 == 1 && strlen(text) > 0;
    hid_t type = text_type(fixed ? strlen(text) : H5T_VARIABLE);
    put_scalar(object, name, type, fixed ? (const void *)text : (const void *)&pointer);
    H5Tclose(type);
}

static hid_t compound(void) {
    hid_t type = H5Tcreate(H5T_COMPOUND, 16);
    H5Tinsert(type, "a", 0, H5T_STD_I64LE);
    H5Tinsert(type, "b", 8, H5T_IEEE_F64LE);
    return type;
}

static hid_t odd_type(unsigned how) {
    static const int N = 16;
    hsize_t three = 3;
    switch (how % (unsigned)N) {
        case 0:
            return H5Tcopy(H5T_STD_I64LE);
        case 1:
            return H5Tcopy(H5T_STD_I64BE);
        case 2:
            return H5Tcopy(H5T_STD_U64LE);
        case 3:
            return H5Tcopy(H5T_STD_I32LE);
        case 4:
            return H5Tcopy(H5T_STD_U8LE);
        case 5:
            return H5Tcopy(H5T_STD_I8LE);
        case 6:
            return H5Tcopy(H5T_IEEE_F32LE);
        case 7:
            return H5Tcopy(H5T_IEEE_F64LE);
        case 8:
            return compound();
        case 9:
            return H5Tenum_create(H5T_STD_I64LE);
        case 10:
            return H5Tarray_create2(H5T_STD_I64LE, 1, &three);
        case 11:
            return H5Tvlen_create(H5T_STD_I64LE);
        case 12:
            return H5Tcreate(H5T_OPAQUE, 8);
        case 13:
            return H5Tcopy(H5T_STD_REF_OBJ);
        case 14:
            return text_type(8);
        default:
            return text_type(H5T_VARIABLE);
    }
}

static hid_t odd_space(unsigned how, hsize_t n) {
    hsize_t dims[5] = {n, n, n, n, n};
    switch (how % 4) {
        case 0:
            return H5Screate(H5S_SCALAR);
        case 1:
            return H5Screate(H5S_NULL);
        case 2:
            return H5Screate_simple(1, dims, NULL);
        default:
            return H5Screate_simple(2, dims, NULL);
    }
}

/* Types whose values are pointers are left without values. */
static const void *values_for(hid_t type, const void *values) {
    return H5Tdetect_class(type, H5T_VLEN) > 0 || H5Tis_variable_str(type) > 0 ||
                   H5Tget_class(type) == H5T_REFERENCE
               ? NULL
               : values;
}

static void put_odd(hid_t object, const char *name, const fuzz_h5_record *r) {
    uint64_t values[64];
    for (int i = 0; i < 64; i++) values[i] = r->value;
    hid_t type = odd_type(r->how), space = odd_space(r->how >> 4, 1 + (r->how >> 6));
    if (type >= 0 && space >= 0) put_attribute(object, name, type, space, values_for(type, values));
    H5Sclose(space);
    H5Tclose(type);
}

static void edit_attribute(hid_t object, const char *name, const fuzz_h5_record *r,
                           fuzz_h5_kind kind) {
    double real;
    memcpy(&real, &r->value, sizeof real);
    switch (kind) {
        case FUZZ_H5_ATTRIBUTE_DELETED:
            H5Adelete(object, name);
            break;
        case FUZZ_H5_ATTRIBUTE_I64:
            put_scalar(object, name, H5T_STD_I64LE, &r->value);
            break;
        case FUZZ_H5_ATTRIBUTE_F64:
            put_scalar(object, name, H5T_IEEE_F64LE, &real);
            break;
        case FUZZ_H5_ATTRIBUTE_TEXT:
            put_text(object, name, r);
            break;
        default:
            put_odd(object, name, r);
            break;
    }
}

/* ---- datasets ---- */

static bool is_contiguous(hid_t dataset) {
    hid_t list = H5Dget_create_plist(dataset);
    bool is = H5Pget_layout(list) == H5D_CONTIGUOUS;
    H5Pclose(list);
    return is;
}

/* Not of a dataset that an earlier record has made again in chunks: writing to one in the file that
 * made it can crash libhdf5 (1.10.8) before saf reads anything. */
static void set_value(hid_t f, const char *path, const fuzz_h5_record *r) {
    hid_t d = H5Dopen2(f, path, H5P_DEFAULT);
    if (d < 0) return;
    if (!is_contiguous(d)) {
        H5Dclose(d);
        return;
    }
    hid_t type = H5Dget_type(d), space = H5Dget_space(d);
    hsize_t dims[8] = {0}, start[8] = {0}, count[8] = {1, 1, 1, 1, 1, 1, 1, 1}, one = 1,
            at = r->how;
    int rank = H5Sget_simple_extent_ndims(space);
    hid_t memory = H5Screate_simple(1, &one, NULL);
    if (rank >= 1 && rank <= 8 && H5Tget_size(type) <= sizeof r->value &&
        values_for(type, &r->value) && H5Sget_simple_extent_dims(space, dims, NULL) == rank) {
        for (int i = rank - 1; i >= 0; i--) {
            if (dims[i] == 0) goto out;
            start[i] = at % dims[i];
            at /= dims[i];
        }
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
        H5Dwrite(d, type, memory, space, H5P_DEFAULT, &r->value);
    }
out:
    H5Sclose(memory);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(d);
}

/* The attribute that says what the values are stays as it was. */
static void keep_dtype(hid_t f, const char *path, char out[64]) {
    hid_t d = H5Dopen2(f, path, H5P_DEFAULT);
    char *text = NULL;
    out[0] = 0;
    if (d < 0) return;
    if (H5Aexists(d, "dtype") > 0) {
        hid_t a = H5Aopen(d, "dtype", H5P_DEFAULT), type = H5Aget_type(a);
        if (H5Tis_variable_str(type) > 0 && H5Aread(a, type, &text) >= 0 && text) {
            snprintf(out, 64, "%s", text);
            H5free_memory(text);
        }
        H5Tclose(type);
        H5Aclose(a);
    }
    H5Dclose(d);
}

static void put_dtype(hid_t d, const char *name) {
    hid_t type = text_type(H5T_VARIABLE);
    put_scalar(d, "dtype", type, &name);
    H5Tclose(type);
}

static void make(hid_t f, const char *path, hid_t type, hid_t space, hid_t creation,
                 const void *values) {
    char dtype[64];
    keep_dtype(f, path, dtype);
    H5Ldelete(f, path, H5P_DEFAULT);
    hid_t d = H5Dcreate2(f, path, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    if (d < 0) return;
    if (values) H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    if (dtype[0]) put_dtype(d, dtype);
    H5Dclose(d);
}

static hid_t creation_list(unsigned layout, int rank) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[2] = {64, 64};
    switch (layout % 4) {
        case 0:
            H5Pset_layout(list, H5D_CONTIGUOUS);
            break;
        case 1:
            H5Pset_layout(list, H5D_COMPACT);
            break;
        case 2:
            if (rank > 0) H5Pset_chunk(list, rank, chunk);
            break;
        default:
            if (rank > 0) H5Pset_chunk(list, rank, chunk);
            if (rank > 0) H5Pset_deflate(list, 1);
            break;
    }
    return list;
}

/* Lowest byte of value: a size; the next: how far it is shifted up. Of small ones the values are
 * written: the rest of value, counted up or not. */
static void make_again(hid_t f, const char *path, const fuzz_h5_record *r) {
    enum { MOST_VALUES = 1 << 16, MOST_BYTES = 16 * MOST_VALUES };
    static uint64_t values[MOST_BYTES / 8];
    hsize_t n = r->value & 255;
    n <<= (r->value >> 8) % 48;
    hid_t type = odd_type(r->how), space = odd_space(2 + (r->how >> 4), n);
    int rank = H5Sget_simple_extent_ndims(space);
    hid_t list = creation_list(r->how >> 5, rank);
    hssize_t all = H5Sget_simple_extent_npoints(space);
    bool few = all >= 0 && all <= MOST_VALUES && (size_t)all * H5Tget_size(type) <= MOST_BYTES;
    uint64_t first = r->value >> 24, step = r->value >> 16 & 3;
    for (int i = 0; few && i < all && i < MOST_BYTES / 8; i++)
        values[i] = first + step * (uint64_t)i;
    if (type >= 0 && space >= 0)
        make(f, path, type, space, list, few ? values_for(type, values) : NULL);
    H5Pclose(list);
    H5Sclose(space);
    H5Tclose(type);
}

static void make_texts(hid_t f, const char *path, const fuzz_h5_record *r) {
    static char text[64];
    const char *texts[256];
    hsize_t n = r->how;
    for (size_t i = 0; i < 8; i++) text[i] = (char)(r->value >> (8 * i));
    for (size_t i = 0; i < 256; i++) texts[i] = r->value >> 60 == 1 ? text : text + i % 9;
    hid_t type = text_type(H5T_VARIABLE), space = H5Screate_simple(1, &n, NULL);
    make(f, path, type, space, H5P_DEFAULT, texts);
    H5Sclose(space);
    H5Tclose(type);
}

static void make_link(hid_t f, const char *path, const char *other, const fuzz_h5_record *r) {
    hid_t g = H5I_INVALID_HID;
    H5Ldelete(f, path, H5P_DEFAULT);
    switch (r->how % 6) {
        case 0:
            H5Lcreate_soft(other, f, path, H5P_DEFAULT, H5P_DEFAULT);
            break;
        case 1:
            H5Lcreate_hard(f, other, f, path, H5P_DEFAULT, H5P_DEFAULT);
            break;
        case 2:
            H5Lcreate_external("g.h5.ckpt-1", other, f, path, H5P_DEFAULT, H5P_DEFAULT);
            break;
        case 3:
            H5Lcreate_soft(path, f, path, H5P_DEFAULT, H5P_DEFAULT);
            break;
        case 4:
            g = H5Gcreate2(f, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            break;
        default:
            g = H5Tcopy(H5T_STD_I64LE);
            H5Tcommit2(f, path, g, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            break;
    }
    if (g >= 0) H5Oclose(g);
}

static void change_dtype(hid_t f, const char *path, const fuzz_h5_record *r) {
    static const char *const names[] = {"F32", "F16", "BF16", "F64",  "I8", "I16",
                                        "I32", "I64", "U8",   "Q8_0", "",   "i64"};
    hid_t d = H5Dopen2(f, path, H5P_DEFAULT);
    if (d < 0) return;
    if (r->how == 255)
        H5Adelete(d, "dtype");
    else
        put_dtype(d, names[r->how % (sizeof names / sizeof *names)]);
    H5Dclose(d);
}

/* The same shape, but the values are those of another file, or of another dataset. */
static void move_elsewhere(hid_t f, const char *path, const char *other, const fuzz_h5_record *r) {
    hid_t d = H5Dopen2(f, path, H5P_DEFAULT);
    if (d < 0) return;
    hid_t type = H5Dget_type(d), space = H5Dget_space(d), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Dclose(d);
    if (r->how % 2)
        H5Pset_external(list, "g.h5.ckpt-1", 0, H5F_UNLIMITED);
    else
        H5Pset_virtual(list, space, r->how & 2 ? "." : "g.h5.ckpt-1", other, space);
    make(f, path, type, space, list, NULL);
    H5Pclose(list);
    H5Sclose(space);
    H5Tclose(type);
}

void fuzz_h5_edit(hid_t f, const fuzz_h5_names *names, const fuzz_h5_record *r) {
    fuzz_h5_kind kind = (fuzz_h5_kind)(r->what % FUZZ_H5_KINDS);
    const char *path = chosen(names->objects, r->which);
    const char *other = chosen(names->objects, (uint8_t)(r->value & 255));
    switch (kind) {
        case FUZZ_H5_DELETED:
            H5Ldelete(f, path, H5P_DEFAULT);
            break;
        case FUZZ_H5_VALUE:
            set_value(f, path, r);
            break;
        case FUZZ_H5_MADE_AGAIN:
            make_again(f, path, r);
            break;
        case FUZZ_H5_TEXTS:
            make_texts(f, path, r);
            break;
        case FUZZ_H5_LINK:
            make_link(f, path, other, r);
            break;
        case FUZZ_H5_DTYPE:
            change_dtype(f, path, r);
            break;
        case FUZZ_H5_ELSEWHERE:
            move_elsewhere(f, path, other, r);
            break;
        default:
            edit_attribute(f, chosen(names->attributes, r->which), r, kind);
            break;
    }
}
