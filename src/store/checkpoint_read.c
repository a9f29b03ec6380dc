/* Reading a checkpoint: its checksum first, and only then HDF5. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/checkpoint.h"

/* ---- one file ---- */

static saf_status check_file(const char *path) {
    saf_status st = SAF_OK;
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ELOOP)
        return saf_fail(SAF_BAD_INPUT, "%s is a symbolic link, not a checkpoint", path);
    if (fd < 0) return saf_fail(SAF_NO_INPUT, "%s: %s", path, strerror(errno));
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode))
        st = saf_fail(SAF_BAD_INPUT, "%s is no regular file", path);
    else
        st = saf__seal_check(fd, path);
    close(fd);
    return st;
}

saf_status saf__checkpoint_open(const char *path, saf_checkpoint **out, bool *newer) {
    saf_status st = SAF_OK;
    saf_checkpoint *c = NULL;
    *newer = false;
    SAF_TRY(saf_alloc(1, sizeof *c, &c));
    c->h5 = (saf__h5)SAF__H5_EMPTY;
    SAF_TRY(saf_strdup(path, &c->path));
    SAF_TRY(check_file(path));
    saf__h5_enter();
    st = saf__h5_open_file(c->path, &c->h5);
    if (st == SAF_OK) st = saf__checkpoint_head_read(&c->h5, &c->head, newer);
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    *out = c;
    c = NULL;
out:
    saf_checkpoint_free(&c);
    return st;
}

saf_status saf_checkpoint_open(const char *path, saf_checkpoint **out) {
    bool newer;
    return saf__checkpoint_open(path, out, &newer);
}

void saf_checkpoint_free(saf_checkpoint **c) {
    if (!*c) return;
    saf__h5_enter();
    saf__h5_close(&(*c)->h5.id);
    saf__h5_leave();
    saf_checkpoint_head_free(&(*c)->head);
    saf_free(&(*c)->path);
    saf_free(c);
}

const saf_checkpoint_head *saf_checkpoint_head_of(const saf_checkpoint *c) {
    return &c->head;
}

const char *saf_checkpoint_path(const saf_checkpoint *c) {
    return c->path;
}

/* ---- the newest of an output ---- */

/* What an older checkpoint may stand in for. */
static bool may_go_back(saf_status st, bool newer) {
    return !newer && (st == SAF_BAD_INPUT || st == SAF_NO_INPUT || st == SAF_IO);
}

saf_status saf_checkpoint_open_newest(const char *output, saf_checkpoint **out) {
    saf_status st = SAF_OK;
    saf__checkpoint_list list = {0};
    int64_t bad = 0;
    bool newer = false, unread = false;
    *out = NULL;
    SAF_TRY(saf__checkpoint_list_read(output, &list));
    for (int64_t i = list.n - 1; i >= 0; i--) {
        const saf__checkpoint_file *file = &list.files[i];
        if (file->part || file->kv) continue;
        st = saf__checkpoint_open(file->path, out, &newer);
        if (st == SAF_OK || !may_go_back(st, newer)) goto out;
        if (access(file->path, F_OK) != 0 && errno == ENOENT) continue; /* removed meanwhile */
        saf_log(SAF_LOG_WARNING, "checkpoint %s cannot be used: %s", file->path, saf_error_text());
        unread = unread || st == SAF_IO;
        bad++;
    }
    st = SAF_OK;
    if (unread) /* they may be good: nobody should be told to give them up */
        st = saf_fail(SAF_IO, "%s: none of its %lld checkpoints can be read (%s.ckpt-*)", output,
                      (long long)bad, output);
    else if (bad > 0)
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: none of its %lld checkpoints can be used (%s.ckpt-*); --fresh removes "
                      "them and starts over",
                      output, (long long)bad, output);
out:
    saf__checkpoint_list_free(&list);
    return st;
}

saf_status saf_checkpoint_newest(const char *output, char **path) {
    saf_status st = SAF_OK;
    saf__checkpoint_list list = {0};
    *path = NULL;
    SAF_TRY(saf__checkpoint_list_read(output, &list));
    for (int64_t i = list.n - 1; i >= 0 && !*path; i--) {
        const saf__checkpoint_file *file = &list.files[i];
        if (!file->part && !file->kv && file->regular) SAF_TRY(saf_strdup(file->path, path));
    }
out:
    saf__checkpoint_list_free(&list);
    return st;
}

/* ---- state ---- */

saf_status saf_checkpoint_get(const saf_checkpoint *c, const char *name, saf_dtype dtype,
                              int64_t most, int64_t *n, void *data) {
    return saf__state_get(&c->h5, name, dtype, most, n, data);
}

saf_status saf_checkpoint_count(const saf_checkpoint *c, const char *name, saf_dtype dtype,
                                int64_t *n) {
    hid_t dataset = H5I_INVALID_HID;
    saf__h5_enter();
    saf_status st = saf__state_open(&c->h5, name, dtype, n, &dataset);
    saf__h5_close(&dataset);
    saf__h5_leave();
    return st;
}

saf_status saf_checkpoint_get_some(const saf_checkpoint *c, const char *name, saf_dtype dtype,
                                   int64_t at, int64_t count, void *data) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID;
    int64_t n = 0;
    saf__h5_enter();
    st = saf__state_open(&c->h5, name, dtype, &n, &dataset);
    saf__h5_leave();
    if (st != SAF_OK) goto out;
    if (at < 0 || count < 0 || at > n - count) {
        st = saf_fail(SAF_BAD_INPUT, "%s: /state/%s has %lld values, not [%lld, +%lld)", c->path,
                      name, (long long)n, (long long)at, (long long)count);
        goto out;
    }
    SAF_TRY(saf__state_read(&c->h5, dataset, dtype, at, count, data));
out:
    saf__h5_enter();
    saf__h5_close(&dataset);
    saf__h5_leave();
    return st;
}
