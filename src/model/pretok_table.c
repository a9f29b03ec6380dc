/* The splitting rules that vocabularies were published with, by the name that GGUF files give them.
 *
 * Sources: the pre_tokenizer sections of the models' own tokenizer.json, tiktoken's patterns, and
 * llama.cpp's list of names. Those were written for other engines, so white space is spelled out:
 * PCRE2's \s would take U+180E in, which the others leave out. (?i:...) follows Unicode's case
 * folding there as here. */
#include "model/pretok.h"

#define WS     \
    "\\t-\\r " \
    "\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S "[" WS "]"
#define NOT_S "[^" WS "]"
#define OTHER "[^" WS "\\p{L}\\p{N}]" /* neither space nor letter nor number */
#define LEAD "[^\\r\\n\\p{L}\\p{N}]"  /* what may come before a word's first letter */

#define SPACES S "+(?!" NOT_S ")|" S "+"
#define LINES S "*[\\r\\n]+|" SPACES
#define ENGLISH "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

#define GPT2_WORDS "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACES
/* cl100k and its kin differ in how many digits stay together. */
#define CL100K_WORDS(digits) ENGLISH "|" LEAD "?\\p{L}+|" digits "| ?" OTHER "+[\\r\\n]*|" LINES

/* o200k: upper case, then lower case, marks with either. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_WORDS(ending, digits)                                                        \
    LEAD "?" UPPER "*" LOWER "+" ending "|" LEAD "?" UPPER "+" LOWER "*" ending "|" digits \
         "| ?" OTHER "+[\\r\\n/]*|" LINES

#define CJK_DEEPSEEK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define CJK_DEEPSEEK3 "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define BLOOM_WORDS \
    " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

/* Letters with case, as DeepSeek-LLM lists them. */
#define CASED                                                                                   \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"              \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"      \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"               \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}" \
    "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}"              \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"              \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"      \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"     \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}"              \
    "\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}"      \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}"      \
    "\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"                \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}"               \
    "\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"              \
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"              \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"          \
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"      \
    "\\x{1e900}-\\x{1e943}"

static const saf__pretok_rule by_default = {{
    "[\\p{P}$+<=>^~|]+",
    GPT2_WORDS,
    "\\p{N}+",
    "[0-9][0-9][0-9]",
}};
static const saf__pretok_rule gpt2 = {{GPT2_WORDS}};
static const saf__pretok_rule digits_gpt2 = {{"\\p{N}", GPT2_WORDS}};
static const saf__pretok_rule falcon = {{"[\\p{P}$+<=>^~|`]+", GPT2_WORDS, "[0-9][0-9][0-9]"}};
static const saf__pretok_rule llama3 = {{CL100K_WORDS("\\p{N}{1,3}")}};
static const saf__pretok_rule qwen2 = {{CL100K_WORDS("\\p{N}")}};
static const saf__pretok_rule qwen35 = {
    {ENGLISH "|" LEAD "?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES}};
static const saf__pretok_rule seed_coder = {
    {ENGLISH "|" LEAD "?\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" LINES}};
static const saf__pretok_rule bailing = {{"'(?i:[sdmt]|ll|ve|re)|" LEAD "?+\\p{L}+|\\p{N}| ?" OTHER
                                          "++[\\r\\n]*|" S "*[\\r\\n]|" SPACES}};
static const saf__pretok_rule tekken = {{O200K_WORDS("", "\\p{N}")}};
static const saf__pretok_rule gpt4o = {{O200K_WORDS(ENGLISH "?", "\\p{N}{1,3}")}};
static const saf__pretok_rule bloom = {{BLOOM_WORDS}};
static const saf__pretok_rule viking = {{BLOOM_WORDS, "\\p{N}"}};
static const saf__pretok_rule deepseek_llm = {{
    "[\\r\\n]",
    S "?[" CASED "]+",
    S "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
    S "+\\z",
    CJK_DEEPSEEK,
    "\\p{N}+",
}};
static const saf__pretok_rule deepseek_coder = {{
    "[\\r\\n]",
    S "?\\p{L}+",
    S "?\\p{P}+",
    CJK_DEEPSEEK,
    "\\p{N}",
}};
static const saf__pretok_rule deepseek_v3 = {{
    "\\p{N}{1,3}",
    CJK_DEEPSEEK3,
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES,
}};

static const saf__pretok_name names[] = {
    {"default", &by_default, false, false},
    {"gpt-2", &gpt2, false, false},
    {"phi-2", &gpt2, false, false},
    {"jina-es", &gpt2, false, false},
    {"jina-de", &gpt2, false, false},
    {"jina-v1-en", &gpt2, false, false},
    {"jina-v2-es", &gpt2, false, false},
    {"jina-v2-de", &gpt2, false, false},
    {"jina-v2-code", &gpt2, false, false},
    {"roberta-bpe", &gpt2, false, false},
    {"modern-bert", &gpt2, false, false},
    {"gigachat", &gpt2, false, false},
    {"a.x-4.0", &gpt2, false, false},
    {"mellum", &gpt2, false, false},
    {"mpt", &gpt2, false, false},
    {"olmo", &gpt2, false, false},
    {"jais", &gpt2, false, false},
    {"trillion", &gpt2, false, false},
    {"granite-docling", &gpt2, false, false},
    {"exaone4", &gpt2, false, false},
    {"starcoder", &digits_gpt2, false, false},
    {"refact", &digits_gpt2, false, false},
    {"command-r", &digits_gpt2, false, false},
    {"smollm", &digits_gpt2, false, false},
    {"codeshell", &digits_gpt2, false, false},
    {"exaone", &digits_gpt2, false, false},
    {"minerva-7b", &digits_gpt2, false, false},
    {"falcon", &falcon, false, false},
    {"llama-bpe", &llama3, true, true},
    {"llama3", &llama3, true, true},
    {"llama-v3", &llama3, true, true},
    {"falcon3", &llama3, true, true},
    {"falcon-h1", &llama3, true, true},
    {"pixtral", &llama3, true, true},
    {"midm-2.0", &llama3, true, true},
    {"lfm2", &llama3, true, true},
    {"dbrx", &llama3, false, false},
    {"smaug-bpe", &llama3, false, false},
    {"glm4", &llama3, false, false},
    {"chatglm-bpe", &llama3, false, false},
    {"qwen2", &qwen2, false, false},
    {"deepseek-r1-qwen", &qwen2, false, false},
    {"stablelm2", &qwen2, false, false},
    {"megrez", &qwen2, false, false},
    {"hunyuan", &qwen2, false, false},
    {"solar-open", &qwen2, false, false},
    {"grok-2", &qwen2, false, false},
    {"kormo", &qwen2, false, false},
    {"qwen35", &qwen35, false, false},
    {"seed-coder", &seed_coder, false, false},
    {"bailingmoe", &bailing, false, false},
    {"bailingmoe2", &bailing, false, false},
    {"llada-moe", &bailing, false, false},
    {"tekken", &tekken, true, true},
    {"gpt-4o", &gpt4o, false, false},
    {"llama4", &gpt4o, false, false},
    {"kanana2", &gpt4o, false, false},
    {"minimax-m2", &gpt4o, false, false},
    {"bloom", &bloom, false, false},
    {"poro-chat", &bloom, false, false},
    {"gpt3-finnish", &bloom, false, false},
    {"viking", &viking, false, false},
    {"deepseek-llm", &deepseek_llm, false, false},
    {"deepseek-coder", &deepseek_coder, false, false},
    {"deepseek-v3", &deepseek_v3, false, false},
    {"hunyuan-dense", &deepseek_v3, false, false},
    {"joyai-llm", &deepseek_v3, false, false},
};

const saf__pretok_name *saf__pretok_find(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i].name) == len && memcmp(names[i].name, name, len) == 0) return &names[i];
    return NULL;
}

saf_status saf__pretok_list(saf_buf *out) {
    saf_status st = SAF_OK;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        SAF_TRY(saf_buf_printf(out, "%s%s", i ? ", " : "", names[i].name));
out:
    return st;
}
