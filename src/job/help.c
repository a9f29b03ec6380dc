/* `saf help KIND` and the rows of doc/job-file.md, from the table of keys. */
#include <stdio.h>

#include "job/fields.h"

static const char *const kind_help[SAF_JOB_KINDS] = {
    [SAF_JOB_GENERATE] = "prompts in, completions out",
    [SAF_JOB_SCORE] = "log-likelihood and perplexity of given texts",
    [SAF_JOB_BENCH] = "what the ranks, their hosts and the network can do",
    [SAF_JOB_MATMUL] = "C = alpha op(A) op(B) + beta C of matrices larger than a rank's memory",
    [SAF_JOB_TRAIN] = "a small model learnt from texts, its batches shared by the ranks",
};

static const char *default_of(const saf__field *f) {
    if (f->required) return "required";
    if (f->input) return "exactly one input";
    return f->initial ? f->initial : f->absent;
}

/* Words of a text, indented, in lines of 78 columns. */
static void print_wrapped(const char *text, FILE *out) {
    enum { INDENT = 6, WIDTH = 78 };
    size_t column = 0;
    while (*text) {
        size_t n = strcspn(text, " ");
        bool fits = column > 0 && column + 1 + n <= WIDTH;
        if (!fits) fprintf(out, "%s%*s", column ? "\n" : "", INDENT, "");
        fprintf(out, "%s%.*s", fits ? " " : "", (int)n, text);
        column = fits ? column + 1 + n : INDENT + n;
        text += n + strspn(text + n, " ");
    }
    fprintf(out, "\n");
}

static void print_text(const saf__field *f, const char *range, FILE *out) {
    char form[512];
    fprintf(out, "\n  %s\n", f->key);
    snprintf(form, sizeof form, "%s%s%s%s%s; %s%s", saf__field_type_name(f->type),
             f->unit ? ", " : "", f->unit ? f->unit : "", range[0] ? "; " : "", range,
             f->initial ? "default " : "", default_of(f));
    print_wrapped(form, out);
    print_wrapped(f->help, out);
}

static void print_row(const saf__field *f, const char *range, FILE *out) {
    const char *tick = f->initial ? "`" : "";
    fprintf(out, "| `%s` | %s | %s%s%s | %s | %s | %s |\n", f->key, saf__field_type_name(f->type),
            tick, default_of(f), tick, f->unit ? f->unit : "", range, f->help);
}

void saf_job_help(saf_job_kind kind, bool markdown, FILE *out) {
    saf_buf range = {0};
    if (markdown)
        fprintf(out,
                "| key | type | default | unit | range | meaning |\n|---|---|---|---|---|---|\n");
    else
        fprintf(
            out,
            "job = \"%s\": %s\n\nKeys of the job file (libconfig: model: { path = \"m.gguf\"; };) "
            "and of the\ncommand line (model.path=m.gguf, where strings need no quotes):\n",
            saf_job_kind_name(kind), kind_help[kind]);
    for (int i = 0; i < saf__field_count; i++) {
        const saf__field *f = &saf__fields[i];
        if (!(f->kinds & 1u << kind)) continue;
        saf_buf_clear(&range);
        const char *text = saf__field_range(f, &range) == SAF_OK && range.data ? range.data : "";
        if (markdown)
            print_row(f, text, out);
        else
            print_text(f, text, out);
    }
    saf_buf_free(&range);
}
