#include "checkpoint_resume.h"

#include <sanitizer/lsan_interface.h>
#include <stdlib.h>
#include <unistd.h>

#include "checkpoint_set.h"
#include "fuzz.h"
#include "job/state.h"

static saf_gguf *gguf;
static saf_tokenizer *tokenizer;

static void forget(void) {
    saf_tokenizer_free(&tokenizer);
    saf_gguf_close(&gguf);
}

int32_t resume_make(const char *model) {
    saf_model_make_options o = {.arch = "llama", .context = 64, .dtype = SAF_DTYPE_F32, .seed = 1};
    (void)unlink(model);
    FUZZ_CHECK(saf_model_shape_read("1:32:2:1:16:32", &o));
    FUZZ_CHECK(saf_model_make(model, &o) == SAF_OK);
    /* Its list of merges is empty: saf's pointer to it is one behind its block, which looks lost.
     */
    __lsan_disable();
    FUZZ_CHECK(saf_gguf_open(model, &gguf) == SAF_OK);
    FUZZ_CHECK(saf_tokenizer_new(gguf, &tokenizer) == SAF_OK);
    __lsan_enable();
    (void)unlink(model);
    FUZZ_CHECK(atexit(forget) == 0);
    return saf_tokenizer_vocab(tokenizer);
}

static void begin(saf__session *s, bool score, bool logits) {
    *s = (saf__session){.n_prompts = SET_REQUESTS, .n_live = SET_REQUESTS, .tokenizer = tokenizer};
    s->params.vocab = saf_tokenizer_vocab(tokenizer);
    s->work = (saf_work){.score = score, .logits = logits, .n_requests = SET_REQUESTS};
    s->work.n_top = score ? 0 : SET_TOP;
    FUZZ_CHECK(saf_alloc(SET_REQUESTS, sizeof *s->live, &s->live) == SAF_OK);
    FUZZ_CHECK(saf_alloc(SET_REQUESTS, sizeof *s->work.requests, &s->work.requests) == SAF_OK);
    for (int32_t i = 0; i < SET_REQUESTS; i++) {
        saf_request *q = &s->work.requests[i];
        s->live[i].row = i;
        FUZZ_CHECK(saf_alloc(SET_PROMPT, sizeof *q->prompt, &q->prompt) == SAF_OK);
        q->n_prompt = SET_PROMPT;
        q->max_tokens = SET_MAX_TOKENS;
    }
}

static void check(const saf__session *s) {
    int32_t V = s->params.vocab;
    FUZZ_CHECK(s->work.n_requests + s->finished == SET_REQUESTS);
    for (int32_t i = 0; i < s->n_live; i++) {
        const saf__live *l = &s->live[i];
        FUZZ_CHECK(l->done == (i >= s->work.n_requests));
        FUZZ_CHECK(l->row >= 0 && l->row < SET_REQUESTS);
        FUZZ_CHECK(l->given >= 0 && l->given <= l->completion.len);
        for (int64_t t = 0; t < l->completion.len; t++)
            FUZZ_CHECK(l->completion.data[t] >= 0 && l->completion.data[t] < V);
        for (int64_t t = 0; t < (int64_t)(l->top_ids.len / sizeof(int32_t)); t++) {
            int32_t id;
            memcpy(&id, l->top_ids.data + (size_t)t * sizeof id, sizeof id);
            FUZZ_CHECK(id >= 0 && id < V);
        }
        if (l->done) continue;
        const saf_request *q = &s->work.requests[i];
        FUZZ_CHECK(q->n_prompt == SET_PROMPT + l->given && q->max_tokens > 0);
    }
}

saf_status resume_from(const saf_checkpoint *c, bool score, bool logits) {
    saf__session s;
    begin(&s, score, logits);
    saf_status st = saf__kept_restore(&s, c);
    if (st == SAF_OK) check(&s);
    for (int32_t i = 0; i < s.n_live; i++) saf__live_free(&s.live[i]);
    saf_free(&s.live);
    s.work.n_requests = st == SAF_OK ? s.work.n_requests : SET_REQUESTS;
    saf_work_free(&s.work);
    return st;
}
