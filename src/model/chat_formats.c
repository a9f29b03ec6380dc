/* The families. Each row renders what the templates published with the models render for messages
 * without tools; sources are the chat_template entries of the models' tokenizer_config.json.
 * Where a template prints BOS first, that is left to the encoder. */
#include "model/chat.h"

#define CHATML                                                               \
    .user = "<|im_start|>user\n", .user_end = "<|im_end|>\n",                \
    .assistant = "<|im_start|>assistant\n", .assistant_end = "<|im_end|>\n", \
    .system = "<|im_start|>system\n", .system_end = "<|im_end|>\n"
#define CHATML_ANSWER .answer = "<|im_start|>assistant\n"

#define LLAMA3_HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA3                                                                           \
    .user = LLAMA3_HEADER("user"), .user_end = "<|eot_id|>",                             \
    .assistant = LLAMA3_HEADER("assistant"), .assistant_end = "<|eot_id|>",              \
    .system_end = "<|eot_id|>", .answer = LLAMA3_HEADER("assistant"), .trim_user = true, \
    .trim_assistant = true, .trim_system = true

/* Mistral's differ in the spaces around [INST], [/INST] and the answer. */
#define MISTRAL(before, after, answer_before)                                               \
    .user = before, .user_end = after, .assistant = answer_before, .assistant_end = "</s>", \
    .system = "", .system_end = "\n\n", .answer = "", .alternate = true

#define TAGGED(newline, end)                                                           \
    .user = "<|user|>" newline, .user_end = end, .assistant = "<|assistant|>" newline, \
    .assistant_end = end, .system = "<|system|>" newline, .system_end = end,           \
    .answer = "<|assistant|>" newline

const saf__chat_format saf__chat_formats[SAF_CHAT_FAMILIES] = {
    [SAF_CHAT_NONE] = {.name = "none"},
    [SAF_CHAT_CHATML] = {.name = "chatml", CHATML, CHATML_ANSWER},
    [SAF_CHAT_QWEN2] = {.name = "qwen2",
                        CHATML,
                        CHATML_ANSWER,
                        .default_system = "You are a helpful assistant."},
    [SAF_CHAT_QWEN25] = {.name = "qwen2.5",
                         CHATML,
                         CHATML_ANSWER,
                         .default_system = "You are Qwen, created by Alibaba Cloud. "
                                           "You are a helpful assistant."},
    [SAF_CHAT_SMOLLM2] = {.name = "smollm2",
                          CHATML,
                          CHATML_ANSWER,
                          .default_system = "You are a helpful AI assistant named SmolLM, "
                                            "trained by Hugging Face"},
    [SAF_CHAT_QWEN3] = {.name = "qwen3", CHATML, CHATML_ANSWER, .thinks = true},
    [SAF_CHAT_QWEN3_THINKING] = {.name = "qwen3-thinking",
                                 CHATML,
                                 .answer = "<|im_start|>assistant\n<think>\n",
                                 .thinks = true},
    [SAF_CHAT_PHI4] = {.name = "phi4",
                       .user = "<|im_start|>user<|im_sep|>",
                       .user_end = "<|im_end|>",
                       .assistant = "<|im_start|>assistant<|im_sep|>",
                       .assistant_end = "<|im_end|>",
                       .system = "<|im_start|>system<|im_sep|>",
                       .system_end = "<|im_end|>",
                       .answer = "<|im_start|>assistant<|im_sep|>"},
    [SAF_CHAT_LLAMA3] = {.name = "llama3", LLAMA3, .system = LLAMA3_HEADER("system")},
    /* The template's own date, not today's: the same job gives the same prompt on any day. */
    [SAF_CHAT_LLAMA31] =
        {.name = "llama3.1",
         LLAMA3,
         .system = LLAMA3_HEADER(
             "system") "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
         .default_system = ""},
    [SAF_CHAT_LLAMA2] = {.name = "llama2",
                         .user = "[INST] ",
                         .user_end = " [/INST]",
                         .again = "<s>[INST] ",
                         .assistant = " ",
                         .assistant_end = " </s>",
                         .system = "<<SYS>>\n",
                         .system_end = "\n<</SYS>>\n\n",
                         .answer = "",
                         .place = SAF__SYSTEM_FIRST_USER,
                         .alternate = true,
                         .trim_folded = true,
                         .trim_assistant = true},
    [SAF_CHAT_MISTRAL] = {.name = "mistral",
                          MISTRAL("[INST] ", " [/INST]", ""),
                          .place = SAF__SYSTEM_FIRST_USER},
    [SAF_CHAT_MISTRAL_V1] = {.name = "mistral-v1",
                             MISTRAL(" [INST] ", " [/INST]", " "),
                             .place = SAF__SYSTEM_FIRST_USER},
    [SAF_CHAT_MISTRAL_V3] = {.name = "mistral-v3",
                             MISTRAL("[INST] ", "[/INST]", " "),
                             .place = SAF__SYSTEM_LAST_USER},
    [SAF_CHAT_MISTRAL_V3_TRIM] = {.name = "mistral-v3-trim",
                                  MISTRAL("[INST] ", "[/INST]", " "),
                                  .place = SAF__SYSTEM_LAST_USER,
                                  .trim_assistant = true},
    [SAF_CHAT_MISTRAL_TEKKEN] = {.name = "mistral-tekken",
                                 MISTRAL("[INST]", "[/INST]", ""),
                                 .place = SAF__SYSTEM_LAST_USER},
    [SAF_CHAT_MINISTRAL] = {.name = "ministral",
                            MISTRAL("[INST]", "[/INST]", " "),
                            .place = SAF__SYSTEM_LAST_USER,
                            .trim_assistant = true},
    [SAF_CHAT_GEMMA] = {.name = "gemma",
                        .user = "<start_of_turn>user\n",
                        .user_end = "<end_of_turn>\n",
                        .assistant = "<start_of_turn>model\n",
                        .assistant_end = "<end_of_turn>\n",
                        .system = "",
                        .system_end = "\n\n",
                        .answer = "<start_of_turn>model\n",
                        .place = SAF__SYSTEM_FIRST_USER,
                        .alternate = true,
                        .trim_user = true,
                        .trim_assistant = true},
    [SAF_CHAT_PHI3] = {.name = "phi3", TAGGED("\n", "<|end|>\n")},
    [SAF_CHAT_PHI4_MINI] = {.name = "phi4-mini", TAGGED("", "<|end|>")},
    [SAF_CHAT_ZEPHYR] = {.name = "zephyr", TAGGED("\n", "</s>\n")},
};
