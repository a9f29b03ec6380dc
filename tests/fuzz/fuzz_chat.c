/* A chat template to be recognised, and messages to be rendered: the input is texts with zero bytes
 * between them, the template first, then role and content in turn. */
#include "fuzz.h"
#include "saf/model.h"

enum { MESSAGES_MAX = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    saf_chat_message messages[MESSAGES_MAX];
    saf_buf all = {0}, out = {0};
    int n = 0;
    fuzz_begin(size);
    FUZZ_CHECK(saf_buf_append(&all, data, size) == SAF_OK);
    const char *end = all.data + all.len, *at = all.data + strlen(all.data);
    saf_chat_family family = saf_chat_recognise(all.data, strlen(all.data));
    FUZZ_CHECK((unsigned)family < SAF_CHAT_FAMILIES);
    FUZZ_CHECK((unsigned)saf_chat_recognise(all.data, all.len) < SAF_CHAT_FAMILIES);
    /* Roles by their first letter, too: the words would take long to be found. */
    while (at < end && n < MESSAGES_MAX) {
        const char *role = at + 1;
        at = role + strlen(role);
        if (at >= end) break;
        const char *content = at + 1;
        at = content + strlen(content);
        if (strcmp(role, "s") == 0) role = "system";
        if (strcmp(role, "u") == 0) role = "user";
        if (strcmp(role, "a") == 0) role = "assistant";
        messages[n++] = (saf_chat_message){role, content};
    }
    for (int f = 0; f < SAF_CHAT_FAMILIES; f++) {
        saf_buf_clear(&out);
        (void)saf_chat_family_name((saf_chat_family)f);
        (void)fuzz_accepted(saf_chat_render((saf_chat_family)f, messages, n, &out), SAF_BAD_INPUT);
    }
    saf_buf_free(&all);
    saf_buf_free(&out);
    fuzz_end();
    return 0;
}
