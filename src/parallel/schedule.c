/* How requests go through the stages: what saf expects of it before there is a layout, and the
 * sizes that it chooses once there is one. */
#include <math.h>

#include "saf/parallel.h"

enum { AUTO_SEQUENCES_PER_STAGE = 16, AUTO_CHUNK = 128 };

/* A flight takes the weights through a rank once; nobody knows yet how many stages will share the
 * sequences, nor when they end. */
saf_flight_mix saf_schedule_mix(const saf_schedule_wish *wish, double prompts, double sampled,
                                bool score) {
    double chunk = wish->chunk > 0 ? wish->chunk : AUTO_CHUNK;
    int64_t micro_batch = wish->micro_batch > 0 ? wish->micro_batch : AUTO_SEQUENCES_PER_STAGE;
    micro_batch = saf_i64_max(1, saf_i64_min(micro_batch, wish->requests));
    double prefills = ceil(prompts / chunk), decodes = ceil(sampled / (double)micro_batch);
    double flights = prefills + decodes;
    if (!(flights > 0)) return (saf_flight_mix){0};
    return (saf_flight_mix){.rows = (prompts + sampled) / flights,
                            .logits = (score ? prompts : sampled) / flights,
                            .sampled = score ? 1 : decodes / flights};
}

void saf_schedule_choose(const saf_schedule_wish *wish, saf_schedule *out) {
    int64_t requests = saf_i64_max(1, wish->requests), sequences = wish->sequences;
    saf_schedule c = {.capacity = (int32_t)wish->longest};
    if (sequences == 0)
        sequences = saf_i64_min((int64_t)AUTO_SEQUENCES_PER_STAGE * wish->stages, wish->fit);
    /* No replica takes the share of another. */
    c.sequences = (int32_t)saf_i64_min(sequences, saf_ceil_div(requests, wish->replicas));
    int64_t micro_batch = wish->micro_batch;
    if (micro_batch == 0) micro_batch = saf_ceil_div(c.sequences, wish->stages);
    c.micro_batch = (int32_t)saf_i64_min(micro_batch, c.sequences);
    int64_t chunk = wish->chunk;
    if (chunk == 0) {
        chunk = saf_i64_max(AUTO_CHUNK, c.micro_batch);
        if (wish->most_rows > 0) chunk = saf_i64_min(chunk, wish->most_rows);
    }
    /* No flight has more rows than its sequences have positions. */
    c.chunk = (int32_t)saf_i64_min(chunk, (int64_t)c.micro_batch * c.capacity);
    *out = c;
}
