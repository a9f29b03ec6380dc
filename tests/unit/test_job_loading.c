/* The line that shows at a terminal how much is loaded. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "job/session.h"

/* What loading that ends after n of 1000 bytes puts on stderr; n < 0: nothing was told. */
static void shown(int n, char *out, size_t cap) {
    saf__session s = {0};
    FILE *to = tmpfile();
    assert_non_null(to);
    fflush(stderr);
    int old = dup(STDERR_FILENO);
    assert_true(old >= 0 && dup2(fileno(to), STDERR_FILENO) >= 0);
    if (n >= 0) saf__loading_draw(&s, (size_t)n, 1000);
    saf__loading_end(&s);
    saf__loading_end(&s);
    fflush(stderr);
    bool back = dup2(old, STDERR_FILENO) >= 0;
    close(old);
    assert_true(back);
    rewind(to);
    size_t len = fread(out, 1, cap - 1, to);
    out[len] = 0;
    fclose(to);
}

static void test_loading_line_has_one_end(void **state) {
    char text[256];
    (void)state;
    static const int told[] = {0, 1, 999, 1000};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        shown(told[i], text, sizeof text);
        assert_memory_equal(text, "\rloading: ", 10);
        char *end = strchr(text, '\n');
        assert_non_null(end);
        assert_string_equal(end, "\n");
    }
    shown(-1, text, sizeof text);
    assert_string_equal(text, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading_line_has_one_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
