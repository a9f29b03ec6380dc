/* A job file and words of the command line, which follow it one a line behind a line "---". What is
 * accepted is written out as the job that ran: that must say the same when it is read again. */
#include <stdlib.h>

#include "fuzz.h"
#include "job/session.h"

enum { WORDS_MAX = 16 };
static const char mark[] = "\n---\n";

static void read_again(const saf_job *job) {
    saf_job again = {0};
    FUZZ_CHECK(saf__job_of_text(job->text, job->path, &again) == SAF_OK);
    FUZZ_CHECK(strcmp(job->text, again.text) == 0);
    saf_job_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *words[WORDS_MAX];
    saf_job job = {0};
    int n = 0;
    const uint8_t *end = memmem(data, size, mark, sizeof mark - 1);
    size_t len = end ? (size_t)(end - data) + 1 : size, rest = end ? size - len - 4 : 0;
    char *copy = malloc(rest + 1);
    if (!copy) return -1;
    if (rest) memcpy(copy, data + len + 4, rest);
    copy[rest] = 0;
    for (char *save = NULL, *w = strtok_r(copy, "\n", &save); w && n < WORDS_MAX;
         w = strtok_r(NULL, "\n", &save))
        words[n++] = w;
    const char *path = fuzz_file("job.cfg", data, len);
    fuzz_begin(size);
    if (fuzz_accepted(saf_job_read(path, n, words, &job), SAF_USAGE)) {
        read_again(&job);
        saf_job_free(&job);
    }
    fuzz_end();
    free(copy);
    return 0;
}
