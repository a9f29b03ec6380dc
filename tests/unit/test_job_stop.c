/* Time limits in words, as Slurm's manual (sbatch, --time) defines them, and seconds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "job/saver.h"

static void test_time_limit_forms(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double seconds; /* 0: none */
    } cases[] = {
        {"90s", 90},
        {"1s", 1},
        {"30", 1800},
        {"5:30", 330},
        {"1:00:00", 3600},
        {"01:02:03", 3723},
        {"2-0", 172800},
        {"1-12", 129600},
        {"1-12:30", 131400},
        {"1-00:00:01", 86401},
        {"0:0:7", 7},
        {"", 0},
        {"0", 0},
        {"s", 0},
        {"-5", 0},
        {"5-", 0},
        {"1:", 0},
        {":1", 0},
        {"1:2:3:4", 0},
        {"1-2:3:4:5", 0},
        {"90 s", 0},
        {"90S", 0},
        {"1.5", 0},
        {"1h", 0},
        {"12345678901", 0},
        {"1-2-3", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double seconds = 0;
        bool good = saf__time_limit_read(cases[i].text, &seconds);
        if (good != (cases[i].seconds > 0) || (good && seconds != cases[i].seconds))
            print_error("\"%s\": %d, %g seconds\n", cases[i].text, good, seconds);
        assert_true(good == (cases[i].seconds > 0));
        assert_true(!good || seconds == cases[i].seconds);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_time_limit_forms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
