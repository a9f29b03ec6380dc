/* saf/parallel.h: who holds what, and how work flows through the ranks.
 *
 * A pipeline of stages, each a run of layers held by a group of ranks, each of which has its part
 * of the rows of every matrix. Stage 0 reads the requests, decides what runs next (continuous
 * batching), looks up the embeddings; the last stage turns hidden rows into logits, samples, and
 * sends token ids back to stage 0. The first rank of each group, its lead, talks to the other
 * stages and tells its group what comes next; within a stage the ranks meet over memory that they
 * share.
 *
 *      stage 0 --flight, activations--> stage 1 --> ... --> the last
 *         ^                                                   |
 *         +---------- sampled ids, log-probabilities ---------+
 *
 * A flight is one micro-batch on its way: runs of consecutive positions of some sequences. Several
 * flights are under way at once; each stage handles them in the order in which stage 0 sent them.
 * A whole pipeline is a replica of the model, and there may be several: each draws from one queue
 * of requests as it gets room for them, decides about what it has drawn, and its head, the lead of
 * its stage 0, reports to the head of the first replica what came of it.
 *
 * Because every kernel gives the same bits whatever the company in a batch, the schedule may follow
 * the clock and the results do not depend on it.
 */
#ifndef SAF_PARALLEL_H
#define SAF_PARALLEL_H

#include "saf/comm.h"
#include "saf/core.h"
#include "saf/model.h"

/* ---- layout ---------------------------------------------------------------------------------- */

/* Where a rank stands in the grid. Neighbouring ranks are the parts of one stage:
 *   rank = (replica * stages + stage) * tensor + part */
typedef struct {
    int32_t replica, stage, part;
} saf_place;

typedef struct {
    int32_t replicas, stages, tensor; /* replicas * stages * tensor ranks */
    saf_slice_range *ranges;          /* [ranks] what each of them holds */
} saf_layout;

/* A flight on average, of those that are to go through the stages. */
typedef struct {
    double rows;    /* tokens */
    double logits;  /* of these, how many want logits */
    double sampled; /* share of the flights that have any of these */
} saf_flight_mix;

/* What is wanted of a layout; 0 and NULL: saf chooses. */
typedef struct {
    int32_t ranks;
    const int32_t *host; /* [ranks] a number for each rank's host, equal where it is the same host;
                            NULL: all on one */
    int32_t replicas, stages, tensor;
    const int32_t *layers; /* [n_layers] layers of each stage, by hand */
    int32_t n_layers;
    const double
        *share;         /* [ranks] what a rank can hold or do against the others; NULL: all alike */
    saf_flight_mix mix; /* rows 0: single tokens, one after another */
} saf_layout_wish;
#define SAF_SHARE_MIN 1e-9
#define SAF_SHARE_MAX 1e9

/* The grid: what the wish leaves open is chosen so that the product is the number of ranks: tensor
 * groups of ranks of one host as large as can be, a stage for each of them, and more replicas only
 * where there are more groups than layers. Stages, of each replica: as the wish says, or so that
 * the largest cost of a stage for the share of its ranks is smallest (cost of a flight: the bytes
 * of the weights, the output head's at three quarters and only where it is read, the embedding's
 * not, and the operations as so many bytes), the others as even as they can be. Parts of a stage:
 * rows in tiles of SAF_TILE_ROWS (the vocabulary: in segments of SAF_LOGIT_SEGMENT), so that the
 * largest number of them for a rank's share is smallest; heads likewise, by the bytes of q, k and v
 * that they read and attention's work. A part may be empty of some of these. Local; same result
 * from the same file and wish. Errors: USAGE (numbers that do not fit, naming those that would; a
 * rank that would hold nothing; layers given of another number or sum). */
saf_status saf_layout_choose(const saf_gguf *g, const saf_model_params *p,
                             const saf_layout_wish *wish, saf_layout *out);
void saf_layout_free(saf_layout *layout);
int32_t saf_layout_ranks(const saf_layout *layout);
saf_place saf_layout_place(const saf_layout *layout, int32_t rank);
int32_t saf_layout_rank(const saf_layout *layout, saf_place place);
/* What a rank holds. */
saf_slice_range saf_layout_range(const saf_layout *layout, int32_t rank);
/* "pipeline 3: layers 0-9 | 10-19 | 20-27 + head", with "replicas 2 x pipeline 3 x tensor 2" where
 * there are several; replicas with other stages follow one another. */
saf_status saf_layout_text(const saf_layout *layout, saf_buf *out);

/* The largest cost of a stage, in bytes for a rank or group of average share: of the layout, of the
 * best cut, and of stages with equal numbers of layers (one more in the first ones). */
typedef struct {
    double chosen, best, equal;
} saf_layout_gains;
saf_status saf_layout_gain(const saf_gguf *g, const saf_model_params *p,
                           const saf_layout_wish *wish, const saf_layout *layout,
                           saf_layout_gains *out);

/* ---- loading ----------------------------------------------------------------------------------
 * A rank that has the model file reads its own slice from it, and no more. Another is given the
 * blocks of its slice, in the order of the file, by a rank that has it. */

/* Who gives each rank its bytes, itself where it has the file: giver[P]. For the others a rank of
 * the same host if one has the file, and of these the one with the fewest bytes to give, the lowest
 * among equals. Where no rank of the host has it and several hold the same slice (replicas), the
 * first is given it and each passes it on to the next. Rank 0 has the file. Collective; same result
 * everywhere. Errors: NO_MEMORY. */
saf_status saf_givers_choose(saf_comm *comm, const saf_gguf *g, const saf_model_params *p,
                             const saf_layout *layout, bool has_file, int32_t *giver);

/* Told to rank 0 alone, several times a second and at the end: bytes of `total` that all ranks
 * together have by now. */
typedef struct {
    void *ctx;
    void (*loaded)(void *ctx, size_t bytes, size_t total); /* NULL: nobody wants to know */
} saf_load_events;

/* How it went for this rank. */
typedef struct {
    double slice_s; /* until its slice was there */
    bool apart;     /* an error left the ranks at different places, as in saf_engine_times */
} saf_load_times;

/* Loads every rank's slice. A rank holds at most SAF_GIVEN_BLOCKS blocks of others.
 * Only rank 0's events are used. Collective; a failure is everybody's, with the text of the rank
 * where it was. After an error with times->apart the caller ends the job with saf_comm_abort.
 * Errors: NO_MEMORY, IO, BAD_INPUT, COMM. */
enum { SAF_GIVEN_BLOCKS = 4 };
saf_status saf_load_slices(saf_comm *comm, const saf_gguf *g, const saf_model_params *p,
                           const saf_layout *layout, const int32_t *giver,
                           const saf_load_events *events, saf_load_times *times, saf_slice **out);

/* ---- work ------------------------------------------------------------------------------------ */

/* One request as every rank knows it. */
typedef struct {
    uint64_t key; /* first 64 bits of SHA-256 of its id */
    int32_t *prompt;
    int32_t n_prompt;
    int32_t max_tokens; /* to complete; 0 when scoring */
    int32_t cached;     /* positions, below n_prompt, whose keys and values the event `restore` has;
                           generate only */
    saf_sampling sampling;
} saf_request;

typedef struct {
    bool score;    /* log-probability of every token of the prompt, nothing sampled */
    bool logits;   /* send logits rows back: of every token (score), or of every sampled one */
    int32_t n_top; /* alternatives sent with every sampled token */
    int32_t n_requests;
    saf_request *requests;
} saf_work;
/* Whether somebody needs all logits of the request's rows: those that keep them, or draw from them
 * all. Otherwise no rank of the last stage has the others' (saf_stage_logit_rows). */
bool saf_work_whole_rows(const saf_work *work, const saf_request *request);
/* n + n_top of what is asked of other rows at most (saf_logit_ask). */
int32_t saf_work_candidates(const saf_work *work);

/* Everybody gets the root's work. Collective. */
saf_status saf_work_bcast(saf_comm *comm, int root, saf_work *work);
void saf_work_free(saf_work *work);

/* ---- timeline -----------------------------------------------------------------------------------
 * What a rank did when, on request. A rank's entries follow or contain each other. */

typedef enum {
    SAF_TRACE_DROPPED,  /* what was before the oldest entry that is kept */
    SAF_TRACE_COMPUTE,  /* the forward pass of a flight */
    SAF_TRACE_SAMPLE,   /* its logits, and tokens or scores from them */
    SAF_TRACE_EXCHANGE, /* with the ranks of the same stage; in one of the two above as a rule */
    SAF_TRACE_SEND,     /* handing something to another stage, or waiting until it has left */
    SAF_TRACE_RECEIVE,  /* taking in what has come */
    SAF_TRACE_WAIT,     /* until something comes */
    SAF_TRACE_KINDS
} saf_trace_kind;
const char *saf_trace_kind_name(saf_trace_kind kind);

typedef struct {
    double start_s, end_s;
    int64_t flight; /* of the replica, from 0 on, the same number on every stage; -1: none */
    int32_t tokens; /* rows of the flight */
    int32_t kind;   /* saf_trace_kind */
} saf_trace_entry;

typedef struct saf_trace saf_trace;
/* With room for the newest 2^18 entries, fewer where there are more than eight ranks; memory is
 * taken as they come. Errors: NO_MEMORY. */
saf_status saf_trace_new(int32_t ranks, saf_trace **out);
void saf_trace_free(saf_trace **trace);
/* An entry that ends now, or has ended; times by saf_clock_s. No trace (NULL): nothing happens. */
void saf_trace_add(saf_trace *trace, saf_trace_kind kind, double start_s, double end_s,
                   int64_t flight, int32_t tokens);
/* Ranks find out how far their clocks are from rank 0's: before what is recorded, and after it.
 * Collective. */
saf_status saf_trace_meet(saf_comm *comm, saf_trace *trace);
/* Appends what is kept as an array of saf_trace_entry, in the order in which the entries ended, in
 * seconds from zero_s of rank 0's clock on. Where older ones are lost the first entry says until
 * when. Errors: NO_MEMORY. */
saf_status saf_trace_pack(const saf_trace *trace, double zero_s, saf_buf *out);

/* ---- engine ---------------------------------------------------------------------------------- */

typedef struct {
    int32_t sequences;   /* in flight at once, in each replica: slots of the key-value cache */
    int32_t micro_batch; /* sequences of one flight at most */
    int32_t chunk;       /* rows of one flight at most: prompts go through in pieces of this */
    int32_t capacity;    /* positions of a slot */
} saf_schedule;

/* What a schedule is made for; of the last three 0: saf chooses. */
typedef struct {
    int64_t requests, longest; /* positions of the longest one */
    int32_t stages, replicas;
    int64_t fit;       /* sequences that every host has room for */
    int64_t most_rows; /* of a flight, where saf chooses; 0: any */
    int32_t sequences, micro_batch, chunk;
} saf_schedule_wish;
/* Sixteen sequences for each stage, as many as fit, and no replica takes the share of another; a
 * micro-batch for each stage; prompts in pieces of 128 rows. */
void saf_schedule_choose(const saf_schedule_wish *wish, saf_schedule *out);
/* The flights that so many tokens of prompts, and so many to be sampled, will make: good enough to
 * weigh layers against the output head before there is a layout. `score`: all tokens of prompts
 * want logits. */
saf_flight_mix saf_schedule_mix(const saf_schedule_wish *wish, double prompts, double sampled,
                                bool score);

/* What the head of each replica is told of the requests that it runs, always from saf_engine_run's
 * own thread, for each request in order of its positions. A status other than SAF_OK ends the run.
 * Any callback may be NULL. */
typedef struct {
    void *ctx;
    void (*admitted)(void *ctx, int32_t request);
    /* one sampled token; top[n_top] as asked. *finished ends the request. */
    saf_status (*token)(void *ctx, int32_t request, saf_sampled token, const saf_sampled *top,
                        bool *finished);
    /* score: log-probabilities of the prompt's tokens [pos0, pos0 + n), pos0 >= 1 */
    saf_status (*scores)(void *ctx, int32_t request, int32_t pos0, int32_t n,
                         const float *logprobs);
    /* rows of logits[n, V]: score: after positions pos0 ...; generate: of the token that `token`
     * tells next */
    saf_status (*logits)(void *ctx, int32_t request, int32_t pos0, int32_t n, const float *rows);
    /* a value that is not finite left a layer (layer L: the output head): the request fails, the
     * others go on. Layer and position are the same whatever the layout and schedule. */
    void (*fault)(void *ctx, int32_t request, int32_t layer, int32_t position);
    void (*done)(void *ctx, int32_t request);
    /* At the head of the first replica: what another's events gave to saf_group_report, in its
     * order, aligned to 8 bytes. Also called in the middle of a forward pass. */
    saf_status (*report)(void *ctx, int32_t replica, const void *bytes, size_t len);
    /* Whether the run is to end with what is under way now. Every head is asked before each flight
     * and while it waits, several times a second at least, also when it has nothing to do any more;
     * one that says yes speaks for all, and nobody is asked again. No request is begun then and no
     * flight leaves, but those under way come home and are told as events. */
    bool (*stop)(void *ctx);
    /* Called once at a head that leaves requests undone which were admitted there: nothing of them
     * is under way, and what it has not reported of them yet, it reports now. */
    saf_status (*stopped)(void *ctx);
    /* Then at the same head, for each of these of which there is something in the caches: the first
     * `positions` positions of it are in this slot, on every rank of the replica. */
    saf_status (*held)(void *ctx, int32_t request, int32_t slot, int32_t positions);
    /* On every rank, in work with cached positions: puts those of this request into this slot,
     * before anything of it is computed. A rank that cannot leaves them not finite: the request is
     * then begun again from its first token, once, and where a run of it begins behind these
     * positions this is asked another time and does nothing. An error leaves the ranks apart. */
    saf_status (*restore)(void *ctx, int32_t request, int32_t slot);
} saf_engine_events;

/* How the run went for this rank. */
typedef struct {
    double compute_s; /* forward passes and sampling, without meetings */
    double wait_s;    /* for other ranks, the meetings of a group included */
    int64_t flights;
    bool apart; /* an error left the ranks at different places: nothing can be agreed on any more */
    bool stopped; /* heads: one of them was told to stop, nothing failed, and some request is not
                     done, here or elsewhere or never begun; the same on all heads */
} saf_engine_times;

/* ---- group: the ranks that hold the parts of one stage ---- */

/* Who they are and the memory that they share: the rows of the flights, what the stage exchanges,
 * logits and samples. The first of them, the lead, talks to the other stages. A rank alone in its
 * stage is a group as well. */
typedef struct saf_group saf_group;
/* All arguments must outlive it. Collective over comm, which has a rank for each place of the
 * layout. Errors: NO_MEMORY, COMM. */
saf_status saf_group_new(saf_comm *comm, const saf_layout *layout, const saf_model_params *p,
                         const saf_work *work, const saf_schedule *schedule, saf_group **out);
void saf_group_free(saf_group **group); /* collective */
/* For saf_stage_new: NULL for a rank alone. */
const saf_stage_group *saf_group_stage(const saf_group *group);
/* In an event of another replica's head than the first: the two pieces, one after the other, are
 * reported. Waits for the first replica only while it has several MiB of this one to take. */
saf_status saf_group_report(saf_group *group, const void *head, size_t head_len, const void *body,
                            size_t body_len);
/* Of memory, once for all ranks of a host. */
size_t saf_group_bytes(const saf_group *group);

/* Runs all work through the stages. Only the events of heads are used, but for `restore`.
 * Collective. An event's error ends the run in order on all ranks and is returned by that rank
 * alone; after any other error (times->apart) the caller ends the job with saf_comm_abort.
 * trace: of this rank, or NULL. */
saf_status saf_engine_run(saf_group *group, saf_stage *stage, const saf_engine_events *events,
                          saf_trace *trace, saf_engine_times *times);

/* Rows that want logits in a batch under this schedule, at most. */
int64_t saf_schedule_max_logits(const saf_schedule *schedule, const saf_work *work);
/* What a stage must have room for. */
saf_stage_room saf_schedule_room(const saf_schedule *schedule, const saf_work *work, bool last);

#endif
