#include "job/fields.h"

#include <stdio.h>
#include <stdlib.h>

/* In order of saf_job_kind, saf_kv_type and saf_arch. */
static const char *const kind_names[] = {"generate", "score", "bench", "matmul", "train", NULL};
static const char *const kv_types[] = {"f16", "f32", "q8_0", NULL};
static const char *const archs[] = {"llama", "qwen2", "qwen3", NULL};
static const char *const train_archs[] = {"llama", "qwen3", NULL};
static const char *const written_types[] = {"f32", "f16", "bf16", "q8_0", NULL};
static const char *const matrix_types[] = {"f32", "f64", NULL};
static const char *const made_types[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1", "q5_0",
                                         "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", NULL};

/* In order of saf__suite_kind. */
static const char *const suites[] = {"model",  "comm",    "memory", "compute",
                                     "matmul", "storage", NULL};

enum {
    BOTH = SAF__FOR_GENERATE | SAF__FOR_SCORE,
    GENERATE = SAF__FOR_GENERATE,
    BENCH = SAF__FOR_BENCH,
    MATMUL = SAF__FOR_MATMUL,
    MODELS = BOTH | BENCH,
    TRAIN = SAF__FOR_TRAIN,
    LONG = BOTH | MATMUL | TRAIN, /* may be stopped, and go on */
    ALL = MODELS | MATMUL | TRAIN
};

#define AT(member) .offset = offsetof(saf_job, member)
#define LIST_AT(member, count) \
    .offset = offsetof(saf_job, member), .count_offset = offsetof(saf_job, count)
#define INT(lo, hi) .type = SAF__FIELD_INT, .min = (lo), .max = (hi)
#define FLOAT(lo, hi) .type = SAF__FIELD_FLOAT, .min = (lo), .max = (hi)
#define STRING .type = SAF__FIELD_STRING
#define SAME .identity = true
#define BOOL .type = SAF__FIELD_BOOL, .initial = "false"

/* clang-format off */
const saf__field saf__fields[] = {
    {"job", ALL, .type = SAF__FIELD_ENUM, AT(kind), .choices = kind_names, .required = true,
     .help = "the kind of job"},
    {"model.path", BOTH, STRING, AT(model.path), .required = true,
     .help = "the model: a GGUF file; of a split one, the first part (-00001-of-); only rank 0 needs "
             "it"},
    {"model.path", BENCH, STRING, AT(model.path), .absent = "made as model.shape says",
     .help = "the model to measure, a GGUF file; or model.shape"},
    {"model.shape", BENCH, STRING, AT(model.shape), .absent = "a file, model.path",
     .help = "makes a model with synthetic weights, for this job only: layers:width:heads:kv_heads:head_width:feed_forward"},
    {"model.arch", BENCH, .type = SAF__FIELD_ENUM, AT(model.arch), .choices = archs, .initial = "qwen3",
     .help = "architecture of a model that is made"},
    {"model.type", BENCH, .type = SAF__FIELD_ENUM, AT(model.type), .choices = made_types, .initial = "q8_0",
     .help = "number type of its matrices"},
    {"model.vocab", BENCH, INT(0, 1 << 21), AT(model.vocab), .initial = "0", .unit = "tokens",
     .help = "size of its vocabulary; 0: the 256 bytes and an end of text"},
    {"model.tied", BENCH, BOOL, AT(model.tied), .help = "its embedding is the output head as well"},
    {"model.kv_type", MODELS, SAME, .type = SAF__FIELD_ENUM, AT(model.kv_type), .choices = kv_types, .initial = "f16",
     .help = "number type of the key-value cache; f32 takes twice the memory of f16, q8_0 little more than half"},
    {"layout.pipeline", BOTH, INT(0, SAF_MAX_STAGES), AT(layout.pipeline), .initial = "0", .unit = "stages",
     .help = "pipeline stages, each a run of layers; 0: saf chooses"},
    {"layout.tensor", BOTH, INT(0, SAF_MAX_STAGES), AT(layout.tensor), .initial = "0", .unit = "ranks",
     .help = "ranks that share each stage, a part of its rows and heads each; 0: saf chooses"},
    {"layout.replicas", BOTH, INT(0, SAF_MAX_STAGES), AT(layout.replicas), .initial = "0", .unit = "copies",
     .help = "copies of the model, each on ranks of its own; 0: saf chooses"},
    {"layout.stages", BOTH, .type = SAF__FIELD_INTS, .min = 1, .max = INT32_MAX,
     LIST_AT(layout.stages, layout.n_stages), .max_count = SAF_MAX_STAGES, .initial = "[]", .unit = "layers",
     .help = "layers of each stage, from the first; their sum is the model's layers; []: saf cuts by what they cost"},
    {"layout.share", BOTH | MATMUL, .type = SAF__FIELD_FLOATS, .min = 0.001, .max = 1e9,
     LIST_AT(layout.share, layout.n_share), .max_count = SAF_MAX_SHARES, .initial = "[]",
     .help = "what each host, in the order of their first ranks, can hold or do against the others (memory or speed), shared by its ranks; or what each rank can; []: all alike"},
    {"layout.threads", ALL, INT(0, 1024), AT(layout.threads), .initial = "0", .unit = "threads",
     .help = "threads of each rank; 0: the cores that the rank may run on"},
    {"input.prompts", GENERATE, STRING, AT(input.prompts), .input = true,
     .help = "prompts: FILE.txt (one a line), FILE.jsonl (one object a line) or FILE.h5:/DATASET of strings"},
    {"input.texts", SAF__FOR_SCORE, STRING, AT(input.texts), .input = true,
     .help = "texts to score: FILE.txt (one a line), FILE.jsonl (one object a line) or FILE.h5:/DATASET of strings"},
    {"input.tokens", BOTH, STRING, AT(input.tokens), .input = true,
     .help = "token ids: a file with one sequence a line, decimal, separated by spaces"},
    {"input.prompt", GENERATE, STRING, AT(input.prompt), .input = true, .help = "one prompt, the text itself"},
    {"input.text", TRAIN, .type = SAF__FIELD_STRINGS, LIST_AT(input.text, input.n_text), .max_count = SAF__TEXTS_MOST,
     .required = true, .help = "files of text to learn from (UTF-8), each a text of its own; only rank 0 reads them"},
    {"input.held_out", TRAIN, SAME, FLOAT(0, 0.9), AT(input.held_out), .initial = "0.05",
     .help = "share at the end of each text, from a line on, that is not learnt from: the loss is measured there; 0: none"},
    {"input.held_out_text", TRAIN, .type = SAF__FIELD_STRINGS, LIST_AT(input.held_out_text, input.n_held_out_text),
     .max_count = SAF__TEXTS_MOST, .initial = "[]", .help = "files of text to measure the loss on, in place of a share of the others"},
    {"input.special", BOTH | TRAIN, SAME, BOOL, AT(input.special),
     .help = "special tokens written in raw texts count as such; otherwise they are plain text"},
    {"input.shards", BOTH, SAME, INT(1, 1 << 16), AT(input.shards), .initial = "1", .unit = "jobs",
     .help = "so many jobs share the requests, each a run of them, as even as can be"},
    {"input.shard", BOTH, SAME, INT(1, 1 << 16), AT(input.shard), .initial = "1",
     .help = "which of these runs this job takes, counted from 1; requests keep the ids, and so the random numbers, that they have in the whole"},
    {"generate.max_tokens", GENERATE, SAME, INT(1, INT32_MAX), AT(generate.max_tokens), .initial = "128", .unit = "tokens",
     .help = "longest completion"},
    {"generate.temperature", GENERATE, SAME, FLOAT(0, 100), AT(generate.sampling.temperature), .initial = "0.0",
     .help = "0: always the likeliest token; above: sampled, flatter as it grows"},
    {"generate.top_k", GENERATE, SAME, INT(0, INT32_MAX), AT(generate.sampling.top_k), .initial = "0", .unit = "tokens",
     .help = "sample among the k likeliest tokens; 0: off; up to 256, ranks on several hosts that share a model send each other no whole rows of logits"},
    {"generate.top_p", GENERATE, SAME, FLOAT(0, 1), AT(generate.sampling.top_p), .initial = "1.0",
     .help = "sample among the fewest tokens whose probabilities reach this sum; 1: off"},
    {"generate.min_p", GENERATE, SAME, FLOAT(0, 1), AT(generate.sampling.min_p), .initial = "0.0",
     .help = "drop tokens less likely than this share of the likeliest; 0: off"},
    {"generate.repeat_penalty", GENERATE, SAME, FLOAT(0, 1000), .above_min = true,
     AT(generate.sampling.repeat_penalty), .initial = "1.0",
     .help = "above 1 makes tokens of the recent past less likely; 1: off"},
    {"generate.repeat_last", GENERATE, SAME, INT(-1, INT32_MAX), AT(generate.sampling.repeat_last), .initial = "64",
     .unit = "tokens", .help = "how many last tokens the penalty looks at; 0: none, -1: all"},
    {"generate.seed", GENERATE, SAME, .type = SAF__FIELD_INT64, .min = 0, .max = 9223372036854775807.0,
     AT(generate.sampling.seed), .initial = "1", .help = "key of the random numbers; the same seed gives the same text"},
    {"generate.stop", GENERATE, SAME, .type = SAF__FIELD_STRINGS, LIST_AT(generate.stop, generate.n_stop),
     .max_count = SAF_MAX_STOPS, .initial = "[]", .help = "strings that end a completion; they are left out of it"},
    {"generate.stop_ids", GENERATE, SAME, .type = SAF__FIELD_INTS, .min = 0, .max = INT32_MAX,
     LIST_AT(generate.stop_ids, generate.n_stop_ids), .max_count = SAF_MAX_STOPS, .initial = "[]",
     .help = "token ids that end a completion"},
    {"generate.logprobs", GENERATE, SAME, INT(0, 64), AT(generate.logprobs), .initial = "0", .unit = "tokens",
     .help = "store the n likeliest tokens at every place, with their log-probabilities"},
    {"generate.ignore_eos", GENERATE, SAME, BOOL, AT(generate.ignore_eos),
     .help = "go on to max_tokens even where the model would end"},
    {"generate.logits", GENERATE, SAME, BOOL, AT(generate.logits),
     .help = "store the logits that each token was picked from (large)"},
    {"score.logits", SAF__FOR_SCORE, SAME, BOOL, AT(score.logits), .help = "store the logits of every token (large)"},
    {"bench.suites", BENCH, .type = SAF__FIELD_STRINGS, LIST_AT(bench.suites, bench.n_suites), .choices = suites,
     .max_count = SAF_MAX_SUITES, .initial = "[\"model\"]",
     .help = "what is measured: comm (messages between ranks), memory, compute (peaks), matmul (distributed products), storage (HDF5 files), model (prefill and decode; needs a model)"},
    {"bench.repeats", BENCH, INT(1, 10000), AT(bench.repeats), .initial = "9",
     .help = "how often everything is measured; the results are medians"},
    {"bench.prompt_tokens", BENCH, INT(1, 1 << 20), AT(bench.prompt_tokens), .initial = "512", .unit = "tokens",
     .help = "length of the prompt of a prefill, which goes through in one piece"},
    {"bench.decode_tokens", BENCH, INT(1, 1 << 20), AT(bench.decode_tokens), .initial = "16", .unit = "tokens",
     .help = "tokens decoded in each repetition, by each sequence"},
    {"bench.context", BENCH, INT(0, INT32_MAX), AT(bench.context), .initial = "4096", .unit = "tokens",
     .help = "tokens before those that are decoded with a long context; 0: this is left out"},
    {"bench.sequences", BENCH, INT(0, 4096), AT(bench.sequences), .initial = "16", .unit = "sequences",
     .help = "sequences decoded side by side; 0: this is left out"},
    {"bench.read_mib", BENCH, INT(0, 1 << 20), AT(bench.read_mib), .initial = "0", .unit = "MiB",
     .help = "memory that the read bandwidth is measured over; 0: four times the caches of the host, at most an eighth of its memory"},
    {"bench.message_bytes", BENCH, INT(1, 1 << 30), AT(bench.message_bytes), .initial = "67108864", .unit = "bytes",
     .help = "the longest message of suite comm; the others are 1 byte and four times as much each"},
    {"bench.touch_mib", BENCH, .type = SAF__FIELD_INTS, .min = 1, .max = 1 << 20,
     LIST_AT(bench.touch_mib, bench.n_touch), .max_count = SAF_MAX_SIZES, .initial = "[1024, 2048, 4096]", .unit = "MiB",
     .help = "fresh memory that every rank takes and writes in suite memory; left out where a host has less than twice as much"},
    {"bench.products", BENCH, .type = SAF__FIELD_INTS, .min = 1, .max = 1 << 20,
     LIST_AT(bench.products, bench.n_products), .max_count = SAF_MAX_SIZES, .initial = "[1024, 2048, 4096]", .unit = "elements",
     .help = "rows and columns of the square matrices of suite matmul"},
    {"bench.completions", BENCH, .type = SAF__FIELD_INTS, .min = 1, .max = 1 << 20,
     LIST_AT(bench.completions, bench.n_completions), .max_count = SAF_MAX_SIZES, .initial = "[]", .unit = "tokens",
     .help = "lengths of completions, [50, 100, 200] say, that suite model measures with 1 to all ranks, as copies of the model and as stages; []: this is left out"},
    {"bench.file_mib", BENCH, INT(1, 1 << 20), AT(bench.file_mib), .initial = "256", .unit = "MiB",
     .help = "length of the files of suite storage"},
    {"matmul.a", MATMUL, STRING, AT(matmul.a), .absent = "made from the seed",
     .help = "A of C = alpha op(A) op(B) + beta C: FILE.h5:/DATASET of float32 or float64; only rank 0 needs the file"},
    {"matmul.b", MATMUL, STRING, AT(matmul.b), .absent = "made from the seed", .help = "B, likewise; of A's type"},
    {"matmul.c", MATMUL, STRING, AT(matmul.c), .absent = "made from the seed, where beta is not 0",
     .help = "C before the product, likewise; only read where beta is not 0"},
    {"matmul.chain", MATMUL, .type = SAF__FIELD_STRINGS, LIST_AT(matmul.chain, matmul.n_chain), .max_count = SAF__CHAIN_MOST,
     .initial = "[]", .help = "the product of all of these in place of A and B, each FILE.h5:/DATASET, in the order that takes the fewest operations"},
    {"matmul.transpose_a", MATMUL, SAME, BOOL, AT(matmul.transpose_a), .help = "op(A) is the transpose of A"},
    {"matmul.transpose_b", MATMUL, SAME, BOOL, AT(matmul.transpose_b), .help = "op(B) is the transpose of B"},
    {"matmul.transpose_c", MATMUL, SAME, BOOL, AT(matmul.transpose_c),
     .help = "op(C) is the transpose of C; with beta = 1 and no other matrix the job transposes"},
    {"matmul.alpha", MATMUL, SAME, FLOAT(-1e300, 1e300), AT(matmul.alpha), .initial = "1.0",
     .help = "factor of the product"},
    {"matmul.beta", MATMUL, SAME, FLOAT(-1e300, 1e300), AT(matmul.beta), .initial = "0.0",
     .help = "factor of C; where it is 0, C is not read"},
    {"matmul.m", MATMUL, INT(-1, INT32_MAX), AT(matmul.m), .initial = "-1", .unit = "rows",
     .help = "rows of op(A) and C, of matrices that are made; -1: those of the files"},
    {"matmul.n", MATMUL, INT(-1, INT32_MAX), AT(matmul.n), .initial = "-1", .unit = "columns",
     .help = "columns of op(B) and C, likewise"},
    {"matmul.k", MATMUL, INT(-1, INT32_MAX), AT(matmul.k), .initial = "-1",
     .help = "columns of op(A) and rows of op(B), likewise"},
    {"matmul.type", MATMUL, .type = SAF__FIELD_ENUM, AT(matmul.type), .choices = matrix_types, .initial = "f32",
     .help = "number type of matrices that are made"},
    {"matmul.seed", MATMUL, SAME, .type = SAF__FIELD_INT64, .min = 0, .max = 9223372036854775807.0,
     AT(matmul.seed), .initial = "1", .help = "key of the random numbers of matrices that are made, even from -1 to 1"},
    {"train.shape", TRAIN, SAME, STRING, AT(train.shape), .required = true,
     .help = "layers:width:heads:kv_heads:head_width:feed_forward of the model"},
    {"train.vocab", TRAIN, STRING, AT(train.vocab), .required = true,
     .help = "its tokenizer: a GGUF file, of `saf model vocab` say; only rank 0 needs it"},
    {"train.arch", TRAIN, SAME, .type = SAF__FIELD_ENUM, AT(train.arch), .choices = train_archs, .initial = "llama",
     .help = "its architecture"},
    {"train.tied", TRAIN, SAME, BOOL, AT(train.tied), .help = "the embedding is the output head as well"},
    {"train.context", TRAIN, SAME, INT(2, 1 << 20), AT(train.context), .initial = "256", .unit = "tokens",
     .help = "length of the sequences that it learns from, and its context"},
    {"train.rope_base", TRAIN, SAME, FLOAT(1, 1e12), AT(train.rope_base), .initial = "10000.0",
     .help = "base of the rotary frequencies"},
    {"train.norm_eps", TRAIN, SAME, FLOAT(0, 1), AT(train.norm_eps), .above_min = true, .initial = "0.00001",
     .help = "epsilon of the norms"},
    {"train.steps", TRAIN, SAME, INT(1, 1 << 30), AT(train.steps), .initial = "1000", .unit = "steps",
     .help = "updates of the model"},
    {"train.batch", TRAIN, SAME, INT(1, 1 << 20), AT(train.batch), .initial = "32", .unit = "sequences",
     .help = "sequences of a step, of all ranks together; a multiple of train.micro_batches"},
    {"train.micro_batches", TRAIN, SAME, INT(1, 1 << 16), AT(train.micro_batches), .initial = "8",
     .help = "pieces that a step is worked out in, a power of two: as many ranks can take part, and more use less memory; the same number gives the same bits on any ranks"},
    {"train.learning_rate", TRAIN, SAME, FLOAT(0, 10), AT(train.learning_rate), .initial = "0.001",
     .help = "of AdamW, after the warm-up"},
    {"train.warmup", TRAIN, SAME, INT(0, 1 << 30), AT(train.warmup), .initial = "100", .unit = "steps",
     .help = "steps until the rate has grown to that, evenly; then it falls by half a cosine wave"},
    {"train.floor", TRAIN, SAME, FLOAT(0, 1), AT(train.floor), .initial = "0.1",
     .help = "share of the rate that is left in the last step"},
    {"train.decay", TRAIN, SAME, FLOAT(0, 10), AT(train.decay), .initial = "0.1",
     .help = "weight decay, of matrices but the token embedding"},
    {"train.clip", TRAIN, SAME, FLOAT(0, 1e9), AT(train.clip), .initial = "1.0",
     .help = "longest gradient: a longer one is shortened to that; 0: off"},
    {"train.beta1", TRAIN, SAME, FLOAT(0, 0.999999), AT(train.beta1), .initial = "0.9", .help = "of AdamW: how much the mean of gradients remembers"},
    {"train.beta2", TRAIN, SAME, FLOAT(0, 0.999999), AT(train.beta2), .initial = "0.95", .help = "the same of their squares"},
    {"train.epsilon", TRAIN, SAME, FLOAT(0, 1), AT(train.epsilon), .above_min = true, .initial = "0.00000001",
     .help = "what is added to the root of that"},
    {"train.seed", TRAIN, SAME, .type = SAF__FIELD_INT64, .min = 0, .max = 9223372036854775807.0,
     AT(train.seed), .initial = "1", .help = "key of the random numbers: of the first weights and the order of the text"},
    {"train.evaluate_every", TRAIN, SAME, INT(0, 1 << 30), AT(train.evaluate_every), .initial = "100", .unit = "steps",
     .help = "how often the loss is measured on the held-out text; 0: only at the end"},
    {"train.shard", TRAIN, BOOL, AT(train.shard),
     .help = "each rank keeps a part of the optimizer's state, in place of all of it; the same bits"},
    {"train.stop_after", TRAIN, INT(0, 1 << 30), AT(train.stop_after), .initial = "0", .unit = "steps",
     .help = "the job stops after this step with a checkpoint and exit code 75; 0: it does not"},
    {"run.memory_mib", MATMUL, INT(0, 1 << 24), AT(run.memory_mib), .initial = "0", .unit = "MiB",
     .help = "memory that the process of each rank may take (doc/matrix.md); what does not fit is read or received again, piece by piece; 0: half of what its host has for it, of less than 512 MiB up to seven eighths"},
    {"run.context", BOTH, SAME, INT(0, INT32_MAX), AT(run.context), .initial = "0", .unit = "tokens",
     .help = "longest sequence, prompt and completion together; 0: what the model was made for"},
    {"run.sequences", BOTH, INT(0, 4096), AT(run.sequences), .initial = "0", .unit = "sequences",
     .help = "sequences in flight at once, in each replica; 0: saf chooses by the stages and the memory"},
    {"run.micro_batch", BOTH, INT(0, INT32_MAX), AT(run.micro_batch), .initial = "0", .unit = "sequences",
     .help = "sequences that go through the stages together; 0: saf chooses"},
    {"run.chunk", BOTH, INT(0, INT32_MAX), AT(run.chunk), .initial = "0", .unit = "tokens",
     .help = "a long prompt goes through the stages in pieces of this length (alone in a pipeline, the first and the last of half of it); 0: saf chooses"},
    {"run.profile", BOTH, STRING, AT(run.profile), .initial = "\"\"", .may_be_empty = true,
     .help = "what the hosts can do, as `saf detect` measured it: the file that layouts of 0 are planned by; empty: the one that saf detect keeps of these hosts, if it is not stale, else rules of thumb; none: rules of thumb"},
    {"run.trace", BOTH, BOOL, AT(run.trace),
     .help = "store what each rank did when, for `saf report` and `saf report --trace`"},
    {"run.watchdog_seconds", LONG, INT(0, 86400), AT(run.watchdog_seconds), .initial = "300", .unit = "seconds",
     .help = "a rank that is stopped, hangs or cannot be reached for so long ends the job with exit code 124; 0: off"},
    {"run.time_limit", LONG, STRING, AT(run.time_limit), .initial = "\"\"", .may_be_empty = true,
     .help = "stop in time before so long after the start, with a checkpoint: 90s, MM, MM:SS, HH:MM:SS or D-HH:MM:SS; none: no limit; empty: under Slurm (or slurm) the walltime of its job"},
    {"checkpoint.every_seconds", LONG, FLOAT(0, 1e9), AT(checkpoint.every_seconds), .initial = "60.0", .unit = "seconds",
     .help = "how often the state of the job is written beside output.file, from which the same command goes on; stretched where it would take more than 2 % of the time; 0: only when the job is stopped"},
    {"checkpoint.kv", GENERATE, BOOL, AT(checkpoint.kv),
     .help = "when the job is stopped in order (USR1, time limit) the caches of the requests on their way are written as well, and taken up again: for long contexts, on disks faster than their computing"},
    {"output.file", ALL, STRING, AT(output.file), .absent = "results/NAME.h5 for a job file NAME.cfg",
     .help = "the results file (HDF5)"},
    {"output.store", MATMUL, SAME, .type = SAF__FIELD_BOOL, .initial = "true", AT(output.store),
     .help = "the product is kept; otherwise its checksum and how it was reached are all that is"},
    {"output.product", MATMUL, SAME, STRING, AT(output.product), .absent = "/C of the results file",
     .help = "a file of its own for the product: FILE.h5:/DATASET"},
    {"output.model", TRAIN, STRING, AT(output.model), .absent = "output.file with .gguf for .h5",
     .help = "the model, a GGUF file"},
    {"output.type", TRAIN, SAME, .type = SAF__FIELD_ENUM, AT(output.type), .choices = written_types, .initial = "f32",
     .help = "number type of its matrices"},
};
/* clang-format on */
_Static_assert(sizeof saf__fields / sizeof saf__fields[0] <= SAF__FIELDS_MAX, "raise the limit");
const int saf__field_count = sizeof saf__fields / sizeof saf__fields[0];

const char *saf__kv_type_name(int32_t type) {
    return kv_types[type];
}

const char *saf_job_kind_name(saf_job_kind kind) {
    return (unsigned)kind < SAF_JOB_KINDS ? kind_names[kind] : "unknown";
}

bool saf_job_kind_from_name(const char *name, saf_job_kind *out) {
    for (int i = 0; i < SAF_JOB_KINDS; i++) {
        if (strcmp(name, kind_names[i]) != 0) continue;
        *out = (saf_job_kind)i;
        return true;
    }
    return false;
}

uint32_t saf__suites_of(const saf_job *job) {
    uint32_t mask = 0;
    for (int32_t i = 0; i < job->bench.n_suites; i++)
        for (int k = 0; suites[k]; k++)
            if (strcmp(job->bench.suites[i], suites[k]) == 0) mask |= 1u << k;
    return mask;
}

const char *saf__suite_name(saf__suite_kind kind) {
    return suites[kind];
}

saf_dtype saf_job_made_type(const saf_job *job) {
    saf_dtype type = SAF_DTYPE_Q8_0;
    (void)saf_dtype_from_name(made_types[job->model.type], &type);
    return type;
}

saf_dtype saf_job_model_type(const saf_job *job) {
    saf_dtype type = SAF_DTYPE_F32;
    (void)saf_dtype_from_name(written_types[job->output.type], &type);
    return type;
}

bool saf__kind_has_input(saf_job_kind kind) {
    for (int i = 0; i < saf__field_count; i++)
        if (saf__fields[i].input && saf__fields[i].kinds & 1u << kind) return true;
    return false;
}

const saf__field *saf__field_find(saf_job_kind kind, const char *key) {
    for (int i = 0; i < saf__field_count; i++)
        if (saf__fields[i].kinds & 1u << kind && strcmp(saf__fields[i].key, key) == 0)
            return &saf__fields[i];
    return NULL;
}

bool saf__field_is_group(saf_job_kind kind, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < saf__field_count; i++)
        if (saf__fields[i].kinds & 1u << kind && strncmp(saf__fields[i].key, name, n) == 0 &&
            saf__fields[i].key[n] == '.')
            return true;
    return false;
}

/* ---- unknown keys -------------------------------------------------------------------------- */

enum { LONGEST_KEY = 64 };

static int min3(int a, int b, int c) {
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Letters to insert, drop or change, where two swapped neighbours count as one. */
static int edit_distance(const char *a, const char *b) {
    int d[3][LONGEST_KEY + 1];
    size_t la = strlen(a), lb = strlen(b);
    if (la > LONGEST_KEY || lb > LONGEST_KEY) return LONGEST_KEY;
    for (size_t j = 0; j <= lb; j++) d[0][j] = (int)j;
    for (size_t i = 1; i <= la; i++) {
        int *row = d[i % 3], *above = d[(i + 2) % 3], *above2 = d[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= lb; j++) {
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < row[j])
                row[j] = above2[j - 2] + 1;
        }
    }
    return d[la % 3][lb];
}

static const char *leaf_of(const char *key) {
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* The right name in the wrong group counts as one mistake. */
static const char *nearest_key(saf_job_kind kind, const char *key) {
    const char *best = NULL;
    int allowed = strlen(key) < 6 ? 2 : 3;
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (!(f->kinds & 1u << kind)) continue;
        int whole = edit_distance(key, f->key);
        int leaf = 1 + edit_distance(leaf_of(key), leaf_of(f->key));
        int d = whole < leaf ? whole : leaf;
        if (d > allowed) continue;
        allowed = d - 1;
        best = f->key;
    }
    return best;
}

saf_status saf__field_unknown(saf_job_kind kind, const char *key, const saf__where *at) {
    for (int other = 0; other < SAF_JOB_KINDS; other++)
        if (saf__field_find((saf_job_kind)other, key))
            return saf__fail_at(at, key, "a key of %s jobs, and this is a %s job",
                                kind_names[other], kind_names[kind]);
    const char *near = nearest_key(kind, key);
    if (near) return saf__fail_at(at, key, "unknown key, did you mean %s?", near);
    return saf__fail_at(at, key, "unknown key; `saf help %s` lists the keys", kind_names[kind]);
}
