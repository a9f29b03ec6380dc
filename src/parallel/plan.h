/* Between the files of planning: plan_model.c (what the header says), plan_time.c (seconds),
 * plan_replica.c and plan_flight.c (one replica on given hosts: memory, times), plan_search.c
 * (layouts), plan_why.c (words). */
#ifndef SAF_PARALLEL_PLAN_H
#define SAF_PARALLEL_PLAN_H

#include "parallel/layout.h"
#include "saf/parallel_plan.h"

/* What the largest part of a stage has, of all; of a stage on `parts` ranks. */
typedef struct {
    int32_t parts;
    double bytes, packed, ops;                /* of a layer */
    double head_bytes, head_packed, head_ops; /* of the output head, and of the embedding */
    double q, kv;                             /* heads, key heads */
    double values;                            /* of a row's norms (all) and the rest (its own) */
    saf_slice_range range;                    /* its heads and rows */
} saf__plan_split;

/* Of the largest of so many parts that are cut evenly. Errors: NO_MEMORY. */
saf_status saf__plan_split_make(const saf_plan_model *m, int32_t parts, saf__plan_split *out);

/* Of one part, by its rows and heads. Errors: NO_MEMORY. */
saf_status saf__plan_split_of(const saf_plan_model *m, int32_t parts, saf_slice_range range,
                              saf__plan_split *out);

/* A replica: what its stages stand on, and how they are cut. */
typedef struct {
    int32_t stages, hosts_per_stage, ranks_per_host;
    const saf__plan_split *split;
    const saf_plan_host *host; /* [stages] the least of the hosts of each */
    const int32_t *first;      /* [stages + 1] */
    /* of ranks that stand as they stand, each for itself; NULL: all of a stage are alike */
    const saf__plan_split *splits; /* [stages * parts] */
    const saf_plan_host *places; /* [stages * parts] a rank's part of its host; ranks_per_host 1 */
    const double *alone; /* [stages * parts] bytes/s that the ranks of its stage leave it of the
                            host's, the others at rest; 0: there are ranks of other replicas */
    const bool
        *inside; /* [stages] what leaves a stage (the last: to the first) stays on its host */
    /* at work at a time, of all replicas: hosts of the layout; those while nothing else is on its
     * way than one flight of each */
    int32_t hosts, hosts_alone;
    saf_schedule schedule;
    double requests;
} saf__plan_replica;

static inline int32_t saf__plan_layers_of(const saf__plan_replica *r, int32_t stage) {
    return r->first[stage + 1] - r->first[stage];
}

/* Of a stage's ranks those that must be looked at: one where all are alike. */
static inline int32_t saf__plan_different(const saf__plan_replica *r) {
    return r->splits ? r->split->parts : 1;
}
static inline const saf__plan_split *saf__plan_part_split(const saf__plan_replica *r, int32_t stage,
                                                          int32_t i) {
    return r->splits ? &r->splits[stage * r->split->parts + i] : r->split;
}
static inline const saf_plan_host *saf__plan_part_host(const saf__plan_replica *r, int32_t stage,
                                                       int32_t i) {
    return r->places ? &r->places[stage * r->split->parts + i] : &r->host[stage];
}

typedef struct {
    bool fits;
    double short_bytes, memory_bytes, weight_bytes, cache_bytes, buffer_bytes;
    double host_bytes, room_bytes;
} saf__plan_memory;

/* The schedule of one of `replicas`, and the memory of the fullest rank and host. Where the job
 * leaves the number of sequences open it is what saf would take, or fewer where only these fit. */
void saf__plan_memory_of(const saf_plan_model *m, const saf_plan_work *work, int32_t replicas,
                         saf__plan_replica *r, saf__plan_memory *out);

/* Bytes of part i of a stage, with the schedule that memory_of has chosen. */
typedef struct {
    double weights, cache, buffers;
} saf__plan_bytes;
saf__plan_bytes saf__plan_bytes_of(const saf_plan_model *m, const saf_plan_work *work,
                                   const saf__plan_replica *r, int32_t stage, int32_t i);

/* A flight: rows of sequences that have `context` positions on average (those rows before them in
 * the flight included), of which so many rows want logits. Alone: nothing else is on its way, so
 * that of a replica's stages one works at a time. */
typedef struct {
    double rows, sequences, context, logits;
    bool alone;
} saf__plan_batch;
/* Seconds that rank i of a stage computes on it. */
double saf__plan_rank_s(const saf_plan_model *m, const saf_plan_work *work,
                        const saf__plan_replica *r, int32_t stage, int32_t i,
                        const saf__plan_batch *f);

typedef struct {
    double first_token_s, prefill_tokens_s, token_s, decode_tokens_s, job_s;
} saf__plan_times;

/* networks false: as if links cost nothing. */
void saf__plan_times_of(const saf_plan_model *m, const saf_plan_work *work,
                        const saf__plan_replica *r, bool networks, saf__plan_times *out);

/* What a host reads while so many are at work: those of its machine, up to so many, share memory.
 */
double saf__plan_read_bytes_s(const saf_plan_host *host, int32_t at_work);
/* What one rank of this host can do then. */
saf_plan_rates saf__plan_rates_of(const saf_plan_model *m, const saf_plan_work *work,
                                  const saf_plan_host *host, int32_t ranks_per_host,
                                  int32_t at_work);

/* plan_why.c: fills plan->why and plan->rules. */
void saf__plan_explain(const saf_plan_model *m, const saf_plan_cluster *cluster, saf_plan *plan,
                       const double *short_of, int32_t hosts);

#endif
