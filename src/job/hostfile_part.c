/* The part of a hostfile that is kept: its slots, and a hostfile of it. */
#include "saf/job_hosts.h"

saf_status saf_hostfile_slots(const saf_hostfile *file, const bool *keep, int64_t *slots) {
    saf_status st = SAF_OK;
    int32_t *lines = NULL; /* of each host */
    int64_t sum = 0;
    bool known = true;
    SAF_TRY(saf_alloc((size_t)file->n_hosts, sizeof *lines, &lines));
    for (int32_t i = 0; i < file->n; i++) lines[file->lines[i].host]++;
    for (int32_t i = 0; i < file->n; i++) {
        const saf_host_line *l = &file->lines[i];
        if (keep && !keep[l->host]) continue;
        known &= l->slots || l->max_slots || lines[l->host] > 1;
        sum += l->slots ? l->slots : l->max_slots ? l->max_slots : 1;
    }
    *slots = known ? sum : 0;
out:
    saf_free(&lines);
    return st;
}

saf_status saf_hostfile_write(const saf_hostfile *file, const bool *keep, saf_buf *out) {
    saf_status st = SAF_OK;
    for (int32_t i = 0; i < file->n; i++) {
        const saf_host_line *l = &file->lines[i];
        if (keep && !keep[l->host]) continue;
        SAF_TRY(saf_buf_printf(out, "%s", l->name));
        if (l->slots) SAF_TRY(saf_buf_printf(out, " slots=%d", (int)l->slots));
        if (l->max_slots) SAF_TRY(saf_buf_printf(out, " max_slots=%d", (int)l->max_slots));
        SAF_TRY(saf_buf_append(out, "\n", 1));
    }
out:
    return st;
}
