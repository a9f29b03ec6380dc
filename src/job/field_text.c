#include "job/fields.h"

#include <stdio.h>

const char *saf__field_type_name(saf__field_type type) {
    switch (type) {
        case SAF__FIELD_INT:
        case SAF__FIELD_INT64:
            return "integer";
        case SAF__FIELD_FLOAT:
            return "number";
        case SAF__FIELD_BOOL:
            return "boolean";
        case SAF__FIELD_ENUM:
        case SAF__FIELD_STRING:
            return "string";
        case SAF__FIELD_STRINGS:
            return "list of strings";
        case SAF__FIELD_INTS:
            return "list of integers";
        case SAF__FIELD_FLOATS:
            return "list of numbers";
    }
    return "";
}

static saf_status number_range(const saf__field *f, saf_buf *out) {
    if (f->above_min) return saf_buf_printf(out, "above %.15g, up to %.15g", f->min, f->max);
    if (f->max >= 9223372036854775807.0) return saf_buf_printf(out, "%.15g to 2^63 - 1", f->min);
    if (f->max == (double)INT32_MAX) return saf_buf_printf(out, "%.15g to 2147483647", f->min);
    return saf_buf_printf(out, "%.15g to %.15g", f->min, f->max);
}

static saf_status choice_range(const saf__field *f, saf_buf *out) {
    saf_status st = SAF_OK;
    for (int i = 0; f->choices[i]; i++)
        SAF_TRY(saf_buf_printf(out, "%s%s", i ? ", " : "", f->choices[i]));
out:
    return st;
}

saf_status saf__field_range(const saf__field *f, saf_buf *out) {
    saf_status st = SAF_OK;
    switch (f->type) {
        case SAF__FIELD_INT:
        case SAF__FIELD_INT64:
        case SAF__FIELD_FLOAT:
            return number_range(f, out);
        case SAF__FIELD_ENUM:
            return choice_range(f, out);
        case SAF__FIELD_STRINGS:
            if (f->choices) return choice_range(f, out);
            return saf_buf_printf(out, "up to %d", f->max_count);
        case SAF__FIELD_INTS:
        case SAF__FIELD_FLOATS:
            SAF_TRY(saf_buf_printf(out, "up to %d, each ", f->max_count));
            return number_range(f, out);
        case SAF__FIELD_BOOL:
            return saf_buf_printf(out, "true, false");
        case SAF__FIELD_STRING:
            return saf_buf_append(out, "", 0);
    }
out:
    return st;
}

saf_status saf__field_expected(const saf__field *f, saf_buf *out) {
    static const char *const before[] = {
        [SAF__FIELD_INT] = "an integer, ",
        [SAF__FIELD_INT64] = "an integer, ",
        [SAF__FIELD_FLOAT] = "a number, ",
        [SAF__FIELD_BOOL] = "true or false",
        [SAF__FIELD_ENUM] = "one of ",
        [SAF__FIELD_STRING] = "a string that is not empty",
        [SAF__FIELD_STRINGS] = "a list of strings, none empty, [\"a\", \"b\"], ",
        [SAF__FIELD_INTS] = "a list of integers, [1, 2], ",
        [SAF__FIELD_FLOATS] = "a list of numbers, [1, 2] or [1.0, 2.5] but not mixed, "};
    saf_status st = SAF_OK;
    bool named = f->type == SAF__FIELD_STRINGS && f->choices;
    SAF_TRY(saf_buf_printf(out, "%s", named ? "a list of some of " : before[f->type]));
    if (f->type != SAF__FIELD_BOOL) SAF_TRY(saf__field_range(f, out));
out:
    return st;
}
