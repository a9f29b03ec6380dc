/* Splitting rules of byte-level BPE vocabularies: a text is cut into words before anything is
 * merged, by the regular expressions that the vocabulary was made with. */
#ifndef SAF_MODEL_PRETOK_H
#define SAF_MODEL_PRETOK_H

#include "saf/core.h"

enum { SAF__PRETOK_PASSES = 6 };

/* A rule. Its expressions are applied one after another, each to the pieces of the one before:
 * every match is a piece, and so is what lies between matches. */
typedef struct {
    const char *passes[SAF__PRETOK_PASSES]; /* PCRE2, NULL after the last */
} saf__pretok_rule;

/* A value of `tokenizer.ggml.pre`. */
typedef struct {
    const char *name;
    const saf__pretok_rule *rule;
    bool whole_words; /* a word that is a token as it stands is taken whole */
    bool adds_bos;    /* where the file does not say */
} saf__pretok_name;

/* NULL when the name is not known. */
const saf__pretok_name *saf__pretok_find(const char *name, size_t len);
/* Appends all known names, separated by ", ". */
saf_status saf__pretok_list(saf_buf *out);

typedef struct saf__pretok saf__pretok;
saf_status saf__pretok_new(const saf__pretok_rule *rule, saf__pretok **out);
void saf__pretok_free(saf__pretok **p);

typedef saf_status saf__pretok_word(void *context, const char *word, size_t len);
/* Calls `word` for each word of a valid UTF-8 text, in order; together they are the text. Stops at
 * the first status that is not SAF_OK. */
saf_status saf__pretok_split(saf__pretok *p, const char *text, size_t len, saf__pretok_word *word,
                             void *context);

#endif
