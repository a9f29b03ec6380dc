/* Tiles of products with a vector, beside loops that take one element after the other: the same
 * bits, whatever the lengths and wherever a tile lies. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "matrix/vector.h"

enum { ROWS = 5, COLS = 300, GUARD = 16 };

/* Of many sizes, so that another order of sums has other bits; some zeros of either sign, some
 * denormals. */
static double number(void) {
    int what = rand() % 16;
    double x = ldexp((double)rand() / RAND_MAX - 0.5, rand() % 20 - 10);
    return what == 0   ? 0.0
           : what == 1 ? -0.0
           : what == 2 ? x * 0x1p-140
           : what == 3 ? x * 0x1p-1060
                       : x;
}

#define DEFINE(type, dtype)                                                                        \
    static type matrix_##type[GUARD + ROWS * COLS], x_##type[GUARD + COLS];                        \
                                                                                                   \
    static type sum_##type(int n, const type *a, const type *b) {                                  \
        enum { LANES = 256 / sizeof(type) };                                                       \
        type lane[LANES] = {0};                                                                    \
        for (int j = 0; j < n; j++) lane[j % LANES] += a[j] * b[j];                                \
        for (int half = LANES / 2; half > 0; half /= 2)                                            \
            for (int l = 0; l < half; l++) lane[l] += lane[l + half];                              \
        return lane[0];                                                                            \
    }                                                                                              \
                                                                                                   \
    static void column_##type(int n, int from, bool first) {                                       \
        const type *m = matrix_##type + from, *x = x_##type + from % 3;                            \
        type y[ROWS + 1], want[ROWS + 1];                                                          \
        for (int i = 0; i <= ROWS; i++)                                                            \
            want[i] = y[i] = first && i < ROWS ? (type)NAN : (type)(i + 0.3);                      \
        for (int i = 0; i < ROWS; i++)                                                             \
            want[i] = first ? sum_##type(n, m + i * n, x) : want[i] + sum_##type(n, m + i * n, x); \
        saf__matrix_times_column(dtype, ROWS, n, m, x, first, y);                                  \
        assert_memory_equal(y, want, sizeof y);                                                    \
    }                                                                                              \
                                                                                                   \
    static void row_##type(int n, int from, bool first) {                                          \
        const type *m = matrix_##type + from, *x = x_##type + from % 3;                            \
        type y[COLS + GUARD], want[COLS + GUARD];                                                  \
        for (int j = 0; j < COLS + GUARD; j++)                                                     \
            want[j] = y[j] = first && j < n ? (type)NAN : (type)(j + 0.3);                         \
        for (int j = 0; j < n && first; j++) want[j] = 0;                                          \
        for (int i = 0; i < ROWS; i++)                                                             \
            for (int j = 0; j < n; j++) want[j] += x[i] * m[i * n + j];                            \
        saf__row_times_matrix(dtype, ROWS, n, x, m, first, y);                                     \
        assert_memory_equal(y, want, sizeof y);                                                    \
    }                                                                                              \
                                                                                                   \
    static void test_vector_##type(void **unused) {                                                \
        (void)unused;                                                                              \
        for (int i = 0; i < GUARD + ROWS * COLS; i++) matrix_##type[i] = (type)number();           \
        for (int i = 0; i < GUARD + COLS; i++) x_##type[i] = (type)number();                       \
        for (int n = 0; n <= COLS; n++)                                                            \
            for (int first = 0; first < 2; first++) {                                              \
                column_##type(n, n % GUARD, first);                                                \
                row_##type(n, n % GUARD, first);                                                   \
            }                                                                                      \
    }

DEFINE(float, SAF_DTYPE_F32)
DEFINE(double, SAF_DTYPE_F64)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector_float),
        cmocka_unit_test(test_vector_double),
    };
    return cmocka_run_group_tests_name("tests", tests, NULL, NULL);
}
