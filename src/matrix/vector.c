/* A matrix times a vector, where memory is what limits. A tile is read once, from its first byte to
 * its last: one stream, which processors follow by themselves, without being asked for lines ahead.
 * The part of a vector that goes with a row of the tile stays in the first-level cache meanwhile
 * (tiles.c). OpenBLAS's gemv reads several rows side by side, and up to a third less a second
 * (doc/performance.md). */
#include "matrix/vector.h"

enum { BYTES = 32, GROUPS = 8 }; /* of a vector of lanes; such vectors in registers */

#define UNROLL _Pragma("GCC unroll 8")

/* dot: lane l has every LANES-th product from l on, ascending; then half of the lanes is added to
 * the other half, until one is left.
 * add_row: a run of the row is in registers before y is looked at: loads that wait for the stores
 * before them would keep those of the next lines waiting. */
#define DEFINE(type)                                                                             \
    typedef type lanes_##type                                                                    \
        __attribute__((vector_size(BYTES), aligned(sizeof(type)), may_alias));                   \
    enum { WIDTH_##type = BYTES / sizeof(type), LANES_##type = GROUPS * WIDTH_##type };          \
                                                                                                 \
    static inline lanes_##type *at_##type(type *y, int j, int g) {                               \
        return (lanes_##type *)(y + j + g * WIDTH_##type);                                       \
    }                                                                                            \
    static inline lanes_##type load_##type(const type *x, int j, int g) {                        \
        return *(const lanes_##type *)(x + j + g * WIDTH_##type);                                \
    }                                                                                            \
                                                                                                 \
    static type dot_##type(int n, const type *a, const type *b) {                                \
        lanes_##type s[GROUPS] = {{0}};                                                          \
        type lane[LANES_##type];                                                                 \
        int j = 0;                                                                               \
        for (; j + LANES_##type <= n; j += LANES_##type) {                                       \
            UNROLL for (int g = 0; g < GROUPS; g++) {                                            \
                s[g] += load_##type(a, j, g) * load_##type(b, j, g);                             \
            }                                                                                    \
        }                                                                                        \
        UNROLL for (int g = 0; g < GROUPS; g++) * at_##type(lane, 0, g) = s[g];                  \
        for (int l = 0; j < n; l++, j++) lane[l] += a[j] * b[j];                                 \
        for (int half = LANES_##type / 2; half > 0; half /= 2)                                   \
            for (int l = 0; l < half; l++) lane[l] += lane[l + half];                            \
        return lane[0];                                                                          \
    }                                                                                            \
                                                                                                 \
    static void add_row_##type(int n, type factor, const type *row, type *y) {                   \
        int j = 0;                                                                               \
        for (; j + LANES_##type <= n; j += LANES_##type) {                                       \
            lanes_##type run[GROUPS];                                                            \
            UNROLL for (int g = 0; g < GROUPS; g++) run[g] = factor * load_##type(row, j, g);    \
            UNROLL for (int g = 0; g < GROUPS; g++) * at_##type(y, j, g) += run[g];              \
        }                                                                                        \
        for (; j < n; j++) y[j] += factor * row[j];                                              \
    }                                                                                            \
                                                                                                 \
    static void column_##type(int rows, int cols, const type *matrix, const type *x, bool first, \
                              type *y) {                                                         \
        for (int r = 0; r < rows; r++) {                                                         \
            type sum = dot_##type(cols, matrix + (size_t)r * (size_t)cols, x);                   \
            y[r] = first ? sum : y[r] + sum;                                                     \
        }                                                                                        \
    }                                                                                            \
                                                                                                 \
    static void row_##type(int rows, int cols, const type *x, const type *matrix, bool first,    \
                           type *y) {                                                            \
        if (first) memset(y, 0, (size_t)cols * sizeof *y);                                       \
        for (int r = 0; r < rows; r++)                                                           \
            add_row_##type(cols, x[r], matrix + (size_t)r * (size_t)cols, y);                    \
    }

DEFINE(float)
DEFINE(double)

void saf__matrix_times_column(saf_dtype dtype, int rows, int cols, const void *matrix,
                              const void *x, bool first, void *y) {
    if (dtype == SAF_DTYPE_F64)
        column_double(rows, cols, matrix, x, first, y);
    else
        column_float(rows, cols, matrix, x, first, y);
}

void saf__row_times_matrix(saf_dtype dtype, int rows, int cols, const void *x, const void *matrix,
                           bool first, void *y) {
    if (dtype == SAF_DTYPE_F64)
        row_double(rows, cols, x, matrix, first, y);
    else
        row_float(rows, cols, x, matrix, first, y);
}
