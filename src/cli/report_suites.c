/* The tables of a bench job's suites, whatever their columns are. */
#include <math.h>
#include <stdio.h>

#include "cli/grid.h"
#include "cli/report.h"

/* How a column of this unit is shown: in what, times how many, with digits behind the point. */
typedef struct {
    const char *units, *shown;
    double scale;
    int digits;
} unit;
static const unit shown_units[] = {
    {"s", "us", 1e6, 2},
    {"bytes/s", "GB/s", 1e-9, 3},
    {"operations/s", "Gop/s", 1e-9, 1},
};

static const unit *find_unit(const saf_suite_column *c) {
    static const unit plain = {"", "", 1, 3};
    for (size_t i = 0; i < sizeof shown_units / sizeof *shown_units; i++)
        if (c->kind == SAF_CELL_F64 && strcmp(c->units, shown_units[i].units) == 0)
            return &shown_units[i];
    return &plain;
}

/* What stands before the unit: nothing of "seconds", "bytes_per_s", "ops_per_s"; "bus" of
 * "bus_bytes_per_s". */
static int stem_length(const char *name) {
    static const char *const ends[] = {"seconds", "bytes_per_s", "ops_per_s", "_s"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t end = strlen(ends[i]);
        if (n < end || strcmp(name + n - end, ends[i]) != 0) continue;
        n -= end;
        return (int)(n > 0 && name[n - 1] == '_' ? n - 1 : n);
    }
    return (int)n;
}

static bool ends_in(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* "seconds_min" is "least": it follows the median. */
static saf_status head_word(const saf_suite_column *c, bool first, saf_buf *out) {
    const unit *u = find_unit(c);
    const char *before = first ? "" : "|", *left = c->kind == SAF_CELL_TEXT ? "<" : "";
    if (ends_in(c->name, "_min")) return saf_buf_printf(out, "|least");
    if (ends_in(c->name, "_max")) return saf_buf_printf(out, "|most");
    if (!u->shown[0]) return saf_buf_printf(out, "%s%s%s", before, left, c->name);
    int stem = stem_length(c->name);
    return saf_buf_printf(out, "%s%.*s%s%s", before, stem, c->name, stem > 0 ? " " : "", u->shown);
}

static saf_status cell(saf__grid *g, const saf_suite_column *c, const char *row) {
    const unit *u = find_unit(c);
    int32_t narrow;
    int64_t wide;
    double number;
    switch (c->kind) {
        case SAF_CELL_I32:
            memcpy(&narrow, row + c->offset, sizeof narrow);
            return saf__grid_cell(g, "%d", narrow);
        case SAF_CELL_I64:
            memcpy(&wide, row + c->offset, sizeof wide);
            return saf__grid_cell(g, "%lld", (long long)wide);
        case SAF_CELL_F64:
            memcpy(&number, row + c->offset, sizeof number);
            if (!isfinite(number)) return saf__grid_cell(g, "-");
            return saf__grid_cell(g, "%.*f", u->digits, number * u->scale);
        case SAF_CELL_TEXT:
            break;
    }
    return saf__grid_cell(g, "%.63s", row + c->offset);
}

/* Rows whose point is a text longer than a cell. */
static saf_status print_words(FILE *out, const saf_buf *rows) {
    saf_status st = SAF_OK;
    saf_buf text = {0};
    for (int64_t i = 0; i < saf_suite_rows(SAF_SUITE_ROOFLINE, rows); i++) {
        saf_suite_roofline row;
        memcpy(&row, rows->data + (size_t)i * sizeof row, sizeof row);
        saf_buf_clear(&text);
        SAF_TRY(saf_buf_printf(&text, "rank %d on ", row.rank));
        SAF_TRY(saf__show_text(&text, row.host, SAF_SUITE_HOST_BYTES));
        SAF_TRY(saf_buf_printf(&text, " "));
        SAF_TRY(saf__show_text(&text, row.words, sizeof row.words));
        fprintf(out, "%s\n", text.data);
    }
    fputc('\n', out);
out:
    saf_buf_free(&text);
    return st;
}

saf_status saf__report_suite(FILE *out, saf_suite_table table, const saf_buf *rows) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    saf_buf head = {0};
    saf_suite_table_about about = saf_suite_table_info(table);
    int64_t n = saf_suite_rows(table, rows);
    fprintf(out, "%s: %s\n\n", about.path, about.description);
    if (table == SAF_SUITE_ROOFLINE) return print_words(out, rows);
    for (int c = 0; c < about.n_columns; c++) {
        saf_suite_column column = saf_suite_column_info(table, c);
        SAF_TRY(head_word(&column, c == 0, &head));
    }
    SAF_TRY(saf__grid_begin(&g, head.data));
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < about.n_columns; c++) {
            saf_suite_column column = saf_suite_column_info(table, c);
            SAF_TRY(cell(&g, &column, rows->data + (size_t)i * about.row_bytes));
        }
    SAF_TRY(saf__grid_print(&g, out));
    fputc('\n', out);
out:
    saf_buf_free(&head);
    saf__grid_free(&g);
    return st;
}
