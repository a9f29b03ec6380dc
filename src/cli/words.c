#include "cli/words.h"

saf_status saf__words_add(saf__words *words, const char *word) {
    saf_status st = SAF_OK;
    char **items = NULL, *copy = NULL;
    if (words->n + 1 >= words->cap) {
        if (words->cap > INT32_MAX / 2) return saf_fail(SAF_NO_MEMORY, "too many words");
        int32_t cap = words->cap ? 2 * words->cap : 16;
        SAF_TRY(saf_alloc((size_t)cap, sizeof *items, (void *)&items));
        if (words->n > 0)
            memcpy((void *)items, (void *)words->items, (size_t)words->n * sizeof *items);
        saf_free((void *)&words->items);
        words->items = items;
        words->cap = cap;
    }
    SAF_TRY(saf_strdup(word, &copy));
    words->items[words->n++] = copy;
    words->items[words->n] = NULL;
out:
    return st;
}

/* One word from *text on, which is left behind it. */
static saf_status take_word(const char **text, saf_buf *word) {
    saf_status st = SAF_OK;
    const char *p = *text;
    char quote = 0;
    for (; *p && (quote || !strchr(" \t\n", *p)); p++) {
        if (*p == quote) {
            quote = 0;
        } else if (!quote && (*p == '\'' || *p == '"')) {
            quote = *p;
        } else {
            if (*p == '\\' && quote != '\'' && p[1]) p++;
            SAF_TRY(saf_buf_append(word, p, 1));
        }
    }
    if (quote) return saf_fail(SAF_USAGE, "a quote that is not closed: %s", *text);
    *text = p;
out:
    return st;
}

saf_status saf__words_split(saf__words *words, const char *text) {
    saf_status st = SAF_OK;
    saf_buf word = {0};
    for (;;) {
        text += strspn(text, " \t\n");
        if (!*text) break;
        saf_buf_clear(&word);
        SAF_TRY(take_word(&text, &word));
        SAF_TRY(saf__words_add(words, word.data ? word.data : ""));
    }
out:
    saf_buf_free(&word);
    return st;
}

void saf__words_free(saf__words *words) {
    for (int32_t i = 0; i < words->n; i++) saf_free(&words->items[i]);
    saf_free((void *)&words->items);
    *words = (saf__words){0};
}

static bool is_plain(const char *word) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
    return *word && strspn(word, plain) == strlen(word);
}

saf_status saf__words_print(const char *word, saf_buf *out) {
    saf_status st = SAF_OK;
    if (out->len) SAF_TRY(saf_buf_append(out, " ", 1));
    if (is_plain(word)) return saf_buf_append(out, word, strlen(word));
    SAF_TRY(saf_buf_append(out, "'", 1));
    for (const char *p = word; *p; p++) {
        if (*p == '\'')
            SAF_TRY(saf_buf_append(out, "'\\''", 4));
        else
            SAF_TRY(saf_buf_append(out, p, 1));
    }
    st = saf_buf_append(out, "'", 1);
out:
    return st;
}
