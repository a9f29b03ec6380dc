#include "job/source.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

typedef struct {
    int32_t file; /* -1: no file, at the scanner's given place */
    int32_t line;
} origin;

/* One file (or text) being copied into the source. */
typedef struct {
    saf__source *source;
    const char *text;
    size_t len, pos;
    int32_t file;
    int32_t line;
    int depth;
    const saf__where *given; /* of a text without a file */
} scanner;

static saf_status scan_file(saf__source *source, const char *path, int depth,
                            const saf__where *from);

static saf__where here(const scanner *s) {
    if (s->file < 0) return *s->given;
    return (saf__where){s->source->files[s->file], s->line, SAF_USAGE};
}

/* ---- writing ------------------------------------------------------------------------------- */

static saf_status begin_line(scanner *s) {
    origin o = {s->file, s->line};
    return saf_buf_append(&s->source->origins, &o, sizeof o);
}

/* Copies the next n bytes, counting lines. */
static saf_status copy(scanner *s, size_t n) {
    saf_status st = SAF_OK;
    if (s->source->text.len + n > SAF__SOURCE_BYTES_MAX) {
        saf__where at = here(s);
        return saf__fail_at(&at, NULL, "the job file is larger than %d bytes with its includes",
                            SAF__SOURCE_BYTES_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        char c = s->text[s->pos++];
        SAF_TRY(saf_buf_append(&s->source->text, &c, 1));
        if (c != '\n') continue;
        s->line++;
        SAF_TRY(begin_line(s));
    }
out:
    return st;
}

/* ---- tokens -------------------------------------------------------------------------------- */

static bool is_number_char(const scanner *s, size_t i) {
    char c = s->text[i];
    if (isalnum((unsigned char)c) || c == '_' || c == '.') return true;
    return (c == '+' || c == '-') && i > s->pos && (s->text[i - 1] == 'e' || s->text[i - 1] == 'E');
}

/* 1: an integer that fits, 0: no integer, -1: one that does not fit 64 bits. */
static int parse_integer(const char *word) {
    char *end;
    bool hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
    errno = 0;
    bool fits = hex ? strtoull(word, &end, 16) <= INT64_MAX : (strtoll(word, &end, 10), true);
    if (end == word || (hex && end == word + 2)) return 0;
    if (end[0] == 'L') end += end[1] == 'L' ? 2 : 1;
    if (*end) return 0;
    return fits && errno == 0 ? 1 : -1;
}

static bool is_float(const char *word) {
    char *end;
    if (strspn(word, "0123456789+-.eE") != strlen(word)) return false;
    double v = strtod(word, &end);
    return end != word && !*end && v - v == 0; /* not infinite */
}

static saf_status scan_number(scanner *s) {
    saf_status st = SAF_OK;
    char word[64], quoted[SAF__QUOTE_BYTES];
    saf__where at = here(s);
    size_t n = 1;
    while (s->pos + n < s->len && is_number_char(s, s->pos + n)) n++;
    size_t kept = n < sizeof word ? n : sizeof word - 1;
    memcpy(word, s->text + s->pos, kept);
    word[kept] = 0;
    int integer = n == kept ? parse_integer(word) : 0;
    if (integer < 0)
        return saf__fail_at(&at, NULL, "%s does not fit into 64 bits", saf__quote(word, quoted));
    if (!integer && (n != kept || !is_float(word)))
        return saf__fail_at(&at, NULL, "%s is not a number", saf__quote(word, quoted));
    SAF_TRY(copy(s, n));
    if (integer && word[n - 1] != 'L') SAF_TRY(saf_buf_append(&s->source->text, "L", 1));
out:
    return st;
}

static saf_status scan_name(scanner *s) {
    size_t n = 1;
    while (s->pos + n < s->len &&
           (isalnum((unsigned char)s->text[s->pos + n]) || strchr("-_*", s->text[s->pos + n])))
        n++;
    if (s->pos + n < s->len && s->text[s->pos + n] == '.') {
        saf__where at = here(s);
        return saf__fail_at(&at, NULL,
                            "\"%.*s.\": keys with dots belong on the command line; in a file write "
                            "%.*s: { ... };",
                            (int)(n < 40 ? n : 40), s->text + s->pos, (int)(n < 40 ? n : 40),
                            s->text + s->pos);
    }
    return copy(s, n);
}

/* Length of the escape at text[0..len), 0 when libconfig would not read it as one. */
static size_t escape_length(const char *text, size_t len) {
    if (len < 2) return 0;
    if (strchr("\\\"nrtf", text[1]) && text[1]) return 2;
    if (text[1] != 'x' || len < 4 || !isxdigit((unsigned char)text[2]) ||
        !isxdigit((unsigned char)text[3]))
        return 0;
    return text[2] == '0' && text[3] == '0' ? 0 : 4;
}

static saf_status scan_string(scanner *s) {
    saf_status st = SAF_OK;
    saf__where at = here(s);
    SAF_TRY(copy(s, 1));
    while (s->pos < s->len && s->text[s->pos] != '"') {
        size_t n = 1;
        if (s->text[s->pos] == '\\') {
            n = escape_length(s->text + s->pos, s->len - s->pos);
            at = here(s);
            if (n == 0)
                return saf__fail_at(&at, NULL,
                                    "a backslash in a string starts one of \\\\ \\\" \\n \\r \\t "
                                    "\\f \\x01 to \\xff; write \\\\ for a backslash");
        }
        SAF_TRY(copy(s, n));
    }
    if (s->pos == s->len) return saf__fail_at(&at, NULL, "a string that begins here has no end");
    st = copy(s, 1);
out:
    return st;
}

static saf_status scan_comment(scanner *s) {
    const char *end = NULL, *from = s->text + s->pos;
    size_t left = s->len - s->pos;
    if (from[0] == '/' && from[1] == '*') {
        end = memmem(from + 2, left - 2, "*/", 2);
        if (!end) {
            saf__where at = here(s);
            return saf__fail_at(&at, NULL, "a comment that begins here has no end");
        }
        return copy(s, (size_t)(end - from) + 2);
    }
    end = memchr(from, '\n', left);
    return copy(s, end ? (size_t)(end - from) : left);
}

/* ---- includes ------------------------------------------------------------------------------ */

/* Whether text[pos..] is `@include "` with blanks before it; *name is where the name begins. */
static bool at_include(const scanner *s, size_t *name) {
    size_t i = s->pos;
    while (i < s->len && (s->text[i] == ' ' || s->text[i] == '\t')) i++;
    if (s->len - i < 8 || memcmp(s->text + i, "@include", 8) != 0) return false;
    size_t blank = i += 8;
    while (i < s->len && (s->text[i] == ' ' || s->text[i] == '\t')) i++;
    if (i == blank || i >= s->len || s->text[i] != '"') return false;
    *name = i + 1;
    return true;
}

/* Names are relative to the folder of the file that includes. */
static saf_status include_path(const scanner *s, size_t name, size_t len, saf_buf *out) {
    const char *base = s->source->files[s->file], *slash = strrchr(base, '/');
    saf_status st = SAF_OK;
    if (slash && s->text[name] != '/')
        SAF_TRY(saf_buf_append(out, base, (size_t)(slash - base) + 1));
    st = saf_buf_append(out, s->text + name, len);
out:
    return st;
}

static saf_status scan_include(scanner *s, size_t name) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    saf__where at = here(s);
    const char *end = memchr(s->text + name, '"', s->len - name);
    const char *newline = memchr(s->text + name, '\n', s->len - name);
    if (!end || (newline && newline < end) || end == s->text + name) {
        st = saf__fail_at(&at, NULL, "expected @include \"FILE\"");
        goto out;
    }
    SAF_TRY(include_path(s, name, (size_t)(end - s->text) - name, &path));
    SAF_TRY(scan_file(s->source, path.data, s->depth + 1, &at));
    s->pos = (size_t)(end - s->text) + 1;
    if (s->source->text.len > 0 && s->source->text.data[s->source->text.len - 1] != '\n') {
        SAF_TRY(saf_buf_append(&s->source->text, "\n", 1));
    } else {
        s->source->origins.len -= sizeof(origin);
    }
    SAF_TRY(begin_line(s));
out:
    saf_buf_free(&path);
    return st;
}

/* ---- files --------------------------------------------------------------------------------- */

/* Any other character. */
static saf_status scan_one(scanner *s) {
    char c = s->text[s->pos];
    if ((c == '=' || c == ':') && ++s->source->n_settings > SAF__SOURCE_SETTINGS_MAX) {
        saf__where at = here(s);
        return saf__fail_at(&at, NULL, "more than %d settings in one job",
                            SAF__SOURCE_SETTINGS_MAX);
    }
    return copy(s, 1);
}

static saf_status scan(scanner *s) {
    saf_status st = SAF_OK;
    while (s->pos < s->len) {
        const char *p = s->text + s->pos;
        bool line_start = s->pos == 0 || p[-1] == '\n';
        size_t name;
        if (line_start && s->file >= 0 && at_include(s, &name))
            SAF_TRY(scan_include(s, name));
        else if (*p == '"')
            SAF_TRY(scan_string(s));
        else if (*p == '#' || (*p == '/' && (p[1] == '/' || p[1] == '*')))
            SAF_TRY(scan_comment(s));
        else if (isdigit((unsigned char)*p) || strchr("+-.", *p))
            SAF_TRY(scan_number(s));
        else if (isalpha((unsigned char)*p) || *p == '*')
            SAF_TRY(scan_name(s));
        else
            SAF_TRY(scan_one(s));
    }
out:
    return st;
}

/* Zero bytes, which end a C string, and bytes that are no text at all. */
static saf_status check_bytes(scanner *s) {
    size_t zero = strlen(s->text), valid = saf_utf8_valid_prefix(s->text, s->len);
    size_t bad = zero < valid ? zero : valid;
    if (bad == s->len) return SAF_OK;
    for (size_t i = 0; i < bad; i++) s->line += s->text[i] == '\n';
    saf__where at = here(s);
    return saf__fail_at(
        &at, NULL, bad == zero ? "a zero byte, expected text" : "invalid UTF-8, expected text");
}

static saf_status scan_file(saf__source *source, const char *path, int depth,
                            const saf__where *from) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    if (depth > SAF__SOURCE_DEPTH_MAX || source->n_files == SAF__SOURCE_FILES_MAX)
        return saf__fail_at(from, NULL, "more than %d includes inside one another, or %d in all",
                            SAF__SOURCE_DEPTH_MAX, SAF__SOURCE_FILES_MAX);
    st = saf_file_read(path, SAF__SOURCE_BYTES_MAX, &text);
    if (st != SAF_OK) {
        /* An include that cannot be had is a mistake in the job file; a bad disk is not. */
        if (from && (st == SAF_NO_INPUT || st == SAF_BAD_INPUT))
            st = saf__fail_at(from, NULL, "cannot include %s", saf_error_text());
        if (st == SAF_BAD_INPUT) st = SAF_USAGE;
        goto out;
    }
    SAF_TRY(saf_strdup(path, &source->files[source->n_files]));
    scanner s = {.source = source,
                 .text = text.data,
                 .len = text.len,
                 .file = source->n_files++,
                 .line = 1,
                 .depth = depth};
    SAF_TRY(check_bytes(&s));
    if (s.len >= 3 && memcmp(s.text, "\xEF\xBB\xBF", 3) == 0) {
        s.text += 3;
        s.len -= 3;
    }
    if (from) source->origins.len -= sizeof(origin); /* the include's own line gives way */
    SAF_TRY(begin_line(&s));
    SAF_TRY(scan(&s));
out:
    saf_buf_free(&text);
    return st;
}

saf_status saf__source_read(const char *path, saf__source *out) {
    saf_status st = scan_file(out, path, 0, NULL);
    if (st == SAF_OK) st = saf_buf_append(&out->text, "", 0);
    return st;
}

saf_status saf__source_of_text(const char *text, const saf__where *at, saf__source *out) {
    saf_status st = SAF_OK;
    scanner s = {.source = out, .text = text, .len = strlen(text), .file = -1, .given = at};
    SAF_TRY(check_bytes(&s));
    SAF_TRY(begin_line(&s));
    SAF_TRY(scan(&s));
    st = saf_buf_append(&out->text, "", 0);
out:
    return st;
}

void saf__source_free(saf__source *source) {
    saf_buf_free(&source->text);
    saf_buf_free(&source->origins);
    for (int i = 0; i < source->n_files; i++) saf_free(&source->files[i]);
    source->n_files = 0;
}

saf__where saf__source_where(const saf__source *source, int64_t line) {
    int64_t n = (int64_t)(source->origins.len / sizeof(origin));
    origin o = {-1, 0};
    if (line < 1) line = 1;
    if (line > n) line = n;
    if (n > 0) memcpy(&o, source->origins.data + (size_t)(line - 1) * sizeof o, sizeof o);
    return (saf__where){o.file >= 0 ? source->files[o.file] : "command line", o.line, SAF_USAGE};
}
