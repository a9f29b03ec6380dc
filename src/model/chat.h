/* Inside of the chat prompts: what tells one family from another when a prompt is rendered. */
#ifndef SAF_MODEL_CHAT_H
#define SAF_MODEL_CHAT_H

#include "saf/model.h"

/* Where the system message goes. */
typedef enum {
    SAF__SYSTEM_TURN,       /* a turn of its own */
    SAF__SYSTEM_FIRST_USER, /* before the text of the first user turn */
    SAF__SYSTEM_LAST_USER   /* before the text of the last user turn */
} saf__system_place;

/* A family: texts around what each role says. */
typedef struct {
    const char *name;
    const char *user, *user_end;
    const char *again; /* stands for `user` in every turn but the first; NULL: the same */
    const char *assistant, *assistant_end;
    const char *system, *system_end;
    const char *answer;         /* comes last: the assistant goes on from there */
    const char *default_system; /* said where the messages have no system turn; NULL: nothing */
    saf__system_place place;
    bool alternate;   /* user and assistant must take turns, a system message only come first */
    bool trim_user;   /* without white space around it */
    bool trim_folded; /* user text, a system text before it included */
    bool trim_assistant, trim_system;
    bool thinks; /* what <think>...</think> says in earlier answers is left out */
} saf__chat_format;

extern const saf__chat_format saf__chat_formats[SAF_CHAT_FAMILIES];

#endif
