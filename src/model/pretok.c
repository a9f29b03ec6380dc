/* Runs splitting rules with PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretok.h"

#include <pcre2.h>

/* The compiler's own stack serves these expressions; this is for what might need more. */
enum { JIT_STACK_START = 32 << 10, JIT_STACK_MAX = 8 << 20 };

struct saf__pretok {
    int passes;
    pcre2_code *code[SAF__PRETOK_PASSES];
    pcre2_match_data *match[SAF__PRETOK_PASSES];
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static saf_status compile(saf__pretok *p, const char *expression) {
    int error = 0;
    size_t at = 0;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &at, NULL);
    if (!code && error == PCRE2_ERROR_HEAP_FAILED)
        return saf_fail(SAF_NO_MEMORY, "no memory for PCRE2");
    if (!code)
        return saf_fail(SAF_DEFECT, "PCRE2 error %d at %zu of the expression %s", error, at,
                        expression);
    p->code[p->passes] = code;
    p->match[p->passes] = pcre2_match_data_create_from_pattern(code, NULL);
    if (!p->match[p->passes++]) return saf_fail(SAF_NO_MEMORY, "no memory for PCRE2");
    /* Not every machine has it; without, the interpreter finds the same, more slowly. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    return SAF_OK;
}

saf_status saf__pretok_new(const saf__pretok_rule *rule, saf__pretok **out) {
    saf_status st = SAF_OK;
    saf__pretok *p = NULL;
    SAF_TRY(saf_alloc(1, sizeof *p, &p));
    p->context = pcre2_match_context_create(NULL);
    if (!p->context) SAF_TRY(saf_fail(SAF_NO_MEMORY, "no memory for PCRE2"));
    /* Backtracking through a long run of one character is linear, however many steps it takes. */
    pcre2_set_match_limit(p->context, UINT32_MAX);
    p->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (p->stack) pcre2_jit_stack_assign(p->context, NULL, p->stack);
    for (int i = 0; i < SAF__PRETOK_PASSES && rule->passes[i]; i++)
        SAF_TRY(compile(p, rule->passes[i]));
    *out = p;
    p = NULL;
out:
    saf__pretok_free(&p);
    return st;
}

void saf__pretok_free(saf__pretok **pp) {
    saf__pretok *p = *pp;
    if (!p) return;
    for (int i = 0; i < p->passes; i++) {
        pcre2_match_data_free(p->match[i]);
        pcre2_code_free(p->code[i]);
    }
    pcre2_match_context_free(p->context);
    pcre2_jit_stack_free(p->stack);
    saf_free(pp);
}

/* The next match at or after `from`: [*begin, *end), or both len when there is none. */
static saf_status next_match(saf__pretok *p, int pass, const char *text, size_t len, size_t from,
                             size_t *begin, size_t *end) {
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int n = pcre2_match(p->code[pass], (PCRE2_SPTR)text, len, from, options, p->match[pass],
                        p->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(p->code[pass], (PCRE2_SPTR)text, len, from, options | PCRE2_NO_JIT,
                        p->match[pass], p->context);
    *begin = *end = len;
    if (n == PCRE2_ERROR_NOMATCH) return SAF_OK;
    if (n < 0)
        return saf_fail(n == PCRE2_ERROR_NOMEMORY ? SAF_NO_MEMORY : SAF_DEFECT,
                        "PCRE2 error %d when splitting a text of %zu bytes at %zu", n, len, from);
    const size_t *span = pcre2_get_ovector_pointer(p->match[pass]);
    *begin = span[0];
    *end = span[1];
    return SAF_OK;
}

static saf_status split(saf__pretok *p, int pass, const char *text, size_t len,
                        saf__pretok_word *word, void *context) {
    saf_status st = SAF_OK;
    if (pass == p->passes) return word(context, text, len);
    for (size_t at = 0; at < len;) {
        size_t begin, end;
        SAF_TRY(next_match(p, pass, text, len, at, &begin, &end));
        if (begin > at) SAF_TRY(split(p, pass + 1, text + at, begin - at, word, context));
        if (end > begin) SAF_TRY(split(p, pass + 1, text + begin, end - begin, word, context));
        at = end;
    }
out:
    return st;
}

saf_status saf__pretok_split(saf__pretok *p, const char *text, size_t len, saf__pretok_word *word,
                             void *context) {
    return len ? split(p, 0, text, len, word, context) : SAF_OK;
}
