/* The tables of a bench job's suites. */
#include "store/schema.h"

#define COLUMN(type, member, k, units, text) \
    { #member, units, text, SAF__COLUMN_##k, offsetof(type, member), sizeof((type *)0)->member }
#define TABLE(path, type, text, columns) \
    { path, text, sizeof(type), (int)(sizeof columns / sizeof columns[0]), columns }
/* What rows of repeated measurements have in common. */
#define REPEATED(type)                                            \
    COLUMN(type, repeats, I32, "1", "how often it was measured"), \
        COLUMN(type, rounds, I32, "1",                            \
               "times that it was done in a repetition, one after another")
#define TIMES(type)                                                          \
    COLUMN(type, seconds, F64, "s", "the median of all repetitions"),        \
        COLUMN(type, seconds_min, F64, "s", "the least of all repetitions"), \
        COLUMN(type, seconds_max, F64, "s", "the most of all repetitions")
#define RATES(type)                                                                    \
    COLUMN(type, bytes_per_s, F64, "bytes/s", "bytes by seconds, the median"),         \
        COLUMN(type, bytes_per_s_min, F64, "bytes/s", "the least of all repetitions"), \
        COLUMN(type, bytes_per_s_max, F64, "bytes/s", "the most of all repetitions")

/* clang-format off */
#define PAIR(member, k, units, text) COLUMN(saf_suite_pair, member, k, units, text)
static const saf__column pair_columns[] = {
    PAIR(rank_a, I32, "rank", "who sends first and measures"),
    PAIR(rank_b, I32, "rank", "who sends back as much"),
    PAIR(host_a, CHARS, "text", "host of the first"),
    PAIR(host_b, CHARS, "text", "host of the second"),
    PAIR(at_once, I32, "messages", "messages under way together"),
    PAIR(bytes, I64, "bytes", "of all of them"),
    REPEATED(saf_suite_pair),
    TIMES(saf_suite_pair),
    RATES(saf_suite_pair),
};
static const saf__table pairs_table =
    TABLE("/bench/comm/pairs", saf_suite_pair, "messages from one rank to another and back; times and rates are of one way", pair_columns);

#define COLLECTIVE(member, k, units, text) COLUMN(saf_suite_collective, member, k, units, text)
static const saf__column collective_columns[] = {
    COLLECTIVE(operation, CHARS, "text", "barrier, broadcast, all-reduce or all-gather"),
    COLLECTIVE(ranks, I32, "ranks", "how many take part, from rank 0 on"),
    COLLECTIVE(bytes, I64, "bytes", "of what every rank has afterwards"),
    REPEATED(saf_suite_collective),
    TIMES(saf_suite_collective),
    RATES(saf_suite_collective),
};
static const saf__table collectives_table =
    TABLE("/bench/comm/collectives", saf_suite_collective, "what ranks do together; times are those of the slowest rank", collective_columns);

#define TENSOR(member, k, units, text) COLUMN(saf_suite_tensor, member, k, units, text)
static const saf__column tensor_columns[] = {
    TENSOR(rank_a, I32, "rank", "who sends first, measures and compares"),
    TENSOR(rank_b, I32, "rank", "who sends back what it got"),
    TENSOR(dtype, CHARS, "text", "type of its numbers"),
    TENSOR(shape, CHARS, "text", "its shape, AxBxC"),
    TENSOR(ndim, I32, "dimensions", "how many dimensions it has"),
    TENSOR(bytes, I64, "bytes", "of its contents"),
    TENSOR(same, I32, "1", "1: type, shape and every bit that came back are those that were sent"),
    REPEATED(saf_suite_tensor),
    TIMES(saf_suite_tensor),
    RATES(saf_suite_tensor),
};
static const saf__table tensors_table =
    TABLE("/bench/comm/tensors", saf_suite_tensor, "tensors sent there and back; times and rates are of one way", tensor_columns);
/* clang-format on */

const saf__table *const saf__suite_tables[SAF_SUITE_TABLES] = {
    [SAF_SUITE_PAIRS] = &pairs_table,
    [SAF_SUITE_COLLECTIVES] = &collectives_table,
    [SAF_SUITE_TENSORS] = &tensors_table,
};
