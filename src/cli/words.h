/* Words of a command line: lists of them, to and from text as a shell has it. */
#ifndef SAF_CLI_WORDS_H
#define SAF_CLI_WORDS_H

#include "saf/core.h"

/* Starts as {0}. items[n] is NULL, as execv wants it. */
typedef struct {
    char **items; /* owned, each; NULL while n is 0 */
    int32_t n, cap;
} saf__words;

saf_status saf__words_add(saf__words *words, const char *word);
/* Adds the words of a text: spaces part them unless they are in '...' or "..." or behind a
 * backslash. Nothing else is special. Errors: USAGE (a quote that is not closed). */
saf_status saf__words_split(saf__words *words, const char *text);
void saf__words_free(saf__words *words);

/* Appends a word that a shell reads back as it is, after a space unless it is the first. */
saf_status saf__words_print(const char *word, saf_buf *out);

#endif
