/* What a checkpoint says of its job: root attributes and /identity. */
#include <math.h>

#include "store/checkpoint.h"

/* Apart from the `schema_version` of results files, so that neither passes for the other. */
static const char schema_name[] = "checkpoint_schema";

enum { MOST_TEXT = 4096 };

void saf_checkpoint_head_free(saf_checkpoint_head *head) {
    saf_free(&head->kind);
    saf_free(&head->model_name);
    saf_free(&head->version);
    saf_free(&head->start_time);
    saf_free(&head->written);
    saf_identity_free(&head->identity);
    memset(head, 0, sizeof *head);
}

static saf_status put_text(const saf__h5 *f, const char *name, const char *text) {
    return saf__h5_put_text(f, f->id, name, text ? text : "");
}

saf_status saf__checkpoint_head_write(const saf__h5 *f, const saf_checkpoint_head *head) {
    saf_status st = SAF_OK;
    SAF_TRY(saf__h5_put_i64(f, f->id, schema_name, SAF_CHECKPOINT_SCHEMA));
    SAF_TRY(put_text(f, "saf_version", head->version));
    SAF_TRY(put_text(f, "job_kind", head->kind));
    if (head->model_name) SAF_TRY(put_text(f, "model_name", head->model_name));
    SAF_TRY(put_text(f, "start_time", head->start_time));
    SAF_TRY(put_text(f, "written", head->written));
    SAF_TRY(saf__h5_put_i64(f, f->id, "done", head->done));
    SAF_TRY(saf__h5_put_i64(f, f->id, "total", head->total));
    SAF_TRY(saf__h5_put_i64(f, f->id, "tokens", head->tokens));
    SAF_TRY(saf__h5_put_f64(f, f->id, "seconds", head->seconds));
    SAF_TRY(saf__h5_put_i64(f, f->id, "resumes", head->resumes));
    SAF_TRY(saf__identity_write(f, &head->identity));
out:
    return st;
}

static saf_status get_text(const saf__h5 *f, const char *name, char **out) {
    saf_status st = saf__h5_get_text(f, f->id, name, out);
    if (st != SAF_OK) return st;
    if (!*out) return saf_fail(SAF_BAD_INPUT, "%s: attribute %s is missing", f->path, name);
    if (strlen(*out) > MOST_TEXT)
        return saf_fail(SAF_BAD_INPUT, "%s: attribute %s is %zu bytes long", f->path, name,
                        strlen(*out));
    return SAF_OK;
}

static saf_status get_count(const saf__h5 *f, const char *name, int64_t most, int64_t *out) {
    saf_status st = saf__h5_get_i64(f, f->id, name, out);
    if (st == SAF_OK && (*out < 0 || *out > most))
        st = saf_fail(SAF_BAD_INPUT, "%s: attribute %s is %lld, expected 0 to %lld", f->path, name,
                      (long long)*out, (long long)most);
    return st;
}

static saf_status check_schema(const saf__h5 *f, bool *newer) {
    int64_t schema = 0;
    htri_t there = H5Aexists(f->id, schema_name);
    if (there <= 0) return saf_fail(SAF_BAD_INPUT, "%s is no checkpoint of saf", f->path);
    saf_status st = saf__h5_get_i64(f, f->id, schema_name, &schema);
    if (st != SAF_OK) return st;
    *newer = schema > SAF_CHECKPOINT_SCHEMA;
    if (schema >= 1 && !*newer) return SAF_OK;
    return saf_fail(SAF_BAD_INPUT, "%s has schema %lld, this saf knows 1 to %d%s", f->path,
                    (long long)schema, SAF_CHECKPOINT_SCHEMA,
                    *newer ? ": a newer saf wrote it and can go on from it" : "");
}

saf_status saf__checkpoint_head_read(const saf__h5 *f, saf_checkpoint_head *out, bool *newer) {
    saf_status st = SAF_OK;
    saf_checkpoint_head head = {0};
    int64_t resumes = 0;
    *newer = false;
    SAF_TRY(check_schema(f, newer));
    SAF_TRY(get_text(f, "saf_version", &head.version));
    SAF_TRY(get_text(f, "job_kind", &head.kind));
    if (H5Aexists(f->id, "model_name") != 0) SAF_TRY(get_text(f, "model_name", &head.model_name));
    SAF_TRY(get_text(f, "start_time", &head.start_time));
    SAF_TRY(get_text(f, "written", &head.written));
    SAF_TRY(get_count(f, "total", INT64_MAX, &head.total));
    SAF_TRY(get_count(f, "done", head.total, &head.done));
    SAF_TRY(get_count(f, "tokens", INT64_MAX, &head.tokens));
    SAF_TRY(get_count(f, "resumes", INT32_MAX, &resumes));
    head.resumes = (int32_t)resumes;
    SAF_TRY(saf__h5_get_f64(f, f->id, "seconds", &head.seconds));
    if (!isfinite(head.seconds) || head.seconds < 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: attribute seconds is %g", f->path, head.seconds);
        goto out;
    }
    SAF_TRY(saf__identity_read(f, &head.identity));
    *out = head;
    head = (saf_checkpoint_head){0};
out:
    saf_checkpoint_head_free(&head);
    return st;
}
