#include "cli/grid.h"

#include <stdlib.h>

saf_status saf__grid_begin(saf__grid *g, const char *head) {
    saf_status st = SAF_OK;
    *g = (saf__grid){0};
    for (const char *word = head; word;) {
        const char *end = strchr(word, '|');
        size_t len = end ? (size_t)(end - word) : strlen(word);
        SAF_TRY(saf_buf_append(&g->text, word, len));
        SAF_TRY(saf_buf_append(&g->text, "", 1));
        g->columns++;
        g->cells++;
        word = end ? end + 1 : NULL;
    }
out:
    return st;
}

saf_status saf__grid_cell(saf__grid *g, const char *format, ...) {
    enum { CELL_CHARS = 300 };
    char text[4 * CELL_CHARS];
    saf_status st = SAF_OK;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    SAF_TRY(saf__show_text(&g->text, text, CELL_CHARS));
    SAF_TRY(saf_buf_append(&g->text, "", 1));
    g->cells++;
out:
    return st;
}

/* Characters, taken as one column each. */
static int width_of(const char *text) {
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

saf_status saf__grid_print(const saf__grid *g, FILE *out) {
    saf_status st = SAF_OK;
    int *width = NULL;
    bool *left = NULL;
    const char *cell = g->text.data;
    SAF_TRY(saf_alloc((size_t)g->columns, sizeof *width, &width));
    SAF_TRY(saf_alloc((size_t)g->columns, sizeof *left, &left));
    for (int64_t i = 0; i < g->cells; i++, cell += strlen(cell) + 1) {
        int column = (int)(i % g->columns), w = width_of(cell);
        if (i < g->columns) left[column] = *cell == '<';
        if (i < g->columns) w -= left[column];
        if (w > width[column]) width[column] = w;
    }
    cell = g->text.data;
    for (int64_t i = 0; i < g->cells; i++) {
        int column = (int)(i % g->columns);
        const char *shown = i < g->columns && left[column] ? cell + 1 : cell;
        int pad = width[column] - width_of(shown);
        bool last = column == g->columns - 1;
        if (column > 0 && !(last && *shown == '\0')) fputs("  ", out);
        fprintf(out, "%*s%s%*s%s", left[column] ? 0 : pad, "", shown,
                left[column] && !last ? pad : 0, "", last ? "\n" : "");
        cell += strlen(cell) + 1;
    }
out:
    saf_free(&left);
    saf_free(&width);
    return st;
}

void saf__grid_free(saf__grid *g) {
    saf_buf_free(&g->text);
    *g = (saf__grid){0};
}

saf_status saf__show_text(saf_buf *out, const char *text, int64_t max_chars) {
    saf_status st = saf_buf_append(out, "", 0);
    size_t len = strlen(text);
    int64_t shown = 0;
    for (size_t at = 0; st == SAF_OK && at < len;) {
        uint32_t code = 0;
        int n = saf_utf8_decode(text + at, len - at, &code);
        if (max_chars > 0 && shown++ >= max_chars) return saf_buf_append(out, "...", 3);
        bool line_end = code == '\n' || code == '\t';
        if (n == 0) {
            n = 1;
            st = saf_buf_printf(out, "\\x%02x", (unsigned char)text[at]);
        } else if (line_end && max_chars > 0) {
            st = saf_buf_append(out, code == '\n' ? "\\n" : "\\t", 2);
        } else if (!line_end && (code < 0x20 || (code >= 0x7F && code < 0xA0))) {
            st = saf_buf_printf(out, "\\x%02x", (unsigned)code);
        } else {
            st = saf_buf_append(out, text + at, (size_t)n);
        }
        at += (size_t)n;
    }
    return st;
}
