/* Opening a matrix: the name, and everything that is checked before a value is read. */
#include <stdio.h>

#include "store/matrix.h"
#include "store/matrix_read.h"

enum { CACHE_BYTES = 64 << 20 };

/* ---- names ---- */

/* The colon of FILE.h5:/DATASET; the last one that a dataset can follow. */
static const char *colon_of(const char *name) {
    const char *colon = NULL;
    for (const char *p = name; (p = strstr(p, ":/")) != NULL; p++) colon = p;
    return colon && colon > name && colon[2] ? colon : NULL;
}

bool saf_matrix_is_name(const char *name) {
    return colon_of(name) != NULL;
}

saf_status saf_matrix_name_split(const char *name, char **file, char **dataset) {
    saf_status st = SAF_OK;
    const char *colon = colon_of(name);
    if (!colon)
        return saf_fail(SAF_USAGE, "%s does not name a matrix, expected FILE.h5:/DATASET", name);
    SAF_TRY(saf_strdup(name, file));
    (*file)[colon - name] = 0;
    st = saf_strdup(colon + 1, dataset);
    if (st != SAF_OK) saf_free(file);
out:
    return st;
}

hid_t saf__matrix_memory_type(saf_dtype dtype) {
    return dtype == SAF_DTYPE_F64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT;
}

/* ---- checks ---- */

/* Every name on the way is a plain one of this file: no soft, external or other link. */
static saf_status check_links(const saf_matrix *m) {
    saf_status st = SAF_OK;
    saf_buf prefix = {0};
    for (const char *end = m->dataset; *end;) {
        H5L_info_t link;
        end = strchr(end + 1, '/');
        if (!end) end = m->dataset + strlen(m->dataset);
        if (end[-1] == '/') {
            st =
                saf_fail(SAF_BAD_INPUT, "%s: %s has an empty name on its way", m->file, m->dataset);
            goto out;
        }
        saf_buf_clear(&prefix);
        SAF_TRY(saf_buf_append(&prefix, m->dataset, (size_t)(end - m->dataset)));
        htri_t there = H5Lexists(m->h5.id, prefix.data, H5P_DEFAULT);
        if (there <= 0) {
            st = saf_fail(SAF_BAD_INPUT, "%s has no dataset %s", m->file, m->dataset);
            goto out;
        }
        SAF_TRY(saf__h5_check(&m->h5, H5Lget_info(m->h5.id, prefix.data, &link, H5P_DEFAULT),
                              prefix.data));
        if (link.type != H5L_TYPE_HARD) {
            st = saf_fail(SAF_BAD_INPUT,
                          "%s: %s is a link, which is not followed; name the dataset itself",
                          m->file, prefix.data);
            goto out;
        }
    }
out:
    saf_buf_free(&prefix);
    return st;
}

static saf_status check_type(saf_matrix *m) {
    saf_status st = SAF_OK;
    hid_t type = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(&m->h5, H5Dget_type(m->id), m->dataset, &type));
    if (H5Tequal(type, H5T_IEEE_F32LE) > 0 || H5Tequal(type, H5T_IEEE_F32BE) > 0)
        m->shape.dtype = SAF_DTYPE_F32;
    else if (H5Tequal(type, H5T_IEEE_F64LE) > 0 || H5Tequal(type, H5T_IEEE_F64BE) > 0)
        m->shape.dtype = SAF_DTYPE_F64;
    else
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: %s has values of another type (%llu bytes each), expected float32 or "
                      "float64",
                      m->file, m->dataset, (unsigned long long)H5Tget_size(type));
out:
    saf__h5_close(&type);
    return st;
}

static saf_status check_shape(saf_matrix *m) {
    saf_status st = SAF_OK;
    hid_t space = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 1};
    int64_t bytes;
    SAF_TRY(saf__h5_take(&m->h5, H5Dget_space(m->id), m->dataset, &space));
    int ndim = H5Sget_simple_extent_ndims(space);
    if (ndim < 1 || ndim > 2 || H5Sget_simple_extent_type(space) != H5S_SIMPLE) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: %s has %d dimensions, expected 2 (or 1, which is a column)", m->file,
                      m->dataset, ndim < 0 ? 0 : ndim);
        goto out;
    }
    SAF_TRY(
        saf__h5_check(&m->h5, H5Sget_simple_extent_dims(space, dims, NULL), "a matrix's shape"));
    if (dims[0] > INT64_MAX / 16 || dims[1] > INT64_MAX / 16 ||
        !saf_i64_mul((int64_t)dims[0], (int64_t)dims[1], &bytes) ||
        !saf_i64_mul(bytes, saf_dtype_block_bytes(m->shape.dtype), &bytes)) {
        st =
            saf_fail(SAF_BAD_INPUT, "%s: %s claims %llu x %llu values, which is too large", m->file,
                     m->dataset, (unsigned long long)dims[0], (unsigned long long)dims[1]);
        goto out;
    }
    m->shape.rows = (int64_t)dims[0];
    m->shape.cols = (int64_t)dims[1];
    m->ndim = ndim;
out:
    saf__h5_close(&space);
    return st;
}

/* HDF5's own filters run inside of it; any other it would load from a folder as a plugin. */
static saf_status check_filters(const saf_matrix *m, hid_t creation, bool *plain) {
    int n = H5Pget_nfilters(creation);
    *plain = true;
    if (n < 0) return saf__h5_check(&m->h5, n, m->dataset);
    for (int i = 0; i < n; i++) {
        unsigned flags, config;
        size_t none = 0;
        char name[64] = "";
        H5Z_filter_t id =
            H5Pget_filter2(creation, (unsigned)i, &flags, &none, NULL, sizeof name, name, &config);
        if (id < 0) return saf__h5_check(&m->h5, id, m->dataset);
        *plain = *plain && (id == H5Z_FILTER_FLETCHER32 || id == H5Z_FILTER_SHUFFLE);
        bool own = id == H5Z_FILTER_DEFLATE || id == H5Z_FILTER_SHUFFLE ||
                   id == H5Z_FILTER_FLETCHER32 || id == H5Z_FILTER_SZIP || id == H5Z_FILTER_NBIT ||
                   id == H5Z_FILTER_SCALEOFFSET;
        if (!own)
            return saf_fail(SAF_BAD_INPUT,
                            "%s: %s is stored through filter %d (%s), which is not HDF5's own: "
                            "store it without, or with gzip",
                            m->file, m->dataset, (int)id, name);
    }
    return SAF_OK;
}

/* Stored in this file, and where: *m's chunks. */
static saf_status check_storage(saf_matrix *m) {
    saf_status st = SAF_OK;
    hid_t creation = H5I_INVALID_HID;
    hsize_t chunk[2] = {1, 1};
    bool plain = true;
    int64_t bytes = m->shape.rows * m->shape.cols * saf_dtype_block_bytes(m->shape.dtype);
    SAF_TRY(saf__h5_take(&m->h5, H5Dget_create_plist(m->id), m->dataset, &creation));
    H5D_layout_t layout = H5Pget_layout(creation);
    bool here = layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED || layout == H5D_COMPACT;
    if (!here || H5Pget_external_count(creation) != 0) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: the values of %s lie in other files (%s), of which nothing is known: "
                      "copy them into one dataset",
                      m->file, m->dataset, here ? "external storage" : "a virtual dataset");
        goto out;
    }
    SAF_TRY(check_filters(m, creation, &plain));
    m->chunk_rows = 1;
    m->chunk_cols = saf_i64_max(1, m->shape.cols);
    if (layout == H5D_CHUNKED) {
        SAF_TRY(saf__h5_check(&m->h5, H5Pget_chunk(creation, m->ndim, chunk), m->dataset));
        m->chunk_bytes = (int64_t)(chunk[0] * chunk[1]) * saf_dtype_block_bytes(m->shape.dtype);
        m->chunk_rows = saf_i64_max(1, saf_i64_min((int64_t)chunk[0], m->shape.rows));
        m->chunk_cols = saf_i64_max(1, saf_i64_min((int64_t)chunk[1], m->shape.cols));
    }
    /* HDF5 fills what nobody wrote: fine where that was meant, and a trap where a program died. */
    if (plain && (int64_t)H5Dget_storage_size(m->id) < bytes)
        saf_log(SAF_LOG_WARNING,
                "%s: parts of %s were never written, and count as the value that the dataset is "
                "filled with",
                m->file, m->dataset);
out:
    saf__h5_close(&creation);
    return st;
}

/* ---- opening ---- */

static saf_status open_dataset(saf_matrix *m) {
    saf_status st = SAF_OK;
    hid_t access = H5I_INVALID_HID;
    H5O_info_t info;
    SAF_TRY(saf__h5_room());
    SAF_TRY(saf__h5_open_file(m->file, &m->h5));
    SAF_TRY(check_links(m));
    SAF_TRY(saf__h5_check(
        &m->h5, H5Oget_info_by_name2(m->h5.id, m->dataset, &info, H5O_INFO_BASIC, H5P_DEFAULT),
        m->dataset));
    if (info.type != H5O_TYPE_DATASET) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %s is no dataset", m->file, m->dataset);
        goto out;
    }
    SAF_TRY(saf__h5_take(&m->h5, H5Pcreate(H5P_DATASET_ACCESS), m->dataset, &access));
    SAF_TRY(saf__h5_check(&m->h5, H5Pset_chunk_cache(access, 12421, CACHE_BYTES, 1.0), m->dataset));
    SAF_TRY(saf__h5_take(&m->h5, H5Dopen2(m->h5.id, m->dataset, access), m->dataset, &m->id));
    SAF_TRY(check_type(m));
    SAF_TRY(check_shape(m));
    st = check_storage(m);
out:
    saf__h5_close(&access);
    return st;
}

saf_status saf_matrix_open(const char *name, saf_matrix **out) {
    saf_status st = SAF_OK;
    saf_matrix *m = NULL;
    saf_buf label = {0};
    saf__h5_enter();
    SAF_TRY(saf_alloc(1, sizeof *m, &m));
    m->h5 = (saf__h5)SAF__H5_EMPTY;
    m->id = H5I_INVALID_HID;
    SAF_TRY(saf_matrix_name_split(name, &m->file, &m->dataset));
    SAF_TRY(open_dataset(m));
    SAF_TRY(saf_buf_printf(&label, "%s (%lld x %lld, %s)", name, (long long)m->shape.rows,
                           (long long)m->shape.cols,
                           m->shape.dtype == SAF_DTYPE_F64 ? "float64" : "float32"));
    SAF_TRY(saf_strdup(label.data, &m->label));
    *out = m;
    m = NULL;
out:
    saf_buf_free(&label);
    saf_matrix_close(&m);
    saf__h5_leave();
    return st;
}

void saf_matrix_close(saf_matrix **m) {
    if (!*m) return;
    saf__h5_enter();
    saf__h5_close(&(*m)->id);
    saf__h5_close(&(*m)->h5.id);
    saf__h5_leave();
    saf_free(&(*m)->file);
    saf_free(&(*m)->dataset);
    saf_free(&(*m)->label);
    saf_free(&(*m)->scratch);
    saf_free(m);
}

saf_matrix_shape saf_matrix_shape_of(const saf_matrix *m) {
    return m->shape;
}

int64_t saf_matrix_memory_bytes(const saf_matrix *m, bool transposed) {
    int64_t size = saf_dtype_block_bytes(m->shape.dtype), bytes = 0;
    /* A chunk comes, and goes through its filters, outside of the cache. */
    if (m->chunk_bytes > 0)
        bytes = saf_i64_min(CACHE_BYTES, m->shape.rows * m->shape.cols * size + m->chunk_bytes) +
                2 * m->chunk_bytes;
    return bytes + (transposed ? SAF__MATRIX_SCRATCH_BYTES : 0);
}

const char *saf_matrix_label(const saf_matrix *m) {
    return m->label;
}
