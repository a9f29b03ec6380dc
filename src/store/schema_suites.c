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
    COLLECTIVE(operation, CHARS, "text", "barrier, broadcast, all-reduce, reduce-scatter or all-gather"),
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

#define BANDWIDTH(member, k, units, text) COLUMN(saf_suite_bandwidth, member, k, units, text)
static const saf__column bandwidth_columns[] = {
    BANDWIDTH(rank, I32, "rank", "whose threads"),
    BANDWIDTH(host, CHARS, "text", "its host"),
    BANDWIDTH(node, I32, "node", "NUMA node that the memory is on"),
    BANDWIDTH(threads, I32, "threads", "threads of the rank"),
    BANDWIDTH(together, I32, "ranks", "ranks of the host that measure at the same time, this one included"),
    BANDWIDTH(operation, CHARS, "text", "read, write or copy; with streaming stores or plain ones"),
    BANDWIDTH(bytes, I64, "bytes", "payload: what is read, written or copied"),
    BANDWIDTH(bus_bytes, I64, "bytes", "what the memory's bus carries for it: a copy moves every byte twice; plain stores first read what they overwrite (write-allocate)"),
    BANDWIDTH(repeats, I32, "1", "how often it was measured"),
    TIMES(saf_suite_bandwidth),
    RATES(saf_suite_bandwidth),
    BANDWIDTH(bus_bytes_per_s, F64, "bytes/s", "bus_bytes by seconds, the median"),
};
static const saf__table bandwidth_table =
    TABLE("/bench/memory/bandwidth", saf_suite_bandwidth, "memory bandwidth by operation, threads and NUMA node", bandwidth_columns);

#define TOUCH(member, k, units, text) COLUMN(saf_suite_touch, member, k, units, text)
static const saf__column touch_columns[] = {
    TOUCH(rank, I32, "rank", "who takes the memory; all ranks at once"),
    TOUCH(host, CHARS, "text", "its host"),
    TOUCH(state, CHARS, "text", "done; skipped: a host has not twice as much available as its ranks ask for"),
    TOUCH(bytes, I64, "bytes", "of fresh memory"),
    TOUCH(touch_s, F64, "s", "taking it and writing all of it; NaN: skipped"),
    TOUCH(touch_bytes_per_s, F64, "bytes/s", "bytes by touch_s"),
    TOUCH(sum_s, F64, "s", "adding it all up"),
    TOUCH(sum_bytes_per_s, F64, "bytes/s", "bytes by sum_s"),
    TOUCH(right, I32, "1", "1: the sum is that of what was written; -1: skipped"),
};
static const saf__table touch_table =
    TABLE("/bench/memory/touch", saf_suite_touch, "fresh memory taken, written and added up, once", touch_columns);

#define PEAK(member, k, units, text) COLUMN(saf_suite_peak, member, k, units, text)
static const saf__column peak_columns[] = {
    PEAK(rank, I32, "rank", "whose threads; all ranks at once"),
    PEAK(host, CHARS, "text", "its host"),
    PEAK(kind, CHARS, "text", "f32, f64, int8, int8 tiles (AMX)"),
    PEAK(instructions, CHARS, "text", "vector instructions that it is of"),
    PEAK(threads, I32, "threads", "threads of the rank"),
    PEAK(repeats, I32, "1", "how often it was measured"),
    PEAK(ops_per_s, F64, "operations/s", "two for each product and its addition, from registers; the median"),
    PEAK(ops_per_s_min, F64, "operations/s", "the least of all repetitions"),
    PEAK(ops_per_s_max, F64, "operations/s", "the most of all repetitions"),
    PEAK(ridge, F64, "operations/byte", "ops_per_s by the bandwidth of reading memory measured beside it: work with fewer operations for each byte is bound by memory"),
};
static const saf__table peaks_table =
    TABLE("/bench/compute/peaks", saf_suite_peak, "what arithmetic is possible at best", peak_columns);

#define PRODUCT(member, k, units, text) COLUMN(saf_suite_product, member, k, units, text)
static const saf__column product_columns[] = {
    PRODUCT(dtype, CHARS, "text", "type of the numbers"),
    PRODUCT(n, I64, "elements", "rows and columns of both matrices"),
    PRODUCT(ranks, I32, "ranks", "how many take part, from rank 0 on"),
    PRODUCT(grid_m, I32, "ranks", "of these over the rows,"),
    PRODUCT(grid_n, I32, "ranks", "over the columns,"),
    PRODUCT(grid_k, I32, "ranks", "and over the sums"),
    PRODUCT(repeats, I32, "1", "how often it was measured"),
    TIMES(saf_suite_product),
    PRODUCT(ops_per_s, F64, "operations/s", "2 n^3 by seconds, the median"),
    PRODUCT(ops_per_s_min, F64, "operations/s", "the least of all repetitions"),
    PRODUCT(ops_per_s_max, F64, "operations/s", "the most of all repetitions"),
    PRODUCT(efficiency, F64, "1", "ops_per_s as a part of `ranks` times that of one rank"),
};
static const saf__table products_table =
    TABLE("/bench/matmul/products", saf_suite_product, "distributed products of square matrices; times are those of the slowest rank, from the tiles in memory to the tiles of the result", product_columns);

#define FILES(member, k, units, text) COLUMN(saf_suite_file, member, k, units, text)
static const saf__column file_columns[] = {
    FILES(operation, CHARS, "text", "results or checkpoint, written or read"),
    FILES(bytes, I64, "bytes", "of the values in it"),
    FILES(repeats, I32, "1", "how often it was measured"),
    TIMES(saf_suite_file),
    RATES(saf_suite_file),
};
static const saf__table files_table =
    TABLE("/bench/storage/files", saf_suite_file, "HDF5 files beside the results, by rank 0: written until they are checked and durable, read from where they lie (mostly the page cache)", file_columns);

#define SCALE(member, k, units, text) COLUMN(saf_suite_scale, member, k, units, text)
static const saf__column scale_columns[] = {
    SCALE(replicas, I32, "copies", "copies of the model, each on ranks of its own"),
    SCALE(stages, I32, "stages", "stages of each copy, a rank each"),
    SCALE(requests, I32, "requests", "how many, the same for every row"),
    SCALE(tokens, I32, "tokens", "that each of them completes"),
    SCALE(repeats, I32, "1", "how often it was measured"),
    TIMES(saf_suite_scale),
    SCALE(tokens_per_s, F64, "tokens/s", "completed tokens of all requests by seconds, the median"),
    SCALE(tokens_per_s_min, F64, "tokens/s", "the least of all repetitions"),
    SCALE(tokens_per_s_max, F64, "tokens/s", "the most of all repetitions"),
    SCALE(first_token_s, F64, "s", "from the start to a request's first token, the mean of all requests; the median"),
    SCALE(first_token_s_min, F64, "s", "the least of all repetitions"),
    SCALE(first_token_s_max, F64, "s", "the most of all repetitions"),
};
static const saf__table scale_table =
    TABLE("/bench/model/scaling", saf_suite_scale, "the same requests by more and more ranks, as copies of the model and as stages of one", scale_columns);

#define BUSY(member, k, units, text) COLUMN(saf_suite_busy, member, k, units, text)
static const saf__column busy_columns[] = {
    BUSY(replicas, I32, "copies", "row of /bench/model/scaling that it belongs to,"),
    BUSY(stages, I32, "stages", "by its copies, stages"),
    BUSY(tokens, I32, "tokens", "and tokens"),
    BUSY(rank, I32, "rank", "whose time"),
    BUSY(host, CHARS, "text", "its host"),
    BUSY(busy, F64, "1", "share of the time that it computed, the median"),
    BUSY(busy_min, F64, "1", "the least of all repetitions"),
    BUSY(busy_max, F64, "1", "the most of all repetitions"),
    BUSY(waiting, F64, "1", "share that it waited for others, the median"),
};
static const saf__table busy_table =
    TABLE("/bench/model/busy", saf_suite_busy, "how busy each rank was", busy_columns);

#define ROOFLINE(member, k, units, text) COLUMN(saf_suite_roofline, member, k, units, text)
static const saf__column roofline_columns[] = {
    ROOFLINE(rank, I32, "rank", "which rank"),
    ROOFLINE(host, CHARS, "text", "its host"),
    ROOFLINE(words, CHARS, "text", "what it reads and computes at best while all ranks do, and what bounds each phase of /bench/phases there"),
};
static const saf__table roofline_table =
    TABLE("/bench/model/roofline", saf_suite_roofline, "what bounds the phases of the model on each rank", roofline_columns);
/* clang-format on */

const saf__table *const saf__suite_tables[SAF_SUITE_TABLES] = {
    [SAF_SUITE_PAIRS] = &pairs_table,       [SAF_SUITE_COLLECTIVES] = &collectives_table,
    [SAF_SUITE_TENSORS] = &tensors_table,   [SAF_SUITE_BANDWIDTH] = &bandwidth_table,
    [SAF_SUITE_TOUCH] = &touch_table,       [SAF_SUITE_PEAKS] = &peaks_table,
    [SAF_SUITE_PRODUCTS] = &products_table, [SAF_SUITE_FILES] = &files_table,
    [SAF_SUITE_SCALE] = &scale_table,       [SAF_SUITE_BUSY] = &busy_table,
    [SAF_SUITE_ROOFLINE] = &roofline_table,
};
