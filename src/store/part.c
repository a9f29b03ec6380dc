#include "store/part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file system, not the path, is at fault. */
static saf_status status_of(int error) {
    bool full = error == ENOSPC || error == EDQUOT || error == EFBIG || error == EIO;
    return full ? SAF_IO : SAF_CANNOT_CREATE;
}

static saf_status check_target(const char *path) {
    struct stat st;
    size_t len = strlen(path);
    if (len == 0) return saf_fail(SAF_CANNOT_CREATE, "cannot create a file without a name");
    if (path[len - 1] == '/')
        return saf_fail(SAF_CANNOT_CREATE, "cannot create %s: it names a folder", path);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return saf_fail(SAF_CANNOT_CREATE, "cannot create %s: it exists and is %s", path,
                        S_ISDIR(st.st_mode) ? "a folder" : "no regular file");
    return SAF_OK;
}

/* Sets *again when the name moved to another file between opening and locking: the process that
 * wrote it finished in that moment, and what was locked is its result. */
static saf_status lock_part(int fd, const char *part, bool *again) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat mine, named;
    *again = false;
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES)
            return saf_fail(SAF_CANNOT_CREATE,
                            "cannot write %s: another process is writing it; wait for that job or "
                            "choose another output file",
                            part);
        saf_log(SAF_LOG_WARNING,
                "%s: its file system has no locks (%s): nothing keeps another job from writing it "
                "at the same time",
                part, strerror(errno));
        return SAF_OK;
    }
    if (fstat(fd, &mine) != 0)
        return saf_fail(SAF_CANNOT_CREATE, "cannot look at %s: %s", part, strerror(errno));
    *again = lstat(part, &named) != 0 || named.st_ino != mine.st_ino || named.st_dev != mine.st_dev;
    return SAF_OK;
}

saf_status saf__part_open(const char *path, mode_t mode, saf__part *out) {
    enum { TRIES = 100 };
    saf__part p = SAF__PART_EMPTY;
    saf_buf name = {0};
    saf_status st = SAF_OK;
    SAF_TRY(check_target(path));
    SAF_TRY(saf_strdup(path, &p.path));
    SAF_TRY(saf_buf_printf(&name, "%s.part", path));
    SAF_TRY(saf_strdup(name.data, &p.part));
    bool again = true;
    for (int i = 0; again && i < TRIES; i++) {
        if (p.fd >= 0) close(p.fd);
        p.fd = open(p.part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
        if (p.fd < 0) {
            st = saf_fail(status_of(errno), "cannot create %s: %s", p.part, strerror(errno));
            goto out;
        }
        SAF_TRY(lock_part(p.fd, p.part, &again));
    }
    if (again) {
        st = saf_fail(SAF_CANNOT_CREATE, "cannot write %s: other processes keep replacing it",
                      p.part);
        goto out;
    }
    *out = p;
out:
    saf_buf_free(&name);
    if (st != SAF_OK) {
        /* Not removed: without the lock it is somebody else's. */
        if (p.fd >= 0) close(p.fd);
        saf_free(&p.path);
        saf_free(&p.part);
    }
    return st;
}

/* Gigabytes may have to go to a slow disk: a piece after the other, so that this is seen to get on.
 * Whether all went well is for fsync to say. */
static void sync_pieces(int fd) {
    enum { PIECE = 64 << 20 };
    struct stat st;
    if (fstat(fd, &st) != 0) return;
    for (off_t at = 0; at < st.st_size; at += PIECE) {
        saf_alive();
        if (sync_file_range(fd, at, PIECE,
                            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                SYNC_FILE_RANGE_WAIT_AFTER) != 0)
            return;
    }
}

/* Some file systems find out here that they are full. */
static saf_status sync_failed(const saf__part *p, int error) {
    struct stat st;
    if (fstat(p->fd, &st) != 0) st.st_size = 0;
    return saf_fail(SAF_IO, "cannot write %s to the disk, all of its %lld bytes: %s", p->part,
                    (long long)st.st_size, strerror(error));
}

saf_status saf__part_sync(const saf__part *p) {
    sync_pieces(p->fd);
    if (fsync(p->fd) != 0) return sync_failed(p, errno);
    return SAF_OK;
}

saf_status saf__folder_sync(const char *path) {
    saf_status st = SAF_OK;
    char *folder = NULL;
    int fd = -1;
    SAF_TRY(saf_strdup(path, &folder));
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = '\0';
    fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot flush a folder, and some folders may be written but not read. */
    if (fd >= 0 && fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS)
        st = saf_fail(SAF_IO, "cannot write the folder of %s to the disk: %s", path,
                      strerror(errno));
out:
    if (fd >= 0) close(fd);
    saf_free(&folder);
    return st;
}

static void let_go(saf__part *p) {
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
    saf_free(&p->path);
    saf_free(&p->part);
}

saf_status saf__part_commit(saf__part *p) {
    if (rename(p->part, p->path) != 0)
        return saf_fail(status_of(errno), "cannot rename %s to %s: %s", p->part, p->path,
                        strerror(errno));
    saf_status st = saf__folder_sync(p->path);
    let_go(p);
    return st;
}

void saf__part_abandon(saf__part *p) {
    /* Emptied, because somebody may still hold it open. */
    if (p->fd >= 0 && (unlink(p->part) != 0 || ftruncate(p->fd, 0) != 0))
        saf_log(SAF_LOG_WARNING, "cannot remove %s: %s", p->part, strerror(errno));
    let_go(p);
}

/* ---- those of other processes ---- */

bool saf__part_is_locked(const char *part) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool locked = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    return locked;
}

saf_status saf__part_remove_dead(const char *part) {
    saf_status st = SAF_OK;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat mine, named;
    int fd = open(part, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &mine) != 0 || !S_ISREG(mine.st_mode)) goto out;
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0 && (errno == EAGAIN || errno == EACCES)) {
        st = saf_fail(SAF_CANNOT_CREATE,
                      "cannot write %s: another process is writing it; wait for that job or choose "
                      "another output file",
                      part);
        goto out;
    }
    /* The process that wrote it may have given it its name just now. */
    if (lstat(part, &named) == 0 && named.st_ino == mine.st_ino && named.st_dev == mine.st_dev)
        (void)unlink(part);
out:
    if (fd >= 0) close(fd);
    return st;
}
