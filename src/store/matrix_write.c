/* Writing a matrix, region by region: into a file of its own, or into the results. */
#include "store/matrix.h"
#include "store/part.h"

enum { CHUNK_SIDE = 512, CHUNK_ELEMENTS = CHUNK_SIDE * CHUNK_SIDE, CACHE_BYTES = 64 << 20 };

/* ---- a dataset ---- */

/* Squares of 1 MiB of float32; of a thin matrix, as long as that fills. */
static void chunk_of(const saf_matrix_shape *shape, hsize_t chunk[2]) {
    int64_t cols = saf_i64_max(1, saf_i64_min(shape->cols, CHUNK_SIDE));
    int64_t rows = saf_i64_max(1, saf_i64_min(shape->rows, CHUNK_ELEMENTS / cols));
    if (rows < CHUNK_SIDE) cols = saf_i64_max(1, saf_i64_min(shape->cols, CHUNK_ELEMENTS / rows));
    chunk[0] = (hsize_t)rows;
    chunk[1] = (hsize_t)cols;
}

static saf_status creation_list(const saf__h5 *f, const char *path, const saf_matrix_shape *shape,
                                hid_t *out) {
    saf_status st = SAF_OK;
    hid_t list = H5I_INVALID_HID;
    hsize_t chunk[2];
    chunk_of(shape, chunk);
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_CREATE), path, &list));
    SAF_TRY(saf__h5_check(f, H5Pset_chunk(list, 2, chunk), path));
    SAF_TRY(saf__h5_check(f, H5Pset_fletcher32(list), path));
    *out = list;
out:
    if (st != SAF_OK) saf__h5_close(&list);
    return st;
}

/* A band of tiles may be under way before its chunks are full. */
static saf_status access_list(const saf__h5 *f, const char *path, hid_t *out) {
    saf_status st = SAF_OK;
    hid_t list = H5I_INVALID_HID;
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_ACCESS), path, &list));
    SAF_TRY(saf__h5_check(f, H5Pset_chunk_cache(list, 12421, CACHE_BYTES, 1.0), path));
    *out = list;
out:
    if (st != SAF_OK) saf__h5_close(&list);
    return st;
}

saf_status saf__matrix_out_create(saf__h5 *f, const char *path, const saf_matrix_shape *shape,
                                  const char *description, saf__matrix_out *out) {
    saf_status st = SAF_OK;
    hid_t space = H5I_INVALID_HID, creation = H5I_INVALID_HID, link = H5I_INVALID_HID,
          access = H5I_INVALID_HID, dataset = H5I_INVALID_HID;
    int64_t bytes;
    if (shape->rows < 0 || shape->cols < 0 ||
        (shape->dtype != SAF_DTYPE_F32 && shape->dtype != SAF_DTYPE_F64) ||
        !saf_i64_mul(shape->rows, shape->cols, &bytes) ||
        !saf_i64_mul(bytes, saf_dtype_block_bytes(shape->dtype), &bytes))
        return saf_fail(SAF_DEFECT, "%s: a matrix of %lld x %lld %s is written", f->path,
                        (long long)shape->rows, (long long)shape->cols,
                        saf_dtype_name(shape->dtype));
    hid_t type = shape->dtype == SAF_DTYPE_F64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE;
    hsize_t dims[2] = {(hsize_t)shape->rows, (hsize_t)shape->cols};
    hsize_t most[2] = {H5S_UNLIMITED, H5S_UNLIMITED}; /* a chunk may be larger than nothing */
    f->needed_bytes = saf_i64_max(f->needed_bytes, bytes);
    SAF_TRY(saf__h5_room());
    SAF_TRY(saf__h5_take(f, H5Screate_simple(2, dims, most), path, &space));
    SAF_TRY(creation_list(f, path, shape, &creation));
    SAF_TRY(access_list(f, path, &access));
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_LINK_CREATE), path, &link));
    SAF_TRY(saf__h5_check(f, H5Pset_create_intermediate_group(link, 1), path));
    SAF_TRY(saf__h5_take(f, H5Dcreate2(f->id, path, type, space, link, creation, access), path,
                         &dataset));
    SAF_TRY(saf__h5_put_text(f, dataset, "units", "1"));
    SAF_TRY(saf__h5_put_text(f, dataset, "description", description));
    *out = (saf__matrix_out){dataset, *shape, 0};
    dataset = H5I_INVALID_HID;
out:
    saf__h5_close(&dataset);
    saf__h5_close(&access);
    saf__h5_close(&link);
    saf__h5_close(&creation);
    saf__h5_close(&space);
    return st;
}

/* Either way. */
static saf_status move_region(const saf__h5 *f, const saf__matrix_out *out, int64_t row0,
                              int64_t rows, int64_t col0, int64_t cols, const void *in, void *to,
                              int64_t ld) {
    saf_status st = SAF_OK;
    hid_t file_space = H5I_INVALID_HID, memory_space = H5I_INVALID_HID,
          type = saf__matrix_memory_type(out->shape.dtype);
    if (out->dataset < 0 || row0 < 0 || rows < 0 || col0 < 0 || cols < 0 || ld < cols ||
        row0 > out->shape.rows - rows || col0 > out->shape.cols - cols)
        return saf_fail(SAF_DEFECT,
                        "%s: region [%lld, +%lld) x [%lld, +%lld) of a matrix of %lld x %lld",
                        f->path, (long long)row0, (long long)rows, (long long)col0, (long long)cols,
                        (long long)out->shape.rows, (long long)out->shape.cols);
    if (rows == 0 || cols == 0) return SAF_OK;
    SAF_TRY(saf__h5_room());
    SAF_TRY(saf__matrix_select(f, out->dataset, row0, rows, col0, cols, ld, &file_space,
                               &memory_space));
    herr_t rc = in ? H5Dwrite(out->dataset, type, memory_space, file_space, H5P_DEFAULT, in)
                   : H5Dread(out->dataset, type, memory_space, file_space, H5P_DEFAULT, to);
    SAF_TRY(saf__h5_check(f, rc, "a region of a matrix"));
out:
    saf__h5_close(&memory_space);
    saf__h5_close(&file_space);
    return st;
}

saf_status saf__matrix_out_put(const saf__h5 *f, saf__matrix_out *out, int64_t row0, int64_t rows,
                               int64_t col0, int64_t cols, const void *in, int64_t ld) {
    saf_status st = move_region(f, out, row0, rows, col0, cols, in, NULL, ld);
    if (st == SAF_OK) out->put += rows * cols;
    return st;
}

saf_status saf__matrix_out_back(const saf__h5 *f, const saf__matrix_out *out, int64_t row0,
                                int64_t rows, int64_t col0, int64_t cols, void *to, int64_t ld) {
    return move_region(f, out, row0, rows, col0, cols, NULL, to, ld);
}

saf_status saf__matrix_out_end(const saf__h5 *f, saf__matrix_out *out) {
    if (out->dataset < 0) return SAF_OK;
    if (out->put != out->shape.rows * out->shape.cols)
        return saf_fail(SAF_DEFECT, "%s: %lld of %lld values of a matrix were written", f->path,
                        (long long)out->put, (long long)(out->shape.rows * out->shape.cols));
    return saf__h5_check(f, saf__h5_close(&out->dataset), "a matrix");
}

saf_status saf__matrix_out_verify(const char *path, const char *dataset,
                                  const saf_matrix_shape *shape) {
    saf_status st = SAF_OK;
    saf__h5 f = SAF__H5_EMPTY;
    hid_t id = H5I_INVALID_HID, space = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 0};
    int64_t bytes = shape->rows * shape->cols * saf_dtype_block_bytes(shape->dtype);
    saf__h5_enter();
    SAF_TRY(saf__h5_open_file(path, &f));
    SAF_TRY(saf__h5_take(&f, H5Dopen2(f.id, dataset, H5P_DEFAULT), dataset, &id));
    SAF_TRY(saf__h5_take(&f, H5Dget_space(id), dataset, &space));
    SAF_TRY(saf__h5_check(&f, H5Sget_simple_extent_dims(space, dims, NULL), dataset));
    if (dims[0] != (hsize_t)shape->rows || dims[1] != (hsize_t)shape->cols ||
        H5Dget_storage_size(id) < (hsize_t)bytes)
        st = saf_fail(SAF_IO, "%s: %s reads back other than it was written", path, dataset);
out:
    saf__h5_close(&space);
    saf__h5_close(&id);
    saf__h5_close(&f.id);
    saf__h5_leave();
    return st == SAF_OK || st == SAF_NO_MEMORY ? st : SAF_IO;
}

/* ---- a file of its own ---- */

struct saf_matrix_writer {
    saf__part part;
    saf__h5 h5;
    saf__matrix_out out;
    char *file, *dataset;
    bool broken; /* as in saf_results_writer */
};

static void abandon(saf_matrix_writer *w) {
    saf__h5_enter();
    if (w->broken) w->out.dataset = w->h5.id = H5I_INVALID_HID;
    saf__h5_close(&w->out.dataset);
    saf__h5_close(&w->h5.id);
    saf__h5_leave();
    saf__part_abandon(&w->part);
}

saf_status saf_matrix_create(const char *name, const saf_matrix_shape *shape,
                             const char *description, saf_matrix_writer **out) {
    saf_status st = SAF_OK;
    saf_matrix_writer *w = NULL;
    saf__h5_enter();
    SAF_TRY(saf_alloc(1, sizeof *w, &w));
    w->part = (saf__part)SAF__PART_EMPTY;
    w->h5 = (saf__h5)SAF__H5_EMPTY;
    w->out.dataset = H5I_INVALID_HID;
    SAF_TRY(saf_matrix_name_split(name, &w->file, &w->dataset));
    SAF_TRY(saf__part_open(w->file, 0666, &w->part));
    SAF_TRY(saf__h5_create_file(w->part.part, 0, &w->h5));
    w->broken = true;
    SAF_TRY(saf__matrix_out_create(&w->h5, w->dataset, shape, description, &w->out));
    w->broken = false;
    *out = w;
    w = NULL;
out:
    saf_matrix_writer_free(&w);
    saf__h5_leave();
    return st;
}

saf_status saf_matrix_put(saf_matrix_writer *w, int64_t row0, int64_t rows, int64_t col0,
                          int64_t cols, const void *in, int64_t ld) {
    if (w->broken) return saf_fail(SAF_IO, "cannot write %s: an earlier write failed", w->file);
    saf__h5_enter();
    w->broken = true;
    saf_status st = saf__matrix_out_put(&w->h5, &w->out, row0, rows, col0, cols, in, ld);
    w->broken = st != SAF_OK;
    saf__h5_leave();
    return st;
}

saf_status saf_matrix_back(saf_matrix_writer *w, int64_t row0, int64_t rows, int64_t col0,
                           int64_t cols, void *out, int64_t ld) {
    if (w->broken) return saf_fail(SAF_IO, "cannot write %s: an earlier write failed", w->file);
    saf__h5_enter();
    saf_status st = saf__matrix_out_back(&w->h5, &w->out, row0, rows, col0, cols, out, ld);
    saf__h5_leave();
    return st;
}

saf_status saf_matrix_commit(saf_matrix_writer *w) {
    saf_status st = SAF_OK;
    saf_matrix_shape shape = w->out.shape;
    if (w->broken) return saf_fail(SAF_IO, "cannot write %s: an earlier write failed", w->file);
    saf__h5_enter();
    w->broken = true;
    st = saf__matrix_out_end(&w->h5, &w->out);
    if (st == SAF_OK) st = saf__h5_check(&w->h5, saf__h5_close(&w->h5.id), "closing it");
    w->broken = st != SAF_OK;
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    SAF_TRY(saf__part_sync(&w->part));
    SAF_TRY(saf__matrix_out_verify(w->part.part, w->dataset, &shape));
    SAF_TRY(saf__part_commit(&w->part));
out:
    if (st != SAF_OK) abandon(w);
    return st;
}

int64_t saf_matrix_writer_bytes(const saf_matrix_shape *shape) {
    hsize_t chunk[2];
    chunk_of(shape, chunk);
    int64_t size = saf_dtype_block_bytes(shape->dtype), one = (int64_t)(chunk[0] * chunk[1]) * size;
    int64_t chunks =
        saf_ceil_div(shape->rows, (int64_t)chunk[0]) * saf_ceil_div(shape->cols, (int64_t)chunk[1]);
    return (chunks > CACHE_BYTES / one ? CACHE_BYTES : chunks * one) + 2 * one;
}

void saf_matrix_writer_free(saf_matrix_writer **w) {
    if (!*w) return;
    abandon(*w);
    saf_free(&(*w)->file);
    saf_free(&(*w)->dataset);
    saf_free(w);
}
