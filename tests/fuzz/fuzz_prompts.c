/* Inputs of a job: prompts and texts, a line each or as JSON, and token ids. The first byte chooses
 * which; the rest is the file. */
#include "fuzz.h"
#include "saf/job.h"

static void check(const saf_prompt *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        FUZZ_CHECK(p[i].id && p[i].id[0]);
        FUZZ_CHECK((p[i].text != NULL) + (p[i].messages != NULL) + (p[i].ids != NULL) == 1);
        if (p[i].text)
            FUZZ_CHECK(saf_utf8_valid_prefix(p[i].text, strlen(p[i].text)) == strlen(p[i].text));
        for (int32_t m = 0; m < p[i].n_messages; m++)
            FUZZ_CHECK(p[i].messages[m].role && p[i].messages[m].content);
        FUZZ_CHECK(p[i].max_tokens >= 1);
        FUZZ_CHECK(p[i].sampling.temperature >= 0 && p[i].sampling.temperature <= 100);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_job job = {.generate = {.max_tokens = 1, .sampling = {.top_p = 1, .repeat_penalty = 1}}};
    saf_prompt *prompts = NULL;
    int64_t n = 0;
    if (size == 0) return -1;
    int form = data[0] % 5;
    static const char *const names[] = {"p.jsonl", "p.jsonl", "p.txt", "p.txt", "p.ids"};
    char *path = (char *)(uintptr_t)fuzz_file(names[form], data + 1, size - 1);
    job.kind = form % 2 ? SAF_JOB_SCORE : SAF_JOB_GENERATE;
    if (form == 4)
        job.input.tokens = path;
    else if (form % 2)
        job.input.texts = path;
    else
        job.input.prompts = path;
    job.input.shards = data[0] / 5 % 3;
    job.input.shard = job.input.shards ? 1 + data[0] / 15 % job.input.shards : 0;
    fuzz_begin(size);
    if (fuzz_accepted(saf_prompts_read(&job, &prompts, &n), SAF_BAD_INPUT)) {
        check(prompts, n);
        saf_prompts_free(&prompts, n);
    }
    fuzz_end();
    return 0;
}
