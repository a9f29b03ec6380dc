#include "job/prompts.h"

#include <stdio.h>
#include <stdlib.h>

#include "saf/store.h"

static const size_t max_file_bytes = (size_t)2 << 30;

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* Where the dataset's path begins in "FILE.h5:/DATASET"; NULL for other names. */
static const char *dataset_of(const char *name) {
    const char *at = strstr(name, ".h5:/");
    if (at && at > name) return at + 4;
    at = strstr(name, ".hdf5:/");
    return at && at > name ? at + 6 : NULL;
}

saf__prompts_form saf__prompts_form_of(const char *name) {
    if (dataset_of(name)) return SAF__PROMPTS_HDF5;
    if (ends_with(name, ".txt")) return SAF__PROMPTS_TEXT;
    if (ends_with(name, ".jsonl")) return SAF__PROMPTS_JSONL;
    return SAF__PROMPTS_UNKNOWN;
}

/* ---- the list ------------------------------------------------------------------------------ */

static saf_status grow(saf__prompt_list *list) {
    saf_status st = SAF_OK;
    saf_prompt *items = NULL;
    int64_t *lines = NULL, cap = list->cap ? 2 * list->cap : 64;
    SAF_TRY(saf_alloc((size_t)cap, sizeof *items, &items));
    SAF_TRY(saf_alloc((size_t)cap, sizeof *lines, &lines));
    if (list->n > 0) {
        memcpy(items, list->items, (size_t)list->n * sizeof *items);
        memcpy(lines, list->lines, (size_t)list->n * sizeof *lines);
    }
    saf_free(&list->items);
    saf_free(&list->lines);
    list->items = items;
    list->lines = lines;
    list->cap = cap;
    return SAF_OK;
out:
    saf_free(&items);
    return st;
}

saf_status saf__prompt_list_add(saf__prompt_list *list, int64_t line, saf_prompt **out) {
    saf_status st = SAF_OK;
    if (list->n == SAF__PROMPTS_MAX) {
        saf__where at = {list->file, line, SAF_BAD_INPUT};
        return saf__fail_at(&at, NULL, "more than %d requests in one job", SAF__PROMPTS_MAX);
    }
    if (list->n == list->cap) SAF_TRY(grow(list));
    saf_prompt *p = &list->items[list->n];
    p->sampling = list->job->generate.sampling;
    p->max_tokens = list->job->generate.max_tokens;
    list->lines[list->n++] = line;
    *out = p;
out:
    return st;
}

/* ---- lines --------------------------------------------------------------------------------- */

typedef saf_status (*line_reader)(saf__prompt_list *list, char *text, size_t len, int64_t line);

static saf_status check_text(const char *file, int64_t line, const char *text, size_t len) {
    saf__where at = {file, line, SAF_BAD_INPUT};
    const char *zero = memchr(text, 0, len);
    size_t valid = saf_utf8_valid_prefix(text, len);
    if (zero && (size_t)(zero - text) < valid)
        return saf__fail_at(&at, NULL, "a zero byte at byte %zu of the line, expected text",
                            (size_t)(zero - text) + 1);
    if (valid < len)
        return saf__fail_at(&at, NULL, "invalid UTF-8 at byte %zu of the line", valid + 1);
    return SAF_OK;
}

static bool is_blank(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] != ' ' && text[i] != '\t') return false;
    return true;
}

/* Hands every line that is not blank to `read`, without its end of line (LF or CRLF). */
static saf_status read_lines(saf__prompt_list *list, line_reader read) {
    saf_status st = SAF_OK;
    saf_buf file = {0};
    int64_t line = 0;
    SAF_TRY(saf_file_read(list->file, max_file_bytes, &file));
    char *at = file.data, *end = file.data + file.len;
    if (file.len >= 3 && memcmp(at, "\xEF\xBB\xBF", 3) == 0) at += 3;
    while (at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        size_t len = (size_t)(stop - at);
        line++;
        if (len > 0 && at[len - 1] == '\r') len--;
        at[len] = 0;
        SAF_TRY(check_text(list->file, line, at, len));
        if (!is_blank(at, len)) SAF_TRY(read(list, at, len, line));
        if (!newline) break;
        at = newline + 1;
    }
out:
    saf_buf_free(&file);
    return st;
}

static saf_status read_text_line(saf__prompt_list *list, char *text, size_t len, int64_t line) {
    (void)len;
    saf_prompt *p = NULL;
    saf_status st = saf__prompt_list_add(list, line, &p);
    return st == SAF_OK ? saf_strdup(text, &p->text) : st;
}

static saf_status read_json_line(saf__prompt_list *list, char *text, size_t len, int64_t line) {
    return saf__prompt_from_json(list, text, len, line);
}

/* ---- token ids ----------------------------------------------------------------------------- */

/* One id at *text; moves behind it and the blanks around it. */
static saf_status read_id(const saf__where *at, char **text, int32_t *out) {
    char word[24];
    size_t n = strcspn(*text, " \t");
    int64_t v = 0;
    for (size_t i = 0; i < n && v <= INT32_MAX; i++) {
        char c = (*text)[i];
        v = c >= '0' && c <= '9' ? 10 * v + (c - '0') : (int64_t)INT32_MAX + 1;
    }
    if (v > INT32_MAX) {
        snprintf(word, sizeof word, "%.*s", (int)(n < 20 ? n : 20), *text);
        char quoted[SAF__QUOTE_BYTES];
        return saf__fail_at(at, NULL, "expected token ids, 0 to %d, separated by spaces, got %s",
                            INT32_MAX, saf__quote(word, quoted));
    }
    *out = (int32_t)v;
    *text += n;
    *text += strspn(*text, " \t");
    return SAF_OK;
}

static saf_status read_ids_line(saf__prompt_list *list, char *text, size_t len, int64_t line) {
    saf_status st = SAF_OK;
    saf__where at = {list->file, line, SAF_BAD_INPUT};
    saf_prompt *p = NULL;
    char *word = text + strspn(text, " \t");
    size_t words = 0;
    for (size_t i = 0; i < len; i++)
        words += strchr(" \t", text[i]) == NULL && (i == 0 || strchr(" \t", text[i - 1]));
    SAF_TRY(saf__prompt_list_add(list, line, &p));
    SAF_TRY(saf_alloc(words, sizeof *p->ids, &p->ids));
    while (*word) {
        SAF_TRY(read_id(&at, &word, &p->ids[p->n_ids]));
        p->n_ids++;
    }
out:
    return st;
}

/* ---- other inputs -------------------------------------------------------------------------- */

static saf_status read_dataset(saf__prompt_list *list) {
    saf_status st = SAF_OK;
    saf_buf path = {0};
    char **texts = NULL;
    int64_t n = 0;
    saf_prompt *p = NULL;
    const char *dataset = dataset_of(list->file);
    SAF_TRY(saf_buf_append(&path, list->file, (size_t)(dataset - list->file) - 1));
    SAF_TRY(saf_store_read_strings(path.data, dataset, &texts, &n));
    for (int64_t i = 0; i < n; i++) {
        SAF_TRY(check_text(list->file, i + 1, texts[i], strlen(texts[i])));
        SAF_TRY(saf__prompt_list_add(list, i + 1, &p));
        p->text = texts[i];
        texts[i] = NULL;
    }
out:
    for (int64_t i = 0; texts && i < n; i++) saf_free(&texts[i]);
    saf_free(&texts);
    saf_buf_free(&path);
    return st;
}

static saf_status read_single(saf__prompt_list *list) {
    saf_prompt *p = NULL;
    saf_status st = saf__prompt_list_add(list, 1, &p);
    return st == SAF_OK ? saf_strdup(list->job->input.prompt, &p->text) : st;
}

static saf_status read_named(saf__prompt_list *list) {
    switch (saf__prompts_form_of(list->file)) {
        case SAF__PROMPTS_TEXT:
            return read_lines(list, read_text_line);
        case SAF__PROMPTS_JSONL:
            return read_lines(list, read_json_line);
        case SAF__PROMPTS_HDF5:
            return read_dataset(list);
        case SAF__PROMPTS_UNKNOWN:
            break;
    }
    return saf_fail(SAF_BAD_INPUT, "%s: expected FILE.txt, FILE.jsonl or FILE.h5:/DATASET",
                    list->file);
}

/* ---- ids of requests ----------------------------------------------------------------------- */

static int by_id(const void *a, const void *b, void *list) {
    const saf__prompt_list *l = list;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    int order = strcmp(l->items[i].id, l->items[j].id);
    return order ? order : (i > j) - (i < j);
}

/* Ids are the names of results and seed the random numbers: each only once. */
static saf_status check_ids(saf__prompt_list *list) {
    saf_status st = SAF_OK;
    int64_t *order = NULL, second = list->n, first = 0;
    SAF_TRY(saf_alloc((size_t)list->n, sizeof *order, &order));
    for (int64_t i = 0; i < list->n; i++) order[i] = i;
    qsort_r(order, (size_t)list->n, sizeof *order, by_id, list);
    for (int64_t i = 1; i < list->n; i++) {
        if (strcmp(list->items[order[i - 1]].id, list->items[order[i]].id) != 0) continue;
        if (order[i] > second) continue;
        first = order[i - 1];
        second = order[i];
    }
    if (second < list->n) {
        saf__where at = {list->file, list->lines[second], SAF_BAD_INPUT};
        char quoted[SAF__QUOTE_BYTES];
        st = saf__fail_at(
            &at, NULL, "id %s is line %lld's already (lines without an id are \"1\", \"2\", ...)",
            saf__quote(list->items[second].id, quoted), (long long)list->lines[first]);
    }
out:
    saf_free(&order);
    return st;
}

static saf_status number_requests(saf__prompt_list *list) {
    saf_status st = SAF_OK;
    char id[24];
    for (int64_t i = 0; i < list->n; i++) {
        if (list->items[i].id) continue;
        snprintf(id, sizeof id, "%lld", (long long)i + 1);
        SAF_TRY(saf_strdup(id, &list->items[i].id));
    }
out:
    return st;
}

static void free_prompt(saf_prompt *p) {
    for (int32_t m = 0; m < p->n_messages; m++) {
        saf_free(&p->messages[m].role);
        saf_free(&p->messages[m].content);
    }
    saf_free(&p->messages);
    saf_free(&p->id);
    saf_free(&p->text);
    saf_free(&p->ids);
}

/* Runs rather than every n-th: the results of all shards, one after the other, are in the order of
 * the input. */
static void keep_shard(saf__prompt_list *list) {
    int64_t shard = list->job->input.shard, shards = list->job->input.shards;
    if (shards <= 1) return;
    int64_t first = list->n * (shard - 1) / shards, end = list->n * shard / shards;
    for (int64_t i = 0; i < list->n; i++)
        if (i < first || i >= end) free_prompt(&list->items[i]);
    list->n = end - first;
    memmove(list->items, list->items + first, (size_t)list->n * sizeof *list->items);
}

saf_status saf_prompts_read(const saf_job *job, saf_prompt **out, int64_t *n) {
    saf_status st = SAF_OK;
    saf__prompt_list list = {.job = job};
    if (job->input.prompt) {
        list.file = "input.prompt";
        SAF_TRY(read_single(&list));
    } else if (job->input.tokens) {
        list.file = job->input.tokens;
        SAF_TRY(read_lines(&list, read_ids_line));
    } else {
        list.file = job->input.prompts ? job->input.prompts : job->input.texts;
        if (!list.file) return saf_fail(SAF_DEFECT, "a job without input");
        SAF_TRY(read_named(&list));
    }
    if (list.n == 0) {
        st = saf_fail(SAF_BAD_INPUT, "%s: empty, expected at least one request", list.file);
        goto out;
    }
    SAF_TRY(number_requests(&list));
    SAF_TRY(check_ids(&list));
    keep_shard(&list);
    *out = list.items;
    *n = list.n;
    list.items = NULL;
    list.n = 0;
out:
    saf_prompts_free(&list.items, list.n);
    saf_free(&list.lines);
    return st;
}

void saf_prompts_free(saf_prompt **prompts, int64_t n) {
    for (int64_t i = 0; *prompts && i < n; i++) free_prompt(&(*prompts)[i]);
    saf_free(prompts);
}
