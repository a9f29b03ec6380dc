/* tests/sim: saf's engine and its matrix products, as they are, on a cluster that SimGrid
 * simulates.
 *
 * What runs is the code of src/parallel and src/matrix: who sends what to whom, and when. Three
 * things are put in its place: messages and meetings go over SMPI (comm.c, shared.c), computing
 * takes the seconds that the plan has for it (stage.c, product.c), and the clock is the
 * simulation's. All ranks are threads of one process that take turns, so nothing here may wait but
 * by SMPI.
 */
#ifndef SAF_SIM_H
#define SAF_SIM_H

#include "saf/parallel_plan.h"

/* The cluster: hosts stand in rows of classes, each with as many ranks. */
typedef struct {
    int32_t ranks, ranks_per_host, n_classes;
    saf_plan_host *classes; /* count, rates and links of each */
    double message_s;       /* of the sender and of the receiver, for each message: as the plan has
                               it for the first class */
} sim_cluster;
extern sim_cluster sim;

/* So many bytes of a message are one of the simulation. */
enum { SIM_UNIT = 64 };

int32_t sim_host_of(int32_t world_rank);
const saf_plan_host *sim_class_of(int32_t host);

/* Sets up SimGrid, runs `rank` on every rank and ends it. The platform and the deployment are
 * written to folder. Returns 0, or 1 after a message. */
int sim_run(const char *folder, void (*rank)(saf_comm *world));

/* This rank computes. */
void sim_compute(double seconds);
/* Seconds of the simulation. */
double sim_now(void);
/* All ranks of comm; takes no note of what that costs. */
void sim_barrier(saf_comm *comm);
double sim_max(saf_comm *comm, double value);
/* Hands a pointer of rank 0 to all. */
void *sim_share_pointer(saf_comm *comm, void *pointer);
/* Place of a rank in the world. */
int32_t sim_world_rank(const saf_comm *comm, int rank);
/* The first ranks of each host send each other so many bytes of theirs: bytes[hosts], this one's is
 * `me`. leaders: their communicator. */
void sim_exchange(saf_comm *leaders, int me, int hosts, const size_t *bytes);

/* "key=value" of the command line; ends the program where it is missing. */
const char *sim_text(int argc, char **argv, const char *key);
double sim_number(int argc, char **argv, const char *key);
/* "a,b,c": n of them. */
void sim_numbers(int argc, char **argv, const char *key, int32_t n, double *out);
/* ranks, ranks_per_host, classes, and of each class count, cores, read, int8, f32, tiles, link,
 * latency. */
void sim_read_cluster(int argc, char **argv);
/* Ends the program with the last error of saf where st is one. */
void sim_check(saf_status st);

#endif
