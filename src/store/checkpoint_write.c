/* Writing a checkpoint: HDF5 first, then the seal over it, then its name. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "store/checkpoint.h"

/* What a dataset was given: it must read back so. */
typedef struct {
    char *name;
    saf_dtype dtype;
    int64_t n;
    uint64_t hash;
} given;

struct saf_checkpoint_writer {
    saf__part part;
    saf__h5 h5;
    char *output;
    hid_t dataset;      /* being written piece by piece */
    int64_t next;       /* its values [0, next) are there */
    XXH3_state_t *hash; /* of these */
    int64_t n;
    given *all; /* [n]; the last one is that dataset */
    /* Set while HDF5 writes, and for ever when that failed: it may have lost data and call the
     * next write a success, and closing the file may crash it (1.10.8). */
    bool broken;
};

/* ---- the beginning ---- */

static saf_status next_path(const char *output, saf_buf *out) {
    saf_status st = SAF_OK;
    saf__checkpoint_list list = {0};
    int64_t largest = 0;
    SAF_TRY(saf__checkpoint_list_read(output, &list));
    SAF_TRY(saf__checkpoint_list_prune(&list, INT64_MAX)); /* leftovers only */
    if (list.n > 0) largest = list.files[list.n - 1].number;
    if (largest >= 999999999999999999) {
        st = saf_fail(SAF_CANNOT_CREATE, "%s.ckpt-%lld is the last number that a checkpoint has",
                      output, (long long)largest);
        goto out;
    }
    SAF_TRY(saf_buf_printf(out, "%s.ckpt-%lld", output, (long long)largest + 1));
out:
    saf__checkpoint_list_free(&list);
    return st;
}

saf_status saf_checkpoint_create(const char *output, const saf_checkpoint_head *head,
                                 saf_checkpoint_writer **out) {
    saf_status st = SAF_OK;
    saf_checkpoint_writer *w = NULL;
    saf_buf path = {0};
    saf__h5_enter();
    SAF_TRY(saf_alloc(1, sizeof *w, &w));
    w->part = (saf__part)SAF__PART_EMPTY;
    w->h5 = (saf__h5)SAF__H5_EMPTY;
    w->dataset = H5I_INVALID_HID;
    w->hash = XXH3_createState();
    if (!w->hash) {
        st = saf_fail(SAF_NO_MEMORY, "no memory for a checkpoint");
        goto out;
    }
    SAF_TRY(saf_strdup(output, &w->output));
    SAF_TRY(next_path(output, &path));
    SAF_TRY(saf__part_open(path.data, 0600, &w->part));
    w->broken = true;
    SAF_TRY(saf__h5_create_file(w->part.part, SAF__SEAL_BYTES, &w->h5));
    w->h5.needed_bytes = 8192; /* about what an empty one takes */
    SAF_TRY(saf__checkpoint_head_write(&w->h5, head));
    SAF_TRY(saf__h5_make_group(&w->h5, "/state"));
    w->broken = false;
    *out = w;
    w = NULL;
out:
    saf_checkpoint_writer_free(&w);
    saf_buf_free(&path);
    saf__h5_leave();
    return st;
}

/* As a results file: what HDF5 could not write stays open in it, empty and without a name. */
static void abandon(saf_checkpoint_writer *w) {
    saf__h5_enter();
    if (w->broken) w->dataset = w->h5.id = H5I_INVALID_HID;
    saf__h5_close(&w->dataset);
    saf__h5_close(&w->h5.id);
    saf__h5_leave();
    saf__part_abandon(&w->part);
}

void saf_checkpoint_writer_free(saf_checkpoint_writer **w) {
    if (!*w) return;
    abandon(*w);
    for (int64_t i = 0; i < (*w)->n; i++) saf_free(&(*w)->all[i].name);
    saf_free(&(*w)->all);
    XXH3_freeState((*w)->hash);
    saf_free(&(*w)->output);
    saf_free(w);
}

/* ---- state ---- */

static saf_status check_usable(const saf_checkpoint_writer *w) {
    if (w->broken)
        return saf_fail(SAF_IO, "cannot write a checkpoint of %s: an earlier write failed",
                        w->output);
    if (w->h5.id < 0) return saf_fail(SAF_DEFECT, "a checkpoint is written to after its end");
    return SAF_OK;
}

static saf_status begin_dataset(saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                                int64_t n) {
    saf_status st = SAF_OK;
    given *more = NULL, now = {NULL, dtype, n, 0};
    SAF_TRY(saf__state_check(&w->h5, name, dtype, n));
    SAF_TRY(saf_strdup(name, &now.name));
    SAF_TRY(saf_alloc((size_t)w->n + 1, sizeof *more, &more));
    if (w->n > 0) memcpy(more, w->all, (size_t)w->n * sizeof *more);
    more[w->n++] = now;
    now.name = NULL;
    saf_free(&w->all);
    w->all = more;
    w->next = 0;
    w->h5.needed_bytes += 512 + n * saf_dtype_block_bytes(dtype);
    (void)XXH3_64bits_reset(w->hash);
    w->broken = true;
    SAF_TRY(saf__state_create(&w->h5, name, dtype, n, &w->dataset));
    w->broken = false;
out:
    saf_free(&now.name);
    return st;
}

static saf_status end_dataset(saf_checkpoint_writer *w) {
    w->all[w->n - 1].hash = XXH3_64bits_digest(w->hash);
    w->broken = true;
    saf_status st = saf__h5_check(&w->h5, saf__h5_close(&w->dataset), w->all[w->n - 1].name);
    w->broken = st != SAF_OK;
    return st;
}

/* Between pieces, only what goes on from the one before fits. */
static saf_status check_piece(const saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                              int64_t n, int64_t at, int64_t count) {
    /* of the dataset that is open */
    const given *last = w->dataset >= 0 && w->n > 0 ? &w->all[w->n - 1] : NULL;
    if (at < 0 || count < 0 || at > n - count || at != (last ? w->next : 0) ||
        (last && (strcmp(last->name, name) != 0 || last->dtype != dtype || last->n != n)))
        return saf_fail(SAF_DEFECT, "%s: values [%lld, +%lld) of %lld of %s after %lld of %s",
                        w->h5.path, (long long)at, (long long)count, (long long)n, name,
                        (long long)w->next, last ? last->name : "nothing");
    return SAF_OK;
}

saf_status saf_checkpoint_put_some(saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                                   int64_t n, int64_t at, int64_t count, const void *data) {
    saf_status st = SAF_OK;
    SAF_TRY(check_usable(w));
    SAF_TRY(check_piece(w, name, dtype, n, at, count));
    if (w->dataset < 0) {
        saf__h5_enter();
        st = begin_dataset(w, name, dtype, n);
        saf__h5_leave();
        if (st != SAF_OK) goto out;
    }
    if (count > 0) {
        w->broken = true;
        SAF_TRY(saf__state_write(&w->h5, w->dataset, dtype, at, count, data));
        w->broken = false;
        (void)XXH3_64bits_update(w->hash, data, (size_t)(count * saf_dtype_block_bytes(dtype)));
    }
    w->next = at + count;
    if (w->next == n) {
        saf__h5_enter();
        st = end_dataset(w);
        saf__h5_leave();
    }
out:
    return st;
}

saf_status saf_checkpoint_put(saf_checkpoint_writer *w, const char *name, saf_dtype dtype,
                              int64_t n, const void *data) {
    return saf_checkpoint_put_some(w, name, dtype, n, 0, n, data);
}

/* ---- the end ---- */

static saf_status close_h5(saf_checkpoint_writer *w) {
    saf__h5_enter();
    w->broken = true;
    saf_status st = saf__h5_check(&w->h5, saf__h5_close(&w->h5.id), "closing it");
    w->broken = st != SAF_OK;
    saf__h5_leave();
    return st;
}

static saf_status verify_dataset(const saf_checkpoint *c, const given *g, XXH3_state_t *hash,
                                 char *block, int64_t block_bytes) {
    saf_status st = SAF_OK;
    int64_t size = saf_dtype_block_bytes(g->dtype), step = block_bytes / size;
    (void)XXH3_64bits_reset(hash);
    for (int64_t i = 0; i < g->n; i += step) {
        int64_t n = saf_i64_min(step, g->n - i);
        SAF_TRY(saf_checkpoint_get_some(c, g->name, g->dtype, i, n, block));
        (void)XXH3_64bits_update(hash, block, (size_t)(n * size));
    }
    if (XXH3_64bits_digest(hash) != g->hash)
        st = saf_fail(SAF_IO, "%s: /state/%s reads back other than it was written", c->path,
                      g->name);
out:
    return st;
}

/* Before it takes the place of an older one it must pass as a reader would judge it, and hold what
 * it was given. What the page cache has of it is dropped where that can be, so that the disk is
 * asked. */
static saf_status verify(saf_checkpoint_writer *w) {
    enum { BLOCK_BYTES = 4 << 20 };
    saf_status st = SAF_OK;
    saf_checkpoint *back = NULL;
    char *block = NULL;
    (void)posix_fadvise(w->part.fd, 0, 0, POSIX_FADV_DONTNEED);
    SAF_TRY(saf_alloc(1, BLOCK_BYTES, &block));
    SAF_TRY(saf_checkpoint_open(w->part.part, &back));
    for (int64_t i = 0; i < w->n; i++)
        SAF_TRY(verify_dataset(back, &w->all[i], w->hash, block, BLOCK_BYTES));
out:
    saf_checkpoint_free(&back);
    saf_free(&block);
    return st == SAF_OK || st == SAF_NO_MEMORY ? st : SAF_IO;
}

/* The new one is durable: older ones that stay cost space and nothing else. */
static void prune(const char *output) {
    saf__checkpoint_list list = {0};
    saf_status st = saf__checkpoint_list_read(output, &list);
    if (st == SAF_OK) st = saf__checkpoint_list_prune(&list, SAF_CHECKPOINTS_KEPT);
    if (st != SAF_OK) saf_log(SAF_LOG_WARNING, "%s", saf_error_text());
    saf__checkpoint_list_free(&list);
}

saf_status saf_checkpoint_commit(saf_checkpoint_writer *w, int64_t *bytes) {
    saf_status st = SAF_OK;
    struct stat s;
    SAF_TRY(check_usable(w));
    if (w->dataset >= 0) {
        st = saf_fail(SAF_DEFECT, "%s: only %lld values of %s were written", w->h5.path,
                      (long long)w->next, w->all[w->n - 1].name);
        goto out;
    }
    SAF_TRY(close_h5(w));
    SAF_TRY(saf__seal_write(w->part.fd, w->part.part));
    SAF_TRY(saf__part_sync(&w->part));
    SAF_TRY(verify(w));
    if (fstat(w->part.fd, &s) != 0) s.st_size = 0;
    SAF_TRY(saf__part_commit(&w->part));
    if (bytes) *bytes = (int64_t)s.st_size;
    prune(w->output);
out:
    if (st != SAF_OK) abandon(w);
    return st;
}
