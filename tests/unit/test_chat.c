/* Chat prompts against what the models' own templates give. The expected texts were rendered by
 * Jinja from the chat_template of each model's published tokenizer_config.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "saf/model.h"

static const saf_chat_message with_system[] = {
    {"system", "You are terse."},
    {"user", "  Hi \n"},
    {"assistant", " <think>\nhm\n</think>\n\nHello there. "},
    {"user", "Who are\nyou?"},
};
static const saf_chat_message without_system[] = {
    {"user", "A"},
    {"assistant", "B"},
    {"user", " C\u3000"},
};

static const struct {
    saf_chat_family family;
    const saf_chat_message *messages;
    const char *prompt;
} rendered[] = {
    {SAF_CHAT_CHATML, with_system,
     "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\n  Hi "
     "\n<|im_end|>\n<|im_start|>assistant\n <think>\nhm\n</think>\n\nHello there. "
     "<|im_end|>\n<|im_start|>user\nWho are\nyou?<|im_end|>\n<|im_start|>assistant\n"},
    {SAF_CHAT_CHATML, without_system,
     "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\n "
     "C\u3000<|im_end|>\n<|im_start|>assistant\n"},
    {SAF_CHAT_QWEN2, with_system,
     "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\n  Hi "
     "\n<|im_end|>\n<|im_start|>assistant\n <think>\nhm\n</think>\n\nHello there. "
     "<|im_end|>\n<|im_start|>user\nWho are\nyou?<|im_end|>\n<|im_start|>assistant\n"},
    {SAF_CHAT_QWEN2, without_system,
     "<|im_start|>system\nYou are a helpful "
     "assistant.<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n<|"
     "im_start|>user\n C\u3000<|im_end|>\n<|im_start|>assistant\n"},
    {SAF_CHAT_QWEN3, with_system,
     "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\n  Hi "
     "\n<|im_end|>\n<|im_start|>assistant\nHello there. <|im_end|>\n<|im_start|>user\nWho "
     "are\nyou?<|im_end|>\n<|im_start|>assistant\n"},
    {SAF_CHAT_QWEN3, without_system,
     "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\n "
     "C\u3000<|im_end|>\n<|im_start|>assistant\n"},
    {SAF_CHAT_LLAMA3, with_system,
     "<|start_header_id|>system<|end_header_id|>\n\nYou are "
     "terse.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\n<think>\nhm\n</think>\n\nHello "
     "there.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho "
     "are\nyou?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    {SAF_CHAT_LLAMA3, without_system,
     "<|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>assistant<|end_"
     "header_id|>\n\nB<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|><|start_"
     "header_id|>assistant<|end_header_id|>\n\n"},
    {SAF_CHAT_LLAMA31, with_system,
     "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday "
     "Date: 26 Jul 2024\n\nYou are "
     "terse.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\n<think>\nhm\n</think>\n\nHello "
     "there.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho "
     "are\nyou?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    {SAF_CHAT_LLAMA31, without_system,
     "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday "
     "Date: 26 Jul "
     "2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>"
     "assistant<|end_header_id|>\n\nB<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nC<|eot_"
     "id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    {SAF_CHAT_LLAMA2, with_system,
     "[INST] <<SYS>>\nYou are terse.\n<</SYS>>\n\n  Hi [/INST] <think>\nhm\n</think>\n\nHello "
     "there. </s><s>[INST] Who are\nyou? [/INST]"},
    {SAF_CHAT_LLAMA2, without_system, "[INST] A [/INST] B </s><s>[INST] C [/INST]"},
    {SAF_CHAT_MISTRAL, without_system, "[INST] A [/INST]B</s>[INST]  C\u3000 [/INST]"},
    {SAF_CHAT_MISTRAL_V1, with_system,
     " [INST] You are terse.\n\n  Hi \n [/INST]  <think>\nhm\n</think>\n\nHello there. </s> [INST] "
     "Who are\nyou? [/INST]"},
    {SAF_CHAT_MISTRAL_V1, without_system, " [INST] A [/INST] B</s> [INST]  C\u3000 [/INST]"},
    {SAF_CHAT_MISTRAL_V3, with_system,
     "[INST]   Hi \n[/INST]  <think>\nhm\n</think>\n\nHello there. </s>[INST] You are "
     "terse.\n\nWho are\nyou?[/INST]"},
    {SAF_CHAT_MISTRAL_V3, without_system, "[INST] A[/INST] B</s>[INST]  C\u3000[/INST]"},
    {SAF_CHAT_MISTRAL_V3_TRIM, with_system,
     "[INST]   Hi \n[/INST] <think>\nhm\n</think>\n\nHello there.</s>[INST] You are terse.\n\nWho "
     "are\nyou?[/INST]"},
    {SAF_CHAT_MISTRAL_V3_TRIM, without_system, "[INST] A[/INST] B</s>[INST]  C\u3000[/INST]"},
    {SAF_CHAT_MISTRAL_TEKKEN, with_system,
     "[INST]  Hi \n[/INST] <think>\nhm\n</think>\n\nHello there. </s>[INST]You are terse.\n\nWho "
     "are\nyou?[/INST]"},
    {SAF_CHAT_MISTRAL_TEKKEN, without_system, "[INST]A[/INST]B</s>[INST] C\u3000[/INST]"},
    {SAF_CHAT_MINISTRAL, with_system,
     "[INST]  Hi \n[/INST] <think>\nhm\n</think>\n\nHello there.</s>[INST]You are terse.\n\nWho "
     "are\nyou?[/INST]"},
    {SAF_CHAT_MINISTRAL, without_system, "[INST]A[/INST] B</s>[INST] C\u3000[/INST]"},
    {SAF_CHAT_GEMMA, with_system,
     "<start_of_turn>user\nYou are "
     "terse.\n\nHi<end_of_turn>\n<start_of_turn>model\n<think>\nhm\n</think>\n\nHello "
     "there.<end_of_turn>\n<start_of_turn>user\nWho "
     "are\nyou?<end_of_turn>\n<start_of_turn>model\n"},
    {SAF_CHAT_GEMMA, without_system,
     "<start_of_turn>user\nA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n<start_of_turn>"
     "user\nC<end_of_turn>\n<start_of_turn>model\n"},
    {SAF_CHAT_PHI3, with_system,
     "<|system|>\nYou are terse.<|end|>\n<|user|>\n  Hi \n<|end|>\n<|assistant|>\n "
     "<think>\nhm\n</think>\n\nHello there. <|end|>\n<|user|>\nWho "
     "are\nyou?<|end|>\n<|assistant|>\n"},
    {SAF_CHAT_PHI3, without_system,
     "<|user|>\nA<|end|>\n<|assistant|>\nB<|end|>\n<|user|>\n C\u3000<|end|>\n<|assistant|>\n"},
    {SAF_CHAT_PHI4, with_system,
     "<|im_start|>system<|im_sep|>You are terse.<|im_end|><|im_start|>user<|im_sep|>  Hi "
     "\n<|im_end|><|im_start|>assistant<|im_sep|> <think>\nhm\n</think>\n\nHello there. "
     "<|im_end|><|im_start|>user<|im_sep|>Who are\nyou?<|im_end|><|im_start|>assistant<|im_sep|>"},
    {SAF_CHAT_PHI4, without_system,
     "<|im_start|>user<|im_sep|>A<|im_end|><|im_start|>assistant<|im_sep|>B<|im_end|><|im_start|>"
     "user<|im_sep|> C\u3000<|im_end|><|im_start|>assistant<|im_sep|>"},
    {SAF_CHAT_PHI4_MINI, with_system,
     "<|system|>You are terse.<|end|><|user|>  Hi \n<|end|><|assistant|> "
     "<think>\nhm\n</think>\n\nHello there. <|end|><|user|>Who are\nyou?<|end|><|assistant|>"},
    {SAF_CHAT_PHI4_MINI, without_system,
     "<|user|>A<|end|><|assistant|>B<|end|><|user|> C\u3000<|end|><|assistant|>"},
    {SAF_CHAT_ZEPHYR, with_system,
     "<|system|>\nYou are terse.</s>\n<|user|>\n  Hi \n</s>\n<|assistant|>\n "
     "<think>\nhm\n</think>\n\nHello there. </s>\n<|user|>\nWho are\nyou?</s>\n<|assistant|>\n"},
    {SAF_CHAT_ZEPHYR, without_system,
     "<|user|>\nA</s>\n<|assistant|>\nB</s>\n<|user|>\n C\u3000</s>\n<|assistant|>\n"},
};

static void check(saf_chat_family family, const saf_chat_message *messages, int n,
                  const char *want) {
    saf_buf out = {0};
    if (saf_chat_render(family, messages, n, &out) != SAF_OK)
        fail_msg("%s: %s", saf_chat_family_name(family), saf_error_text());
    if (strcmp(out.data, want) != 0)
        fail_msg("%s\nexpected: %s\ngot:      %s", saf_chat_family_name(family), want, out.data);
    saf_buf_free(&out);
}

static void test_chat_renders_as_the_templates_do(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rendered / sizeof rendered[0]; i++)
        check(rendered[i].family, rendered[i].messages, rendered[i].messages == with_system ? 4 : 3,
              rendered[i].prompt);
}

static void test_chat_says_what_a_model_says_by_default(void **state) {
    static const saf_chat_message hello[] = {{"user", "Hello"}};
    (void)state;
    check(SAF_CHAT_QWEN25, hello, 1,
          "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
          "assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    check(SAF_CHAT_SMOLLM2, hello, 1,
          "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
          "Face<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    check(SAF_CHAT_QWEN3_THINKING, hello, 1,
          "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>\n");
}

static void test_chat_keeps_thoughts_only_after_the_last_question(void **state) {
    static const saf_chat_message turns[] = {
        {"user", "A"},
        {"assistant", "<think>x</think>\n\nB</think>C"},
        {"user", "D"},
        {"assistant", "<think>\ny\n\n</think>\nE\n"},
    };
    (void)state;
    check(SAF_CHAT_QWEN3, turns, 4,
          "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nC<|im_end|>\n"
          "<|im_start|>user\nD<|im_end|>\n<|im_start|>assistant\n<think>\ny\n</think>\n\nE\n"
          "<|im_end|>\n<|im_start|>assistant\n");
}

static void test_chat_recognises_templates(void **state) {
    static const struct {
        saf_chat_family family;
        const char *part; /* what tells the family, as its templates write it */
    } parts[] = {
        {SAF_CHAT_NONE, ""},
        {SAF_CHAT_NONE, "{{ messages[0]['content'] }}"},
        {SAF_CHAT_CHATML, "{{'<|im_start|>' + message['role'] + '\\n' + message['content']"},
        {SAF_CHAT_QWEN2, "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"},
        {SAF_CHAT_QWEN2, "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"},
        {SAF_CHAT_QWEN25,
         "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
         "assistant.<|im_end|>\\n' }}"},
        {SAF_CHAT_SMOLLM2,
         "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
         "Face"},
        {SAF_CHAT_QWEN3,
         "ns.last_query_index {%- if '</think>' in message.content %} '<|im_start|>assistant\\n'"},
        {SAF_CHAT_QWEN3_THINKING,
         "ns.last_query_index '</think>' in {{- '<|im_start|>assistant\\n<think>\\n' }}"},
        {SAF_CHAT_PHI4, "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}"},
        {SAF_CHAT_LLAMA3, "{% set content = '<|start_header_id|>' + message['role']"},
        {SAF_CHAT_LLAMA31,
         "{%- set date_string = \"26 Jul 2024\" %} {{- \"<|start_header_id|>system\" }}"
         "{{- \"Cutting Knowledge Date: December 2023\\n\" }}"},
        {SAF_CHAT_LLAMA2,
         "'<<SYS>>\\n' + system_message {{ bos_token + '[INST] ' + content.strip()"},
        {SAF_CHAT_MISTRAL, "{{ '[INST] ' + message['content'] + ' [/INST]' }}"},
        {SAF_CHAT_MISTRAL_V1, "{{- \" [INST] \" + message[\"content\"] + \" [/INST]\" }}"},
        {SAF_CHAT_MISTRAL_V3, "{{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}"},
        {SAF_CHAT_MISTRAL_V3_TRIM,
         "{{- \"[INST] \" + x }} {{- \" \" + message[\"content\"]|trim + "
         "eos_token}}"},
        {SAF_CHAT_MISTRAL_TEKKEN, "{{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}"},
        {SAF_CHAT_MINISTRAL,
         "{{- \"[INST]\" + x }} {{- \" \" + message[\"content\"]|trim + "
         "eos_token}}"},
        {SAF_CHAT_NONE, "[SYSTEM_PROMPT] \"[INST]\""},
        {SAF_CHAT_GEMMA, "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim"},
        {SAF_CHAT_PHI3, "{{'<|user|>' + '\\n' + message['content'] + '<|end|>' + '<|assistant|>'"},
        {SAF_CHAT_PHI3,
         "{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + "
         "'<|end|>\\n' }} '<|assistant|>\\n'"},
        {SAF_CHAT_PHI4_MINI,
         "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }} '<|assistant|>'"},
        {SAF_CHAT_ZEPHYR, "{{ '<|user|>\\n' + message['content'] + eos_token }} '<|assistant|>'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (saf_chat_recognise(parts[i].part, strlen(parts[i].part)) != parts[i].family)
            fail_msg("%s: taken for %s, expected %s", parts[i].part,
                     saf_chat_family_name(saf_chat_recognise(parts[i].part, strlen(parts[i].part))),
                     saf_chat_family_name(parts[i].family));
}

static void refused(saf_chat_family family, const saf_chat_message *messages, int n,
                    const char *why) {
    saf_buf out = {0};
    assert_int_equal(saf_chat_render(family, messages, n, &out), SAF_BAD_INPUT);
    if (!strstr(saf_error_text(), why)) fail_msg("%s: no \"%s\"", saf_error_text(), why);
    saf_buf_free(&out);
}

static void test_chat_refuses_what_a_template_would(void **state) {
    static const saf_chat_message tool[] = {{"tool", "x"}};
    static const saf_chat_message twice[] = {{"user", "x"}, {"user", "y"}};
    static const saf_chat_message answer[] = {{"assistant", "x"}};
    static const saf_chat_message late[] = {{"user", "x"}, {"system", "y"}};
    static const saf_chat_message alone[] = {{"system", "y"}};
    (void)state;
    refused(SAF_CHAT_NONE, twice, 1, "no chat template");
    refused(SAF_CHAT_CHATML, tool, 1, "\"tool\"");
    refused(SAF_CHAT_CHATML, tool, 0, "needs a message");
    refused(SAF_CHAT_LLAMA2, twice, 2, "message 2");
    refused(SAF_CHAT_GEMMA, answer, 1, "message 1");
    refused(SAF_CHAT_MISTRAL_V3, late, 2, "comes first");
    refused(SAF_CHAT_LLAMA31, late, 2, "comes first");
    refused(SAF_CHAT_GEMMA, alone, 1, "user's message");
}

static void test_chat_family_of_a_file_without_template(void **state) {
    (void)state;
    saf_gguf *g = NULL;
    saf_chat_family family = SAF_CHAT_GEMMA;
    assert_int_equal(saf_gguf_open("jobs/models/stories260K.gguf", &g), SAF_OK);
    assert_int_equal(saf_chat_family_of(g, &family), SAF_OK);
    assert_int_equal(family, SAF_CHAT_NONE);
    saf_gguf_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_renders_as_the_templates_do),
        cmocka_unit_test(test_chat_says_what_a_model_says_by_default),
        cmocka_unit_test(test_chat_keeps_thoughts_only_after_the_last_question),
        cmocka_unit_test(test_chat_recognises_templates),
        cmocka_unit_test(test_chat_refuses_what_a_template_would),
        cmocka_unit_test(test_chat_family_of_a_file_without_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
