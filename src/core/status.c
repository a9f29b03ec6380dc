#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "saf/core.h"

static const struct {
    int exit_code;
    const char *text;
} status_table[] = {
#define X(name, code, text) {code, text},
    SAF_STATUS_LIST(X)
#undef X
};

enum { STATUS_COUNT = sizeof status_table / sizeof status_table[0], ERROR_TEXT_BYTES = 2048 };

static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static char error_text[ERROR_TEXT_BYTES];

int saf_status_exit_code(saf_status status) {
    return (unsigned)status < STATUS_COUNT ? status_table[status].exit_code : 70;
}

const char *saf_status_text(saf_status status) {
    return (unsigned)status < STATUS_COUNT ? status_table[status].text : "unknown status";
}

/* Texts of files and other programs end up in messages: what moves a terminal's cursor, forges a
 * line of a log or is no character does not. */
static void make_printable(char *text) {
    size_t len = strlen(text), to = 0;
    for (size_t at = 0; at < len;) {
        uint32_t c = 0;
        int n = saf_utf8_decode(text + at, len - at, &c);
        if (n == 0 || c < 0x20 || (c >= 0x7F && c < 0xA0)) {
            text[to++] = c == '\n' || c == '\t' ? ' ' : '?';
            at += n ? (size_t)n : 1;
            continue;
        }
        memmove(text + to, text + at, (size_t)n);
        to += (size_t)n;
        at += (size_t)n;
    }
    text[to] = 0;
}

saf_status saf_status_of_errno(int error) {
    switch (error) {
        case ENOENT:
        case ENOTDIR:
        case EISDIR:
        case EACCES:
        case EPERM:
        case ELOOP:
        case ENAMETOOLONG:
        case ENXIO: /* a socket */
            return SAF_NO_INPUT;
        case ENOMEM:
            return SAF_NO_MEMORY;
        default:
            return SAF_IO;
    }
}

saf_status(saf_fail)(saf_status status, const char *format, ...) {
    /* Formatted aside first: an argument may be the text recorded before. */
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_printable(text);
    pthread_mutex_lock(&error_lock);
    memcpy(error_text, text, sizeof error_text);
    pthread_mutex_unlock(&error_lock);
    return status;
}

const char *saf_error_text(void) {
    return error_text;
}
