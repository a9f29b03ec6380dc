#include "saf/core.h"

/* Source: The Unicode Standard, table 3-7 (well-formed UTF-8 byte sequences). */
int saf_utf8_decode(const char *text, size_t len, uint32_t *out) {
    const unsigned char *s = (const unsigned char *)text;
    if (len == 0) return 0;
    if (s[0] < 0x80) {
        *out = s[0];
        return 1;
    }
    int n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || len < (size_t)n) return 0;
    uint32_t c = s[0] & (0x7Fu >> n);
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < smallest[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
    *out = c;
    return n;
}

int saf_utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (char)((0xF00 >> n & 0xF0) | c);
    return n;
}

size_t saf_utf8_valid_prefix(const char *text, size_t len) {
    size_t i = 0;
    uint32_t c;
    while (i < len) {
        int n = saf_utf8_decode(text + i, len - i, &c);
        if (n == 0) return i;
        i += (size_t)n;
    }
    return len;
}

/* Whether text[0..len) is a beginning of some valid character, too short by itself. */
static bool is_open_character(const char *text, size_t len) {
    if (len == 0 || len > 3) return false;
    char padded[4];
    uint32_t c;
    /* The second byte's range depends on the first: try the ends of what may follow. */
    static const char low_high[2] = {(char)0x80, (char)0xBF};
    unsigned char lead = (unsigned char)text[0];
    size_t n = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 0;
    if (n <= len) return false;
    for (int k = 0; k < 2; k++) {
        memcpy(padded, text, len);
        memset(padded + len, low_high[k], n - len);
        if (saf_utf8_decode(padded, n, &c)) return true;
    }
    return false;
}

size_t saf_utf8_whole_prefix(const char *text, size_t len) {
    for (size_t tail = 1; tail <= 3 && tail <= len; tail++)
        if (is_open_character(text + len - tail, tail)) return len - tail;
    return len;
}

saf_status saf_utf8_append_clean(saf_buf *out, const char *text, size_t len) {
    saf_status st = SAF_OK;
    while (len > 0) {
        size_t good = saf_utf8_valid_prefix(text, len);
        SAF_TRY(saf_buf_append(out, text, good));
        text += good;
        len -= good;
        if (len > 0) {
            SAF_TRY(saf_buf_append(out, "\xEF\xBF\xBD", 3));
            text++;
            len--;
        }
    }
out:
    return st;
}
