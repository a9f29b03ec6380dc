#include <math.h>
#include <stdio.h>

#include "job/fields.h"
#include "job/source.h"

static void *member(saf_job *job, size_t offset) {
    return (char *)job + offset;
}

static const void *const_member(const saf_job *job, size_t offset) {
    return (const char *)job + offset;
}

static int32_t count_of(const saf_job *job, const saf__field *f) {
    int32_t n;
    memcpy(&n, const_member(job, f->count_offset), sizeof n);
    return n;
}

/* ---- errors -------------------------------------------------------------------------------- */

static saf_status expected(const saf__field *f, const char *name, const char *got,
                           const saf__where *at) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    SAF_TRY(saf__field_expected(f, &text));
    st = saf__fail_at(at, name, "expected %s, got %s", text.data, got);
out:
    saf_buf_free(&text);
    return st;
}

static void describe(const config_setting_t *v, char out[SAF__QUOTE_BYTES]) {
    switch (config_setting_type(v)) {
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
            snprintf(out, SAF__QUOTE_BYTES, "%lld", config_setting_get_int64(v));
            break;
        case CONFIG_TYPE_FLOAT:
            snprintf(out, SAF__QUOTE_BYTES, "%g", config_setting_get_float(v));
            break;
        case CONFIG_TYPE_STRING:
            saf__quote(config_setting_get_string(v), out);
            break;
        case CONFIG_TYPE_BOOL:
            snprintf(out, SAF__QUOTE_BYTES, "%s", config_setting_get_bool(v) ? "true" : "false");
            break;
        case CONFIG_TYPE_GROUP:
            snprintf(out, SAF__QUOTE_BYTES, "a group { }");
            break;
        default:
            snprintf(out, SAF__QUOTE_BYTES, "a list of %d", config_setting_length(v));
    }
}

static saf_status wrong_value(const saf__field *f, const config_setting_t *v,
                              const saf__where *at) {
    char got[SAF__QUOTE_BYTES];
    describe(v, got);
    return expected(f, f->key, got, at);
}

/* ---- values -------------------------------------------------------------------------------- */

static bool in_range(const saf__field *f, double v) {
    return v <= f->max && (f->above_min ? v > f->min : v >= f->min);
}

static bool is_integer(const config_setting_t *v) {
    int type = config_setting_type(v);
    return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

static void store_integer(saf_job *job, const saf__field *f, int64_t v) {
    int32_t narrow = (int32_t)v;
    uint64_t wide = (uint64_t)v;
    if (f->type == SAF__FIELD_INT)
        memcpy(member(job, f->offset), &narrow, sizeof narrow);
    else
        memcpy(member(job, f->offset), &wide, sizeof wide);
}

static saf_status set_integer(saf_job *job, const saf__field *f, const config_setting_t *v,
                              const saf__where *at) {
    if (!is_integer(v) || !in_range(f, (double)config_setting_get_int64(v)))
        return wrong_value(f, v, at);
    store_integer(job, f, config_setting_get_int64(v));
    return SAF_OK;
}

/* Any number counts. */
static bool read_number(const config_setting_t *v, double *out) {
    if (is_integer(v))
        *out = (double)config_setting_get_int64(v);
    else if (config_setting_type(v) == CONFIG_TYPE_FLOAT)
        *out = config_setting_get_float(v);
    else
        return false;
    return true;
}

static saf_status set_float(saf_job *job, const saf__field *f, const config_setting_t *v,
                            const saf__where *at) {
    double number;
    if (!read_number(v, &number) || !in_range(f, number)) return wrong_value(f, v, at);
    memcpy(member(job, f->offset), &number, sizeof number);
    return SAF_OK;
}

static saf_status set_bool(saf_job *job, const saf__field *f, const config_setting_t *v,
                           const saf__where *at) {
    if (config_setting_type(v) != CONFIG_TYPE_BOOL) return wrong_value(f, v, at);
    bool yes = config_setting_get_bool(v) != 0;
    memcpy(member(job, f->offset), &yes, sizeof yes);
    return SAF_OK;
}

static saf_status set_enum(saf_job *job, const saf__field *f, const config_setting_t *v,
                           const saf__where *at) {
    if (config_setting_type(v) != CONFIG_TYPE_STRING) return wrong_value(f, v, at);
    for (int i = 0; f->choices[i]; i++) {
        if (strcmp(f->choices[i], config_setting_get_string(v)) != 0) continue;
        memcpy(member(job, f->offset), &i, sizeof i); /* an enum is an int here */
        return SAF_OK;
    }
    return wrong_value(f, v, at);
}

static saf_status set_string(saf_job *job, const saf__field *f, const config_setting_t *v,
                             const saf__where *at) {
    char *copy = NULL;
    if (config_setting_type(v) != CONFIG_TYPE_STRING ||
        (!config_setting_get_string(v)[0] && !f->may_be_empty))
        return wrong_value(f, v, at);
    saf_status st = saf_strdup(config_setting_get_string(v), &copy);
    if (st != SAF_OK) return st;
    saf__field_clear(job, f);
    memcpy(member(job, f->offset), &copy, sizeof copy);
    return SAF_OK;
}

/* ---- lists --------------------------------------------------------------------------------- */

/* Not empty, and whole characters: escapes can write any byte. NULL is no text. */
static bool is_text(const char *text) {
    return text && text[0] && saf_utf8_valid_prefix(text, strlen(text)) == strlen(text);
}

/* One of the field's choices, where it has some. */
static bool is_choice(const saf__field *f, const char *text) {
    bool found = !f->choices;
    for (int i = 0; f->choices && f->choices[i]; i++)
        found = found || strcmp(f->choices[i], text) == 0;
    return found;
}

static size_t element_bytes(const saf__field *f) {
    if (f->type == SAF__FIELD_INTS) return sizeof(int32_t);
    return f->type == SAF__FIELD_FLOATS ? sizeof(double) : sizeof(char *);
}

/* Puts a right element where there is room for it; false: it is none. */
static bool read_element(const saf__field *f, const config_setting_t *v, void *out,
                         saf_status *st) {
    double number;
    if (f->type == SAF__FIELD_STRINGS) {
        if (!is_text(config_setting_get_string(v))) return false;
        if (!is_choice(f, config_setting_get_string(v))) return false;
        *st = saf_strdup(config_setting_get_string(v), out);
        return true;
    }
    if (f->type == SAF__FIELD_INTS && !is_integer(v)) return false;
    if (!read_number(v, &number) || !in_range(f, number)) return false;
    if (f->type == SAF__FIELD_FLOATS) {
        memcpy(out, &number, sizeof number);
    } else {
        int32_t narrow = (int32_t)number;
        memcpy(out, &narrow, sizeof narrow);
    }
    return true;
}

static void free_list(const saf__field *f, void *list, int32_t n) {
    char **strings;
    memcpy(&strings, list, sizeof strings);
    for (int32_t i = 0; f->type == SAF__FIELD_STRINGS && i < n; i++) saf_free(&strings[i]);
    saf_free(list);
}

static saf_status set_list(saf_job *job, const saf__field *f, const config_setting_t *v,
                           const saf__where *at) {
    saf_status st = SAF_OK;
    char *items = NULL;
    int32_t n = 0;
    int type = config_setting_type(v), count = config_setting_length(v);
    if ((type != CONFIG_TYPE_ARRAY && type != CONFIG_TYPE_LIST) || count > f->max_count)
        return wrong_value(f, v, at);
    SAF_TRY(saf_alloc((size_t)count, element_bytes(f), &items));
    for (; st == SAF_OK && n < count; n++) {
        const config_setting_t *e = config_setting_get_elem(v, (unsigned)n);
        if (!read_element(f, e, items + (size_t)n * element_bytes(f), &st))
            st = wrong_value(f, e, at);
    }
    if (st == SAF_OK) {
        saf__field_clear(job, f);
        memcpy(member(job, f->offset), &items, sizeof items);
        memcpy(member(job, f->count_offset), &n, sizeof n);
        return SAF_OK;
    }
out:
    free_list(f, &items, n);
    return st;
}

void saf__field_clear(saf_job *job, const saf__field *f) {
    int32_t none = 0;
    if (saf__field_is_list(f)) {
        free_list(f, member(job, f->offset), count_of(job, f));
        memcpy(member(job, f->count_offset), &none, sizeof none);
    } else if (f->type == SAF__FIELD_STRING) {
        saf_free(member(job, f->offset));
    }
}

bool saf__field_has_value(const saf_job *job, const saf__field *f) {
    const void *p;
    if (saf__field_is_list(f)) return count_of(job, f) > 0;
    if (f->type != SAF__FIELD_STRING) return true;
    memcpy(&p, const_member(job, f->offset), sizeof p);
    return p != NULL;
}

/* ---- entry points -------------------------------------------------------------------------- */

saf_status saf__field_set(saf_job *job, const saf__field *f, const config_setting_t *value,
                          const saf__where *at) {
    switch (f->type) {
        case SAF__FIELD_INT:
        case SAF__FIELD_INT64:
            return set_integer(job, f, value, at);
        case SAF__FIELD_FLOAT:
            return set_float(job, f, value, at);
        case SAF__FIELD_BOOL:
            return set_bool(job, f, value, at);
        case SAF__FIELD_ENUM:
            return set_enum(job, f, value, at);
        case SAF__FIELD_STRING:
            return set_string(job, f, value, at);
        case SAF__FIELD_STRINGS:
        case SAF__FIELD_INTS:
        case SAF__FIELD_FLOATS:
            return set_list(job, f, value, at);
    }
    return saf_fail(SAF_DEFECT, "%s: field type %d", f->key, (int)f->type);
}

saf_status saf__libconfig_room(size_t text_bytes) {
    enum { TABLES_BYTES = 1 << 20, BYTES_OF_A_SETTING = 64 }; /* at most, for each byte of text */
    return saf_memory_spare(TABLES_BYTES + BYTES_OF_A_SETTING * text_bytes, "reading job files");
}

/* A config of one setting "value", or SAF_USAGE without a message of its own. */
static saf_status parse_one(const char *text, bool bare_string, const saf__where *at,
                            config_t *config) {
    saf_status st = SAF_OK;
    saf_buf whole = {0};
    saf__source source = {0};
    config_setting_t *root = config_root_setting(config);
    if (bare_string) {
        config_setting_t *v = config_setting_add(root, "value", CONFIG_TYPE_STRING);
        st = v && config_setting_set_string(v, text) ? SAF_OK : SAF_USAGE;
        goto out;
    }
    SAF_TRY(saf_buf_printf(&whole, "value = %s", text));
    SAF_TRY(saf__source_of_text(whole.data, at, &source));
    if (!config_read_string(config, source.text.data) ||
        config_setting_length(config_root_setting(config)) != 1)
        st = SAF_USAGE;
out:
    saf__source_free(&source);
    saf_buf_free(&whole);
    return st;
}

saf_status saf__field_set_text(saf_job *job, const saf__field *f, const char *text,
                               const saf__where *at) {
    saf_status st = SAF_OK;
    char quoted[SAF__QUOTE_BYTES];
    config_t config;
    size_t n = strlen(text);
    bool string = f->type == SAF__FIELD_STRING || f->type == SAF__FIELD_ENUM;
    bool bare = string && !(n >= 2 && text[0] == '"' && text[n - 1] == '"');
    if (saf_utf8_valid_prefix(text, n) < n)
        return saf__fail_at(at, f->key, "invalid UTF-8 in the value");
    st = saf__libconfig_room(n);
    if (st != SAF_OK) return st;
    config_init(&config);
    st = parse_one(text, bare, at, &config);
    if (st == SAF_OK)
        st = saf__field_set(job, f, config_setting_get_elem(config_root_setting(&config), 0), at);
    else if (st != SAF_NO_MEMORY)
        st = expected(f, f->key, saf__quote(text, quoted), at);
    config_destroy(&config);
    return st;
}

saf_status saf__field_set_number(saf_job *job, const saf__field *f, double value, const char *name,
                                 const saf__where *at) {
    char got[SAF__QUOTE_BYTES];
    bool whole = value == floor(value) && fabs(value) <= 9007199254740992.0;
    if (!in_range(f, value) || (f->type != SAF__FIELD_FLOAT && !whole)) {
        snprintf(
            got, sizeof got, "%.17g%s", value,
            fabs(value) > 9007199254740992.0 ? " (beyond 2^53 a JSON number is not exact)" : "");
        return expected(f, name, got, at);
    }
    if (f->type == SAF__FIELD_FLOAT)
        memcpy(member(job, f->offset), &value, sizeof value);
    else
        store_integer(job, f, (int64_t)value);
    return SAF_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

static saf_status write_string(const char *text, saf_buf *out) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_buf_append(out, "\"", 1));
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            SAF_TRY(saf_buf_printf(out, "\\%c", c));
        else if (c == '\n')
            SAF_TRY(saf_buf_append(out, "\\n", 2));
        else if (c == '\t')
            SAF_TRY(saf_buf_append(out, "\\t", 2));
        else if (c < 0x20 || c == 0x7F)
            SAF_TRY(saf_buf_printf(out, "\\x%02x", c));
        else
            SAF_TRY(saf_buf_append(out, p, 1));
    }
    st = saf_buf_append(out, "\"", 1);
out:
    return st;
}

/* As many digits as give the same double back, 17 at most; libconfig wants a point or an exponent
 * in a float. */
static saf_status write_float(double v, saf_buf *out) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back;
        if (sscanf(text, "%lf", &back) == 1 && back == v) break;
    }
    return saf_buf_printf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static saf_status write_list(const saf_job *job, const saf__field *f, saf_buf *out) {
    saf_status st = SAF_OK;
    const int32_t *ints;
    const double *numbers;
    char *const *strings;
    memcpy(&ints, const_member(job, f->offset), sizeof ints);
    memcpy(&numbers, const_member(job, f->offset), sizeof numbers);
    memcpy(&strings, const_member(job, f->offset), sizeof strings);
    SAF_TRY(saf_buf_append(out, "[", 1));
    for (int32_t i = 0; i < count_of(job, f); i++) {
        if (i) SAF_TRY(saf_buf_append(out, ", ", 2));
        if (f->type == SAF__FIELD_INTS)
            SAF_TRY(saf_buf_printf(out, "%d", ints[i]));
        else if (f->type == SAF__FIELD_FLOATS)
            SAF_TRY(write_float(numbers[i], out));
        else
            SAF_TRY(write_string(strings[i], out));
    }
    st = saf_buf_append(out, "]", 1);
out:
    return st;
}

saf_status saf__field_write(const saf_job *job, const saf__field *f, saf_buf *out) {
    const void *at = const_member(job, f->offset);
    int32_t narrow;
    uint64_t wide;
    double number;
    const char *text;
    switch (f->type) {
        case SAF__FIELD_INT:
            memcpy(&narrow, at, sizeof narrow);
            return saf_buf_printf(out, "%d", narrow);
        case SAF__FIELD_INT64: /* the suffix keeps all of it in every version of libconfig */
            memcpy(&wide, at, sizeof wide);
            return saf_buf_printf(out, "%llu%s", (unsigned long long)wide,
                                  wide > INT32_MAX ? "L" : "");
        case SAF__FIELD_FLOAT:
            memcpy(&number, at, sizeof number);
            return write_float(number, out);
        case SAF__FIELD_BOOL:
            return saf_buf_printf(out, "%s", *(const bool *)at ? "true" : "false");
        case SAF__FIELD_ENUM:
            memcpy(&narrow, at, sizeof narrow);
            return saf_buf_printf(out, "\"%s\"", f->choices[narrow]);
        case SAF__FIELD_STRING:
            memcpy(&text, at, sizeof text);
            return write_string(text, out);
        case SAF__FIELD_STRINGS:
        case SAF__FIELD_INTS:
        case SAF__FIELD_FLOATS:
            return write_list(job, f, out);
    }
    return saf_fail(SAF_DEFECT, "%s: field type %d", f->key, (int)f->type);
}
