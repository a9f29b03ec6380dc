/* From messages to the prompt that a model was trained to answer. */
#include "model/chat.h"

typedef enum { SYSTEM, USER, ASSISTANT } role;

typedef struct {
    const char *at;
    size_t len;
} text;

static text text_of(const char *s) {
    return (text){s, strlen(s)};
}

/* White space as the templates' own language counts it. */
static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static text trim(text t) {
    uint32_t c;
    int n;
    while (t.len && (n = saf_utf8_decode(t.at, t.len, &c)) && is_space(c)) {
        t.at += n;
        t.len -= (size_t)n;
    }
    while (t.len) {
        size_t last = 1; /* bytes of the last character */
        while (last < t.len && last < 4 && ((uint8_t)t.at[t.len - last] & 0xc0) == 0x80) last++;
        n = saf_utf8_decode(t.at + t.len - last, last, &c);
        if (n != (int)last || !is_space(c)) break;
        t.len -= last;
    }
    return t;
}

static text strip_lines(text t, bool left, bool right) {
    while (left && t.len && t.at[0] == '\n') t.at++, t.len--;
    while (right && t.len && t.at[t.len - 1] == '\n') t.len--;
    return t;
}

static saf_status append(saf_buf *out, const char *before, text t, const char *after) {
    saf_status st = SAF_OK;
    SAF_TRY(saf_buf_append(out, before, strlen(before)));
    SAF_TRY(saf_buf_append(out, t.at, t.len));
    SAF_TRY(saf_buf_append(out, after, strlen(after)));
out:
    return st;
}

static saf_status role_of(const saf_chat_message *m, role *out) {
    if (strcmp(m->role, "system") == 0)
        *out = SYSTEM;
    else if (strcmp(m->role, "user") == 0)
        *out = USER;
    else if (strcmp(m->role, "assistant") == 0)
        *out = ASSISTANT;
    else
        return saf_fail(SAF_BAD_INPUT,
                        "a message of role \"%.40s\", expected system, user or assistant", m->role);
    return SAF_OK;
}

/* Roles are known, and in the order that the family can render. */
static saf_status check(const saf__chat_format *f, const saf_chat_message *messages, int n) {
    saf_status st = SAF_OK;
    role r = USER, want = USER;
    if (n < 1) SAF_TRY(saf_fail(SAF_BAD_INPUT, "a chat needs a message"));
    for (int i = 0; i < n; i++) {
        SAF_TRY(role_of(&messages[i], &r));
        if (i > 0 && r == SYSTEM && (f->alternate || f->default_system))
            SAF_TRY(saf_fail(SAF_BAD_INPUT, "message %d: in %s chats a system message comes first",
                             i + 1, f->name));
        if (!f->alternate || r == SYSTEM) continue;
        if (r != want)
            SAF_TRY(saf_fail(SAF_BAD_INPUT,
                             "message %d: in %s chats user and assistant take turns, user first",
                             i + 1, f->name));
        want = want == USER ? ASSISTANT : USER;
    }
    if (f->alternate && n == 1 && r == SYSTEM)
        SAF_TRY(saf_fail(SAF_BAD_INPUT, "%s chats need a user's message", f->name));
out:
    return st;
}

/* `system`: the text that is folded into this turn, or NULL. */
static saf_status append_user(const saf__chat_format *f, const char *content, const char *system,
                              bool first, saf_buf *out) {
    saf_status st = SAF_OK;
    saf_buf folded = {0};
    text said = text_of(content);
    if (f->trim_user) said = trim(said);
    if (system) {
        SAF_TRY(append(&folded, f->system, text_of(system), f->system_end));
        SAF_TRY(saf_buf_append(&folded, said.at, said.len));
        said = (text){folded.data, folded.len};
    }
    if (f->trim_folded) said = trim(said);
    SAF_TRY(append(out, first || !f->again ? f->user : f->again, said, f->user_end));
out:
    saf_buf_free(&folded);
    return st;
}

static text find_first(text t, const char *part) {
    const char *at = memmem(t.at, t.len, part, strlen(part));
    return at ? (text){at, (size_t)(t.at + t.len - at)} : (text){NULL, 0};
}

/* What follows the last `part`; all of it when there is none. */
static text after_last(text t, const char *part) {
    for (text next; (next = find_first(t, part)).at;)
        t = (text){next.at + strlen(part), next.len - strlen(part)};
    return t;
}

/* An answer with thoughts: they stay only after the last question, where a turn may be going on. */
static saf_status append_thinking(const saf__chat_format *f, text said, bool recent, bool last,
                                  saf_buf *out) {
    saf_status st = SAF_OK;
    text thought = {"", 0}, end = find_first(said, "</think>");
    if (end.at) {
        thought = strip_lines((text){said.at, (size_t)(end.at - said.at)}, false, true);
        thought = strip_lines(after_last(thought, "<think>"), true, false);
        said = strip_lines(after_last(said, "</think>"), true, false);
    }
    SAF_TRY(append(out, f->assistant, (text){"", 0}, ""));
    if (recent && (last || thought.len)) {
        SAF_TRY(append(out, "<think>\n", strip_lines(thought, true, true), "\n</think>\n\n"));
        said = strip_lines(said, true, false);
    }
    SAF_TRY(append(out, "", said, f->assistant_end));
out:
    return st;
}

static saf_status append_assistant(const saf__chat_format *f, const char *content, bool recent,
                                   bool last, saf_buf *out) {
    text said = text_of(content);
    if (f->thinks) return append_thinking(f, said, recent, last, out);
    return append(out, f->assistant, f->trim_assistant ? trim(said) : said, f->assistant_end);
}

static saf_status append_system(const saf__chat_format *f, const char *content, saf_buf *out) {
    text said = text_of(content);
    return append(out, f->system, f->trim_system ? trim(said) : said, f->system_end);
}

const char *saf_chat_family_name(saf_chat_family family) {
    return saf__chat_formats[family].name;
}

saf_status saf_chat_render(saf_chat_family family, const saf_chat_message *messages, int n,
                           saf_buf *out) {
    saf_status st = SAF_OK;
    const saf__chat_format *f = &saf__chat_formats[family];
    int last_user = n, first_user = n;
    role r = USER;
    if (family == SAF_CHAT_NONE)
        SAF_TRY(saf_fail(SAF_BAD_INPUT,
                         "the model has no chat template that saf knows: give "
                         "prompts as text"));
    SAF_TRY(check(f, messages, n));
    for (int i = n - 1; i >= 0; i--) {
        SAF_TRY(role_of(&messages[i], &r));
        if (r == USER && last_user == n) last_user = i;
        if (r == USER) first_user = i;
    }
    /* r is the first message's now. */
    bool folds = r == SYSTEM && f->place != SAF__SYSTEM_TURN;
    const char *folded = folds ? messages[0].content : NULL;
    if (r != SYSTEM && f->default_system) SAF_TRY(append_system(f, f->default_system, out));
    int fold_at = f->place == SAF__SYSTEM_LAST_USER ? last_user : first_user;
    for (int i = folds; i < n; i++) {
        const char *content = messages[i].content;
        SAF_TRY(role_of(&messages[i], &r));
        if (r == SYSTEM)
            SAF_TRY(append_system(f, content, out));
        else if (r == USER)
            SAF_TRY(append_user(f, content, i == fold_at ? folded : NULL, i == first_user, out));
        else
            SAF_TRY(append_assistant(f, content, i > last_user, i == n - 1, out));
    }
    SAF_TRY(saf_buf_append(out, f->answer, strlen(f->answer)));
out:
    return st;
}
