/* What the search for layouts shares among its files: plan_search.c (which numbers are tried, over
 * which hosts), plan_kinds.c (replicas on these hosts, and how they are cut), plan_figures.c (what
 * becomes of a layout, and which is better). */
#ifndef SAF_PARALLEL_PLAN_SEARCH_H
#define SAF_PARALLEL_PLAN_SEARCH_H

#include "parallel/plan.h"

enum {
    SAF__PLAN_KINDS = 2 * SAF_PLAN_CLASSES_MAX + 2,
    SAF__PLAN_SIGNATURES = 16 /* of layouts: several hosts, replicas, stages, parts or not */
};

/* The hosts of a replica, and how many of these there are one after the other. */
typedef struct {
    int32_t count;
    bool alike;                    /* all of one class */
    saf_plan_host *host;           /* [stages] */
    int32_t *by_speed, *by_memory; /* [stages + 1] */
} saf__plan_kind;

typedef struct {
    const saf_plan_model *m;
    const saf_plan_cluster *cluster;
    const saf_plan_work *work;
    const saf_plan_ranks *placed; /* where the ranks stand already; NULL */
    int64_t *cost, *memory;       /* [L + 1], of the layers before, in the words of a cut */
    saf_flight_mix mix;
    saf__plan_split *splits;
    int32_t n_splits;
    int32_t **cuts[2]; /* [2][L + 1] of equal hosts: by cost, by memory */
    double mixed_steps;
    double *short_of; /* [hosts + 1] least shortage on so many hosts; INFINITY: not looked at */
    int32_t hosts, ranks;
    saf_plan_choice best[SAF__PLAN_SIGNATURES];
    saf_plan_choice one_host;
    int64_t looked_at;
    /* the row of hosts at hand */
    int32_t order;
    int32_t row[SAF_PLAN_CLASSES_MAX], n_row, row_hosts;
} saf__plan_search;

/* The grid at hand. */
typedef struct {
    int32_t ranks_per_host, tensor, stages;
    saf__plan_split split;
    saf__plan_kind kinds[SAF__PLAN_KINDS];
    int32_t n_kinds;
} saf__plan_grid;

/* ---- plan_kinds.c ---- */

/* What a stage must hold, layer by layer, as a cut wants it. Errors: NO_MEMORY. */
saf_status saf__plan_memory_sums(saf__plan_search *s);
/* How fast a host takes the job's average flight through the whole model. */
double saf__plan_speed_of(const saf__plan_search *s, const saf_plan_host *host,
                          int32_t ranks_per_host);
saf_status saf__plan_copy_cut(const int32_t *from, int32_t stages, int32_t **out);
/* The replicas of a grid along the row of hosts; mixed: those over unlike hosts as well. Those that
 * there are are to be freed in any case. Errors: NO_MEMORY. */
saf_status saf__plan_kinds_list(saf__plan_search *s, saf__plan_grid *g, bool mixed);
void saf__plan_kinds_free(saf__plan_grid *g);

/* ---- plan_figures.c ---- */

/* The first `replicas` of the grid's, kept where they are better than what there is. Errors:
 * NO_MEMORY. */
saf_status saf__plan_look(saf__plan_search *s, const saf__plan_grid *g, int32_t replicas);
/* A layout with its figures. Errors: NO_MEMORY. */
saf_status saf__plan_keep(saf__plan_search *s, const saf_plan_choice *c, const int32_t *first);
void saf__plan_add_memory(const saf__plan_memory *memory, bool first, saf_plan_choice *c);
/* Of n kinds of replicas, count[n] of each. */
void saf__plan_add_times(const saf__plan_search *s, const saf__plan_replica *replica,
                         const int32_t *count, int32_t n, saf_plan_choice *c);
bool saf__plan_better(const saf__plan_search *s, const saf_plan_choice *a,
                      const saf_plan_choice *b);

/* ---- plan_search.c ---- */

/* Errors: USAGE (figures that no host has). */
saf_status saf__plan_check_host(const saf_plan_host *host);
/* What does not depend on hosts; `hosts` of them. To be ended in any case. Errors: USAGE,
 * NO_MEMORY. */
saf_status saf__plan_begin(saf__plan_search *s, int32_t hosts);
void saf__plan_end(saf__plan_search *s);
/* The best of each kind, sorted. Errors: NO_MEMORY. */
saf_status saf__plan_take_best(saf__plan_search *s, int32_t most, saf_plan *out);

#endif
