#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "saf/core.h"

static saf_status reserve(saf_buf *buf, size_t more) {
    size_t need;
    if (!saf_size_add(buf->len, more, &need) || !saf_size_add(need, 1, &need))
        return saf_fail(SAF_NO_MEMORY, "a buffer of %zu bytes cannot grow by %zu", buf->len, more);
    if (need <= buf->cap) return SAF_OK;
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *data = realloc(buf->data, cap);
    if (!data) return saf_fail(SAF_NO_MEMORY, "cannot allocate %zu bytes", cap);
    buf->data = data;
    buf->cap = cap;
    return SAF_OK;
}

saf_status saf_buf_append(saf_buf *buf, const void *bytes, size_t len) {
    saf_status st = reserve(buf, len);
    if (st != SAF_OK) return st;
    if (len) memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = 0;
    return SAF_OK;
}

saf_status saf_buf_printf(saf_buf *buf, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    saf_status st =
        n < 0 ? saf_fail(SAF_DEFECT, "bad format \"%s\"", format) : reserve(buf, (size_t)n);
    if (st == SAF_OK) {
        vsnprintf(buf->data + buf->len, (size_t)n + 1, format, again);
        buf->len += (size_t)n;
    }
    va_end(again);
    return st;
}

saf_status saf_buf_resize(saf_buf *buf, size_t len) {
    if (len > buf->len || !buf->data) {
        saf_status st = reserve(buf, len > buf->len ? len - buf->len : 0);
        if (st != SAF_OK) return st;
        memset(buf->data + buf->len, 0, len - buf->len);
    }
    buf->len = len;
    buf->data[len] = 0;
    return SAF_OK;
}

void saf_buf_clear(saf_buf *buf) {
    buf->len = 0;
    if (buf->data) buf->data[0] = 0;
}

void saf_buf_free(saf_buf *buf) {
    free(buf->data);
    *buf = (saf_buf){0};
}

saf_status saf_file_read(const char *path, size_t max_bytes, saf_buf *out) {
    saf_status st = SAF_OK;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return saf_fail(saf_status_of_errno(errno), "%s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0) {
        st = saf_fail(SAF_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (S_ISDIR(info.st_mode)) {
        st = saf_fail(SAF_NO_INPUT, "%s: a folder, expected a file", path);
        goto out;
    }
    saf_buf_clear(out);
    for (;;) {
        char chunk[65536];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = saf_fail(SAF_IO, "%s: %s", path, strerror(errno));
            goto out;
        }
        if (n == 0) break;
        if ((size_t)n > max_bytes - out->len) {
            st = saf_fail(SAF_BAD_INPUT, "%s: larger than %zu bytes", path, max_bytes);
            goto out;
        }
        SAF_TRY(saf_buf_append(out, chunk, (size_t)n));
    }
    if (!out->data) SAF_TRY(saf_buf_append(out, "", 0));
out:
    close(fd);
    return st;
}

bool saf_file_is_same(const char *a, const char *b) {
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}
