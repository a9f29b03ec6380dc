/* One replica on given hosts: the memory of its ranks. */
#include <math.h>

#include "parallel/plan.h"

/* What MPI, HDF5 and the C libraries take in a process, and the header; and without the tokenizer,
 * in a rank that is the head of no replica. */
#define PROCESS_BYTES (32.0 * (1 << 20))
#define OTHER_PROCESS_BYTES (25.0 * (1 << 20))

static double weights_of(const saf_plan_model *m, const saf__plan_replica *r,
                         const saf__plan_split *split, int32_t stage) {
    bool first = stage == 0, last = stage == r->stages - 1;
    double ends = first && last ? m->tied_packed
                  : first       ? m->embedding_packed
                  : last        ? m->head.packed_bytes
                                : 0;
    double layers =
        m->sums[r->first[stage + 1]].packed_bytes - m->sums[r->first[stage]].packed_bytes;
    return layers * split->packed + ends * split->head_packed;
}

static saf_slice_range range_of(const saf__plan_replica *r, const saf__plan_split *split,
                                int32_t stage) {
    saf_slice_range range = split->range;
    range.layer0 = r->first[stage];
    range.layer1 = r->first[stage + 1];
    range.embedding = stage == 0;
    range.head = stage == r->stages - 1;
    return range;
}

/* The stage's own, and what it shares with its group, of which each rank counts its part. */
static double buffers_of(const saf_plan_model *m, const saf_plan_work *work,
                         const saf__plan_replica *r, int32_t stage, int32_t i) {
    const saf__plan_split *split = saf__plan_part_split(r, stage, i);
    const saf_model_params *p = m->params;
    const saf_schedule *s = &r->schedule;
    bool last = stage == r->stages - 1, group = r->split->parts > 1;
    int64_t rows = !last ? 0 : work->completion_tokens < 1 ? s->chunk : s->micro_batch;
    const saf_stage_room room = {s->chunk, s->micro_batch, rows, last ? work->candidates : 0};
    double flights = r->stages == 1 ? 1 : stage == 0 ? r->stages + 1 : 2;
    /* Of the rows of logits that there is room for only those that are written take memory. */
    rows = saf_i64_min(SAF_LOGIT_ROWS, rows);
    double shared = flights * (double)s->chunk * (double)p->width * sizeof(float) +
                    (double)rows * (double)p->vocab * sizeof(float);
    if (group) shared += (double)saf_stage_shared_bytes(p, room, r->split->parts);
    int32_t here = (int32_t)saf_i64_max(1, r->split->parts / r->hosts_per_stage);
    return (stage == 0 && i == 0 ? PROCESS_BYTES : OTHER_PROCESS_BYTES) + shared / here +
           (double)saf_stage_plan_bytes(p, range_of(r, split, stage), s->capacity, room, group);
}

saf__plan_bytes saf__plan_bytes_of(const saf_plan_model *m, const saf_plan_work *work,
                                   const saf__plan_replica *r, int32_t stage, int32_t i) {
    const saf__plan_split *split = saf__plan_part_split(r, stage, i);
    double slot = (double)saf_kv_cache_slot_bytes(m->params, range_of(r, split, stage),
                                                  work->kv_type, r->schedule.capacity);
    return (saf__plan_bytes){weights_of(m, r, split, stage), r->schedule.sequences * slot,
                             buffers_of(m, work, r, stage, i)};
}

static double room_of(const saf_plan_host *host) {
    return fmax(0, host->memory_bytes - host->reserve_bytes);
}

/* As many sequences as saf would take, or as there is room for. */
static void choose_sequences(const saf_plan_model *m, const saf_plan_work *work,
                             saf__plan_replica *r, int32_t replicas) {
    double quarter = INFINITY, left = INFINITY;
    saf_schedule_wish wish = {.requests = work->requests,
                              .longest = work->longest,
                              .stages = r->stages,
                              .replicas = replicas,
                              .sequences = work->sequences,
                              .micro_batch = work->micro_batch,
                              .chunk = work->chunk,
                              .fit = INT32_MAX};
    saf_schedule_choose(&wish, &r->schedule);
    for (int32_t k = 0; k < r->stages * saf__plan_different(r); k++) {
        int32_t s = k / saf__plan_different(r), i = k % saf__plan_different(r);
        const saf_plan_host *place = saf__plan_part_host(r, s, i);
        const saf__plan_split *split = saf__plan_part_split(r, s, i);
        double each = (double)saf_kv_cache_slot_bytes(m->params, range_of(r, split, s),
                                                      work->kv_type, work->longest);
        double room = room_of(place) / r->ranks_per_host;
        if (each <= 0) continue;
        quarter = fmin(quarter, place->memory_bytes / r->ranks_per_host / 4 / each);
        left =
            fmin(left, (room - weights_of(m, r, split, s) - buffers_of(m, work, r, s, i)) / each);
    }
    if (work->sequences == 0)
        wish.fit = saf_i64_max(1, (int64_t)fmin(fmin(quarter, left), INT32_MAX));
    saf_schedule_choose(&wish, &r->schedule);
}

void saf__plan_memory_of(const saf_plan_model *m, const saf_plan_work *work, int32_t replicas,
                         saf__plan_replica *r, saf__plan_memory *out) {
    *out = (saf__plan_memory){.fits = true, .short_bytes = -INFINITY};
    choose_sequences(m, work, r, replicas);
    for (int32_t k = 0; k < r->stages * saf__plan_different(r); k++) {
        int32_t s = k / saf__plan_different(r), i = k % saf__plan_different(r);
        saf__plan_bytes b = saf__plan_bytes_of(m, work, r, s, i);
        double rank = b.weights + b.cache + b.buffers, room = room_of(saf__plan_part_host(r, s, i));
        double host = rank * r->ranks_per_host, lacks = host - room;
        if (rank > out->memory_bytes) {
            out->memory_bytes = rank;
            out->weight_bytes = b.weights;
            out->cache_bytes = b.cache;
            out->buffer_bytes = b.buffers;
        }
        if (lacks > out->short_bytes) {
            out->short_bytes = lacks;
            out->host_bytes = host;
            out->room_bytes = room;
        }
    }
    out->fits = out->short_bytes <= 0;
    if (out->fits) out->short_bytes = 0;
}
