/* Which checkpoints an output has. A name counts only if it is exactly OUTPUT.ckpt-N, or that with
 * .kv or .kv-R, for the caches kept beside it, each perhaps with .part, and with N and R as they
 * are written here: other files with such a beginning are not ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/checkpoint.h"

enum { MOST_DIGITS = 18 }; /* fits into 64 bits, as does one more */

/* Without sign and leading zeros; *text moves on. */
static bool take_number(const char **text, int64_t *number) {
    const char *p = *text;
    int64_t n = 0;
    while (*p >= '0' && *p <= '9' && p - *text < MOST_DIGITS) n = 10 * n + (*p++ - '0');
    bool good = p > *text && !(**text == '0' && p - *text > 1) && !(*p >= '0' && *p <= '9');
    *text = p;
    *number = n;
    return good;
}

/* What comes behind ".ckpt-". */
static bool parse_ending(const char *text, saf__checkpoint_file *out) {
    int64_t rank;
    if (!take_number(&text, &out->number) || out->number == 0) return false;
    out->kv = strncmp(text, ".kv", 3) == 0;
    if (out->kv) {
        text += 3;
        if (*text == '-' && (text++, !take_number(&text, &rank))) return false;
    }
    out->part = strcmp(text, ".part") == 0;
    return out->part || *text == '\0';
}

static const char mark[] = ".ckpt-";

saf_status saf_checkpoint_output(const char *path, char **out) {
    saf_status st = SAF_OK;
    char *output = NULL, *last = NULL;
    saf__checkpoint_file file = {0};
    SAF_TRY(saf_strdup(path, &output));
    for (char *at = output; (at = strstr(at, mark)) != NULL; at++) last = at;
    if (!last || last == output || last[-1] == '/' || !parse_ending(last + strlen(mark), &file) ||
        file.part || file.kv)
        goto out;
    *last = '\0';
    *out = output;
    output = NULL;
out:
    saf_free(&output);
    return st;
}

static saf_status add_file(saf__checkpoint_list *list, int64_t *room, const char *output,
                           const char *ending, saf__checkpoint_file file) {
    saf_status st = SAF_OK;
    saf__checkpoint_file *more = NULL;
    saf_buf path = {0};
    struct stat s;
    SAF_TRY(saf_buf_printf(&path, "%s%s", output, ending));
    if (lstat(path.data, &s) != 0) goto out; /* gone by now */
    file.regular = S_ISREG(s.st_mode);
    if (list->n == *room) {
        int64_t wanted = 2 * *room + 8;
        SAF_TRY(saf_alloc((size_t)wanted, sizeof *more, &more));
        if (list->n > 0) memcpy(more, list->files, (size_t)list->n * sizeof *more);
        saf_free(&list->files);
        list->files = more;
        *room = wanted;
    }
    SAF_TRY(saf_strdup(path.data, &file.path));
    list->files[list->n++] = file;
out:
    saf_buf_free(&path);
    return st;
}

static int by_number(const void *a, const void *b) {
    const saf__checkpoint_file *x = a, *y = b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    if (x->kv != y->kv) return x->kv ? 1 : -1;
    return (int)x->part - (int)y->part;
}

static saf_status list_failed(const char *output, int error) {
    return saf_fail(SAF_IO, "cannot list the folder of %s for its checkpoints: %s", output,
                    strerror(error));
}

saf_status saf__checkpoint_list_read(const char *output, saf__checkpoint_list *out) {
    saf_status st = SAF_OK;
    saf__checkpoint_list list = {0};
    int64_t room = 0;
    DIR *folder = NULL;
    char *name = NULL;
    SAF_TRY(saf_strdup(output, &name));
    char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    size_t base_len = strlen(base), mark_len = strlen(mark);
    if (slash) *slash = '\0';
    folder = opendir(!slash ? "." : slash == name ? "/" : name);
    if (!folder && (errno == ENOENT || errno == ENOTDIR)) goto out;
    if (!folder) {
        st = list_failed(output, errno);
        goto out;
    }
    for (struct dirent *entry; errno = 0, (entry = readdir(folder)) != NULL;) {
        saf__checkpoint_file file = {0};
        if (strncmp(entry->d_name, base, base_len) == 0 &&
            strncmp(entry->d_name + base_len, mark, mark_len) == 0 &&
            parse_ending(entry->d_name + base_len + mark_len, &file))
            SAF_TRY(add_file(&list, &room, output, entry->d_name + base_len, file));
    }
    if (errno != 0) {
        st = list_failed(output, errno);
        goto out;
    }
    if (list.n > 0) qsort(list.files, (size_t)list.n, sizeof *list.files, by_number);
    *out = list;
    list = (saf__checkpoint_list){0};
out:
    if (folder) closedir(folder);
    saf_free(&name);
    saf__checkpoint_list_free(&list);
    return st;
}

void saf__checkpoint_list_free(saf__checkpoint_list *list) {
    for (int64_t i = 0; i < list->n; i++) saf_free(&list->files[i].path);
    saf_free(&list->files);
    list->n = 0;
}

static bool is_checkpoint(const saf__checkpoint_file *file) {
    return file->regular && !file->part && !file->kv;
}

/* Saved caches that a job has yet to take up, see saf_kv_open. */
static bool is_being_read(const char *path) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool locked = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) close(fd);
    return locked;
}

saf_status saf__checkpoint_list_prune(const saf__checkpoint_list *list, int64_t keep) {
    saf_status st = SAF_OK;
    int64_t whole = 0;
    int64_t kept = 0; /* the number of the last one that stays: those of its caches follow it */
    for (int64_t i = 0; i < list->n; i++) whole += is_checkpoint(&list->files[i]);
    for (int64_t i = 0; i < list->n; i++) {
        const saf__checkpoint_file *file = &list->files[i];
        if (!file->regular) continue;
        if (file->part) {
            SAF_TRY(saf__part_remove_dead(file->path));
            continue;
        }
        if (!file->kv && whole-- <= keep) kept = file->number;
        if (file->number == kept || (file->kv && is_being_read(file->path))) continue;
        if (unlink(file->path) != 0 && errno != ENOENT) {
            st = saf_fail(SAF_IO, "cannot remove %s: %s", file->path, strerror(errno));
            goto out;
        }
    }
out:
    return st;
}

saf_status saf_store_is_written(const char *output, bool *written) {
    saf_status st = SAF_OK;
    saf__checkpoint_list list = {0};
    saf_buf part = {0};
    SAF_TRY(saf_buf_printf(&part, "%s.part", output));
    *written = saf__part_is_locked(part.data);
    SAF_TRY(saf__checkpoint_list_read(output, &list));
    for (int64_t i = 0; i < list.n; i++)
        *written |= list.files[i].part && saf__part_is_locked(list.files[i].path);
out:
    saf_buf_free(&part);
    saf__checkpoint_list_free(&list);
    return st;
}

saf_status saf_checkpoints_remove(const char *output) {
    saf_status st = SAF_OK;
    saf__checkpoint_list list = {0};
    SAF_TRY(saf__checkpoint_list_read(output, &list));
    SAF_TRY(saf__checkpoint_list_prune(&list, 0));
    if (list.n > 0) SAF_TRY(saf__folder_sync(output));
out:
    saf__checkpoint_list_free(&list);
    return st;
}
