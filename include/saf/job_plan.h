/* saf/job_plan.h: what a job would take: its model's header, its requests, and hosts that are here,
 * named or invented, for saf/parallel_plan.h. */
#ifndef SAF_PUBLIC_JOB_PLAN_H
#define SAF_PUBLIC_JOB_PLAN_H

#include "saf/job.h"
#include "saf/parallel_plan.h"

/* A cluster file (libconfig):
 *
 *   hosts = ( { name = "big"; count = 8; memory_gb = 256.0; bandwidth_gbs = 200.0; gflops = 2000.0;
 *               int8_gops = 8000.0; link_gbit = 25.0; latency_us = 20.0; cores = 32; ranks = 1;
 *               core_bandwidth_gbs = 20.0; product_share = 0.6; hidden_share = 0.8; tiles = false;
 *               reserve_gb = 16.0; }, ... );
 *
 * Needed: memory_gb, bandwidth_gbs, gflops. Others: count 1, int8_gops four times gflops, link_gbit
 * 1, latency_us 50, cores 1, ranks 1, reserve_gb a tenth of the memory, tiles false,
 * core_bandwidth_gbs (of one core while the others rest) its part of bandwidth_gbs, product_share
 * (of int8_gops, what products of Q8_0 weights by few rows reach, weights in the caches) 0.64,
 * hidden_share (of the shorter of reading weights and computing) 0.6. Errors: NO_INPUT, USAGE
 * with file, line and what was expected. */
saf_status saf_cluster_read(const char *path, saf_plan_host **out, int32_t *n);

typedef struct {
    int32_t ranks;                /* at most; 0: what the hosts have */
    const char *hosts;            /* a hostfile, of hosts like this one; NULL */
    const char *cluster;          /* a cluster file; NULL */
    const char *profile;          /* a profile of `saf detect`, of all hosts or those that `hosts`
                                     names; NULL */
    double link_gbit, latency_us; /* between the hosts of a hostfile */
    int32_t keep;                 /* layouts */
} saf_job_plan_options;

typedef struct {
    saf_gguf *gguf;
    saf_model_params params;
    saf_plan_model model;
    saf_plan_host *classes;
    saf_plan_cluster cluster;
    int32_t n_hosts;
    int32_t *class_of; /* [n_hosts] of each host, in the order given; NULL: class by class */
    bool measured;     /* the rates, by this host's yardsticks */
    bool profiled;     /* by those of a profile */
    saf_plan_work work;
    saf_plan plan;
    double seconds; /* that looking at layouts took */
} saf_job_plan;

/* Local. Errors: those of reading the job's model and prompts, of saf_cluster_read,
 * saf_profile_read, saf_hostfile_read and saf_plan_make; BAD_INPUT (a host that is not in the
 * profile). */
saf_status saf_job_plan_make(const saf_job *job, const saf_job_plan_options *options,
                             saf_job_plan *out);
void saf_job_plan_free(saf_job_plan *plan);

#endif
