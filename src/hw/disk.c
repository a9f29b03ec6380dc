/* How fast a folder's disk is read, past the page cache if the file system lets us. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "saf/hw_host.h"

enum { BLOCK = 4 << 20, THREADS = 4, PART = 8 /* of the free space at most */ };

typedef struct {
    const char *folder;
    char *path;
    int fd;
    int64_t bytes;
} sample_file;

/* ---- a file of its own ---- */

static saf_status fill(sample_file *f, double limit_s) {
    saf_status st = SAF_OK;
    char *block = NULL;
    int64_t done = 0;
    double start = saf_clock_s();
    SAF_TRY(saf_alloc_huge(BLOCK, &block));
    for (int i = 0; i < BLOCK; i++) block[i] = (char)(i * 31 + (i >> 8));
    while (done < f->bytes && (done == 0 || saf_clock_s() - start < limit_s)) {
        memcpy(block, &done, sizeof done); /* no two blocks alike: some disks would notice */
        ssize_t n = pwrite(f->fd, block, BLOCK, done);
        if (n != BLOCK) {
            st = saf_fail(SAF_IO, "%s: writing a file to read: %s", f->folder,
                          n < 0 ? strerror(errno) : "the disk is full");
            goto out;
        }
        done += n;
        saf_alive();
    }
    if (fsync(f->fd) != 0) {
        st = saf_fail(SAF_IO, "%s: writing a file to read: %s", f->folder, strerror(errno));
        goto out;
    }
    f->bytes = done;
out:
    saf_free(&block);
    return st;
}

/* *made false: the folder cannot be written, or is nearly full. */
static saf_status make_own(sample_file *f, double limit_s, bool *made) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    struct statvfs space;
    char self[64];
    *made = false;
    if (statvfs(f->folder, &space) == 0) {
        double there = (double)space.f_bavail * (double)space.f_frsize / PART;
        if ((double)f->bytes > there) f->bytes = (int64_t)there / BLOCK * BLOCK;
    }
    if (f->bytes < BLOCK) return SAF_OK;
    SAF_TRY(saf_buf_printf(&path, "%s/.saf-detect-XXXXXX", f->folder));
    f->fd = mkstemp(path.data);
    if (f->fd < 0) goto out;
    *made = true;
    (void)unlink(path.data); /* whatever ends this process, nothing is left */
    SAF_TRY(fill(f, limit_s));
    /* Opened anew: what wrote it may not read it past the cache. */
    snprintf(self, sizeof self, "/proc/self/fd/%d", f->fd);
    int direct = open(self, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (direct >= 0) {
        (void)close(f->fd);
        f->fd = direct;
    } else {
        (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
out:
    saf_buf_free(&path);
    return st;
}

/* ---- one that is there ---- */

static saf_status open_largest(sample_file *f, int64_t bytes) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    struct stat s;
    f->bytes = 0;
    DIR *d = opendir(f->folder);
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        saf_buf_clear(&path);
        SAF_TRY(saf_buf_printf(&path, "%s/%s", f->folder, e->d_name));
        if (stat(path.data, &s) != 0 || !S_ISREG(s.st_mode) || s.st_size <= f->bytes ||
            access(path.data, R_OK) != 0)
            continue;
        f->bytes = s.st_size;
        saf_free(&f->path);
        SAF_TRY(saf_strdup(path.data, &f->path));
    }
    f->bytes = saf_i64_min(f->bytes, bytes) / BLOCK * BLOCK;
    if (f->bytes == 0) {
        st = saf_fail(SAF_NO_INPUT,
                      "%s: nothing can be written there, and it has no file of %d MiB to read",
                      f->folder, BLOCK >> 20);
        goto out;
    }
    f->fd = open(f->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (f->fd < 0) f->fd = open(f->path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0) st = saf_fail(SAF_IO, "%s: %s", f->path, strerror(errno));
out:
    if (d) (void)closedir(d);
    saf_buf_free(&path);
    return st;
}

/* ---- reading ---- */

static bool in_memory(const char *folder) {
    struct statfs s;
    return statfs(folder, &s) == 0 && (s.f_type == TMPFS_MAGIC || s.f_type == RAMFS_MAGIC);
}

static saf_status read_blocks(const sample_file *f, double limit_s, saf_hw_disk *out) {
    int64_t done = 0, blocks = f->bytes / BLOCK;
    int failed = 0, threads = omp_get_max_threads() < THREADS ? omp_get_max_threads() : THREADS;
    char *memory = NULL;
    saf_status st = saf_alloc_huge((size_t)threads * BLOCK, &memory);
    if (st != SAF_OK) return st;
    double start = saf_clock_s();
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(+ : done)
    for (int64_t i = 0; i < blocks; i++) {
        int before;
#pragma omp atomic read
        before = failed;
        if (before || (i > 0 && saf_clock_s() - start > limit_s)) continue;
        ssize_t n = pread(f->fd, memory + (size_t)omp_get_thread_num() * BLOCK, BLOCK, i * BLOCK);
        if (n == BLOCK) {
            done += n;
        } else {
#pragma omp atomic write
            failed = n < 0 ? errno : EIO;
        }
    }
    out->seconds = saf_clock_s() - start;
    out->bytes = done;
    out->bytes_s = out->seconds > 0 ? (double)done / out->seconds : 0;
    if (failed) st = saf_fail(SAF_IO, "%s: reading: %s", f->folder, strerror(failed));
    saf_free(&memory);
    return st;
}

saf_status saf_hw_disk_measure(const char *folder, size_t bytes, double limit_s, saf_hw_disk *out) {
    saf_status st = SAF_OK;
    sample_file f = {.folder = folder, .fd = -1, .bytes = (int64_t)bytes};
    struct stat s;
    bool made = false;
    *out = (saf_hw_disk){0};
    if (stat(folder, &s) != 0) return saf_fail(SAF_NO_INPUT, "%s: %s", folder, strerror(errno));
    if (!S_ISDIR(s.st_mode)) return saf_fail(SAF_NO_INPUT, "%s is no folder", folder);
    SAF_TRY(make_own(&f, limit_s, &made));
    if (!made) SAF_TRY(open_largest(&f, (int64_t)bytes));
    int flags = fcntl(f.fd, F_GETFL);
    bool direct = flags >= 0 && (flags & O_DIRECT);
    snprintf(out->how, sizeof out->how, "%s, %s", made ? "a new file" : "its largest file",
             in_memory(folder) ? "in memory"
             : direct          ? "past the page cache"
             : made            ? "page cache dropped before"
                               : "through the page cache");
    SAF_TRY(read_blocks(&f, limit_s, out));
out:
    if (f.fd >= 0) (void)close(f.fd);
    saf_free(&f.path);
    return st;
}
