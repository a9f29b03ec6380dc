/* The schema of what a results file says of a training. */
#include "store/schema.h"

#define ENTRY(name, kind, member) \
    { name, offsetof(saf_results, training.member), SAF__ATTRIBUTE_##kind, true }

const saf__attribute saf__training_attributes[] = {
    ENTRY("train_arch", TEXT, arch),
    ENTRY("train_shape", TEXT, shape),
    ENTRY("train_vocabulary", TEXT, vocabulary),
    ENTRY("train_model", TEXT, model),
    ENTRY("train_model_type", TEXT, model_type),
    ENTRY("train_vocab", I64, vocab),
    ENTRY("train_parameters", I64, parameters),
    ENTRY("train_steps", I64, steps),
    ENTRY("train_batch", I64, batch),
    ENTRY("train_micro_batches", I64, micro_batches),
    ENTRY("train_context", I64, context),
    ENTRY("train_text_tokens", I64, text_tokens),
    ENTRY("train_text_bytes", I64, text_bytes),
    ENTRY("train_held_out_tokens", I64, held_out_tokens),
    ENTRY("train_held_out_bytes", I64, held_out_bytes),
    ENTRY("train_held_out_loss", F64, held_out_loss),
    ENTRY("train_held_out_loss_per_byte", F64, held_out_loss_per_byte),
    ENTRY("train_tokens_per_s", F64, tokens_per_s),
    ENTRY("train_flops_per_s", F64, flops_per_s),
    ENTRY("train_core", TEXT, core),
    ENTRY("weights_sha256", TEXT, weights_sha256),
};
const int saf__n_training_attributes =
    (int)(sizeof saf__training_attributes / sizeof saf__training_attributes[0]);

#define COLUMN(type, member, k, units, text) \
    { #member, units, text, SAF__COLUMN_##k, offsetof(type, member), sizeof((type *)0)->member }
#define STEP(member, k, units, text) COLUMN(saf_result_train_step, member, k, units, text)
#define EVALUATION(member, k, units, text) COLUMN(saf_result_evaluation, member, k, units, text)
#define TABLE(path, type, text, columns) \
    { path, text, sizeof(type), (int)(sizeof columns / sizeof columns[0]), columns }

static const saf__column step_columns[] = {
    STEP(step, I64, "1", "number of the step, from 1 on"),
    STEP(loss, F64, "nat/token", "loss of its sequences before its update, the mean over tokens"),
    STEP(learning_rate, F64, "1", "rate of its update"),
    STEP(gradient_norm, F64, "1", "length of the gradient before clipping"),
    STEP(tokens, I64, "tokens", "tokens that were predicted"),
    STEP(seconds, F64, "s", "time that it took, by the clock of rank 0"),
};
const saf__table saf__curve_table =
    TABLE("/steps", saf_result_train_step, "one row per step of the training", step_columns);

static const saf__column evaluation_columns[] = {
    EVALUATION(step, I64, "1", "steps that the model had behind it"),
    EVALUATION(loss, F64, "nat/token", "loss on the held-out text, the mean over tokens"),
    EVALUATION(loss_per_byte, F64, "nat/byte", "the same by bytes, which no vocabulary changes"),
    EVALUATION(tokens, I64, "tokens", "tokens that were predicted"),
    EVALUATION(bytes, I64, "bytes", "bytes that these stand for"),
    EVALUATION(seconds, F64, "s", "time that it took, by the clock of rank 0"),
};
const saf__table saf__evaluations_table =
    TABLE("/evaluations", saf_result_evaluation, "one row per look at the held-out text",
          evaluation_columns);
