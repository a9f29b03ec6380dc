/* The file that says which files hold saved caches: tables in /state, and for h5py /kv/ROW, virtual
 * datasets over all of them. saf reads the sources themselves: of a virtual dataset what a missing
 * source had reads as zeros. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "store/kv_room.h"

static const char schema_name[] = "kv_joined_schema";
enum { MOST = 1 << 20, MOST_SEQUENCES = 1 << 16, MOST_SOURCES = 1 << 14, DIGEST = 32 };

/* Columns of the tables. */
typedef struct {
    const char *name;
    size_t offset;
} column;

static const column sequence_columns[] = {{"row", offsetof(saf_kv_sequence, row)},
                                          {"set", offsetof(saf_kv_sequence, set)},
                                          {"positions", offsetof(saf_kv_sequence, positions)}};
static const column source_columns[] = {{"source_rank", offsetof(saf_kv_source, rank)},
                                        {"source_set", offsetof(saf_kv_source, set)},
                                        {"source_layer0", offsetof(saf_kv_source, layer0)},
                                        {"source_layers", offsetof(saf_kv_source, layers)},
                                        {"source_head0", offsetof(saf_kv_source, head0)},
                                        {"source_heads", offsetof(saf_kv_source, heads)},
                                        {"source_bytes", offsetof(saf_kv_source, bytes)}};
enum { SEQUENCE_COLUMNS = 3, SOURCE_COLUMNS = 7 };

void saf_kv_saved_free(saf_kv_saved *saved) {
    saf_free(&saved->type);
    saf_free(&saved->sequences);
    saf_free(&saved->sources);
    *saved = (saf_kv_saved){0};
}

/* ---- what can be ---- */

static bool overlap(const saf_kv_source *a, const saf_kv_source *b) {
    return a->set == b->set && a->layer0 < b->layer0 + b->layers &&
           b->layer0 < a->layer0 + a->layers && a->head0 < b->head0 + b->heads &&
           b->head0 < a->head0 + a->heads;
}

static bool is_possible_source(const saf_kv_saved *saved, const saf_kv_source *s) {
    return s->rank >= 0 && s->set >= 0 && s->layer0 >= 0 && s->layers > 0 && s->head0 >= 0 &&
           s->heads > 0 && s->layer0 <= saved->layers - s->layers &&
           s->head0 <= saved->heads - s->heads;
}

static bool is_possible_sequence(const saf_kv_saved *saved, const saf_kv_sequence *q) {
    int64_t bytes;
    return q->row >= 0 && q->set >= 0 && q->positions > 0 && q->positions <= INT32_MAX &&
           saf_i64_mul(2 * saved->layers * saved->heads, saved->row_bytes, &bytes) &&
           saf_i64_mul(bytes, q->positions, &bytes);
}

/* The sources of a set do not overlap, and together are as large as all of it. */
static bool is_covered(const saf_kv_saved *saved, int64_t set) {
    int64_t have = 0;
    for (int64_t i = 0; i < saved->n_sources; i++)
        if (saved->sources[i].set == set)
            have += saved->sources[i].layers * saved->sources[i].heads;
    return have == saved->layers * saved->heads;
}

static bool is_possible(const saf_kv_saved *saved) {
    if (saved->layers < 1 || saved->layers > MOST || saved->heads < 1 || saved->heads > MOST ||
        saved->row_bytes < 1 || saved->row_bytes > MOST || saved->n_sequences > MOST_SEQUENCES ||
        saved->n_sources > MOST_SOURCES)
        return false;
    for (int64_t i = 0; i < saved->n_sources; i++) {
        if (!is_possible_source(saved, &saved->sources[i])) return false;
        for (int64_t k = 0; k < i; k++)
            if (overlap(&saved->sources[i], &saved->sources[k]) ||
                saved->sources[i].rank == saved->sources[k].rank)
                return false;
    }
    for (int64_t i = 0; i < saved->n_sequences; i++)
        if (!is_possible_sequence(saved, &saved->sequences[i]) ||
            !is_covered(saved, saved->sequences[i].set))
            return false;
    return true;
}

saf_status saf__kv_check(const saf_kv_saved *saved, const char *path, saf_status wrong) {
    if (is_possible(saved)) return SAF_OK;
    return saf_fail(wrong, "%s: its sources do not make up the caches that it tells of", path);
}

/* ---- writing ---- */

static saf_status put(const saf__h5 *f, const char *name, saf_dtype dtype, int64_t n,
                      const void *data) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID;
    SAF_TRY(saf__state_create(f, name, dtype, n, &dataset));
    SAF_TRY(saf__state_write(f, dataset, dtype, 0, n, data));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&dataset), name));
out:
    saf__h5_close(&dataset);
    return st;
}

static saf_status put_columns(const saf__h5 *f, const column *columns, int n_columns,
                              const void *rows, size_t row, int64_t n) {
    saf_status st = SAF_OK;
    int64_t *values = NULL;
    SAF_TRY(saf_alloc((size_t)n, sizeof *values, &values));
    for (int c = 0; c < n_columns; c++) {
        for (int64_t i = 0; i < n; i++)
            memcpy(&values[i], (const char *)rows + (size_t)i * row + columns[c].offset,
                   sizeof *values);
        SAF_TRY(put(f, columns[c].name, SAF_DTYPE_I64, n, values));
    }
out:
    saf_free(&values);
    return st;
}

static saf_status put_tables(const saf__h5 *f, const saf_kv_saved *saved,
                             const uint8_t checkpoint[DIGEST]) {
    saf_status st = SAF_OK;
    uint8_t *digests = NULL;
    SAF_TRY(saf__h5_put_i64(f, f->id, schema_name, SAF_KV_SCHEMA));
    SAF_TRY(saf__h5_put_text(f, f->id, "type", saved->type));
    SAF_TRY(saf__h5_put_i64(f, f->id, "layers", saved->layers));
    SAF_TRY(saf__h5_put_i64(f, f->id, "kv_heads", saved->heads));
    SAF_TRY(saf__h5_put_i64(f, f->id, "row_bytes", saved->row_bytes));
    SAF_TRY(saf__h5_make_group(f, "/state"));
    SAF_TRY(saf__h5_make_group(f, "/kv"));
    SAF_TRY(put_columns(f, sequence_columns, SEQUENCE_COLUMNS, saved->sequences,
                        sizeof *saved->sequences, saved->n_sequences));
    SAF_TRY(put_columns(f, source_columns, SOURCE_COLUMNS, saved->sources, sizeof *saved->sources,
                        saved->n_sources));
    SAF_TRY(saf_alloc((size_t)saved->n_sources, DIGEST, &digests));
    for (int64_t i = 0; i < saved->n_sources; i++)
        memcpy(digests + i * DIGEST, saved->sources[i].sha256, DIGEST);
    SAF_TRY(put(f, "source_sha256", SAF_DTYPE_U8, saved->n_sources * DIGEST, digests));
    SAF_TRY(put(f, "checkpoint_sha256", SAF_DTYPE_U8, DIGEST, checkpoint));
out:
    saf_free(&digests);
    return st;
}

/* Names without folder: HDF5 looks for them beside this file. */
static saf_status map_source(const saf__h5 *f, const saf_kv_saved *saved, int64_t sequence,
                             const saf_kv_source *source, const char *checkpoint, hid_t space,
                             hid_t creation) {
    saf_status st = SAF_OK;
    hid_t whole = H5I_INVALID_HID;
    saf_buf path = {0};
    char name[SAF__KV_NAME];
    hsize_t dims[SAF__KV_NDIM],
        start[SAF__KV_NDIM] = {(hsize_t)source->layer0, 0, (hsize_t)source->head0, 0, 0};
    SAF_TRY(saf__kv_path(checkpoint, source->rank, &path));
    saf__kv_name(saved->sequences[sequence].row, name);
    saf__kv_dims(saved, source, sequence, dims);
    const char *slash = strrchr(path.data, '/');
    SAF_TRY(saf__h5_take(f, H5Screate_simple(SAF__KV_NDIM, dims, NULL), name, &whole));
    SAF_TRY(saf__h5_check(f, H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, dims, NULL),
                          name));
    SAF_TRY(saf__h5_check(
        f, H5Pset_virtual(creation, space, slash ? slash + 1 : path.data, name, whole), name));
out:
    saf__h5_close(&whole);
    saf_buf_free(&path);
    return st;
}

static saf_status put_virtual(const saf__h5 *f, const saf_kv_saved *saved, int64_t sequence,
                              const char *checkpoint) {
    saf_status st = SAF_OK;
    hid_t space = H5I_INVALID_HID, creation = H5I_INVALID_HID, dataset = H5I_INVALID_HID;
    char name[SAF__KV_NAME];
    const saf_kv_source all = {.layers = saved->layers, .heads = saved->heads};
    hsize_t dims[SAF__KV_NDIM];
    saf__kv_name(saved->sequences[sequence].row, name);
    saf__kv_dims(saved, &all, sequence, dims);
    SAF_TRY(saf__h5_take(f, H5Screate_simple(SAF__KV_NDIM, dims, NULL), name, &space));
    SAF_TRY(saf__h5_take(f, H5Pcreate(H5P_DATASET_CREATE), name, &creation));
    for (int64_t i = 0; i < saved->n_sources; i++)
        if (saved->sources[i].set == saved->sequences[sequence].set)
            SAF_TRY(
                map_source(f, saved, sequence, &saved->sources[i], checkpoint, space, creation));
    SAF_TRY(saf__h5_check(f, H5Sselect_all(space), name));
    SAF_TRY(saf__h5_take(
        f, H5Dcreate2(f->id, name, H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT), name,
        &dataset));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&dataset), name));
out:
    saf__h5_close(&dataset);
    saf__h5_close(&creation);
    saf__h5_close(&space);
    return st;
}

/* They were written by other ranks, perhaps on other hosts: their seals must be seen from here. */
static saf_status check_sources(const saf_kv_saved *saved, const char *checkpoint) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    for (int64_t i = 0; i < saved->n_sources; i++) {
        const saf_kv_source *source = &saved->sources[i];
        int64_t bytes = 0;
        uint8_t sha256[DIGEST];
        saf_buf_clear(&path);
        SAF_TRY(saf__kv_path(checkpoint, source->rank, &path));
        SAF_TRY(saf__kv_check_file(path.data, false, &bytes, sha256));
        if (bytes != source->bytes || memcmp(sha256, source->sha256, DIGEST) != 0) {
            st = saf_fail(SAF_BAD_INPUT, "%s is not the file that its rank wrote", path.data);
            goto out;
        }
    }
out:
    saf_buf_free(&path);
    return st;
}

static saf_status write_h5(saf__h5 *f, const saf__part *part, const saf_kv_saved *saved,
                           const char *checkpoint, const uint8_t digest[DIGEST]) {
    saf_status st = SAF_OK;
    saf__h5_enter();
    SAF_TRY(saf__h5_create_file(part->part, SAF__SEAL_BYTES, f));
    f->needed_bytes = 8192;
    SAF_TRY(put_tables(f, saved, digest));
    for (int64_t i = 0; i < saved->n_sequences; i++) SAF_TRY(put_virtual(f, saved, i, checkpoint));
    SAF_TRY(saf__h5_check(f, saf__h5_close(&f->id), "closing it"));
out:
    saf__h5_leave(); /* what could not be written stays open, see checkpoint_write.c */
    return st;
}

saf_status saf_kv_join(const char *checkpoint, const saf_kv_saved *saved) {
    saf_status st = SAF_OK;
    saf__part part = SAF__PART_EMPTY;
    saf__h5 f = SAF__H5_EMPTY;
    saf_buf path = {0};
    int64_t bytes;
    uint8_t digest[DIGEST];
    SAF_TRY(saf__kv_path(checkpoint, -1, &path));
    SAF_TRY(saf__kv_check(saved, path.data, SAF_DEFECT));
    SAF_TRY(saf__kv_check_file(checkpoint, false, &bytes, digest));
    SAF_TRY(check_sources(saved, checkpoint));
    SAF_TRY(saf__part_open(path.data, 0600, &part));
    SAF_TRY(write_h5(&f, &part, saved, checkpoint, digest));
    SAF_TRY(saf__seal_write(part.fd, part.part));
    SAF_TRY(saf__part_sync(&part));
    SAF_TRY(saf__part_commit(&part));
out:
    saf__part_abandon(&part);
    saf_buf_free(&path);
    return st;
}

/* ---- reading ---- */

/* *rows has *n of `row` bytes. */
static saf_status get_columns(const saf__h5 *f, const column *columns, int n_columns, size_t row,
                              int64_t *n, void *rows) {
    saf_status st = SAF_OK;
    char *all = NULL;
    int64_t *values = NULL, count = 0;
    for (int c = 0; c < n_columns; c++) {
        SAF_TRY(saf__state_get(f, columns[c].name, SAF_DTYPE_I64, MOST_SEQUENCES, &count, &values));
        if (c == 0) {
            *n = count;
            SAF_TRY(saf_alloc((size_t)count, row, &all));
        }
        if (count != *n) {
            st = saf_fail(SAF_BAD_INPUT, "%s: its columns differ in length", f->path);
            goto out;
        }
        for (int64_t i = 0; i < count; i++)
            memcpy(all + (size_t)i * row + columns[c].offset, &values[i], sizeof *values);
        saf_free(&values);
    }
    memcpy(rows, &all, sizeof all);
    all = NULL;
out:
    saf_free(&values);
    saf_free(&all);
    return st;
}

static saf_status get_tables(const saf__h5 *f, saf_kv_saved *out, uint8_t checkpoint[DIGEST]) {
    saf_status st = SAF_OK;
    uint8_t *bytes = NULL;
    int64_t n = 0, schema = 0;
    SAF_TRY(saf__h5_get_i64(f, f->id, schema_name, &schema));
    if (schema != SAF_KV_SCHEMA) {
        st = saf_fail(SAF_BAD_INPUT, "%s has schema %lld, this saf knows %d", f->path,
                      (long long)schema, SAF_KV_SCHEMA);
        goto out;
    }
    SAF_TRY(saf__h5_get_text(f, f->id, "type", &out->type));
    SAF_TRY(saf__h5_get_i64(f, f->id, "layers", &out->layers));
    SAF_TRY(saf__h5_get_i64(f, f->id, "kv_heads", &out->heads));
    SAF_TRY(saf__h5_get_i64(f, f->id, "row_bytes", &out->row_bytes));
    SAF_TRY(get_columns(f, sequence_columns, SEQUENCE_COLUMNS, sizeof *out->sequences,
                        &out->n_sequences, &out->sequences));
    SAF_TRY(get_columns(f, source_columns, SOURCE_COLUMNS, sizeof *out->sources, &out->n_sources,
                        &out->sources));
    SAF_TRY(saf__state_get(f, "source_sha256", SAF_DTYPE_U8, out->n_sources * DIGEST, &n, &bytes));
    if (n != out->n_sources * DIGEST || !out->type) {
        st = saf_fail(SAF_BAD_INPUT, "%s does not say all of its sources", f->path);
        goto out;
    }
    for (int64_t i = 0; i < out->n_sources; i++)
        memcpy(out->sources[i].sha256, bytes + i * DIGEST, DIGEST);
    saf_free(&bytes);
    SAF_TRY(saf__state_get(f, "checkpoint_sha256", SAF_DTYPE_U8, DIGEST, &n, &bytes));
    if (n == DIGEST) memcpy(checkpoint, bytes, DIGEST);
out:
    saf_free(&bytes);
    return st;
}

saf_status saf_kv_saved_read(const char *checkpoint, saf_kv_saved *out, bool *there) {
    saf_status st = SAF_OK;
    saf__h5 f = SAF__H5_EMPTY;
    saf_buf path = {0};
    saf_kv_saved saved = {0};
    int64_t bytes;
    uint8_t digest[DIGEST], of[DIGEST] = {0};
    *there = false;
    SAF_TRY(saf__kv_path(checkpoint, -1, &path));
    if (access(path.data, F_OK) != 0 && errno == ENOENT) goto out;
    SAF_TRY(saf__kv_check_file(path.data, true, &bytes, digest));
    SAF_TRY(saf__kv_check_file(checkpoint, false, &bytes, digest));
    saf__h5_enter();
    st = saf__h5_open_file(path.data, &f);
    if (st == SAF_OK) st = get_tables(&f, &saved, of);
    saf__h5_close(&f.id);
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    if (memcmp(of, digest, DIGEST) != 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s is not of %s", path.data, checkpoint);
        goto out;
    }
    SAF_TRY(saf__kv_check(&saved, path.data, SAF_BAD_INPUT));
    *out = saved;
    saved = (saf_kv_saved){0};
    *there = true;
out:
    saf_kv_saved_free(&saved);
    saf_buf_free(&path);
    return st;
}
