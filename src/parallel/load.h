/* Inside of loading, for load.c (all of it), give.c (blocks for others), take.c (blocks from
 * another) and loaded.c (how much is there). */
#ifndef SAF_PARALLEL_LOAD_H
#define SAF_PARALLEL_LOAD_H

#include "saf/parallel.h"

/* ---- give.c: the ranks that this one gives their blocks to ---- */

typedef struct {
    int32_t rank;
    saf_blocks *blocks;
    int64_t next;      /* block to be sent */
    int32_t under_way; /* sent and not yet there */
} saf__receiver;

typedef struct {
    char *bytes;
    saf_comm_request *request;
    saf__receiver *to;
    int64_t block;
    saf_status read; /* how reading it went */
} saf__given_block;

typedef struct {
    saf_comm *comm;
    saf__receiver *receivers; /* [n] */
    int32_t n;
    saf__given_block slots[SAF_GIVEN_BLOCKS];
    bool apart; /* an error of communication */
} saf__giving;

/* Everything that needs memory. */
saf_status saf__giving_new(saf_comm *comm, const saf_gguf *g, const saf_model_params *p,
                           const saf_layout *layout, const int32_t *giver, saf__giving *out);
void saf__giving_free(saf__giving *giving);
/* Sends what can be sent without waiting. */
saf_status saf__give_some(saf__giving *giving);
/* The same, and waits until a block has left; *all: none is under way, every receiver has its
 * slice.
 */
saf_status saf__give_more(saf__giving *giving, bool *all);
/* After a failure of this rank: the receivers that are still waiting are told that nothing comes.
 */
void saf__give_up(saf__giving *giving);

/* ---- take.c: a slice that another rank gives ---- */

typedef struct {
    char *bytes;
    saf_comm_request *request, *onward; /* as it comes, and as it goes to the twin */
    saf_tensor t;
} saf__taken_block;

typedef struct {
    saf_comm *comm;
    int32_t giver, twin; /* twin: the rank that the blocks are passed on to; -1: none */
    int64_t next;        /* block to come */
    size_t there;        /* bytes that have come */
    saf__taken_block slots[SAF_GIVEN_BLOCKS];
    bool apart; /* an error of communication */
} saf__taking;

/* Everything that needs memory; `largest`: bytes of a block. */
saf_status saf__taking_new(saf_comm *comm, const int32_t *giver, size_t largest, saf__taking *out);
void saf__taking_free(saf__taking *taking);
/* Takes the next block. *all: nothing more comes: the slice is there, or the giver has failed,
 * which the agreement at the end tells. */
saf_status saf__take_more(saf__taking *taking, saf_slice *slice, const saf_blocks *blocks,
                          bool *all);

/* ---- loaded.c: rank 0 hears how far the others are ---- */

typedef struct {
    int64_t bytes, over; /* over: nothing more is said */
} saf__news;

typedef struct {
    saf_comm *comm;
    bool wanted;
    double said_s; /* when the last news left */
    saf__news mine;
    saf_comm_request *request;
    /* rank 0 */
    const saf_load_events *events;
    saf__news *news; /* [ranks] */
    saf_tensor *tensors;
    saf_comm_request **requests;
    size_t total;
    bool apart;
} saf__loaded;

/* Collective. `total`: bytes of all slices, rank 0's counts. An error is everybody's, or `apart` is
 * set. */
saf_status saf__loaded_new(saf_comm *comm, const saf_load_events *events, size_t total,
                           saf__loaded *out);
void saf__loaded_free(saf__loaded *loaded);
/* This rank has so many bytes now. */
saf_status saf__loaded_say(saf__loaded *loaded, size_t bytes);
/* This rank is through, well or not; rank 0 waits for the others. */
saf_status saf__loaded_end(saf__loaded *loaded, size_t bytes);

#endif
