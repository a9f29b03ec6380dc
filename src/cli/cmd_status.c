/* saf status: how far a job is, from its files alone. */
#include <getopt.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/report.h"

static const char usage[] = "saf status FILE [--json]";

typedef struct {
    bool help, json;
    const char *path, *wrong;
    int paths;
} command;

/* What the files of one output say. */
typedef struct {
    const char *path;           /* as it was given */
    char *output;               /* the results file it is about */
    bool running;               /* a process writes it right now */
    bool done;                  /* `results` is what there is to say */
    saf_results results;        /* of a results file that reads well */
    saf_checkpoint *checkpoint; /* the newest good one */
    int32_t step;               /* of a chain of products the one that it is at, from 1; 0: none */
    saf_results of_step;        /* with a step and no checkpoint: those of this product */
    int64_t bytes;              /* its size */
    char *why;                  /* what is wrong with what is there; NULL */
} status;

static void print_help(void) {
    printf("usage: %s\n\n", usage);
    printf(
        "Says how far a job is, from its files alone. FILE is its results file (output.file),\n");
    printf("whether that exists yet or not, or one of its checkpoints.\n\n");
    printf("  --json   as JSON\n\n");
    printf(
        "Exit codes: 0 done (requests that failed by themselves are counted); 75 it can go on\n");
    printf("from a checkpoint; 66 there is nothing; 65 what is there is damaged.\n");
}

static void parse_words(int argc, char **argv, command *c) {
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int letter;
    opterr = 0;
    optind = 0; /* from the start, options anywhere */
    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        c->json |= letter == 'j';
        c->help |= letter == 'h';
        if (letter == '?' && !c->wrong) c->wrong = argv[optind - 1];
    }
    c->paths = argc - optind;
    c->path = c->paths > 0 ? argv[optind] : NULL;
}

/* ---- looking ---- */

/* A file that is damaged is part of the answer; of several, the first. */
static saf_status note(status *s, saf_status st) {
    if (st != SAF_BAD_INPUT && st != SAF_IO) return st == SAF_NO_INPUT ? SAF_OK : st;
    return s->why ? SAF_OK : saf_strdup(saf_error_text(), &s->why);
}

static const char *or_empty(const char *text) {
    return text ? text : "";
}

/* A results file from before a run that was started afresh says nothing of that run. */
static void decide(status *s, bool have_results) {
    const char *since = s->checkpoint ? saf_checkpoint_head_of(s->checkpoint)->written
                        : s->step > 0 ? or_empty(s->of_step.end_time)
                                      : NULL;
    s->done = have_results && (!since || strcmp(since, or_empty(s->results.end_time)) <= 0);
}

/* What one product of a chain has left: results, or a checkpoint, or nothing. */
static saf_status look_at_step(status *s, const char *file, int32_t step, bool *there) {
    saf_status st = SAF_OK;
    saf_results results = {0};
    saf_checkpoint *checkpoint = NULL;
    bool written = false;
    SAF_TRY(saf_store_is_written(file, &written));
    s->running = s->running || written;
    st = saf_results_read(file, &results);
    bool whole = st == SAF_OK;
    SAF_TRY(note(s, st));
    st = saf_checkpoint_open_newest(file, &checkpoint);
    SAF_TRY(note(s, st));
    *there = whole || checkpoint;
    if (!*there) goto out;
    s->step = step;
    saf_checkpoint_free(&s->checkpoint);
    saf_results_free(&s->of_step);
    if (checkpoint) {
        s->checkpoint = checkpoint;
        checkpoint = NULL;
    } else {
        s->of_step = results;
        results = (saf_results){0};
    }
out:
    saf_checkpoint_free(&checkpoint);
    saf_results_free(&results);
    return st;
}

/* A chain of products works in files of its own beside the results, and each stays until all are
 * done: the last one there is says how far it is. */
static saf_status look_at_steps(status *s) {
    saf_status st = SAF_OK;
    saf_buf file = {0};
    bool there = true;
    for (int32_t step = 1; there; step++) {
        saf_buf_clear(&file);
        SAF_TRY(saf_buf_printf(&file, "%s.chain-%d.h5", s->output, step));
        SAF_TRY(look_at_step(s, file.data, step, &there));
    }
out:
    saf_buf_free(&file);
    return st;
}

static saf_status look(status *s) {
    saf_status st = SAF_OK;
    struct stat file;
    bool have_results = false;
    SAF_TRY(saf_checkpoint_output(s->path, &s->output));
    bool one = s->output && stat(s->path, &file) == 0;
    if (!one) {
        saf_free(&s->output);
        SAF_TRY(saf_strdup(s->path, &s->output));
        st = saf_results_read(s->path, &s->results);
        have_results = st == SAF_OK;
        SAF_TRY(note(s, st));
    }
    SAF_TRY(saf_store_is_written(s->output, &s->running));
    st = one ? saf_checkpoint_open(s->path, &s->checkpoint)
             : saf_checkpoint_open_newest(s->output, &s->checkpoint);
    SAF_TRY(note(s, st));
    if (!one && !s->checkpoint) SAF_TRY(look_at_steps(s));
    if (s->checkpoint && stat(saf_checkpoint_path(s->checkpoint), &file) == 0)
        s->bytes = (int64_t)file.st_size;
    decide(s, have_results);
out:
    return st;
}

static bool can_go_on(const status *s) {
    return s->checkpoint || s->step > 0;
}

static const char *state_of(const status *s) {
    if (s->done) return "done";
    if (can_go_on(s)) return "resumable";
    return s->why ? "damaged" : "nothing";
}

static int code_of(const status *s) {
    if (s->done) return saf_status_exit_code(SAF_OK);
    if (can_go_on(s)) return saf_status_exit_code(SAF_STOPPED);
    return saf_status_exit_code(s->why ? SAF_BAD_INPUT : SAF_NO_INPUT);
}

/* ---- for a person ---- */

static void print_times(int64_t resumes) {
    if (resumes > 0)
        printf("; went on from a checkpoint %lld time%s", (long long)resumes,
               resumes == 1 ? "" : "s");
}

static void print_done(const status *s) {
    const saf_results *r = &s->results;
    if (r->product.there)
        printf("  %s job, a product of %lld x %lld x %lld\n", or_empty(r->kind),
               (long long)r->product.m, (long long)r->product.k, (long long)r->product.n);
    else
        printf("  %s job, %lld request%s, %lld failed; %lld tokens generated\n", or_empty(r->kind),
               (long long)r->n_requests, r->n_requests == 1 ? "" : "s",
               (long long)r->failed_requests, (long long)r->completion_tokens);
    printf("  finished %s, %.1f s of work", or_empty(r->end_time), r->run_s);
    print_times(r->resumes);
    printf("\n");
    if (r->model_name) printf("  model: %s\n", r->model_name);
}

/* Between two products of a chain. */
static void print_between(const status *s) {
    printf("  %s job, product %d of a chain is done\n", or_empty(s->of_step.kind), s->step);
    printf("  written %s: %s.chain-%d.h5\n", or_empty(s->of_step.end_time), s->output, s->step);
    if (!s->running) printf("  the same `saf run` goes on from it\n");
}

static void print_resumable(const status *s) {
    const saf_checkpoint_head *h = saf_checkpoint_head_of(s->checkpoint);
    double share = h->total > 0 ? 100 * (double)h->done / (double)h->total : 0;
    if (strcmp(h->kind, "matmul") == 0 && s->step > 0)
        printf("  %s job, product %d of a chain is %.1f %% done\n", h->kind, s->step, share);
    else if (strcmp(h->kind, "matmul") == 0)
        printf("  %s job, %.1f %% done\n", h->kind, share);
    else if (strcmp(h->kind, "train") == 0)
        printf("  %s job, %lld of %lld steps done, %lld tokens\n", h->kind, (long long)h->done,
               (long long)h->total, (long long)h->tokens);
    else
        printf("  %s job, %lld of %lld requests done, %lld tokens\n", h->kind, (long long)h->done,
               (long long)h->total, (long long)h->tokens);
    printf("  started %s, %.1f s of work", h->start_time, h->seconds);
    print_times(h->resumes);
    printf("\n  written %s: %s, %lld bytes\n", h->written, saf_checkpoint_path(s->checkpoint),
           (long long)s->bytes);
    if (h->model_name) printf("  model: %s\n", h->model_name);
    if (!s->running) printf("  the same `saf run` goes on from it\n");
}

static void print_status(const status *s) {
    static const struct {
        const char *state, *text;
    } texts[] = {{"done", "done"},
                 {"resumable", "stopped early, can go on"},
                 {"damaged", "damaged"},
                 {"nothing", "no results and no checkpoints"}};
    const char *state = state_of(s), *text = state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(texts[i].state, state) == 0) text = texts[i].text;
    if (s->running && !s->done) text = can_go_on(s) ? "running" : "running, no checkpoint yet";
    printf("%s: %s\n", s->path, text);
    if (s->done)
        print_done(s);
    else if (s->checkpoint)
        print_resumable(s);
    else if (s->step > 0)
        print_between(s);
    if (s->done && s->running) printf("  a job is writing it anew right now\n");
    if (s->why) printf("  %s\n", s->why);
}

/* ---- for a program ---- */

static void add_done(saf__json *b, cJSON *o, const saf_results *r) {
    saf__json_text(b, o, "job_kind", r->kind);
    saf__json_text(b, o, "model_name", r->model_name);
    saf__json_whole(b, o, "done", r->n_requests);
    saf__json_whole(b, o, "total", r->n_requests);
    saf__json_whole(b, o, "failed_requests", r->failed_requests);
    saf__json_whole(b, o, "tokens", r->completion_tokens);
    saf__json_number(b, o, "seconds", r->run_s);
    saf__json_whole(b, o, "resumes", r->resumes);
    saf__json_text(b, o, "start_time", r->start_time);
    saf__json_text(b, o, "written", r->end_time);
    saf__json_identity(b, o, &r->identity);
}

static void add_resumable(saf__json *b, cJSON *o, const status *s) {
    const saf_checkpoint_head *h = saf_checkpoint_head_of(s->checkpoint);
    saf__json_text(b, o, "job_kind", h->kind);
    saf__json_text(b, o, "model_name", h->model_name);
    saf__json_whole(b, o, "done", h->done);
    saf__json_whole(b, o, "total", h->total);
    saf__json_whole(b, o, "tokens", h->tokens);
    saf__json_number(b, o, "seconds", h->seconds);
    saf__json_whole(b, o, "resumes", h->resumes);
    saf__json_text(b, o, "start_time", h->start_time);
    saf__json_text(b, o, "written", h->written);
    saf__json_text(b, o, "checkpoint", saf_checkpoint_path(s->checkpoint));
    saf__json_whole(b, o, "checkpoint_bytes", s->bytes);
    saf__json_identity(b, o, &h->identity);
}

static saf_status print_json(const status *s) {
    saf__json b = {false};
    cJSON *root = cJSON_CreateObject();
    saf__json_text(&b, root, "file", s->path);
    saf__json_text(&b, root, "state", state_of(s));
    saf__json_add(&b, root, "running", cJSON_CreateBool(s->running));
    if (s->done)
        add_done(&b, root, &s->results);
    else if (s->checkpoint)
        add_resumable(&b, root, s);
    else if (s->step > 0)
        add_done(&b, root, &s->of_step);
    if (!s->done && s->step > 0) saf__json_whole(&b, root, "chain_step", s->step);
    saf__json_text(&b, root, "why", s->why);
    saf_status st = saf__json_print(&b, stdout, root);
    cJSON_Delete(root);
    return st;
}

int saf__cmd_status(int argc, char **argv) {
    command c = {0};
    status s = {0};
    saf_status st = SAF_OK;
    parse_words(argc, argv, &c);
    if (c.help) {
        print_help();
        return 0;
    }
    if (c.wrong) return saf__cli_usage(usage, "what is \"%s\"?", c.wrong);
    if (c.paths != 1) return saf__cli_usage(usage, "`saf status` takes one file, not %d", c.paths);
    s.path = c.path;
    SAF_TRY(look(&s));
    if (c.json)
        SAF_TRY(print_json(&s));
    else
        print_status(&s);
out:;
    int code = st == SAF_OK ? code_of(&s) : saf__cli_exit(st);
    saf_results_free(&s.results);
    saf_results_free(&s.of_step);
    saf_checkpoint_free(&s.checkpoint);
    saf_free(&s.output);
    saf_free(&s.why);
    return code;
}
