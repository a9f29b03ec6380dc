#include <stdlib.h>

#include "job/where.h"
#include "saf/job_hosts.h"

static const size_t max_file_bytes = (size_t)16 << 20;

/* ---- words --------------------------------------------------------------------------------- */

typedef struct {
    const char *at, *end;
    saf__where where; /* its line is that of the newest word */
} reader;

typedef enum { WORD, EQUALS, NEWLINE, END } token_kind;

typedef struct {
    token_kind kind;
    const char *text;
    size_t len;
} token;

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static bool starts(const reader *r, const char *two) {
    return r->end - r->at >= 2 && memcmp(r->at, two, 2) == 0;
}

static bool ends_word(const reader *r) {
    char c = *r->at;
    return is_space(c) || c == '\n' || c == '=' || c == '#' || starts(r, "//") || starts(r, "/*");
}

/* Skips spaces and comments up to a word, the end of a line or that of the text. */
static saf_status skip(reader *r) {
    while (r->at < r->end) {
        if (is_space(*r->at)) {
            r->at++;
        } else if (*r->at == '#' || starts(r, "//")) {
            while (r->at < r->end && *r->at != '\n') r->at++;
        } else if (starts(r, "/*")) {
            int64_t first = r->where.line;
            for (r->at += 2; r->at < r->end && !starts(r, "*/"); r->at++)
                r->where.line += *r->at == '\n';
            if (r->at == r->end) {
                r->where.line = first;
                return saf__fail_at(&r->where, NULL, "this comment has no end");
            }
            r->at += 2;
        } else {
            break;
        }
    }
    return SAF_OK;
}

static saf_status next(reader *r, token *t) {
    saf_status st = SAF_OK;
    SAF_TRY(skip(r));
    *t = (token){.kind = END, .text = r->at};
    if (r->at == r->end) return SAF_OK;
    char c = *r->at++;
    t->len = 1;
    t->kind = c == '\n' ? NEWLINE : c == '=' ? EQUALS : WORD;
    while (t->kind == WORD && r->at < r->end && !ends_word(r)) r->at++, t->len++;
out:
    return st;
}

static saf_status fail_word(const reader *r, const token *t, const char *expected) {
    char word[SAF__QUOTE_BYTES], quoted[SAF__QUOTE_BYTES];
    size_t len = t->len < sizeof word ? t->len : sizeof word - 1;
    memcpy(word, t->text, len);
    word[len] = 0;
    for (size_t i = 0; i < len; i++)
        if (!word[i]) word[i] = '?';
    bool is_end = t->kind == NEWLINE || t->kind == END;
    return saf__fail_at(&r->where, NULL, "expected %s, got %s", expected,
                        is_end ? "the end of the line" : saf__quote(word, quoted));
}

static bool is_any(const token *t, const char *const *words) {
    for (; *words; words++)
        if (strlen(*words) == t->len && memcmp(*words, t->text, t->len) == 0) return true;
    return false;
}

/* ---- names and numbers --------------------------------------------------------------------- */

/* Of a user or a host: ssh takes what begins with '-' for an option. */
static bool is_name(const char *text, size_t len, const char *others) {
    if (len == 0 || text[0] == '-') return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == 0 || !strchr(others, c))) return false;
    }
    return true;
}

static bool is_user(const char *text, size_t len) {
    return is_name(text, len, "._-");
}

static saf_status read_name(const reader *r, const token *t, char **out) {
    saf_status st = SAF_OK;
    saf_buf name = {0};
    const char *at = t->kind == WORD ? memchr(t->text, '@', t->len) : NULL;
    size_t user = at ? (size_t)(at - t->text) : 0, skipped = at ? user + 1 : 0;
    if (t->kind != WORD || (at && !is_user(t->text, user)) ||
        !is_name(t->text + skipped, t->len - skipped, "._-:%[]"))
        return fail_word(r, t, "the name or address of a host");
    if (t->len > SAF_HOST_NAME_MAX)
        return saf__fail_at(&r->where, NULL, "a name of %zu bytes; hosts have at most %d", t->len,
                            SAF_HOST_NAME_MAX);
    SAF_TRY(saf_buf_append(&name, t->text, t->len));
    SAF_TRY(saf_strdup(name.data, out));
out:
    saf_buf_free(&name);
    return st;
}

_Static_assert(SAF_HOST_SLOTS_MAX == 65536, "a message says this number");
static saf_status read_count(const reader *r, const token *t, int32_t *out) {
    int32_t n = 0;
    bool good = t->kind == WORD && t->len <= 9;
    for (size_t i = 0; good && i < t->len; i++) {
        good = t->text[i] >= '0' && t->text[i] <= '9';
        if (good) n = 10 * n + (t->text[i] - '0');
    }
    if (!good || n < 1 || n > SAF_HOST_SLOTS_MAX)
        return fail_word(r, t, "a number of slots, 1 to 65536");
    *out = n;
    return SAF_OK;
}

/* ---- lines --------------------------------------------------------------------------------- */

static saf_status add_user(const reader *r, const token *t, saf_host_line *line) {
    saf_status st = SAF_OK;
    saf_buf name = {0};
    if (t->kind != WORD || !is_user(t->text, t->len)) return fail_word(r, t, "the name of a user");
    if (strchr(line->name, '@'))
        return saf__fail_at(&r->where, NULL, "%s has a user already", line->name);
    SAF_TRY(saf_buf_append(&name, t->text, t->len));
    SAF_TRY(saf_buf_printf(&name, "@%s", line->name));
    if (name.len > SAF_HOST_NAME_MAX) {
        st = fail_word(r, t, "a shorter name of a user");
        goto out;
    }
    saf_free(&line->name);
    st = saf_strdup(name.data, &line->name);
out:
    saf_buf_free(&name);
    return st;
}

/* KEY = VALUE, of which t is the key. */
static saf_status read_setting(reader *r, const token *t, saf_host_line *line) {
    static const char *const slots[] = {"slots", "cpu", "count", NULL};
    static const char *const most[] = {
        "max_slots", "max-slots", "slots_max", "slots-max", "max_cpu",   "max-cpu", "cpu_max",
        "cpu-max",   "max_count", "max-count", "count_max", "count-max", NULL};
    static const char *const user[] = {"username", "user_name", "user-name", NULL};
    saf_status st = SAF_OK;
    token key = *t, value = {0};
    bool is_slots = is_any(&key, slots), is_most = is_any(&key, most);
    if (key.kind != WORD || !(is_slots || is_most || is_any(&key, user)))
        return fail_word(r, &key, "slots=N, max_slots=N or username=NAME");
    SAF_TRY(next(r, &value));
    if (value.kind != EQUALS) return fail_word(r, &value, "\"=\"");
    SAF_TRY(next(r, &value));
    if (!is_slots && !is_most) return add_user(r, &value, line);
    int32_t *place = is_slots ? &line->slots : &line->max_slots;
    if (*place) return saf__fail_at(&r->where, NULL, "%s has this number twice", line->name);
    st = read_count(r, &value, place);
out:
    return st;
}

/* Reads a line, of which t is the first word, its end included; what is in *line is the caller's.
 */
static saf_status read_line(reader *r, token t, saf_host_line *line) {
    saf_status st = SAF_OK;
    line->line = (int32_t)r->where.line;
    SAF_TRY(read_name(r, &t, &line->name));
    for (;;) {
        SAF_TRY(next(r, &t));
        if (t.kind == NEWLINE || t.kind == END) break;
        SAF_TRY(read_setting(r, &t, line));
    }
    if (line->slots && line->max_slots && line->max_slots < line->slots)
        st = saf__fail_at(&r->where, NULL, "max_slots=%d is less than slots=%d",
                          (int)line->max_slots, (int)line->slots);
    if (t.kind == NEWLINE) r->where.line++;
out:
    return st;
}

static saf_status room_for_one(const reader *r, saf_hostfile *file, int32_t *cap) {
    saf_status st = SAF_OK;
    saf_host_line *lines = NULL;
    if (file->n < *cap) return SAF_OK;
    if (file->n == SAF_HOST_LINES_MAX)
        return saf__fail_at(&r->where, NULL, "more than %d lines with hosts", SAF_HOST_LINES_MAX);
    int32_t wanted = *cap ? 2 * *cap : 16;
    SAF_TRY(saf_alloc((size_t)wanted, sizeof *lines, &lines));
    if (file->n > 0) memcpy(lines, file->lines, (size_t)file->n * sizeof *lines);
    saf_free(&file->lines);
    file->lines = lines;
    *cap = wanted;
out:
    return st;
}

/* ---- hosts --------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    const saf_host_line *const *x = a, *const *y = b;
    int order = strcmp((*x)->name, (*y)->name);
    return order ? order : (*x)->line - (*y)->line;
}

/* Sorted by name, lines of a host are neighbours, the first one first. */
static saf_status number_hosts(saf_hostfile *file) {
    saf_status st = SAF_OK;
    saf_host_line **sorted = NULL;
    SAF_TRY(saf_alloc((size_t)file->n, sizeof *sorted, &sorted));
    for (int32_t i = 0; i < file->n; i++) sorted[i] = &file->lines[i];
    qsort(sorted, (size_t)file->n, sizeof *sorted, by_name);
    /* for now, the place of the host's first line */
    for (int32_t i = 0; i < file->n; i++) {
        bool same = i > 0 && strcmp(sorted[i]->name, sorted[i - 1]->name) == 0;
        sorted[i]->host = same ? sorted[i - 1]->host : (int32_t)(sorted[i] - file->lines);
    }
    for (int32_t i = 0; i < file->n; i++) {
        int32_t first = file->lines[i].host;
        file->lines[i].host = first == i ? file->n_hosts++ : file->lines[first].host;
    }
out:
    saf_free(&sorted);
    return st;
}

saf_status saf_hostfile_parse(const char *text, size_t len, const char *path, saf_hostfile *out) {
    saf_status st = SAF_OK;
    saf_hostfile file = {0};
    int32_t cap = 0;
    reader r = {text, text + len, {path, 1, SAF_BAD_INPUT}};
    if (len > max_file_bytes)
        return saf_fail(SAF_BAD_INPUT, "%s: larger than %zu bytes, which no hostfile is", path,
                        max_file_bytes);
    for (;;) {
        token t;
        SAF_TRY(next(&r, &t));
        if (t.kind == END) break;
        if (t.kind == NEWLINE) {
            r.where.line++;
            continue;
        }
        SAF_TRY(room_for_one(&r, &file, &cap));
        SAF_TRY(read_line(&r, t, &file.lines[file.n++]));
    }
    if (file.n == 0) {
        r.where.line = 0;
        st = saf__fail_at(&r.where, NULL, "there is no host in it");
        goto out;
    }
    SAF_TRY(number_hosts(&file));
    *out = file;
    return SAF_OK;
out:
    saf_hostfile_free(&file);
    return st;
}

saf_status saf_hostfile_read(const char *path, saf_hostfile *out) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    SAF_TRY(saf_file_read(path, max_file_bytes, &text));
    st = saf_hostfile_parse(text.data ? text.data : "", text.len, path, out);
out:
    saf_buf_free(&text);
    return st;
}

void saf_hostfile_free(saf_hostfile *file) {
    for (int32_t i = 0; i < file->n; i++) saf_free(&file->lines[i].name);
    saf_free(&file->lines);
    *file = (saf_hostfile){0};
}
