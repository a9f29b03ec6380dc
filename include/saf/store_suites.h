/* saf/store_suites.h: what the suites of a bench job measured, as tables of a results file.
 *
 * A table is an array of the structs below; saf_suite_table_info says what its columns are called,
 * hold and mean, so that whoever shows tables need not know each of them. Of what was repeated a
 * row has the median, the least (_min) and the most (_max). What a row has not is NaN, or -1.
 */
#ifndef SAF_STORE_SUITES_H
#define SAF_STORE_SUITES_H

#include "saf/core.h"

enum { SAF_SUITE_HOST_BYTES = 64 };

/* A message from rank_a to rank_b and one back, a row for each size; seconds and rate are of one
 * way. `at_once` messages leave together, and `bytes` counts all of them. */
typedef struct {
    int32_t rank_a, rank_b;
    char host_a[SAF_SUITE_HOST_BYTES], host_b[SAF_SUITE_HOST_BYTES];
    int32_t at_once;
    int64_t bytes;
    int32_t repeats, rounds;
    double seconds, seconds_min, seconds_max;
    double bytes_per_s, bytes_per_s_min, bytes_per_s_max;
} saf_suite_pair;

/* The ranks [0, ranks) do something together. */
typedef struct {
    char operation[16];
    int32_t ranks;
    int64_t bytes; /* of what every rank has afterwards */
    int32_t repeats, rounds;
    double seconds, seconds_min, seconds_max;
    double bytes_per_s, bytes_per_s_min, bytes_per_s_max;
} saf_suite_collective;

/* A tensor that went to rank_b, and from there back. */
typedef struct {
    int32_t rank_a, rank_b;
    char dtype[8], shape[64];
    int32_t ndim;
    int64_t bytes;
    int32_t same; /* 1: type, shape and every bit are those that were sent */
    int32_t repeats, rounds;
    double seconds, seconds_min, seconds_max;
    double bytes_per_s, bytes_per_s_min, bytes_per_s_max;
} saf_suite_tensor;

/* A rank's threads go through memory of one NUMA node. */
typedef struct {
    int32_t rank;
    char host[SAF_SUITE_HOST_BYTES];
    int32_t node, threads, together;
    char operation[24];
    int64_t bytes, bus_bytes;
    int32_t repeats;
    double seconds, seconds_min, seconds_max;
    double bytes_per_s, bytes_per_s_min, bytes_per_s_max;
    double bus_bytes_per_s;
} saf_suite_bandwidth;

/* A rank takes memory, writes all of it and adds it up. */
typedef struct {
    int32_t rank;
    char host[SAF_SUITE_HOST_BYTES], state[16]; /* "done", "skipped" */
    int64_t bytes;
    double touch_s, touch_bytes_per_s, sum_s, sum_bytes_per_s;
    int32_t right; /* 1: the sum is what was written; -1: skipped */
} saf_suite_touch;

/* What a rank could compute at best while all ranks do. */
typedef struct {
    int32_t rank;
    char host[SAF_SUITE_HOST_BYTES], instructions[16], kind[16];
    int32_t threads, repeats;
    double ops_per_s, ops_per_s_min, ops_per_s_max;
    double ridge; /* operations for each byte read at which neither waits for the other */
} saf_suite_peak;

/* A product of two n x n matrices by `ranks` ranks. */
typedef struct {
    char dtype[8];
    int64_t n;
    int32_t ranks, grid_m, grid_n, grid_k, repeats;
    double seconds, seconds_min, seconds_max;
    double ops_per_s, ops_per_s_min, ops_per_s_max;
    double efficiency; /* ops_per_s / (ranks x that of one rank) */
} saf_suite_product;

/* Files that rank 0 writes and reads. */
typedef struct {
    char operation[24];
    int64_t bytes;
    int32_t repeats;
    double seconds, seconds_min, seconds_max;
    double bytes_per_s, bytes_per_s_min, bytes_per_s_max;
} saf_suite_file;

/* The same requests by replicas x stages ranks. */
typedef struct {
    int32_t replicas, stages, requests, tokens, repeats;
    double seconds, seconds_min, seconds_max;
    double tokens_per_s, tokens_per_s_min, tokens_per_s_max;
    double first_token_s, first_token_s_min, first_token_s_max;
} saf_suite_scale;

typedef struct {
    int32_t replicas, stages, tokens, rank;
    char host[SAF_SUITE_HOST_BYTES];
    double busy, busy_min, busy_max, waiting; /* shares of the time */
} saf_suite_busy;

/* What bounds a model's phases on a rank. */
typedef struct {
    int32_t rank;
    char host[SAF_SUITE_HOST_BYTES], words[640];
} saf_suite_roofline;

typedef enum {
    SAF_SUITE_PAIRS,
    SAF_SUITE_COLLECTIVES,
    SAF_SUITE_TENSORS,
    SAF_SUITE_BANDWIDTH,
    SAF_SUITE_TOUCH,
    SAF_SUITE_PEAKS,
    SAF_SUITE_PRODUCTS,
    SAF_SUITE_FILES,
    SAF_SUITE_SCALE,
    SAF_SUITE_BUSY,
    SAF_SUITE_ROOFLINE,
    SAF_SUITE_TABLES
} saf_suite_table;

typedef enum { SAF_CELL_I32, SAF_CELL_I64, SAF_CELL_F64, SAF_CELL_TEXT } saf_cell_kind;

typedef struct {
    const char *name, *units, *description;
    saf_cell_kind kind;
    size_t offset; /* in the struct; a text is an array of characters there */
} saf_suite_column;

/* "/bench/comm/pairs", what it holds, bytes of its struct, columns. */
typedef struct {
    const char *path, *description;
    size_t row_bytes;
    int n_columns;
} saf_suite_table_about;

saf_suite_table_about saf_suite_table_info(saf_suite_table table);
saf_suite_column saf_suite_column_info(saf_suite_table table, int column);
/* Rows of a table that a saf_buf holds. */
int64_t saf_suite_rows(saf_suite_table table, const saf_buf *rows);

#endif
