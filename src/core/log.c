#include <stdio.h>

#include "saf/core.h"

static saf_log_level max_level = SAF_LOG_INFO;
static int log_rank = -1;

void saf_log_setup(saf_log_level level, int rank) {
    max_level = level;
    log_rank = rank;
}

void saf_log(saf_log_level level, const char *format, ...) {
    static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
    if (level > max_level) return;
    /* One write per line, so that lines of ranks sharing a terminal do not mix. */
    char line[4096];
    int n = log_rank >= 0 ? snprintf(line, sizeof line, "saf[%d]: %s", log_rank, prefix[level])
                          : snprintf(line, sizeof line, "saf: %s", prefix[level]);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    size_t len = (size_t)n + (m > 0 ? (size_t)m : 0);
    if (len > sizeof line - 2) len = sizeof line - 2;
    line[len] = '\n';
    fwrite(line, 1, len + 1, stderr);
    fflush(stderr);
}
