/* The tables that only bench jobs have. */
#include "store/schema.h"

#define COLUMN(type, member, k, units, text) \
    { #member, units, text, SAF__COLUMN_##k, offsetof(type, member), sizeof((type *)0)->member }
#define PHASE(member, k, units, text) COLUMN(saf_result_phase, member, k, units, text)
#define SAMPLE(member, k, units, text) COLUMN(saf_result_sample, member, k, units, text)
#define STEP(member, k, units, text) COLUMN(saf_result_step, member, k, units, text)
#define TABLE(path, type, text, columns) \
    { path, text, sizeof(type), (int)(sizeof columns / sizeof columns[0]), columns }

/* clang-format off */
static const saf__column phase_columns[] = {
    PHASE(phase, CHARS, "text", "what was measured"),
    PHASE(repeats, I32, "1", "how often"),
    PHASE(sequences, I32, "sequences", "sequences side by side"),
    PHASE(passes, I32, "passes", "forward passes of a repetition"),
    PHASE(context, I64, "tokens", "positions of each sequence before the first pass"),
    PHASE(tokens, I64, "tokens", "tokens of a repetition, of all sequences"),
    PHASE(seconds, F64, "s", "of a repetition, the median"),
    PHASE(seconds_min, F64, "s", "the shortest repetition"),
    PHASE(seconds_max, F64, "s", "the longest repetition"),
    PHASE(tokens_per_s, F64, "tokens/s", "tokens by seconds, the median"),
    PHASE(tokens_per_s_min, F64, "tokens/s", "the least of all repetitions"),
    PHASE(tokens_per_s_max, F64, "tokens/s", "the most of all repetitions"),
    PHASE(weight_bytes, I64, "bytes", "weights that a repetition must read, as large as in the model file"),
    PHASE(kv_bytes, I64, "bytes", "keys and values that a repetition must read"),
    PHASE(int8_ops, I64, "operations", "of products with quantised weights"),
    PHASE(float_ops, I64, "operations", "of products with float weights and of attention"),
    PHASE(bytes_per_s, F64, "bytes/s", "weight_bytes and kv_bytes by seconds"),
    PHASE(ops_per_s, F64, "operations/s", "int8_ops and float_ops by seconds"),
    PHASE(read_bytes_per_s, F64, "bytes/s", "read bandwidth measured before and after each repetition, the median"),
    PHASE(peaks, CHARS, "text", "vector instructions that the two peaks are of"),
    PHASE(int8_ops_per_s, F64, "operations/s", "peak of products of bytes by vector instructions, likewise"),
    PHASE(f32_ops_per_s, F64, "operations/s", "peak of fma of f32, likewise"),
    PHASE(of_read, F64, "1", "bytes_per_s as a part of the read bandwidth, the median of each repetition's"),
    PHASE(of_read_min, F64, "1", "the least of all repetitions"),
    PHASE(of_read_max, F64, "1", "the most of all repetitions"),
    PHASE(of_peak, F64, "1", "int8_ops by their peak and float_ops by theirs, added, as a part of seconds (above 1 where tile units do better); the median of each repetition's"),
    PHASE(of_peak_min, F64, "1", "the least of all repetitions"),
    PHASE(of_peak_max, F64, "1", "the most of all repetitions"),
    PHASE(tile_ops_per_s, F64, "operations/s", "peak of products of bytes by tile units (AMX), likewise; NaN where there are none"),
    PHASE(of_tiles, F64, "1", "as of_peak, with this peak for int8_ops; the median of each repetition's"),
    PHASE(of_tiles_min, F64, "1", "the least of all repetitions"),
    PHASE(of_tiles_max, F64, "1", "the most of all repetitions"),
    PHASE(sgemm_ops_per_s, F64, "operations/s", "a product of the model's feed-forward shape by OpenBLAS, the median (prefill with float weights)"),
    PHASE(of_sgemm, F64, "1", "ops_per_s as a part of it, the median of each repetition's"),
    PHASE(copy_s, F64, "s", "a plain copy of the tensors from the page cache into fresh memory by the same threads, the median (load)"),
    PHASE(copies, F64, "1", "seconds as a multiple of it, the median of each repetition's"),
};
const saf__table saf__phases_table =
    TABLE("/bench/phases", saf_result_phase, "what a bench job measured, against what the rank could do at best", phase_columns);

static const saf__column sample_columns[] = {
    SAMPLE(phase, CHARS, "text", "what was measured"),
    SAMPLE(repetition, I32, "1", "which time, counted from 1"),
    SAMPLE(seconds, F64, "s", "how long it took"),
    SAMPLE(read_before, F64, "bytes/s", "read bandwidth just before"),
    SAMPLE(read_after, F64, "bytes/s", "and just after"),
    SAMPLE(int8_before, F64, "operations/s", "peak of products of bytes just before"),
    SAMPLE(int8_after, F64, "operations/s", "and just after"),
    SAMPLE(f32_before, F64, "operations/s", "peak of fma of f32 just before"),
    SAMPLE(f32_after, F64, "operations/s", "and just after"),
    SAMPLE(tiles_before, F64, "operations/s", "peak of products of bytes by tile units just before"),
    SAMPLE(tiles_after, F64, "operations/s", "and just after"),
    SAMPLE(sgemm_ops_per_s, F64, "operations/s", "OpenBLAS just before"),
    SAMPLE(copy_s, F64, "s", "a plain copy just before"),
};
const saf__table saf__samples_table =
    TABLE("/bench/samples", saf_result_sample, "every repetition of every phase, in the order in which they were measured", sample_columns);

static const saf__column step_columns[] = {
    STEP(phase, CHARS, "text", "what was measured"),
    STEP(step, CHARS, "text", "kind of step of its forward passes; sampling is what is left"),
    STEP(seconds, F64, "s", "of a repetition, the median"),
    STEP(share, F64, "1", "of the seconds of all steps of the phase"),
    STEP(weight_bytes, I64, "bytes", "weights that a repetition must read"),
    STEP(kv_bytes, I64, "bytes", "keys and values that a repetition must read"),
    STEP(int8_ops, I64, "operations", "of products with quantised weights"),
    STEP(float_ops, I64, "operations", "of products with float weights and of attention"),
    STEP(limit_s, F64, "s", "the longer of reading the bytes and computing the operations, each at its best yardstick"),
};
const saf__table saf__steps_table =
    TABLE("/bench/steps", saf_result_step, "where the time of each phase goes", step_columns);
/* clang-format on */
_Static_assert(sizeof phase_columns / sizeof phase_columns[0] <= SAF__MAX_COLUMNS,
               "more columns than a table may have");
