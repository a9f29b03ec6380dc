/* How requests go through the stages: what saf expects of it before there is a layout, and the
 * sizes that it chooses once there is one. */
#include <math.h>

#include "job/session.h"

enum {
    AUTO_SEQUENCES_PER_STAGE = 16,
    AUTO_CHUNK = 128,
    STORED_LOGITS_BYTES = 32 << 20 /* of one flight when logits go back to rank 0 */
};

/* ---- before the layout: what flights will be like ---- */

/* A flight takes the weights through a rank once; nobody knows yet how many stages will share the
 * sequences, nor when they end: this is good enough to weigh layers against the output head. */
void saf__mix_guess(const saf__session *s, saf_flight_mix *out) {
    const saf_job *job = s->job;
    const saf_work *work = &s->work;
    double prompts = 0, sampled = 0, chunk = job->run.chunk > 0 ? job->run.chunk : AUTO_CHUNK;
    int64_t micro_batch =
        job->run.micro_batch > 0 ? job->run.micro_batch : AUTO_SEQUENCES_PER_STAGE;
    micro_batch = saf_i64_max(1, saf_i64_min(micro_batch, work->n_requests));
    for (int32_t i = 0; i < work->n_requests; i++) {
        prompts += work->requests[i].n_prompt;
        sampled += work->requests[i].max_tokens;
    }
    double prefills = ceil(prompts / chunk), decodes = ceil(sampled / (double)micro_batch);
    double flights = prefills + decodes;
    *out = (saf_flight_mix){0};
    if (!(flights > 0)) return;
    double logits = work->score ? prompts : sampled;
    *out = (saf_flight_mix){.rows = (prompts + sampled) / flights,
                            .logits = logits / flights,
                            .sampled = work->score ? 1 : decodes / flights};
}

/* ---- after it: the sizes of the schedule ---- */

static int64_t longest_request(const saf_work *work) {
    int64_t longest = 1;
    for (int32_t i = 0; i < work->n_requests; i++)
        longest = saf_i64_max(longest, work->requests[i].n_prompt + work->requests[i].max_tokens);
    return longest;
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
    const saf_job *job = s->job;
    saf_schedule *c = &s->schedule;
    int64_t requests = saf_i64_max(1, s->work.n_requests);
    c->capacity = (int32_t)longest_request(&s->work);
    int64_t sequences = job->run.sequences;
    if (sequences == 0)
        sequences = saf_i64_min((int64_t)AUTO_SEQUENCES_PER_STAGE * s->layout.stages,
                                sequences_that_fit(s, c->capacity));
    /* No replica takes the share of another. */
    c->sequences = (int32_t)saf_i64_min(sequences, saf_ceil_div(requests, s->layout.replicas));
    int64_t micro_batch = job->run.micro_batch;
    if (micro_batch == 0) micro_batch = saf_ceil_div(c->sequences, s->layout.stages);
    c->micro_batch = (int32_t)saf_i64_min(micro_batch, c->sequences);
    int64_t chunk = job->run.chunk;
    if (chunk == 0) {
        chunk = saf_i64_max(AUTO_CHUNK, c->micro_batch);
        if (s->work.score && s->work.logits)
            chunk = saf_i64_min(chunk, saf_i64_max(8, STORED_LOGITS_BYTES / (4 * s->params.vocab)));
    }
    /* No flight has more rows than its sequences have positions. */
    c->chunk = (int32_t)saf_i64_min(chunk, (int64_t)c->micro_batch * c->capacity);
    return SAF_OK;
}
