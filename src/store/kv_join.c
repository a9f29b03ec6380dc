/* The file that says which files hold saved caches: tables in /state, and for h5py /kv/ROW, virtual
 * datasets over all of them. saf reads the sources themselves: of a virtual dataset what a missing
 * source had reads as zeros. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

static int compare(int64_t a, int64_t b) {
    return (a > b) - (a < b);
}

static int by_number(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return compare(*x, *y);
}

/* Sorts the numbers; whether one is there twice. */
static bool has_twice(int64_t *numbers, int64_t n) {
    if (n > 0) qsort(numbers, (size_t)n, sizeof *numbers, by_number);
    for (int64_t i = 1; i < n; i++)
        if (numbers[i] == numbers[i - 1]) return true;
    return false;
}

/* A corner of a source, a rectangle of layers and heads. */
typedef struct {
    int64_t set, layer, head, sign;
} corner;

static int by_place(const void *a, const void *b) {
    const corner *x = a, *y = b;
    int order = compare(x->set, y->set);
    if (order == 0) order = compare(x->layer, y->layer);
    return order ? order : compare(x->head, y->head);
}

/* Rectangles make up a larger one, each place once, if and only if their corners do: with the signs
 * of the mixed difference (+ at the first and the last corner, - at the others) those inside add up
 * to nothing, and those of the larger one remain. So one sort tells what comparing each source with
 * each would, of however many sources. The sets go to sets[*n_sets], ascending. */
static bool are_whole(const saf_kv_saved *saved, corner *corners, int64_t n, int64_t *sets,
                      int64_t *n_sets) {
    const corner whole[] = {{0, 0, 0, 1},
                            {0, 0, saved->heads, -1},
                            {0, saved->layers, 0, -1},
                            {0, saved->layers, saved->heads, 1}};
    enum { CORNERS = sizeof whole / sizeof *whole };
    int64_t left = 0; /* corners of the set that remained so far */
    if (n > 0) qsort(corners, (size_t)n, sizeof *corners, by_place);
    for (int64_t i = 0, k; i < n; i = k) {
        corner sum = corners[i];
        for (k = i + 1; k < n && by_place(&corners[i], &corners[k]) == 0; k++)
            sum.sign += corners[k].sign;
        bool last = k == n || corners[k].set != sum.set;
        if (sum.sign != 0) {
            if (left == CORNERS) return false;
            const corner *w = &whole[left++];
            if (sum.layer != w->layer || sum.head != w->head || sum.sign != w->sign) return false;
        }
        if (!last) continue;
        if (left != CORNERS) return false;
        left = 0;
        sets[(*n_sets)++] = sum.set;
    }
    return true;
}

static saf_status check_sources_fit(const saf_kv_saved *saved, int64_t *sets, int64_t *n_sets,
                                    bool *good) {
    saf_status st = SAF_OK;
    corner *corners = NULL;
    int64_t *ranks = NULL, n = 0;
    *good = false;
    SAF_TRY(saf_alloc((size_t)saved->n_sources, 4 * sizeof *corners, &corners));
    SAF_TRY(saf_alloc((size_t)saved->n_sources, sizeof *ranks, &ranks));
    for (int64_t i = 0; i < saved->n_sources; i++) {
        const saf_kv_source *s = &saved->sources[i];
        if (!is_possible_source(saved, s)) goto out;
        int64_t layer1 = s->layer0 + s->layers, head1 = s->head0 + s->heads;
        ranks[i] = s->rank;
        corners[n++] = (corner){s->set, s->layer0, s->head0, 1};
        corners[n++] = (corner){s->set, s->layer0, head1, -1};
        corners[n++] = (corner){s->set, layer1, s->head0, -1};
        corners[n++] = (corner){s->set, layer1, head1, 1};
    }
    *good = !has_twice(ranks, saved->n_sources) && are_whole(saved, corners, n, sets, n_sets);
out:
    saf_free(&ranks);
    saf_free(&corners);
    return st;
}

static saf_status check_sequences_fit(const saf_kv_saved *saved, const int64_t *sets,
                                      int64_t n_sets, bool *good) {
    saf_status st = SAF_OK;
    int64_t *rows = NULL;
    *good = false;
    SAF_TRY(saf_alloc((size_t)saved->n_sequences, sizeof *rows, &rows));
    for (int64_t i = 0; i < saved->n_sequences; i++) {
        const saf_kv_sequence *q = &saved->sequences[i];
        if (!is_possible_sequence(saved, q) || n_sets == 0 ||
            !bsearch(&q->set, sets, (size_t)n_sets, sizeof *sets, by_number))
            goto out;
        rows[i] = q->row;
    }
    *good = !has_twice(rows, saved->n_sequences);
out:
    saf_free(&rows);
    return st;
}

saf_status saf__kv_check(const saf_kv_saved *saved, const char *path, saf_status wrong) {
    saf_status st = SAF_OK;
    int64_t *sets = NULL, n_sets = 0;
    bool good = saved->layers >= 1 && saved->layers <= MOST && saved->heads >= 1 &&
                saved->heads <= MOST && saved->row_bytes >= 1 && saved->row_bytes <= MOST &&
                saved->n_sequences >= 0 && saved->n_sequences <= MOST_SEQUENCES &&
                saved->n_sources >= 0 && saved->n_sources <= MOST_SOURCES;
    if (good) {
        SAF_TRY(saf_alloc((size_t)saved->n_sources, sizeof *sets, &sets));
        SAF_TRY(check_sources_fit(saved, sets, &n_sets, &good));
    }
    if (good) SAF_TRY(check_sequences_fit(saved, sets, n_sets, &good));
    if (!good)
        st = saf_fail(wrong, "%s: its sources do not make up the caches that it tells of", path);
out:
    saf_free(&sets);
    return st;
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
