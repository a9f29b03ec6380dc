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

saf_status(saf_fail)(saf_status status, const char *format, ...) {
    /* Formatted aside first: an argument may be the text recorded before. */
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&error_lock);
    memcpy(error_text, text, sizeof error_text);
    pthread_mutex_unlock(&error_lock);
    return status;
}

const char *saf_error_text(void) {
    return error_text;
}
