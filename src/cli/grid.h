/* A table of text on a terminal or in a file: columns as wide as their widest cell. */
#ifndef SAF_CLI_GRID_H
#define SAF_CLI_GRID_H

#include <stdio.h>

#include "saf/core.h"

typedef struct {
    int columns;
    int64_t cells;
    saf_buf text; /* the cells, each with a closing zero; head first, then row by row */
} saf__grid;

/* Words of the head, separated by |; a column whose word begins with < is aligned to the left. */
saf_status saf__grid_begin(saf__grid *g, const char *head);
saf_status saf__grid_cell(saf__grid *g, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
saf_status saf__grid_print(const saf__grid *g, FILE *out);
void saf__grid_free(saf__grid *g);

/* Appends text that came from a model or a file so that a terminal is safe from it: control
 * characters as \xNN. With max_chars > 0 it is one line: line ends as \n, the rest after that many
 * characters as "...". */
saf_status saf__show_text(saf_buf *out, const char *text, int64_t max_chars);

#endif
