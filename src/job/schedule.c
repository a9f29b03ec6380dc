/* The flights that a job's requests will make, and the sizes of its schedule. */
#include "job/session.h"

/* Of one flight when logits go back to rank 0. */
enum { STORED_LOGITS_BYTES = 32 << 20 };

static int64_t longest_request(const saf_work *work) {
    int64_t longest = 1;
    for (int32_t i = 0; i < work->n_requests; i++)
        longest = saf_i64_max(longest, work->requests[i].n_prompt + work->requests[i].max_tokens);
    return longest;
}

saf_schedule_wish saf__schedule_wish(const saf__session *s) {
    const saf_job *job = s->job;
    saf_schedule_wish wish = {.requests = s->work.n_requests,
                              .longest = longest_request(&s->work),
                              .sequences = job->run.sequences,
                              .micro_batch = job->run.micro_batch,
                              .chunk = job->run.chunk};
    if (s->work.score && s->work.logits)
        wish.most_rows = saf_i64_max(8, STORED_LOGITS_BYTES / (4 * s->params.vocab));
    return wish;
}

void saf__mix_guess(const saf__session *s, saf_flight_mix *out) {
    saf_schedule_wish wish = saf__schedule_wish(s);
    double prompts = 0, sampled = 0;
    for (int32_t i = 0; i < s->work.n_requests; i++) {
        prompts += s->work.requests[i].n_prompt;
        sampled += s->work.requests[i].max_tokens;
    }
    *out = saf_schedule_mix(&wish, prompts, sampled, s->work.score);
}

/* Sequences whose caches together stay within a quarter of every host's memory. */
static int64_t sequences_that_fit(const saf__session *s, int64_t capacity) {
    size_t each = 1;
    for (int32_t r = 0; r < s->ranks; r++) {
        size_t bytes = saf_kv_cache_slot_bytes(&s->params, saf_layout_range(&s->layout, r),
                                               (saf_kv_type)s->settings.kv_type, capacity);
        if (bytes > each) each = bytes;
    }
    return saf_i64_max(1, (int64_t)((size_t)(s->memory_bytes / 4) / each));
}

saf_status saf__schedule_choose(saf__session *s) {
    saf_schedule_wish wish = saf__schedule_wish(s);
    wish.stages = s->layout.stages;
    wish.replicas = s->layout.replicas;
    wish.fit = sequences_that_fit(s, wish.longest);
    if (s->planned.sequences > 0) wish.fit = saf_i64_min(wish.fit, s->planned.sequences);
    saf_schedule_choose(&wish, &s->schedule);
    return SAF_OK;
}
