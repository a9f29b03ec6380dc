/* saf/parallel_plan.h: what a job would take on some hosts, from the header of a model alone:
 * memory of every rank, time of a prompt, of a decoded token and of the whole job, for every layout
 * worth a look, and which is best and why. Pure functions: nothing is measured, read or sent, and
 * the same arguments give the same answer. doc/plan.md has the formulas, where their constants come
 * from, and how far off they were.
 */
#ifndef SAF_PUBLIC_PARALLEL_PLAN_H
#define SAF_PUBLIC_PARALLEL_PLAN_H

#include "saf/parallel.h"

/* ---- what there is ---- */

enum { SAF_PLAN_HOSTS_MAX = 100000, SAF_PLAN_CLASSES_MAX = 64, SAF_PLAN_RANKS_MAX = 1024 };

enum { SAF_PLAN_SHORT_BYTES = 2048 };

/* From host to host: bytes a second each way, what a message of one byte takes, and one of
 * SAF_PLAN_SHORT_BYTES, which says what a line of these two does not (packets, switches that store
 * them first, links that owe some bytes); 0: not known. */
typedef struct {
    double bytes_s, latency_s, short_s;
} saf_plan_link;

/* Hosts that are alike. Rates are those of a whole host, by the yardsticks of saf/hw.h. */
typedef struct {
    char name[64];
    int32_t count; /* 1 to SAF_PLAN_HOSTS_MAX, of all classes together */
    int32_t cores;
    int32_t ranks;        /* of a host at most; one with fewer uses all cores as well */
    double memory_bytes;  /* of a host */
    double reserve_bytes; /* of these, what ranks leave alone */
    double read_bytes_s, int8_ops_s, f32_ops_s;
    double core_read_bytes_s; /* of one core while the others rest; 0: its part of read_bytes_s */
    /* Hosts that are one machine share its memory: what they read all at once, together, and how
     * many of the cluster's they are; 0 or 1: it alone, or not known. */
    double machine_read_bytes_s;
    int32_t machine_hosts;
    double product_share; /* of int8_ops_s: what products of Q8_0 by few rows reach; 0: unknown */
    double hidden_share;  /* of the shorter of reading and computing, by few rows; 0: unknown */
    bool tiles;           /* there are tile units (AMX) as well */
    saf_plan_link link;   /* to others of the cluster */
} saf_plan_host;

typedef struct {
    int32_t n;
    const saf_plan_host *classes;
    int32_t max_ranks; /* of a layout; 0: as many as there are */
} saf_plan_cluster;

/* The requests, and what the job file says of the schedule (0: saf chooses). */
typedef struct {
    int64_t requests;
    double prompt_tokens, completion_tokens; /* of a request, on average */
    int64_t longest;                         /* positions of the longest one */
    bool whole_rows;                         /* saf_work_whole_rows of any of them */
    int32_t candidates;                      /* saf_work_candidates */
    saf_kv_type kv_type;
    int32_t sequences, micro_batch, chunk, threads;
    int32_t replicas, stages, tensor; /* only such layouts; 0: any */
    const int32_t *layers;            /* [stages] of each, by hand; NULL: the plan cuts */
} saf_plan_work;

/* ---- the model, from its header ---- */

/* A run of layers, or what lies beside them. */
typedef struct {
    double bytes;               /* as in the file, read once a flight */
    double packed_bytes;        /* as held in memory */
    double int8_ops, float_ops; /* of a row's products */
} saf_plan_part;

typedef struct {
    const saf_gguf *gguf;
    const saf_model_params *params;
    saf_plan_part *sums;                                   /* [L + 1] of the layers before */
    saf_plan_part head;                                    /* output norm and head */
    double embedding_bytes, embedding_packed, tied_packed; /* tied: of both at once */
    double file_bytes;
    double kv_position_bytes; /* of a sequence, all layers */
    double pair_ops;          /* f32, a layer, of a row for each position that it attends to */
    double row_values;        /* that a layer's norms, rotation and SiLU touch, of a row */
    double share_row_bytes;   /* that the meetings of a layer are about, of a row */
    saf_dtype dtype;          /* of most bytes */
} saf_plan_model;

/* g and p must outlive it. Errors: NO_MEMORY, BAD_INPUT. */
saf_status saf_plan_model_new(const saf_gguf *g, const saf_model_params *p, saf_kv_type kv_type,
                              saf_plan_model *out);
void saf_plan_model_free(saf_plan_model *m);

/* ---- times ---- */

/* What a rank can do, and what a flight asks of it. */
typedef struct {
    double read_bytes_s, int8_ops_s, f32_ops_s;
    bool tiles;
    int32_t threads;
    saf_dtype dtype;
    double product_share, hidden_share;
} saf_plan_rates;
typedef struct {
    double weight_bytes, kv_bytes;
    double int8_ops, float_ops, attention_ops;
    double rows;           /* of activations, in a flight */
    double row_values;     /* summed over rows and layers */
    double sampled_values; /* of logits, that each thread looks through */
} saf_plan_flight;
/* Seconds of a flight on one rank, by a roofline for every kind of operation: of reading and
 * computing the longer, and what of the shorter is not hidden behind it. */
double saf_plan_flight_s(const saf_plan_rates *rates, const saf_plan_flight *f);

/* Of the latency of a message between hosts, what keeps a processor busy at each end. */
double saf_plan_overhead_s(const saf_plan_host *host);
/* Seconds of a meeting of all ranks of a stage, `here` ranks on each of `hosts` hosts, over so many
 * bytes; `most`: of these, what the host has that wrote the most, bytes / hosts where all wrote
 * alike. */
double saf_plan_meeting_s(const saf_plan_host *host, int32_t here, int32_t hosts, double bytes,
                          double most);
/* The worse of each figure; a short message is unknown where one of them is. */
saf_plan_link saf_plan_slower_link(const saf_plan_link *a, const saf_plan_link *b);
/* Seconds of a message between hosts, or within one (host NULL). */
double saf_plan_message_s(const saf_plan_host *host, double bytes);

/* ---- layouts ---- */

typedef struct {
    int32_t replicas, stages, tensor;
    int32_t ranks_per_host;
    int32_t hosts;  /* that hold ranks */
    int32_t order;  /* of the hosts: by speed, by memory, or one class alone (2 + its number) */
    bool by_memory; /* stages are cut by the memory of hosts, not by their speed */
    int32_t *first; /* [stages + 1] layers of the first replica */
    saf_schedule schedule;
    bool fits;
    double short_bytes;  /* what the fullest host lacks */
    double memory_bytes; /* of the largest rank: weights, cache, buffers */
    double weight_bytes, cache_bytes, buffer_bytes; /* of that rank */
    double host_bytes;                              /* of the fullest host, all its ranks */
    double room_bytes;                              /* that this host has, without the reserve */
    double first_token_s; /* of a prompt of average length with nothing else on its way */
    double prefill_tokens_s, decode_tokens_s; /* of all replicas */
    double token_s;                           /* from one token of a sequence to its next */
    double job_s;                             /* from the first prompt token to the last result */
    double network_share;                     /* of job_s */
    double token_network_share;               /* of token_s */
} saf_plan_choice;

typedef struct {
    int32_t n;
    saf_plan_choice
        *choices; /* [n] best first; those that do not fit last, the least short first */
    int64_t looked_at;
    saf_plan_choice *one_host; /* the best on one host, among choices; NULL: none was looked at */
    char why[512];             /* one sentence */
    char rules[2][256];        /* rules of thumb, and whether they say the same */
} saf_plan;

/* Looks at replicas x stages x tensor over hosts in a few orders, equal hosts counted and not
 * enumerated, and keeps the best of each number of hosts and each kind, `keep` in all. Errors:
 * USAGE (no host, numbers out of range, no layout of the numbers asked for), NO_MEMORY. */
saf_status saf_plan_make(const saf_plan_model *m, const saf_plan_cluster *cluster,
                         const saf_plan_work *work, int32_t keep, saf_plan *out);
void saf_plan_free(saf_plan *plan);

/* ---- ranks that stand ---- */

/* The ranks of a run, all of which are to be used, in the order that they have. */
typedef struct {
    int32_t ranks, n_hosts;
    const int32_t *host;        /* [ranks] number of each one's host, below n_hosts */
    const saf_plan_host *hosts; /* [n_hosts] `cores` is what its ranks use together, at most */
    const double *share;        /* [ranks] by hand; NULL: by what their hosts can do */
    int32_t usual[3]; /* replicas, stages, parts: a layout that another must beat by so much */
    double usual_gain;
} saf_plan_ranks;

/* The same for all layouts of exactly these ranks, cut as saf_layout_choose cuts them: by the speed
 * of hosts, or where that does not fit by their memory (by_memory). Of hosts the whole is counted:
 * what all of its ranks hold. memory[ranks]: of each rank in the best layout; may be NULL. Errors:
 * USAGE (no layout can be made of them, figures that no host has), NO_MEMORY. */
saf_status saf_plan_of_ranks(const saf_plan_model *m, const saf_plan_ranks *ranks,
                             const saf_plan_work *work, int32_t keep, saf_plan *out,
                             double *memory);
/* The shares that a choice was cut with, share[ranks]; false: all are alike. Errors: NO_MEMORY. */
saf_status saf_plan_shares(const saf_plan_model *m, const saf_plan_ranks *ranks,
                           const saf_plan_work *work, bool by_memory, double *share, bool *unlike);

#endif
