/* Rank 0's job on every rank; files that are one. */
#include "job/share.h"

#include <limits.h>
#include <stdio.h>

saf_status saf__job_share(saf_comm *world, const saf_job *job, saf_job *given, int32_t *dry_run) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    int rank = saf_comm_rank(world);
    if (rank == 0) st = saf_buf_append(&text, job->text, strlen(job->text));
    SAF_TRY(saf_comm_agree(world, st));
    SAF_TRY(saf_comm_bcast_buf(world, 0, &text));
    saf_tensor t = saf_tensor_1d(SAF_DTYPE_I32, dry_run, 1);
    SAF_TRY(saf_comm_bcast(world, 0, &t));
    if (rank != 0) st = saf__job_of_text(text.data, "rank 0's job", given);
    SAF_TRY(saf_comm_agree(world, st));
out:
    saf_buf_free(&text);
    return st;
}

saf_status saf__job_alone(saf_comm *world, saf_status st) {
    if (st == SAF_OK || saf_comm_size(world) == 1) return st;
    saf_log(SAF_LOG_ERROR, "%s", saf_error_text());
    saf_comm_abort(world, saf_status_exit_code(st));
}

/* The folder that a file is in, and its name there. False: longer than any path. */
static bool split(const char *path, char folder[PATH_MAX], const char **name) {
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    int n = !slash ? snprintf(folder, PATH_MAX, ".")
                   : snprintf(folder, PATH_MAX, "%.*s", (int)(slash + 1 - path), path);
    return n >= 0 && n < PATH_MAX;
}

bool saf__is_same_place(const char *a, const char *b) {
    char in_a[PATH_MAX], in_b[PATH_MAX];
    const char *name_a, *name_b;
    if (strcmp(a, b) == 0 || saf_file_is_same(a, b)) return true;
    return split(a, in_a, &name_a) && split(b, in_b, &name_b) && strcmp(name_a, name_b) == 0 &&
           saf_file_is_same(in_a, in_b);
}
