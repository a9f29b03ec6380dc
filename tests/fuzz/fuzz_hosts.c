/* A hostfile. What is accepted is written as it was read. */
#include "fuzz.h"
#include "saf/job_hosts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_hostfile file = {0}, again = {0};
    saf_buf text = {0};
    int64_t slots;
    fuzz_begin(size);
    if (fuzz_accepted(saf_hostfile_parse((const char *)data, size, "hosts", &file),
                      SAF_BAD_INPUT)) {
        FUZZ_CHECK(saf_hostfile_slots(&file, NULL, &slots) == SAF_OK && slots >= 0);
        FUZZ_CHECK(saf_hostfile_write(&file, NULL, &text) == SAF_OK);
        FUZZ_CHECK(saf_hostfile_parse(text.data, text.len, "hosts", &again) == SAF_OK);
        FUZZ_CHECK(again.n == file.n && again.n_hosts == file.n_hosts);
        for (int32_t i = 0; i < file.n; i++) {
            const saf_host_line *a = &file.lines[i], *b = &again.lines[i];
            FUZZ_CHECK(strcmp(a->name, b->name) == 0 && a->slots == b->slots &&
                       a->max_slots == b->max_slots && a->host == b->host);
        }
    }
    saf_hostfile_free(&again);
    saf_hostfile_free(&file);
    saf_buf_free(&text);
    fuzz_end();
    return 0;
}
