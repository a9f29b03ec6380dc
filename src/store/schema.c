#include "store/schema.h"

/* ---- root attributes ---- */

#define TEXT(name, member) \
    { name, offsetof(saf_results, member), SAF__ATTRIBUTE_TEXT, true }
#define I64(name, member) \
    { name, offsetof(saf_results, member), SAF__ATTRIBUTE_I64, false }
#define F64(name, member) \
    { name, offsetof(saf_results, member), SAF__ATTRIBUTE_F64, false }
#define LATER(name, kind, member) \
    { name, offsetof(saf_results, member), SAF__ATTRIBUTE_##kind, true }

const saf__attribute saf__result_attributes[] = {
    TEXT("saf_version", version),
    TEXT("commit", commit),
    TEXT("job_kind", kind),
    TEXT("job_text", job_text),
    TEXT("command_line", command_line),
    TEXT("start_time", start_time),
    TEXT("end_time", end_time),
    TEXT("exit_state", exit_state),
    TEXT("layout", layout),
    TEXT("model_path", model_path),
    TEXT("model_name", model_name),
    TEXT("model_sha256", model_sha256),
    TEXT("tokens_sha256", tokens_sha256),
    TEXT("logits_sha256", logits_sha256),
    TEXT("kernels", kernels),
    I64("ranks", n_ranks),
    I64("prompt_tokens", prompt_tokens),
    I64("completion_tokens", completion_tokens),
    I64("vocab", vocab),
    I64("failed_requests", failed_requests),
    F64("load_s", load_s),
    F64("run_s", run_s),
    LATER("resumes", I64, resumes),
    LATER("checkpoints", I64, checkpoints),
    LATER("checkpoint_s", F64, checkpoint_s),
};
const int saf__n_result_attributes =
    (int)(sizeof saf__result_attributes / sizeof saf__result_attributes[0]);

const saf__attribute saf__plan_attributes[] = {
    TEXT("plan_rates", plan.rates),
    LATER("plan_first_token_s", F64, plan.first_token_s),
    LATER("plan_token_s", F64, plan.token_s),
    LATER("plan_tokens_per_s", F64, plan.tokens_per_s),
    LATER("plan_run_s", F64, plan.run_s),
    LATER("plan_network_share", F64, plan.network_share),
    LATER("plan_memory_bytes", I64, plan.memory_bytes),
};
const int saf__n_plan_attributes =
    (int)(sizeof saf__plan_attributes / sizeof saf__plan_attributes[0]);

/* ---- tables ---- */

#define COLUMN(type, member, k, units, text) \
    { #member, units, text, SAF__COLUMN_##k, offsetof(type, member), sizeof((type *)0)->member }
#define RANK(member, k, units, text) COLUMN(saf_result_rank, member, k, units, text)
#define REQUEST(member, k, units, text) COLUMN(saf_result_request, member, k, units, text)
#define CALL(name, member, k, units, text)                                   \
    {                                                                        \
        name, units, text, SAF__COLUMN_##k, offsetof(saf__call_row, member), \
            sizeof((saf__call_row *)0)->member                               \
    }
#define TABLE(path, type, text, columns) \
    { path, text, sizeof(type), (int)(sizeof columns / sizeof columns[0]), columns }

static const saf__column rank_columns[] = {
    RANK(rank, I32, "1", "number of the rank"),
    RANK(replica, I32, "1", "its copy of the model"),
    RANK(stage, I32, "1", "its stage in the pipeline"),
    RANK(part, I32, "1", "its part of the stage"),
    RANK(host, CHARS, "text", "name of its host"),
    RANK(cores, I32, "cores", "cores that the rank is bound to"),
    RANK(threads, I32, "threads", "threads it computed with"),
    RANK(kernels, CHARS, "text", "arithmetic it used"),
    RANK(layer0, I32, "1", "its first layer"),
    RANK(layer1, I32, "1", "the layer after its last"),
    RANK(head0, I32, "1", "the first of its attention heads"),
    RANK(head1, I32, "1", "the head after its last"),
    RANK(weight_bytes, I64, "bytes", "its tensors, as large as in the model file"),
    RANK(replicated_bytes, I64, "bytes",
         "of those, counted by another rank that holds them as well"),
    RANK(replicated, CHARS, "text", "what these are: names of tensors, rows where not all"),
    RANK(memory_weights_bytes, I64, "bytes", "memory of its weights as packed for computing"),
    RANK(memory_kv_bytes, I64, "bytes", "memory of its key-value cache"),
    RANK(peak_memory_bytes, I64, "bytes", "largest resident size of its process"),
    RANK(weights_from, I32, "1",
         "the rank that sent it its weights; itself where it read the file"),
    RANK(load_s, F64, "s", "time until its weights were there, opening the file left out"),
    RANK(compute_s, F64, "s", "time computing, between the first prompt token and the last result"),
    RANK(wait_s, F64, "s", "time waiting for others in the same span"),
    RANK(busy, F64, "1", "compute_s as a part of run_s, 0 to 1"),
    RANK(bytes_sent, I64, "bytes", "payload sent to other ranks"),
    RANK(bytes_received, I64, "bytes", "payload received from other ranks"),
};
const saf__table saf__ranks_table =
    TABLE("/ranks", saf_result_rank, "one row per rank of the job", rank_columns);

#define PLAN(member, k, units, text) COLUMN(saf_result_plan_rank, member, k, units, text)
static const saf__column plan_columns[] = {
    PLAN(rank, I32, "1", "number of the rank"),
    PLAN(memory_bytes, I64, "bytes", "memory that was planned for it"),
};
const saf__table saf__plan_table =
    TABLE("/plan", saf_result_plan_rank, "what was planned, a row per rank", plan_columns);

static const saf__column call_columns[] = {
    CALL("rank", rank, I32, "1", "number of the rank"),
    CALL("kind", call.kind, CHARS, "text", "kind of communication"),
    CALL("calls", call.calls, I64, "calls", "how often"),
    CALL("bytes", call.bytes, I64, "bytes", "payload of this rank in these calls"),
    CALL("wait_s", call.wait_s, F64, "s",
         "time spent inside the calls or waiting for them; of calls of up to 32 KiB only the "
         "waiting"),
};
const saf__table saf__calls_table =
    TABLE("/calls", saf__call_row, "one row per rank and kind of communication", call_columns);

static const saf__column request_columns[] = {
    REQUEST(id, TEXT, "text", "id from the input, or its number counted from 1"),
    REQUEST(state, CHARS, "text", "done or failed"),
    REQUEST(prompt_tokens, I64, "tokens", "length of the prompt"),
    REQUEST(completion_tokens, I64, "tokens", "tokens generated"),
    REQUEST(queue_s, F64, "s", "time from the start of the run to admission"),
    REQUEST(time_to_first_token_s, F64, "s", "time from admission to the first token"),
    REQUEST(seconds_per_token, F64, "s", "time per token after the first"),
    REQUEST(finish_reason, CHARS, "text", "eos, stop, length, scored or error"),
    REQUEST(log_likelihood, F64, "nat", "log-likelihood of the text (score jobs; NaN elsewhere)"),
    REQUEST(perplexity, F64, "1", "exp(-log_likelihood / predicted tokens) (score jobs)"),
    REQUEST(seed, U64, "1", "seed of its random numbers"),
    REQUEST(replica, I32, "1", "the replica of the model that ran it; -1: none"),
    REQUEST(error, TEXT, "text", "why it failed; empty when it did not"),
    REQUEST(logits_row0, I64, "rows", "its first row of /logits"),
    REQUEST(logits_rows, I64, "rows", "how many rows of /logits are its own"),
};
const saf__table saf__requests_table =
    TABLE("/requests", saf_result_request, "one row per request, in input order", request_columns);

/* ---- other datasets ---- */

const saf__h5_label saf__text_prompt = {"/text/prompt", "text", "prompt of each request"};
const saf__h5_label saf__text_completion = {"/text/completion", "text",
                                            "completion of each request"};
const saf__h5_label saf__tokens_prompt = {
    "/tokens/prompt", "token id",
    "prompts of all requests, one after the other; request i is "
    "[prompt_offsets[i], prompt_offsets[i + 1])"};
const saf__h5_label saf__tokens_prompt_offsets = {
    "/tokens/prompt_offsets", "tokens", "where each request begins in prompt, and the end"};
const saf__h5_label saf__tokens_completion = {
    "/tokens/completion", "token id",
    "completions of all requests, one after the other; request i is "
    "[completion_offsets[i], completion_offsets[i + 1])"};
const saf__h5_label saf__tokens_completion_offsets = {
    "/tokens/completion_offsets", "tokens", "where each request begins in completion, and the end"};
const saf__h5_label saf__logprobs_values = {
    "/logprobs/values", "nat",
    "log-probability of each completion token (score jobs: of each prompt token, NaN for a first "
    "one); request i is [offsets[i], offsets[i + 1])"};
const saf__h5_label saf__logprobs_offsets = {
    "/logprobs/offsets", "tokens",
    "where each request begins in values, top_ids and top_values, and the end"};
const saf__h5_label saf__logprobs_top_ids = {
    "/logprobs/top_ids", "token id",
    "the likeliest tokens at each place of values, the likeliest first; -1: none kept"};
const saf__h5_label saf__logprobs_top_values = {"/logprobs/top_values", "nat",
                                                "log-probabilities of top_ids; NaN: none kept"};
const saf__h5_label saf__logits = {
    "/logits", "1",
    "logits, a row of the vocabulary per token; /requests says whose rows are where"};

int64_t saf__logprob_count(const saf_results *r, const saf_result_request *q) {
    if (!q->logprobs) return 0;
    return r->kind && strcmp(r->kind, "score") == 0 ? q->prompt_tokens : q->completion_tokens;
}
