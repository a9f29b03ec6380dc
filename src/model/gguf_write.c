/* saf_gguf_writer: a GGUF file (version 3) written front to back. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "model/gguf.h"

typedef struct {
    size_t info; /* where its offset stands in `infos` */
    size_t bytes;
} declared_tensor;

struct saf_gguf_writer {
    char *path, *part_path;
    int fd;
    saf_buf keys, infos,
        names; /* names: of keys and tensors, zero-terminated, to find repetitions */
    uint64_t n_keys, alignment;
    declared_tensor *tensors;
    int64_t n_tensors, cap;
    bool header_done, sparse;
    int64_t current; /* tensor whose data comes next */
    size_t written;  /* of it */
    uint64_t total_bytes;
};

saf_status saf_gguf_writer_open(const char *path, saf_gguf_writer **out) {
    saf_status st = SAF_OK;
    saf_gguf_writer *w = NULL;
    saf_buf part = {0};
    SAF_TRY(saf_alloc(1, sizeof *w, &w));
    w->fd = -1;
    w->alignment = SAF__GGUF_ALIGNMENT;
    SAF_TRY(saf_strdup(path, &w->path));
    SAF_TRY(saf_buf_printf(&part, "%s.part", path));
    SAF_TRY(saf_strdup(part.data, &w->part_path));
    w->fd = open(part.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        st = saf_fail(SAF_CANNOT_CREATE, "%s: %s", part.data, strerror(errno));
        saf_free(&w->part_path); /* not ours to remove */
        goto out;
    }
    *out = w;
    w = NULL;
out:
    saf_buf_free(&part);
    saf_gguf_writer_free(&w);
    return st;
}

/* Records a name ('k' key, 't' tensor); each may come once, and only before the data. */
static saf_status add_name(saf_gguf_writer *w, char what, const char *name, size_t max_bytes) {
    saf_status st = SAF_OK;
    size_t len = strlen(name);
    if (w->header_done)
        return saf_fail(SAF_DEFECT, "%s: \"%s\" declared after the data began", w->path, name);
    if (len == 0 || len > max_bytes)
        return saf_fail(SAF_DEFECT, "%s: name \"%.80s\" of %zu bytes", w->path, name, len);
    for (size_t at = 0; at < w->names.len; at += strlen(w->names.data + at) + 1)
        if (w->names.data[at] == what && strcmp(w->names.data + at + 1, name) == 0)
            return saf_fail(SAF_DEFECT, "%s: \"%s\" written twice", w->path, name);
    SAF_TRY(saf_buf_append(&w->names, &what, 1));
    SAF_TRY(saf_buf_append(&w->names, name, len + 1));
out:
    return st;
}

static saf_status append_string(saf_buf *buf, const char *text, size_t len) {
    uint64_t n = len;
    saf_status st = saf_buf_append(buf, &n, sizeof n);
    return st == SAF_OK ? saf_buf_append(buf, text, len) : st;
}

/* A key, followed by `len` bytes that begin with the kind's number. */
static saf_status write_raw(saf_gguf_writer *w, const char *key, const void *raw, size_t len) {
    saf_status st = SAF_OK;
    uint32_t kind, alignment;
    SAF_TRY(add_name(w, 'k', key, SAF__GGUF_KEY_MAX));
    if (strcmp(key, "general.alignment") == 0) {
        memcpy(&kind, raw, sizeof kind);
        if (kind != SAF_GGUF_U32 || len != 8)
            return saf_fail(SAF_DEFECT, "%s: general.alignment must be u32", w->path);
        memcpy(&alignment, (const char *)raw + 4, sizeof alignment);
        if (alignment == 0 || (alignment & (alignment - 1)) != 0)
            return saf_fail(SAF_DEFECT, "%s: general.alignment %u", w->path, alignment);
        w->alignment = alignment;
    }
    SAF_TRY(append_string(&w->keys, key, strlen(key)));
    SAF_TRY(saf_buf_append(&w->keys, raw, len));
    w->n_keys++;
out:
    return st;
}

static saf_status write_scalar(saf_gguf_writer *w, const char *key, saf_gguf_kind kind,
                               const void *value) {
    char raw[4 + 8];
    uint32_t number = kind;
    size_t len = saf__gguf_kind_bytes(kind);
    memcpy(raw, &number, sizeof number);
    memcpy(raw + 4, value, len);
    return write_raw(w, key, raw, 4 + len);
}

saf_status saf_gguf_write_int(saf_gguf_writer *w, const char *key, saf_gguf_kind kind, int64_t v) {
    static const struct {
        int64_t min, max;
    } range[SAF_GGUF_KINDS] = {
        [SAF_GGUF_U8] = {0, UINT8_MAX},   [SAF_GGUF_I8] = {INT8_MIN, INT8_MAX},
        [SAF_GGUF_U16] = {0, UINT16_MAX}, [SAF_GGUF_I16] = {INT16_MIN, INT16_MAX},
        [SAF_GGUF_U32] = {0, UINT32_MAX}, [SAF_GGUF_I32] = {INT32_MIN, INT32_MAX},
        [SAF_GGUF_U64] = {0, INT64_MAX},  [SAF_GGUF_I64] = {INT64_MIN, INT64_MAX},
    };
    if ((unsigned)kind >= SAF_GGUF_KINDS || range[kind].max == 0 || v < range[kind].min ||
        v > range[kind].max)
        return saf_fail(SAF_DEFECT, "%s: key \"%s\": %lld is no %s", w->path, key, (long long)v,
                        saf_gguf_kind_name(kind));
    return write_scalar(w, key, kind, &v); /* little-endian: the low bytes come first */
}

saf_status saf_gguf_write_u32(saf_gguf_writer *w, const char *key, uint32_t v) {
    return write_scalar(w, key, SAF_GGUF_U32, &v);
}

saf_status saf_gguf_write_f32(saf_gguf_writer *w, const char *key, float v) {
    return write_scalar(w, key, SAF_GGUF_F32, &v);
}

saf_status saf_gguf_write_bool(saf_gguf_writer *w, const char *key, bool v) {
    uint8_t byte = v;
    return write_scalar(w, key, SAF_GGUF_BOOL, &byte);
}

saf_status saf_gguf_write_string(saf_gguf_writer *w, const char *key, const char *text) {
    saf_status st = SAF_OK;
    saf_buf raw = {0};
    uint32_t kind = SAF_GGUF_STRING;
    SAF_TRY(saf_buf_append(&raw, &kind, sizeof kind));
    SAF_TRY(append_string(&raw, text, strlen(text)));
    SAF_TRY(write_raw(w, key, raw.data, raw.len));
out:
    saf_buf_free(&raw);
    return st;
}

saf_status saf_gguf_write_array(saf_gguf_writer *w, const char *key, saf_gguf_kind element,
                                int64_t n, const void *bytes, size_t len) {
    saf_status st = SAF_OK;
    saf_buf raw = {0};
    uint32_t head[2] = {SAF_GGUF_ARRAY, element};
    bool strings = element == SAF_GGUF_STRING;
    if (n < 0 || (unsigned)element >= SAF_GGUF_KINDS || element == SAF_GGUF_ARRAY ||
        (!strings && len != (size_t)n * saf__gguf_kind_bytes(element)))
        return saf_fail(SAF_DEFECT, "%s: key \"%s\": %lld elements in %zu bytes", w->path, key,
                        (long long)n, len);
    SAF_TRY(saf_buf_append(&raw, head, sizeof head));
    SAF_TRY(saf_buf_append(&raw, &n, sizeof n));
    SAF_TRY(saf_buf_append(&raw, bytes, len));
    SAF_TRY(write_raw(w, key, raw.data, raw.len));
out:
    saf_buf_free(&raw);
    return st;
}

saf_status saf_gguf_write_copy(saf_gguf_writer *w, const saf_gguf *from, const char *key) {
    const saf__gguf_key *k = saf__gguf_find(&from->keys, key);
    if (!k) return saf_fail(SAF_BAD_INPUT, "%s: key \"%s\" is missing", saf_gguf_path(from), key);
    return write_raw(w, key, from->keys.header.data + k->raw, k->raw_bytes);
}

saf_status saf_gguf_declare(saf_gguf_writer *w, const char *name, saf_dtype dtype, int ndim,
                            const int64_t *shape) {
    saf_status st = SAF_OK;
    int64_t elements = 1;
    int number = saf_dtype_to_gguf(dtype);
    uint32_t head, type = (uint32_t)number;
    uint64_t offset = 0;
    declared_tensor t = {0};
    bool fits = ndim >= 1 && ndim <= 4 && number >= 0;
    for (int d = 0; fits && d < ndim; d++)
        fits = shape[d] > 0 && saf_i64_mul(elements, shape[d], &elements);
    if (!fits || shape[0] % saf_dtype_block(dtype) != 0 ||
        !saf_dtype_bytes(dtype, elements, &t.bytes))
        return saf_fail(SAF_DEFECT, "%s: tensor \"%s\" has a shape that cannot be written", w->path,
                        name);
    head = (uint32_t)ndim;
    SAF_TRY(add_name(w, 't', name, SAF__GGUF_NAME_MAX));
    SAF_TRY(saf__gguf_grow(&w->tensors, w->n_tensors, &w->cap, sizeof *w->tensors));
    SAF_TRY(append_string(&w->infos, name, strlen(name)));
    SAF_TRY(saf_buf_append(&w->infos, &head, sizeof head));
    SAF_TRY(saf_buf_append(&w->infos, shape, (size_t)ndim * sizeof *shape));
    SAF_TRY(saf_buf_append(&w->infos, &type, sizeof type));
    t.info = w->infos.len;
    SAF_TRY(saf_buf_append(&w->infos, &offset, sizeof offset));
    w->tensors[w->n_tensors++] = t;
out:
    return st;
}

static saf_status write_all(saf_gguf_writer *w, const void *bytes, size_t len) {
    const char *from = bytes;
    while (len > 0) {
        ssize_t n = write(w->fd, from, len < (size_t)1 << 30 ? len : (size_t)1 << 30);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return saf_fail(SAF_IO, "%s: %s (the file needs %llu bytes)", w->part_path,
                            strerror(errno), (unsigned long long)w->total_bytes);
        from += n;
        len -= (size_t)n;
    }
    return SAF_OK;
}

static saf_status write_padding(saf_gguf_writer *w, uint64_t at) {
    static const char zeros[4096];
    saf_status st = SAF_OK;
    for (uint64_t left = (0 - at) & (w->alignment - 1); left > 0 && st == SAF_OK;) {
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
        st = write_all(w, zeros, n);
        left -= n;
    }
    return st;
}

/* Sets the tensors' offsets, takes the room of the whole file, writes all that precedes the data.
 */
static saf_status write_header(saf_gguf_writer *w) {
    saf_status st = SAF_OK;
    uint32_t version = 3;
    uint64_t n_tensors = (uint64_t)w->n_tensors, offset = 0, mask = w->alignment - 1;
    for (int64_t i = 0; i < w->n_tensors; i++) {
        memcpy(w->infos.data + w->tensors[i].info, &offset, sizeof offset);
        if (w->tensors[i].bytes > (uint64_t)INT64_MAX / 2 - offset)
            return saf_fail(SAF_DEFECT, "%s: sizes overflow", w->path);
        offset = (offset + w->tensors[i].bytes + mask) & ~mask;
    }
    uint64_t header = 4 + 4 + 8 + 8 + w->keys.len + w->infos.len;
    w->total_bytes = ((header + mask) & ~mask) + offset;
    /* A full disk shows now, not after an hour; file systems that cannot reserve do not matter. */
    if (w->sparse && ftruncate(w->fd, (off_t)w->total_bytes) != 0)
        return saf_fail(SAF_IO, "%s: %s (a file of %llu bytes)", w->part_path, strerror(errno),
                        (unsigned long long)w->total_bytes);
    if (!w->sparse && fallocate(w->fd, 0, 0, (off_t)w->total_bytes) != 0 &&
        (errno == ENOSPC || errno == EFBIG || errno == EDQUOT))
        return saf_fail(SAF_IO, "%s: %s (the file needs %llu bytes)", w->part_path, strerror(errno),
                        (unsigned long long)w->total_bytes);
    SAF_TRY(write_all(w, "GGUF", 4));
    SAF_TRY(write_all(w, &version, sizeof version));
    SAF_TRY(write_all(w, &n_tensors, sizeof n_tensors));
    SAF_TRY(write_all(w, &w->n_keys, sizeof w->n_keys));
    SAF_TRY(write_all(w, w->keys.data, w->keys.len));
    SAF_TRY(write_all(w, w->infos.data, w->infos.len));
    SAF_TRY(write_padding(w, header));
    w->header_done = true;
out:
    return st;
}

saf_status saf_gguf_write_data(saf_gguf_writer *w, const void *bytes, size_t len) {
    saf_status st = SAF_OK;
    if (!w->header_done) SAF_TRY(write_header(w));
    if (w->current == w->n_tensors || len > w->tensors[w->current].bytes - w->written)
        return saf_fail(SAF_DEFECT, "%s: %zu bytes more than tensor %lld of %lld holds", w->path,
                        len, (long long)w->current, (long long)w->n_tensors);
    SAF_TRY(write_all(w, bytes, len));
    w->written += len;
    if (w->written == w->tensors[w->current].bytes) {
        SAF_TRY(write_padding(w, w->written));
        w->current++;
        w->written = 0;
    }
out:
    return st;
}

/* Makes a rename in the folder of `path` durable. */
static saf_status sync_folder(const char *path) {
    saf_status st = SAF_OK;
    char *folder = NULL;
    int fd = -1;
    SAF_TRY(saf_strdup(path, &folder));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder ? 1 : 0] = 0;
    fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
        st = saf_fail(SAF_IO, "%s: cannot sync its folder: %s", path, strerror(errno));
out:
    if (fd >= 0) close(fd);
    saf_free(&folder);
    return st;
}

void saf_gguf_writer_header_only(saf_gguf_writer *w) {
    w->sparse = true;
}

saf_status saf_gguf_writer_finish(saf_gguf_writer *w) {
    saf_status st = SAF_OK;
    if (!w->header_done) SAF_TRY(write_header(w));
    if (w->current != w->n_tensors && !w->sparse)
        return saf_fail(SAF_DEFECT, "%s: only %lld of %lld tensors written", w->path,
                        (long long)w->current, (long long)w->n_tensors);
    if (fsync(w->fd) != 0) {
        st = saf_fail(SAF_IO, "%s: %s", w->part_path, strerror(errno));
        goto out;
    }
    int closed = close(w->fd);
    w->fd = -1;
    if (closed != 0 || rename(w->part_path, w->path) != 0) {
        st = saf_fail(SAF_IO, "%s: %s", w->path, strerror(errno));
        goto out;
    }
    saf_free(&w->part_path); /* nothing left to remove */
    SAF_TRY(sync_folder(w->path));
out:
    return st;
}

void saf_gguf_writer_free(saf_gguf_writer **w) {
    if (!*w) return;
    if ((*w)->fd >= 0) close((*w)->fd);
    if ((*w)->part_path) unlink((*w)->part_path);
    saf_free(&(*w)->path);
    saf_free(&(*w)->part_path);
    saf_buf_free(&(*w)->keys);
    saf_buf_free(&(*w)->infos);
    saf_buf_free(&(*w)->names);
    saf_free(&(*w)->tensors);
    saf_free(w);
}
