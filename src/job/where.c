#include "job/where.h"

#include <stdio.h>

saf_status saf__fail_at(const saf__where *at, const char *key, const char *format, ...) {
    char text[1024], line[32] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (at->line > 0) snprintf(line, sizeof line, ":%lld", (long long)at->line);
    return saf_fail(at->status, "%s%s: %s%s%s", at->file, line, key ? key : "", key ? ": " : "",
                    text);
}

const char *saf__quote(const char *text, char out[SAF__QUOTE_BYTES]) {
    enum { SHOWN = SAF__QUOTE_BYTES - 6 }; /* two quotes, three dots, the end */
    size_t len = strlen(text), shown = len;
    if (len > SHOWN) shown = saf_utf8_whole_prefix(text, SHOWN);
    out[0] = '"';
    for (size_t i = 0; i < shown;) {
        uint32_t c = 0;
        int n = saf_utf8_decode(text + i, shown - i, &c);
        if (n == 0 || c < 0x20 || c == 0x7F) {
            out[1 + i++] = '?';
        } else {
            memcpy(out + 1 + i, text + i, (size_t)n);
            i += (size_t)n;
        }
    }
    snprintf(out + 1 + shown, SAF__QUOTE_BYTES - 1 - shown, "%s\"", shown < len ? "..." : "");
    return out;
}
