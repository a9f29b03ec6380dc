/* A job on its way: what the files of the job room share while one runs. */
#ifndef SAF_JOB_SESSION_H
#define SAF_JOB_SESSION_H

#include "job/hosts.h"
#include "saf/hw.h"
#include "saf/job.h"
#include "saf/parallel.h"
#include "saf/store.h"
#include "saf/store_kv.h"

/* What every rank must know of the job file; travels as it is (the ranks run one program). */
typedef struct {
    int32_t kind, kv_type, threads;
    int32_t replicas, pipeline, tensor, n_stages, n_share;
    int32_t dry_run, trace, watchdog_seconds, kv;
    double checkpoint_seconds;
    uint32_t model_path_bytes;
} saf__settings;

/* What a plan makes of the numbers that the job leaves open; travels as it is. All 0: there is
 * none. */
typedef struct {
    int32_t replicas, pipeline, tensor;
    int32_t sequences; /* in flight at most */
    int32_t shares;    /* 1: the hosts are unlike, s->share says how */
} saf__planned;

/* How a request ended. */
typedef enum {
    SAF__ENDED_NOT,
    SAF__ENDED_EOS,
    SAF__ENDED_STOP,
    SAF__ENDED_LENGTH,
    SAF__ENDED_SCORED,
    SAF__ENDED_ERROR
} saf__end;

/* What travels of a request as it is. */
typedef struct {
    saf__end end;
    int32_t fault_layer, fault_position;
    int32_t replica;                    /* that ran it */
    double admitted_s, first_s, last_s; /* since its replica began */
} saf__course;

/* A request on its way, and what has come of it. */
typedef struct {
    int64_t row;   /* its line of the results */
    bool done;     /* rank 0: all of it is here */
    int32_t given; /* tokens of the completion that earlier runs sampled: the end of the prompt */
    saf__course course;
    saf_ids completion;
    saf_buf bytes;    /* of the completion, as decoded so far */
    size_t shown;     /* bytes of them that went to stdout */
    saf_buf logprobs; /* f32: of the completion; score: of the prompt */
    saf_buf top_ids, top_logprobs;
    saf_buf logits;                   /* rows not yet written; of another head, not yet told */
    int64_t logits_row0, logits_rows; /* those written */
    int32_t told; /* heads but rank 0: tokens of the completion that rank 0 has; the logarithms and
                     alternatives of these are not here any more */
} saf__live;

/* When the run is to stop before it is over. */
typedef struct {
    double at_s;      /* the time is over, by saf_clock_s; 0: no limit */
    double limit_s;   /* from the start of the process until then */
    double asked_s;   /* when the engine last asked */
    double longest_s; /* between two of its questions */
} saf__stop;

/* Caches of keys and values in files: the checkpoint, what is kept beside it, and of each of its
 * sequences what it is in this run: its slot while it is kept, its request once it is restored, or
 * -1. As all ranks know them. */
typedef struct {
    char *checkpoint;
    saf_kv_saved saved;
    int32_t *of; /* [saved.n_sequences] */
} saf__caches;

typedef struct {
    saf_comm *world;
    const saf_job *job; /* rank 0's counts; the other heads have it as well */
    saf_job given_job;  /* theirs */
    const saf_run_options *options;
    int rank, ranks;
    /* the job, known everywhere */
    saf__settings settings;
    saf__planned planned;
    char *model_path;
    char *made_path;       /* of a model made for this job, until it is open */
    int32_t *given_stages; /* [settings.n_stages] */
    double *given_share;   /* [settings.n_share] */
    int32_t *host;         /* [ranks] its number, in the order of the hosts' first ranks */
    double *share;         /* [ranks] NULL: all alike */
    saf_flight_mix mix;    /* what the layout is made for */
    saf_hw_binding binding;
    int64_t memory_bytes; /* of a host for each of its ranks, the least of all */
    saf_gguf *gguf;
    saf_model_params params;
    saf_layout layout;
    saf_slice_range range;
    bool has_file;  /* the model is where its path says, on this rank too */
    int32_t *giver; /* [ranks] who gives each rank its slice: itself where it has the file */
    saf_work work;
    saf_schedule schedule;
    saf_slice *slice;
    saf_kv_cache *kv;
    saf__caches caches;
    saf_kv_file **cache_files; /* [caches.saved.n_sources] this rank reads; NULL: not this one */
    char *cache_rows;
    bool *cache_taken; /* [caches.saved.n_sequences] this rank has put them into a slot, or tried */
    saf_buf held;      /* heads: what is in slots when the run stops */
    saf_group *group;
    saf_stage *stage;
    saf_engine_times times;
    saf_trace *trace; /* from the loading to the end of the run, where the job wants one */
    double slice_s;   /* loading this rank's slice took */
    char *model_sha256;
    /* heads of replicas, each for the requests that it runs: rank 0 of all in the end */
    bool head;
    int32_t n_live;  /* rank 0: those to run, and behind them those done before this run; the other
                        heads: those to run */
    saf__live *live; /* [n_live] */
    saf_tokenizer *tokenizer; /* generate, and rank 0 */
    saf__stop stop;
    double run_start_s;
    int64_t sampled_tokens; /* for the progress line */
    saf_status status;      /* of an event that cannot return one */
    double progress_s;      /* when progress was last shown, or told to rank 0 */
    /* heads but rank 0 */
    int64_t told_tokens; /* of sampled_tokens rank 0 knows */
    double partial_s;    /* when rank 0 was last told all that there is */
    /* rank 0 only */
    saf_results results;
    saf_results_writer *writer;
    saf_prompt *prompts; /* [n_prompts] */
    int64_t n_prompts;
    double start_s;
    int64_t finished;         /* requests, over all runs of the job */
    saf_checkpoint *restored; /* what the job goes on from, until all of it is taken up */
    double before_s;          /* earlier runs took */
    int64_t before_tokens;    /* and what they got */
    struct saf__saver *saver;
    int64_t logits_rows; /* of /logits that have a place */
    bool over;           /* the job was finished before: known everywhere */
    bool watched;        /* by a person at a terminal */
    bool stream, progress;
    bool loading_over;  /* its line has ended */
    double slices_s;    /* loading took, of all ranks */
    double loading_s;   /* when it began */
    double log_after_s; /* of the run: the next line for the log */
} saf__session;

/* setup.c: agree on the job, open the model, choose the layout; then load. Collective. */
saf_status saf__session_open(saf__session *s);
saf_status saf__session_load(saf__session *s);
void saf__session_close(saf__session *s);
void saf__live_free(saf__live *l); /* what it holds */

/* open.c: the model's header, the layout and who reads the file, on every rank. Collective. */
saf_status saf__model_open(saf__session *s);
saf_status saf__layout_make(saf__session *s);
/* What is wanted of the layout, with pointers into the session. */
saf_layout_wish saf__layout_wish(const saf__session *s);

/* follow.c: s->planned, and s->share where hosts are unlike. Collective. Errors: those of reading
 * run.profile. */
saf_status saf__follow_plan(saf__session *s);

/* requests.c: prompts to requests and rows of the results. Rank 0. */
saf_status saf__requests_make(saf__session *s);
/* Text as it is shown and stored: what is no character becomes U+FFFD, and so does a zero byte,
 * which would end the string in the results. */
saf_status saf__text_append(saf_buf *out, const char *bytes, size_t len);

/* schedule.c, rank 0: the flights that the requests will make, for the layout; and, with that, the
 * sizes of the schedule: the job's, or saf's choice. */
saf_schedule_wish saf__schedule_wish(const saf__session *s); /* without the layout */
void saf__mix_guess(const saf__session *s, saf_flight_mix *out);
saf_status saf__schedule_choose(saf__session *s);

/* events.c, generate.c, score.c: what happens when results come back. */
saf_engine_events saf__generate_events(saf__session *s);
saf_engine_events saf__score_events(saf__session *s);
/* After the run: the live state becomes rows of the results. */
/* What is known of a single prompt's text when the run begins, to stdout. */
saf_status saf__generate_begin(saf__session *s);
saf_status saf__generate_rows(saf__session *s);
saf_status saf__score_rows(saf__session *s);
/* events.c: shared by both. */
void saf__event_admitted(void *ctx, int32_t request);
void saf__event_fault(void *ctx, int32_t request, int32_t layer, int32_t position);
void saf__event_done(void *ctx, int32_t request);
void saf__progress_draw(saf__session *s, bool last);
void saf__loading_draw(void *ctx, size_t bytes, size_t total);
/* Loading has ended, well or not: ends the line if its last state was not drawn. */
void saf__loading_end(saf__session *s);
double saf__run_time_s(const saf__session *s); /* since the run began */
/* What both kinds store of a request. */
saf_status saf__row_finish(saf__session *s, const saf__live *l, saf_result_request *row);

/* reports.c: what became of a request gets to rank 0 from the head that ran it. When it is done,
 * everything: on another head it then holds nothing any more. */
saf_status saf__report_done(saf__session *s, int32_t request);
/* Score: rows [at, at + n) of its logits, on their way to their place in the results. */
saf_status saf__report_logits(saf__session *s, int32_t request, int64_t at, int64_t n,
                              const float *rows);
/* Heads but rank 0: what requests on their way have come to, so that a checkpoint has it; the
 * second where it is time for that. */
saf_status saf__report_partial(saf__session *s);
saf_status saf__report_partial_now_and_then(saf__session *s);
/* Heads but rank 0: how far they are. */
saf_status saf__report_progress(saf__session *s);
/* Rank 0: the report event. */
saf_status saf__report_taken(void *ctx, int32_t replica, const void *bytes, size_t len);

/* jobfile.c: a job from its own text, as another rank has it. */
saf_status saf__job_of_text(const char *text, const char *name, saf_job *out);
/* Its text anew, after a change of its settings. */
saf_status saf__job_rewrite(saf_job *job);

/* bench.c: bench jobs. Opens what the suites need and checks the settings against it; measures.
 * Collective. What --dry-run prints, on rank 0. */
saf_status saf__bench_open(saf__session *s);
saf_status saf__bench_run(saf__session *s);
void saf__bench_plan(const saf__session *s);
/* bench/model.c: a model for this job only, removed when it is open. */
saf_status saf__bench_make_model(saf__session *s);
void saf__bench_unlink_model(saf__session *s);

/* timeline.c: begins the ranks' timelines, and puts them into rank 0's results; nothing where the
 * job wants none. Collective. */
saf_status saf__timeline_begin(saf__session *s);
saf_status saf__timeline_gather(saf__session *s);

/* finish.c: what a rank's row and the root attributes say whatever the kind of job. */
void saf__calls_fill(saf_result_rank *r);
saf_status saf__header_fill(saf_results *r, const saf_job *job, const saf_run_options *options);
/* The table of ranks, and the results file. Collective. */
saf_status saf__ranks_gather(saf__session *s);
saf_status saf__results_write(saf__session *s);

/* plan.c: --dry-run, what each rank would hold, to stdout. Collective. */
saf_status saf__plan_print(saf__session *s);
/* Rank 0: says of ranks that the layout leaves without heads or rows. */
void saf__plan_warn(const saf__session *s);

#endif
