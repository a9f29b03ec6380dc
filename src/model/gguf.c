/* saf_gguf_*: a GGUF file, or all parts of a split one. Tensor data is read with pread, never
 * mapped: mapped pages would count as this rank's memory. */
#include "saf/model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/gguf.h"

enum { SHA_CHUNK_BYTES = 1 << 20 };

saf_status saf__gguf_grow(void *items, int64_t n, int64_t *cap, size_t size) {
    saf_status st = SAF_OK;
    char *old, *moved = NULL;
    if (n < *cap) return SAF_OK;
    int64_t new_cap = *cap ? *cap * 2 : 64;
    memcpy(&old, items, sizeof old);
    SAF_TRY(saf_alloc((size_t)new_cap, size, &moved));
    if (n) memcpy(moved, old, (size_t)n * size);
    saf_free(&old);
    memcpy(items, &moved, sizeof moved);
    *cap = new_cap;
out:
    return st;
}

/* Of a part without a file. */
static saf_status read_held(const saf__gguf_part *part, uint64_t offset, size_t len,
                            const char *what, void *out) {
    for (int i = 0; i < 2; i++) {
        const saf__gguf_extent *e = &part->held[i];
        if (!e->bytes || offset < e->offset || offset - e->offset > e->len ||
            len > e->len - (offset - e->offset))
            continue;
        memcpy(out, e->bytes + (offset - e->offset), len);
        return SAF_OK;
    }
    return saf_fail(SAF_DEFECT, "%s: byte %llu: reading %s, but this rank has no file", part->path,
                    (unsigned long long)offset, what);
}

saf_status saf__gguf_pread(const saf__gguf_part *part, uint64_t offset, size_t len,
                           const char *what, void *out) {
    char *to = out;
    if (part->fd < 0) return read_held(part, offset, len, what, out);
    while (len > 0) {
        size_t ask = len < (size_t)1 << 30 ? len : (size_t)1 << 30;
        ssize_t n = pread(part->fd, to, ask, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return saf_fail(SAF_IO, "%s: byte %llu: reading %s: %s", part->path,
                            (unsigned long long)offset, what, strerror(errno));
        if (n == 0)
            return saf_fail(SAF_BAD_INPUT,
                            "%s: byte %llu: reading %s: the file has become shorter (it had %llu "
                            "bytes)",
                            part->path, (unsigned long long)offset, what,
                            (unsigned long long)part->file_bytes);
        to += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return SAF_OK;
}

bool saf__gguf_split_name(const char *path, int *number, int *count, size_t *prefix_len) {
    static const char form[] = "-00000-of-00000.gguf";
    size_t len = strlen(path), n = sizeof form - 1;
    int v[2] = {0, 0}, which = 0;
    if (len < n) return false;
    const char *tail = path + len - n;
    for (size_t i = 0; i < n; i++) {
        if (form[i] != '0') {
            if (tail[i] != form[i]) return false;
            if (form[i] == 'o') which = 1;
            continue;
        }
        if (tail[i] < '0' || tail[i] > '9') return false;
        v[which] = v[which] * 10 + (tail[i] - '0');
    }
    *number = v[0];
    *count = v[1];
    *prefix_len = len - n;
    return true;
}

/* Takes over nothing on an error; the part is then empty (fd -1). */
static saf_status open_part(const char *path, saf__gguf_part *part) {
    saf_status st = SAF_OK;
    struct stat info;
    /* O_NONBLOCK: a named pipe must not hang the job; it means nothing to a regular file. */
    part->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (part->fd < 0) return saf_fail(saf_status_of_errno(errno), "%s: %s", path, strerror(errno));
    if (fstat(part->fd, &info) != 0) {
        st = saf_fail(SAF_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        st = saf_fail(SAF_NO_INPUT, "%s: not a regular file, expected a GGUF file", path);
        goto out;
    }
    part->file_bytes = (uint64_t)info.st_size;
    SAF_TRY(saf_strdup(path, &part->path));
out:
    if (st != SAF_OK) {
        close(part->fd);
        part->fd = -1;
    }
    return st;
}

/* split.no and split.count of a part; both 0 and 1 where the file has none. */
static saf_status split_keys(const saf__gguf_keys *keys, const char *path, int64_t *no,
                             int64_t *count, bool *is_split) {
    saf_status st = SAF_OK;
    bool has_no = false;
    *no = 0;
    *count = 1;
    SAF_TRY(saf__gguf_key_i64(keys, path, "split.count", is_split, count));
    SAF_TRY(saf__gguf_key_i64(keys, path, "split.no", &has_no, no));
    if (has_no != *is_split) {
        st = saf_fail(SAF_BAD_INPUT, "%s: one of split.no and split.count is missing", path);
        goto out;
    }
    if (*count < 1 || *count > SAF__GGUF_PARTS_MAX || *no < 0 || *no >= *count)
        st = saf_fail(SAF_BAD_INPUT, "%s: split.no is %lld and split.count %lld, out of range",
                      path, (long long)*no, (long long)*count);
out:
    return st;
}

/* How many parts the file opened as the first one has. */
static saf_status count_parts(const saf__gguf_keys *keys, const char *path, int64_t *count) {
    saf_status st = SAF_OK;
    int64_t no;
    bool is_split;
    int name_no = 0, name_count = 0, prefix = 0;
    size_t prefix_len = 0;
    SAF_TRY(split_keys(keys, path, &no, count, &is_split));
    bool named = saf__gguf_split_name(path, &name_no, &name_count, &prefix_len);
    if (!saf_int_from_i64((int64_t)prefix_len, &prefix)) prefix = 0;
    if (named && name_no != 1) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: part %d of a split model, open its first part %.*s-00001-"
                      "of-%05d.gguf",
                      path, name_no, prefix, path, name_count);
    } else if (named && !is_split && name_count != 1) {
        st = saf_fail(SAF_BAD_INPUT, "%s: named as part %d of %d, but has no key split.count", path,
                      name_no, name_count);
    } else if (is_split && *count > 1 && !named) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: part %lld of a model split in %lld, but its name does not "
                      "end in -%05lld-of-%05lld.gguf, by which the others are found",
                      path, (long long)no + 1, (long long)*count, (long long)no + 1,
                      (long long)*count);
    } else if (is_split && named && (no != 0 || *count != name_count)) {
        st = saf_fail(SAF_BAD_INPUT,
                      "%s: named as part %d of %d, but split.no says part %lld of "
                      "%lld",
                      path, name_no, name_count, (long long)no + 1, (long long)*count);
    }
out:
    return st;
}

/* The file of a part, or what the image has of it. */
static saf_status attach_part(const saf_gguf *g, int i, const char *path, saf__gguf_part *part) {
    if (!g->image.data) return open_part(path, part);
    if (!saf__gguf_image_part(&g->image, i, part))
        return saf_fail(SAF_BAD_INPUT, "%s: what came of part %d is no image of a header", path,
                        i + 1);
    return saf_strdup(path, &part->path);
}

static saf_status open_other_part(saf_gguf *g, int i) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    saf__gguf_keys keys = {0};
    int64_t no, count;
    bool is_split;
    int name_no, name_count, prefix, version;
    size_t prefix_len;
    const char *first = g->parts[0].path;
    if (!saf__gguf_split_name(first, &name_no, &name_count, &prefix_len) ||
        !saf_int_from_i64((int64_t)prefix_len, &prefix))
        return saf_fail(SAF_DEFECT, "%s: no split name", first);
    SAF_TRY(saf_buf_printf(&path, "%.*s-%05d-of-%05d.gguf", prefix, first, i + 1, g->n_parts));
    SAF_TRY(attach_part(g, i, path.data, &g->parts[i]));
    SAF_TRY(saf__gguf_parse(&g->parts[i], i, &keys, &g->tensors, &version));
    SAF_TRY(split_keys(&keys, path.data, &no, &count, &is_split));
    if (!is_split || no != i || count != g->n_parts)
        st = saf_fail(SAF_BAD_INPUT, "%s: split.no says part %lld of %lld, expected %d of %d",
                      path.data, (long long)no + 1, (long long)count, i + 1, g->n_parts);
out:
    saf__gguf_keys_free(&keys);
    saf_buf_free(&path);
    return st;
}

static int tensor_order(const void *a, const void *b) {
    return strcmp((*(saf_gguf_tensor *const *)a)->name, (*(saf_gguf_tensor *const *)b)->name);
}

/* Names, order by name, no name twice, as many as the first part announced. */
static saf_status index_tensors(saf_gguf *g) {
    saf_status st = SAF_OK;
    saf__gguf_tensors *t = &g->tensors;
    int64_t announced = t->n;
    bool found;
    SAF_TRY(saf_alloc((size_t)t->n, sizeof(void *), &t->by_name));
    const char *name = t->names.data;
    for (int64_t i = 0; i < t->n; i++) {
        t->items[i].name = name;
        t->by_name[i] = &t->items[i];
        name += strlen(name) + 1;
    }
    qsort(t->by_name, (size_t)t->n, sizeof(void *), tensor_order);
    for (int64_t i = 1; i < t->n; i++) {
        if (tensor_order(&t->by_name[i - 1], &t->by_name[i]) == 0) {
            st = saf_fail(SAF_BAD_INPUT, "%s: byte %llu: tensor \"%s\" is there twice",
                          g->parts[t->by_name[i]->part].path,
                          (unsigned long long)t->by_name[i]->offset, t->by_name[i]->name);
            goto out;
        }
    }
    SAF_TRY(
        saf__gguf_key_i64(&g->keys, g->parts[0].path, "split.tensors.count", &found, &announced));
    if (announced != t->n)
        st = saf_fail(SAF_BAD_INPUT, "%s: split.tensors.count is %lld, but the parts hold %lld",
                      g->parts[0].path, (long long)announced, (long long)t->n);
out:
    return st;
}

/* The image must have as many parts as the header of its first one says. */
static saf_status check_image(const saf_gguf *g, int64_t count) {
    int parts = saf__gguf_image_parts(&g->image);
    if (!g->image.data || parts == count) return SAF_OK;
    return saf_fail(SAF_BAD_INPUT,
                    "%s: what came is the header of %d files, but the model has %lld",
                    g->parts[0].path, parts, (long long)count);
}

/* Takes the image over, if there is one, also on an error. */
static saf_status open_all(const char *path, saf_buf *image, saf_gguf **out) {
    saf_status st = SAF_OK;
    saf_gguf *g = NULL;
    saf__gguf_part first = {.fd = -1};
    int64_t count;
    SAF_TRY(saf_alloc(1, sizeof *g, &g));
    if (image) {
        g->image = *image;
        *image = (saf_buf){0};
    }
    SAF_TRY(saf_alloc(1, sizeof *g->parts, &g->parts));
    g->n_parts = 1;
    g->parts[0].fd = -1;
    SAF_TRY(attach_part(g, 0, path, &g->parts[0]));
    SAF_TRY(saf__gguf_parse(&g->parts[0], 0, &g->keys, &g->tensors, &g->version));
    SAF_TRY(count_parts(&g->keys, path, &count));
    SAF_TRY(check_image(g, count));
    if (count > 1) {
        first = g->parts[0];
        saf_free(&g->parts);
        g->n_parts = 0;
        SAF_TRY(saf_alloc((size_t)count, sizeof *g->parts, &g->parts));
        g->n_parts = (int)count;
        for (int i = 0; i < g->n_parts; i++) g->parts[i].fd = -1;
        g->parts[0] = first;
        first = (saf__gguf_part){.fd = -1};
        for (int i = 1; i < g->n_parts; i++) SAF_TRY(open_other_part(g, i));
    }
    SAF_TRY(index_tensors(g));
    *out = g;
    g = NULL;
out:
    if (first.fd >= 0) close(first.fd);
    saf_free(&first.path);
    saf_gguf_close(&g);
    if (image) saf_buf_free(image);
    return st;
}

saf_status saf_gguf_open(const char *path, saf_gguf **out) {
    return open_all(path, NULL, out);
}

saf_status saf_gguf_image_open(const char *path, saf_buf *image, saf_gguf **out) {
    if (image->len == 0) {
        saf_buf_free(image);
        return saf_fail(SAF_BAD_INPUT, "%s: what came is no image of a header", path);
    }
    return open_all(path, image, out);
}

void saf_gguf_close(saf_gguf **g) {
    if (!*g) return;
    for (int i = 0; i < (*g)->n_parts; i++) {
        if ((*g)->parts[i].fd >= 0) close((*g)->parts[i].fd);
        saf_free(&(*g)->parts[i].path);
    }
    saf_free(&(*g)->parts);
    saf__gguf_keys_free(&(*g)->keys);
    saf_buf_free(&(*g)->tensors.names);
    saf_free(&(*g)->tensors.items);
    saf_free(&(*g)->tensors.by_name);
    saf_buf_free(&(*g)->image);
    saf_free(g);
}

void saf_gguf_drop_keys(saf_gguf *g) {
    saf__gguf_keys_free(&g->keys);
    for (int i = 0; i < g->n_parts; i++) memset(g->parts[i].held, 0, sizeof g->parts[i].held);
    saf_buf_free(&g->image);
}

const char *saf_gguf_path(const saf_gguf *g) {
    return g->parts[0].path;
}
int saf_gguf_version(const saf_gguf *g) {
    return g->version;
}
int saf_gguf_parts(const saf_gguf *g) {
    return g->n_parts;
}

uint64_t saf_gguf_file_bytes(const saf_gguf *g) {
    uint64_t sum = 0;
    for (int i = 0; i < g->n_parts; i++) sum += g->parts[i].file_bytes;
    return sum;
}

saf_status saf_gguf_header_sha256(const saf_gguf *g, uint8_t out[32]) {
    saf_status st = SAF_OK;
    saf_sha256 *sha = NULL;
    char *chunk = NULL;
    SAF_TRY(saf_sha256_new(&sha));
    SAF_TRY(saf_alloc(SHA_CHUNK_BYTES, 1, &chunk));
    for (int i = 0; i < g->n_parts; i++) {
        const saf__gguf_part *part = &g->parts[i];
        for (uint64_t at = 0; at < part->header_bytes;) {
            uint64_t rest = part->header_bytes - at;
            size_t n = rest < SHA_CHUNK_BYTES ? (size_t)rest : SHA_CHUNK_BYTES;
            SAF_TRY(saf__gguf_pread(part, at, n, "the header", chunk));
            SAF_TRY(saf_sha256_add(sha, chunk, n));
            at += n;
        }
    }
    SAF_TRY(saf_sha256_final(sha, out));
out:
    saf_free(&chunk);
    saf_sha256_free(&sha);
    return st;
}

int64_t saf_gguf_tensor_count(const saf_gguf *g) {
    return g->tensors.n;
}

const saf_gguf_tensor *saf_gguf_tensor_at(const saf_gguf *g, int64_t i) {
    return i >= 0 && i < g->tensors.n ? &g->tensors.items[i] : NULL;
}

const saf_gguf_tensor *saf_gguf_tensor_find(const saf_gguf *g, const char *name) {
    saf_gguf_tensor wanted = {.name = name}, *key = &wanted;
    saf_gguf_tensor **hit = g->tensors.n ? bsearch(&key, g->tensors.by_name, (size_t)g->tensors.n,
                                                   sizeof(void *), tensor_order)
                                         : NULL;
    return hit ? *hit : NULL;
}

saf_status saf_gguf_tensor_read(const saf_gguf *g, const saf_gguf_tensor *t, size_t offset,
                                size_t len, void *out) {
    if (offset > t->bytes || len > t->bytes - offset)
        return saf_fail(SAF_DEFECT, "tensor \"%s\": read of %zu bytes at %zu of %zu", t->name, len,
                        offset, t->bytes);
    return saf__gguf_pread(&g->parts[t->part], t->offset + offset, len, t->name, out);
}
