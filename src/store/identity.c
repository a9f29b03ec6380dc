#include "store/identity.h"

#include <stdio.h>

/* Far beyond any job's: what a file may claim. */
enum { MOST_ITEMS = 4096, MOST_BYTES = 16 << 20 };

const saf__h5_label saf__identity_names = {"/identity/names", "text",
                                           "what makes two runs the same job: names"};
const saf__h5_label saf__identity_values = {"/identity/values", "text",
                                            "what makes two runs the same job: value of each name"};

static const char *find(const saf_identity *id, const char *name) {
    for (int32_t i = 0; i < id->n; i++)
        if (strcmp(id->items[i].name, name) == 0) return id->items[i].value;
    return NULL;
}

/* What a file gives back is valid UTF-8: so is what it is compared with. */
static saf_status clean_copy(const char *text, char **out) {
    const char *clean = NULL;
    saf_status st = saf__h5_clean(text, out, &clean);
    if (st == SAF_OK && clean == text) st = saf_strdup(text, out);
    return st;
}

saf_status saf_identity_add(saf_identity *id, const char *name, const char *value) {
    saf_status st = SAF_OK;
    saf_identity_item item = {NULL, NULL}, *items = NULL;
    if (!*name || find(id, name) || id->n >= MOST_ITEMS)
        return saf_fail(SAF_DEFECT, "a job's identity: item %d, \"%s\", is there already",
                        (int)id->n, name);
    SAF_TRY(clean_copy(name, &item.name));
    SAF_TRY(clean_copy(value, &item.value));
    SAF_TRY(saf_alloc((size_t)id->n + 1, sizeof *items, &items));
    if (id->n > 0) memcpy(items, id->items, (size_t)id->n * sizeof *items);
    items[id->n] = item;
    item = (saf_identity_item){NULL, NULL};
    saf_free(&id->items);
    id->items = items;
    id->n++;
out:
    saf_free(&item.name);
    saf_free(&item.value);
    return st;
}

void saf_identity_free(saf_identity *id) {
    for (int32_t i = 0; i < id->n; i++) {
        saf_free(&id->items[i].name);
        saf_free(&id->items[i].value);
    }
    saf_free(&id->items);
    id->n = 0;
}

/* ---- comparing ---- */

/* A value as a message shows it: its beginning, on one line. */
static const char *shown(const char *value, char out[80]) {
    enum { MOST = 64 };
    if (!value) return "not given";
    if (!*value) return "empty";
    size_t len = strlen(value);
    size_t keep = len > MOST ? saf_utf8_whole_prefix(value, MOST) : len;
    snprintf(out, 80, "%.*s%s", (int)keep, value, keep < len ? "..." : "");
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
    return out;
}

static saf_status differs(const char *file, const char *name, const char *was, const char *is) {
    char before[80], after[80];
    return saf_fail(SAF_BAD_INPUT,
                    "%s is of another job: %s was %s and is %s; --fresh starts over, or choose "
                    "another output.file",
                    file, name, shown(was, before), shown(is, after));
}

saf_status saf_identity_check(const saf_identity *now, const saf_identity *then, const char *file) {
    for (int32_t i = 0; i < now->n; i++) {
        const saf_identity_item *item = &now->items[i];
        const char *was = find(then, item->name);
        if (!was || strcmp(was, item->value) != 0)
            return differs(file, item->name, was, item->value);
    }
    for (int32_t i = 0; i < then->n; i++)
        if (!find(now, then->items[i].name))
            return differs(file, then->items[i].name, then->items[i].value, NULL);
    return SAF_OK;
}

/* ---- in a file ---- */

saf_status saf__identity_write(const saf__h5 *f, const saf_identity *id) {
    saf_status st = SAF_OK;
    const char **texts = NULL;
    if (id->n == 0) return SAF_OK;
    SAF_TRY(saf_alloc((size_t)id->n, sizeof *texts, &texts));
    for (int32_t i = 0; i < id->n; i++) texts[i] = id->items[i].name;
    SAF_TRY(saf__h5_put_strings(f, &saf__identity_names, id->n, texts));
    for (int32_t i = 0; i < id->n; i++) texts[i] = id->items[i].value;
    SAF_TRY(saf__h5_put_strings(f, &saf__identity_values, id->n, texts));
out:
    saf_free(&texts);
    return st;
}

/* Many places of a file can refer to the same long text: their sum is asked for beforehand. Texts
 * of variable length are places of a file with a length each, which HDF5 believes: they must be of
 * this file, whose checksum a checkpoint's reader has seen. */
static saf_status check_size(const saf__h5 *f, const char *path) {
    saf_status st = SAF_OK;
    hid_t dataset = H5I_INVALID_HID, type = H5I_INVALID_HID, space = H5I_INVALID_HID;
    int64_t shape[2] = {0, 1};
    hsize_t bytes = 0;
    SAF_TRY(saf__h5_check_inside(f, "/identity", path));
    SAF_TRY(saf__h5_open(f, path, H5T_STRING, 1, &dataset, shape));
    SAF_TRY(saf__h5_check_own(f, path, dataset));
    SAF_TRY(saf__h5_take(f, H5Dget_type(dataset), path, &type));
    SAF_TRY(saf__h5_take(f, H5Dget_space(dataset), path, &space));
    htri_t variable = H5Tis_variable_str(type);
    SAF_TRY(saf__h5_check(f, variable, path));
    if (shape[0] <= MOST_ITEMS && variable && shape[0] > 0)
        SAF_TRY(saf__h5_check(f, H5Dvlen_get_buf_size(dataset, type, space, &bytes), path));
    if (shape[0] > MOST_ITEMS || bytes > MOST_BYTES)
        st = saf_fail(SAF_BAD_INPUT, "%s: %s has %lld texts of %llu bytes", f->path, path,
                      (long long)shape[0], (unsigned long long)bytes);
out:
    saf__h5_close(&space);
    saf__h5_close(&type);
    saf__h5_close(&dataset);
    return st;
}

static saf_status read_item(const saf__h5 *f, const char *name, const char *value,
                            saf_identity *out) {
    if (!*name || find(out, name))
        return saf_fail(SAF_BAD_INPUT, "%s: \"%s\" is in %s twice", f->path, name,
                        saf__identity_names.path);
    return saf_identity_add(out, name, value);
}

saf_status saf__identity_read(const saf__h5 *f, saf_identity *out) {
    saf_status st = SAF_OK;
    saf_identity id = {0};
    char **names = NULL, **values = NULL;
    int64_t n_names = 0, n_values = 0;
    bool there = false;
    SAF_TRY(saf__h5_has(f, saf__identity_names.path, &there));
    if (!there) return SAF_OK;
    SAF_TRY(check_size(f, saf__identity_names.path));
    SAF_TRY(check_size(f, saf__identity_values.path));
    SAF_TRY(saf__h5_get_strings(f, saf__identity_names.path, &names, &n_names));
    SAF_TRY(saf__h5_get_strings(f, saf__identity_values.path, &values, &n_values));
    if (n_names != n_values) {
        st = saf_fail(SAF_BAD_INPUT, "%s: %lld names, but %lld values in /identity", f->path,
                      (long long)n_names, (long long)n_values);
        goto out;
    }
    for (int64_t i = 0; i < n_names; i++) SAF_TRY(read_item(f, names[i], values[i], &id));
    *out = id;
    id = (saf_identity){0};
out:
    for (int64_t i = 0; names && i < n_names; i++) saf_free(&names[i]);
    for (int64_t i = 0; values && i < n_values; i++) saf_free(&values[i]);
    saf_free(&names);
    saf_free(&values);
    saf_identity_free(&id);
    return st;
}
