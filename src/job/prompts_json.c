/* One line of a .jsonl file becomes a request. Strict: what is not understood is an error. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "job/fields.h"
#include "job/prompts.h"

enum { DEPTH_MAX = 8, MEMBERS_MAX = 32, VALUES_MAX = 1 << 16 };

typedef struct {
    saf__where at;
    saf_job settings; /* only numbers: what the line overrides, on top of the job's */
    saf_prompt *prompt;
    bool score;
} parsed;

/* ---- before cJSON -------------------------------------------------------------------------- */

/* What cJSON lets through: \u0000 (which ends a C string), raw control characters, deep nesting;
 * and more values than any line has, each of which would take 64 bytes for 2 of the line's.
 * Raw zero bytes and invalid UTF-8 were refused before. */
static saf_status check_json(const saf__where *at, const char *text, size_t len) {
    int depth = 0, values = 1;
    bool string = false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (string && c == '\\') {
            if (strncmp(text + i + 1, "u0000", 5) == 0)
                return saf__fail_at(at, NULL, "\\u0000 at byte %zu of the line, expected text",
                                    i + 1);
            i++;
        } else if (c == '"') {
            string = !string;
        } else if (string && c < 0x20) {
            return saf__fail_at(at, NULL,
                                "a control character at byte %zu of the line, expected \\u%04x",
                                i + 1, c);
        } else if (!string && (c == '{' || c == '[') && ++depth > DEPTH_MAX) {
            return saf__fail_at(at, NULL, "nested more than %d deep at byte %zu of the line",
                                DEPTH_MAX, i + 1);
        } else if (!string && (c == '}' || c == ']')) {
            depth--;
        } else if (!string && c == ',' && ++values > VALUES_MAX) {
            return saf__fail_at(at, NULL, "more than %d values", VALUES_MAX);
        }
    }
    return SAF_OK;
}

static saf_status check_members(const saf__where *at, const cJSON *object) {
    if (cJSON_GetArraySize(object) > MEMBERS_MAX)
        return saf__fail_at(at, NULL, "an object of more than %d members", MEMBERS_MAX);
    for (const cJSON *a = object->child; a; a = a->next)
        for (const cJSON *b = a->next; b; b = b->next)
            if (strcmp(a->string, b->string) == 0)
                return saf__fail_at(at, a->string, "given twice");
    return SAF_OK;
}

/* ---- members ------------------------------------------------------------------------------- */

static saf_status read_id(parsed *p, const cJSON *v) {
    char number[32], quoted[SAF__QUOTE_BYTES];
    const char *id = v->valuestring;
    if (cJSON_IsNumber(v)) {
        if (v->valuedouble != floor(v->valuedouble) || fabs(v->valuedouble) > 9007199254740992.0)
            return saf__fail_at(&p->at, "id",
                                "expected a string, or an integer up to 2^53, got %.17g",
                                v->valuedouble);
        snprintf(number, sizeof number, "%lld", (long long)v->valuedouble);
        id = number;
    } else if (!cJSON_IsString(v) || !id[0] || strlen(id) > SAF__PROMPTS_ID_BYTES) {
        return saf__fail_at(&p->at, "id", "expected an integer or a string of 1 to %d bytes%s%s",
                            SAF__PROMPTS_ID_BYTES, cJSON_IsString(v) ? ", got " : "",
                            cJSON_IsString(v) ? saf__quote(id, quoted) : "");
    }
    return saf_strdup(id, &p->prompt->id);
}

static saf_status read_prompt(parsed *p, const cJSON *v) {
    if (!cJSON_IsString(v)) return saf__fail_at(&p->at, v->string, "expected a string");
    if (p->prompt->text || p->prompt->messages)
        return saf__fail_at(&p->at, v->string, "expected only one of prompt, text and messages");
    return saf_strdup(v->valuestring, &p->prompt->text);
}

static saf_status read_message(parsed *p, const cJSON *v, saf_chat_message *out) {
    saf_status st = SAF_OK;
    char *copy = NULL;
    if (!cJSON_IsObject(v))
        return saf__fail_at(&p->at, "messages", "expected objects with role and content");
    SAF_TRY(check_members(&p->at, v));
    for (const cJSON *m = v->child; m; m = m->next) {
        bool role = strcmp(m->string, "role") == 0;
        if (!role && strcmp(m->string, "content") != 0)
            return saf__fail_at(&p->at, "messages",
                                "unknown member \"%.40s\", expected role and content", m->string);
        if (!cJSON_IsString(m))
            return saf__fail_at(&p->at, "messages", "%s: expected a string", m->string);
        SAF_TRY(saf_strdup(m->valuestring, &copy));
        if (role)
            out->role = copy;
        else
            out->content = copy;
    }
    if (!out->role || !out->content)
        st = saf__fail_at(&p->at, "messages", "a message without %s",
                          out->role ? "content" : "role");
out:
    return st;
}

static saf_status read_messages(parsed *p, const cJSON *v) {
    saf_status st = SAF_OK;
    int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : 0;
    if (p->prompt->text)
        return saf__fail_at(&p->at, "messages", "expected only one of prompt, text and messages");
    if (n == 0)
        return saf__fail_at(&p->at, "messages",
                            "expected a list, [{\"role\": \"user\", \"content\": \"...\"}]");
    SAF_TRY(saf_alloc((size_t)n, sizeof *p->prompt->messages, &p->prompt->messages));
    for (const cJSON *m = v->child; m; m = m->next) {
        p->prompt->n_messages++;
        SAF_TRY(read_message(p, m, &p->prompt->messages[p->prompt->n_messages - 1]));
    }
out:
    return st;
}

/* Settings of one request: these keys of the group "generate". */
static saf_status read_setting(parsed *p, const cJSON *v, bool *known) {
    static const char *const names[] = {"seed",  "temperature",    "top_k",      "top_p",
                                        "min_p", "repeat_penalty", "max_tokens", NULL};
    char key[64];
    *known = false;
    for (int i = 0; !p->score && names[i]; i++) {
        if (strcmp(v->string, names[i]) != 0) continue;
        *known = true;
        if (!cJSON_IsNumber(v)) return saf__fail_at(&p->at, v->string, "expected a number");
        snprintf(key, sizeof key, "generate.%s", names[i]);
        return saf__field_set_number(&p->settings, saf__field_find(SAF_JOB_GENERATE, key),
                                     v->valuedouble, v->string, &p->at);
    }
    return SAF_OK;
}

static saf_status read_member(parsed *p, const cJSON *v) {
    bool known;
    if (strcmp(v->string, "id") == 0) return read_id(p, v);
    if (strcmp(v->string, "prompt") == 0) return read_prompt(p, v);
    if (p->score && strcmp(v->string, "text") == 0) return read_prompt(p, v);
    if (!p->score && strcmp(v->string, "messages") == 0) return read_messages(p, v);
    saf_status st = read_setting(p, v, &known);
    if (known) return st;
    char quoted[SAF__QUOTE_BYTES];
    return saf__fail_at(&p->at, NULL, "unknown member %s, expected %s",
                        saf__quote(v->string, quoted),
                        p->score ? "id, and prompt or text"
                                 : "id, prompt or messages, seed, temperature, top_k, top_p, "
                                   "min_p, repeat_penalty, max_tokens");
}

/* ---- the line ------------------------------------------------------------------------------ */

static saf_status read_object(parsed *p, const cJSON *object) {
    saf_status st = SAF_OK;
    if (!cJSON_IsObject(object))
        return saf__fail_at(&p->at, NULL, "expected an object, {\"prompt\": \"...\"}");
    SAF_TRY(check_members(&p->at, object));
    for (const cJSON *v = object->child; v; v = v->next) SAF_TRY(read_member(p, v));
    if (!p->prompt->text && !p->prompt->messages)
        return saf__fail_at(&p->at, "prompt", "missing, expected a string");
    p->prompt->sampling = p->settings.generate.sampling;
    p->prompt->max_tokens = p->settings.generate.max_tokens;
out:
    return st;
}

/* cJSON says alike that a text is wrong and that there was no memory for it. */
static bool no_memory;

static void *json_alloc(size_t bytes) {
    void *block = malloc(bytes);
    no_memory |= !block;
    return block;
}

static cJSON *parse_line(const char *text, size_t len, const char **end) {
    cJSON_Hooks noticed = {json_alloc, free};
    no_memory = false;
    cJSON_InitHooks(&noticed);
    cJSON *json = cJSON_ParseWithLengthOpts(text, len + 1, end, true);
    cJSON_InitHooks(NULL);
    return json;
}

saf_status saf__prompt_from_json(saf__prompt_list *list, const char *text, size_t len,
                                 int64_t line) {
    saf_status st = SAF_OK;
    const char *end = NULL;
    cJSON *json = NULL;
    parsed p = {.at = {list->file, line, SAF_BAD_INPUT}, .score = list->job->kind == SAF_JOB_SCORE};
    SAF_TRY(check_json(&p.at, text, len));
    SAF_TRY(saf__prompt_list_add(list, line, &p.prompt));
    p.settings.generate.sampling = p.prompt->sampling;
    p.settings.generate.max_tokens = p.prompt->max_tokens;
    json = parse_line(text, len, &end);
    if (!json && no_memory) {
        st = saf_fail(SAF_NO_MEMORY, "%s:%lld: no memory to read the line", list->file,
                      (long long)line);
        goto out;
    }
    if (!json) {
        size_t byte = end && end >= text ? (size_t)(end - text) + 1 : 1;
        st = saf__fail_at(&p.at, NULL, "not valid JSON near byte %zu of the line", byte);
        goto out;
    }
    st = read_object(&p, json);
out:
    cJSON_Delete(json);
    return st;
}
