/* How far a job is, as its checkpoints tell: OUTPUT.ckpt-N, the newest with the largest N. */
#include <dirent.h>
#include <errno.h>

#include "cli/launch.h"

/* N of NAME.ckpt-N; 0 for other names. */
static int64_t number_of(const char *file, const char *name) {
    static const char middle[] = ".ckpt-";
    size_t len = strlen(name);
    int64_t n = 0;
    if (strncmp(file, name, len) != 0 || strncmp(file + len, middle, sizeof middle - 1) != 0)
        return 0;
    for (const char *p = file + len + sizeof middle - 1; *p; p++) {
        if (*p < '0' || *p > '9' || !saf_i64_mul(n, 10, &n)) return 0;
        if (__builtin_add_overflow(n, (int64_t)(*p - '0'), &n)) return 0;
    }
    return n;
}

saf_status saf__launch_progress(const char *output, int64_t *number) {
    saf_status st = SAF_OK;
    saf_buf folder = {0};
    const char *slash = strrchr(output, '/'), *name = slash ? slash + 1 : output;
    DIR *dir = NULL;
    *number = 0;
    SAF_TRY(saf_buf_append(&folder, slash ? output : ".", slash ? (size_t)(name - output) : 1));
    dir = opendir(folder.data);
    if (!dir) goto out; /* the job will say so */
    for (struct dirent *entry; (entry = readdir(dir));)
        *number = saf_i64_max(*number, number_of(entry->d_name, name));
out:
    if (dir) closedir(dir);
    saf_buf_free(&folder);
    return st;
}
