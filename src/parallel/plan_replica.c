/* One replica on given hosts: the memory of its ranks, and how long its work takes. */
#include <math.h>

#include "parallel/plan.h"

/* What MPI, HDF5 and the C libraries take in a process, and the header; and without the tokenizer,
 * in a rank that is the head of no replica. */
#define PROCESS_BYTES (32.0 * (1 << 20))
#define OTHER_PROCESS_BYTES (25.0 * (1 << 20))

saf_plan_rates saf__plan_rates_of(const saf_plan_model *m, const saf_plan_work *work,
                                  const saf_plan_host *host, int32_t ranks_per_host) {
    int32_t threads = host->cores / ranks_per_host;
    if (work->threads > 0 && work->threads < threads) threads = work->threads;
    if (threads < 1) threads = 1;
    /* So many of the host's cores: what each of them has of the host's rates. */
    double part = fmin((double)threads / host->cores, 1.0 / ranks_per_host);
    return (saf_plan_rates){.read_bytes_s = host->read_bytes_s * part,
                            .int8_ops_s = host->int8_ops_s * part,
                            .f32_ops_s = host->f32_ops_s * part,
                            .tiles = host->tiles,
                            .threads = threads,
                            .dtype = m->dtype};
}

/* ---- memory ---- */

static int32_t layers_of(const saf__plan_replica *r, int32_t stage) {
    return r->first[stage + 1] - r->first[stage];
}

/* Of a stage's ranks those that must be looked at: one where all are alike. */
static int32_t different(const saf__plan_replica *r) {
    return r->splits ? r->split->parts : 1;
}
static const saf__plan_split *split_of(const saf__plan_replica *r, int32_t stage, int32_t i) {
    return r->splits ? &r->splits[stage * r->split->parts + i] : r->split;
}
static const saf_plan_host *place_of(const saf__plan_replica *r, int32_t stage, int32_t i) {
    return r->places ? &r->places[stage * r->split->parts + i] : &r->host[stage];
}

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
    const saf__plan_split *split = split_of(r, stage, i);
    const saf_model_params *p = m->params;
    const saf_schedule *s = &r->schedule;
    bool last = stage == r->stages - 1, group = r->split->parts > 1;
    int64_t logits = last ? s->micro_batch : 0;
    double flights = r->stages == 1 ? 1 : stage == 0 ? r->stages + 1 : 2;
    /* Of the rows of logits that there is room for only those that are written take memory. */
    int64_t rows = work->completion_tokens < 1 ? s->chunk : s->micro_batch;
    rows = last ? saf_i64_min(SAF_LOGIT_ROWS, rows) : 0;
    double shared = flights * (double)s->chunk * (double)p->width * sizeof(float) +
                    (double)rows * (double)p->vocab * sizeof(float);
    if (group) shared += (double)saf_stage_shared_bytes(p, s->chunk, logits, r->split->parts);
    int32_t here = (int32_t)saf_i64_max(1, r->split->parts / r->hosts_per_stage);
    return (stage == 0 && i == 0 ? PROCESS_BYTES : OTHER_PROCESS_BYTES) + shared / here +
           (double)saf_stage_plan_bytes(p, range_of(r, split, stage), s->capacity, s->chunk,
                                        s->micro_batch, logits, group);
}

saf__plan_bytes saf__plan_bytes_of(const saf_plan_model *m, const saf_plan_work *work,
                                   const saf__plan_replica *r, int32_t stage, int32_t i) {
    const saf__plan_split *split = split_of(r, stage, i);
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
    for (int32_t k = 0; k < r->stages * different(r); k++) {
        int32_t s = k / different(r), i = k % different(r);
        const saf_plan_host *place = place_of(r, s, i);
        const saf__plan_split *split = split_of(r, s, i);
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
    for (int32_t k = 0; k < r->stages * different(r); k++) {
        int32_t s = k / different(r), i = k % different(r);
        saf__plan_bytes b = saf__plan_bytes_of(m, work, r, s, i);
        double rank = b.weights + b.cache + b.buffers, room = room_of(place_of(r, s, i));
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

/* ---- times ---- */

/* A flight: rows of sequences that have `context` positions on average (those rows before them in
 * the flight included), of which so many rows want logits. */
typedef struct {
    double rows, sequences, context, logits;
} flight;

static double hosts_link(const saf_plan_host *host, bool networks, double bytes) {
    return networks ? saf_plan_message_s(host, bytes) : 0;
}

static double meetings_s(const saf_plan_model *m, const saf__plan_replica *r, int32_t stage,
                         const flight *f, bool networks) {
    const saf__plan_split *split = r->split;
    const saf_plan_host *host = &r->host[stage];
    int32_t hosts = networks ? r->hosts_per_stage : 1;
    int32_t here = (int32_t)saf_i64_max(1, split->parts / r->hosts_per_stage);
    if (split->parts == 1) return 0;
    double meetings = 4.0 * layers_of(r, stage);
    double bytes = m->share_row_bytes / 4 * f->rows;
    double all = meetings * saf_plan_meeting_s(host, here, hosts, bytes);
    if (stage == 0)
        all += saf_plan_meeting_s(host, here, hosts, 4 * (double)m->params->width * f->rows);
    if (stage == r->stages - 1 && f->logits > 0)
        all += saf_plan_meeting_s(host, here, hosts, 4 * (double)m->params->vocab * f->logits);
    return all;
}

static double rank_s(const saf_plan_model *m, const saf_plan_work *work, const saf__plan_replica *r,
                     int32_t stage, int32_t i, const flight *f) {
    const saf__plan_split *split = split_of(r, stage, i);
    const saf_plan_part *a = &m->sums[r->first[stage]], *b = &m->sums[r->first[stage + 1]];
    double layers = layers_of(r, stage);
    double kv = m->kv_position_bytes * layers / (double)m->params->layers;
    saf_plan_flight x = {.weight_bytes = (b->bytes - a->bytes) * split->bytes,
                         .int8_ops = (b->int8_ops - a->int8_ops) * split->ops * f->rows,
                         .float_ops = (b->float_ops - a->float_ops) * split->ops * f->rows,
                         .kv_bytes = kv * f->context * f->sequences * split->kv,
                         .attention_ops = m->pair_ops * layers * f->rows * f->context * split->q,
                         .rows = f->rows,
                         .row_values = m->row_values * layers * f->rows * split->values};
    if (stage == r->stages - 1 && f->logits > 0) {
        x.weight_bytes += m->head.bytes * split->head_bytes;
        x.int8_ops += m->head.int8_ops * split->head_ops * f->logits;
        x.float_ops += m->head.float_ops * split->head_ops * f->logits;
        x.sampled_values = (double)m->params->vocab * f->logits;
    }
    saf_plan_rates rates = saf__plan_rates_of(m, work, place_of(r, stage, i), r->ranks_per_host);
    return saf_plan_flight_s(&rates, &x);
}

/* The slowest of its ranks, and their meetings. */
static double stage_s(const saf_plan_model *m, const saf_plan_work *work,
                      const saf__plan_replica *r, int32_t stage, const flight *f, bool networks) {
    double slowest = 0;
    for (int32_t i = 0; i < different(r); i++)
        slowest = fmax(slowest, rank_s(m, work, r, stage, i, f));
    return slowest + meetings_s(m, r, stage, f, networks);
}

/* What a flight takes from end to end, and the slowest of what works on flights side by side: the
 * stages, and the links between them. */
typedef struct {
    double whole_s, slowest_s;
} passage;

static passage pass(const saf_plan_model *m, const saf_plan_work *work, const saf__plan_replica *r,
                    const flight *f, bool networks) {
    passage out = {0, 0};
    for (int32_t s = 0; s < r->stages; s++) {
        double own = stage_s(m, work, r, s, f, networks), hop = 0;
        bool last = s == r->stages - 1;
        if (r->stages > 1) {
            /* rows go on; from the last stage ids go back */
            double bytes = last ? 16 * f->logits : 4 * (double)m->params->width * f->rows;
            int32_t ranks = (s + 1) * r->split->parts;
            bool inside = last ? ranks <= r->ranks_per_host : ranks % r->ranks_per_host != 0;
            if (r->inside) inside = r->inside[s];
            hop =
                inside ? saf_plan_message_s(NULL, bytes) : hosts_link(&r->host[s], networks, bytes);
        }
        out.whole_s += own + hop;
        out.slowest_s = fmax(out.slowest_s, fmax(own, hop));
    }
    return out;
}

void saf__plan_times_of(const saf_plan_model *m, const saf_plan_work *work,
                        const saf__plan_replica *r, bool networks, saf__plan_times *out) {
    double P = fmax(1, work->prompt_tokens), C = work->completion_tokens, n = r->requests;
    const saf_schedule *s = &r->schedule;
    bool score = C < 1;
    *out = (saf__plan_times){0};
    /* one prompt by itself, in pieces */
    double pieces = ceil(P / s->chunk);
    flight piece = {P / pieces, 1, P / 2, score ? P / pieces : 1 / pieces};
    passage one = pass(m, work, r, &piece, networks);
    out->first_token_s = one.whole_s + (pieces - 1) * one.slowest_s;
    /* all prompts: pieces of several may go together */
    double all = ceil(n * P / s->chunk), rows = n * P / all;
    flight full = {rows, fmax(1, rows / P), piece.context, score ? rows : n / all};
    passage many = pass(m, work, r, &full, networks);
    double prefill_s = many.whole_s + (all - 1) * many.slowest_s;
    out->prefill_tokens_s = n * P / prefill_s;
    out->job_s = prefill_s;
    if (score || C <= 1) return;
    /* Groups follow each other through the stages; no more are on their way than there are. */
    double groups = ceil((double)s->sequences / s->micro_batch);
    double each = s->sequences / groups;
    flight step = {each, each, P + C / 2, each};
    passage decode = pass(m, work, r, &step, networks);
    out->token_s = fmax(decode.whole_s * fmax(1, groups / r->stages), groups * decode.slowest_s);
    out->decode_tokens_s = s->sequences / out->token_s;
    out->job_s += (C - 1) * fmax(1, n / s->sequences) * out->token_s;
}
