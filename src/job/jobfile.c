/* saf_job_read: the file, the command line's overrides, what must be there, the text as it runs. */
#include <stdio.h>
#include <stdlib.h>

#include "job/fields.h"
#include "job/prompts.h"
#include "job/saver.h"
#include "job/session.h"
#include "job/source.h"

enum { KEY_BYTES = 128 };

typedef struct {
    saf_job *job;
    saf__source source;
    config_t config;
    saf__where given[SAF__FIELDS_MAX]; /* where each field's value came from; file NULL: nowhere */
    saf__where whole;                  /* the job file itself */
} reader;

typedef struct {
    char key[KEY_BYTES];
    const char *value; /* borrowed from the word */
} override;

static const saf__where command_line = {"command line", 0, SAF_USAGE};

/* ---- command line -------------------------------------------------------------------------- */

static saf_status split_override(const char *word, override *out) {
    char quoted[SAF__QUOTE_BYTES];
    const char *equals = strchr(word, '=');
    size_t n = equals ? (size_t)(equals - word) : 0;
    if (n == 0 || n >= sizeof out->key)
        return saf__fail_at(&command_line, NULL, "expected key=value, got %s",
                            saf__quote(word, quoted));
    memcpy(out->key, word, n);
    out->key[n] = 0;
    out->value = equals + 1;
    return SAF_OK;
}

static saf_status unknown_or_group(saf_job_kind kind, const char *key, const saf__where *at) {
    if (saf__field_is_group(kind, key))
        return saf__fail_at(at, key, "a group of keys, expected %s", "{ key = value; ... }");
    return saf__field_unknown(kind, key, at);
}

static saf_status apply_override(reader *r, const override *o) {
    saf_status st = SAF_OK;
    const saf__field *f = saf__field_find(r->job->kind, o->key);
    if (!f && saf__field_is_group(r->job->kind, o->key))
        return saf__fail_at(&command_line, o->key, "a group of keys, expected %s.KEY=VALUE",
                            o->key);
    if (!f) return saf__field_unknown(r->job->kind, o->key, &command_line);
    SAF_TRY(saf__field_set_text(r->job, f, o->value, &command_line));
    r->given[f - saf__fields] = command_line;
out:
    return st;
}

/* An input on the command line takes the place of whichever one the file names. */
static void drop_file_inputs(reader *r) {
    for (int i = 0; i < saf__field_count; i++) {
        if (!saf__fields[i].input || !r->given[i].file) continue;
        saf__field_clear(r->job, &saf__fields[i]);
        r->given[i].file = NULL;
    }
}

static saf_status apply_overrides(reader *r, int n, const char *const *words) {
    saf_status st = SAF_OK;
    override o = {0};
    for (int i = 0; i < n; i++) {
        SAF_TRY(split_override(words[i], &o));
        const saf__field *f = saf__field_find(r->job->kind, o.key);
        if (!f || !f->input) continue;
        drop_file_inputs(r);
        break;
    }
    for (int i = 0; i < n; i++) {
        SAF_TRY(split_override(words[i], &o));
        SAF_TRY(apply_override(r, &o));
    }
out:
    return st;
}

/* ---- file ---------------------------------------------------------------------------------- */

static saf_status parse_file(reader *r) {
    saf_status st = saf__libconfig_room(r->source.text.len);
    if (st != SAF_OK) return st;
    if (config_read_string(&r->config, r->source.text.data)) return SAF_OK;
    saf__where at = saf__source_where(&r->source, config_error_line(&r->config));
    const char *why = config_error_text(&r->config);
    /* 4.0 and 1 are of two types to libconfig: of all its words the least clear. */
    const char *more = why && strstr(why, "mismatched element type")
                           ? ": numbers in [ ] are all with a decimal point or all without"
                           : "";
    return saf__fail_at(&at, NULL, "%s%s", why ? why : "not understood", more);
}

static saf__where where_of(const reader *r, const config_setting_t *v) {
    return saf__source_where(&r->source, v->line);
}

/* The kind decides which keys there are: it is found before everything else. */
static saf_status find_kind(reader *r, int n, const char *const *words) {
    saf_status st = SAF_OK;
    const saf__field *f = saf__field_find(SAF_JOB_GENERATE, "job");
    const config_setting_t *v = config_setting_get_member(config_root_setting(&r->config), "job");
    bool found = v != NULL;
    if (v) {
        saf__where at = where_of(r, v);
        SAF_TRY(saf__field_set(r->job, f, v, &at));
    }
    for (int i = 0; i < n; i++) {
        override o = {0};
        SAF_TRY(split_override(words[i], &o));
        if (strcmp(o.key, "job") != 0) continue;
        SAF_TRY(saf__field_set_text(r->job, f, o.value, &command_line));
        found = true;
    }
    if (!found)
        st = saf__fail_at(&r->whole, "job",
                          "missing, expected generate, score, bench, matmul or train");
out:
    return st;
}

static saf_status apply_setting(reader *r, const config_setting_t *v, const char *key) {
    saf_status st = SAF_OK;
    saf__where at = where_of(r, v);
    const saf__field *f = saf__field_find(r->job->kind, key);
    if (!f) return unknown_or_group(r->job->kind, key, &at);
    if (strcmp(key, "job") == 0) return SAF_OK; /* find_kind has it, overrides considered */
    SAF_TRY(saf__field_set(r->job, f, v, &at));
    r->given[f - saf__fields] = at;
out:
    return st;
}

static saf_status apply_file(reader *r) {
    saf_status st = SAF_OK;
    char key[KEY_BYTES];
    const config_setting_t *root = config_root_setting(&r->config);
    for (int i = 0; i < config_setting_length(root); i++) {
        const config_setting_t *group = config_setting_get_elem(root, (unsigned)i);
        const char *name = config_setting_name(group);
        if (!config_setting_is_group(group) || !saf__field_is_group(r->job->kind, name)) {
            SAF_TRY(apply_setting(r, group, name));
            continue;
        }
        for (int j = 0; j < config_setting_length(group); j++) {
            const config_setting_t *v = config_setting_get_elem(group, (unsigned)j);
            snprintf(key, sizeof key, "%s.%s", name, config_setting_name(v));
            SAF_TRY(apply_setting(r, v, key));
        }
    }
out:
    return st;
}

/* ---- the job as a whole -------------------------------------------------------------------- */

static saf_status apply_defaults(reader *r) {
    saf_status st = SAF_OK;
    static const saf__where table = {"table of keys", 0, SAF_DEFECT};
    for (int i = 0; i < saf__field_count; i++)
        if (saf__fields[i].initial)
            SAF_TRY(saf__field_set_text(r->job, &saf__fields[i], saf__fields[i].initial, &table));
out:
    return st;
}

/* results/NAME.h5 for a job file NAME.cfg in any folder. */
static saf_status default_output(saf_job *job) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    const char *slash = strrchr(job->path, '/'), *name = slash ? slash + 1 : job->path;
    const char *dot = strrchr(name, '.');
    size_t n = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    SAF_TRY(saf_buf_printf(&path, "results/%.*s.h5", (int)n, name));
    st = saf_strdup(path.data, &job->output.file);
out:
    saf_buf_free(&path);
    return st;
}

/* DIR/NAME.gguf for results DIR/NAME.h5. */
static saf_status default_model(saf_job *job) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    const char *file = job->output.file;
    size_t n = strlen(file);
    if (n > 3 && strcmp(file + n - 3, ".h5") == 0) n -= 3;
    SAF_TRY(saf_buf_printf(&path, "%.*s.gguf", (int)n, file));
    st = saf_strdup(path.data, &job->output.model);
out:
    saf_buf_free(&path);
    return st;
}

static saf_status input_missing(const reader *r) {
    saf_status st = SAF_OK;
    saf_buf names = {0};
    for (int i = 0; i < saf__field_count; i++)
        if (saf__fields[i].input && saf__fields[i].kinds & 1u << r->job->kind)
            SAF_TRY(saf_buf_printf(&names, "%s%s", names.len ? ", " : "", saf__fields[i].key));
    st = saf__fail_at(&r->whole, "input", "missing, expected one of %s", names.data);
out:
    saf_buf_free(&names);
    return st;
}

static saf_status check_inputs(const reader *r) {
    const saf__field *first = NULL;
    if (!saf__kind_has_input(r->job->kind)) return SAF_OK;
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (!f->input || !r->given[i].file) continue;
        if (first)
            return saf__fail_at(&r->given[i], f->key, "%s is given as well, expected only one",
                                first->key);
        first = f;
    }
    if (!first) return input_missing(r);
    if (first->offset != offsetof(saf_job, input.prompts) &&
        first->offset != offsetof(saf_job, input.texts))
        return SAF_OK;
    const char *name = r->job->input.prompts ? r->job->input.prompts : r->job->input.texts;
    if (saf__prompts_form_of(name) != SAF__PROMPTS_UNKNOWN) return SAF_OK;
    char quoted[SAF__QUOTE_BYTES];
    return saf__fail_at(&r->given[first - saf__fields], first->key,
                        "expected FILE.txt, FILE.jsonl or FILE.h5:/DATASET, got %s",
                        saf__quote(name, quoted));
}

/* A file or a shape, and not both; a word of the command line takes the place of the file's. */
static saf_status check_bench(reader *r) {
    const saf__field *path = saf__field_find(SAF_JOB_BENCH, "model.path");
    const saf__field *shape = saf__field_find(SAF_JOB_BENCH, "model.shape");
    saf_job *job = r->job;
    bool wanted = (saf__suites_of(job) & 1u << SAF__SUITE_MODEL) != 0;
    const saf__where *from[2] = {&r->given[path - saf__fields], &r->given[shape - saf__fields]};
    saf_model_make_options ignored;
    if (job->bench.n_suites == 0) {
        const saf__field *f = saf__field_find(SAF_JOB_BENCH, "bench.suites");
        return saf__fail_at(&r->given[f - saf__fields], f->key, "expected at least one suite");
    }
    if (wanted && !job->model.path && !job->model.shape)
        return saf__fail_at(&r->whole, path->key, "missing, expected a file, or a shape in %s",
                            shape->key);
    if (job->model.path && job->model.shape) {
        bool of_words[2] = {from[0]->file == command_line.file, from[1]->file == command_line.file};
        if (of_words[0] == of_words[1])
            return saf__fail_at(from[1], shape->key, "%s is given as well, expected only one",
                                path->key);
        saf__field_clear(job, of_words[0] ? shape : path);
    }
    if (job->model.shape && !saf_model_shape_read(job->model.shape, &ignored)) {
        char quoted[SAF__QUOTE_BYTES];
        return saf__fail_at(from[1], shape->key,
                            "expected layers:width:heads:kv_heads:head_width:feed_forward, got %s",
                            saf__quote(job->model.shape, quoted));
    }
    return SAF_OK;
}

static saf_status check_time_limit(const reader *r) {
    const char *limit = r->job->run.time_limit;
    char quoted[SAF__QUOTE_BYTES];
    double ignored;
    if (!limit || !*limit || strcmp(limit, "none") == 0 || strcmp(limit, "slurm") == 0 ||
        saf__time_limit_read(limit, &ignored))
        return SAF_OK;
    const saf__field *f = saf__field_find(r->job->kind, "run.time_limit");
    return saf__fail_at(&r->given[f - saf__fields], f->key,
                        "expected none, slurm, 90s, MM, MM:SS, HH:MM:SS or D-HH:MM:SS, got %s",
                        saf__quote(limit, quoted));
}

static saf_status check_whole(reader *r) {
    saf_status st = SAF_OK;
    const saf_job *job = r->job;
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (f->required && f->kinds & 1u << job->kind && !saf__field_has_value(job, f))
            return saf__fail_at(&r->whole, f->key, "missing, expected %s", f->help);
    }
    SAF_TRY(check_inputs(r));
    if (job->kind == SAF_JOB_BENCH) SAF_TRY(check_bench(r));
    if (job->kind == SAF_JOB_MATMUL) SAF_TRY(saf__matmul_keys_check(job, r->given, &r->whole));
    if (job->kind == SAF_JOB_TRAIN) SAF_TRY(saf__train_keys_check(job, r->given, &r->whole));
    if (job->layout.n_stages > 0 && job->layout.pipeline > 0 &&
        job->layout.n_stages != job->layout.pipeline) {
        const saf__field *f = saf__field_find(job->kind, "layout.stages");
        return saf__fail_at(&r->given[f - saf__fields], f->key,
                            "expected as many entries as layout.pipeline, which is %d, got %d",
                            job->layout.pipeline, job->layout.n_stages);
    }
    if (job->input.shard > job->input.shards) {
        const saf__field *f = saf__field_find(job->kind, "input.shard");
        return saf__fail_at(&r->given[f - saf__fields], f->key,
                            "expected at most input.shards, which is %d, got %d", job->input.shards,
                            job->input.shard);
    }
    SAF_TRY(check_time_limit(r));
    if (!job->output.file) SAF_TRY(default_output(r->job));
    if (job->kind == SAF_JOB_TRAIN && !job->output.model) st = default_model(r->job);
out:
    return st;
}

/* Every key of the kind that has a value, group by group. */
static saf_status write_text(saf_job *job) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    const char *open = ""; /* the group being written */
    size_t open_len = 0;
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (!(f->kinds & 1u << job->kind) ||
            (!saf__field_is_list(f) && !saf__field_has_value(job, f)))
            continue;
        const char *dot = strchr(f->key, '.');
        size_t n = dot ? (size_t)(dot - f->key) : 0;
        if (n != open_len || strncmp(open, f->key, n) != 0) {
            if (open_len) SAF_TRY(saf_buf_printf(&text, "};\n"));
            if (n) SAF_TRY(saf_buf_printf(&text, "%.*s: {\n", (int)n, f->key));
            open = f->key;
            open_len = n;
        }
        SAF_TRY(saf_buf_printf(&text, "%s%s = ", n ? "    " : "", dot ? dot + 1 : f->key));
        SAF_TRY(saf__field_write(job, f, &text));
        SAF_TRY(saf_buf_printf(&text, ";\n"));
    }
    if (open_len) SAF_TRY(saf_buf_printf(&text, "};\n"));
    st = saf_strdup(text.data, &job->text);
out:
    saf_buf_free(&text);
    return st;
}

/* From the file at `path`; or from a text, which `path` then only names. */
static saf_status read_job(const char *path, const char *text, int n_overrides,
                           const char *const *overrides, saf_job *out) {
    saf_status st = SAF_OK;
    saf_job job = {0};
    reader r = {.job = &job, .whole = {path, 0, SAF_USAGE}};
    bool configured = false;
    SAF_TRY(saf__libconfig_room(0));
    config_init(&r.config);
    configured = true;
    SAF_TRY(saf_strdup(path, &job.path));
    SAF_TRY(text ? saf__source_of_text(text, &r.whole, &r.source)
                 : saf__source_read(path, &r.source));
    SAF_TRY(parse_file(&r));
    SAF_TRY(find_kind(&r, n_overrides, overrides));
    SAF_TRY(apply_defaults(&r));
    SAF_TRY(apply_file(&r));
    SAF_TRY(apply_overrides(&r, n_overrides, overrides));
    SAF_TRY(check_whole(&r));
    SAF_TRY(write_text(&job));
    *out = job;
    job = (saf_job){0};
out:
    saf_job_free(&job);
    saf__source_free(&r.source);
    if (configured) config_destroy(&r.config);
    return st;
}

saf_status saf_job_read(const char *path, int n_overrides, const char *const *overrides,
                        saf_job *out) {
    return read_job(path, NULL, n_overrides, overrides, out);
}

saf_status saf__job_of_text(const char *text, const char *name, saf_job *out) {
    return read_job(name, text, 0, NULL, out);
}

saf_status saf__job_rewrite(saf_job *job) {
    saf_free(&job->text);
    return write_text(job);
}

void saf_job_free(saf_job *job) {
    for (int i = 0; i < saf__field_count; i++) saf__field_clear(job, &saf__fields[i]);
    saf_free(&job->path);
    saf_free(&job->text);
    *job = (saf_job){0};
}
