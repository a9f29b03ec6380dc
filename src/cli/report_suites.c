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

/* "seconds_min" is "least": it follows the median. */
static saf_status head_word(const saf_suite_column *c, bool first, saf_buf *out) {
    const unit *u = find_unit(c);
    size_t n = strlen(c->name);
    const char *name = c->name;
    if (n > 4 && strcmp(name + n - 4, "_min") == 0) name = "least";
    if (n > 4 && strcmp(c->name + n - 4, "_max") == 0) name = "most";
    bool median = name == c->name && u->shown[0];
    return saf_buf_printf(out, "%s%s%s", first ? "" : "|", c->kind == SAF_CELL_TEXT ? "<" : "",
                          median ? u->shown : name);
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

saf_status saf__report_suite(FILE *out, saf_suite_table table, const saf_buf *rows) {
    saf_status st = SAF_OK;
    saf__grid g = {0};
    saf_buf head = {0};
    saf_suite_table_about about = saf_suite_table_info(table);
    int64_t n = saf_suite_rows(table, rows);
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
    fprintf(out, "%s: %s\n\n", about.path, about.description);
    SAF_TRY(saf__grid_print(&g, out));
    fputc('\n', out);
out:
    saf_buf_free(&head);
    saf__grid_free(&g);
    return st;
}
