/* One rank's part of saved caches. The datasets are contiguous; the seal is what tells damage. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/kv_room.h"

enum { PIECE_BYTES = 4 << 20 };
static const char schema_name[] = "kv_schema";

/* ---- what the files have in common ---- */

saf_status saf__kv_path(const char *checkpoint, int64_t rank, saf_buf *out) {
    saf_status st = saf_buf_printf(out, "%s.kv", checkpoint);
    if (st == SAF_OK && rank >= 0) st = saf_buf_printf(out, "-%lld", (long long)rank);
    return st;
}

void saf__kv_dims(const saf_kv_saved *saved, const saf_kv_source *source, int64_t sequence,
                  hsize_t dims[SAF__KV_NDIM]) {
    dims[0] = (hsize_t)source->layers;
    dims[1] = 2;
    dims[2] = (hsize_t)source->heads;
    dims[3] = (hsize_t)saved->sequences[sequence].positions;
    dims[4] = (hsize_t)saved->row_bytes;
}

saf_status saf__kv_check_file(const char *path, bool whole, int64_t *bytes, uint8_t sha256[32]) {
    saf_status st = SAF_OK;
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return saf_fail(SAF_NO_INPUT, "%s: %s", path, strerror(errno));
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode))
        st = saf_fail(SAF_BAD_INPUT, "%s is no regular file", path);
    if (st == SAF_OK && whole) st = saf__seal_check(fd, path);
    if (st == SAF_OK) st = saf__seal_read(fd, path, bytes, sha256);
    close(fd);
    return st;
}

static saf_status check_place(const saf_kv_saved *saved, const saf_kv_source *source,
                              const saf_kv_place *p, const char *path) {
    bool there = p->sequence >= 0 && p->sequence < saved->n_sequences;
    const saf_kv_sequence *q = there ? &saved->sequences[p->sequence] : NULL;
    if (!there || q->set != source->set || p->layer < source->layer0 ||
        p->layer >= source->layer0 + source->layers || p->head < source->head0 ||
        p->head >= source->head0 + source->heads || p->pos0 < 0 || p->n < 0 ||
        p->pos0 > q->positions - p->n)
        return saf_fail(SAF_DEFECT,
                        "%s: sequence %lld, layer %lld, key head %lld, %lld positions from %lld on "
                        "are not of this file",
                        path, (long long)p->sequence, (long long)p->layer, (long long)p->head,
                        (long long)p->n, (long long)p->pos0);
    return SAF_OK;
}

/* A piece of the rows of a place, into the file or out of it. */
static saf_status move_piece(const saf__h5 *f, hid_t dataset, const hsize_t start[SAF__KV_NDIM],
                             hsize_t n, hsize_t row_bytes, const char *from, char *to) {
    saf_status st = SAF_OK;
    hid_t file = H5I_INVALID_HID, memory = H5I_INVALID_HID;
    hsize_t count[SAF__KV_NDIM] = {1, 1, 1, n, row_bytes}, values = n * row_bytes;
    saf__h5_enter();
    SAF_TRY(saf__h5_take(f, H5Dget_space(dataset), "rows", &file));
    SAF_TRY(saf__h5_check(f, H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, count, NULL),
                          "rows"));
    SAF_TRY(saf__h5_take(f, H5Screate_simple(1, &values, NULL), "rows", &memory));
    herr_t rc = from ? H5Dwrite(dataset, H5T_STD_U8LE, memory, file, H5P_DEFAULT, from)
                     : H5Dread(dataset, H5T_STD_U8LE, memory, file, H5P_DEFAULT, to);
    SAF_TRY(saf__h5_check(f, rc, "rows"));
out:
    saf__h5_close(&memory);
    saf__h5_close(&file);
    saf__h5_leave();
    return st;
}

static saf_status move_rows(const saf__h5 *f, hid_t dataset, const saf_kv_saved *saved,
                            const saf_kv_source *source, const saf_kv_place *p, const char *from,
                            char *to) {
    saf_status st = SAF_OK;
    int64_t step = saf_i64_max(1, PIECE_BYTES / saved->row_bytes);
    for (int64_t at = 0; at < p->n; at += step) {
        int64_t n = saf_i64_min(step, p->n - at);
        size_t skip = (size_t)(at * saved->row_bytes);
        hsize_t start[SAF__KV_NDIM] = {(hsize_t)(p->layer - source->layer0), p->keys ? 0 : 1,
                                       (hsize_t)(p->head - source->head0), (hsize_t)(p->pos0 + at),
                                       0};
        saf_alive();
        SAF_TRY(move_piece(f, dataset, start, (hsize_t)n, (hsize_t)saved->row_bytes,
                           from ? from + skip : NULL, to ? to + skip : NULL));
    }
out:
    return st;
}

/* ---- writing ---- */

struct saf_kv_writer {
    saf__part part;
    saf__h5 h5;
    const saf_kv_saved *saved;
    const saf_kv_source *source;
    hid_t *datasets; /* [n_sequences], of those of the set */
    bool broken;     /* HDF5 failed to write: it is not to be closed, see checkpoint_write.c */
};

static saf_status create_dataset(saf_kv_writer *w, int64_t sequence) {
    saf_status st = SAF_OK;
    const saf__h5 *f = &w->h5;
    hid_t space = H5I_INVALID_HID, creation = H5I_INVALID_HID;
    char path[SAF__KV_NAME];
    hsize_t dims[SAF__KV_NDIM], bytes = 1;
    saf__kv_name(w->saved->sequences[sequence].row, path);
    saf__kv_dims(w->saved, w->source, sequence, dims);
    for (int i = 0; i < SAF__KV_NDIM; i++) bytes *= dims[i]; /* saf__kv_check has multiplied more */
    w->h5.needed_bytes += 512 + (int64_t)bytes;
    SAF_TRY(saf__h5_take(f, H5Screate_simple(SAF__KV_NDIM, dims, NULL), path, &space));
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_CREATE), path, &creation));
    SAF_TRY(saf__h5_check(f, H5Pset_layout(creation, H5D_CONTIGUOUS), path));
    SAF_TRY(saf__h5_check(f, H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), path));
    SAF_TRY(saf__h5_take(
        f, H5Dcreate2(f->id, path, H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT), path,
        &w->datasets[sequence]));
out:
    saf__h5_close(&creation);
    saf__h5_close(&space);
    return st;
}

static saf_status create_all(saf_kv_writer *w) {
    saf_status st = SAF_OK;
    const saf_kv_saved *saved = w->saved;
    const saf_kv_source *source = w->source;
    SAF_TRY(saf__h5_create_file(w->part.part, SAF__SEAL_BYTES, &w->h5));
    w->h5.needed_bytes = 8192;
    SAF_TRY(saf__h5_put_i64(&w->h5, w->h5.id, schema_name, SAF_KV_SCHEMA));
    SAF_TRY(saf__h5_put_text(&w->h5, w->h5.id, "type", saved->type));
    SAF_TRY(saf__h5_put_i64(&w->h5, w->h5.id, "layer0", source->layer0));
    SAF_TRY(saf__h5_put_i64(&w->h5, w->h5.id, "head0", source->head0));
    SAF_TRY(saf__h5_make_group(&w->h5, "/kv"));
    for (int64_t i = 0; i < saved->n_sequences; i++)
        if (saved->sequences[i].set == source->set) SAF_TRY(create_dataset(w, i));
out:
    return st;
}

saf_status saf_kv_create(const char *checkpoint, const saf_kv_saved *saved,
                         const saf_kv_source *source, saf_kv_writer **out) {
    saf_status st = SAF_OK;
    saf_kv_writer *w = NULL;
    saf_buf path = {0};
    SAF_TRY(saf_alloc(1, sizeof *w, &w));
    *w = (saf_kv_writer){
        .part = SAF__PART_EMPTY, .h5 = SAF__H5_EMPTY, .saved = saved, .source = source};
    SAF_TRY(saf_alloc((size_t)saved->n_sequences, sizeof *w->datasets, &w->datasets));
    for (int64_t i = 0; i < saved->n_sequences; i++) w->datasets[i] = H5I_INVALID_HID;
    SAF_TRY(saf__kv_path(checkpoint, source->rank, &path));
    SAF_TRY(saf__part_open(path.data, 0600, &w->part));
    w->broken = true;
    saf__h5_enter();
    st = create_all(w);
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    w->broken = false;
    *out = w;
    w = NULL;
out:
    saf_kv_writer_free(&w);
    saf_buf_free(&path);
    return st;
}

saf_status saf_kv_put(saf_kv_writer *w, const saf_kv_place *place, const void *rows) {
    saf_status st = SAF_OK;
    SAF_TRY(check_place(w->saved, w->source, place, w->part.part));
    if (w->broken) return saf_fail(SAF_IO, "%s: an earlier write failed", w->part.part);
    w->broken = true;
    SAF_TRY(
        move_rows(&w->h5, w->datasets[place->sequence], w->saved, w->source, place, rows, NULL));
    w->broken = false;
out:
    return st;
}

static saf_status close_h5(saf_kv_writer *w) {
    saf_status st = SAF_OK;
    w->broken = true;
    saf__h5_enter();
    for (int64_t i = 0; i < w->saved->n_sequences; i++)
        SAF_TRY(saf__h5_check(&w->h5, saf__h5_close(&w->datasets[i]), "closing a dataset"));
    SAF_TRY(saf__h5_check(&w->h5, saf__h5_close(&w->h5.id), "closing it"));
    w->broken = false;
out:
    saf__h5_leave();
    return st;
}

saf_status saf_kv_commit(saf_kv_writer *w, int64_t *bytes, uint8_t sha256[32]) {
    saf_status st = SAF_OK;
    if (w->broken || w->h5.id < 0)
        return saf_fail(SAF_IO, "caches are not kept: an earlier write failed");
    SAF_TRY(close_h5(w));
    SAF_TRY(saf__seal_write(w->part.fd, w->part.part));
    SAF_TRY(saf__part_sync(&w->part));
    SAF_TRY(saf__seal_read(w->part.fd, w->part.part, bytes, sha256));
    SAF_TRY(saf__part_commit(&w->part));
out:
    return st;
}

void saf_kv_writer_free(saf_kv_writer **writer) {
    saf_kv_writer *w = *writer;
    if (!w) return;
    saf__h5_enter();
    for (int64_t i = 0; w->datasets && !w->broken && i < w->saved->n_sequences; i++)
        saf__h5_close(&w->datasets[i]);
    if (!w->broken) saf__h5_close(&w->h5.id);
    saf__h5_leave();
    saf__part_abandon(&w->part);
    saf_free(&w->datasets);
    saf_free(writer);
}

void saf_kv_remove(const char *checkpoint, int64_t rank) {
    saf_buf path = {0};
    if (saf__kv_path(checkpoint, rank, &path) == SAF_OK && unlink(path.data) != 0 &&
        errno != ENOENT)
        saf_log(SAF_LOG_WARNING, "cannot remove %s: %s", path.data, strerror(errno));
    saf_buf_free(&path);
}

/* ---- reading ---- */

struct saf_kv_file {
    saf__h5 h5;
    saf_buf path;
    int lock; /* while it is held, whoever removes old checkpoints leaves the file */
    const saf_kv_saved *saved;
    const saf_kv_source *source;
    hid_t *datasets; /* [n_sequences], of those of the set */
};

static saf_status check_dataset(const saf__h5 *f, const char *path, hid_t dataset,
                                const hsize_t expected[SAF__KV_NDIM]) {
    saf_status st = SAF_OK;
    hid_t space = H5I_INVALID_HID, type = H5I_INVALID_HID;
    hsize_t dims[SAF__KV_NDIM] = {0}, bytes = 1;
    SAF_TRY(saf__h5_check_contiguous(f, path, dataset));
    SAF_TRY(saf__h5_take(f, H5Dget_space(dataset), path, &space));
    SAF_TRY(saf__h5_take(f, H5Dget_type(dataset), path, &type));
    for (int i = 0; i < SAF__KV_NDIM; i++) bytes *= expected[i];
    if (H5Sget_simple_extent_ndims(space) != SAF__KV_NDIM ||
        H5Sget_simple_extent_dims(space, dims, NULL) != SAF__KV_NDIM ||
        memcmp(dims, expected, sizeof dims) != 0 || H5Tequal(type, H5T_STD_U8LE) <= 0 ||
        H5Dget_storage_size(dataset) != bytes)
        st = saf_fail(SAF_BAD_INPUT, "%s: %s is not as it was written", f->path, path);
out:
    saf__h5_close(&type);
    saf__h5_close(&space);
    return st;
}

static saf_status open_dataset(saf_kv_file *f, int64_t sequence) {
    saf_status st = SAF_OK;
    char path[SAF__KV_NAME];
    hsize_t dims[SAF__KV_NDIM];
    saf__kv_name(f->saved->sequences[sequence].row, path);
    saf__kv_dims(f->saved, f->source, sequence, dims);
    SAF_TRY(saf__h5_check_inside(&f->h5, "/kv", path));
    SAF_TRY(
        saf__h5_take(&f->h5, H5Dopen2(f->h5.id, path, H5P_DEFAULT), path, &f->datasets[sequence]));
    SAF_TRY(check_dataset(&f->h5, path, f->datasets[sequence], dims));
out:
    return st;
}

static saf_status open_all(saf_kv_file *f) {
    saf_status st = SAF_OK;
    int64_t schema = 0;
    SAF_TRY(saf__h5_open_file(f->path.data, &f->h5));
    SAF_TRY(saf__h5_get_i64(&f->h5, f->h5.id, schema_name, &schema));
    if (schema != SAF_KV_SCHEMA) {
        st = saf_fail(SAF_BAD_INPUT, "%s has schema %lld, this saf knows %d", f->path.data,
                      (long long)schema, SAF_KV_SCHEMA);
        goto out;
    }
    for (int64_t i = 0; i < f->saved->n_sequences; i++)
        if (f->saved->sequences[i].set == f->source->set) SAF_TRY(open_dataset(f, i));
out:
    return st;
}

/* Not to have the lock, where a file system has none, is no error: only in another host's view does
 * a file go that is open. */
static void hold(saf_kv_file *f) {
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    f->lock = open(f->path.data, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (f->lock >= 0) (void)fcntl(f->lock, F_OFD_SETLK, &lock);
}

saf_status saf_kv_open(const char *checkpoint, const saf_kv_saved *saved,
                       const saf_kv_source *source, saf_kv_file **out) {
    saf_status st = SAF_OK;
    saf_kv_file *f = NULL;
    int64_t bytes = 0;
    uint8_t sha256[32];
    SAF_TRY(saf_alloc(1, sizeof *f, &f));
    *f = (saf_kv_file){.h5 = SAF__H5_EMPTY, .lock = -1, .saved = saved, .source = source};
    SAF_TRY(saf_alloc((size_t)saved->n_sequences, sizeof *f->datasets, &f->datasets));
    for (int64_t i = 0; i < saved->n_sequences; i++) f->datasets[i] = H5I_INVALID_HID;
    SAF_TRY(saf__kv_path(checkpoint, source->rank, &f->path));
    SAF_TRY(saf__kv_check_file(f->path.data, true, &bytes, sha256));
    if (bytes != source->bytes || memcmp(sha256, source->sha256, sizeof sha256) != 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s is another file than the one that was written",
                      f->path.data);
        goto out;
    }
    hold(f);
    saf__h5_enter();
    st = open_all(f);
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    *out = f;
    f = NULL;
out:
    saf_kv_close(&f);
    return st;
}

saf_status saf_kv_get(saf_kv_file *f, const saf_kv_place *place, void *rows) {
    saf_status st = check_place(f->saved, f->source, place, f->path.data);
    if (st == SAF_OK)
        st =
            move_rows(&f->h5, f->datasets[place->sequence], f->saved, f->source, place, NULL, rows);
    return st;
}

void saf_kv_close(saf_kv_file **file) {
    saf_kv_file *f = *file;
    if (!f) return;
    saf__h5_enter();
    for (int64_t i = 0; f->datasets && i < f->saved->n_sequences; i++)
        saf__h5_close(&f->datasets[i]);
    saf__h5_close(&f->h5.id);
    saf__h5_leave();
    if (f->lock >= 0) close(f->lock);
    saf_free(&f->datasets);
    saf_buf_free(&f->path);
    saf_free(file);
}
